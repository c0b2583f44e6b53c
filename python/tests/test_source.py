"""Sets on disk: what they say of themselves, what their samples hold, and what is refused."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import DIGITS, ROOT, SHAPES, stored

import diver
from diver.errors import (
    DataError,
    DiverError,
    FileError,
    ForbiddenFileError,
    OptionError,
    OptionTypeError,
    OutOfRangeError,
)

EXAMPLES = ROOT / "examples"
ZCA = ROOT / "tests" / "fixtures" / "torch" / "zca"
DC_FILE = DIGITS / "res_DM_digits_ConvNet_1ipc.pt"
PARQUET = EXAMPLES / "digits" / "test.parquet"

SETS: dict[str, tuple[str, int, int]] = {
    "digits/dm_ipc1": ("mtt", 10, 10),
    "digits/dm_ipc1/images_best.pt": ("mtt", 10, 10),
    "digits/dm_ipc1/res_DM_digits_ConvNet_1ipc.pt": ("dc", 10, 10),
    "digits/train.parquet": ("parquet", 500, 10),
    "digits/test.parquet": ("parquet", 359, 10),
    "shapes/dc_ipc1": ("mtt", 10, 10),
    "shapes/dc_ipc1/res_DC_shapes_ConvNet_1ipc.pt": ("dc", 10, 10),
    "shapes/dm_ipc1": ("mtt", 10, 10),
    "shapes/dm_ipc10": ("mtt", 100, 10),
}


@pytest.mark.parametrize("name", SETS)
def test_every_shipped_set_opens(name: str) -> None:
    source = diver.open(EXAMPLES / name)
    format, samples, classes = SETS[name]
    assert (source.format, source.num_samples, len(source), source.num_classes) == (
        format,
        samples,
        samples,
        classes,
    )
    assert source.shape == (3, 32, 32) and source.labels == "hard"
    sample = source.sample(samples - 1)
    assert sample.values.shape == source.shape and 0 <= sample.label < classes
    assert sample.logits is None and len(sample.digest) == 32 and type(sample.digest) is bytes


def test_texture_canvases_are_cut_into_windows() -> None:
    texture = ROOT / "tests" / "fixtures" / "torch" / "texture"
    canvases, windows = diver.open(texture), diver.open(texture, canvas=2)
    assert (canvases.shape, len(canvases)) == ((3, 6, 8), 2)
    assert (windows.shape, len(windows)) == ((3, 3, 4), 8)
    assert (windows.sample(5).values == canvases.sample(1).values[:, :3, 4:]).all() and windows.sample(
        5
    ).label == 1
    with pytest.raises(OptionError, match="canvas: 5 does not divide images of 6 x 8 pixels"):
        diver.open(texture, canvas=5)
    with pytest.raises(OptionError, match="canvas: 0 must be at least 1"):
        diver.open(texture, canvas=0)


def test_every_format_is_documented() -> None:
    documented = type(diver.open(DIGITS)).format.__doc__
    fixtures = ROOT / "tests" / "fixtures"
    kip = "torch/dc_bench/KIP/kip_cifar10_ConvNet3_ssize3_zca_nol_noaug_ckpt1000.npz"
    for format, path in {
        "dc": DC_FILE,
        "mtt": DIGITS,
        "idc": fixtures / "torch/idc",
        "kip": fixtures / kip,
        "tensors": fixtures / "torch/named/stored.npz",
        "image-folder": fixtures / "fkd/images",
        "parquet": PARQUET,
        "arrow": fixtures / "feather/lz4",
        "webdataset": ROOT / "tests/fuzz/corpus/webdataset/sound",
    }.items():
        assert diver.open(path).format == format
        assert f"``{format}``" in documented, format


def test_a_set_says_what_it_is() -> None:
    source = diver.open(DIGITS)
    assert source.path == DIGITS / "images_best.pt" and isinstance(source.path, Path)
    assert source.classes == [str(label) for label in range(10)] and source.notes == []
    assert source.value_space == {"normalized": {"mean": list(source.mean), "std": list(source.std)}}
    assert source.mean == pytest.approx((0.305,) * 3) and source.std == pytest.approx((0.36,) * 3)
    assert repr(source) == f"<mtt '{DIGITS}/images_best.pt': 10 samples, 3 x 32 x 32, 10 classes>"
    one = diver.open(ROOT / "tests/fixtures/torch/latest/images_900.pt")
    assert repr(one).endswith(": 1 sample, 3 x 4 x 5, 1 class, 2 notes>")
    images = diver.open(PARQUET)
    assert images.value_space == "unit" and len(images.classes) == 10


def png() -> bytes:
    """One black pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(4))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_tensors_of_ones_own_open(tmp_path: Path) -> None:
    images, labels = np.linspace(0, 1, 2 * 48, dtype=np.float32).reshape(2, 3, 4, 4), np.array([1, 0])
    np.savez(tmp_path / "own.npz", images=images, labels=labels)
    source = diver.open(tmp_path / "own.npz")
    assert (source.format, source.value_space, source.method) == ("tensors", "unit", None)
    assert source.sample(1).values.tobytes() == images[1].tobytes() and source.sample(0).label == 1
    torch.save([torch.from_numpy(images), torch.from_numpy(labels)], tmp_path / "data.pt")
    parts = diver.open(tmp_path)
    assert (parts.format, len(parts), parts.method) == ("idc", 8, "IDC, by the file's name and layout")
    assert len(diver.open(tmp_path / "data.pt", factor=1)) == 2
    with pytest.raises(OptionError, match="values: `zca` is not one of normalized, unit, whitened"):
        diver.open(tmp_path / "own.npz", values="zca")
    with pytest.raises(OptionError, match="factor: "):
        diver.open(tmp_path / "own.npz", factor=2)


