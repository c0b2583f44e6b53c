"""Whole sets at once: refined or labelled into a cache, looked at, exported. What the command ``diver`` does, without a
shell.

``source`` is what :func:`diver.open` gives, or a path for it, or what :func:`diver.from_dataset` takes; ``refiner`` is
a folder or repository with a diffusion model, a refiner, or any callable (:mod:`diver.refiners`); ``cache`` is a
:class:`diver.Cache` or its folder; ``progress`` as for :class:`diver.DataLoader`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from diver import _engine, _options
from diver import labels as label_kinds
from diver._datasets import as_source
from diver.cache import Cache
from diver.errors import OptionError, VersionError
from diver.loader import DataLoader
from diver.progress import Bar, Progress, hears, listener
from diver.refiners import Adapter

if TYPE_CHECKING:
    import PIL.Image

__all__ = ["Exported", "Labelled", "Refined", "export", "label", "preview", "refine"]

#: What hears of progress.
Listener = Callable[[Progress], object] | str | None


@dataclass(frozen=True)
class Refined:
    """What :func:`refine` did."""

    #: Images that did not have to be refined: the cache had them, or one of equal content and class was refined.
    cached: int
    #: Images that were refined now.
    refined: int
    #: Seconds that the refiner worked.
    seconds: float


@dataclass(frozen=True)
class Labelled:
    """What :func:`label` did."""

    #: Images that the teacher did not have to look at: the cache had their logits, or those of an equal image.
    cached: int
    #: Images that the teacher looked at now.
    labelled: int
    #: Seconds that the teacher worked.
    seconds: float


@dataclass(frozen=True)
class Exported:
    """What :func:`export` wrote."""

    #: The folder.
    path: Path
    #: Number of samples.
    samples: int
    #: What the format does not hold, one sentence each.
    notes: tuple[str, ...]


def refine(
    source: Any,
    *,
    refiner: Callable[..., Any] | str | os.PathLike[str],
    cache: Cache | str | os.PathLike[str],
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
    variants: SupportsIndex = 1,
    shard: tuple[SupportsIndex, SupportsIndex] = (0, 1),
    progress: Listener = "auto",
) -> Refined:
    """Refines what the cache lacks of a set. A loader with the same set and refiner finds every image then.

    Images are written in small parts: an interrupted call goes on where it stopped. Processes that refine into one
    cache share the work.

    Args:
        source: The set.
        refiner: What refines it; it needs a fingerprint.
        cache: Where the images go.
        classes: The refiner's class for each label, as for :func:`diver.open`.
        variants: Refinements of each sample, 1 to 1,024, for loaders with as many.
        shard: Which share of the set to refine, of how many, from ``(0, n)`` to ``(n - 1, n)``: for processes that
            cannot see each other's files.
        progress: What hears how far it is.

    Raises:
        DiverError: of the class that says what is wrong (:mod:`diver.errors`). What was refined before stays in the
            cache.

    >>> import tempfile, diver
    >>> def invert(images, labels):
    ...     return (255 * (1 - images)).round().astype("uint8")
    >>> invert.fingerprint = "inverted"
    >>> diver.refine("examples/digits/dm_ipc1", refiner=invert, cache=tempfile.mkdtemp()).refined
    10
    """
    known = as_source("source", source, classes=classes)
    count = _options.integer("variants", variants, least=1, most=1024)
    index, of = (_options.integer("shard", number) for number in _pair("shard", shard))
    if index >= of:
        raise OptionError(f"shard: share {index} of {of}: shares count from 0")
    with _adapter(refiner) as adapter, _heard(progress) as hear:
        _check_fingerprint(adapter)
        done = _engine.refine(known._engine, adapter, _cache(cache)._engine, count, (index, of), hear)
    return Refined(*done)


def label(
    source: Any,
    *,
    labels: label_kinds.Teacher,
    cache: Cache | str | os.PathLike[str],
    refiner: Callable[..., Any] | str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
    variants: SupportsIndex = 1,
    progress: Listener = "auto",
) -> Labelled:
    """Has a teacher label every image of a set, raw, or refined where there is a refiner. A loader with the same set,
    refiner, variants and teacher, and a label per image, finds all logits in the cache then. What is not refined yet is
    refined first.

    Args:
        source: The set.
        labels: What :func:`diver.labels.teacher` makes, per image.
        cache: Where logits and refined images go.
        refiner: What refines the images; without one they are labelled as they are stored.
        classes: The refiner's class for each label, as for :func:`diver.open`.
        variants: Refinements of each sample, 1 to 1,024, all of which are labelled.
        progress: What hears how far it is.

    Raises:
        DiverError: of the class that says what is wrong (:mod:`diver.errors`); above all, the cache could not take the
            logits.

    >>> import tempfile, diver
    >>> network = diver.labels.teacher(lambda images: images.reshape(len(images), -1)[:, :10], fingerprint="pixels")
    >>> diver.label("examples/digits/dm_ipc1", labels=network, cache=tempfile.mkdtemp()).labelled
    10
    """
    if not isinstance(labels, label_kinds.Teacher):
        _options.wrong_type("labels", labels, "what diver.labels.teacher makes")
    if labels.per != "image":
        raise OptionError(
            f"labels: per={labels.per!r}: a loader's augmentation makes views: give per='image'"
        )
    known = as_source("source", source, classes=classes)
    if labels._adapter(is_kept=True).fingerprint is None:
        raise OptionError(
            "labels: the teacher has no fingerprint, so that nothing would find its logits again: give it one, a "
            "string that names everything they depend on besides the images"
        )
    if refiner is not None and not isinstance(refiner, (str, os.PathLike)):
        _check_fingerprint(Adapter(refiner))
    count = _options.integer("variants", variants, least=1, most=1024)
    options: dict[str, Any] = {"refiner": refiner, "cache": _cache(cache), "labels": labels}
    if count > 1:
        options |= {"variants": count, "pick": "all"}
    with _heard(progress) as hear:

        def heard(of_loader: Progress) -> None:
            # How far the labels are is known better here.
            if hear is not None and of_loader.stage == "refining":
                hear(*of_loader)

        loader = DataLoader(
            known,
            batch_size=labels.batch_size,
            rank=0,
            world_size=1,
            progress=heard,
            format="numpy",
            **options,
        )
        with closing(loader):
            done, images = 0, len(known) * count
            for batch in loader:
                done += len(batch.images)
                if hear is not None:
                    hear("labelling", done, images, loader.stats()["eta_seconds"])
            stats = loader._finish()
    labelled = min(stats["taught"], images)
    return Labelled(images - labelled, labelled, stats["stages"]["teach"]["seconds"])


def preview(
    source: Any,
    *,
    refiner: Callable[..., Any] | str | os.PathLike[str] | None = None,
    cache: Cache | str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
    per_class: SupportsIndex = 1,
    scale: SupportsIndex | None = None,
    progress: Listener = "auto",
) -> PIL.Image.Image:
    """The first images of each class in one picture, ten beside one another, raw above refined: an image of Pillow's,
    which a notebook shows.

    Args:
        source: The set.
        refiner: What refines the images; without one, they are shown as they are stored.
        cache: Where refined images are found, and kept; by default they are not.
        classes: The refiner's class for each label, as for :func:`diver.open`.
        per_class: Images of each class, 1 or more.
        scale: How many times each image is enlarged, 1 or more; by default such that small ones become visible.
        progress: What hears how far the refinement is.

    Raises:
        VersionError: Pillow is not installed.
        DiverError: of the class that says what is wrong (:mod:`diver.errors`).

    >>> import diver
    >>> diver.preview("examples/digits/dm_ipc1", scale=2).size
    (662, 68)
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise VersionError("preview needs Pillow: pip install pillow") from error
    _check_cache(refiner, cache)
    known = as_source("source", source, classes=classes)
    count = _options.integer("per_class", per_class, least=1)
    times = None if scale is None else _options.integer("scale", scale, least=1)
    kept = None if cache is None else _cache(cache)._engine
    with _adapter(refiner) as adapter, _heard(progress) as hear:
        height, width, pixels = _engine.preview(known._engine, adapter, kept, count, times, hear)
    return Image.frombytes("RGB", (width, height), pixels)


