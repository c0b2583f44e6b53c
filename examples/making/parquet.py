"""Image datasets as Parquet, in the layout of Hugging Face `datasets`: what the scripts of the examples write.

Requirements: numpy, pillow, pyarrow.
"""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np


def write_splits(
    description: str,
    folder: Path,
    splits: Callable[[], dict[str, tuple[np.ndarray, np.ndarray]]],
    class_names: list[str],
    train_per_class: int,
) -> None:
    """The command line of a `make_data.py`: write what `splits` makes to `folder`, at most `train_per_class` training
    images of a class, unless told otherwise."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=folder, help="folder for the files")
    names = ["train", "validation", "test"]
    parser.add_argument("--splits", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--train-per-class",
        type=int,
        default=train_per_class,
        help="how many training images of a class to write at most",
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits().items():
        if split in arguments.splits:
            limit = arguments.train_per_class if split == "train" else len(labels)
            rows = np.concatenate([np.where(labels == label)[0][:limit] for label in range(len(class_names))])
            write_parquet(arguments.out / f"{split}.parquet", images[rows], labels[rows], class_names)


def write_parquet(path: Path, images: np.ndarray, labels: np.ndarray, class_names: list[str]) -> None:
    """Write images `[N, H, W, 3]` uint8 and labels `[N]`, positions in `class_names`, as one file."""
    # Here, so that what is written can be made without them.
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    encoded = []
    for index, pixels in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="png", optimize=True)
        encoded.append({"bytes": file.getvalue(), "path": f"{index:05}.png"})
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": class_names},
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