def test_whitened_images_are_not_refined(tmp_path: Path) -> None:
    torch.save(torch.randn(2, 3, 4, 4), tmp_path / "images_best.pt")
    torch.save(torch.randn(1, 3, 4, 4), tmp_path / "images_zca_5.pt")
    torch.save(torch.tensor([0, 1]), tmp_path / "labels_best.pt")
    assert diver.open(tmp_path).value_space == "whitened"
    with diver.DataLoader(tmp_path) as loader:
        images, _ = next(iter(loader))
    assert torch.equal(images, torch.load(tmp_path / "images_best.pt"))
    with pytest.raises(DiverError, match=r"cannot be refined: .*ZCA-whitened.*images_zca"):
        diver.DataLoader(tmp_path, refiner=lambda images: images)
    assert diver.open(tmp_path, values="normalized").mean == (0.485, 0.456, 0.406)


def test_pixels_are_what_a_refiner_gets() -> None:
    source = diver.open(DIGITS)
    seen: dict[bytes, np.ndarray] = {}

    def refiner(images: np.ndarray, labels: np.ndarray, keys: list[bytes]) -> np.ndarray:
        seen.update(zip(keys, images.copy(), strict=True))
        return np.rint(images * 255).astype(np.uint8)

    with diver.DataLoader(source, refiner=refiner) as loader:
        list(loader)
    expected = np.stack([seen[sample.digest] for sample in stored(source)])
    pixels = source.pixels()
    assert (pixels.dtype, pixels.shape) == (np.float32, (10, 3, 32, 32)) and pixels.flags.writeable
    assert pixels.min() == 0 and pixels.max() == 1, "normalised values go beyond; pixels do not"
    assert np.array_equal(pixels, expected)
    for indices in ([3, 0, 0, -1], (3, 0, 0, 9), np.array([3, 0, 0, 9]), iter([3, 0, 0, 9])):
        assert np.array_equal(source.pixels(indices), expected[[3, 0, 0, 9]])
    assert np.array_equal(source.pixels(range(2, 4)), expected[2:4])
    assert source.pixels([]).shape == (0, 3, 32, 32)


def test_pixels_of_grey_and_whitened_sets(tmp_path: Path) -> None:
    grey = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 1, 4, 4)
    pixels = diver.from_tensors(grey, [0, 1]).pixels()
    assert np.array_equal(pixels, np.repeat(grey.astype(np.float32) / np.float32(255), 3, axis=1))
    images = np.full((2, 3, 4, 4), 7.5, np.float32)
    with pytest.raises(OptionError, match=r"ZCA-whitened.*images_zca"):
        diver.from_tensors(images, [0, 1], values="whitened").pixels()


