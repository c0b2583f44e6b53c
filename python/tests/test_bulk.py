"""Whole sets at once: refined, labelled, looked at, exported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import DIGITS, SHAPES, eventually, inverter, threads

import diver
from diver.errors import DataError, DiverError, FileError, OptionError, OptionTypeError
from diver.progress import Progress


def slow(images: np.ndarray[Any, Any], progress: Any) -> np.ndarray[Any, Any]:
    """An inverter, in four steps of 60 ms."""
    for step in range(4):
        time.sleep(0.06)
        progress(step + 1, 4)
    return np.round(255 * (1 - images)).astype(np.uint8)


slow.fingerprint = "slow"  # type: ignore[attr-defined]
slow.preferred_batch = 4  # type: ignore[attr-defined]


def brightness(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.tile(images.mean((1, 2, 3))[:, None], 10) * np.arange(10, dtype=np.float32)


TEACHER = diver.labels.teacher(brightness, fingerprint="brightness", batch_size=4)


def test_a_refined_set_is_found_by_a_loader(tmp_path: Path) -> None:
    heard: list[Progress] = []
    first = diver.refine(DIGITS, refiner=slow, cache=tmp_path, progress=heard.append)
    assert (first.cached, first.refined) == (0, 10) and first.seconds > 0.2
    assert {p.stage for p in heard} == {"refining"} and {p.total for p in heard} == {10}
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    assert any(p.eta_seconds for p in heard)
    again = diver.refine(diver.open(DIGITS), refiner=slow, cache=diver.Cache(tmp_path), progress=None)
    assert (again.cached, again.refined) == (10, 0)
    with diver.DataLoader(DIGITS, refiner=slow, cache=tmp_path) as loader:
        list(loader)
        assert loader.stats()["misses"] == 0


def test_shares_and_variants_are_refined_apart(tmp_path: Path) -> None:
    shares = [
        diver.refine(DIGITS, refiner=slow, cache=tmp_path, shard=(index, 3), variants=2, progress=None)
        for index in range(3)
    ]
    assert [share.refined for share in shares] == [8, 6, 6]
    for shard in [(3, 3), (0, 0)]:
        with pytest.raises(OptionError, match=r"shard: .* count from 0"):
            diver.refine(DIGITS, refiner=slow, cache=tmp_path, shard=shard)


def test_a_labelled_set_is_found_by_a_loader(tmp_path: Path) -> None:
    heard: list[Progress] = []
    refined: dict[str, Any] = {"refiner": slow, "cache": tmp_path}
    done = diver.label(DIGITS, labels=TEACHER, progress=heard.append, **refined)
    assert (done.cached, done.labelled) == (0, 10)
    assert [(p.stage, p.done) for p in heard if p.done in (4, 8, 10)][-1] == ("labelling", 10)
    assert diver.label(DIGITS, labels=TEACHER, progress=None, **refined).cached == 10
    assert diver.label(DIGITS, labels=TEACHER, cache=tmp_path).labelled == 10, "raw images are others"
    # It has no noise, so that its refinements are alike; and still each has logits of its own.
    more = diver.label(DIGITS, labels=TEACHER, variants=3, progress=None, **refined)
    assert (more.cached, more.labelled) == (10, 20)
    with diver.DataLoader(DIGITS, labels=TEACHER, **refined) as loader:
        list(loader)
        assert loader.stats()["taught"] == 0


def test_labels_that_cannot_be_kept_are_an_error(tmp_path: Path) -> None:
    cache = diver.Cache(tmp_path / "cache")

    def teacher(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        # A file is in the place of the folder from now on.
        if (tmp_path / "cache").is_dir():
            os.rename(tmp_path / "cache", tmp_path / "away")
            (tmp_path / "cache").write_bytes(b"")
        return brightness(images)

    labels = diver.labels.teacher(teacher, fingerprint="breaks")
    with pytest.raises(FileError, match="cache"):
        diver.label(DIGITS, labels=labels, cache=cache, progress=None)
    assert eventually(lambda: not threads())


def test_a_preview_shows_raw_above_refined(tmp_path: Path) -> None:
    raw = np.asarray(diver.preview(SHAPES, per_class=2, scale=1))
    assert raw.shape == (2 * 34 + 2, 10 * 34 + 2, 3)
    both = np.asarray(diver.preview(SHAPES, refiner=inverter(), cache=tmp_path, scale=1))
    assert both.shape == raw.shape
    above, below = both[2:34, 2:34].astype(int), both[36:68, 2:34].astype(int)
    assert np.array_equal(above, raw[2:34, 2:34]) and np.array_equal(below, 255 - above)
    with pytest.raises(OptionError, match="per_class"):
        diver.preview(SHAPES, per_class=0)


@pytest.mark.parametrize("to", ["dc", "mtt", "image-folder", "webdataset", "parquet", "safetensors"])
def test_exports_are_read_again(to: str, tmp_path: Path) -> None:
    done = diver.export(DIGITS, tmp_path / to, to=to, refiner=inverter(), progress=None)
    assert (done.samples, done.path) == (10, tmp_path / to)
    file = {"dc": "res_DIVER.pt", "safetensors": "data.safetensors"}.get(to, "")
    source = diver.open(tmp_path / to / file)
    assert len(source) == 10
    with diver.DataLoader(DIGITS, refiner=inverter(), batch_size=10) as loader:
        (batch,) = loader
    for index in range(10):
        assert np.allclose(source[index][0], batch.images[index], atol=2e-2)
    with pytest.raises(DataError, match="not empty"):
        diver.export(DIGITS, tmp_path / to, to=to)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"to: .*image-folder"):
        diver.export(DIGITS, tmp_path / "x", to="imagefolder")
    with pytest.raises(OptionError, match="refiner: it has no fingerprint"):
        diver.refine(DIGITS, refiner=lambda images: images, cache=tmp_path)
    with pytest.raises(OptionError, match="refiner: it has no fingerprint"):
        diver.label(DIGITS, labels=TEACHER, refiner=lambda images: images, cache=tmp_path)
    with pytest.raises(OptionError, match="labels: the teacher has no fingerprint"):
        diver.label(DIGITS, labels=diver.labels.teacher(brightness), cache=tmp_path)
    with pytest.raises(OptionTypeError, match="labels: what diver\\.labels\\.teacher makes"):
        diver.label(DIGITS, labels=diver.labels.hard(), cache=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="per='view'"):
        diver.label(DIGITS, labels=diver.labels.teacher(brightness, per="view"), cache=tmp_path)
    with pytest.raises(OptionError, match="classes: "):
        diver.refine(diver.open(DIGITS), refiner=slow, cache=tmp_path, classes=range(10))
    for call in (diver.preview, lambda *a, **k: diver.export(*a, tmp_path / "y", to="mtt", **k)):
        with pytest.raises(OptionError, match="cache: without a refiner"):
            call(DIGITS, cache=tmp_path)
    with pytest.raises(DiverError, match="nowhere"):
        diver.preview(tmp_path / "nowhere")


def test_what_progress_raises_ends_the_work(tmp_path: Path) -> None:
    def raises(progress: Progress) -> None:
        raise RuntimeError("told to")

    with pytest.raises(RuntimeError, match="told to"):
        diver.refine(DIGITS, refiner=slow, cache=tmp_path, progress=raises)
    assert eventually(lambda: not threads())
    done = diver.refine(DIGITS, refiner=slow, cache=tmp_path, progress=None)
    assert done.refined + done.cached == 10


def test_ctrl_c_ends_a_refinement_and_keeps_what_is_done(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import sys, time, numpy, diver

        def refiner(images, cancel):
            print("called", flush=True)
            for _ in range(100):
                if cancel.is_cancelled():
                    raise RuntimeError("cancelled")
                time.sleep(0.02)
            return numpy.round(255 * images).astype("uint8")

        refiner.fingerprint, refiner.preferred_batch = "slow", 4
        try:
            diver.refine({str(DIGITS)!r}, refiner=refiner, cache={str(tmp_path)!r})
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "called\n"
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        assert process.stdout.readline() == "interrupted\n"
        assert time.monotonic() - started < 1
        assert process.wait(10) == 0
