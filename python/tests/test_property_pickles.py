"""Torch files and pickles of random shapes, types and layouts: diver reads what torch, numpy and pickle read."""

from __future__ import annotations

import argparse
import io
import pickle
import random
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

import diver

FILES = 40
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
# torch cannot read these from its own legacy container.
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]


class Own:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


# By a name that no reader can import.
Own.__module__ = "utils_of_someone"


def arranged(values: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """The same values in another layout."""
    order = rng.sample(range(values.dim()), values.dim())
    inverse = [order.index(dimension) for dimension in range(values.dim())]
    kind = rng.randrange(6)
    if kind == 0:
        return values.permute(order).contiguous().permute(inverse)
    if kind == 1:
        larger = torch.cat([values[:1], values, values[-1:]])
        return larger[1:-1]
    if kind == 2:
        return values.repeat_interleave(2, 0)[::2]
    if kind == 3 and values.is_floating_point():
        return torch.nn.Parameter(values.clone())
    if kind == 4:
        values = values.clone()
        values.origin = "mine"  # type: ignore[attr-defined]
    return values


def as_array(tensor: torch.Tensor, rng: random.Random) -> np.ndarray[Any, Any]:
    array = tensor.detach().float().numpy() if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()
    array = rng.choice([np.asfortranarray, np.ascontiguousarray, np.copy])(array)
    return array.astype(array.dtype.newbyteorder(rng.choice("<>")))


def beside(rng: random.Random) -> dict[str, Any]:
    things: dict[str, Any] = {
        "args": argparse.Namespace(device=torch.device("cpu"), dtype=torch.float32, out=PurePosixPath("a/b")),
        "own": Own(scale=1.2, inner=Own(x=[1, Own()])),
        "history": defaultdict(list, a=[np.float32(0.5), np.int64(3)]),
        "order": OrderedDict(a=2**70, b=None),
        "layers": {1, 2},
        "curve": np.arange(rng.randrange(2000)),
        "names": np.array(["cat", "dog"]),
        "module": torch.nn.Linear(2, 1),
        "complex": torch.zeros(2, dtype=torch.complex64),
        "size": torch.zeros(2, 3).shape,
    }
    return {name: things[name] for name in rng.sample(sorted(things), rng.randrange(len(things)))}


def root(images: Any, labels: Any, rng: random.Random) -> Any:
    if isinstance(images, torch.Tensor) and rng.random() < 0.3:
        dataset = TensorDataset(images, labels)
        return rng.choice([dataset, Subset(dataset, range(len(dataset)))])
    named = {"images": images, "labels": labels}
    if rng.random() < 0.2:
        return (images, labels)
    items = list((named | beside(rng)).items())
    rng.shuffle(items)
    return dict(items)


def write(path: Path, value: Any, how: str, protocol: int) -> Any:
    """Writes a file, and gives what Python reads from it."""
    if how == "pickle":
        path.write_bytes(pickle.dumps(value, protocol))
        return pickle.loads(path.read_bytes())
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=how == "zip")
    return torch.load(path, weights_only=False)


def pair(value: Any) -> tuple[torch.Tensor, torch.Tensor]:
    while isinstance(value, Subset):
        value = value.dataset
    if isinstance(value, TensorDataset):
        value = value.tensors
    images, labels = (value["images"], value["labels"]) if isinstance(value, dict) else value

    def tensor(data: Any) -> torch.Tensor:
        if isinstance(data, np.ndarray):
            data = torch.from_numpy(data.astype(data.dtype.newbyteorder("=")))
        return data.detach()

    return tensor(images), tensor(labels)


@pytest.mark.parametrize("seed", range(FILES))
@pytest.mark.filterwarnings("ignore")
def test_files_hold_what_python_reads(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("utils_of_someone")
    module.Own = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "utils_of_someone", module)
    rng = random.Random(seed)
    torch.manual_seed(seed)
    how = rng.choice(["zip", "legacy", "pickle", "arrays"])
    protocol = rng.randrange(2, 6) if how in ("zip", "legacy") else rng.randrange(6)
    shape = (rng.randrange(1, 6), rng.choice([1, 3]), *[rng.randrange(4, 9)] * 2)
    images = torch.rand(shape)
    images = (images * 255).byte() if rng.random() < 0.2 else images.to(rng.choice(FLOATS))
    types_of_labels = INTEGERS if how in ("legacy", "pickle") else INTEGERS + UNSIGNED
    labels = torch.randint(0, 100, shape[:1]).to(rng.choice(types_of_labels))
    if how == "arrays":
        value = root(as_array(images, rng), as_array(labels, rng), rng)
        read = write(tmp_path / "set.pkl", value, "pickle", protocol)
        path = tmp_path / "set.pkl"
    else:
        path = tmp_path / ("set.pkl" if how == "pickle" else "set.pt")
        read = write(path, root(arranged(images, rng), labels, rng), how, protocol)

    expected, classes = pair(read)
    source = diver.open(path)
    assert len(source) == len(expected)
    for index in range(len(expected)):
        sample = source.sample(index)
        assert sample.label == int(classes[index])
        found = torch.as_tensor(np.asarray(sample.values))
        wanted = expected[index] if expected.dtype == torch.uint8 else expected[index].float()
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted), f"image {index} of {how}, protocol {protocol}, {expected.dtype}"


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    pickle.dump({"images": Hostile(), "labels": [0]}, buffer, protocol)
    pickle.loads(buffer.getvalue())
    (tmp_path / "ran").unlink()
    (tmp_path / "set.pkl").write_bytes(buffer.getvalue())
    with pytest.raises(diver.errors.DataError, match="images"):
        diver.open(tmp_path / "set.pkl")
    assert not (tmp_path / "ran").exists()