@pytest.mark.parametrize("indices", [[10], [0, -11], [2**63 - 1]], ids=repr)
def test_pixels_of_a_sample_that_is_not_there(indices: list[int]) -> None:
    at = len(indices) - 1
    with pytest.raises(OutOfRangeError, match=rf"indices\[{at}\]: there is no sample {indices[at]} among 10"):
        diver.open(DIGITS).pixels(indices)


@pytest.mark.parametrize("indices", [3, "12", [0.5], [True], {1, 2}, [None]], ids=repr)
def test_pixels_of_what_is_no_index(indices: Any) -> None:
    with pytest.raises(OptionTypeError, match=r"^indices"):
        diver.open(DIGITS).pixels(indices)


def test_class_lists_have_names_and_files(tmp_path: Path) -> None:
    source = diver.open(DIGITS, classes="imagefruit-ncfm")
    assert source.class_map == [953, 954, 949, 950, 951, 957, 952, 945, 943, 956]
    assert diver.open(DIGITS).class_map is None
    assert diver.open(DIGITS, classes=np.arange(10)).class_map == list(range(10))
    listed = tmp_path / "classes.txt"
    listed.write_text("n01440764\n7\nbanana\n" + "0\n" * 7)
    assert diver.open(DIGITS, classes=listed).class_map == [0, 7, 954, *[0] * 7]
    listed.write_text("0\ncrane\n")
    with pytest.raises(
        DataError, match=r"classes\.txt: `line 2`: `crane` is the name of classes 134 and 517"
    ):
        diver.open(DIGITS, classes=listed)
    with pytest.raises(OptionError, match=r"classes: .*`fruits`.*`imagenet-fruits`"):
        diver.open(DIGITS, classes="fruits")
    with pytest.raises(OptionError, match="num_classes: 11, where `classes` lists 10"):
        diver.open(DIGITS, classes="imagenette", num_classes=11)
    with pytest.raises(OptionTypeError, match="classes"):
        diver.open(DIGITS, classes={1: 2})


def test_folders_of_wordnet_ids_follow_the_list(tmp_path: Path) -> None:
    for wnid in ("n02086240", "n02096294"):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "0.png").write_bytes(png())
    assert [sample.label for sample in stored(diver.open(tmp_path))] == [0, 1]
    assert diver.open(tmp_path).class_map == [155, 193]
    woof = diver.open(tmp_path, classes="imagewoof")
    assert [sample.label for sample in stored(woof)] == [0, 4] and woof.num_classes == 10
    with diver.DataLoader(tmp_path, classes="imagewoof") as loader:
        assert next(iter(loader)).labels.tolist() == [0, 4]
    with pytest.raises(OptionError, match="another order of these classes: give the list when it is opened"):
        diver.DataLoader(diver.open(tmp_path), classes="imagewoof")
    for source in (tmp_path, diver.open(tmp_path)):
        with pytest.raises(OptionError, match=r"classes: lacks class 155 \(n02086240\)"):
            diver.DataLoader(source, classes="imagefruit")
    (tmp_path / "previews").mkdir()
    (tmp_path / "previews" / "0.png").write_bytes(png())
    assert any("previews is no class" in note for note in diver.open(tmp_path).notes)
    with pytest.raises(DataError, match="previews: no class of ImageNet-1K"):
        diver.open(tmp_path, classes="imagewoof")


def test_a_loader_says_which_classes_it_refines_labels_as(tmp_path: Path) -> None:
    # The first two classes of imagenette, in its order.
    for wnid in ("n01440764", "n02102040"):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / "0.png").write_bytes(png())
    source = diver.open(tmp_path)
    with diver.DataLoader(source, classes="imagenette") as loader:
        assert loader.class_map == source.class_map == [0, 217]
    with diver.DataLoader(diver.open(DIGITS), classes=range(10, 20)) as loader:
        assert loader.class_map == list(range(10, 20)) and loader.source.class_map is None
    with diver.DataLoader(DIGITS) as loader:
        assert loader.class_map is None


