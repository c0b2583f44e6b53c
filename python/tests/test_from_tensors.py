"""Sets of tensors that a program holds."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import stored

import diver
from diver.errors import DataError, OptionError, OptionTypeError

IMAGES = torch.linspace(0, 1, 6 * 3 * 4 * 4).view(6, 3, 4, 4)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
CIFAR: dict[str, Any] = {"dataset": "cifar10"}


def batches(source: diver.Source) -> list[tuple[torch.Tensor, torch.Tensor]]:
    with diver.DataLoader(source, batch_size=4, shuffle=True, seed=3) as loader:
        return [(images, targets) for images, targets in loader]


def test_they_are_the_set_that_they_would_be_in_a_file(tmp_path: Path) -> None:
    torch.save({"images": IMAGES, "labels": LABELS}, tmp_path / "set.pt")
    saved = diver.open(tmp_path / "set.pt", **CIFAR)
    held = diver.from_tensors(IMAGES, LABELS, **CIFAR)
    assert (held.format, held.path, held.mean, held.std) == (
        "tensors",
        Path("<memory>"),
        saved.mean,
        saved.std,
    )
    assert [sample.digest for sample in stored(held)] == [sample.digest for sample in stored(saved)]
    for (images, targets), (same, as_well) in zip(batches(saved), batches(held), strict=True):
        assert images.equal(same) and targets.equal(as_well)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES.numpy(), LABELS.numpy()),
        (IMAGES.double(), LABELS.int()),
        (IMAGES.clone().requires_grad_(), LABELS.tolist()),
        (IMAGES.numpy().astype(">f4"), LABELS.float()),
        (IMAGES.permute(0, 2, 3, 1), torch.nn.functional.one_hot(LABELS).float().clamp(0.0, 1.0)),
    ],
    ids=["numpy", "double", "grad", "big-endian", "channels last"],
)
def test_of_every_kind_the_images_are_the_same(images: Any, labels: Any) -> None:
    source = diver.from_tensors(images, labels, **CIFAR)
    assert np.array_equal(np.stack([sample.values for sample in stored(source)]), IMAGES.numpy())
    assert [sample.label for sample in stored(source)] == LABELS.tolist()


def test_coarser_kinds_are_as_they_are() -> None:
    coarse = IMAGES.bfloat16()
    source = diver.from_tensors(coarse, LABELS, **CIFAR)
    assert np.array_equal(source.sample(5).values, coarse[5].float().numpy())
    grey = (IMAGES[:, :1] * 255).byte()
    source = diver.from_tensors(grey, LABELS, num_classes=10, **CIFAR)
    assert source.shape == (1, 4, 4) and source.num_classes == 10 and source.value_space == "unit"
    assert (
        np.array_equal(source.sample(5).values, grey[5].numpy()) and source.sample(5).values.dtype == np.uint8
    )
    source = diver.from_tensors(IMAGES * 4 - 2, LABELS, mean=0.5, std=0.25)
    assert source.value_space == {"normalized": {"mean": [0.5] * 3, "std": [0.25] * 3}}


def test_the_set_has_its_own_memory_and_goes_to_other_processes() -> None:
    images = IMAGES.clone()
    source = diver.from_tensors(images, LABELS, **CIFAR)
    images.zero_()
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(copy.sample(5).values, IMAGES[5].numpy()) and copy.path == source.path


def test_nothing_beside_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "norm.json").write_text("of something else")
    monkeypatch.chdir(tmp_path)
    assert diver.from_tensors(IMAGES, LABELS, **CIFAR).num_samples == 6


@pytest.mark.parametrize(
    ("images", "labels", "error", "words"),
    [
        (IMAGES, LABELS[:5], DataError, "<memory>: `labels`: 5 labels for 6 images"),
        (IMAGES[0], LABELS, DataError, "<memory>: `labels`: 6 labels for 3 images"),
        (IMAGES[0, 0], LABELS, DataError, "<memory>: `images`: "),
        (IMAGES, LABELS - 1, DataError, "<memory>: sample 0: label -1 in `labels`"),
        (
            torch.rand(6, 4, 4, 4),
            LABELS,
            DataError,
            "<memory>: `images`: expected images [N, C, H, W] with 1 or 3 channels, found shape [6, 4, 4, 4]",
        ),
        (
            IMAGES.to(torch.complex64),
            LABELS,
            OptionError,
            "images: dtype complex64 is not one of bool, uint8",
        ),
        ("images.pt", LABELS, OptionError, "images: a tensor or an array is expected, not str"),
        (IMAGES.to_sparse(), LABELS, OptionError, "images: a tensor or an array is expected, not Tensor: "),
        (IMAGES.to("meta"), LABELS, OptionError, "images: a tensor or an array is expected, not Tensor: "),
        (IMAGES, None, OptionError, "labels: a tensor or an array is expected, not NoneType"),
        (
            [IMAGES[0], IMAGES[1, :1]],
            LABELS,
            OptionError,
            "images: the items have different shapes, as (1, 4, 4)",
        ),
        (IMAGES, [0, 1, None, 0, 1, 2], OptionError, "labels[2]: a number is expected, not NoneType"),
        (np.ma.masked_less(IMAGES.numpy(), 0.5), LABELS, OptionError, "images: the array has masked values"),
        (
            Image.new("RGB", (4, 4)),
            LABELS[:3],
            OptionError,
            "images: a tensor or an array is expected, not Image",
        ),
        ([IMAGES[0], "1.png"], LABELS, OptionError, "images: the items have different shapes"),
    ],
)
def test_what_is_none_is_refused(images: Any, labels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        diver.from_tensors(images, labels, **CIFAR)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "first"), [("P", [255, 0, 0]), ("HSV", [255, 0, 0]), ("1", [255] * 3), ("L", [255] * 3)]
)
def test_images_of_pillows_become_what_their_files_do(mode: str, first: list[int]) -> None:
    image = Image.new("RGB", (2, 2), (255, 0, 0) if mode in ("P", "HSV") else (255, 255, 255)).convert(mode)
    source = diver.from_tensors([image, image], [0, 1], **CIFAR)
    assert source.shape == (3, 2, 2) and source.sample(0).values[:, 0, 0].tolist() == first


def test_of_bools_true_is_white() -> None:
    source = diver.from_tensors(IMAGES > 0.5, LABELS, **CIFAR)
    assert source.sample(5).values.min() == 255


@pytest.mark.parametrize(
    ("names", "given", "numbers", "classes"),
    [
        (["3", "1", "10", "2"], {}, [3, 1, 10, 2], 11),
        (["3", "1", "10", "2"], {"first_label": 1}, [2, 0, 9, 1], 10),
        (np.array(["b", "a", "c", "a"]), {}, [1, 0, 2, 0], 3),
        (["n02102040", "n01440764"] * 2, {}, [1, 0, 1, 0], 2),
    ],
)
def test_names_are_numbered_alike_in_memory_and_in_files(
    tmp_path: Path, names: Any, given: dict[str, Any], numbers: list[int], classes: int
) -> None:
    torch.save({"images": IMAGES[:4], "labels": list(map(str, names))}, tmp_path / "set.pt")
    for source in (
        diver.from_tensors(IMAGES[:4], names, **given, **CIFAR),
        diver.open(tmp_path / "set.pt", **given, **CIFAR),
    ):
        assert [sample.label for sample in stored(source)] == numbers and source.num_classes == classes
    with pytest.raises(OptionError, match="first_label"):
        diver.from_tensors(IMAGES[:2], ["a", "b"], first_label=1, **CIFAR)


@pytest.mark.parametrize("scale", [1, 100])
def test_rows_that_may_be_probabilities_are_told(scale: float) -> None:
    rows = torch.softmax(torch.randn(6, 1000, generator=torch.Generator().manual_seed(0)) * 3, 1)
    rows = scale * (rows * 1000).round() / 1000
    source = diver.from_tensors(IMAGES, rows, **CIFAR)
    assert source.labels == "logits" and any("divide each row" in note for note in source.notes)
    assert not any("divide" in note for note in diver.from_tensors(IMAGES, rows - 1, **CIFAR).notes)


def test_entries_that_are_not_used_are_told_and_columns_are_obeyed(tmp_path: Path) -> None:
    soft = torch.eye(3)[LABELS] * 0.8 + 0.2 / 3
    entries = {"images": IMAGES, "labels": LABELS, "soft_labels": soft, "class_names": ["a", "b", "c"]}
    torch.save(entries, tmp_path / "set.pt")
    np.savez(tmp_path / "set.npz", **{name: np.asarray(value) for name, value in list(entries.items())[:3]})
    for name in ("set.pt", "set.npz"):
        source = diver.open(tmp_path / name, **CIFAR)
        assert source.labels == "hard" and any("soft_labels" in note for note in source.notes)
        for columns in (
            "image=images,soft_label=soft_labels",
            "image=images,label=labels,soft_label=soft_labels",
        ):
            assert diver.open(tmp_path / name, columns=columns, **CIFAR).labels == "probabilities"
        for wrong in ("image=images,label=labels,soft_label=nonsuch", "image=images,soft_label=labels"):
            with pytest.raises(OptionError, match=wrong.rpartition("=")[2]):
                diver.open(tmp_path / name, columns=wrong, **CIFAR)
        with pytest.raises(OptionError, match="experiment"):
            diver.open(tmp_path / name, experiment=7, **CIFAR)


@pytest.mark.parametrize(("extension", "later"), [("pt", "best"), ("npy", "100")])
def test_a_later_result_without_its_labels_is_not_passed_over(
    tmp_path: Path, extension: str, later: str
) -> None:
    def save(name: str, values: torch.Tensor) -> None:
        path = tmp_path / f"{name}.{extension}"
        torch.save(values, path) if extension == "pt" else np.save(path, values.numpy())

    save("images_5", IMAGES)
    save("labels_5", LABELS)
    save("soft_labels", LABELS)
    assert any("soft_labels" in note for note in diver.open(tmp_path, **CIFAR).notes)
    save(f"images_{later}", IMAGES)
    with pytest.raises(DataError, match=f"images_{later}.*images_5"):
        diver.open(tmp_path, **CIFAR)
    save(f"labels_{later}", LABELS)
    assert diver.open(tmp_path, **CIFAR).path.stem == f"images_{later}"


def test_sources_are_joined_as_they_are(tmp_path: Path) -> None:
    source = diver.from_tensors(IMAGES * 4 - 2, LABELS, **CIFAR)
    both = torch.utils.data.ConcatDataset([source, torch.utils.data.Subset(source, [1])])
    given = diver.from_dataset(both)
    assert len(given) == 7 and given.mean == source.mean
    assert given.sample(6).digest == source.sample(1).digest
    assert len(pickle.loads(pickle.dumps(given))) == 7
    other = diver.from_tensors(IMAGES * 4 - 2, LABELS, dataset="imagenet")
    with pytest.raises(DataError, match="constants"):
        diver.from_dataset(torch.utils.data.ConcatDataset([source, other]))
    with pytest.raises(OptionTypeError, match="from_tensors"):
        diver.from_dataset({"images": IMAGES, "labels": LABELS})


PAIR: dict[str, Any] = {"images": IMAGES, "labels": LABELS}


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (
            {"images": IMAGES, "fine_labels": LABELS, "coarse_labels": LABELS},
            {},
            ["columns", "image=images,label=fine"],
        ),
        (PAIR, {"split": "train"}, ["split", "images, labels"]),
        ({"images": IMAGES.flatten(1), "labels": LABELS}, {}, ["images", "reshape(-1, 3, 4, 4)"]),
        ({"images": IMAGES.flatten(1)[:, :36], "labels": LABELS}, {}, ["images", "reshape(-1, 1, 6, 6)"]),
        ({"images": list(IMAGES), "labels": LABELS}, {}, ["images", "torch.stack"]),
        ({"train": PAIR, "test": PAIR}, {}, ["train, test", 'split="train"']),
        ({"train": PAIR, "test": PAIR}, {"split": "val"}, ["train, test"]),
        ([IMAGES, LABELS], {"split": "train"}, ["split"]),
        ({"images": IMAGES.clone().fill_(float("inf")), "labels": LABELS}, {}, ["images", "infinity"]),
        ({"images": IMAGES, "labels": -torch.eye(6) / 0}, {}, ["sample 0", "inf"]),
    ],
)
def test_what_a_file_lacks_is_said_with_a_way_out(
    tmp_path: Path, content: Any, options: dict[str, Any], words: list[str]
) -> None:
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises((DataError, OptionError)) as caught:
        diver.open(tmp_path / "set.pt", **options, **CIFAR)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ({"data": PAIR}, {}),
        ({"args": {"lr": 0.1}, "set": PAIR}, {}),
        ({"train": PAIR, "test": {"images": IMAGES[:1], "labels": LABELS[:1]}}, {"split": "train"}),
    ],
)
def test_sets_in_a_dict_of_a_file_are_read(tmp_path: Path, content: Any, options: dict[str, Any]) -> None:
    torch.save(content, tmp_path / "set.pt")
    source = diver.open(tmp_path / "set.pt", **options, **CIFAR)
    assert [sample.label for sample in stored(source)] == LABELS.tolist()


@pytest.mark.parametrize(
    "names", [("train.pt", "test.pt"), ("Images.PT", "Labels.PT"), ("images.pth.tar", "labels.pth.tar")]
)
def test_files_are_found_by_their_names(tmp_path: Path, names: tuple[str, str]) -> None:
    is_split = names[0] == "train.pt"
    for name, content in zip(names, (PAIR, PAIR) if is_split else (IMAGES, LABELS), strict=True):
        torch.save(content, tmp_path / name)
    options = {"split": "train"} if is_split else {}
    for path in (tmp_path, tmp_path / names[0]):
        if path == tmp_path or not is_split:
            assert len(diver.open(path, **options, **CIFAR)) == 6


@pytest.mark.parametrize(
    ("labels", "words"), [(np.array(["a", "b"] * 3), "Text"), (np.arange(6).astype(">i8"), "Big-endian")]
)
def test_arrays_of_numpys_that_are_not_read_say_what_to_do(tmp_path: Path, labels: Any, words: str) -> None:
    np.savez(tmp_path / "set.npz", images=IMAGES.numpy(), labels=labels)
    with pytest.raises(DataError, match=words):
        diver.open(tmp_path / "set.npz", **CIFAR)


@pytest.mark.parametrize(
    ("classes", "words"), [("my_classes.txt", "no file"), (["cat", "dog"], "file of a list")]
)
def test_lists_of_classes_that_are_none_are_refused(classes: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        diver.from_tensors(IMAGES, LABELS, classes=classes, **CIFAR)
