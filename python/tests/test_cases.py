"""What people really have: situations from public bug reports, each with files of its own, and what is right."""

from __future__ import annotations

import argparse
import collections
import io
import json
import pathlib
import pickle
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import diver
from diver.errors import DataError, OptionError

N = 10
IMAGES = torch.rand(N, 3, 32, 32, generator=torch.Generator().manual_seed(0))
NORMALIZED = 3 * IMAGES - 1.5
LABELS = torch.arange(N)


def picture(label: int, number: int = 0, side: int = 32) -> Image.Image:
    """A picture whose colour tells its class."""
    image = Image.new("RGB", (side, side), (20 * label % 256, 40 + 10 * number, 200 - 15 * label % 200))
    image.putpixel((0, 0), (255, 0, 0))
    return image


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, format)
    return content.getvalue()


def labels(source: diver.Source) -> list[int]:
    return [source.sample(index).label for index in range(len(source))]


def reds(source: diver.Source) -> list[int]:
    return [int(source.sample(index).values[0, 1, 1]) for index in range(len(source))]


def noted(source: diver.Source, *parts: str) -> bool:
    return any(all(part in note for part in parts) for note in source.notes)


def test_the_last_step_of_dataset_distillation_is_read(tmp_path: Path) -> None:
    steps = [(torch.full((N, 1, 28, 28), -1.0 - step), LABELS, torch.tensor([0.02])) for step in range(3)]
    torch.save(steps, tmp_path / "results.pth")
    source = diver.open(tmp_path / "results.pth")
    assert labels(source) == LABELS.tolist() and source.sample(0).values.max() == -3 and noted(source, "last")
    assert diver.open(tmp_path / "results.pth", experiment=0).sample(0).values.max() == -1


def test_a_folder_with_one_file_that_is_a_set_opens_as_the_file(tmp_path: Path) -> None:
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    torch.save({"images": images, "labels": labels}, tmp_path / "results.pth")
    (tmp_path / "args.txt").write_text("lr 0.1")
    torch.save({"accuracy": 0.5}, tmp_path / "log.pt")
    assert diver.open(tmp_path).path == tmp_path / "results.pth"
    torch.save((images, labels), tmp_path / "more.pt")
    with pytest.raises(DataError, match=r"2 files in it are datasets of their own: open one, as .*more\.pt"):
        diver.open(tmp_path)


def test_successors_of_idc_are_decoded(tmp_path: Path) -> None:
    for iteration in (20, 40):
        torch.save([IMAGES, LABELS], tmp_path / f"data{iteration}.pt")
    source = diver.open(tmp_path)
    assert (source.format, len(source)) == ("idc", 4 * N) and noted(source, "data40.pt", "data20.pt")
    torch.save([IMAGES[:5], LABELS[:5]], tmp_path / "data_best.pt")
    assert len(diver.open(tmp_path)) == 20


def test_a_run_that_has_only_its_start_is_no_result(tmp_path: Path) -> None:
    torch.save([IMAGES, LABELS], tmp_path / "data_init.pt")
    with pytest.raises(DataError, match=r"data_init\.pt"):
        diver.open(tmp_path)
    assert len(diver.open(tmp_path / "data_init.pt")) == 4 * N


def test_averaged_images_are_read_and_two_families_are_asked_about(tmp_path: Path) -> None:
    for iteration in ("100", "best"):
        torch.save(NORMALIZED, tmp_path / f"ema_images_{iteration}.pt")
        torch.save(LABELS, tmp_path / f"ema_labels_{iteration}.pt")
    source = diver.open(tmp_path)
    assert source.path.name == "ema_images_best.pt" and noted(source, "ema")
    torch.save(NORMALIZED, tmp_path / "images_best.pt")
    torch.save(LABELS, tmp_path / "labels_best.pt")
    with pytest.raises(DataError, match=r"ema_images_best.*|images_best"):
        diver.open(tmp_path)


