"""An option is defined once, in the engine: what Python and the command line write of it says the same."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest

import diver
from diver import _options
from diver_refiner import KnobOptions


class Face(NamedTuple):
    """A function with the options of a group as keywords."""

    group: str
    function: Callable[..., Any]
    #: Where the arguments are documented.
    documented: object
    #: Parameters that are no options of the group.
    beside: set[str]
    #: Options of the group that the function does not have.
    without: frozenset[str] = frozenset()


FACES = [
    Face("open", diver.open, diver.open, {"path"}),
    Face(
        "open",
        diver.from_tensors,
        diver.from_tensors,
        {"images", "labels"},
        # They say how a file is read.
        frozenset({"experiment", "factor", "canvas", "columns", "split", "image_size", "fit"}),
    ),
    Face("cache", diver.Cache, diver.Cache, {"path"}),
    Face(
        "loader",
        diver.DataLoader,
        diver.DataLoader,
        {"source", "refiner", "cache", "labels", "augment", "mix", "rank", "world_size"}
        | {"format", "device", "pin_memory", "progress", "resident"},
    ),
    Face(
        "refiner",
        diver.Refiner.from_pretrained,
        diver.Refiner.from_pretrained,
        {"path", "preset", "refine_seed", "knobs"},
        # `path` is the backbone, and a file of names is read by Python itself.
        frozenset({"backbone", "class_names_file"}),
    ),
]
IDS = [f"{face.group}-{face.function.__name__}" for face in FACES]


def entries(text: str | None) -> dict[str, str]:
    """What a docstring's section ``Args`` says of each argument."""
    section = inspect.cleandoc(text or "").split("Args:\n")[1].split("\n\n")[0]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def choices(schema: dict[str, Any]) -> list[str]:
    return [choice for choice in schema.get("enum", []) if choice is not None]


@pytest.mark.parametrize("face", FACES, ids=IDS)
def test_keywords_are_the_options(face: Face) -> None:
    parameters = inspect.signature(face.function).parameters
    schema = _options.schema(face.group)
    assert set(parameters) - face.beside == set(schema) - face.without
    for name in set(parameters) - face.beside:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, name
        assert parameters[name].default == schema[name]["default"], name


@pytest.mark.parametrize("face", FACES, ids=IDS)
def test_options_are_documented_with_their_choices_and_bounds(face: Face) -> None:
    said = entries(face.documented.__doc__)
    for name, schema in _options.schema(face.group).items():
        if name in face.without:
            continue
        assert name in said, f"{name} is missing from the docstring"
        if said[name].startswith("As for :func:`open`"):
            continue
        for choice in choices(schema):
            # A checkpoint of Stable Diffusion is not told by name.
            if (name, choice) != ("model", "stable_diffusion"):
                assert f'``"{choice}"``' in said[name], f"{name} does not name {choice}"
        most = (schema | schema.get("items", {})).get("maximum")
        if most is not None and most < 2**32:
            assert f"{most:,}" in said[name], f"{name} does not name its bound {most:,}"


def test_settings_are_the_knobs() -> None:
    schema = {
        name: known
        for name, known in _options.schema("knobs").items()
        # Named beside them: a preset for a refiner alone, and a seed as `seed` for a call.
        if name not in ("preset", "refine_seed")
    }
    hints = get_type_hints(KnobOptions)
    assert set(hints) == set(schema)
    for name, known in schema.items():
        literals = [literal for hint in get_args(hints[name]) for literal in get_args(hint) or ()]
        assert not choices(known) or sorted(literals) == sorted(choices(known)), name
        assert f"- ``{name}`` (" in (KnobOptions.__doc__ or ""), name
    said = entries(diver.Refiner.from_pretrained.__doc__)["preset"]
    for preset in choices(_options.schema("knobs")["preset"]):
        assert f'``"{preset}"``' in said, preset


@pytest.mark.parametrize(
    ("command", "groups"), [("inspect", ["open"]), ("refine", ["open", "cache", "refiner", "knobs"])]
)
def test_the_command_line_has_the_options(command: str, groups: list[str]) -> None:
    run = [sys.executable, "-m", "diver._command", command, "--help"]
    shown = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    arguments = set(re.findall(r"^ *(?:-\w, )?--([\w-]+)", shown, flags=re.MULTILINE))
    for group in groups:
        for name in _options.schema(group):
            # `bench` has batches of its own.
            argument = (
                "refine-batch" if (group, name) == ("refiner", "batch_size") else name.replace("_", "-")
            )
            argument = f"cache-{argument}" if group == "cache" else argument
            assert argument in arguments, name


def test_every_option_says_what_it_is_for() -> None:
    for group in ("open", "cache", "loader", "refiner", "knobs"):
        for name, schema in _options.schema(group).items():
            assert schema.get("description"), f"{group}: {name}"


@pytest.mark.parametrize("group", ["open", "cache", "loader", "knobs", "refiner"])
def test_every_kind_of_option_is_checked(group: str) -> None:
    class Other:
        pass

    for name, schema in _options.schema(group).items():
        with pytest.raises(diver.errors.OptionTypeError, match=f"^{name}: "):
            _options.checked(name, Other(), schema)
