"""FKD's soft labels in Python, against what torch and PIL made of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT, run
from test_signals import ANSWER, PRELUDE, seconds

import diver
from diver.errors import DataError, DiverError, OptionError, OptionTypeError, OutOfRangeError

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
        assert [source.sample(i).label for i in indices.tolist()] == logits.argmax(1).tolist()
        seen += indices.tolist()
    assert sorted(seen) == list(range(24))
    # Some of them are enough for whoever stops early.
    next(iter(labels.epoch(0)))


def test_an_index_beyond_the_end_is_an_index_error() -> None:
    labels = diver.SoftLabels(FKD / "cutmix", images(), size=SIDE)
    assert issubclass(OutOfRangeError, DiverError) and issubclass(OutOfRangeError, IndexError)
    with pytest.raises(OutOfRangeError, match="epoch: there is no epoch 2 among 2"):
        labels.views(2, 0)
    with pytest.raises(OutOfRangeError, match="batch: there is no batch 3 among 3"):
        labels.views(0, 3)
    with pytest.raises(OutOfRangeError, match="epoch: there is no epoch 99 among 2"):
        labels.epoch(99)  # At the call, before the first batch is asked for.
    with pytest.raises(OptionError, match="epoch: -1 must be at least 0"):
        labels.epoch(-1)


def test_boxes_are_scaled_from_the_teachers_size() -> None:
    source = images(mean=0, std=1)
    labels = diver.SoftLabels(FKD / "cutmix", source, size=2 * SIDE, teacher_size=SIDE)
    mixed = labels.views(1, 0).images
    # Where the box is none of the view, images are themselves.
    own = diver.SoftLabels(FKD / "cutmix", source, size=2 * SIDE, teacher_size=1 << 13).views(1, 0).images
    changed = (mixed != own).any(1).any(0)
    box = torch.zeros(2 * SIDE, 2 * SIDE, dtype=torch.bool)
    box[4:16, 6:22] = True  # The fixture's is 2:8, 3:11 of 12.
    assert (changed <= box).all() and changed.float().sum() > 0.9 * box.sum()


#: A batch that takes a second or more, if nobody stops it.
SLOW = f"""
import atexit, time
# Handlers run last first: this one when diver's own is done.
atexit.register(lambda: print("seconds", time.monotonic() - ended))
{PRELUDE}
images = diver.open({str(FKD / "images")!r})
labels = diver.SoftLabels({str(FKD / "cutmix")!r}, images, size=1500, teacher_size=12, format="numpy")
"""


@pytest.mark.parametrize(
    "ends",
    [
        "with Interrupt(0.1): labels.views(0, 0)",
        "with Interrupt(0.1): list(labels.epoch(0))",
        "making = labels._make(0, 0); time.sleep(0.1)",
        "batches = labels.epoch(1); next(batches)",
    ],
)
def test_nobody_waits_for_views_that_nobody_wants(ends: str) -> None:
    best = float("inf")
    for _ in range(3):
        code, out, err = run(SLOW + ends + "\nended = time.monotonic()\n")
        assert (code, err) == (0, "")
        best = min(best, max(seconds(out)))
        if best < ANSWER:
            break
    assert best < ANSWER


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
    with pytest.raises(DataError, match="mix_bbox"):
        diver.SoftLabels(FKD / "cutmix", images(), size=4).views(0, 0)
    with pytest.raises(DataError, match="outside of 10 x 10 pixels"):
        diver.SoftLabels(FKD / "cutmix", images(), size=SIDE, teacher_size=10).views(0, 0)
    with pytest.raises(OptionError, match="teacher_size: 0 must be at least 1"):
        diver.SoftLabels(FKD / "cutmix", images(), size=SIDE, teacher_size=0)
    with pytest.raises(DataError, match="FKD's soft labels, not images: give this folder to SoftLabels"):
        diver.open(FKD / "cutmix")
    copy = tmp_path / "cutmix"
    shutil.copytree(FKD / "cutmix", copy)
    (copy / "epoch_1" / "batch_1.tar").write_bytes(b"PK")
    with pytest.raises(DataError, match="batch_1"):
        list(diver.SoftLabels(copy, images(), size=SIDE).epoch(1))
