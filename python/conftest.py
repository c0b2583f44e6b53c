"""What tests and doctests of both packages share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: How variables of launchers end.
LAUNCHED = ("RANK", "RANKID", "WORLD_SIZE", "ENVIRONMENT")


@pytest.fixture(autouse=True)
def in_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples are named from the root of the repository, and no launcher decides the rank."""
    monkeypatch.chdir(ROOT)
    for name in os.environ:
        if name.endswith(LAUNCHED) or name.startswith(("SLURM_", "OMPI_", "PMI_")):
            monkeypatch.delenv(name)
    yield
