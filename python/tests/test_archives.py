"""Archives that webdataset, tarfile and zipfile write are read as these read them."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

import diver
from diver.errors import DataError

# Of everything that names may be made of, but numbers, which classes of these names would be.
LETTERS = "abXYZ_- 'äß日本,;#@!+=()"


def name(chance: random.Random, dots: bool = False) -> str:
    letters = "".join(chance.choices(LETTERS + "." * dots, k=chance.choice([1, 3, 8, 90])))
    return "n" + letters.strip() + "n"


def key(chance: random.Random, index: int) -> str:
    """A key of WebDataset: dots are in its folders alone."""
    folders = [name(chance, dots=True) for _ in range(chance.randrange(3))]
    return "/".join([*folders, f"{name(chance)}{index}"])


def picture(chance: random.Random) -> np.ndarray:
    return np.array([chance.randrange(256) for _ in range(5 * 4 * 3)], np.uint8).reshape(5, 4, 3)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def read(path: Path) -> list[tuple[bytes, Any]]:
    """The pixels and the label of each sample; the label is a row where rows are the labels."""
    source = diver.open(path)
    samples = [source.sample(index) for index in range(len(source))]
    labels = [sample.label if sample.logits is None else sample.logits.tolist() for sample in samples]
    pixels = [np.moveaxis(sample.values, 0, 2).tobytes() for sample in samples]
    return list(zip(pixels, labels, strict=True))


# webdataset leaves files open.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", range(12))
def test_what_webdataset_writes_is_read_as_it_reads_it(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / chance.choice(["set.tar", "set.tar.gz"])
    image, label = chance.choice(["png", "image.png", "ppm"]), chance.choice(["cls", "json", "npy", "class"])
    with webdataset.TarWriter(str(path)) as writer:
        for index in range(chance.randrange(1, 20)):
            cls = chance.randrange(10)
            value = {"json": {"label": cls, "caption": "x"}, "npy": np.eye(10, dtype="f4")[cls] * 9}.get(
                label, cls
            )
            pixels = picture(chance)
            encoded = png(pixels) if image.endswith("png") else pixels
            writer.write({"__key__": key(chance, index), image: encoded, label: value, "txt": "a caption"})
    theirs = []
    for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode("rgb8"):
        expected = sample[label]
        if label == "json":
            expected = expected["label"]
        theirs.append((sample[image].tobytes(), expected.tolist() if label == "npy" else int(expected)))
    assert read(path) == theirs


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("seed", range(6))
def test_tars_of_every_form_and_order_are_read(tmp_path: Path, form: int, seed: int) -> None:
    chance = random.Random(seed)
    encoding = chance.choice(["utf-8", "latin-1"]) if form != tarfile.PAX_FORMAT else "utf-8"
    entries: list[tuple[str, bytes]] = []
    right = {}
    for index in range(15):
        pixels, label = picture(chance), chance.randrange(10)
        # ustar has room for names of 100 bytes, in folders of 155.
        long = form == tarfile.USTAR_FORMAT or encoding == "latin-1"
        sample = f"é{index}" if long else key(chance, index)
        entries += [(f"{sample}.PNG", png(pixels)), (f"{sample}.cls", f" {label}\n".encode())]
        right[sample] = (pixels.tobytes(), label)
    if seed % 3 == 1:
        entries.sort(key=lambda entry: entry[0].endswith("cls"))
    elif seed % 3 == 2:
        chance.shuffle(entries)
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=form, encoding=encoding) as tar:
        for entry, content in entries:
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            if chance.random() < 0.2:
                folder = tarfile.TarInfo(f"folder{len(tar.getnames())}")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
    order = dict.fromkeys(entry[:-4] for entry, _ in entries)
    assert read(path) == [right[sample] for sample in order]


@pytest.mark.parametrize("seed", range(12))
def test_class_folders_are_read_as_from_disk(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    classes = sorted({name(chance, dots=True) for _ in range(chance.randrange(2, 6))})
    entries = [
        (f"{cls}/{index}{name(chance, dots=True)}.png", png(picture(chance)))
        for cls in classes
        for index in range(chance.randrange(1, 5))
    ]
    folder, within = tmp_path / "extracted", chance.choice(["", "set/", "set/train/"])
    for entry, content in entries:
        (folder / entry).parent.mkdir(parents=True, exist_ok=True)
        (folder / entry).write_bytes(content)
    chance.shuffle(entries)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        for entry, content in entries:
            how = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
            file.writestr(within + entry, content, how, chance.choice([1, 9]))
    assert read(path) == read(folder)
    assert diver.open(path).classes == classes
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder, chance.choice([".", "../set", "/set"]))
    assert read(path) == read(folder)


def test_archives_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    path = tmp_path / "set.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.addfile(tarfile.TarInfo("0.cls"))
    with pytest.raises(DataError, match="xz: decompress it first"):
        diver.open(path)
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("cat/0.png", png(picture(random.Random(0))))
        file.writestr("dog/0.png", png(picture(random.Random(0))))
    with pytest.raises(DataError, match=r"cat/0\.png.*(?i:lzma)"):
        diver.open(path)