def export(
    source: Any,
    path: str | os.PathLike[str],
    *,
    to: str,
    refiner: Callable[..., Any] | str | os.PathLike[str] | None = None,
    cache: Cache | str | os.PathLike[str] | None = None,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
    progress: Listener = "auto",
) -> Exported:
    """Writes a set, raw or refined, as the scripts of distillation methods and other tools read it.

    Args:
        source: The set.
        path: The folder to write, which is not there yet, or empty.
        to: ``"dc"`` or ``"mtt"`` (torch files, as these methods save them), ``"image-folder"``, ``"webdataset"``,
            ``"parquet"`` (as Hugging Face ``datasets`` has it) or ``"safetensors"``.
        refiner: What refines the images; without one, they are exported as they are stored.
        cache: Where refined images are found, and kept; by default they are not.
        classes: The refiner's class for each label, as for :func:`diver.open`.
        progress: What hears how far the refinement is.

    Raises:
        DiverError: of the class that says what is wrong (:mod:`diver.errors`); the folder is not there then.

    >>> import pathlib, tempfile, diver
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "digits"
    >>> diver.export("examples/digits/dm_ipc1", folder, to="image-folder").samples
    10
    >>> diver.open(folder).num_classes
    10
    """
    _check_cache(refiner, cache)
    known = as_source("source", source, classes=classes)
    folder = _options.absolute(_options.path("path", path))
    format = _options.text("to", to)
    kept = None if cache is None else _cache(cache)._engine
    with _adapter(refiner) as adapter, _heard(progress) as hear:
        samples, notes = _engine.export(known._engine, format, folder, adapter, kept, hear)
    return Exported(Path(folder), samples, tuple(notes))


