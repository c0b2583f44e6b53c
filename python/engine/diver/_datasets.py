"""Datasets of torch's, and pairs of images and labels, as sources."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, SupportsIndex

from diver import _options, _tensors
from diver.errors import OptionError, OptionTypeError
from diver.source import Source, from_tensors, joined, subset
from diver.source import open as open_source

#: More samples than these are not fetched one by one: it would take too long, and all of them must fit into memory.
MOST_FETCHED = 1 << 20


def as_source(
    name: str,
    given: Any,
    *,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
) -> Source:
    """The source that an argument names: a path for :func:`diver.open`, or what :func:`from_dataset` takes."""
    if isinstance(given, (str, bytes, os.PathLike)):
        return open_source(_options.path(name, given), classes=classes)  # type: ignore[arg-type] # Bytes are refused.
    return from_dataset(given, classes=classes)


def from_dataset(
    dataset: Any,
    /,
    *,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
    **options: Any,
) -> Source:
    """A source of what a program has: images and labels, or a map-style dataset of torch's.

    Args:
        dataset: A pair ``(images, labels)``; a ``TensorDataset`` of these; a ``Subset`` of such a dataset or of a
            source; a ``ConcatDataset`` with sources; or any dataset with ``len()`` whose items are pairs of image and
            label, as torchvision's are. A source is returned as it is. Items are fetched once, and kept in memory.
            Pillow's images become RGB of 8 bits, as image files do: grey is repeated, 16 bits are scaled, alpha is
            dropped.
        classes: As for :func:`diver.open`.
        **options: As for :func:`diver.from_tensors`.

    Raises:
        OptionTypeError: it is nothing of these, or an item is no pair of image and label.
        OptionError: it has no samples, too many, or another number of tensors than two.
        DataError: shapes or dtypes differ, or a label is out of range.

    >>> import numpy
    >>> images = numpy.zeros((4, 3, 8, 8), dtype="uint8")
    >>> source = from_dataset((images, [0, 1, 0, 1]), dataset="cifar10")
    >>> source.num_samples, source.num_classes
    (4, 2)
    """
    if classes is not None:
        options["classes"] = classes
    if isinstance(dataset, Source):
        if options:
            raise OptionError(
                f"{', '.join(options)}: the dataset is a source already: give the options where it is opened"
            )
        return dataset
    inner, indices = getattr(dataset, "dataset", None), getattr(dataset, "indices", None)
    if inner is not None and indices is not None:
        return subset(from_dataset(inner, **options), _options.integers("indices", indices))
    parts = getattr(dataset, "datasets", None)
    if isinstance(parts, (list, tuple)) and _has_source(dataset):
        # Items of a source are normalised already: they would be read as if nobody knew with what.
        return joined([from_dataset(part, **options) for part in parts])
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, (tuple, list)):
        if len(tensors) != 2:
            raise OptionError(f"source: expected two tensors, images and labels, found {len(tensors)}")
        return from_tensors(*tensors, **options)
    if _are_images_and_labels(dataset):
        return from_tensors(*dataset, **options)
    return from_tensors(*_fetched(dataset), **options)


def _has_source(dataset: Any) -> bool:
    """Whether a source is among the parts of a dataset."""
    parts = getattr(dataset, "datasets", None)
    parts = parts if isinstance(parts, (list, tuple)) else [getattr(dataset, "dataset", None)]
    return isinstance(dataset, Source) or any(_has_source(part) for part in parts if part is not None)


def _are_images_and_labels(dataset: Any) -> bool:
    """Whether it is ``(images, labels)``. Two tuples are the items of a dataset that has two."""
    if not isinstance(dataset, (tuple, list)) or len(dataset) != 2:
        return False
    are_items = all(isinstance(part, tuple) and len(part) == 2 for part in dataset)
    return not are_items and all(_is_array(part) for part in dataset)


def _is_array(part: Any) -> bool:
    return hasattr(part, "shape") or (isinstance(part, Sequence) and not isinstance(part, (str, bytes)))


def _fetched(dataset: Any) -> tuple[Any, Any]:
    """The images and labels of a map-style dataset."""
    if isinstance(dataset, Mapping):
        raise OptionTypeError(
            f"source: expected a map-style dataset, not {type(dataset).__name__} with the keys "
            f"{', '.join(map(repr, list(dataset)[:4]))}; for images and labels in memory, use "
            "diver.from_tensors(images, labels)"
        )
    try:
        count = len(dataset)
        dataset.__getitem__  # noqa: B018
    except (TypeError, AttributeError):
        kind = type(dataset).__name__
        raise OptionTypeError(
            f"source: expected a path, a source, (images, labels) or a map-style dataset, not {kind}; "
            "for images and labels in memory, use diver.from_tensors(images, labels)"
        ) from None
    if not 0 < count <= MOST_FETCHED:
        raise OptionError(
            f"source: the dataset has {count:,} samples; 1 to {MOST_FETCHED:,} are fetched one by one"
        )
    images, labels = [], []
    for index in range(count):
        item = dataset[index]
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise OptionTypeError(
                f"source: item {index} is not a pair of image and label, but {type(item).__name__}; for images and "
                "labels in memory, use diver.from_tensors(images, labels)"
            )
        if not (hasattr(item[0], "shape") or _tensors.is_picture(item[0])):
            raise OptionTypeError(
                f"source: the image of item {index} is not a tensor, an array or a Pillow image"
            )
        images.append(item[0])
        labels.append(item[1])
    return images, labels
