"""Make the digits example from nothing: backbone and distilled sets, beside this script.

Requirements: diffusers, scikit-learn and what `make setup` installs. Without a PART all are made, one after
another; the transformer takes longest. Remake the transformer after the autoencoder or its axes: it knows no
other latents. Seeds are fixed: the same versions of torch and diffusers, on as many threads of the same kind of
processor, give the same files; others give others that serve as well.

    python examples/digits/make.py [PART ...] [--out FOLDER]
"""

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import make_data
from making.recipe import Distilled, Recipe, main
from making.transformer import Size


def turned(images: torch.Tensor) -> torch.Tensor:
    """Each image turned by up to 12 degrees, scaled by up to a tenth and moved by up to a pixel or so, on black."""

    def up_to(limit: float) -> torch.Tensor:
        return limit * (2 * torch.rand(len(images), device=images.device) - 1)

    angle, scale = up_to(math.radians(12)), 1 + up_to(0.1)
    sine, cosine = scale * angle.sin(), scale * angle.cos()
    rows = [torch.stack([cosine, -sine, up_to(0.08)], 1), torch.stack([sine, cosine, up_to(0.08)], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Black is -1, and what comes in from outside is 0.
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


RECIPE = Recipe(
    name="digits",
    folder=Path(__file__).parent,
    splits=make_data.splits,
    mean=0.305,
    std=0.36,
    augment=turned,
    augmented_copies=9,
    autoencoder_steps=1500,
    autoencoder_batch=32,
    perceptual_weight=0,
    transformer_steps=3000,
    transformer_batch=64,
    undecided=0,
    size=Size(width=96, heads=3),
    sets=(Distilled("dm", 1, 300), Distilled("dm", 10, 500), Distilled("dc", 1, 200)),
    judge_steps=1500,
)

if __name__ == "__main__":
    main(RECIPE)
