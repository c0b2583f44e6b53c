"""Arguments, checked: what is wrong with one is said by name, as an exception of diver's."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn, SupportsIndex, TypeGuard

from diver._wording import counted
from diver.errors import OptionError, OptionTypeError

#: The largest integers that the engine takes for counts and for seeds.
COUNT = 2**63 - 1
SEED = 2**64 - 1
#: What no machine has a use for more of, and each costs memory at once.
CLASSES = 1 << 20
THREADS = 1 << 10
PREFETCH = 1 << 16


def wrong_type(name: str, value: object, expected: str) -> NoReturn:
    raise OptionTypeError(f"{name}: {expected} is expected, not {type(value).__name__}")


def integer(name: str, value: Any, *, least: int = 0, most: int = COUNT) -> int:
    if isinstance(value, bool):
        wrong_type(name, value, "an integer")
    try:
        number = operator.index(value)
    except TypeError:
        wrong_type(name, value, "an integer")
    if not least <= number <= most:
        bound = f"at least {least}" if number < least else f"at most {most}"
        raise OptionError(f"{name}: {number} must be {bound}")
    return number


def number(name: str, value: Any) -> float:
    if isinstance(value, (bool, str, bytes)):
        wrong_type(name, value, "a number")
    try:
        converted = float(value)
    except (TypeError, ValueError):
        wrong_type(name, value, "a number")
    except OverflowError:
        raise OptionError(f"{name}: it is beyond what a float can hold") from None
    if not math.isfinite(converted):
        raise OptionError(f"{name}: {converted} is not finite")
    return converted


def boolean(name: str, value: object) -> bool:
    kind = type(value)
    if kind is not bool and (kind.__module__, kind.__name__.rstrip("_")) != ("numpy", "bool"):
        wrong_type(name, value, "True or False")
    return bool(value)


def text(name: str, value: object) -> str:
    if not isinstance(value, str):
        wrong_type(name, value, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise OptionError(f"{name}: {value!r} is not text") from None
    return value


def choice(name: str, value: object, known: tuple[str, ...]) -> str:
    if text(name, value) not in known:
        raise OptionError(f"{name}: {value!r} is none of {', '.join(known)}")
    return str(value)


def path(name: str, value: str | os.PathLike[str]) -> str:
    try:
        given = os.fspath(value)
    except TypeError:
        wrong_type(name, value, "a path")
    if not isinstance(given, str):
        wrong_type(name, value, "a path as text")
    try:
        os.fsencode(given)
    except UnicodeEncodeError:
        raise OptionError(f"{name}: {given!r} cannot be the name of a file") from None
    return os.path.expanduser(given)


def absolute(path: str) -> str:
    """The path as it is from any folder. ``..`` stays: where links are, only the system knows what it leads to."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def integers(name: str, values: Iterable[SupportsIndex], *, least: int = 0) -> list[int]:
    # Sets have no order, and a mapping's values would be lost.
    if isinstance(values, (str, bytes, AbstractSet, Mapping)):
        wrong_type(name, values, "a sequence of integers")
    try:
        items = list(values)
    except TypeError:
        wrong_type(name, values, "a sequence of integers")
    return [integer(f"{name}[{position}]", value, least=least) for position, value in enumerate(items)]


def classes(name: str, value: str | os.PathLike[str] | Iterable[SupportsIndex]) -> list[int] | str:
    """Indices, or the name or the file of a list."""
    if isinstance(value, (str, os.PathLike)):
        return path(name, value)
    return integers(name, value)


def _is_sequence(value: Any) -> TypeGuard[Iterable[Any]]:
    """Whether it is more than one value; arrays and tensors without dimensions are not."""
    return (
        isinstance(value, Iterable) and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) > 0
    )


def channels(name: str, value: float | Iterable[float]) -> tuple[float, float, float]:
    """One number for all channels, or one for each."""
    if _is_sequence(value):
        items = [number(name, item) for item in value]
        if len(items) == 1:
            items *= 3
        if len(items) != 3:
            raise OptionError(f"{name}: one value or three are expected, not {len(items)}")
        red, green, blue = items
        return red, green, blue
    one = number(name, value)
    return one, one, one


def size(name: str, value: SupportsIndex | Iterable[SupportsIndex]) -> tuple[int, int]:
    """The side of a square, or height and width."""
    if _is_sequence(value):
        items = integers(name, value)
        if len(items) != 2:
            raise OptionError(
                f"{name}: a side, or height and width, are expected, not {counted(len(items), 'value')}"
            )
        height, width = items
    else:
        height = width = integer(name, value)
    if height < 1 or width < 1:
        raise OptionError(f"{name}: {height} x {width} has no pixels")
    return height, width
