"""Write the handwritten digits as Parquet: `train.parquet` and `test.parquet` beside this script.

The images are scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits" (1797 digits of 8 x 8
pixels, 17 grey levels), enlarged to 32 x 32 by bicubic interpolation and stored as RGB PNG. Of each class a fixed
random 80 % train (about 144, of which the first 50 are written unless told otherwise) and the others test.

Requirements: numpy, pillow, pyarrow, scikit-learn, torch. It takes a few seconds. The pixels are the same on every
run; the bytes of the files also depend on the versions of pillow (zlib) and pyarrow.

    python examples/digits/make_data.py [--out FOLDER] [--train-per-class 50]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from image_parquet import write_parquet

SIDE = 32
TRAIN_SHARE = 0.8
CLASS_NAMES = [str(digit) for digit in range(10)]


def enlarged_digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits: images `[1797, 32, 32, 3]` uint8 and labels `[1797]`."""
    digits = load_digits()
    grey = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    grey = torch.nn.functional.interpolate(grey, size=(SIDE, SIDE), mode="bicubic", align_corners=False)
    pixels = (grey.clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).numpy(), digits.target


def split_by_class(labels: np.ndarray, train_per_class: int) -> dict[str, list[int]]:
    """Positions of the training and of the test images, class after class."""
    random = np.random.RandomState(0)
    train, test = [], []
    for label in range(len(CLASS_NAMES)):
        shuffled = random.permutation(np.where(labels == label)[0]).tolist()
        count = round(TRAIN_SHARE * len(shuffled))
        train += shuffled[:count][:train_per_class]
        test += shuffled[count:]
    return {"train": train, "test": test}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the digits as Parquet.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files")
    parser.add_argument(
        "--train-per-class", type=int, default=50, help="how many training images of a class to write at most"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images, labels = enlarged_digits()
    for split, positions in split_by_class(labels, arguments.train_per_class).items():
        write_parquet(arguments.out / f"{split}.parquet", images[positions], labels[positions], CLASS_NAMES)


if __name__ == "__main__":
    main()
