"""What can go wrong, as exceptions.

All of them are a :class:`DiverError`, and each is also the built-in exception that code which knows nothing of diver
would expect. Messages name the file, sample or option at fault and, where there is one, the way out.
"""

from typing import Any


class DiverError(Exception):
    """The base of every exception that diver raises."""


class FileError(DiverError, OSError):
    """The operating system refused a file operation. ``filename`` and ``errno`` are those of ``OSError``."""

    def __str__(self) -> str:
        # OSError's own would show number and file name alone.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {"filename": self.filename, "errno": self.errno}


class MissingFileError(FileError, FileNotFoundError):
    """There is no such file or folder."""


class ForbiddenFileError(FileError, PermissionError):
    """The file or folder may not be read or written."""


class DataError(DiverError, ValueError):
    """A dataset, a sample of it or a file of weights is damaged, incomplete or of an unknown format."""


class OptionError(DiverError, ValueError):
    """An argument has a value that it cannot have."""


class OptionTypeError(OptionError, TypeError):
    """An argument has a type that it cannot have."""


class OutOfRangeError(DiverError, IndexError):
    """There is no sample, epoch or batch of this number."""


class StateError(DiverError, ValueError):
    """A saved loader state is none, or belongs to a loader with another order."""


class RefineError(DiverError, RuntimeError):
    """The refiner failed. If it is written in Python, its own exception is the ``__cause__``."""


class TeachError(DiverError, RuntimeError):
    """The teacher failed, or returned something that is not logits. If it is written in Python, its own exception is
    the ``__cause__``."""


class ClosedError(DiverError, RuntimeError):
    """The object was closed, or was made by another process (a forked one cannot use its parent's threads)."""


class VersionError(DiverError, ImportError):
    """A package that is needed is not there, or of another version."""


class InternalError(DiverError, RuntimeError):
    """A defect in diver. Please report it."""
