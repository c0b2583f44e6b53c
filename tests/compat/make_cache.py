"""Makes a cache of refined images as the version that is installed writes it: a folder of `tests/compat` for each
version whose files must stay readable. Usage: make_cache.py FOLDER, where FOLDER is new."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import diver


def images() -> np.ndarray:
    """Six images, uint8 `[6, 3, 4, 5]`."""
    return (np.arange(6 * 60) * 7 % 256).astype(np.uint8).reshape(6, 3, 4, 5)


def labels() -> np.ndarray:
    """Their logits, float32 `[6, 3]`."""
    return (np.arange(18) % 5).astype(np.float32).reshape(6, 3)


def invert(images: Any) -> np.ndarray:
    """The refiner: every pixel's opposite."""
    return np.rint((1 - images) * 255).astype(np.uint8)


invert.fingerprint = {"refiner": "invert", "of": "compat"}  # type: ignore[attr-defined]
invert.preferred_batch = 4  # type: ignore[attr-defined]


def source() -> diver.Source:
    """The set that is refined."""
    return diver.from_tensors(images(), labels(), dataset="cifar10", classes="identity")


def main() -> None:
    with diver.DataLoader(source(), batch_size=4, refiner=invert, cache=sys.argv[1], threads=1) as loader:
        for _ in loader:
            pass


if __name__ == "__main__":
    main()
