"""How raw and refined samples make an epoch, and several refinements of each sample."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from support import DIGITS, invert, stored

import diver
from diver.errors import OptionError, OptionTypeError
from diver.labels import teacher

RAW = torch.stack([torch.from_numpy(sample.values.copy()) for sample in stored(diver.open(DIGITS))])


def loading(**options: Any) -> diver.DataLoader:
    return diver.DataLoader(
        DIGITS, **{"refiner": invert, "batch_size": 4, "shuffle": True, "seed": 3, **options}
    )


@pytest.fixture(scope="module")
def refined() -> torch.Tensor:
    """Every sample, refined."""
    with diver.DataLoader(DIGITS, refiner=invert, batch_size=10) as loader:
        images: torch.Tensor = next(iter(loader)).images
        return images


def test_replaced_samples_come_once() -> None:
    with loading(mode="replace", mix=0.5) as loader:
        assert len(loader) == 3
        batches = list(loader)
    assert sorted(index for batch in batches for index in batch.indices.tolist()) == list(range(10))
    assert sum(batch.refined.sum() for batch in batches) == 5


def test_both_come_beside_each_other(refined: torch.Tensor) -> None:
    with loading(mode="both", mix=diver.mix.steps([(0, 0.0), (1, 0.5), (2, 1.0)])) as loader:
        for share, batches in [(0, 3), (5, 4), (10, 5)]:
            seen: Counter[tuple[int, bool]] = Counter()
            epoch = iter(loader)
            assert len(loader) == batches
            for batch in epoch:
                for image, index, is_refined in zip(
                    batch.images, batch.indices.tolist(), batch.refined.tolist(), strict=True
                ):
                    assert torch.equal(image, (refined if is_refined else RAW)[index])
                    seen[index, is_refined] += 1
            assert sum(seen.values()) == 10 + share and set(seen.values()) == {1}
            assert {index for index, is_refined in seen if not is_refined} == set(range(10))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_blended_samples_are_averages(share: float, refined: torch.Tensor) -> None:
    with loading(mode="blend", mix=share) as loader:
        for batch in loader:
            expected = (1 - share) * RAW[batch.indices] + share * refined[batch.indices]
            assert torch.allclose(batch.images, expected, atol=1e-5)
            assert batch.refined.tolist() == [share > 0] * len(batch.images)


def brightness(images: Any) -> Any:
    return np.tile(np.asarray(images).mean((1, 2, 3))[:, None], 10) * np.arange(10)


def softmaxes(images: torch.Tensor) -> torch.Tensor:
    return torch.softmax(torch.from_numpy(brightness(images)), 1).float()


def test_a_teacher_labels_what_comes() -> None:
    with loading(mode="both", mix=0.5, labels=teacher(brightness)) as loader:
        for images, targets in loader:
            assert torch.allclose(targets, softmaxes(images), atol=1e-5)


@pytest.mark.parametrize("per", ["image", "view"])
def test_a_blend_has_the_blend_of_both_labels_or_that_of_its_view(per: str, refined: torch.Tensor) -> None:
    with loading(mode="blend", mix=0.25, labels=teacher(brightness, per=per)) as loader:
        for batch in loader:
            raw, other = RAW[batch.indices], refined[batch.indices]
            blend = 0.75 * softmaxes(raw) + 0.25 * softmaxes(other)
            expected = blend if per == "image" else softmaxes(batch.images)
            assert torch.allclose(batch.targets, expected, atol=1e-5)


def drawing(images: np.ndarray, keys: tuple[bytes, ...], variants: np.ndarray) -> np.ndarray:
    """A refiner that draws: its noise is the sample's and the variant's."""
    noise = [
        np.random.default_rng([*key, variant]).random(images.shape[1:])
        for key, variant in zip(keys, variants.tolist(), strict=True)
    ]
    return invert((images + np.stack(noise)) / 2)


def test_every_variant_comes_before_one_comes_again() -> None:
    seen: list[list[bytes]] = [[] for _ in range(10)]
    with loading(refiner=drawing, variants=3) as loader:
        for _ in range(6):
            for batch in loader:
                for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                    seen[index].append(image.numpy().tobytes())
    for images in seen:
        assert len(set(images[:3])) == 3 and images[3:] == images[:3]


@pytest.mark.parametrize("pick", ["all", "nearest", "best"])
def test_images_decide_which_variants_come(pick: str, refined: torch.Tensor) -> None:
    def lighter(images: np.ndarray, variants: np.ndarray) -> np.ndarray:
        shift = 0.1 * (2 - variants[:, None, None, None])
        return np.round(255 * np.clip(images + shift, 0, 1)).astype(np.uint8)

    def bright(images: np.ndarray) -> np.ndarray:
        return np.tile(images.mean((1, 2, 3))[:, None], 10) * np.eye(10)[3]

    options: dict[str, Any] = {"labels": teacher(bright)} if pick == "best" else {}
    with loading(refiner=lighter, variants=3, pick=pick, **options) as loader:
        assert loader.stats()["batches"] <= len(loader)
        brightness: dict[int, list[float]] = {}
        for batch in loader:
            for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                brightness.setdefault(index, []).append(float(image.mean()))
    assert {len(of_one) for of_one in brightness.values()} == {3 if pick == "all" else 1}
    if pick == "all":
        return
    with loading(refiner=lighter, variants=3, pick="all") as loader:
        for batch in loader:
            for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                lightest = pick == "best" and index == 3
                chosen, other = brightness[index][0], float(image.mean())
                assert (chosen >= other - 1e-6) if lightest else (chosen <= other + 1e-6)


def test_variants_that_do_not_draw_are_the_same_image(refined: torch.Tensor) -> None:
    with loading(variants=2) as loader:
        for _ in range(2):
            for batch in loader:
                assert torch.equal(batch.images, refined[batch.indices])


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"mode": "mixed"}, OptionError),
        ({"mode": None}, OptionTypeError),
        ({"variants": 0}, OptionError),
        ({"variants": 1025}, OptionError),
        ({"variants": 1.5}, OptionTypeError),
        ({"pick": "worst"}, OptionError),
        ({"pick": "best"}, OptionError),
        ({"mode": "both", "refiner": None}, OptionError),
        ({"variants": 2, "refiner": None}, OptionError),
        ({"pick": "all", "refiner": None}, OptionError),
        ({"on_miss": "raw", "refiner": None}, OptionError),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=rf"^{next(iter(options))}: "):
        loading(**options)
