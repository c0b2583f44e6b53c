"""Several sets as one."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import ROOT, inverter, stored

import diver
from diver.errors import (
    DiverError,
    MissingFileError,
    OptionError,
    OptionTypeError,
    OutOfRangeError,
    StateError,
)

SHAPES = ROOT / "examples" / "shapes"
DM, DC, PIXELS = SHAPES / "dm_ipc1", SHAPES / "dc_ipc1", ROOT / "examples" / "digits" / "test.parquet"


def tiny(labels: list[Any], *, side: int = 2, value: float = 0.5, **options: Any) -> diver.Source:
    images = torch.full((len(labels), 3, side, side), value) * torch.linspace(0.1, 1, len(labels)).view(
        -1, 1, 1, 1
    )
    return diver.from_tensors(images, labels, **({"dataset": "cifar10"} | options))


def rows(loader: diver.DataLoader) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(targets)


def test_the_sets_follow_each_other() -> None:
    both, sets = diver.concat([DM, diver.open(DC)]), [diver.open(DM), diver.open(DC)]
    assert (both.format, len(both), both.num_classes, both.shape) == ("concat", 20, 10, (3, 32, 32))
    assert [sample.digest for sample in stored(both)] == [s.digest for source in sets for s in stored(source)]
    whole = rows(diver.DataLoader(both, batch_size=5))
    apart = [rows(diver.DataLoader(source, batch_size=5)) for source in sets]
    for together, parts in zip(whole, zip(*apart, strict=True), strict=True):
        assert torch.equal(together, torch.cat(parts))
    for index in (0, 13, -1):
        image, target = both[index]
        assert torch.equal(image, whole[0][index]) and target == whole[1][index].argmax()
    with pytest.raises(OutOfRangeError):
        both[20]


def test_it_is_a_source_as_others_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = ["examples/shapes/dm_ipc1", tiny([0, 1], side=32)]
    both = diver.concat(sets, weights=[1, 2], classes=[range(10), [3, 10]])
    assert str(both.path) == "examples/shapes/dm_ipc1/images_best.pt + <memory>"
    assert repr(both).startswith(f"<concat '{both.path}': 12 samples, 3 x 32 x 32, 11 classes")
    assert (both.labels, both.class_map, both.value_space) == ("hard", None, "mixed")
    assert both.mean == diver.open(DM).mean and any(
        "constants of the first set" in note for note in both.notes
    )
    assert [fact["name"] for fact in both.facts] == ["set", "set"]
    assert both.pixels([0, 11]).shape == (2, 3, 32, 32)
    assert np.array_equal(both.pixels([11])[0], tiny([0, 1], side=32).pixels([1])[0])
    monkeypatch.chdir(tmp_path)
    copy = pickle.loads(pickle.dumps(both))
    assert [sample.digest for sample in stored(copy)] == [sample.digest for sample in stored(both)]
    assert [sample.label for sample in stored(copy)[10:]] == [3, 10] and repr(copy).endswith(repr(both)[-30:])
    assert len(diver.DataLoader(copy, batch_size=1)) == len(diver.DataLoader(both, batch_size=1)) == 30
    # Torch's loader and subsets see each sample once.
    assert len(list(torch.utils.data.DataLoader(both, batch_size=None))) == 12
    subset = diver.from_dataset(torch.utils.data.Subset(both, [11, 0]))
    assert np.array_equal(subset.pixels([0]), both.pixels([11])) and any(
        "no weights" in note for note in subset.notes
    )


def test_classes_are_matched_by_name() -> None:
    both = diver.concat([tiny(["cat", "dog"]), tiny(["owl", "dog"])])
    assert both.classes == ["cat", "dog", "owl"] and [sample.label for sample in stored(both)] == [0, 1, 2, 1]
    with diver.DataLoader(both) as loader:
        _, targets = next(iter(loader))
    assert targets.shape == (4, 3) and targets.argmax(1).tolist() == [0, 1, 2, 1]
    asked = diver.concat([tiny(["cat", "dog"]), tiny([0, 1])], classes=[[0, 1], np.array([1, 2])])
    assert asked.classes == ["cat", "dog", "2"]
    by_number = diver.concat([tiny([0, 1]), tiny([1, 0])])
    assert by_number.num_classes == 2 and "by number" in by_number.notes[0]


def test_weights_decide_how_often_samples_come() -> None:
    both = diver.concat([tiny([0, 1]), tiny([0, 1, 0], num_classes=2)], weights=np.array([2.0, 1.0]))
    # Two thirds are the first set's: 6 of 9.
    with diver.DataLoader(both, batch_size=4, shuffle=True) as loader:
        assert len(loader) == 3
        for _ in range(3):
            counts = Counter(index for batch in loader for index in batch.indices.tolist())
            assert counts == {0: 3, 1: 3, 2: 1, 3: 1, 4: 1}
        saved = loader.state_dict()
        assert saved["set_places"] == [6, 3]
    other = diver.concat([tiny([0, 1]), tiny([0, 1, 0], num_classes=2)])
    with diver.DataLoader(other, shuffle=True) as loader:
        assert "set_places" not in loader.state_dict()
        with pytest.raises(StateError, match="set_places"):
            loader.load_state_dict(saved)


def test_image_files_are_brought_to_the_size_of_another_set(tmp_path: Path) -> None:
    for label in range(10):
        folder = tmp_path / str(label)
        folder.mkdir()
        Image.new("RGB", (48, 40), (25 * label, 0, 0)).save(folder / "0.png")
    with pytest.raises(OptionError, match=r"sets: .*40 x 48.*image_size.*fit"):
        diver.concat([DM, tmp_path])
    both = diver.concat([DM, diver.open(tmp_path, image_size=32, fit="crop")])
    assert (both.shape, both.num_classes, both.value_space) == ((3, 32, 32), 10, "mixed")
    assert [sample.label for sample in stored(both)] == [*range(10), *range(10)]
    image, _ = both[13]
    red = (75 / 255 - both.mean[0]) / both.std[0]
    assert torch.allclose(image[0], torch.full((32, 32), red), atol=1e-5)


def test_the_cache_is_shared_with_the_sets(tmp_path: Path) -> None:
    refiner = inverter()
    refiner.fingerprint = {"refiner": "inverter"}  # type: ignore[attr-defined]

    def misses(source: Any) -> int:
        with diver.DataLoader(source, refiner=refiner, cache=tmp_path) as loader:
            rows(loader)
            return int(loader.stats()["misses"])

    assert (misses(DM), misses(diver.concat([DM, DC]))) == (10, 10)
    assert (misses(DC), misses(diver.concat([DC, DM], weights=[3, 1]))) == (0, 0)


@pytest.mark.parametrize(
    ("sets", "options", "error", "words"),
    [
        ([], {}, OptionError, "sets: there are no sets"),
        ("examples/shapes/dm_ipc1", {}, OptionTypeError, "sets: a list of sets is expected, not str"),
        (DM, {}, OptionTypeError, "sets: a list of sets is expected"),
        (diver.open(DM), {}, OptionTypeError, "sets: a list of sets is expected, not Source"),
        (3, {}, OptionTypeError, "sets: a list with one item for each set is expected, not int"),
        ([DM, 3], {}, OptionTypeError, "expected a path, a source"),
        ([DM, b"nowhere"], {}, OptionTypeError, r"sets\[1\]: a path as text is expected, not bytes"),
        ([DM, "nowhere"], {}, MissingFileError, "nowhere"),
        ([DM, tiny([0])], {}, OptionError, r"sets: .* 32 x 32 pixels and <memory> of 2 x 2"),
        ([tiny([0, 1]), tiny([0, 1, 2])], {}, OptionError, "sets: .*2 classes and .* 3, .*Pass `classes`"),
        ([tiny(["cat"]), tiny([0])], {}, OptionError, "sets: .*have names.*Pass `classes`"),
        ([DM, DC], {"weights": [1]}, OptionError, "weights: 1 weight for 2 sets"),
        ([DM, DC], {"weights": [1, 0]}, OptionError, "weights: the weight of set 1 is 0"),
        ([DM, DC], {"weights": [1, float("nan")]}, OptionError, r"weights\[1\]: nan is not finite"),
        ([DM, DC], {"weights": [1, 1e-300]}, OptionError, "weights: .*differ too much"),
        ([DM, DC], {"weights": [1, "2"]}, OptionTypeError, r"weights\[1\]: a number is expected, not str"),
        ([DM, DC], {"weights": 2}, OptionTypeError, "weights: a list with one item for each set"),
        ([DM, DC], {"classes": "imagenette"}, OptionTypeError, "classes: a list with one item for each set"),
        ([DM, DC], {"classes": [range(10)]}, OptionError, "classes: 1 lists for 2 sets"),
        ([DM, DC], {"classes": [range(10), range(9)]}, OptionError, "classes: 9 labels for set 1"),
        (
            [DM, DC],
            {"classes": [range(10), [-1] * 10]},
            OptionError,
            r"classes\[1\]\[0\]: -1 must be at least 0",
        ),
        ([DM, DC], {"classes": [range(10), range(11, 21)]}, OptionError, "classes: no set has class 10"),
    ],
)
def test_what_does_not_go_together_is_refused(
    sets: Any, options: dict[str, Any], error: type[DiverError], words: str
) -> None:
    with pytest.raises(error, match=words):
        diver.concat(sets, **options)
