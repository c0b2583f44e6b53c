"""Distilled datasets on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

from diver import _engine, _options, _tensors
from diver._wording import counted
from diver.errors import OutOfRangeError

if TYPE_CHECKING:
    import numpy


#: Stands for the file of a set that is in none.
MEMORY = "<memory>"


class Sample(NamedTuple):
    """One sample as its method stored it."""

    #: ``[C, H, W]``: float32 in the source's value space, or uint8.
    values: numpy.ndarray[Any, Any]
    #: The class: the hard label, or the position of the largest logit or probability.
    label: int
    #: ``[classes]``, float32, where the set's labels are logits.
    logits: numpy.ndarray[Any, Any] | None
    #: ``[classes]``, float32, where the set's labels are probabilities.
    probabilities: numpy.ndarray[Any, Any] | None
    #: 32 bytes: the hash of dtype, shape and values, which seeds the sample's noise.
    digest: bytes


class Source:
    """A distilled dataset: what it is, and its samples. Made by :func:`open`, :func:`from_tensors`,
    :func:`from_dataset` or :func:`concat`.

    It is a map-style dataset of torch's, too: ``source[i]`` is a pair of image and target, so that
    ``torch.utils.data.DataLoader(source)``, ``Subset``, ``random_split`` and ``ConcatDataset`` take it as it is. What
    is stored of a sample is had by name, as ``source.sample(i).values``.
    """

    def __init__(self, engine: _engine.Source, made: tuple[Callable[..., Source], tuple[Any, ...]]) -> None:
        self._engine = engine
        #: What makes it again, in another process.
        self._made = made
        self._tensor: Callable[[_engine.Tensor], Any] | None = None
        self._info: dict[str, Any] = json.loads(engine.info())

    @property
    def format(self) -> str:
        """The format family: ``dc``, ``mtt``, ``idc``, ``kip``, ``tensors``, ``image-folder``, ``parquet``, ``arrow``
        or ``webdataset``; ``concat`` for several sets as one."""
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
        """The file or folder; ``<memory>`` if there is none. Of several sets as one, their paths with ``+`` between."""
        return self._engine.path

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return len(self)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self._info["num_classes"])

    @property
    def classes(self) -> list[str]:
        """The name of each class; its number where the set has no names."""
        names: list[str] | None = self._info["classes"]
        return [str(label) for label in range(self.num_classes)] if names is None else names

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class, by its name."""
        return {name: label for label, name in enumerate(self.classes)}

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
        """``hard`` (class indices), ``logits`` or ``probabilities``."""
        return str(self._info["labels"])

    @property
    def value_space(self) -> str | dict[str, Any]:
        """``"unit"`` for pixels, ``{"normalized": {"mean": [...], "std": [...]}}``, ``"whitened"``, which cannot be
        refined, or ``"mixed"`` for several sets as one whose spaces differ."""
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
    def facts(self) -> list[dict[str, str]]:
        """What is known beyond what every file of the format says: ``name``, ``value`` and by what ``right``: an
        ``option``, the ``sidecar`` (norm.json), what is ``embedded`` in the files, the ``path``, or a ``guess``."""
        return list(self._info["facts"])

    @property
    def notes(self) -> list[str]:
        """What the files do not say and was assumed, a sentence each. The first loader of the set in a process logs
        them as warnings."""
        return list(self._info["notes"])

    def __len__(self) -> int:
        return len(self._engine)

    def __getitem__(self, index: SupportsIndex) -> tuple[Any, Any]:
        """Image and target of sample ``index``, from the end if it is negative: the image normalised as in batches,
        ``[C, H, W]``, float32; the target a class index, or of soft labels a distribution ``[num_classes]``, float32.
        They are torch tensors where torch is installed, else numpy arrays.

        Raises:
            OutOfRangeError: there is no such sample.
            DataError: it cannot be read.
        """
        return self._items([self._position("index", index)])[0]

    def __getitems__(self, indices: Iterable[SupportsIndex]) -> list[tuple[Any, Any]]:
        """As ``source[i]`` for several samples at once, which torch's loader asks for."""
        return self._items([self._position("index", index) for index in indices])

    def _items(self, positions: list[int]) -> list[tuple[Any, Any]]:
        if self._tensor is None:
            self._tensor = _tensors.converter("auto", None)
        images, classes, targets = self._engine.items(positions)
        return list(
            zip(self._tensor(images), classes if targets is None else self._tensor(targets), strict=True)
        )

    def sample(self, index: SupportsIndex) -> Sample:
        """What is stored of sample ``index``, from the end if it is negative.

        Raises:
            OutOfRangeError: there is no such sample.
            DataError: it cannot be read.
        """
        import numpy

        raw, is_bytes, label, scores, are_logits, digest = self._engine.sample(self._position("index", index))
        values = numpy.frombuffer(raw, dtype="u1" if is_bytes else "<f4").reshape(self.shape).copy()
        soft = None if scores is None else numpy.array(scores, dtype=numpy.float32)
        return Sample(values, label, soft if are_logits else None, None if are_logits else soft, digest)

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

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        channels, height, width = self.shape
        notes = f", {counted(len(self.notes), 'note')}" if self.notes else ""
        return (
            f"<{self.format} {str(self.path)!r}: {counted(self.num_samples, 'sample')}, "
            f"{channels} x {height} x {width}, {counted(self.num_classes, 'class')}{notes}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return self._made


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
    first_label: SupportsIndex | None = None,
    split: str | None = None,
    columns: str | None = None,
    image_size: SupportsIndex | Iterable[SupportsIndex] | None = None,
    fit: str | None = None,
) -> Source:
    """Opens the distilled dataset at ``path``, whichever known format it has.

    Args:
        path: The torch file of DC, DSA or DM; the run folder of MTT, GLaD, FTD, EDF or DATM, or one images file of it;
            the run folder of IDC, DREAM or NCFM, or its data file; images and labels by name in a torch, pickle, npz or
            safetensors file, or in two files; a folder, zip or tar of class folders; a Parquet, Arrow or WebDataset
            (tar) file, or a folder of them; a folder with one such file, or with one for each ``split``.
        dataset: The dataset that was distilled, as in ``"cifar10"``, for its normalisation constants.
        mean: The mean that stored values were normalised with, or that images are to be normalised with: one number,
            or one for each channel, in units of pixels in [0, 1]. Goes together with ``std``.
        std: The standard deviation, likewise.
        experiment: Which experiment of a DC, DSA or DM file, from 0; the last by default.
        num_classes: The number of classes, 1 to 1,048,576, where the set may lack some of the last ones and its files
            do not say.
        classes: The classes of the set in the order of its labels, as classes of a refiner: the name of a subset of
            ImageNet (``"imagenette"``, ``"imagefruit"``, ``"imagefruit-ncfm"``, ``"imagenet-idc-100"``, ...), a file
            with a class on each line (an index, a WordNet id or a name), or indices; ``"identity"`` if the labels are
            the refiner's classes. Folders with WordNet ids or names of ImageNet's classes are labelled by their place
            in it. By default it is what an exported set says.
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
        first_label: The label of the first class, where labels do not count from 0: 1 for labels 1 to N.
        split: The split to open where there are several, as in ``"train"``.
        columns: The columns of a table, the arrays of a file or the suffixes of archive entries that are images and
            labels, where their names do not tell: ``"image=NAME,label=NAME"``, and ``soft_label=NAME`` if there is one.
        image_size: The size that images of several sizes are brought to, a side or (height, width), each from 1 to
            16,384. Images of one size keep it unless ``fit="crop"``; the loader may resize them.
        fit: How they are brought to it: ``"stretch"`` (the default), or ``"crop"``: the shorter side is scaled and the
            centre cut out, as torchvision's ``Resize`` and ``CenterCrop`` do.

    Raises:
        FileError: there is nothing at ``path``, or it cannot be read.
        DataError: nothing known is there, or it is damaged.
        OptionError: an argument is out of range or does not fit the dataset.

    >>> source = open("examples/digits/dm_ipc1")
    >>> source.format, source.num_samples, source.shape
    ('mtt', 10, (3, 32, 32))
    >>> image, target = source[0]
    >>> tuple(image.shape), target
    ((3, 32, 32), 0)
    """
    options = _options.given("open", locals())
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
    first_label: SupportsIndex | None = None,
) -> Source:
    """A dataset of tensors that a program holds, as a file with ``images`` and ``labels`` would be. They are copied.

    Args:
        images: ``[N, C, H, W]``, ``[N, H, W, C]`` or ``[N, H, W]``, of one channel or three, as torch or numpy has
            them, or a list of such images or of Pillow's: integers from 0 to 255, or floats, which are taken for pixels
            if they lie in [0, 1], else for normalised values (``values`` says otherwise).
        labels: Class indices ``[N]`` or ``[N, 1]``, or a list of them; names of classes, which are numbered as those
            of class folders are: numbers are classes, other names are in the order of ``classes`` or of their text; or
            rows ``[N, classes]``: one-hot, logits, or probabilities that sum to 1.
        dataset: As for :func:`open`, like all that follow.
        mean: As for :func:`open`.
        std: As for :func:`open`.
        num_classes: As for :func:`open`.
        classes: As for :func:`open`.
        values: As for :func:`open`.
        zca: As for :func:`open`.
        first_label: As for :func:`open`.

    Raises:
        DataError: shapes or dtypes are others, a label is out of range, or a value is not finite.
        OptionError: an argument is out of range, or is no tensor.

    >>> import numpy
    >>> images = numpy.zeros((20, 3, 32, 32), dtype="uint8")
    >>> source = from_tensors(images, [label // 2 for label in range(20)], dataset="cifar10")
    >>> source.num_samples, source.num_classes, source.shape
    (20, 10, (3, 32, 32))
    """
    options = _options.given("open", locals())
    labels, metadata = _numbered(labels)
    return _reopen(MEMORY, options, _tensors.as_safetensors({"images": images, "labels": labels}, metadata))


