"""Anything callable as a refiner.

A refiner is called as ``refiner(images)``, ``refiner(images, labels)`` or ``refiner(images, labels, keys)``, by how
many arguments it requires (of a torch module, its ``forward``); a parameter with one of the names below gets what it is
named after:

- ``images``: float32 ``[B, 3, H, W]``, pixels in [0, 1], a numpy array of its own to write on;
- ``labels``: int64 ``[B]``, the refiner's class for each image;
- ``keys``: ``B`` hashes of 32 bytes, each that of one sample's content;
- ``variants``, by this name only: int64 ``[B]``, which of several refinements of the same sample is wanted, from 0 to
  2**32 - 1; 0 unless more than one is asked for. A refiner that draws noise seeds it with the key and the variant, and
  with nothing that differs between batches: otherwise all variants of a sample are the same image;
- ``cancel`` and ``progress``, as keywords, if it has parameters of these names: ``cancel.is_cancelled()`` says that
  the result is not wanted any more, ``progress(done, total)`` tells how far it is.

It returns ``B`` images, uint8 ``[B, 3, height, width]``, of any one size. An image must depend on its own pixels,
label, key and variant only: not on the others of its batch. It is called from a thread of the loader, one call at a
time.

It may have attributes:

- ``fingerprint``: a string or a JSON-like dict that names everything its pixels depend on. With one, images are kept
  in the cache on disk; without, in memory. Change it whenever the images would change. Integers of more than 64 bits
  are written as strings.
- ``preferred_batch``: how many images a call should bring (32).
- ``num_classes``: how many classes it knows; by default all labels are let through.
- ``release``: a method without arguments, called once the cache on disk has every sample. It gives back memory, above
  all a device's; a later call has to refine as before.

    >>> import numpy
    >>> def invert(images):
    ...     return numpy.rint((1 - images) * 255).astype(numpy.uint8)
    >>> invert.fingerprint = "invert v1"
    >>> check(invert)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex

from diver import _callables, _engine, _options, _tensors
from diver.errors import OptionError, OptionTypeError, RefineError

if TYPE_CHECKING:
    import numpy

__all__ = ["Fleet", "check"]

#: What a refiner may be given; the first three also by position.
_NAMES = ("images", "labels", "keys", "variants", "cancel", "progress")
_CALLED = (
    "it is called with images, or (images, labels), or (images, labels, keys); `variants`, `cancel` and `progress` "
    "by name"
)


def check(
    refiner: Callable[..., Any], *, side: SupportsIndex = 16, classes: Iterable[SupportsIndex] = (0, 1)
) -> None:
    """Runs the suite that every refiner has to pass, the engine's own ones too: equal batches give equal bytes, an
    image does not depend on its batch (by one grey level at most), an image that depends on its key depends on its
    variant too, its fingerprint does not change, and a cancelled call or a release leaves nothing behind.

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
    _engine.check_refiner(Adapter(refiner), _options.integer("side", side, least=1, most=4096), known)


class Adapter:
    """A refiner as the engine wants it: bytes in, bytes out."""

    def __init__(self, refiner: Callable[..., Any]) -> None:
        if not callable(refiner):
            raise OptionTypeError(
                f"refiner: a folder, a diver.Refiner or a callable is expected, not {type(refiner).__name__}"
            )
        self._refiner = refiner
        self._positional, self._named = _callables.signature(
            "refiner", refiner, known=_NAMES, places=3, called=_CALLED
        )
        _fingerprint(refiner)  # Refused now, if it is none.
        self.preferred_batch = _options.integer(
            "refiner.preferred_batch", getattr(refiner, "preferred_batch", 32), least=1
        )
        count = getattr(refiner, "num_classes", None)
        self.num_classes = None if count is None else _options.integer("refiner.num_classes", count, least=1)

    @property
    def fingerprint(self) -> str | None:
        """The refiner's fingerprint as a JSON object."""
        return _fingerprint(self._refiner)

    def refine(
        self,
        pixels: _engine.Tensor,
        labels: list[int],
        keys: list[bytes],
        variants: list[int],
        cancel: _engine.CancelToken,
        progress: _engine.Progress,
    ) -> tuple[bytes, int, int]:
        import numpy

        images = _tensors.numpy_array(pixels)
        indices, numbers = (numpy.array(values, dtype=numpy.int64) for values in (labels, variants))
        refined = self.call(images, indices, tuple(keys), numbers, cancel, progress)
        return refined.tobytes(), refined.shape[2], refined.shape[3]

    def release(self) -> None:
        """Has the refiner give back what it can have again."""
        release = getattr(self._refiner, "release", None)
        if callable(release):
            release()

    def call(
        self,
        images: numpy.ndarray[Any, Any],
        labels: numpy.ndarray[Any, Any],
        keys: tuple[bytes, ...],
        variants: numpy.ndarray[Any, Any],
        cancel: Any,
        progress: Callable[[int, int], object] | None,
    ) -> numpy.ndarray[Any, Any]:
        """What comes back for a batch, uint8 ``[B, 3, height, width]``."""
        given: dict[str, Any] = {
            "images": images,
            "labels": labels,
            "keys": keys,
            "variants": variants,
            "cancel": cancel,
            "progress": progress,
        }
        refined = self._refiner(
            *(given[name] for name in self._positional),
            **{name: given[value] for name, value in self._named.items()},
        )
        return _images(refined, len(images))


