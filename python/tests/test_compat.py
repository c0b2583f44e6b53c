"""Files that earlier versions wrote, in `tests/compat`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support import ROOT

import diver

sys.path.insert(0, str(ROOT / "tests" / "compat"))
import make_cache

CACHES = sorted((ROOT / "tests" / "compat").glob("cache-*"))


@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache.name)
def test_caches_of_earlier_versions_serve(tmp_path: Path, cache: Path) -> None:
    shutil.copytree(cache, tmp_path / "cache")

    def refiner(images: np.ndarray) -> np.ndarray:
        pytest.fail("the cache has every image")

    refiner.fingerprint = make_cache.invert.fingerprint  # type: ignore[attr-defined]
    with diver.DataLoader(
        make_cache.source(), batch_size=6, shuffle=False, refiner=refiner, cache=tmp_path / "cache", mix=1.0
    ) as loader:
        batch = next(iter(loader))
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (loader.source.mean, loader.source.std))
    pixels = np.rint((np.asarray(batch.images) * std + mean) * 255)
    assert np.array_equal(pixels, 255 - make_cache.images())