def test_what_was_assumed_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("images_best.pt", "labels_best.pt"):
        (tmp_path / name).write_bytes((DIGITS / name).read_bytes())
    note, of_glad = diver.open(tmp_path).notes
    assert "ImageNet" in note and note.endswith("pass `dataset`, or `mean` and `std`, for other constants")
    assert "GLaD" in of_glad
    source = diver.open(tmp_path)
    assert repr(source).endswith("10 classes, 2 notes>") and repr(diver.open(DIGITS)).endswith("10 classes>")
    diver.DataLoader(source, rank=1, world_size=2).close()
    assert note not in caplog.text
    for _ in range(3):
        diver.DataLoader(source).close()
    assert caplog.text.count(note) == 1
    assert diver.open(tmp_path, mean=0.5, std=0.25).notes == []
    assert diver.open(tmp_path, dataset="CIFAR-10").mean == pytest.approx((0.4914, 0.4822, 0.4465))


def test_samples_are_the_stored_values_bit_for_bit() -> None:
    images = torch.load(DIGITS / "images_best.pt", weights_only=True)
    labels = torch.load(DIGITS / "labels_best.pt", weights_only=True)
    source = diver.open(DIGITS)
    for index, sample in enumerate(stored(source)):
        assert sample.values.dtype == np.float32
        assert sample.values.tobytes() == images[index].numpy().tobytes()
        assert sample.label == labels[index].item()
    stored_images, stored_labels = torch.load(DC_FILE, weights_only=False)["data"][-1]
    for index, sample in enumerate(stored(diver.open(DC_FILE))):
        assert sample.values.tobytes() == stored_images[index].numpy().tobytes()
        assert sample.label == stored_labels[index].item()


def test_samples_of_an_image_set_are_bytes() -> None:
    values = diver.open(PARQUET).sample(0).values
    assert values.dtype == np.uint8 and values.flags.writeable


def test_a_sample_is_the_callers_own() -> None:
    source = diver.open(DIGITS)
    sample = source.sample(0)
    values, label, logits, probabilities, digest = sample
    values[:] = 0
    assert source.sample(0).values.any() and source.sample(0).digest == digest
    assert (
        (sample.label, sample.logits, sample.probabilities)
        == (label, logits, probabilities)
        == (0, None, None)
    )


def test_digests_tell_samples_apart_and_nothing_else() -> None:
    digits, shapes = diver.open(DIGITS), diver.open(SHAPES)
    assert len({sample.digest for sample in (*stored(digits), *stored(shapes))}) == 110
    digests = [sample.digest for sample in stored(digits)]
    assert digests == [sample.digest for sample in stored(diver.open(DC_FILE))], (
        "equal values in another file"
    )
    assert digests == [sample.digest for sample in stored(diver.open(DIGITS, mean=0, std=1))]


@pytest.mark.parametrize(("index", "same"), [(-1, 9), (-10, 0), (np.int64(3), 3), (torch.tensor(4), 4)])
def test_samples_are_found_by_any_index(index: Any, same: int) -> None:
    source = diver.open(DIGITS)
    assert source.sample(index).digest == source.sample(same).digest


@pytest.mark.parametrize("index", [10, -11, 2**40, -(2**40)])
def test_there_is_no_sample_beyond_the_last(index: int) -> None:
    with pytest.raises(OutOfRangeError, match=str(index)) as caught:
        diver.open(DIGITS)[index]
    assert isinstance(caught.value, IndexError) and isinstance(caught.value, DiverError)


@pytest.mark.parametrize("index", ["0", 0.0, None, True, slice(0, 2), [0], (0, 1)], ids=repr)
def test_an_index_is_an_integer(index: Any) -> None:
    with pytest.raises(TypeError, match="index"):
        diver.open(DIGITS)[index]


