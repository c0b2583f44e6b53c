"""Sets of tensors that a program holds."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import stored

import diver
from diver.errors import DataError, OptionError

IMAGES = torch.linspace(0, 1, 6 * 3 * 4 * 4).view(6, 3, 4, 4)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
CIFAR: dict[str, Any] = {"dataset": "cifar10"}


def batches(source: diver.Source) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with diver.DataLoader(source, batch_size=4, shuffle=True, seed=3) as loader:
        return [(images, targets) for images, targets in loader]


def test_they_are_the_set_that_they_would_be_in_a_file(tmp_path: Path) -> None:
    torch.save({"images": IMAGES, "labels": LABELS}, tmp_path / "set.pt")
    saved = diver.open(tmp_path / "set.pt", **CIFAR)
    held = diver.from_tensors(IMAGES, LABELS, **CIFAR)
    assert (held.format, held.path, held.mean, held.std) == (
        "tensors",
        Path("<memory>"),
        saved.mean,
        saved.std,
    )
    assert [sample.digest for sample in stored(held)] == [sample.digest for sample in stored(saved)]
    for (images, targets), (same, as_well) in zip(batches(saved), batches(held), strict=True):
        assert images.equal(same) and targets.equal(as_well)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES.numpy(), LABELS.numpy()),
        (IMAGES.double(), LABELS.int()),
        (IMAGES.clone().requires_grad_(), LABELS.tolist()),
        (IMAGES.numpy().astype(">f4"), LABELS.float()),
        (IMAGES.permute(0, 2, 3, 1), torch.nn.functional.one_hot(LABELS).float().clamp(0.0, 1.0)),
    ],
    ids=["numpy", "double", "grad", "big-endian", "channels last"],
)
def test_of_every_kind_the_images_are_the_same(images: Any, labels: Any) -> None:
    source = diver.from_tensors(images, labels, **CIFAR)
    assert np.array_equal(np.stack([sample.values for sample in stored(source)]), IMAGES.numpy())
    assert [sample.label for sample in stored(source)] == LABELS.tolist()


def test_coarser_kinds_are_as_they_are() -> None:
    coarse = IMAGES.bfloat16()
    source = diver.from_tensors(coarse, LABELS, **CIFAR)
    assert np.array_equal(source.sample(5).values, coarse[5].float().numpy())
    grey = (IMAGES[:, :1] * 255).byte()
    source = diver.from_tensors(grey, LABELS, num_classes=10, **CIFAR)
    assert source.shape == (1, 4, 4) and source.num_classes == 10 and source.value_space == "unit"
    assert (
        np.array_equal(source.sample(5).values, grey[5].numpy()) and source.sample(5).values.dtype == np.uint8
    )
    source = diver.from_tensors(IMAGES * 4 - 2, LABELS, mean=0.5, std=0.25)
    assert source.value_space == {"normalized": {"mean": [0.5] * 3, "std": [0.25] * 3}}


def test_the_set_has_its_own_memory_and_goes_to_other_processes() -> None:
    images = IMAGES.clone()
    source = diver.from_tensors(images, LABELS, **CIFAR)
    images.zero_()
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.sample(5).values, IMAGES[5].numpy()) and copy.path == source.path


def test_nothing_beside_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "norm.json").write_text("of something else")
    monkeypatch.chdir(tmp_path)
    assert diver.from_tensors(IMAGES, LABELS, **CIFAR).num_samples == 6


@pytest.mark.parametrize(
    ("images", "labels", "error", "words"),
    [
        (IMAGES, LABELS[:5], DataError, "<memory>: `labels`: 5 labels for 6 images"),
        (IMAGES[0], LABELS, DataError, "<memory>: `labels`: 6 labels for 3 images"),
        (IMAGES[0, 0], LABELS, DataError, "<memory>: `images`: "),
        (IMAGES, LABELS - 1, DataError, "<memory>: sample 0: label -1 in `labels`"),
        (
            torch.rand(6, 4, 4, 4),
            LABELS,
            DataError,
            "<memory>: `images`: expected images [N, C, H, W] with 1 or 3 channels, found shape [6, 4, 4, 4]",
        ),
        (
            IMAGES.to(torch.complex64),
            LABELS,
            OptionError,
            "images: dtype complex64 is not one of bool, uint8",
        ),
        ("images.pt", LABELS, OptionError, "images: a tensor or an array is expected, not str"),
        (IMAGES.to_sparse(), LABELS, OptionError, "images: a tensor or an array is expected, not Tensor: "),
        (IMAGES.to("meta"), LABELS, OptionError, "images: a tensor or an array is expected, not Tensor: "),
        (IMAGES, None, OptionError, "labels: a tensor or an array is expected, not NoneType"),
        (
            [IMAGES[0], IMAGES[1, :1]],
            LABELS,
            OptionError,
            "images: the tensors have different shapes, as (1, 4, 4)",
        ),
        ([IMAGES[0], "1.png"], LABELS, OptionError, "images: the tensors have different shapes"),
    ],
)
def test_what_is_none_is_refused(images: Any, labels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        diver.from_tensors(images, labels, **CIFAR)
    assert words in str(caught.value)
