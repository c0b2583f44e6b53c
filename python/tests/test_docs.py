"""The examples in the documentation of `diver` run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import diver

MODULES = ["diver", *(f"diver.{module.name}" for module in pkgutil.iter_modules(diver.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_examples_are_found() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [
        test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples
    ]
    assert {test.name for test in examples} >= {
        "diver",
        "diver.augment",
        "diver.augment.DSA",
        "diver.labels",
        "diver.labels.average",
        "diver.labels.hard",
        "diver.labels.stored",
        "diver.labels.teacher",
        "diver.refiners",
        "diver.soft_labels.SoftLabels",
        "diver.source.Source.pixels",
        "diver.source.open",
        "diver.loader.DataLoader",
        "diver.teachers",
    }


@pytest.mark.parametrize("name", [name for name in diver.__all__ if name != "Refiner"])
def test_everything_public_is_documented(name: str) -> None:
    thing = getattr(diver, name)
    assert thing.__doc__
    if isinstance(thing, type):
        members = {key: value for key, value in vars(thing).items() if not key.startswith("_")}
        # Fields of a named tuple are described beside them.
        undocumented = [key for key, value in members.items() if not getattr(value, "__doc__", None)]
        assert not undocumented
