"""Refined images on disk."""

import os
from pathlib import Path

from diver import _engine, _options


class Cache:
    """A folder of refined images, shared by every run and process that is pointed at it.

    Args:
        path: The folder, which is made if it is not there. A leading ``~`` is the home folder. One that cannot be
            written to serves what is in it; what it lacks stays in memory, and a warning says so.

    Raises:
        FileError: the folder is not there and cannot be made.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Cache(folder).path == Path(folder)
    True
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = _options.path("cache", path)
        self._engine = _engine.Cache(given)
        #: For a copy that is made in another folder.
        self._opened = _options.absolute(given)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._engine.path

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r})"

    def __reduce__(self) -> tuple[type["Cache"], tuple[str]]:
        return Cache, (self._opened,)
