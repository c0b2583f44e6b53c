"""The torch that the extension was built for."""

from diver.errors import VersionError

#: The release; any patch of it has the same libtorch.
NEEDED = "2.11"

_WAY_OUT = (
    f"run `pip install 'torch=={NEEDED}.*'`, or fill the cache with the command `diver refine` in another "
    "environment: the loader itself needs no torch"
)


def load() -> None:
    """Loads torch, and with it the libtorch that the extension is linked to; then the extension.

    Raises:
        VersionError: torch is not there, or is of another release.
    """
    try:
        import torch
    except ImportError as error:
        raise VersionError(f"torch {NEEDED} is needed, and torch cannot be imported: {_WAY_OUT}") from error
    version = str(torch.__version__)
    if version.split(".")[:2] != NEEDED.split("."):
        raise VersionError(f"torch {version} is installed, {NEEDED} is needed: {_WAY_OUT}")
    try:
        from diver_refiner import _refiner  # noqa: F401
    except ImportError as error:
        raise VersionError(
            f"torch {version} is not the build that is needed ({error}): {_WAY_OUT}"
        ) from error