def own_class() -> Any:
    """An object of a class that only another program has."""
    module = types.ModuleType("utils_of_a_fork")
    made = type("ParamAug", (), {"__init__": lambda self: setattr(self, "scale", 1.2)})
    made.__module__ = module.__name__
    module.ParamAug = made  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return made()


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"args": {"ipc": 1, "dsa_param": own_class()}},
        {"args": {"device": torch.device("cpu"), "dtype": torch.float32, "size": torch.Size([3, 2])}},
        {"curve": np.arange(3.0), "number": np.uint16(7)},
        {"args": argparse.Namespace(out=pathlib.PurePosixPath("x"))},
        {"args": {"layers": {1, 2}, "hist": collections.defaultdict(list, a=[1])}},
        {"generator": torch.nn.Linear(2, 2)},
    ],
)
def test_what_lies_beside_the_data_is_nobodys_business(tmp_path: Path, beside: dict[str, Any]) -> None:
    accuracies = {"ConvNet": [np.float64(0.5), np.float32(0.25)]}
    torch.save(
        {"data": [[NORMALIZED, LABELS]], "accs_all_exps": accuracies, **beside}, tmp_path / "res_DM_1ipc.pt"
    )
    source = diver.open(tmp_path / "res_DM_1ipc.pt")
    assert (source.format, labels(source)) == ("dc", LABELS.tolist())


@pytest.mark.parametrize("rate", [0.013, torch.tensor(0.013), torch.tensor([0.013]), None])
def test_a_learned_rate_is_a_tensor_a_number_or_absent(tmp_path: Path, rate: Any) -> None:
    torch.save(NORMALIZED, tmp_path / "images_best.pt")
    torch.save(LABELS, tmp_path / "labels_best.pt")
    if rate is not None:
        torch.save(rate, tmp_path / "lr_best.pt")
    assert diver.open(tmp_path).learning_rate == (None if rate is None else pytest.approx(0.013))


def test_arrays_are_found_by_their_role(tmp_path: Path) -> None:
    x = (IMAGES.permute(0, 2, 3, 1) * 255).byte().numpy()
    y = LABELS.numpy()
    for folder, names in (("a", ("x_train", "y_train")), ("b", ("images", "labels"))):
        (tmp_path / folder).mkdir()
        for name, array in zip(names, (x, y), strict=True):
            np.save(tmp_path / folder / f"{name}.npy", array)
        assert labels(diver.open(tmp_path / folder)) == y.tolist()
    for name, arrays in (
        ("roles", {"x_train": x, "y_train": y}),
        ("order", {"train_labels": y, "train_images": x}),
        ("positions", {"arr_0": x, "arr_1": y}),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        source = diver.open(tmp_path / f"{name}.npz")
        assert (source.shape, labels(source)) == ((3, 32, 32), y.tolist()), name
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    with pytest.raises(DataError, match="columns"):
        diver.open(tmp_path / "mnist.npz")
    assert len(diver.open(tmp_path / "mnist.npz", split="test")) == 3
    assert len(diver.open(tmp_path / "mnist.npz", columns="image=x_test,label=y_test")) == 3


def test_pickled_arrays_are_read_or_say_how_to_save_them(tmp_path: Path) -> None:
    x, y = (IMAGES * 255).byte().numpy(), LABELS.numpy()
    (tmp_path / "distilled.pkl").write_bytes(pickle.dumps({"images": x, "labels": y}))
    assert labels(diver.open(tmp_path / "distilled.pkl")) == y.tolist()
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({b"data": x.reshape(N, -1), b"labels": y.tolist()}))
    with pytest.raises(DataError, match="reshape"):
        diver.open(tmp_path / "data_batch_1")
    np.savez(tmp_path / "objects.npz", images=np.array([x[0], None], dtype=object), labels=y[:2])
    with pytest.raises(DataError, match=r"numpy\.savez"):
        diver.open(tmp_path / "objects.npz")


@pytest.mark.parametrize(
    "given",
    [
        LABELS[:, None],
        LABELS.int(),
        LABELS.char(),
        LABELS.byte(),
        LABELS.short(),
        LABELS.to(torch.uint16),
        LABELS.float(),
        LABELS[:, None].double(),
        torch.eye(N),
        torch.eye(N).long(),
        torch.eye(N).bool(),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tensor.ndim}",
)
def test_labels_of_every_dtype_and_shape(tmp_path: Path, given: torch.Tensor) -> None:
    torch.save({"images": IMAGES, "labels": given}, tmp_path / "set.pt")
    assert labels(diver.open(tmp_path / "set.pt")) == LABELS.tolist()