def test_a_set_is_a_sequence_to_iterate() -> None:
    source = diver.open(DIGITS)
    assert [sample.label for sample in stored(source)] == list(range(10))
    assert len(list(zip(source, source, strict=True))) == 10
    assert [sample.label for sample in reversed(list(stored(source)))] == list(range(9, -1, -1))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_set_can_be_copied_and_pickled(copied: Any) -> None:
    for source in (
        diver.open(DIGITS, mean=(0.1, 0.2, 0.3), std=0.5, num_classes=12),
        diver.open(DC_FILE, experiment=0),
        diver.open(PARQUET, dataset="mnist"),
        diver.open(ZCA, zca=ZCA / "transform.pt"),
    ):
        twin = copied(source)
        assert repr(twin) == repr(source) and (twin.mean, twin.std) == (source.mean, source.std)
        assert [s.digest for s in stored(twin)] == [s.digest for s in stored(source)]


def test_what_was_opened_by_a_relative_path_is_pickled_for_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relative = {
        name: os.path.relpath(path) for name, path in {"set": ZCA, "zca": ZCA / "transform.pt"}.items()
    }
    source = diver.open(relative["set"], zca=relative["zca"])
    assert not source.path.is_absolute()
    monkeypatch.chdir(tmp_path)
    cache = diver.Cache("cache")
    pickled = pickle.dumps((source, cache))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    twin, same = pickle.loads(pickled)
    assert twin.path.is_absolute() and [s.digest for s in stored(twin)] == [s.digest for s in stored(source)]
    assert same.path == tmp_path / "cache" and list(elsewhere.iterdir()) == []
    again = pickle.loads(pickle.dumps((twin, cache)))
    assert (again[0].path, again[1].path) == (twin.path, same.path)


def test_paths_come_in_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(EXAMPLES))
    for path in (
        DIGITS,
        str(DIGITS),
        "examples/digits/dm_ipc1",
        "examples/../examples/digits/dm_ipc1/",
        "~/digits/dm_ipc1",
    ):
        assert len(diver.open(path)) == 10


def test_options_say_what_files_do_not() -> None:
    for mean, std in [
        (0.5, 0.25),
        ([0.5], [0.25]),
        ((0.5, 0.5, 0.5), np.full(3, 0.25)),
        (torch.full((3,), 0.5), torch.tensor(0.25)),
        (np.float32(0.5), np.array(0.25)),
    ]:
        source = diver.open(DIGITS, mean=mean, std=std)  # type: ignore[arg-type]
        assert source.mean == (0.5, 0.5, 0.5) and source.std == (0.25, 0.25, 0.25)
    assert diver.open(DIGITS, num_classes=12).num_classes == 12
    assert diver.open(DC_FILE, experiment=0).num_samples == 10
    assert diver.open(ZCA, zca=ZCA / "transform.pt").value_space == "unit"


@pytest.mark.parametrize(
    "path", ["/no/such/set", "no/such/set", "", "a\0b", "x" * 5000, DIGITS / "images_best.pt" / "x"], ids=repr
)
def test_a_set_that_is_not_there_is_an_os_error(path: Any) -> None:
    with pytest.raises(FileError) as caught:
        diver.open(path)
    error = caught.value
    assert isinstance(error, OSError) and isinstance(error, DiverError)
    assert str(path).split("\0")[0] in str(error) and "cannot open" in str(error)
    assert error.filename == str(path)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.errno, again.filename) == (str(error), error.errno, error.filename)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_what_is_not_permitted_is_a_permission_error(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    diver.Cache(tmp_path / "theirs")
    with pytest.raises(PermissionError) as caught:
        diver.Cache(tmp_path / "theirs" / "cache")
    assert type(caught.value) is ForbiddenFileError and isinstance(caught.value, FileError)
    assert caught.value.errno == errno.EACCES
    assert caught.value.filename == str(tmp_path / "theirs" / "cache")


def test_the_systems_error_number_is_kept(tmp_path: Path) -> None:
    with pytest.raises(FileError) as caught:
        diver.open(tmp_path / "nothing")
    assert caught.value.errno == errno.ENOENT and caught.value.filename == str(tmp_path / "nothing")
    with pytest.raises(FileError) as caught:
        diver.Cache(DIGITS / "images_best.pt" / "cache")
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize("path", [5, None, 1.5, b"examples", ["examples"], object()], ids=repr)
def test_a_path_is_text_or_path(path: Any) -> None:
    with pytest.raises(OptionTypeError, match="path"):
        diver.open(path)
    if path is not None:
        with pytest.raises(OptionTypeError, match="cache"):
            diver.Cache(path)


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"mean": 0.5}, "mean and std"),
    ({"std": 0.5}, "mean and std"),
    ({"mean": 0.5, "std": 0}, "std"),
    ({"mean": 0.5, "std": -1}, "std"),
    ({"mean": 0.5, "std": float("nan")}, "std"),
    ({"mean": float("inf"), "std": 1}, "mean"),
    ({"mean": 10**400, "std": 1}, "mean"),
    ({"mean": (0.5, 0.5), "std": 1}, "mean: one value or three are expected, not 2"),
    ({"mean": 0.5, "std": ()}, "std: .* not 0"),
    ({"mean": 0.5, "std": [1] * 4}, "std: .* not 4"),
    ({"mean": 0.5, "std": [1, 0, 1]}, "std"),
    ({"mean": "0.5", "std": 1}, "mean"),
    ({"mean": [None] * 3, "std": 1}, "mean"),
    ({"mean": True, "std": 1}, "mean"),
    ({"experiment": 0}, "experiment"),
    ({"experiment": -1}, "experiment"),
    ({"experiment": 0.0}, "experiment"),
    ({"experiment": "0"}, "experiment"),
    ({"experiment": True}, "experiment"),
    ({"num_classes": 0}, "num_classes"),
    ({"num_classes": -1}, "num_classes"),
    ({"num_classes": 2**62}, "num_classes"),
    ({"num_classes": 2**70}, "num_classes"),
    ({"num_classes": "10"}, "num_classes"),
    ({"dataset": 5}, "dataset"),
    ({"zca": 5}, "zca"),
    ({"dataset": b"cifar10"}, "dataset"),
]