def _numbered(labels: Any) -> tuple[Any, dict[str, str] | None]:
    """Labels that are names as their places among all names, with these as the engine reads them from a file's
    metadata; others as they are."""
    if getattr(getattr(labels, "dtype", None), "kind", None) in ("U", "O"):
        labels = labels.tolist()
    if (
        not isinstance(labels, (list, tuple))
        or not labels
        or not all(isinstance(name, str) for name in labels)
    ):
        return labels, None
    names = sorted(set(labels))
    places = {name: place for place, name in enumerate(names)}
    return [places[name] for name in labels], {"diver.names": json.dumps(names)}


def subset(source: Source, indices: Iterable[SupportsIndex]) -> Source:
    """The samples of a source at some indices, in their order."""
    positions = [source._position(f"indices[{at}]", index) for at, index in enumerate(indices)]
    return Source(_engine.subset([source._engine], positions), (subset, (source, positions)))


def joined(sources: Sequence[Source]) -> Source:
    """The samples of several sources, one source after the other."""
    return Source(_engine.subset([source._engine for source in sources]), (joined, (sources,)))


def _reopen(path: str, options: dict[str, Any], content: bytes | None = None) -> Source:
    engine = _engine.open(path, _options.to_json(options), content)
    # Another process, or this one later, may stand in another folder.
    where = path if content is not None else _options.absolute(path)
    if "zca" in options:
        options = options | {"zca": _options.absolute(options["zca"])}
    return Source(engine, (_reopen, (where, options, content)))
