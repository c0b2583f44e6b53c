"""The refiner on torch, which is a package of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diver.errors import VersionError

if TYPE_CHECKING:
    from diver_refiner import Refiner


def refiner_class() -> type[Refiner]:
    """``diver_refiner.Refiner``.

    Raises:
        VersionError: the package is not installed, or torch is of another version.
    """
    try:
        import diver_refiner
    except ModuleNotFoundError as error:
        if error.name != "diver_refiner":
            raise
        raise VersionError(
            "refining on torch needs the package diver-dataset-refiner: pip install 'diver-dataset[refine]'"
        ) from None
    return diver_refiner.Refiner
