"""FKD's soft labels: what a teacher said of every crop of every epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple, SupportsIndex

from diver import _engine, _options, _tensors
from diver._wording import counted
from diver.errors import OptionTypeError, OutOfRangeError
from diver.source import Source

#: The most rows and columns of a view.
MOST_PIXELS = 1 << 13


class Views(NamedTuple):
    """A batch of images as the teacher saw them: cropped, flipped and mixed. Unpacks as ``images, logits, indices``."""

    #: Normalised images ``[B, 3, size, size]``, float32.
    images: Any
    #: The teacher's logits ``[B, classes]``, float32; methods train on their softmax at a temperature of their own.
    logits: Any
    #: The position of each image in its set ``[B]``, int64.
    indices: Any


class SoftLabels:
    """The soft labels that SRe2L, D4M and G-VBSM store for a folder of images: ``epoch_<e>/batch_<b>.tar``, each with
    the crop, the flip and the CutMix or MixUp of a batch, and a teacher's logits for it.

    Which image each row is of is found out from the files: by the indices that G-VBSM stores, else by the seeded order
    of torch's sampler, of which there are two kinds.

    Args:
        tree: The folder with ``epoch_0``.
        images: The images, as :func:`diver.open` gives them: a set of format ``image-folder``.
        size: Rows and columns of the views.
        teacher_size: Rows and columns of the views that the teacher saw, which no file says: ``size`` by default. The
            boxes of CutMix are in these pixels, and are scaled to ``size``, each edge to the nearest pixel.
        device: Where tensors go; the CPU by default.
        format: ``"torch"``, ``"numpy"``, or ``"auto"``: torch if it is there.

    Raises:
        FileError: a file cannot be read.
        DataError: there are no soft labels, or they are damaged, or of other images.
        OptionError: an argument is out of range.

    >>> import diver
    >>> images = diver.open("tests/fixtures/fkd/images")
    >>> labels = diver.SoftLabels("tests/fixtures/fkd/cutmix", images, size=12)
    >>> labels.epochs, labels.batches
    (2, 3)
    >>> for views, logits, _ in labels.epoch(0):
    ...     pass
    >>> views.shape, logits.shape
    (torch.Size([4, 3, 12, 12]), torch.Size([4, 12]))
    """

    def __init__(
        self,
        tree: str | os.PathLike[str],
        images: Source,
        *,
        size: SupportsIndex = 224,
        teacher_size: SupportsIndex | None = None,
        device: Any = None,
        format: str = "auto",
    ) -> None:
        if not isinstance(images, Source):
            raise OptionTypeError(f"images: {type(images).__name__} is not what diver.open gives")
        self._size = _options.integer("size", size, least=1, most=MOST_PIXELS)
        seen = self._size
        if teacher_size is not None:
            seen = _options.integer("teacher_size", teacher_size, least=1, most=MOST_PIXELS)
        self._tensor = _tensors.converter(format, device)
        self._engine = _engine.SoftLabels(_options.path("tree", tree), images._engine, seen)

    @property
    def epochs(self) -> int:
        """Number of epochs that labels are there for."""
        return self._engine.epochs

    @property
    def batches(self) -> int:
        """Number of batches of each epoch."""
        return self._engine.batches

    def views(self, epoch: SupportsIndex, batch: SupportsIndex) -> Views:
        """One batch.

        Raises:
            OutOfRangeError: there is no such batch.
            FileError: its file, or an image, cannot be read.
            DataError: it, or an image, is damaged.
        """
        number = self._index("epoch", epoch, self.epochs)
        return self._take(self._make(number, self._index("batch", batch, self.batches)))

    def epoch(self, epoch: SupportsIndex) -> Iterator[Views]:
        """The batches of an epoch, each made while the one before it is trained on.

        Raises:
            OutOfRangeError: there is no such epoch. What :meth:`views` raises comes at the batch that meets it.
        """
        return self._batches(self._index("epoch", epoch, self.epochs))

    def _batches(self, epoch: int) -> Iterator[Views]:
        ahead = self._make(epoch, 0)
        for batch in range(1, self.batches):
            # The one before is done before another is begun: each takes all processors.
            views = self._take(ahead)
            ahead = self._make(epoch, batch)
            yield views
        yield self._take(ahead)

    def _make(self, epoch: int, batch: int) -> _engine.Making:
        return self._engine.make(epoch, batch, self._size)

    def _take(self, making: _engine.Making) -> Views:
        images, logits, indices = making.result()
        tensor = self._tensor(images)
        return Views(tensor, self._tensor(logits), _tensors.like(tensor, indices))

    @staticmethod
    def _index(name: str, value: SupportsIndex, count: int) -> int:
        index = _options.integer(name, value)
        if index >= count:
            raise OutOfRangeError(f"{name}: there is no {name} {index} among {count}")
        return index

    def __repr__(self) -> str:
        epochs, batches = counted(self.epochs, "epoch"), counted(self.batches, "batch")
        return f"<soft labels: {epochs} of {batches}, {self._size} x {self._size} pixels>"
