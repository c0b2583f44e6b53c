"""How much of each epoch is refined.

    >>> from diver import mix
    >>> schedule = mix.linear(0.2, 1.0, epochs=5)
    >>> [round(schedule.share(epoch), 2) for epoch in (0, 1, 4, 300)]
    [0.2, 0.4, 1.0, 1.0]

Each sample comes either raw or refined, and which ones come refined changes with the epoch. Shares are in [0, 1].
Everywhere a schedule is expected, a number stands for a constant share.
"""

from collections.abc import Iterable
from typing import SupportsFloat, SupportsIndex

from diver import _options
from diver._engine import Mix
from diver.errors import OptionError

__all__ = ["Mix", "constant", "cosine", "linear", "steps"]


def constant(share: SupportsFloat) -> Mix:
    """The same share in every epoch."""
    return Mix.constant(_options.number("share", share))


def linear(start: SupportsFloat, end: SupportsFloat, *, epochs: SupportsIndex) -> Mix:
    """From ``start`` in epoch 0 in equal steps to ``end`` in epoch ``epochs - 1``, and ``end`` from there on."""
    return Mix.linear(*_ramp(start, end, epochs))


def cosine(start: SupportsFloat, end: SupportsFloat, *, epochs: SupportsIndex) -> Mix:
    """As :func:`linear`, but along half a cosine: slow at both ends."""
    return Mix.cosine(*_ramp(start, end, epochs))


def steps(steps: Iterable[tuple[SupportsIndex, SupportsFloat]]) -> Mix:
    """Share by epoch: each ``(epoch, share)`` holds from its epoch on; before the first, nothing is refined.

    >>> steps([(10, 0.5), (20, 1.0)]).share(15)
    0.5
    """
    try:
        pairs = [(epoch, share) for epoch, share in steps]
    except (TypeError, ValueError):
        raise OptionError(
            "steps: pairs of epoch and share are expected, as in [(10, 0.5), (20, 1.0)]"
        ) from None
    return Mix.steps(
        [(_options.integer("epoch", epoch), _options.number("share", share)) for epoch, share in pairs]
    )


def _ramp(start: SupportsFloat, end: SupportsFloat, epochs: SupportsIndex) -> tuple[float, float, int]:
    return _options.number("start", start), _options.number("end", end), _options.integer("epochs", epochs)
