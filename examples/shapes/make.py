"""Make the shapes example from nothing: backbone and distilled sets, beside this script.

Requirements: diffusers and what `make setup` installs. Without a PART all are made, one after another; the
transformer takes longest. Remake the transformer after the autoencoder or its axes: it knows no other latents.
Seeds are fixed: the same versions of torch and diffusers, on as many threads of the same kind of processor, give
the same files; others give others that serve as well.

    python examples/shapes/make.py [PART ...] [--out FOLDER]
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import make_data
from making.recipe import Distilled, Recipe, main
from making.transformer import Size


def mirrored(images: torch.Tensor) -> torch.Tensor:
    """Each image as it is or mirrored left to right."""
    return torch.where(torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5, images.flip(3), images)


RECIPE = Recipe(
    name="shapes",
    folder=Path(__file__).parent,
    splits=make_data.splits,
    mean=0.45,
    std=0.25,
    augment=mirrored,
    augmented_copies=1,
    autoencoder_steps=13000,
    autoencoder_batch=64,
    perceptual_weight=0.04,
    transformer_steps=18000,
    transformer_batch=64,
    undecided=0.5,
    size=Size(width=96, heads=3, patch=1),
    sets=(Distilled("dm", 1, 150), Distilled("dm", 10, 500), Distilled("dc", 1, 200)),
    judge_steps=4000,
)

if __name__ == "__main__":
    main(RECIPE)
