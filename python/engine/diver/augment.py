"""Random views of the images of a batch, seeded by the loader: the same in every run.

    >>> import diver
    >>> from diver.augment import CutMix, HorizontalFlip, RandomResizedCrop
    >>> augment = [RandomResizedCrop(scale=(0.5, 1)), HorizontalFlip(), CutMix()]
    >>> with diver.DataLoader("examples/digits/dm_ipc1", augment=augment) as loader:
    ...     images, targets = next(iter(loader))
    >>> images.shape, targets.sum(1).round().tolist() == [1.0] * 10
    (torch.Size([10, 3, 32, 32]), True)

Augmentations are applied in the order of the list, to normalised images, raw and refined alike. :class:`CutMix` and
:class:`MixUp` mix images and their targets; one of them may come last. The view of a sample depends on the seed, the
epoch and the sample's place in the epoch, not on batch size, threads or ranks; what a batch shares depends on its first
sample's place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

from diver import _engine, _options
from diver.errors import OptionError

__all__ = [
    "DSA",
    "Augmentation",
    "ColorJitter",
    "CutMix",
    "HorizontalFlip",
    "MixUp",
    "RandomResizedCrop",
]


class Augmentation:
    """One augmentation with its options, which are checked when it is made.

    Raises:
        OptionError: an option is out of its range.
    """

    #: What the engine calls it.
    _name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type] # Every subclass is a data class.
            value = _CHECKS[type(field.default)](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        # The engine says what it does not take.
        made([self])


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop(Augmentation):
    """Cuts a random part out of every image and resizes it to the image's size: torchvision's ``RandomResizedCrop``,
    bilinear and antialiased.

    Args:
        scale: The least and the largest area of the part, as shares of the image's; above 0 and at most 1.
        ratio: The least and the largest ratio of its width to its height; above 0.

    >>> RandomResizedCrop(scale=(0.5, 1))
    RandomResizedCrop(scale=(0.5, 1.0), ratio=(0.75, 1.3333333333333333))
    """

    _name: ClassVar[str] = "random_resized_crop"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)


@dataclass(frozen=True, kw_only=True)
class HorizontalFlip(Augmentation):
    """Mirrors images left to right: torchvision's ``RandomHorizontalFlip``.

    Args:
        p: Probability that an image is mirrored, in [0, 1].

    >>> HorizontalFlip()
    HorizontalFlip(p=0.5)
    """

    _name: ClassVar[str] = "horizontal_flip"
    p: float = 0.5


@dataclass(frozen=True, kw_only=True)
class ColorJitter(Augmentation):
    """Changes brightness, contrast, saturation and hue of every image, in random order: torchvision's ``ColorJitter``,
    on pixels in [0, 1]. An amount of 0 changes nothing.

    Args:
        brightness: It is multiplied by a factor from ``max(0, 1 - brightness)`` to ``1 + brightness``; 0 to 100.
        contrast: As for brightness.
        saturation: As for brightness.
        hue: It is turned by a share of the colour circle from ``-hue`` to ``hue``; 0 to 0.5.

    >>> ColorJitter(brightness=0.4, hue=0.1)
    ColorJitter(brightness=0.4, contrast=0.0, saturation=0.0, hue=0.1)
    """

    _name: ClassVar[str] = "color_jitter"
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


@dataclass(frozen=True)
class DSA(Augmentation):
    """Differentiable Siamese augmentation (Zhao and Bilen, ICML 2021), with the constants of its published code: what
    distilled sets are evaluated with.

    Args:
        strategy: Operators, joined by ``_``: any of ``color``, ``crop``, ``cutout``, ``flip``, ``scale`` and
            ``rotate``; or ``none``.
        mode: Which of them a batch gets. ``"dsa"``: one of them, as in DC, DSA, DM and MTT. ``"idc"``: as in IDC and
            NCFM, flip and color always, then one of crop, scale and rotate, then cutout.

    >>> DSA("color_crop_flip")
    DSA(strategy='color_crop_flip', mode='dsa')
    """

    _name: ClassVar[str] = "dsa"
    strategy: str = "color_crop_cutout_flip_scale_rotate"
    _: KW_ONLY
    mode: str = "dsa"


@dataclass(frozen=True, kw_only=True)
class CutMix(Augmentation):
    """Puts a rectangle of another image of the batch into every image, and mixes their targets by area (Yun et al.,
    ICCV 2019). A batch has one rectangle.

    Args:
        alpha: The rectangle leaves a share of the image that is drawn from Beta(alpha, alpha); above 0.
        p: Probability that a batch is mixed, in [0, 1].

    >>> CutMix(p=0.5)
    CutMix(alpha=1.0, p=0.5)
    """

    _name: ClassVar[str] = "cut_mix"
    alpha: float = 1.0
    p: float = 1.0


@dataclass(frozen=True, kw_only=True)
class MixUp(Augmentation):
    """Averages every image with another one of the batch, and their targets alike (Zhang et al., ICLR 2018). A batch
    has one weight.

    Args:
        alpha: The weight is drawn from Beta(alpha, alpha); above 0.
        p: Probability that a batch is mixed, in [0, 1].

    >>> MixUp(alpha=0.2)
    MixUp(alpha=0.2, p=1.0)
    """

    _name: ClassVar[str] = "mix_up"
    alpha: float = 0.8
    p: float = 1.0


def made(augmentations: object) -> _engine.Augment:
    """Augmentations for the engine.

    Raises:
        OptionTypeError: what is given is not a sequence of augmentations.
        OptionError: they cannot be applied in this order, or an option is out of its range.
    """
    expected = "a list of augmentations of diver.augment"
    if isinstance(augmentations, (str, bytes, AbstractSet, Mapping)) or not isinstance(
        augmentations, Iterable
    ):
        _options.wrong_type("augment", augmentations, expected)
    given: list[dict[str, dict[str, Any]]] = []
    for position, one in enumerate(augmentations):
        if not isinstance(one, Augmentation):
            _options.wrong_type(f"augment[{position}]", one, "an augmentation of diver.augment")
        options = {field.name: getattr(one, field.name) for field in fields(one)}  # type: ignore[arg-type]
        given.append({one._name: options})
    return _engine.Augment(json.dumps(given, allow_nan=False))


def _range(name: str, value: Any) -> tuple[float, float]:
    """The least and the largest value of something."""
    if isinstance(value, (str, bytes, AbstractSet, Mapping)) or not isinstance(value, Iterable):
        _options.wrong_type(name, value, "a pair of numbers")
    numbers = [_options.number(name, number) for number in value]
    if len(numbers) != 2:
        raise OptionError(f"{name}: a pair of numbers is expected, not {len(numbers)}")
    least, largest = numbers
    return least, largest


#: What checks the kinds of options, by the type of their defaults.
_CHECKS: dict[type, Callable[[str, Any], Any]] = {
    float: _options.number,
    str: _options.text,
    tuple: _range,
}
