"""Distilled datasets as batches, refined by a diffusion model on their way.

    >>> import diver
    >>> loader = diver.DataLoader("examples/digits/dm_ipc1", batch_size=4, shuffle=True, seed=7)
    >>> for images, targets in loader:  # normalised images [B, C, H, W]; distributions [B, classes]
    ...     pass
    >>> loader.close()

- :func:`open`: what is on disk, as a :class:`Source`; :func:`from_tensors` and :func:`from_dataset`: what a program
  holds; :func:`concat`: several of them as one;
- :class:`DataLoader`: its batches, raw, refined or mixed (:mod:`diver.mix`), with stored labels or a teacher's
  (:mod:`diver.labels`), augmented or not (:mod:`diver.augment`);
- :class:`Refiner`: DIVER itself, on torch; any callable may stand in for it (:mod:`diver.refiners`);
- :class:`SoftLabels`: a teacher's labels of every crop (FKD), with the crops;
- :func:`refine`, :func:`label`, :func:`preview` and :func:`export`: a whole set at once (:mod:`diver.bulk`);
- :class:`Cache`: refined images on disk, shared by all runs and processes;
- :mod:`progress`: what is heard of long work;
- :class:`DiverError`: the base of all exceptions (:mod:`diver.errors`).

Importing diver imports neither torch nor numpy. Messages go to :mod:`logging`.
"""

from typing import TYPE_CHECKING, Any

from diver import augment, bulk, labels, mix, progress
from diver._batch import Batch
from diver._concat import concat
from diver._datasets import from_dataset
from diver.bulk import export, label, preview, refine
from diver.cache import Cache
from diver.errors import DiverError
from diver.loader import DataLoader
from diver.soft_labels import SoftLabels, Views
from diver.source import Sample, Source, from_tensors, open

if TYPE_CHECKING:
    from diver_refiner import Refiner

__all__ = [
    "Batch",
    "Cache",
    "DataLoader",
    "DiverError",
    "Refiner",
    "Sample",
    "SoftLabels",
    "Source",
    "Views",
    "augment",
    "bulk",
    "concat",
    "export",
    "from_dataset",
    "from_tensors",
    "label",
    "labels",
    "mix",
    "open",
    "preview",
    "progress",
    "refine",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Refiner":
        # Not before it is asked for: it brings torch.
        from diver._torch import refiner_class

        return refiner_class()
    raise AttributeError(f"module 'diver' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