@contextmanager
def _adapter(refiner: Callable[..., Any] | str | os.PathLike[str] | None) -> Iterator[Any]:
    """The refiner as the engine calls it. One that is loaded for this is closed afterwards."""
    if not isinstance(refiner, (str, os.PathLike)):
        yield None if refiner is None else Adapter(refiner)
        return
    from diver._torch import refiner_class

    with closing(refiner_class().from_pretrained(refiner)) as own:
        yield Adapter(own)


@contextmanager
def _heard(progress: Listener) -> Iterator[Callable[[str, int, int, float | None], object] | None]:
    """What the engine calls with how far it is."""
    hear = listener(progress, rank=0)
    try:
        yield None if hear is None else partial(hears, hear)
    finally:
        if isinstance(hear, Bar):
            hear.close()


def _check_cache(refiner: object, cache: object) -> None:
    if refiner is None and cache is not None:
        raise OptionError(
            "cache: without a refiner the images are raw ones, which no cache has: give the refiner, or no cache"
        )


def _check_fingerprint(refiner: Adapter) -> None:
    if refiner.fingerprint is None:
        raise OptionError(
            "refiner: it has no fingerprint, so that nothing would find its images again: give it one, a string that "
            "names everything the images depend on"
        )


def _cache(cache: Cache | str | os.PathLike[str]) -> Cache:
    return cache if isinstance(cache, Cache) else Cache(cache)


def _pair(name: str, values: Any) -> tuple[Any, Any]:
    try:
        first, second = values
    except (TypeError, ValueError):
        raise OptionError(f"{name}: a pair of integers is expected, as (0, 4)") from None
    return first, second
