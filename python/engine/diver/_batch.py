"""A batch: what a loader gives, one after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

from diver import _engine, _tensors
from diver.errors import DiverError


class Details(NamedTuple):
    """What a batch knows beside its tensors, as plain lists."""

    labels: list[int]
    indices: list[int]
    refined: list[bool]


class Batch(tuple[Any, Any]):
    """A batch: unpacks as ``images, targets``, and knows more by name.

    Both are torch tensors (numpy arrays with ``format="numpy"``) on memory that stays as it is for as long as a tensor
    is on it: keep batches, or change them in place, as you like.

    Code that makes a new tuple of a batch's tensors, as some trainers do to move them, gets one without the other
    names; ask for these before, or move it with :meth:`to`.
    """

    _raw: _engine.Batch | Details | None = None

    @property
    def images(self) -> Any:
        """Images ``[B, C, H, W]`` of the loader's ``dtype``: normalised, unless they are uint8."""
        return self[0]

    @property
    def targets(self) -> Any:
        """Target distributions ``[B, classes]``, float32: one-hot for hard labels, the softmax of logits otherwise."""
        return self[1]

    @property
    def labels(self) -> Any:
        """The class of each sample ``[B]``, int64."""
        return _tensors.like(self[0], self._details().labels)

    @property
    def indices(self) -> Any:
        """The position of each sample in its dataset ``[B]``, int64."""
        return _tensors.like(self[0], self._details().indices)

    @property
    def refined(self) -> Any:
        """Whether each sample came refined ``[B]``, bool."""
        return _tensors.like(self[0], self._details().refined)

    def to(self, *arguments: Any, **options: Any) -> Batch:
        """The batch with both tensors elsewhere, or in another dtype: takes what torch's ``Tensor.to`` takes."""
        moved = Batch(tensor.to(*arguments, **options) for tensor in self)
        moved._raw = self._raw
        return moved

    def _details(self) -> _engine.Batch | Details:
        if self._raw is None:
            raise DiverError(
                "this batch was made of another's tensors, and has these alone: ask the loader's own"
            )
        return self._raw

    def __reduce__(self) -> tuple[Any, ...]:
        details = self._raw and Details(self._raw.labels, self._raw.indices, self._raw.refined)
        return made, (self[0], self[1], details)


def made(images: Any, targets: Any, details: _engine.Batch | Details | None) -> Batch:
    """A batch of these tensors."""
    batch = Batch((images, targets))
    batch._raw = details
    return batch
