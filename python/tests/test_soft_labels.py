"""FKD's soft labels in Python, against what torch and PIL made of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT

import diver
from diver.errors import DataError, OptionError, OptionTypeError

FKD = ROOT / "tests" / "fixtures" / "fkd"
SIDE = 12


def images(**options: Any) -> diver.Source:
    return diver.open(FKD / "images", **options)


@pytest.mark.parametrize("tree", ["cutmix", "mixup", "old", "indexed"])
def test_views_are_what_torch_and_pil_make(tree: str) -> None:
    labels = diver.SoftLabels(FKD / tree, images(mean=0, std=1), size=SIDE)
    views = labels.views(1, 0)
    expected = torch.from_numpy(np.fromfile(FKD / f"{tree}.f32", "<f4")).view(10, 3, SIDE, SIDE)
    assert (views.images - expected).abs().max() < 1.01 / 255
    assert views.logits.shape == (10, 12) and views.indices.dtype == torch.int64


def test_an_epoch_has_every_image_once() -> None:
    source = images()
    labels = diver.SoftLabels(FKD / "cutmix", source, size=SIDE)
    assert repr(labels) == "<soft labels: 2 epochs of 3 batches, 12 x 12 pixels>"
    seen = []
    for batch in labels.epoch(1):
        pixels, logits, indices = batch
        assert pixels.shape == (len(indices), 3, SIDE, SIDE) and torch.isfinite(pixels).all()
        assert [source[i].label for i in indices.tolist()] == logits.argmax(1).tolist()
        seen += indices.tolist()
    assert sorted(seen) == list(range(24))
    # Some of them are enough for whoever stops early.
    next(iter(labels.epoch(0)))


def test_numpy_does_without_torch() -> None:
    views = diver.SoftLabels(FKD / "mixup", images(), size=SIDE, format="numpy").views(0, 0)
    assert all(isinstance(part, np.ndarray) for part in views)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionTypeError, match="images: PosixPath is not what"):
        diver.SoftLabels(FKD / "cutmix", FKD / "images")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="size: 0 must be at least 1"):
        diver.SoftLabels(FKD / "cutmix", images(), size=0)
    with pytest.raises(DataError, match=r"epoch_0/batch_0\.tar is expected"):
        diver.SoftLabels(FKD / "images", images())
    labels = diver.SoftLabels(FKD / "cutmix", images(), size=SIDE)
    for epoch, batch in (2, 0), (0, 3):
        with pytest.raises(DataError, match=f"no batch {batch} of epoch {epoch}"):
            labels.views(epoch, batch)
    with pytest.raises(DataError, match="mix_bbox"):
        diver.SoftLabels(FKD / "cutmix", images(), size=4).views(0, 0)
    with pytest.raises(
        DataError, match=r"it has epoch_0, epoch_1\. Nearest are FKD's soft labels .*SoftLabels"
    ):
        diver.open(FKD / "cutmix")
    copy = tmp_path / "cutmix"
    shutil.copytree(FKD / "cutmix", copy)
    (copy / "epoch_1" / "batch_1.tar").write_bytes(b"PK")
    with pytest.raises(DataError, match="batch_1"):
        list(diver.SoftLabels(copy, images(), size=SIDE).epoch(1))
