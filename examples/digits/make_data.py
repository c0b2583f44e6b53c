"""Write the handwritten digits as Parquet: `train.parquet` and `test.parquet` beside this script.

The images are scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits" (1797 digits of 8 x 8
pixels, 17 grey levels), enlarged to 32 x 32 by bicubic interpolation and stored as RGB PNG. Of each class a fixed
random 80 % train (about 144, of which the first 50 are written unless told otherwise) and the others test.

Requirements: numpy, pillow, pyarrow, scikit-learn, torch. It takes a few seconds. The pixels are the same on every
run; the bytes of the files also depend on the versions of pillow (zlib) and pyarrow.

    python examples/digits/make_data.py [--out FOLDER] [--train-per-class 50]
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from sklearn.datasets import load_digits

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


def write_parquet(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write images `[N, H, W, 3]` uint8 as a Hugging Face image dataset in one file."""
    encoded = []
    for index, pixels in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="png", optimize=True)
        encoded.append({"bytes": file.getvalue(), "path": f"{index:05}.png"})
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": CLASS_NAMES},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pa.table({"image": encoded, "label": labels.astype(np.int64)}, schema=schema)
    pq.write_table(table, path, compression="snappy")
    print(f"{path}: {len(labels)} images, {path.stat().st_size:,} bytes")


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
        write_parquet(arguments.out / f"{split}.parquet", images[positions], labels[positions])


if __name__ == "__main__":
    main()
