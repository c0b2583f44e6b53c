"""Augmented batches: what each augmentation makes of images and targets, by torch's formulas."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from support import DIGITS

import diver
from diver import _engine
from diver.augment import (
    DSA,
    Augmentation,
    ColorJitter,
    CutMix,
    HorizontalFlip,
    MixUp,
    RandomResizedCrop,
)
from diver.errors import OptionError, OptionTypeError

COUNT, SIDE = 12, 8
#: No adjustment of a fifth leaves [0, 1].
PIXELS = 0.3 + 0.3 * torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
#: Every image has a class of its own, by which a mix says what is in it.
SOURCE = diver.from_tensors(PIXELS, torch.arange(COUNT), mean=0.0, std=1.0, values="unit")

KINDS: list[type[Augmentation]] = [RandomResizedCrop, HorizontalFlip, ColorJitter, DSA, CutMix, MixUp]


def views(*augment: Augmentation, epochs: int = 1, **options: Any) -> Iterable[tuple[Any, Any, Any]]:
    """Image, target and the image before, of each sample."""
    options = {"batch_size": COUNT, "shuffle": True, "seed": 3} | options
    with diver.DataLoader(SOURCE, augment=augment, **options) as loader:
        for _ in range(epochs):
            for batch in loader:
                yield from zip(batch.images, batch.targets, PIXELS[batch.indices], strict=True)


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5)


# What they make.


def test_a_flip_mirrors() -> None:
    flips = [
        (near(image, before.flip(2)), near(image, before))
        for image, _, before in views(HorizontalFlip(), epochs=20)
    ]
    assert all(is_flipped != is_same for is_flipped, is_same in flips)
    assert 80 <= sum(is_flipped for is_flipped, _ in flips) <= 160, "half of 240"
    assert all(near(image, before.flip(2)) for image, _, before in views(HorizontalFlip(p=1)))
    assert all(torch.equal(image, before) for image, _, before in views(HorizontalFlip(p=0)))


def test_a_crop_is_a_part_resized() -> None:
    sides = [(top, left, top + h, left + w) for h in range(4, 9) for w in range(4, 9)
             for top in range(9 - h) for left in range(9 - w)]  # fmt: skip
    # Sides of 4 to 8, as sides are rounded.
    for image, _, before in views(RandomResizedCrop(scale=(0.5, 0.7), ratio=(0.7, 1.5))):
        parts = [before[None, :, a:c, b:d] for a, b, c, d in sides if 0.4 < (c - a) * (d - b) / 64 < 0.8]
        resized = [
            torch.nn.functional.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)[0]
            for part in parts
        ]
        assert sum(near(image, part) for part in resized) == 1
    whole = RandomResizedCrop(scale=(1, 1), ratio=(1, 1))
    assert all(torch.equal(image, before) for image, _, before in views(whole))


def grey(image: torch.Tensor) -> torch.Tensor:
    red, green, blue = image
    return 0.2989 * red + 0.587 * green + 0.114 * blue


@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation"])
def test_colours_are_blended_as_torchvision_does(what: str) -> None:
    factors = []
    for image, _, before in views(ColorJitter(**{what: 0.2})):
        base = {
            "brightness": torch.zeros_like(before),
            "contrast": grey(before).mean().expand_as(before),
            "saturation": grey(before).expand_as(before),
        }[what]
        away = before - base
        factor = ((image - base) * away).sum() / (away * away).sum()
        assert near(image, factor * before + (1 - factor) * base)
        factors.append(float(factor))
    assert 0.8 <= min(factors) < 0.95 and 1.05 < max(factors) <= 1.2


def test_a_turn_of_the_hue_keeps_value_and_saturation() -> None:
    changed = 0
    for image, _, before in views(ColorJitter(hue=0.5)):
        assert near(image.amax(0), before.amax(0)) and near(image.amin(0), before.amin(0))
        changed += not near(image, before)
    assert changed > COUNT // 2


def test_dsa_applies_the_operators_of_its_strategy() -> None:
    assert all(torch.equal(image, before) for image, _, before in views(DSA("none")))
    for image, _, before in views(DSA("flip")):
        assert near(image, before) or near(image, before.flip(2))
    for image, _, before in views(DSA("crop", mode="idc")):
        padded = torch.nn.functional.pad(before, (1, 1, 1, 1))
        shifted = [padded[:, y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)]
        assert any(near(image, one) for one in shifted)
    for image, _, before in views(DSA("cutout")):
        is_cut = (image == 0).all(0)
        assert torch.equal(image, torch.where(is_cut, 0.0, before))
        rows, columns = is_cut.any(1), is_cut.any(0)
        assert torch.equal(is_cut, rows[:, None] & columns), "a rectangle"
        assert rows.sum() <= SIDE // 2 and columns.sum() <= SIDE // 2


def test_cut_mix_mixes_targets_by_area() -> None:
    mixed = 0
    for image, target, before in views(CutMix(), epochs=5):
        assert near(target.sum(), torch.tensor(1.0))
        own = int((before == PIXELS).all(3).all(2).all(1).nonzero())
        others = [other for other in target.nonzero().flatten().tolist() if other != own]
        partner = PIXELS[others[0]] if others else before
        is_partner = (image != before).any(0)
        assert torch.equal(image, torch.where(is_partner, partner, before))
        share = 1 - is_partner.sum() / SIDE**2
        assert near(target[own], share if others else torch.tensor(1.0))
        mixed += bool(others)
    assert mixed > COUNT


def test_mix_up_averages_images_and_targets() -> None:
    for image, target, before in views(MixUp(), epochs=3):
        assert near(image, torch.einsum("n,nchw->chw", target, PIXELS))
        assert near(target.sum(), torch.tensor(1.0)) and target[(before == PIXELS).all(3).all(2).all(1)] >= 0


def test_mixes_are_as_frequent_as_asked_for() -> None:
    soft = [bool(target.max() < 1) for _, target, _ in views(MixUp(p=0.25), epochs=40, batch_size=2)]
    assert 20 <= sum(soft) / 2 <= 100, "a quarter of 240 batches, but a row may be its own partner"
    assert all(target.max() == 1 for _, target, _ in views(CutMix(p=0)))


# What they depend on.


def epoch(loader: diver.DataLoader) -> dict[int, bytes]:
    return {
        index: image.numpy().tobytes()
        for batch in loader
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True)
    }


def test_views_depend_on_seed_and_epoch_alone() -> None:
    augment = [RandomResizedCrop(), HorizontalFlip(), ColorJitter(brightness=0.4, hue=0.1)]

    def run(**options: Any) -> list[dict[int, bytes]]:
        with diver.DataLoader(SOURCE, augment=augment, shuffle=True, **options) as loader:
            return [epoch(loader), epoch(loader)]

    first, second = run(seed=1, batch_size=4)
    assert first != second
    assert run(seed=1, batch_size=5, threads=3) == [first, second]
    assert run(seed=2, batch_size=4)[0] != first
    ranks = [run(seed=1, batch_size=3, rank=rank, world_size=2)[0] for rank in range(2)]
    assert ranks[0] | ranks[1] == first


def test_refined_images_are_augmented_as_raw_ones_are() -> None:
    def same(images: np.ndarray) -> np.ndarray:
        return np.rint(images * 255).astype(np.uint8)

    options: dict[str, Any] = {"augment": [HorizontalFlip(p=1)], "batch_size": 10, "format": "numpy"}
    with diver.DataLoader(DIGITS, refiner=same, **options) as loader:
        flipped = next(iter(loader))
    with diver.DataLoader(DIGITS, refiner=same, batch_size=10, format="numpy") as loader:
        assert np.array_equal(flipped.images, next(iter(loader)).images[..., ::-1])
    assert flipped.refined.all()


# What they are.


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_the_engines(kind: type[Augmentation]) -> None:
    one = kind()
    ((name, options),) = json.loads(_engine.Augment(json.dumps([{one._name: {}}])).json())[0].items()
    own = json.loads(json.dumps(dataclasses.asdict(one)))  # type: ignore[call-overload]
    assert (name, options) == (one._name, own)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_values(kind: type[Augmentation]) -> None:
    one = kind()
    assert one == kind() and hash(one) == hash(kind()) and one != CutMix(alpha=3)
    assert eval(repr(one)) == one
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.p = 1  # type: ignore[attr-defined]


def test_numbers_of_any_kind_are_numbers() -> None:
    assert HorizontalFlip(p=np.float32(0.5)) == HorizontalFlip(p=torch.tensor(0.5)) == HorizontalFlip()  # type: ignore[arg-type]
    assert RandomResizedCrop(scale=[0.5, 1]) == RandomResizedCrop(scale=np.array([0.5, 1.0]))  # type: ignore[arg-type]


BAD: list[tuple[type[Augmentation], str, Any]] = [
    *((HorizontalFlip, "p", value) for value in (-0.1, 1.1, float("nan"), float("inf"), "half", None, True)),
    *((CutMix, "alpha", value) for value in (0, -1, float("nan"), float("inf"), "1", [1])),
    *((MixUp, "alpha", value) for value in (0, -1, 10**400, None)),
    *((kind, "p", 2) for kind in (CutMix, MixUp)),
    *((RandomResizedCrop, "scale", value) for value in ((0, 1), (0.5, 2), (1, 0.5), 0.5, (0.5,), "ab", {0.1, 0.2})),
    *((RandomResizedCrop, "ratio", value) for value in ((0, 1), (2, 1), (1, float("inf")), None, ("a", "b"))),
    *((ColorJitter, name, -0.1) for name in ("brightness", "contrast", "saturation", "hue")),
    *((ColorJitter, name, 101) for name in ("brightness", "contrast", "saturation", "hue")),
    (ColorJitter, "hue", 0.6),
    (ColorJitter, "brightness", (0.5, 1.5)),
    *((DSA, "strategy", value) for value in ("colour", "color_color", "", "color__crop", None, 5, ["color"])),
    *((DSA, "mode", value) for value in ("DSA", "", None, "both")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "value"), BAD, ids=str)
def test_options_out_of_range_are_refused_by_name(kind: type[Augmentation], name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=f"^{name}: "):
        kind(**{name: value})


def test_options_are_keywords() -> None:
    for kind in KINDS:
        with pytest.raises(TypeError):
            kind(*(["flip", "dsa"] if kind is DSA else [0.5]))
    with pytest.raises(OptionError, match="did you mean `color`"):
        DSA("colour_crop")


def test_a_mix_comes_last_and_alone() -> None:
    for augment in ([CutMix(), HorizontalFlip()], [CutMix(), MixUp()], [MixUp(), MixUp()]):
        with pytest.raises(OptionError, match=r"^augment: `(cut_mix|mix_up)`"):
            diver.DataLoader(SOURCE, augment=augment)
    with pytest.raises(OptionTypeError, match=r"augment\[1\]: an augmentation .* not str"):
        diver.DataLoader(SOURCE, augment=[CutMix(), "dsa"])  # type: ignore[list-item]
    diver.DataLoader(SOURCE, augment=iter([HorizontalFlip(), HorizontalFlip(), MixUp()])).close()
