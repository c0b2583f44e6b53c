"""Arguments, checked: what is wrong with one is said by name, as an exception of diver's."""

from __future__ import annotations

import functools
import json
import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any, NoReturn, SupportsFloat, SupportsIndex, TypeGuard

from diver import _engine
from diver._wording import counted
from diver.errors import OptionError, OptionTypeError

#: The largest integers that the engine takes for counts and for seeds.
COUNT = 2**63 - 1
SEED = 2**64 - 1
#: The largest integers of a schema's formats.
_LARGEST = {"uint32": 2**32 - 1, "uint64": SEED}


@functools.cache
def schema(group: str) -> dict[str, dict[str, Any]]:
    """The engine's schema of each option of a group, by name: where types, ranges and choices are defined."""
    properties: dict[str, dict[str, Any]] = json.loads(_engine.schema(group))["properties"]
    # A group within a group has a schema of its own.
    return {name: known for name, known in properties.items() if "$ref" not in known}


def given(group: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a group that are given among a function's arguments, once each is known to be of its type and
    within its range. An option that may be None is not given then."""
    return {
        name: checked(name, arguments[name], known)
        for name, known in schema(group).items()
        if name in arguments and not (arguments[name] is None and "null" in known["type"])
    }


def checked(name: str, value: Any, schema: Mapping[str, Any]) -> Any:
    """The value of an option, once it is what its schema asks for."""
    types, form = schema["type"], schema.get("format")
    if form in _FORMATS:
        return _FORMATS[form](name, value, schema)
    if "enum" in schema:
        return choice(name, value, [known for known in schema["enum"] if known is not None])
    match types if isinstance(types, str) else types[0]:
        case "integer":
            most = schema.get("maximum", _LARGEST.get(str(form), COUNT))
            return integer(name, value, least=schema.get("minimum", 0), most=most)
        case "number":
            return bounded(name, number(name, value), schema)
        case "boolean":
            return boolean(name, value)
        case "string":
            return text(name, value)
        case "array" if "prefixItems" in schema:
            items = integers(name, value)
            if len(items) != schema["maxItems"]:
                raise OptionError(
                    f"{name}: {counted(len(items), 'value')}; {schema['maxItems']} are expected"
                )
            return items
        case "array":
            return texts(name, value)
        case kind:
            raise TypeError(f"{name}: no check is known for {kind}")


def to_json(options: Mapping[str, Any]) -> str:
    """The options as the engine reads them."""
    return json.dumps({name: _portable(value) for name, value in options.items()}, allow_nan=False)


def _portable(value: Any) -> Any:
    """A path that is not UTF-8 as its bytes; all else as it is."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return list(os.fsencode(value))
    return value


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


def bounded(name: str, number: float, schema: Mapping[str, Any]) -> float:
    least, above, most = (schema.get(bound) for bound in ("minimum", "exclusiveMinimum", "maximum"))
    if least is not None and number < least:
        raise OptionError(f"{name}: {number} must be at least {least}")
    if above is not None and number <= above:
        raise OptionError(f"{name}: {number} must be above {above}")
    if most is not None and number > most:
        raise OptionError(f"{name}: {number} must be at most {most}")
    return number


def amount(name: str, value: SupportsIndex | str) -> int:
    """A number of bytes, or a text as in ``"20GB"``."""
    if isinstance(value, str):
        return _engine.parse_size(name, text(name, value))
    return integer(name, value)


def seconds(name: str, value: SupportsFloat | timedelta | str) -> float:
    """A number of seconds, a time span, or a text as in ``"30d"``."""
    if isinstance(value, str):
        return _engine.parse_duration(name, text(name, value))
    given = number(name, value.total_seconds() if isinstance(value, timedelta) else value)
    return bounded(name, given, {"minimum": 0})


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


def texts(name: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Sequence):
        wrong_type(name, values, "a sequence of strings")
    return [text(f"{name}[{position}]", value) for position, value in enumerate(values)]


def choice(name: str, value: object, known: Sequence[str]) -> str:
    given = text(name, value)
    if given not in known:
        raise OptionError(f"{name}: {_engine.unknown_name(given, list(known))}")
    return given


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
    # Before anything is put in front of a scheme, which hides it.
    if reason := _engine.refused_path(given):
        raise OptionError(f"{name}: {reason}")
    return os.path.expanduser(given)


def is_url(text: object) -> bool:
    """Whether it has a scheme, as ``s3://bucket/folder``."""
    return isinstance(text, str) and _engine.refused_path(text) is not None


def absolute(path: str) -> str:
    """The path as it is from any folder. ``..`` stays: where links are, only the system knows what it leads to."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def integers(name: str, values: Iterable[SupportsIndex], *, least: int = 0, most: int = COUNT) -> list[int]:
    # Sets have no order, and a mapping's values would be lost.
    if isinstance(values, (str, bytes, AbstractSet, Mapping)):
        wrong_type(name, values, "a sequence of integers")
    try:
        items = list(values)
    except TypeError:
        wrong_type(name, values, "a sequence of integers")
    return [
        integer(f"{name}[{position}]", value, least=least, most=most) for position, value in enumerate(items)
    ]


def classes(name: str, value: str | os.PathLike[str] | Iterable[SupportsIndex]) -> list[int] | str:
    """Indices, or the name or the file of a list."""
    if isinstance(value, (str, os.PathLike)):
        return text(name, path(name, value))
    if isinstance(value, Sequence) and any(isinstance(item, str) for item in value):
        raise OptionTypeError(
            f"{name}: expected indices of classes, or the name or the file of a list, not names of classes: write the "
            f"names to a file, one on each line, and pass {name}=FILE"
        )
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


def size(
    name: str, value: SupportsIndex | Iterable[SupportsIndex], *, least: int = 1, most: int = COUNT
) -> tuple[int, int]:
    """The side of a square, or height and width."""
    if not _is_sequence(value):
        side = integer(name, value, least=least, most=most)
        return side, side
    items = integers(name, value, least=least, most=most)
    if len(items) != 2:
        raise OptionError(
            f"{name}: a side, or height and width, are expected, not {counted(len(items), 'value')}"
        )
    height, width = items
    return height, width


#: What checks the kinds of values that the engine's schemas know by a format.
_FORMATS: dict[str, Callable[[str, Any, Mapping[str, Any]], Any]] = {
    "bytes": lambda name, value, _: amount(name, value),
    "channels": lambda name, value, _: channels(name, value),
    "classes": lambda name, value, _: classes(name, value),
    "path": lambda name, value, _: path(name, value),
    "seconds": lambda name, value, schema: bounded(name, seconds(name, value), schema),
    "size": lambda name, value, schema: size(name, value, most=schema["items"]["maximum"]),
}
