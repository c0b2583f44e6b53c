"""Opens a cache's parts with pandas, pyarrow, Polars, DuckDB and `datasets`, and compares what they find with what was
written. `loaders/tests/peers.rs` writes the parts, and runs this with the path of the JSON that describes them.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow.parquet
from PIL import Image

Rows = list[dict[str, Any]]


def with_pyarrow(parts: list[str]) -> Rows:
    return pyarrow.parquet.read_table(parts).to_pylist()


def with_pandas(parts: list[str]) -> Rows:
    return pandas.concat(pandas.read_parquet(part) for part in parts).to_dict("records")


def with_polars(parts: list[str]) -> Rows:
    return polars.read_parquet(parts).to_dicts()


def with_duckdb(parts: list[str]) -> Rows:
    found = duckdb.execute("select * from read_parquet($parts)", {"parts": parts})
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def with_datasets(parts: list[str]) -> Rows:
    return list(loaded(parts))


def loaded(parts: list[str]) -> datasets.Dataset:
    return datasets.load_dataset("parquet", data_files=parts, split="train")


READERS: list[Callable[[list[str]], Rows]] = [
    with_pyarrow,
    with_pandas,
    with_polars,
    with_duckdb,
    with_datasets,
]


def check(holds: bool, fault: str) -> None:
    if not holds:
        raise SystemExit(fault)


def stored(logits: list[float], half: bool, top_k: int) -> tuple[list[float], list[int] | None, float | None]:
    """What the columns `logits`, `classes` and `rest` should hold of a row."""
    exact = np.array(logits, dtype=np.float32)
    rounded = exact.astype(np.float16).astype(np.float32) if half else exact
    if not top_k:
        return rounded.tolist(), None, None
    order = np.argsort(-exact, kind="stable")
    # The logit which, given to each of the others, leaves their probability together as it is.
    rest = np.log(np.mean(np.exp(exact[order[top_k:]].astype(np.float64))))
    return rounded[order[:top_k]].tolist(), order[:top_k].tolist(), float(rest)


def check_logits(rows: Rows, told: dict[str, Any], name: str) -> None:
    for row, written in zip(rows, told["rows"], strict=True):
        logits, classes, rest = stored(written["logits"], told["half"], told["top_k"])
        check((row["key"], row["label"]) == (written["key"], written["label"]), f"{name}: {row}")
        check(list(row["logits"]) == logits, f"{name}: logits {row['logits']}, not {logits}")
        found = row["classes"]
        check((None if found is None else list(found)) == classes, f"{name}: classes {found}, not {classes}")
        is_same = pandas.isna(row["rest"]) if rest is None else abs(row["rest"] - rest) < 1e-5
        check(is_same, f"{name}: rest {row['rest']}, not {rest}")
        check(row["num_classes"] == len(written["logits"]), f"{name}: {row['num_classes']} classes")


def check_images(rows: Rows, told: dict[str, Any], name: str) -> None:
    for row, written in zip(rows, told["rows"], strict=True):
        check((row["key"], row["label"]) == (written["key"], written["label"]), f"{name}: {row}")
        scores, found = written["soft_label"], row["soft_label"]
        scores = None if scores is None else np.array(scores, dtype=np.float32).tolist()
        check((None if found is None else list(found)) == scores, f"{name}: soft label {found}, not {scores}")
        # `datasets` decodes images by itself.
        image = row["image"]
        image = image if isinstance(image, Image.Image) else Image.open(io.BytesIO(image["bytes"]))
        check(list(image.size) == told["size"], f"{name}: an image of {image.size}")
        check(list(image.tobytes()) == written["pixels"], f"{name}: other pixels")


def check_labels(parts: list[str], class_names: list[str]) -> None:
    """`datasets` is told what the labels are called."""
    label = loaded(parts).features["label"]
    check(getattr(label, "names", None) == class_names, f"the labels are {label}")


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    tables = [("images", told["images"], check_images)]
    for logits in told["logits"]:
        form = f"logits, {'float16' if logits['half'] else 'float32'}"
        tables.append((f"{form}, top {logits['top_k']}" if logits["top_k"] else form, logits, check_logits))
    for name, table, check_rows in tables:
        parts = sorted(map(str, Path(table["folder"]).glob("*.parquet")))
        check(len(parts) > 1, f"{name}: {len(parts)} parts")
        for reader in READERS:
            check_rows(reader(parts), table, f"{name}, {reader.__name__.replace('_', ' ')}")
        check_labels(parts, told["class_names"])
        print(f"{name}: {len(table['rows'])} rows, the same {', '.join(r.__name__ for r in READERS)}")


if __name__ == "__main__":
    main()
