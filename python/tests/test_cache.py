"""Looking into a cache and tidying it; that a cache keeps images is tested with the loader."""

from __future__ import annotations

import datetime
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from support import DIGITS, SHAPES, eventually, inverter, threads

import diver
from diver.errors import OptionError, OptionTypeError


def refiner(version: int):  # type: ignore[no-untyped-def]
    made = inverter()
    made.fingerprint = {"name": "invert", "knobs": {"version": version, "gain": 0.5}}
    return made


def fill(cache: diver.Cache, version: int, source: Path = DIGITS) -> None:
    """Refines a set."""
    with diver.DataLoader(source, refiner=refiner(version), cache=cache, format="numpy") as loader:
        assert all(batch.refined.all() for batch in loader)


def test_a_listing_says_what_is_there_and_what_differs(tmp_path: Path) -> None:
    cache = diver.Cache(tmp_path)
    fill(cache, 1)
    fill(cache, 2)
    listed = sorted(cache.ls(), key=lambda one: one.differs["knobs.version"])
    assert [one.differs for one in listed] == [{"knobs.version": 1}, {"knobs.version": 2}]
    assert all(one.rows == 10 and one.parts >= 1 and one.holds == "images" for one in listed)
    assert listed[0].path == tmp_path / listed[0].name and listed[0].path.is_dir()
    assert listed[0].bytes == sum(file.stat().st_size for file in listed[0].path.iterdir())
    assert 0 <= listed[0].unused_seconds < 60
    assert [(one.found, one.wanted) for one in listed] == [(None, None)] * 2
    assert [(one.found, one.wanted) for one in cache.ls(DIGITS)] == [(10, 10)] * 2
    assert [(one.found, one.wanted) for one in cache.ls(diver.open(SHAPES))] == [(0, 100)] * 2


def test_an_explanation_counts_what_is_there_and_names_the_difference(tmp_path: Path) -> None:
    cache = diver.Cache(tmp_path)
    fill(cache, 1)
    hit = cache.explain(DIGITS, refiner=refiner(1))
    assert (hit.verdict, hit.found, hit.wanted, hit.neighbours) == ("hit", 10, 10, ())
    miss = cache.explain(diver.open(DIGITS), refiner=refiner(3))
    assert (miss.verdict, miss.found) == ("miss", 0)
    nearest = miss.neighbours[0]
    assert (nearest.name, nearest.found) == (hit.name, 10)
    [difference] = nearest.differences
    assert (difference.field, difference.wanted, difference.theirs) == ("knobs.version", 3, 1)
    assert cache.explain(SHAPES, refiner=refiner(1)).verdict == "miss"
    assert len(cache.ls()) == 1, "an explanation writes nothing"
    with pytest.raises(OptionError, match="fingerprint"):
        cache.explain(DIGITS, refiner=inverter())


def test_damage_is_found_and_parts_are_merged(tmp_path: Path) -> None:
    cache = diver.Cache(tmp_path)
    fill(cache, 1)
    fill(cache, 1, SHAPES)
    fill(cache, 2)
    assert (cache.verify().rows, cache.verify().damaged) == (120, ())
    merged = cache.compact()
    assert merged.gathered >= 2 and (merged.into, merged.rows) == (1, 110)
    assert [one.parts for one in cache.ls()] == [1, 1]
    part = max(tmp_path.glob("*/part-*.parquet"), key=lambda file: file.stat().st_size)
    part.write_bytes(part.read_bytes()[:100] + b"rot" + part.read_bytes()[103:])
    found = cache.verify()
    assert (found.rows, found.damaged, found.faults) == (10, (part,), ())


def test_nothing_goes_that_is_not_meant_to(tmp_path: Path) -> None:
    cache = diver.Cache(tmp_path)
    fill(cache, 1)
    fill(cache, 2)
    names = {one.name for one in cache.ls()}
    assert {one.name for one in cache.gc(keep=0)} == names == {one.name for one in cache.ls()}
    for older in (3600, "30d", datetime.timedelta(days=1)):
        assert cache.gc(older=older, apply=True) == []
    assert cache.gc(keep="20GB", apply=True) == []
    gone = min(names)
    [evicted] = cache.gc(fingerprints=[gone], apply=True)
    assert (evicted.name, evicted.is_in_use, evicted.path.exists()) == (gone, False, False)
    assert {one.name for one in cache.ls()} == names - {gone}
    with pytest.raises(OptionError, match="fingerprint"):
        cache.gc(fingerprints=["nothing"])
    with pytest.raises(OptionError, match="keep"):
        cache.gc()


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"local": ""}, OptionError, "local"),
        ({"limit": "much"}, OptionError, "limit"),
        ({"limit": -1}, OptionError, "limit"),
        ({"limit": 1.5}, OptionTypeError, "limit"),
        ({"lease_expiry": 0.01}, OptionError, "lease_expiry"),
        ({"lease_expiry": "soon"}, OptionError, "lease_expiry"),
        ({"lease_expiry": -1}, OptionError, "lease_expiry"),
        ({"lease_expiry": 1e300}, OptionError, "lease_expiry"),
        ({"image_form": "jpeg"}, OptionError, "image_form"),
        ({"local": "s3://bucket/copies"}, OptionError, "local"),
        ({"local": 7}, OptionTypeError, "local"),
        ({"local_limit": "much"}, OptionError, "local_limit"),
    ],
)
def test_a_wrong_option_is_named(tmp_path: Path, options: dict[str, object], error: type, name: str) -> None:
    with pytest.raises(error, match=f"^{name}: "):
        diver.Cache(tmp_path, **options)  # type: ignore[arg-type]


