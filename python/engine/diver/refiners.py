"""Anything callable as a refiner.

A refiner is called as ``refiner(images)``, ``refiner(images, labels)`` or ``refiner(images, labels, keys)``, by how
many arguments it requires; a parameter with one of the names below gets what it is named after:

- ``images``: float32 ``[B, 3, H, W]``, pixels in [0, 1], a numpy array of its own to write on;
- ``labels``: int64 ``[B]``, the refiner's class for each image;
- ``keys``: ``B`` hashes of 32 bytes, each that of one sample's content. Noise seeded by them depends on nothing else;
- ``cancel`` and ``progress``, as keywords, if it has parameters of these names: ``cancel.is_cancelled()`` says that
  the result is not wanted any more, ``progress(done, total)`` tells how far it is.

It returns ``B`` images, uint8 ``[B, 3, height, width]``, of any one size. An image must depend on its own pixels,
label and key only: not on the others of its batch. It is called from a thread of the loader, one call at a time.

It may have attributes:

- ``fingerprint``: a string or a JSON-like dict that names everything its pixels depend on. With one, images are kept
  in the cache on disk; without, in memory. Change it whenever the images would change.
- ``preferred_batch``: how many images a call should bring (32).
- ``num_classes``: how many classes it knows; by default all labels are let through.

    >>> import numpy
    >>> def invert(images):
    ...     return numpy.rint((1 - images) * 255).astype(numpy.uint8)
    >>> invert.fingerprint = "invert v1"
    >>> check(invert)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, SupportsIndex

from diver import _engine, _options
from diver.errors import OptionError, OptionTypeError, RefineError

if TYPE_CHECKING:
    import numpy

__all__ = ["check"]

#: What a refiner may require by position, and what it may ask for by name.
_POSITIONAL = ("images", "labels", "keys")
_KEYWORDS = ("labels", "keys", "cancel", "progress")


def check(
    refiner: Callable[..., Any], *, side: SupportsIndex = 16, classes: Iterable[SupportsIndex] = (0, 1)
) -> None:
    """Runs the suite that every refiner has to pass, the engine's own ones too: equal batches give equal bytes, an
    image does not depend on its batch (by one grey level at most), cancelling ends a call and leaves nothing behind.

    Args:
        refiner: What is to be checked.
        side: Height and width of the images it is called with.
        classes: Two classes or more that it knows.

    Raises:
        AssertionError: names the rule that it breaks.
    """
    known = _options.integers("classes", classes)
    if len(known) < 2:
        raise OptionError("classes: two known classes are needed")
    _engine.check_refiner(Adapter(refiner), _options.integer("side", side, least=1), known)


class Adapter:
    """A refiner as the engine wants it: bytes in, bytes out."""

    def __init__(self, refiner: Callable[..., Any]) -> None:
        if not callable(refiner):
            raise OptionTypeError(
                f"refiner: a folder, a diver.Refiner or a callable is expected, not {type(refiner).__name__}"
            )
        self._refiner = refiner
        self._positional, self._keywords = _signature(refiner)
        self.fingerprint = _fingerprint(getattr(refiner, "fingerprint", None))
        self.preferred_batch = _options.integer(
            "refiner.preferred_batch", getattr(refiner, "preferred_batch", 32), least=1
        )
        count = getattr(refiner, "num_classes", None)
        self.num_classes = None if count is None else _options.integer("refiner.num_classes", count, least=1)

    def refine(
        self,
        pixels: bytes,
        shape: tuple[int, int, int, int],
        labels: list[int],
        keys: list[bytes],
        cancel: _engine.CancelToken,
        progress: _engine.Progress,
    ) -> tuple[bytes, int, int]:
        import numpy

        given: dict[str, Any] = {
            "images": numpy.frombuffer(pixels, dtype=numpy.float32).reshape(shape).copy(),
            "labels": numpy.array(labels, dtype=numpy.int64),
            "keys": tuple(keys),
            "cancel": cancel,
            "progress": progress,
        }
        refined = self._refiner(
            *(given[name] for name in _POSITIONAL[: self._positional]),
            **{name: given[name] for name in self._keywords},
        )
        return _image_bytes(refined, shape[0])


def _signature(refiner: Callable[..., Any]) -> tuple[int, list[str]]:
    """How many arguments to pass by position, and which by name."""
    import inspect

    try:
        parameters = inspect.signature(refiner).parameters.values()
    except (TypeError, ValueError):
        return 1, []  # Written in C, and says nothing of itself.
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    passed = 1
    for place, parameter in list(zip(_POSITIONAL, by_position, strict=False))[1:]:
        # A name that diver knows says more than its place: `(images, keys)` is to get keys, not labels.
        misplaced = parameter.name in by_name and parameter.name in _KEYWORDS and parameter.name != place
        if misplaced or parameter.default is not parameter.empty:
            break
        passed += 1
    else:
        passed = len(_POSITIONAL) if takes_any else passed
    taken = {p.name for p in by_position[:passed]}
    keywords = [name for name in _KEYWORDS if name in by_name and name not in taken]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    unknown = [name for name in required if name not in taken and name not in keywords]
    if unknown or not (by_position or takes_any):
        refused = f"it requires `{unknown[0]}`" if unknown else "it takes no images"
        raise OptionError(
            f"refiner: {refused}; it is called as (images), (images, labels) or (images, labels, keys), and with "
            "`cancel` and `progress` by name"
        )
    return passed, keywords


def _fingerprint(value: object) -> str | None:
    """The fingerprint as a JSON object."""
    if value is None:
        return None
    if not isinstance(value, (str, Mapping)):
        _options.wrong_type("refiner.fingerprint", value, "a string or a dict")
    if not value:
        raise OptionError("refiner.fingerprint: it is empty, and would say nothing")
    if isinstance(value, str):
        value = {"refiner": "python", "fingerprint": value}
    try:
        return json.dumps(dict(value), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OptionError(f"refiner.fingerprint: not like JSON: {error}") from error


def _image_bytes(refined: Any, count: int) -> tuple[bytes, int, int]:
    """The bytes of ``[count, 3, height, width]``, with height and width."""
    import numpy

    kept = refined
    if hasattr(refined, "detach"):  # A tensor of torch, perhaps on another device.
        refined = refined.detach().cpu()
    try:
        array: numpy.ndarray[Any, Any] | None = numpy.asarray(refined)
    except (TypeError, ValueError):
        array = None
    if (
        array is None
        or array.dtype != numpy.uint8
        or array.ndim != 4
        or array.shape[:2] != (count, 3)
        or 0 in array.shape
    ):
        shown = kept if array is None or array.dtype.kind in "OUS" else array
        is_array = hasattr(shown, "dtype") and hasattr(shown, "shape")
        what = (
            f"{shown.dtype} {list(shown.shape)}" if is_array else f"an object of type {type(shown).__name__}"
        )
        raise RefineError(
            f"{what} came back, uint8 [{count}, 3, height, width] is expected "
            "(from pixels in [0, 1]: multiply by 255, round, clip, convert)"
        )
    return array.tobytes(), array.shape[2], array.shape[3]
