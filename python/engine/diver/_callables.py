"""How a caller's functions are called, and how their fingerprints are written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diver import _options
from diver.errors import OptionError


def signature(
    name: str, function: Callable[..., Any], *, known: Sequence[str], places: int, called: str
) -> tuple[list[str], dict[str, str]]:
    """What to pass by position, and what to pass by which name.

    A parameter whose name is ``known`` gets what the name says; the required others get what is left of the first
    ``places`` of them, in this order. The first one is ``images``, which every function takes. ``called`` says how the
    option ``name`` is called, for errors.
    """
    import inspect

    # A torch module takes anything, and passes it on to `forward`.
    described = getattr(function, "forward", function)
    try:
        parameters = inspect.signature(described).parameters.values()
    except (TypeError, ValueError):
        return ["images"], {}  # Written in C, and says nothing of itself.
    fixed = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    mentioned = {p.name for p in fixed if p.kind is not p.POSITIONAL_ONLY and p.name in known}
    left = iter([value for value in known[:places] if value not in mentioned])
    positional: list[str] = []
    named: dict[str, str] = {}
    for p in fixed:
        if p.name in mentioned:
            named[p.name] = p.name
        elif p.default is p.empty:
            value = None if p.kind is p.KEYWORD_ONLY else next(left, None)
            if value is None:
                raise OptionError(f"{name}: it requires `{p.name}`; {called}")
            if p.kind is p.POSITIONAL_ONLY:
                positional.append(value)
            else:
                named[p.name] = value
    if "images" not in (*positional, *named.values()):
        first = next((p for p in fixed if p.kind is not p.KEYWORD_ONLY and p.name not in mentioned), None)
        if first is not None and first.kind is first.POSITIONAL_OR_KEYWORD:
            named[first.name] = "images"
        elif first is not None or (not mentioned and any(p.kind is p.VAR_POSITIONAL for p in parameters)):
            positional.insert(0, "images")
        else:
            raise OptionError(f"{name}: it takes no images; {called}")
    return positional, named


def fingerprint(name: str, value: object, whose: str) -> str | None:
    """The fingerprint as a JSON object; a string becomes one of a ``whose`` ("refiner" or "teacher") in Python."""
    if value is None:
        return None
    if not isinstance(value, (str, Mapping)):
        _options.wrong_type(name, value, "a string or a dict")
    if not value:
        raise OptionError(f"{name}: it is empty, and would say nothing")
    if isinstance(value, str):
        value = {whose: "python", "fingerprint": value}

    def check_integer(digits: str) -> None:
        """Refuses what the engine would round: two of them would share their results."""
        if not -(2**63) <= int(digits) < 2**64:
            raise OptionError(f"{name}: {digits} has more than 64 bits: write it as a string")

    try:
        text = json.dumps(dict(value), allow_nan=False)
        # Read back, as that comes by every integer.
        json.loads(text, parse_int=check_integer)
    except OptionError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"{name}: not like JSON: {error}") from error
    return text
