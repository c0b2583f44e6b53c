"""What the tests of `diver` share: the shipped sets, refiners, and programs to run apart."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import diver

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits" / "dm_ipc1"
SHAPES = ROOT / "examples" / "shapes" / "dm_ipc10"


def invert(images: np.ndarray) -> np.ndarray:
    """A refiner: every pixel's opposite."""
    return np.rint((1 - images) * 255).astype(np.uint8)


def inverter() -> Callable[..., Any]:
    """A copy of `invert` to hang attributes on."""

    def refiner(images: np.ndarray) -> np.ndarray:
        return invert(images)

    return refiner


def stored(source: diver.Source) -> list[diver.Sample]:
    """All samples as they are stored."""
    return [source.sample(index) for index in range(len(source))]


def unit_pixels(source: diver.Source, index: int) -> np.ndarray:
    """Sample `index` as a refiner sees it."""
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (source.mean, source.std))
    return np.clip(source.sample(index).values * std + mean, 0, 1)


def normalized(source: diver.Source, image: np.ndarray) -> np.ndarray:
    """A uint8 image as a batch has it."""
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (source.mean, source.std))
    return (image.astype(np.float32) / np.float32(255) - mean) / std


def plain(batch: diver.Batch) -> tuple[Any, ...]:
    """All of a batch as bytes and lists, for comparison."""
    return (
        np.asarray(batch.images).tobytes(),
        np.asarray(batch.targets).tobytes(),
        batch.indices.tolist(),
        batch.refined.tolist(),
    )


def threads(prefix: str = "diver-") -> list[str]:
    """The names of this process's threads that begin with `prefix`."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:  # It ended meanwhile.
            continue
    # Not those of refiners on torch, which live as long as their tests' fixtures.
    return sorted(name for name in names if name.startswith(prefix) and name != "diver-refiner")


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def run(program: str, *arguments: str, timeout: float = 30.0) -> tuple[int, str, str]:
    """Runs a Python program apart; returns its exit code and what it wrote to both outputs."""
    return _run("-c", textwrap.dedent(program), *arguments, timeout=timeout)


def run_file(program: Path, *arguments: str, timeout: float = 30.0) -> tuple[int, str, str]:
    """As `run`, of a file."""
    return _run(str(program), *arguments, timeout=timeout)


def _run(*arguments: str, timeout: float) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    return ended.returncode, ended.stdout, ended.stderr
