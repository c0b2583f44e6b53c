"""How far work is: what a function hears, and what ``progress="auto"`` shows."""

from __future__ import annotations

import io
import sys
import time
from typing import Any

import numpy as np
import pytest
from support import DIGITS

import diver
from diver.errors import OptionError, OptionTypeError
from diver.progress import Bar, Progress


def slow(images: np.ndarray[Any, Any], progress: Any) -> np.ndarray[Any, Any]:
    """The identity, in four steps of 60 ms."""
    for step in range(4):
        time.sleep(0.06)
        progress(step + 1, 4)
    return np.round(255 * images).astype(np.uint8)


slow.preferred_batch = 4  # type: ignore[attr-defined]


def loader(progress: Any, **options: Any) -> diver.DataLoader:
    return diver.DataLoader(DIGITS, refiner=slow, batch_size=10, progress=progress, **options)


def test_a_function_hears_of_refining_while_a_batch_is_waited_for() -> None:
    heard: list[Progress] = []
    with loader(heard.append) as batches:
        list(batches)
        assert {(p.stage, p.total) for p in heard} == {("refining", 10)}
        done = [p.done for p in heard]
        assert done == sorted(done) and done[0] == 0 and max(done) < 10
        etas = [p.eta_seconds for p in heard if p.eta_seconds is not None]
        assert etas and all(0 <= eta < 5 for eta in etas)
        count = len(heard)
        list(batches)
        assert len(heard) == count, "what is there is not waited for"


def test_a_function_hears_of_labelling() -> None:
    def teacher(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        time.sleep(0.2)
        return np.zeros((len(images), 10), np.float32)

    heard: list[Progress] = []
    labels = diver.labels.teacher(teacher, batch_size=4)
    with diver.DataLoader(DIGITS, labels=labels, batch_size=10, progress=heard.append) as batches:
        list(batches)
    assert {p.stage for p in heard} == {"labelling"}
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    assert {p.done + 4 for p in heard} <= {4, 8, 12}


def test_what_a_function_raises_loses_nothing() -> None:
    def raises(progress: Progress) -> None:
        raise RuntimeError("told to")

    with loader(raises) as batches:
        iterator = iter(batches)
        with pytest.raises(RuntimeError, match="told to"):
            next(iterator)
        batches._progress = None
        assert len(next(iter(batches)).images) == 10


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(OptionError, match=r'progress: .*"auto", a function or None'):
        loader("bar")
    with pytest.raises(OptionTypeError, match="progress"):
        loader(3)
    with loader(None) as silent:
        assert len(list(silent)) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_a_log_gets_lines(monkeypatch: pytest.MonkeyPatch, out: type[io.StringIO]) -> None:
    monkeypatch.setattr(sys, "stderr", out())
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(Bar, "PATIENCE", 0.0)
    monkeypatch.setattr(Bar, "PAUSE", 0.0)
    with loader("auto") as batches:
        list(batches)
    lines = sys.stderr.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("refining: 0 of 10 images"), lines
    assert any(line.endswith(" s left") for line in lines), lines


def test_a_log_gets_a_line_for_all_batches_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(Bar, "PATIENCE", 0.2)
    monkeypatch.setattr(Bar, "PAUSE", 0.4)
    with diver.DataLoader(DIGITS, refiner=slow, batch_size=2, prefetch=1, progress="auto") as batches:
        list(batches)
    # Each batch is there within less.
    assert "refining: " in sys.stderr.getvalue()  # type: ignore[attr-defined]


def test_what_is_done_grows_from_batch_to_batch() -> None:
    heard: list[Progress] = []
    with diver.DataLoader(DIGITS, refiner=slow, batch_size=1, prefetch=1, progress=heard.append) as batches:
        list(batches)
        assert batches.stats()["refining"]["done"] == 10
    assert heard[-1].done > 4


def test_what_progress_calls_may_end_the_epoch() -> None:
    def jumps(progress: Progress) -> None:
        batches.set_epoch(3)

    batches = loader(jumps)
    with batches, pytest.raises(diver.errors.ClosedError, match="another was begun"):
        list(batches)
    assert batches.stats()["samples"] >= 0, "what it had done is known when it is closed"


def test_what_is_short_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with loader("auto") as batches:
        list(batches)
    assert capfd.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(Bar, "PATIENCE", 0.0)
    with loader("auto") as batches:
        list(batches)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "refining:" in shown and "/10" in shown and " s left" in shown, shown
    assert shown.endswith("\r"), "it is taken away"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 s"), (89.0, "89 s"), (600.0, "10 min"), (7200.0, "2.0 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert str(Progress("refining", 1, 2, seconds)) == f"refining: 1 of 2 images, {text} left"


def test_samples_that_fail_are_skipped_where_that_is_asked_for() -> None:
    images = np.full((4, 3, 8, 8), 0.5, np.float32)
    images[2] = np.nan
    options: dict[str, Any] = {"batch_size": 2, "progress": None}
    source = diver.from_tensors(images, [0, 1, 0, 1])
    with diver.DataLoader(source, **options) as batches:
        iterator = iter(batches)
        next(iterator)
        with pytest.raises(diver.DiverError, match="sample 2"):
            next(iterator)
    with diver.DataLoader(source, on_error="skip", **options) as batches:
        assert [batch.indices.tolist() for batch in batches] == [[0, 1], [0, 3]]
        assert batches.stats()["skipped"] == 1
    with pytest.raises(OptionError, match="on_error"):
        diver.DataLoader(source, on_error="ignore", **options)
