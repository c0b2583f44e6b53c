"""The refiner on torch, which is a package of its own."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from diver.errors import VersionError

if TYPE_CHECKING:
    from diver import _engine
    from diver_refiner import Refiner


def refiner_class() -> type[Refiner]:
    """``diver_refiner.Refiner``.

    Raises:
        VersionError: the package is not installed, or torch is of another version.
    """
    refiner: type[Refiner] = _package().Refiner
    return refiner


def demo(options: str, cancel: _engine.CancelToken) -> str:
    """The report of the demonstration, as JSON: what ``diver demo`` prints.

    Raises:
        VersionError: the package is not installed, or torch is of another version.
    """
    from importlib import import_module

    _package()
    report: str = import_module("diver_refiner._refiner").demo(options, cancel)
    return report


def _package() -> ModuleType:
    try:
        import diver_refiner
    except ModuleNotFoundError as error:
        if error.name != "diver_refiner":
            raise
        raise VersionError(
            "refining on torch needs the package diver-dataset-refiner: pip install 'diver-dataset[refine]'"
        ) from None
    return diver_refiner
