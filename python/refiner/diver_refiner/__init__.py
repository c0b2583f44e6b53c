"""DIVER on torch: refines the images of distilled datasets with a diffusion model.

    >>> import diver_refiner
    >>> refiner = diver_refiner.Refiner.from_pretrained("examples/digits/backbone", steps=20)
    >>> refined = refiner.refine(images, labels)  # [B, 3, H, W] in [0, 1] to [B, 3, R, R] in [0, 1]

The extension uses the libtorch of the torch that is imported, and so needs the release that it was built for.
The loader (the package ``diver``) needs no torch at all.
"""

from diver_refiner import _torch

_torch.load()

from diver_refiner._knobs import KnobOptions  # noqa: E402
from diver_refiner.refiner import Refiner  # noqa: E402

__all__ = ["KnobOptions", "Refiner"]
__version__ = "0.1.0"
