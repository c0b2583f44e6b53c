"""Write the handwritten digits as Parquet: `train`, `validation` and `test.parquet` beside this script.

The images are scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits" (1797 digits of 8 x 8
pixels, 17 grey levels), enlarged to 32 x 32 by bicubic interpolation and stored as RGB PNG. Of each class, at random
but the same every time, 70 % train (about 126, of which the first 50 are written unless told otherwise), 10 % are for
choosing settings, and 20 % test.

Requirements: numpy, pillow, pyarrow, scikit-learn, torch. It takes a few seconds. The pixels are the same on every
run; the bytes of the files also depend on the versions of pillow (zlib) and pyarrow.

    python examples/digits/make_data.py [--out FOLDER] [--splits train validation test] [--train-per-class 50]
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from making.parquet import write_splits

SIDE = 32
TRAIN_SHARE, TRAIN_AND_VALIDATION_SHARE = 0.7, 0.8
CLASS_NAMES = [str(digit) for digit in range(10)]


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images `[N, 32, 32, 3]` uint8 and labels `[N]` of `train`, `validation` and `test`, class after class."""
    images, labels = enlarged_digits()
    random = np.random.RandomState(0)
    positions: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for label in range(len(CLASS_NAMES)):
        shuffled = random.permutation(np.where(labels == label)[0]).tolist()
        ends = [round(share * len(shuffled)) for share in (TRAIN_SHARE, TRAIN_AND_VALIDATION_SHARE)]
        positions["train"] += shuffled[: ends[0]]
        positions["validation"] += shuffled[ends[0] : ends[1]]
        positions["test"] += shuffled[ends[1] :]
    return {split: (images[rows], labels[rows]) for split, rows in positions.items()}


def enlarged_digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits: images `[1797, 32, 32, 3]` uint8 and labels `[1797]`."""
    digits = load_digits()
    grey = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    grey = torch.nn.functional.interpolate(grey, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    pixels = (grey.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy(), digits.target


if __name__ == "__main__":
    write_splits(
        "Write the digits as Parquet.", Path(__file__).parent, splits, CLASS_NAMES, train_per_class=50
    )
