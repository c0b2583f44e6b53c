"""How much of each epoch is refined.

    >>> from diver import mix
    >>> schedule = mix.linear(0.2, 1.0, epochs=5)
    >>> [round(schedule.share(epoch), 2) for epoch in (0, 1, 4, 300)]
    [0.2, 0.4, 1.0, 1.0]

Each sample comes either raw or refined, unless the loader's ``mode`` says otherwise, and which ones come refined
changes with the epoch. Shares are in [0, 1].
Everywhere a schedule is expected, a number stands for a constant share.
"""

from collections.abc import Callable, Iterable
from typing import Any, SupportsFloat, SupportsIndex

from diver import _engine, _options
from diver.errors import OptionError, OptionTypeError

__all__ = ["Mix", "constant", "cosine", "function", "linear", "steps"]


class Mix:
    """A share of refined samples for each epoch. Made by the functions of this module."""

    def __init__(self, kind: str, *arguments: Any) -> None:
        self._made = (kind, *arguments)
        self._engine: _engine.Mix = getattr(_engine.Mix, kind)(*arguments)

    def share(self, epoch: SupportsIndex) -> float:
        """The share of refined samples in ``epoch``, in [0, 1]."""
        return self._engine.share(_options.integer("epoch", epoch))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mix) and self._made == other._made

    def __hash__(self) -> int:
        return hash(self._made)

    def __repr__(self) -> str:
        kind, *arguments = self._made
        if kind in ("linear", "cosine"):
            start, end, epochs = arguments
            return f"diver.mix.{kind}({start}, {end}, epochs={epochs})"
        shares = list(arguments[0]) if kind == "steps" else arguments[0]
        return f"diver.mix.{kind}({shares})"

    def __reduce__(self) -> tuple[type["Mix"], tuple[Any, ...]]:
        return Mix, self._made


def constant(share: SupportsFloat) -> Mix:
    """The same share in every epoch.

    Raises:
        OptionError: the share is not in [0, 1].
    """
    return Mix("constant", _options.number("share", share))


def linear(start: SupportsFloat, end: SupportsFloat, *, epochs: SupportsIndex) -> Mix:
    """From ``start`` in epoch 0 in equal steps to ``end`` in epoch ``epochs - 1``, and ``end`` from there on.

    Raises:
        OptionError: a share is not in [0, 1], or ``epochs`` is not 1 or more.
    """
    return Mix("linear", *_ramp(start, end, epochs))


def cosine(start: SupportsFloat, end: SupportsFloat, *, epochs: SupportsIndex) -> Mix:
    """As :func:`linear`, but along half a cosine: slow at both ends.

    Raises:
        OptionError: as of :func:`linear`.
    """
    return Mix("cosine", *_ramp(start, end, epochs))


def steps(steps: Iterable[tuple[SupportsIndex, SupportsFloat]]) -> Mix:
    """Share by epoch: each ``(epoch, share)`` holds from its epoch on; before the first, nothing is refined.

    Raises:
        OptionError: there is no pair, the epochs do not ascend, or a share is not in [0, 1].

    >>> steps([(10, 0.5), (20, 1.0)]).share(15)
    0.5
    """
    try:
        pairs = [(epoch, share) for epoch, share in steps]
    except (TypeError, ValueError):
        raise OptionError(
            "steps: pairs of epoch and share are expected, as in [(10, 0.5), (20, 1.0)]"
        ) from None
    checked = [(_options.integer("epoch", epoch), _options.number("share", share)) for epoch, share in pairs]
    return Mix("steps", tuple(checked))


def function(share: Callable[[int], SupportsFloat], *, epochs: SupportsIndex) -> Mix:
    """What ``share`` returns for each epoch from 0 to ``epochs - 1``, and its last share from there on. It is called
    here, once for each.

    Raises:
        OptionError: what it returns is no number in [0, 1], or ``epochs`` is not from 1 to 1,000,000.

    >>> function(lambda epoch: epoch % 2, epochs=4).share(3)
    1.0
    """
    count = _options.integer("epochs", epochs, least=1, most=1_000_000)
    if not callable(share):
        raise OptionTypeError(f"share: a function of the epoch is expected, not {type(share).__name__}")
    return Mix(
        "steps", tuple((epoch, _options.number(f"share({epoch})", share(epoch))) for epoch in range(count))
    )


def _ramp(start: SupportsFloat, end: SupportsFloat, epochs: SupportsIndex) -> tuple[float, float, int]:
    return _options.number("start", start), _options.number("end", end), _options.integer("epochs", epochs)
