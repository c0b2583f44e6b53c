"""FKD's soft labels: what a teacher said of every crop of every epoch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, SupportsIndex

from diver import _engine, _options, _tensors
from diver.errors import OptionTypeError
from diver.source import Source


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
        size: Rows and columns of the views: as many as the labels were made at, which no file says. The boxes of
            CutMix are in pixels, and lie elsewhere at another size.
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
        device: Any = None,
        format: str = "auto",
    ) -> None:
        if not isinstance(images, Source):
            raise OptionTypeError(f"images: {type(images).__name__} is not what diver.open gives")
        self._size = _options.integer("size", size, least=1, most=1 << 13)
        self._tensor = _tensors.converter(_options.text("format", format), device)
        self._engine = _engine.SoftLabels(_options.path("tree", tree), images._engine)

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
            FileError: its file, or an image, cannot be read.
            DataError: there is no such batch, or it, or an image, is damaged.
        """
        images, logits, indices = self._engine.views(
            _options.integer("epoch", epoch), _options.integer("batch", batch), self._size
        )
        tensor = self._tensor(images)
        return Views(tensor, self._tensor(logits), _tensors.like(tensor, indices))

    def epoch(self, epoch: SupportsIndex) -> Iterator[Views]:
        """The batches of an epoch, each made while the one before it is trained on."""
        number = _options.integer("epoch", epoch)
        ahead = ThreadPoolExecutor(1, "diver-views")
        try:
            made = ahead.submit(self.views, number, 0)
            for batch in range(self.batches):
                views = made.result()
                if batch + 1 < self.batches:
                    made = ahead.submit(self.views, number, batch + 1)
                yield views
        finally:
            # Whoever stops early does not wait for a batch that nobody wants.
            ahead.shutdown(wait=False, cancel_futures=True)

    def __repr__(self) -> str:
        return f"<soft labels: {self.epochs} epochs of {self.batches} batches, {self._size} x {self._size} pixels>"