@pytest.mark.parametrize(
    ("options", "named"), BAD_OPTIONS, ids=[str(options)[:40] for options, _ in BAD_OPTIONS]
)
def test_a_bad_option_is_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named) as caught:
        diver.open(DIGITS, **options)
    assert isinstance(caught.value, ValueError)


def test_options_that_do_not_fit_the_files_are_refused() -> None:
    with pytest.raises(OptionError, match=r"experiment: 1 is out of range: .* holds experiments 0 to 0"):
        diver.open(DC_FILE, experiment=1)
    with pytest.raises(DataError, match="label 5 is out of range: the set was opened with 5 classes"):
        diver.open(DIGITS, num_classes=5)
    with pytest.raises(OptionError, match="dataset: `nonsuch` is not one of cifar10"):
        diver.open(PARQUET, dataset="nonsuch")


# Files that are something else.


class Bomb:
    """Says that it was unpickled, by a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_does_not(legacy: bool, tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    images = torch.zeros(2, 3, 8, 8)
    for name, content in [
        ("images_best.pt", Bomb(exploded)),
        ("a.pt", {"data": [[images, Bomb(exploded)]]}),
        ("b.pt", {"data": [[images, torch.zeros(2)]], "more": Bomb(exploded)}),
    ]:
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        try:
            source = diver.open(tmp_path / name)
        except DataError as error:
            assert name in str(error)
        else:
            # What is beside the data is not looked at.
            assert name == "b.pt" and source.num_samples == 2
        assert not exploded.exists()
    torch.load(tmp_path / "images_best.pt", weights_only=False)
    assert exploded.exists(), "it would have"


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("images")
    for path in (text, tmp_path, EXAMPLES / "digits", "README.md", "/dev/null"):
        with pytest.raises(DataError) as caught:
            diver.open(path)
        assert str(path) in str(caught.value) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["images_best.pt", "labels_best.pt"])
@pytest.mark.parametrize("keep", [0, 7, 100, 1000, -1])
def test_a_file_cut_short_is_refused(name: str, keep: int, tmp_path: Path) -> None:
    for each in ("images_best.pt", "labels_best.pt"):
        content = (DIGITS / each).read_bytes()
        (tmp_path / each).write_bytes(content[:keep] if each == name else content)
    with pytest.raises(DataError, match=name):
        diver.open(tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "named"),
    [
        (torch.zeros(2, 3, 8, 8), torch.tensor([0, -1]), "sample 1: label -1"),
        (torch.zeros(2, 3, 8, 8), torch.tensor([0.0, 0.5]), "sample 1: label 0.5"),
        (torch.zeros(2, 3, 8, 8), torch.tensor([0, 2**40]), "sample 1: label"),
        (torch.zeros(2, 3, 8, 8), torch.tensor([0]), "label"),
        (torch.zeros(2, 3, 8, 8), {}, "labels_best.pt"),
        (torch.zeros(2, 3), torch.tensor([0, 1]), r"\[N, C, H, W\]"),
        (torch.zeros(2, 5, 8, 8), torch.tensor([0, 1]), "channel|C, H, W|shape"),
        (torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64), "sample|empty|images"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.int64), torch.tensor([0, 1]), "float"),
        ([1, 2], torch.tensor([0, 1]), "images_best.pt"),
    ],
    ids=[
        "negative",
        "fraction",
        "huge",
        "too few",
        "dict",
        "no width",
        "five channels",
        "none",
        "integers",
        "list",
    ],
)
def test_damaged_contents_are_named(images: Any, labels: Any, named: str, tmp_path: Path) -> None:
    torch.save(images, tmp_path / "images_best.pt")
    torch.save(labels, tmp_path / "labels_best.pt")
    with pytest.raises(DataError, match=named):
        diver.open(tmp_path)


def test_a_value_that_is_not_finite_is_said_when_it_is_read(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[1, 2, 3, 4] = torch.nan
    torch.save(images, tmp_path / "images_best.pt")
    torch.save(torch.tensor([0, 1]), tmp_path / "labels_best.pt")
    source = diver.open(tmp_path)
    assert source.sample(0).label == 0
    with pytest.raises(DataError, match="sample 1: pixel value NaN at channel 2, row 3, column 4"):
        source[1]
    with diver.DataLoader(source, batch_size=1) as loader:
        batches = iter(loader)
        next(batches)
        with pytest.raises(DataError, match="sample 1"):
            next(batches)
        assert list(batches) == []


def test_names_that_are_not_text_are_paths_as_well(tmp_path: Path) -> None:
    """A name may be any bytes, which Python keeps as surrogates."""
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    for name in ("images_best.pt", "labels_best.pt", "norm.json"):
        (folder / name).write_bytes((DIGITS / name).read_bytes())
    assert len(diver.open(folder)) == 10


def test_a_cache_is_a_folder_that_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = diver.Cache(tmp_path / "a" / "b")
    assert cache.path == tmp_path / "a" / "b" and cache.path.is_dir()
    assert "a/b" in repr(cache)
    assert pickle.loads(pickle.dumps(cache)).path == copy.deepcopy(cache).path == cache.path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert diver.Cache("~/c").path == tmp_path / "c"
    with pytest.raises(FileError, match=r"README\.md"):
        diver.Cache("README.md")


@pytest.mark.parametrize("path", ["s3://bucket/x", "gs://bucket/x", "hf://datasets/x", Path("s3://bucket/x")])
def test_paths_with_a_scheme_are_refused_before_anything_is_made(path: str | Path) -> None:
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("path", lambda: diver.open(path)),
        ("zca", lambda: diver.open(DIGITS, zca=path)),
        ("classes", lambda: diver.open(DIGITS, classes=path)),
        ("source", lambda: diver.DataLoader(path)),
        ("tree", lambda: diver.SoftLabels(path, diver.open(DIGITS))),
    ]
    for option, attempt in attempts:
        with pytest.raises(OptionError, match=f"^{option}: .*local path"):
            attempt()
        assert not Path(str(path).split("/")[0]).exists()


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(OptionError, match=r"classes.*`imagefruits`.*`imagefruit`"):
        diver.open(DIGITS, classes="imagefruits")
    with pytest.raises(OptionError, match=r"dataset.*`cifar-ten`.*`cifar10`"):
        diver.open(DIGITS, dataset="cifar-ten")
    with pytest.raises(OptionError, match=r"values.*`whitend`.*`whitened`"):
        diver.open(DIGITS, values="whitend")
    with pytest.raises(OptionError, match=r"on_miss.*`weit`.*`wait`"):
        diver.DataLoader(DIGITS, on_miss="weit")
