"""How far long work is: what a progress function hears, and the bar that ``progress="auto"`` shows."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from diver import _options
from diver.errors import OptionError


class Progress(NamedTuple):
    """How far long work is.

    >>> str(Progress("refining", 12, 100, 220.0))
    'refining: 12 of 100 images, 4 min left'
    """

    #: ``"refining"``: images that the epoch asks for, of which ``done`` are there. ``"labelling"``: images or views
    #: that the teacher was asked for.
    stage: str
    done: int
    total: int
    #: Seconds until all are done; None while nobody knows.
    eta_seconds: float | None = None

    def __str__(self) -> str:
        left = "" if self.eta_seconds is None else f", {_duration(self.eta_seconds)} left"
        return f"{self.stage}: {self.done} of {self.total} images{left}"


class Bar:
    """Shows progress on standard error: a bar of tqdm in terminals and notebooks, where it is installed; elsewhere a
    line every 30 seconds. What is over within two seconds is not shown."""

    #: Seconds.
    PATIENCE, PAUSE = 2.0, 30.0

    def __init__(self) -> None:
        self._stage: str | None = None
        self._since = self._told = 0.0
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._stage:
            self.close()
            self._stage, self._since, self._told = progress.stage, now, now
        if self._bar is None and now - self._since < self.PATIENCE:
            return
        tqdm = _tqdm()
        if tqdm is None:
            if now - self._told >= self.PAUSE:
                self._told = now
                print(progress, file=sys.stderr, flush=True)
            return
        if self._bar is None:
            self._bar = tqdm(
                desc=progress.stage, total=progress.total, initial=progress.done, unit="image", leave=False
            )
        self._bar.total = progress.total
        left = progress.eta_seconds
        self._bar.set_postfix_str("" if left is None else f"{_duration(left)} left", refresh=False)
        self._bar.update(progress.done - self._bar.n)
        self._bar.refresh()

    def hide(self) -> None:
        """Takes the bar away until there is more to show."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def close(self) -> None:
        """Ends what was shown."""
        self.hide()
        self._stage = None


def hears(
    progress: Callable[[Progress], object], stage: str, done: int, total: int, eta_seconds: float | None
) -> None:
    """Tells ``progress`` what the engine says."""
    progress(Progress(stage, done, total, eta_seconds))


def listener(progress: object, rank: int) -> Callable[[Progress], object] | None:
    """What hears of progress, as the option ``progress`` says: one rank speaks for all."""
    if progress is None:
        return None
    if progress == "auto":
        return Bar() if rank == 0 else None
    if isinstance(progress, str):
        raise OptionError(f'progress: {progress!r} is given; "auto", a function or None is expected')
    if not callable(progress):
        _options.wrong_type("progress", progress, '"auto", a function or None')
    return progress


def _tqdm() -> Any:
    """tqdm's bar for where the program runs; None where a bar would only fill a log, or tqdm is not installed."""
    is_notebook = "ipykernel" in sys.modules
    if not is_notebook and not (sys.stderr is not None and sys.stderr.isatty()):
        return None
    try:
        return importlib.import_module("tqdm.auto").tqdm
    except ImportError:
        return None


def _duration(seconds: float) -> str:
    """About so long, as in ``4 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