def test_a_limit_holds_in_a_pickled_cache_too(tmp_path: Path) -> None:
    given = diver.Cache(tmp_path, limit="1 kB", lease_expiry=datetime.timedelta(seconds=5))
    cache = pickle.loads(pickle.dumps(given))
    assert (cache._options["limit"], cache._options["lease_expiry"], cache.path) == (1000, 5.0, tmp_path)
    fill(cache, 1)
    fill(cache, 2)
    assert [one.fingerprint["knobs"]["version"] for one in cache.ls()] == [2]


@pytest.mark.parametrize("form", ["png", "webp", "raw"])
def test_images_of_every_form_come_back_and_are_copied(
    tmp_path: Path, form: Literal["png", "webp", "raw"]
) -> None:
    cache = diver.Cache(tmp_path / "cache", image_form=form)
    fill(cache, 1)
    copied = diver.Cache(tmp_path / "cache", local=tmp_path / "local", local_limit="1GB")
    with diver.DataLoader(DIGITS, refiner=refiner(1), cache=copied, format="numpy") as loader:
        [batch] = loader
        assert loader.stats()["misses"] == 0
    with diver.DataLoader(DIGITS, refiner=refiner(1), format="numpy") as loader:
        [fresh] = loader
    assert (batch.images == fresh.images).all()
    parts = len(list(cache.ls()[0].path.glob("part-*.parquet")))
    assert len(list((tmp_path / "local" / "diver-parts").iterdir())) == parts


def test_ctrl_c_ends_a_call(tmp_path: Path) -> None:
    """``gc`` watches the lease of a dead process for 30 s."""
    cache = diver.Cache(tmp_path)
    fill(cache, 1)
    [listed] = cache.ls()
    leases = tmp_path / f"{listed.name}-leases"
    leases.mkdir(exist_ok=True)
    (leases / "lease-x.json").write_text('{"holder": "x", "beat": 0, "keys": []}')
    began = time.monotonic()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        cache.gc(keep=0, apply=True)
    assert time.monotonic() - began < 5
    assert eventually(lambda: "diver-cache" not in threads())
    assert listed.path.exists(), "nothing is deleted later"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket, on a server of this machine."""
    (tmp_path / "served" / "bucket").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "localbucket", "--port", str(port), str(tmp_path / "served")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def answers() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    assert eventually(answers, 20)
    yield "s3://bucket/some/folder"
    server.kill()
    server.wait()


def test_dropping_caches_in_a_bucket_waits_for_nobody(bucket: str) -> None:
    # Its thread may want to log, for which it needs the lock that is held while the cache is dropped.
    script = f"import diver\nfor _ in range(60):\n    diver.Cache({bucket!r}).ls()"
    runs = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [run.wait(timeout=100) for run in runs] == [0, 0, 0]


def test_an_address_that_is_wrong_is_told(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:1")
    with pytest.raises(diver.errors.FileError, match="http://"):
        diver.Cache(bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    script = f"import diver\nprint('here', flush=True)\ndiver.Cache({bucket!r})"
    options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **options) as run:
        assert run.stdout is not None and run.stdout.readline() == "here\n"
        time.sleep(0.3)
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=8) != 0


def test_a_cache_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    cache = diver.Cache("sub", local="copies")
    monkeypatch.chdir(tmp_path / "b")
    fill(cache, 1)
    copy = pickle.loads(pickle.dumps(cache))
    assert cache.path == copy.path == tmp_path / "a" / "sub"
    assert len(cache.ls()) == len(copy.ls()) == 1
    assert list((tmp_path / "b").iterdir()) == []


def test_files_of_others_stay(tmp_path: Path) -> None:
    cache = diver.Cache(tmp_path)
    fill(cache, 1)
    [one] = cache.ls()
    for name in ("part-9.parquet", "part-x.parquet", "NOTES.txt"):
        (one.path / name).write_text("not diver's")
    foreign = tmp_path / "0123456789abcdef"
    foreign.mkdir()
    (foreign / "part-00000000.parquet").write_text("not diver's")
    fill(cache, 1)
    assert {listed.name: listed.rows for listed in cache.ls()} == {one.name: 10, foreign.name: 0}
    cache.gc(keep=0, apply=True)
    assert sorted(path.name for path in one.path.iterdir()) == [
        "NOTES.txt",
        "part-9.parquet",
        "part-x.parquet",
    ]
    assert (foreign / "part-00000000.parquet").exists()


def test_a_cache_in_a_bucket_serves_later_runs(bucket: str) -> None:
    fill(diver.Cache(bucket), 1)
    cache = pickle.loads(pickle.dumps(diver.Cache(bucket)))
    assert repr(cache) == f"Cache({bucket!r})"
    with diver.DataLoader(DIGITS, refiner=refiner(1), cache=bucket, format="numpy") as loader:
        assert all(batch.refined.all() for batch in loader)
        assert loader.stats()["misses"] == 0 and loader.stats()["disk_hits"] == 10
    assert [one.rows for one in cache.ls()] == [10]
    assert cache.verify().rows == 10
    cache.gc(keep=0, apply=True)
    assert cache.ls() == []


def test_a_store_in_memory_is_found_by_its_name() -> None:
    fill(diver.Cache("memory://test_cache"), 1)
    assert [one.rows for one in diver.Cache("memory://test_cache").ls()] == [10]


@pytest.mark.parametrize("url", ["s3://", "ftp://host/x", "hf://datasets/owner/name"])
def test_urls_of_no_store_are_refused(url: str) -> None:
    with pytest.raises(OptionError, match="cache"):
        diver.Cache(url)