@pytest.mark.parametrize(
    "given",
    [
        IMAGES.half(),
        IMAGES.bfloat16(),
        IMAGES.double(),
        (IMAGES * 255).long(),
        (IMAGES * 255).to(torch.uint16),
        torch.nn.Parameter(IMAGES),
        IMAGES.contiguous(memory_format=torch.channels_last),
        IMAGES.permute(0, 2, 3, 1),
        IMAGES[:, 0],
        IMAGES[:, :1].expand(N, 3, 32, 32),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}",
)
def test_images_of_every_dtype_and_shape(tmp_path: Path, given: torch.Tensor) -> None:
    torch.save({"images": given, "labels": LABELS}, tmp_path / "set.pt")
    source = diver.open(tmp_path / "set.pt")
    assert source.shape[1:] == (32, 32) and source.value_space == "unit"


def test_odd_label_sets_are_noted(tmp_path: Path) -> None:
    def opened(given: torch.Tensor, **options: Any) -> diver.Source:
        torch.save({"images": IMAGES, "labels": given}, tmp_path / "set.pt")
        return diver.open(tmp_path / "set.pt", **options)

    assert noted(opened(LABELS + 1), "label 0", "first_label=1")
    assert labels(opened(LABELS + 1, first_label=1)) == LABELS.tolist()
    assert noted(opened(torch.zeros(N)), "single class")
    assert noted(opened(2 * LABELS), "no samples: 1, 3, 5")
    several = torch.zeros(N, 4)
    several[:, 1] = several[:, 2] = 1
    source = opened(several)
    assert noted(source, "multi-hot") and source.sample(0).probabilities.tolist() == [0, 0.5, 0.5, 0]  # type: ignore[union-attr]
    shares = torch.softmax(torch.randn(N, 4, generator=torch.Generator().manual_seed(1)), 1)
    with diver.DataLoader(opened(shares), batch_size=N, labels=diver.labels.stored(temperature=7)) as loader:
        _, targets = next(iter(loader))
    assert torch.equal(targets, shares)


def test_datasets_that_were_saved_as_objects(tmp_path: Path) -> None:
    tensors = torch.utils.data.TensorDataset(IMAGES, LABELS)
    torch.save(tensors, tmp_path / "dataset.pt")
    torch.save(torch.utils.data.Subset(tensors, [7, 1]), tmp_path / "subset.pt")
    assert labels(diver.open(tmp_path / "dataset.pt")) == LABELS.tolist()
    assert labels(diver.open(tmp_path / "subset.pt")) == [7, 1]


def folders(root: Path, classes: list[str]) -> Path:
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        picture(label).save(root / name / "a.png")
    return root


