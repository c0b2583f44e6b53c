"""Refined images, and what teachers say of them, on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, SupportsFloat, SupportsIndex

from diver import _engine, _options
from diver.errors import OptionError
from diver.refiners import Adapter
from diver.source import Source
from diver.source import open as open_source
from diver.upkeep import Compacted, Difference, Evicted, Explanation, Listing, Neighbour, Verified


class Cache:
    """A folder of refined images and teachers' logits, shared by every run and process that is pointed at it.

    Args:
        path: The folder, which is made if it is not there. A leading ``~`` is the home folder. One that cannot be
            written to serves what is in it; what it lacks stays in memory, and a warning says so. Or a URL, as text:
            ``s3://bucket/folder``, ``gs://bucket/folder`` or ``az://container/folder``, with credentials and endpoints
            by the usual environment variables (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...); ``file:///folder``;
            or ``memory://name``, which lasts as long as the process.
        limit: The most bytes that the cache may have, a number or as in ``"20GB"`` or ``"512MiB"`` (default: no limit).
            While images are written, the least recently used fingerprints are deleted, but not those that a process is
            adding to.
        lease_expiry: How long other processes wait for images that a process was refining when it died: seconds, a
            ``timedelta``, or as in ``"2m"``, at least 0.1 s (default: 30 s). All processes that share a cache should
            have the same.
        local: A folder on this machine that keeps copies of cache parts (default: no copies). Use it where the cache is
            slow to read, as in a bucket. Several processes and caches may share the folder.
        local_limit: The most bytes that these copies may have, likewise (default: 10 GB). Cache parts that do not fit
            are read where they are.
        image_form: How new images are stored, each without loss: ``"png"`` (the default), ``"webp"``, which is smaller
            and slower to write, or ``"raw"``, which is larger and faster. Images of all forms are read, whatever this
            says.

    Raises:
        FileError: the folder is not there and cannot be made; the bucket cannot be reached; the folder for copies
            cannot be written to.
        OptionError: an argument is out of range; the URL's scheme is not supported.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Cache(folder, limit="20GB").path == Path(folder)
    True
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        limit: SupportsIndex | str | None = None,
        lease_expiry: SupportsFloat | timedelta | str = 30.0,
        local: str | os.PathLike[str] | None = None,
        local_limit: SupportsIndex | str = 10_000_000_000,
        image_form: Literal["png", "webp", "raw"] = "png",
    ) -> None:
        self._options = _options.given("cache", locals())
        # As text: a path has lost a slash of it, which the engine knows.
        given = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
        if not _options.is_url(given):
            # The program may turn to another folder.
            given = _options.absolute(_options.path("cache", path)) if given else given
        self._opened: str = given
        if self._options.get("local"):
            self._options["local"] = _options.absolute(self._options["local"])
        self._engine = _engine.Cache(given, _options.to_json(self._options))

    @property
    def path(self) -> Path:
        """The folder. (A URL has two slashes, of which a path has one: ``str(cache)`` has both.)"""
        return self._engine.path

    def __str__(self) -> str:
        return self._opened if _options.is_url(self._opened) else str(self.path)

    def ls(self, source: Source | str | os.PathLike[str] | None = None) -> list[Listing]:
        """What the cache has, an item for each fingerprint, the one that was used last first.

        Args:
            source: A set, as :class:`diver.DataLoader` takes it: the items then say how many of its images they have.

        Raises:
            FileError: the set or the cache cannot be read.
            DataError: a sample of the set is damaged.

        >>> import tempfile
        >>> Cache(tempfile.mkdtemp()).ls()
        []
        """
        return [
            Listing(**fields | {"path": self.path / fields["name"]})
            for fields in json.loads(self._engine.ls(None if source is None else _opened(source)._engine))
        ]

    def explain(
        self,
        source: Source | str | os.PathLike[str],
        *,
        refiner: Callable[..., Any] | str | os.PathLike[str],
    ) -> Explanation:
        """Which images of a set the cache has, and how the most similar fingerprints differ from the refiner's. Nothing
        is refined.

        Args:
            source: The set, as :class:`diver.DataLoader` takes it.
            refiner: The refiner, likewise. It must have a fingerprint.

        Raises:
            FileError: the set or the cache cannot be read.
            DataError: a sample is damaged, or its label is not a class of the refiner.
            OptionError: the refiner has no fingerprint.

        >>> import tempfile
        >>> def refiner(images): ...
        >>> refiner.fingerprint = {"name": "invert", "version": 2}
        >>> found = Cache(tempfile.mkdtemp()).explain("examples/digits/dm_ipc1", refiner=refiner)
        >>> found.verdict, found.found, found.wanted
        ('miss', 0, 10)
        """
        opened = _opened(source)
        if isinstance(refiner, (str, os.PathLike)):
            from diver._torch import refiner_class

            with refiner_class().from_pretrained(refiner) as own:
                return self.explain(opened, refiner=own)
        told = json.loads(self._engine.explain(opened._engine, Adapter(refiner)))
        neighbours = (
            Neighbour(one["name"], one["found"], tuple(Difference(**fields) for fields in one["differences"]))
            for one in told.pop("neighbours")
        )
        return Explanation(neighbours=tuple(neighbours), **told)

    def verify(self) -> Verified:
        """Decodes every image and compares its digest. Damaged parts are set aside, and their images will be refined
        again. Ctrl-C ends it.

        Raises:
            FileError: the cache cannot be read.

        >>> import tempfile
        >>> Cache(tempfile.mkdtemp()).verify()
        Verified(rows=0, parts=0, damaged=(), faults=())
        """
        told = json.loads(self._engine.verify())
        # In the words of JSON, a path has lost what is not text in it.
        damaged = (self.path.joinpath(*Path(part).parts[-2:]) for part in told["damaged"])
        return Verified(told["rows"], told["parts"], tuple(damaged), tuple(told["faults"]))

    def compact(self) -> Compacted:
        """Merges small parts into large ones (32 MiB), while other processes read and write. Ctrl-C ends it, and no
        image is lost.

        Raises:
            FileError: the cache cannot be read or written.

        >>> import tempfile
        >>> Cache(tempfile.mkdtemp()).compact()
        Compacted(gathered=0, into=0, rows=0)
        """
        return Compacted(**json.loads(self._engine.compact()))

    def gc(
        self,
        *,
        keep: SupportsIndex | str | None = None,
        older: SupportsFloat | timedelta | str | None = None,
        fingerprints: Iterable[str] = (),
        apply: bool = False,
    ) -> list[Evicted]:
        """Deletes fingerprints to make room. At least one rule is required. A fingerprint that a process is adding to
        stays; to find out, its leases are watched for up to ``lease_expiry``.

        Args:
            keep: The least recently used fingerprints go until the cache has at most so many bytes, a number or as in
                ``"20GB"``.
            older: Fingerprints go that were not used for longer: seconds, a ``timedelta``, or as in ``"30d"``.
            fingerprints: These go: the names of their folders, or how the names begin.
            apply: Whether they are deleted. By default, nothing is changed.

        Returns:
            What went or would go, the least recently used first, and what should go but is in use.

        Raises:
            FileError: the cache cannot be read or written.
            OptionError: there is no rule; no fingerprint matches a name, or several do.

        >>> import tempfile
        >>> Cache(tempfile.mkdtemp()).gc(keep="20GB", older="30d")
        []
        """
        names = _options.texts("fingerprints", fingerprints)
        if keep is None and older is None and not names:
            raise OptionError("keep: gc needs at least one of keep, older and fingerprints")
        told = self._engine.gc(
            None if keep is None else _options.amount("keep", keep),
            None if older is None else _options.seconds("older", older),
            names,
            _options.boolean("apply", apply),
        )
        return [Evicted(**fields | {"path": self.path / fields["name"]}) for fields in json.loads(told)]

    def __repr__(self) -> str:
        return f"Cache({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._opened, self._options)


def _opened(source: Source | str | os.PathLike[str]) -> Source:
    return source if isinstance(source, Source) else open_source(_options.path("source", source))


def _reopen(path: str, options: dict[str, Any]) -> Cache:
    return Cache(path, **options)
