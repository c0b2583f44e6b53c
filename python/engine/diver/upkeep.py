"""What the methods of :class:`diver.Cache` say of a cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Compacted", "Difference", "Evicted", "Explanation", "Listing", "Neighbour", "Verified"]


@dataclass(frozen=True)
class Listing:
    """What a cache has under one fingerprint."""

    #: The name of the fingerprint's folder: 16 hexadecimal digits.
    name: str
    #: That folder.
    path: Path
    #: Everything that the images depend on; None if ``fingerprint.json`` is missing or damaged.
    fingerprint: Any
    #: What the rows are: ``"images"``.
    holds: str
    #: Rows, each key once.
    rows: int
    #: Rows of the set that :meth:`diver.Cache.ls` was asked about; None if it was asked about none.
    found: int | None
    #: Rows that this set needs: samples with equal content and class need one.
    wanted: int | None
    #: Parquet files.
    parts: int
    #: Damaged files that were set aside.
    damaged: int
    #: The size of all files, in bytes.
    bytes: int
    #: Seconds since the last part was written; 0 if there is none.
    age_seconds: float
    #: Seconds since it was last read or written; exact to some minutes.
    unused_seconds: float
    #: The fields of the fingerprint that are not the same in the whole cache, by path, as ``{"knobs.steps": 20}``.
    differs: dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """A field in which two fingerprints differ."""

    #: Its path, as ``"knobs.steps"``.
    field: str
    #: The value that is asked for; None where there is no such field.
    wanted: Any
    #: The neighbour's value; None where it has no such field.
    theirs: Any


@dataclass(frozen=True)
class Neighbour:
    """A fingerprint of the cache that is similar to the one that is asked for."""

    #: The name of its folder.
    name: str
    #: How many of the wanted rows it has.
    found: int
    #: Every field in which it differs.
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Explanation:
    """What a cache has of a set, refined in one way."""

    #: ``"hit"`` if every row is there, ``"partly"`` or ``"miss"``.
    verdict: str
    #: The name of the fingerprint's folder.
    name: str
    #: Everything that the images depend on.
    fingerprint: Any
    #: How many rows the set needs: samples with equal content and class need one.
    wanted: int
    #: How many of them are there.
    found: int
    #: The other fingerprints, at most three, the most similar first.
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Verified:
    """What a check found."""

    #: Rows that are as they were written.
    rows: int
    #: Parts in which all rows are.
    parts: int
    #: Damaged parts, by the names that they had before they were set aside.
    damaged: tuple[Path, ...]
    #: What else is wrong, a sentence each.
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Compacted:
    """What a merge of small parts did."""

    #: Parts that were merged, and are gone.
    gathered: int
    #: Parts that they became.
    into: int
    #: Rows in these.
    rows: int


@dataclass(frozen=True)
class Evicted:
    """A fingerprint that was deleted, or would be."""

    #: The name of its folder.
    name: str
    #: That folder.
    path: Path
    #: Everything that the images depended on; None if ``fingerprint.json`` is missing or damaged.
    fingerprint: Any
    #: The size of all files, in bytes.
    bytes: int
    #: Seconds since it was last read or written; exact to some minutes.
    unused_seconds: float
    #: Whether it stays, because a process is adding to it.
    is_in_use: bool