def test_folders_counted_from_one_are_noted(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", [str(label) for label in range(1, 13)])
    source = diver.open(root)
    assert source.num_classes == 13 and noted(source, "label 0")
    shifted = diver.open(root, first_label=1)
    assert (shifted.num_classes, labels(shifted)) == (12, list(range(12)))


def test_images_of_every_extension_are_read_and_others_are_counted(tmp_path: Path) -> None:
    for label, name in enumerate(["cat", "dog"]):
        (tmp_path / name).mkdir()
        for number, extension in enumerate(["png", "WEBP", "bmp", "tif", "gif", "JPEG", "ppm"]):
            picture(label, number).save(tmp_path / name / f"{number}.{extension}")
        (tmp_path / name / "lying.jpg").write_bytes(encoded(picture(label)))
        (tmp_path / name / "nameless").write_bytes(encoded(picture(label)))
        (tmp_path / name / "boxes.txt").write_text("1 2 3 4")
        (tmp_path / name / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "wandb").mkdir()
    source = diver.open(tmp_path)
    assert labels(source) == [0] * 9 + [1] * 9
    assert noted(source, "2 .txt files") and not noted(source, "Thumbs") and not noted(source, "MACOSX")


def test_names_that_are_not_text_open_like_any_other(tmp_path: Path) -> None:
    odd = tmp_path / b"d\xff\xfeg".decode(errors="surrogateescape")
    odd.mkdir()
    (tmp_path / "cat").mkdir()
    for folder in (odd, tmp_path / "cat"):
        (folder / b"\xff.png".decode(errors="surrogateescape")).write_bytes(encoded(picture(1)))
    assert len(diver.open(tmp_path)) == 2


def test_the_tree_of_tiny_imagenet(tmp_path: Path) -> None:
    for label, wnid in enumerate(["n01443537", "n01629819", "n01641577"]):
        folder = tmp_path / "train" / wnid / "images"
        folder.mkdir(parents=True)
        (folder.parent / f"{wnid}_boxes.txt").write_text("x")
        picture(label, 0, 64).save(folder / f"{wnid}_0.JPEG")
    (tmp_path / "val/images").mkdir(parents=True)
    picture(0, 0, 64).save(tmp_path / "val/images/val_0.JPEG")
    source = diver.open(tmp_path / "train")
    assert labels(source) == [0, 1, 2] and source.class_map is not None
    assert noted(diver.open(tmp_path / "val"), "single class")
    with pytest.raises(DataError, match="train"):
        diver.open(tmp_path)
    assert len(diver.open(tmp_path, split="train")) == 3


def tar(path: Path, entries: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize(
    "kind", ["cls", "upper", "webp", "json", "text", "npy", "dotted", "folders", "gz", "grouped", "image."]
)
def test_tars_as_people_write_them(tmp_path: Path, kind: str) -> None:
    count = 6
    pictures = [encoded(picture(label)) for label in range(count)]
    entries: list[tuple[str, bytes]] = []
    for label in range(count):
        image = ("png", pictures[label])
        target = ("cls", b"%d\n" % label)
        key = str(label)
        match kind:
            case "upper":
                image = ("JPEG", encoded(picture(label), "JPEG"))
            case "webp":
                image = ("webp", encoded(picture(label), "WEBP"))
            case "json":
                target = ("json", json.dumps({"class": label, "caption": "x"}).encode())
            case "text":
                target = ("txt", b"%d" % label)
            case "npy":
                target = ("npy", npy(np.eye(count, dtype="f4")[label] * 9))
            case "dotted":
                key = f"img_1.{label}"
            case "image.":
                image = ("image.png", pictures[label])
        entries += [(f"{key}.{image[0]}", image[1]), (f"{key}.{target[0]}", target[1])]
    if kind == "folders":
        entries = [(f"train/{label}/0.png", pictures[label]) for label in range(count)]
    if kind == "grouped":
        entries = entries[::2] + entries[1::2]
    gzipped = kind == "gz"
    path = tar(tmp_path / ("set.tar.gz" if gzipped else "set.tar"), entries, "w:gz" if gzipped else "w")
    assert labels(diver.open(path)) == list(range(count))


def test_soft_labels_in_a_tar_are_used_and_unused_entries_are_named(tmp_path: Path) -> None:
    entries = []
    for label in range(3):
        logits = np.eye(3, dtype="f4")[label] * 9
        entries += [(f"{label}.png", encoded(picture(label))), (f"{label}.cls", b"%d" % label)]
        entries += [(f"{label}.logits.npy", npy(logits)), (f"{label}.caption", b"x")]
    source = diver.open(tar(tmp_path / "set.tar", entries))
    assert source.labels == "logits" and noted(source, "caption")


def test_class_folders_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "syn_ipc2.zip", "w") as archive:
        for label in range(3):
            for number in range(2):
                name = f"syn/new{label:03d}/class{label:03d}_id{number:03d}.jpg"
                archive.writestr(name, encoded(picture(label, number), "JPEG"))
    assert labels(diver.open(tmp_path / "syn_ipc2.zip")) == [0, 0, 1, 1, 2, 2]


def test_a_cut_jpeg_is_an_error_that_names_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG")
    cut = whole[: len(whole) // 2]
    for name, content in (("cat", whole), ("dog", cut)):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.jpg").write_bytes(content)
    with pytest.raises(DataError, match="dog"):
        diver.open(tmp_path / "set").sample(1)
    path = tar(tmp_path / "set.tar", [("0.jpg", whole), ("0.cls", b"0"), ("1.jpg", cut), ("1.cls", b"1")])
    with pytest.raises(DataError, match="sample 1"):
        diver.open(path).sample(1)


def test_a_source_is_a_dataset_of_torch(tmp_path: Path) -> None:
    source = diver.from_tensors(IMAGES, LABELS, dataset="cifar10")
    images, targets = next(iter(torch.utils.data.DataLoader(source, batch_size=4)))
    assert images.shape == (4, 3, 32, 32) and targets.tolist() == [0, 1, 2, 3]
    parts = torch.utils.data.random_split(source, [6, 4], torch.Generator().manual_seed(0))
    assert sorted(target for part in parts for _, target in part) == LABELS.tolist()
    assert len(torch.utils.data.ConcatDataset([source, source])) == 2 * N
    for given in (
        torch.utils.data.Subset(source, [1, 2]),
        torch.utils.data.TensorDataset(IMAGES[1:3], LABELS[1:3]),
        (IMAGES[1:3], LABELS[1:3]),
        torch.utils.data.Subset(torch.utils.data.TensorDataset(IMAGES, LABELS), range(1, 3)),
    ):
        with diver.DataLoader(given, batch_size=2) as loader:
            assert next(iter(loader)).labels.tolist() == [1, 2]


def test_images_of_several_sizes_are_a_set_at_one_size(tmp_path: Path) -> None:
    for label, wnid in enumerate(["n01440764", "n02102040"]):
        (tmp_path / wnid).mkdir()
        for number in range(3):
            picture(label, number, 64).resize((64 + 8 * number, 64)).save(tmp_path / wnid / f"{number}.JPEG")
    with pytest.raises(DataError, match="image_size"):
        diver.open(tmp_path)
    for fit in (None, "stretch", "crop"):
        assert diver.open(tmp_path, image_size=56, fit=fit).shape == (3, 56, 56)
    with pytest.raises(OptionError, match="image_size"):
        diver.open(tmp_path, fit="crop")


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (list(IMAGES), LABELS),
        (IMAGES, LABELS[:, None]),
        (IMAGES, torch.eye(N).long()),
        (IMAGES, list(LABELS)),
        (IMAGES[:, 0], LABELS),
        (IMAGES.clone().requires_grad_(), LABELS),
        ((IMAGES * 255).long(), LABELS),
        (IMAGES.double().numpy(), LABELS.numpy().astype("i4")),
        (IMAGES, LABELS.float()),
        (IMAGES, [f"class {label}" for label in range(N)]),
        (IMAGES.transpose(2, 3), LABELS),
        (IMAGES.permute(0, 2, 3, 1), LABELS),
    ],
)
def test_what_programs_hold_is_read_where_one_reading_fits(images: Any, given: Any) -> None:
    source = diver.from_tensors(images, given, dataset="cifar10")
    assert labels(source) == LABELS.tolist() and source.shape[1:] == (32, 32)


def test_classes_that_are_not_the_refiners_are_an_error_that_shows_the_way(tmp_path: Path) -> None:
    source = diver.from_tensors(IMAGES, LABELS)

    def refiner(images: np.ndarray, labels: list[int]) -> np.ndarray:
        return (images * 255).astype(np.uint8)

    refiner.num_classes = 1000  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match="imagefruit"):
        diver.DataLoader(source, refiner=refiner)
    for classes in ("imagefruit", list(range(10)), "identity"):
        diver.DataLoader(source, refiner=refiner, classes=classes).close()
    implied = diver.from_tensors(IMAGES, LABELS, dataset="imagefruit")
    assert implied.class_map is not None and implied.classes[0] == "pineapple"
    diver.DataLoader(implied, refiner=refiner).close()
    for name in ("imagefruits", "cifar-ten"):
        with pytest.raises(OptionError, match=name):
            diver.from_tensors(IMAGES, LABELS, dataset=name)
