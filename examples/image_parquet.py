"""Image datasets as Parquet, in the layout of Hugging Face `datasets`: what the scripts of the examples write.

Requirements: numpy, pillow, pyarrow.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def write_parquet(path: Path, images: np.ndarray, labels: np.ndarray, class_names: list[str]) -> None:
    """Write images `[N, H, W, 3]` uint8 and labels `[N]`, positions in `class_names`, as one file."""
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