class Fleet:
    """Refiners of one backbone and equal settings on several devices, as one refiner: they share every batch.

        refiners = [diver.Refiner.from_pretrained(folder, device=f"cuda:{i}") for i in range(2)]
        loader = diver.DataLoader(path, refiner=diver.refiners.Fleet(refiners), cache="~/.cache/diver")

    Any callables may be its refiners, if they can be called concurrently. A process that shares its machine with other
    ranks of the same training needs no fleet: each rank refines on its own device (``device="cuda"``).

    Raises:
        OptionError: there is none, or they have different fingerprints.
    """

    def __init__(self, refiners: Iterable[Callable[..., Any]]) -> None:
        if isinstance(refiners, str | bytes) or not isinstance(refiners, Iterable):
            _options.wrong_type("refiners", refiners, "a sequence of refiners")
        members = list(refiners)
        if not members:
            raise OptionError("refiners: one or more are expected")
        self._members = [Adapter(member) for member in members]
        first = self._members[0]
        for position, member in enumerate(self._members):
            if member.fingerprint != first.fingerprint or member.num_classes != first.num_classes:
                raise OptionError(f"refiners: that at position {position} makes other images than the first")
        self._fingerprint = getattr(members[0], "fingerprint", None)

    @property
    def fingerprint(self) -> Any:
        """That of each of its refiners."""
        return self._fingerprint

    @property
    def preferred_batch(self) -> int:
        """How many images all of them take together."""
        return sum(member.preferred_batch for member in self._members)

    @property
    def num_classes(self) -> int | None:
        """How many classes they know."""
        return self._members[0].num_classes

    def release(self) -> None:
        """Has each of its refiners give back what it can have again.

        Raises:
            Exception: what the first one raised that did, after all were asked.
        """
        failures: list[Exception] = []
        for member in self._members:
            try:
                member.release()
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def __call__(
        self,
        images: numpy.ndarray[Any, Any],
        labels: numpy.ndarray[Any, Any],
        keys: Iterable[bytes],
        *,
        variants: numpy.ndarray[Any, Any] | None = None,
        cancel: Any = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> numpy.ndarray[Any, Any]:
        """Refines a batch: an equal share of it on each device, all at once."""
        import threading
        from concurrent.futures import ThreadPoolExecutor

        import numpy

        keys = tuple(keys)
        numbers = numpy.zeros(len(images), numpy.int64) if variants is None else variants
        share = -(-len(images) // len(self._members))
        starts = range(0, len(images), max(share, 1))
        lock, steps = threading.Lock(), dict.fromkeys(starts, 0)
        token = _Shared(cancel)
        failures: list[BaseException] = []

        def work(start: int, member: Adapter) -> numpy.ndarray[Any, Any] | None:
            part = slice(start, start + share)
            count = len(images[part])

            def heard(done: int, total: int) -> None:
                if progress is not None:
                    # Told under the lock: numbers never go back.
                    with lock:
                        steps[start] = done * count
                        progress(sum(steps.values()), total * len(images))

            try:
                return member.call(images[part], labels[part], keys[part], numbers[part], token, heard)
            except BaseException as error:
                # The others end, too; what they say then is not the reason.
                failures.append(error)
                token.cancel()
                return None

        with ThreadPoolExecutor(len(starts)) as pool:
            try:
                parts = list(pool.map(work, starts, self._members))
            except BaseException:  # Ctrl-C; the pool waits for its threads.
                token.cancel()
                raise
        if failures:
            raise failures[0]
        return numpy.concatenate([part for part in parts if part is not None])


class _Shared:
    """A token of the shares of a batch: cancelled with the batch's own, if there is one, or by itself."""

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self._own = _engine.CancelToken()

    def is_cancelled(self) -> bool:
        return self._own.is_cancelled() or (self._whole is not None and bool(self._whole.is_cancelled()))

    def cancel(self) -> None:
        self._own.cancel()


def _fingerprint(refiner: object) -> str | None:
    """The fingerprint of a refiner as a JSON object."""
    return _callables.fingerprint("refiner.fingerprint", getattr(refiner, "fingerprint", None), "refiner")


def _images(refined: Any, count: int) -> numpy.ndarray[Any, Any]:
    """What a refiner returned, once it is known to be ``[count, 3, height, width]`` bytes."""
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
    return array
