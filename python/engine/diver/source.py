"""Distilled datasets on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

from diver import _engine, _options, _tensors
from diver._wording import counted
from diver.errors import OptionError, OutOfRangeError

if TYPE_CHECKING:
    import numpy


#: Stands for the file of a set that is in none.
MEMORY = "<memory>"

#: What stored floats can be.
VALUES = ("normalized", "unit", "whitened")


class Sample(NamedTuple):
    """One sample as its method stored it."""

    #: ``[C, H, W]``: float32 in the source's value space, or uint8.
    values: numpy.ndarray[Any, Any]
    #: The class: the hard label, or the position of the largest logit.
    label: int
    #: ``[classes]``, float32, where the set has soft labels.
    logits: numpy.ndarray[Any, Any] | None
    #: 32 bytes: the hash of dtype, shape and values, which seeds the sample's noise.
    digest: bytes


class Source:
    """A distilled dataset: what it is, and its samples. Made by :func:`open` or :func:`from_tensors`."""

    def __init__(self, engine: _engine.Source, opened: tuple[str, dict[str, Any]]) -> None:
        self._engine = engine
        self._opened = opened
        self._info: dict[str, Any] = json.loads(engine.info())

    @property
    def format(self) -> str:
        """The format family: ``dc``, ``mtt``, ``idc``, ``kip``, ``tensors``, ``image-folder``, ``parquet``, ``arrow``
        or ``webdataset``."""
        return str(self._info["format"])

    @property
    def method(self) -> str | None:
        """The method that distilled the set, as far as the files tell, and by what."""
        method: str | None = self._info["method"]
        return method

    @property
    def learning_rate(self) -> float | None:
        """The learning rate that was learned with the images (EDF, DATM), to train on them with."""
        rate: float | None = self._info["learning_rate"]
        return rate

    @property
    def path(self) -> Path:
        """The file or folder; ``<memory>`` if there is none."""
        return self._engine.path

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self._info["classes"])

    @property
    def class_names(self) -> list[str] | None:
        """The name of each class, where the set has them."""
        names: list[str] | None = self._info["class_names"]
        return names

    @property
    def class_map(self) -> list[int] | None:
        """The refiner's class for each class, where the files or ``classes`` say."""
        indices: list[int] | None = self._info["class_map"]
        return indices

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every sample."""
        channels, height, width = self._info["shape"]
        return channels, height, width

    @property
    def labels(self) -> str:
        """``hard`` (class indices) or ``logits``."""
        return str(self._info["labels"])

    @property
    def value_space(self) -> str | dict[str, Any]:
        """``"unit"`` for pixels, ``{"normalized": {"mean": [...], "std": [...]}}``, or ``"whitened"``, which cannot be
        refined."""
        space: str | dict[str, Any] = self._info["value_space"]
        return space

    @property
    def mean(self) -> tuple[float, float, float]:
        """What batches are normalised with, by channel, in units of pixels in [0, 1]."""
        red, green, blue = self._info["normalize"]["mean"]
        return red, green, blue

    @property
    def std(self) -> tuple[float, float, float]:
        """What batches are normalised with, by channel, in units of pixels in [0, 1]."""
        red, green, blue = self._info["normalize"]["std"]
        return red, green, blue

    @property
    def notes(self) -> list[str]:
        """What the files do not say and was assumed, a sentence each. The first loader of the set in a process logs
        them as warnings."""
        return list(self._info["notes"])

    def __len__(self) -> int:
        return len(self._engine)

    def __getitem__(self, index: SupportsIndex) -> Sample:
        """Sample ``index``, from the end if it is negative.

        Raises:
            OutOfRangeError: there is no such sample.
            DataError: it cannot be read.
        """
        import numpy

        position = self._position("index", index)
        raw, is_bytes, label, logits, digest = self._engine.sample(position)
        values = numpy.frombuffer(raw, dtype="u1" if is_bytes else "<f4").reshape(self.shape).copy()
        soft = None if logits is None else numpy.array(logits, dtype=numpy.float32)
        return Sample(values, label, soft, digest)

    def pixels(self, indices: Iterable[SupportsIndex] | None = None) -> numpy.ndarray[Any, Any]:
        """The pixels of some samples, or of all, as a refiner gets them: what :meth:`diver.Refiner.encode` and
        :meth:`diver.Refiner.refine` take.

        Args:
            indices: Positions of samples, from the end if they are negative; all unless given.

        Returns:
            float32 ``[N, 3, H, W]`` in [0, 1]: without the normalisation, clamped, and grey in three channels.

        Raises:
            OutOfRangeError: there is no such sample.
            DataError: one cannot be read.
            OptionError: the set is ZCA-whitened, and has no pixels; or there is no memory for as many.

        >>> source = open("examples/digits/dm_ipc1")
        >>> pixels = source.pixels([0, 1, -1])
        >>> pixels.shape, bool(pixels.min() >= 0 and pixels.max() <= 1)
        ((3, 3, 32, 32), True)
        """
        if indices is None:
            positions = list(range(len(self)))
        else:
            given = _options.integers("indices", indices, least=-_options.COUNT)
            positions = [self._position(f"indices[{at}]", index) for at, index in enumerate(given)]
        pixels: numpy.ndarray[Any, Any] = _tensors.numpy_array(_engine.source_pixels(self._engine, positions))
        return pixels

    def _position(self, name: str, index: SupportsIndex) -> int:
        given = _options.integer(name, index, least=-_options.COUNT)
        position = given + len(self) if given < 0 else given
        if not 0 <= position < len(self):
            raise OutOfRangeError(f"{name}: there is no sample {given} among {len(self)}")
        return position

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        channels, height, width = self.shape
        notes = f", {counted(len(self.notes), 'note')}" if self.notes else ""
        return (
            f"<{self.format} {str(self.path)!r}: {counted(self.samples, 'sample')}, "
            f"{channels} x {height} x {width}, {counted(self.classes, 'class')}{notes}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        path, options = self._opened
        return _reopen, (path, options)


def open(
    path: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    experiment: SupportsIndex | None = None,
    num_classes: SupportsIndex | None = None,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
    values: str | None = None,
    zca: str | os.PathLike[str] | None = None,
    factor: SupportsIndex | None = None,
    canvas: SupportsIndex | None = None,
) -> Source:
    """Opens the distilled dataset at ``path``, whichever known format it has.

    Args:
        path: The torch file of DC, DSA or DM; the run folder of MTT, GLaD, EDF or DATM, or one ``images_<n>.pt`` of it;
            the run folder of IDC or NCFM, or its ``data.pt`` or ``data_<n>.pt``; images and labels by name in an npz,
            safetensors or torch file, or the two as a pair; a folder of class folders with PNG or JPEG images; a file
            of Parquet, Arrow or WebDataset (tar), or a folder of them; a folder with one such file.
        dataset: The dataset that was distilled, as in ``"cifar10"``, for its normalisation constants.
        mean: The mean that stored values were normalised with, or that images are to be normalised with: one number,
            or one for each channel, in units of pixels in [0, 1]. Goes together with ``std``.
        std: The standard deviation, likewise.
        experiment: Which experiment of a DC, DSA or DM file, from 0; the last by default.
        num_classes: The number of classes, where the set may lack some of the last ones and its files do not say.
        classes: The classes of the set in the order of its labels, as classes of a refiner: the name of a subset of
            ImageNet (``"imagenette"``, ``"imagefruit"``, ``"imagefruit-ncfm"``, ``"imagenet-idc-100"``, ...), a file
            with a class on each line (an index, a WordNet id or a name), or indices. Folders with WordNet ids or names
            of ImageNet's classes are labelled by their place in it. By default it is what an exported set says.
        values: What stored floats are, where that is another than what is usual for the format, or than what a
            ``norm.json`` beside the set says: ``"normalized"``, ``"unit"`` (pixels in [0, 1]) or ``"whitened"`` (by
            ZCA).
        zca: A file with the ZCA transform that whitened the values, which become pixels by its inverse: tensors
            ``mean_vector`` (or ``mean``) ``[D]`` and ``transform_inv`` (or ``inverse``) ``[D, D]``, as kornia's
            ``ZCAWhitening`` has them, for images of D values, in a torch file's dict, an npz or a safetensors file.
        factor: How many images lie along each side of a stored one (multi-formation), 1 for none; by default as IDC
            and NCFM have it.
        canvas: How many images lie along each side of a stored one that is a texture canvas (MTT with ``--texture``), 1
            for none: samples are windows of it, which together show each pixel once. By default canvases are told by
            their size, where ``dataset`` is given.

    Raises:
        FileError: there is nothing at ``path``, or it cannot be read.
        DataError: nothing known is there, or it is damaged.
        OptionError: an argument is out of range or does not fit the dataset.

    >>> source = open("examples/digits/dm_ipc1")
    >>> source.format, source.samples, source.shape
    ('mtt', 10, (3, 32, 32))
    >>> source[0].label
    0
    """
    options = _given(
        dataset=dataset,
        mean=mean,
        std=std,
        experiment=experiment,
        num_classes=num_classes,
        classes=classes,
        values=values,
        zca=zca,
        factor=factor,
        canvas=canvas,
    )
    return _reopen(_options.path("path", path), options)


def from_tensors(
    images: Any,
    labels: Any,
    *,
    dataset: str | None = None,
    mean: float | Iterable[float] | None = None,
    std: float | Iterable[float] | None = None,
    num_classes: SupportsIndex | None = None,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None = None,
    values: str | None = None,
    zca: str | os.PathLike[str] | None = None,
) -> Source:
    """A dataset of tensors that a program holds, as a file with ``images`` and ``labels`` would be. They are copied.

    Args:
        images: ``[N, C, H, W]`` or ``[N, H, W, C]`` of one channel or three, as torch or numpy has them: uint8, or
            floats, which are taken for pixels if they lie in [0, 1], else for normalised values (``values`` says
            otherwise).
        labels: Integers ``[N]``, or floats ``[N, classes]``: logits, or probabilities that sum to 1. A sequence of
            integers will do.
        dataset: As for :func:`open`, like all that follow.
        mean: As for :func:`open`.
        std: As for :func:`open`.
        num_classes: As for :func:`open`.
        classes: As for :func:`open`.
        values: As for :func:`open`.
        zca: As for :func:`open`.

    Raises:
        DataError: shapes or dtypes are others, a label is out of range, or a value is not finite.
        OptionError: an argument is out of range, or is no tensor.

    >>> import numpy
    >>> images = numpy.zeros((20, 3, 32, 32), dtype="uint8")
    >>> source = from_tensors(images, [label // 2 for label in range(20)], dataset="cifar10")
    >>> source.samples, source.classes, source.shape
    (20, 10, (3, 32, 32))
    """
    content = _tensors.as_safetensors({"images": images, "labels": labels})
    options = _given(
        dataset=dataset,
        mean=mean,
        std=std,
        num_classes=num_classes,
        classes=classes,
        values=values,
        zca=zca,
    )
    return _reopen(MEMORY, {**options, "content": content})


def _given(
    *,
    dataset: str | None,
    mean: float | Iterable[float] | None,
    std: float | Iterable[float] | None,
    num_classes: SupportsIndex | None,
    classes: str | os.PathLike[str] | Iterable[SupportsIndex] | None,
    values: str | None,
    zca: str | os.PathLike[str] | None,
    experiment: SupportsIndex | None = None,
    factor: SupportsIndex | None = None,
    canvas: SupportsIndex | None = None,
) -> dict[str, Any]:
    """The options as the engine takes them."""
    if (mean is None) != (std is None):
        raise OptionError("mean and std go together: give both, or neither")
    return {
        "content": None,
        "dataset": None if dataset is None else _options.text("dataset", dataset),
        "mean": None if mean is None else _options.channels("mean", mean),
        "std": None if std is None else _options.channels("std", std),
        "experiment": None if experiment is None else _options.integer("experiment", experiment),
        "num_classes": None
        if num_classes is None
        else _options.integer("num_classes", num_classes, least=1, most=_options.CLASSES),
        "classes": None if classes is None else _options.classes("classes", classes),
        "values": None if values is None else _options.choice("values", values, VALUES),
        "zca": None if zca is None else _options.path("zca", zca),
        "factor": None if factor is None else _options.integer("factor", factor, least=1),
        "canvas": None if canvas is None else _options.integer("canvas", canvas, least=1),
    }


def _reopen(path: str, options: dict[str, Any]) -> Source:
    # Another process, or this one later, may stand in another folder.
    zca = options["zca"]
    fixed = {**options, "zca": None if zca is None else _options.absolute(zca)}
    where = path if options["content"] is not None else _options.absolute(path)
    return Source(_engine.open(path, **options), (where, fixed))
