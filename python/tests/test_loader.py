"""The loader: what its batches hold, in which order they come, and when it refuses."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import DIGITS, SHAPES, eventually, plain, run, stored, threads

import diver
from diver.errors import (
    ClosedError,
    DataError,
    FileError,
    OptionError,
    OptionTypeError,
    VersionError,
)


def indices(loader: diver.DataLoader) -> list[int]:
    return [index for batch in loader for index in batch.indices.tolist()]


# What batches hold.


def test_batches_are_the_stored_normalised_values() -> None:
    source = diver.open(DIGITS)
    with diver.DataLoader(source, batch_size=4) as loader:
        batches = list(loader)
    assert [tuple(images.shape) for images, _ in batches] == [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    assert all(images.dtype == targets.dtype == torch.float32 for images, targets in batches)
    assert all(images.is_contiguous() and not images.requires_grad for images, _ in batches)
    images = torch.cat([images for images, _ in batches]).numpy()
    assert images.tobytes() == np.stack([sample.values for sample in stored(source)]).tobytes()


def test_pixels_of_an_image_set_are_normalised() -> None:
    source = diver.open("examples/digits/test.parquet", mean=(0.1, 0.2, 0.3), std=0.5)
    with diver.DataLoader(source, batch_size=3, format="numpy") as loader:
        images = next(iter(loader)).images
    mean = np.array([0.1, 0.2, 0.3], np.float32).reshape(3, 1, 1)
    for image, sample in zip(images, stored(source), strict=False):
        assert sample.values.dtype == np.uint8
        np.testing.assert_allclose(image, (sample.values / np.float32(255) - mean) / 0.5, atol=1e-6)


def test_targets_are_one_hot_and_labels_are_classes() -> None:
    source = diver.open(SHAPES)
    with diver.DataLoader(source, batch_size=7, shuffle=True) as loader:
        for batch in loader:
            expected = [source.sample(index).label for index in batch.indices.tolist()]
            assert batch.labels.tolist() == expected
            one_hot = torch.nn.functional.one_hot(batch.labels, source.num_classes).float()
            assert torch.equal(batch.targets, one_hot)


def test_a_batch_unpacks_and_has_names() -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        batch = next(iter(loader))
    images, targets = batch
    assert isinstance(batch, tuple) and len(batch) == 2
    assert batch.images is images is batch[0] and batch.targets is targets is batch[1]
    assert (batch.labels.dtype, batch.indices.dtype, batch.refined.dtype) == (
        torch.int64,
        torch.int64,
        torch.bool,
    )
    assert batch.indices.tolist() == [0, 1, 2, 3] and batch.refined.tolist() == [False] * 4


@pytest.mark.parametrize(
    "copied", [lambda b: type(b)(b), lambda b: type(b)(t + 1 for t in b)], ids=["rebuilt", "mapped"]
)
def test_a_batch_made_of_tensors_has_these_alone(copied: Callable[[diver.Batch], diver.Batch]) -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        batch = next(iter(loader))
    twin = copied(batch)
    assert isinstance(twin, diver.Batch) and twin.images.shape == batch.images.shape
    for name in ("labels", "indices", "refined"):
        with pytest.raises(diver.DiverError, match="made of another's tensors"):
            getattr(twin, name)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda b: pickle.loads(pickle.dumps(b)), lambda b: b.to(torch.float32)],
    ids=["copy", "deepcopy", "pickle", "to"],
)
def test_a_copy_of_a_batch_knows_all(copied: Callable[[diver.Batch], diver.Batch]) -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        batch = next(iter(loader))
    twin = copied(batch)
    assert isinstance(twin, diver.Batch) and twin is not batch
    for name in ("images", "targets", "labels", "indices", "refined"):
        assert torch.equal(getattr(twin, name), getattr(batch, name)), name
    assert batch.to("meta").labels.is_meta


def test_images_are_resized_on_request() -> None:
    for size, shape in [
        (16, (16, 16)),
        ((8, 24), (8, 24)),
        (np.int64(48), (48, 48)),
        (torch.tensor(8), (8, 8)),
    ]:
        with diver.DataLoader(DIGITS, batch_size=4, image_size=size) as loader:
            assert next(iter(loader)).images.shape == (4, 3, *shape)
    with diver.DataLoader(DIGITS, batch_size=10, image_size=16) as loader:
        small = next(iter(loader)).images
    with diver.DataLoader(DIGITS, batch_size=10) as loader:
        large = next(iter(loader)).images
    # Antialiased: means stay, and single pixels are not picked.
    assert torch.allclose(small.mean(dim=(2, 3)), large.mean(dim=(2, 3)), atol=0.05)


@pytest.fixture
def logits_set(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A set as EDF and DATM write it: soft labels, in `Normal/`."""
    folder = tmp_path / "Normal"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 4, generator=generator) * 3
    torch.save(torch.randn(6, 3, 8, 8, generator=generator), folder / "images_best.pt")
    torch.save(logits, folder / "labels_best.pt")
    return tmp_path, logits


@pytest.mark.parametrize("temperature", [1, 0.5, 20.0, np.float32(2)])
def test_targets_of_logits_are_their_softmax(
    logits_set: tuple[Path, torch.Tensor], temperature: float
) -> None:
    path, logits = logits_set
    with diver.DataLoader(path, batch_size=6, labels=diver.labels.stored(temperature=temperature)) as loader:
        batch = next(iter(loader))
    assert torch.allclose(batch.targets, torch.softmax(logits / float(temperature), 1), atol=1e-6)
    assert batch.labels.tolist() == logits.argmax(1).tolist()
    source = diver.open(path)
    assert (source.labels, source.num_classes) == ("logits", 4)
    for index, sample in enumerate(stored(source)):
        assert sample.logits is not None and sample.logits.tolist() == logits[index].tolist()


# Order.


def test_a_loader_is_as_long_as_its_epochs() -> None:
    for batch_size, drop_last, sizes in [
        (4, False, [4, 4, 2]),
        (4, True, [4, 4]),
        (5, True, [5, 5]),
        (64, False, [10]),
        (1, False, [1] * 10),
    ]:
        with diver.DataLoader(DIGITS, batch_size=batch_size, drop_last=drop_last) as loader:
            for _ in range(2):
                assert [len(batch.images) for batch in loader] == sizes
            assert len(loader) == len(sizes) and loader.batch_size == batch_size


def test_without_shuffle_samples_come_in_order() -> None:
    with diver.DataLoader(SHAPES, batch_size=16) as loader:
        assert indices(loader) == indices(loader) == list(range(100))


def test_every_epoch_has_an_order_of_its_own_by_the_seed() -> None:
    def epochs(seed: int) -> list[list[int]]:
        with diver.DataLoader(SHAPES, batch_size=16, shuffle=True, seed=seed) as loader:
            return [indices(loader) for _ in range(3)]

    first = epochs(7)
    assert all(sorted(epoch) == list(range(100)) for epoch in first)
    assert first[0] != first[1] != first[2] != first[0]
    assert epochs(7) == first and epochs(8) != first
    assert epochs(2**64 - 1) != first


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 7}, {"prefetch": 1}, {"prefetch": 50}])
def test_batches_do_not_depend_on_threads_and_prefetch(options: dict[str, Any]) -> None:
    def batches(**options: Any) -> list[Any]:
        with diver.DataLoader(SHAPES, batch_size=9, shuffle=True, seed=3, **options) as loader:
            return [plain(batch) for _ in range(2) for batch in loader]

    assert batches(**options) == batches()


def test_order_does_not_depend_on_the_batch_size() -> None:
    def order(batch_size: int) -> list[int]:
        with diver.DataLoader(SHAPES, batch_size=batch_size, shuffle=True, seed=3) as loader:
            return indices(loader)

    assert order(1) == order(7) == order(100)


@pytest.mark.parametrize(
    ("uneven", "counts"), [("drop", [3, 3, 3]), ("pad", [4, 4, 4]), ("partial", [4, 3, 3])]
)
def test_ranks_share_an_epoch_out(uneven: str, counts: list[int]) -> None:
    def of_rank(rank: int) -> list[int]:
        options = {"rank": rank, "world_size": 3, "uneven": uneven, "shuffle": True, "seed": 1}
        with diver.DataLoader(DIGITS, batch_size=2, **options) as loader:  # type: ignore[arg-type]
            return indices(loader)

    shares = [of_rank(rank) for rank in range(3)]
    assert [len(share) for share in shares] == counts
    together = list(itertools.chain(*shares))
    if uneven == "partial":
        assert sorted(together) == list(range(10))
    elif uneven == "drop":
        assert len(set(together)) == 9
    else:
        assert set(together) == set(range(10))
    with diver.DataLoader(DIGITS, batch_size=2, shuffle=True, seed=1) as loader:
        whole = indices(loader)
    # Rank after rank, the order is that of one process.
    assert [share[0] for share in shares] == whole[:3]


def test_no_sample_is_left_out_unless_told_to(caplog: pytest.LogCaptureFixture) -> None:
    """Ten images of ten classes on four ranks: what is left out is a class that is never seen."""

    def seen(**options: Any) -> set[int]:
        shares = []
        for rank in range(4):
            with diver.DataLoader(DIGITS, rank=rank, world_size=4, **options) as loader:
                shares.append(indices(loader))
        assert len({len(share) for share in shares}) == 1
        return set(itertools.chain(*shares))

    assert seen() == seen(shuffle=True, seed=3) == set(range(10))
    assert "left out" not in caplog.text
    assert seen(uneven="drop") == set(range(8))
    assert caplog.text.count("2 of 10 samples of an epoch are left out") == 1, "rank 0 alone says so"


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some launchers set WORLD_SIZE and not RANK: every process would train on everything, and nobody notice."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"^rank: .*WORLD_SIZE=2 but no RANK"):
        diver.DataLoader(DIGITS)
    monkeypatch.setenv("WORLD_SIZE", "1")
    diver.DataLoader(DIGITS).close()
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(OptionError, match="RANK=0 but no WORLD_SIZE"):
        diver.DataLoader(DIGITS)


def test_the_environment_says_the_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with diver.DataLoader(DIGITS, batch_size=5) as loader:
        assert indices(loader) == [1, 3, 5, 7, 9]
        assert "rank 1 of 2" in repr(loader)
    with diver.DataLoader(DIGITS, batch_size=5, rank=0, world_size=1) as loader:
        assert indices(loader) == list(range(10)), "arguments come before the environment"


@pytest.mark.parametrize(
    ("rank", "world"), [("x", "2"), ("-1", "2"), ("2", "2"), ("0", "0"), ("0", ""), ("9" * 30, "2")]
)
def test_a_bad_environment_is_refused(rank: str, world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(OptionError, match=r"rank|world_size"):
        diver.DataLoader(DIGITS)


# Epochs.


def test_a_loop_that_is_left_ends_its_epoch() -> None:
    with diver.DataLoader(SHAPES, batch_size=10, shuffle=True, seed=5) as loader:
        expected = [indices(loader) for _ in range(3)]
        loader.set_epoch(0)
        for _ in loader:
            break
        assert loader.state_dict()["epoch"] == 0
        assert indices(loader) == expected[1]
        assert indices(loader) == expected[2]


def test_an_iterator_nothing_was_taken_of_leaves_no_trace() -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        iter(loader)
        iter(loader)
        assert loader.state_dict()["epoch"] == 0


def test_a_loader_has_one_iterator_at_a_time() -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        for begin in (
            lambda: iter(loader),
            lambda: loader.set_epoch(1),
            lambda: loader.load_state_dict(loader.state_dict()),
        ):
            stale = iter(loader)
            next(stale)
            begin()
            with pytest.raises(ClosedError, match="one iterator at a time"):
                next(stale)
        loader.set_epoch(0)
        over = iter(loader)
        assert len(list(over)) == 3
        next(iter(loader))
        assert list(over) == [], "an iterator that came to its end stays there"


def test_set_epoch_chooses_and_repeats() -> None:
    with diver.DataLoader(SHAPES, batch_size=10, shuffle=True) as loader:
        first, second = indices(loader), indices(loader)
        for epoch, expected in [(1, second), (0, first), (np.int64(1), second)]:
            loader.set_epoch(epoch)
            assert indices(loader) == expected
        loader.set_epoch(2**62)
        assert sorted(indices(loader)) == list(range(100))


@pytest.mark.parametrize("epoch", [-1, 2**63, 2**70, 1.0, "1", None, True, [1]])
def test_a_bad_epoch_is_refused_and_changes_nothing(epoch: Any) -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        batches = iter(loader)
        next(batches)
        with pytest.raises(OptionError, match="epoch"):
            loader.set_epoch(epoch)
        assert next(batches).indices.tolist() == [4, 5, 6, 7]


def test_a_loader_goes_on_without_end() -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        for _ in range(300):
            assert sum(len(images) for images, _ in loader) == 10
        assert loader.state_dict()["epoch"] == 300


def test_stats_count() -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        list(loader)
        stats = loader.stats()
        counts = {
            "batches",
            "samples",
            "memory_hits",
            "disk_hits",
            "misses",
            "raw_fallbacks",
            "label_hits",
            "taught",
            "refined",
            "skipped",
        }
        assert set(stats) == counts | {"eta_seconds", "refining", "queues", "stages"}
        assert stats["batches"] >= 3 and stats["samples"] >= 10 and stats["misses"] == 0


# Formats and devices.


def test_numpy_batches() -> None:
    with diver.DataLoader(DIGITS, batch_size=4, format="numpy") as loader:
        batch = next(iter(loader))
    assert all(type(array) is np.ndarray and array.dtype == np.float32 for array in batch)
    assert batch.images.flags.writeable and batch.images.flags.c_contiguous
    assert (batch.labels.dtype, batch.indices.dtype, batch.refined.dtype) == (np.int64, np.int64, np.bool_)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), None])
def test_torch_batches(device: Any) -> None:
    with diver.DataLoader(DIGITS, batch_size=4, format="torch", device=device) as loader:
        batch = next(iter(loader))
    assert type(batch.images) is torch.Tensor and batch.images.device.type == "cpu"


def test_another_device() -> None:
    with diver.DataLoader(DIGITS, batch_size=4, device="meta") as loader:
        batch = next(iter(loader))
    assert {t.device.type for t in (*batch, batch.labels, batch.indices, batch.refined)} == {"meta"}
    assert batch.images.shape == (4, 3, 32, 32)


def test_without_torch_batches_are_numpy() -> None:
    program = """
        import sys

        sys.modules["torch"] = None  # As if it were not installed.
        import diver

        with diver.DataLoader(sys.argv[1], batch_size=4) as loader:
            batch = next(iter(loader))
            print(type(batch.images).__module__, batch.labels.dtype)
        try:
            diver.DataLoader(sys.argv[1], format="torch")
        except diver.DiverError as error:
            print(type(error).__name__, error)
    """
    code, out, err = run(program, str(DIGITS))
    assert code == 0, err
    first, second = out.splitlines()
    assert first == "numpy int64"
    assert second.startswith("VersionError") and "install" in second and "numpy" in second
    assert issubclass(VersionError, ImportError)


BAD_DEVICES = ["nowhere", "", "cuda:999", "hpu", 1.5, object(), ["cpu"]]


@pytest.mark.parametrize("device", BAD_DEVICES, ids=[repr(d)[:12] for d in BAD_DEVICES])
def test_a_device_that_is_not_there_is_refused_at_once(device: Any) -> None:
    with pytest.raises(OptionError, match="device"):
        diver.DataLoader(DIGITS, device=device)


def test_numpy_has_no_devices() -> None:
    with pytest.raises(OptionError, match=r"device.*numpy"):
        diver.DataLoader(DIGITS, format="numpy", device="cpu")


# The end.


def test_closing_ends_every_thread_and_every_use() -> None:
    loader = diver.DataLoader(DIGITS, batch_size=4)
    batches = iter(loader)
    kept = next(batches)
    assert threads() and not loader.closed
    loader.close()
    loader.close()
    assert loader.closed and "closed" in repr(loader)
    assert eventually(lambda: not threads())
    state = diver.DataLoader(DIGITS, batch_size=4).state_dict()
    uses: list[Callable[[], Any]] = [
        lambda: iter(loader),
        lambda: next(batches),
        loader.state_dict,
        lambda: loader.load_state_dict(state),
        lambda: loader.set_epoch(1),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="closed"):
            use()
    assert kept.labels.tolist() == [0, 1, 2, 3], "what was taken stays"


def test_a_with_block_closes_also_on_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), diver.DataLoader(DIGITS) as loader:
        1 / 0  # noqa: B018
    assert loader.closed


def test_a_loader_that_is_dropped_closes() -> None:
    loader = diver.DataLoader(DIGITS)
    next(iter(loader))
    del loader
    assert eventually(lambda: not threads())


def test_a_temporary_loader_lives_as_long_as_its_loop() -> None:
    assert sum(len(batch.images) for batch in diver.DataLoader(DIGITS, batch_size=4)) == 10


def test_a_loader_says_what_it_is() -> None:
    with diver.DataLoader(DIGITS, batch_size=4) as loader:
        assert "10 samples" in repr(loader) and "3 batches of 4" in repr(loader)
        assert loader.source.num_samples == 10
        with pytest.raises(OptionTypeError, match="pickle"):
            pickle.dumps(loader)


# Options.

NAN, INFINITE, HUGE = math.nan, math.inf, 2**70

NO_INTEGERS: list[Any] = ["1", None, 1.0, True, b"1", [1], NAN, 1j, np.float64(1), np.array([1, 2]), object()]
INTEGERS = ("batch_size", "threads", "prefetch", "seed", "memory_limit")
WORDS = ("on_miss", "uneven", "format")
BAD_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    *((name, value, OptionTypeError) for name in INTEGERS for value in NO_INTEGERS),
    *((name, value, OptionError) for name in ("batch_size", "threads", "prefetch") for value in (0, -1, HUGE, -HUGE)),
    *((name, value, OptionError) for name in ("seed", "memory_limit") for value in (-1, HUGE, -HUGE)),
    ("seed", 2**64, OptionError),
    ("threads", 2**40, OptionError),
    ("prefetch", 2**40, OptionError),
    *((name, value, OptionTypeError) for name in ("shuffle", "drop_last") for value in (1, 0, None, "yes", 1.0, [])),
    *((name, value, OptionTypeError) for name in WORDS for value in (1, None, b"raw", ["raw"])),
    *((name, value, OptionError) for name in WORDS for value in ("", "RAW", "no such")),
    *(("labels", value, OptionTypeError) for value in ("stored", None, 20, [1.0], diver.labels.stored)),
    *(("augment", value, OptionTypeError) for value in ("dsa", None, diver.augment.CutMix(), {diver.augment.CutMix()})),
    *(("augment", [value], OptionTypeError) for value in (None, "dsa", diver.augment.CutMix, {"cut_mix": {}})),
    ("temperature", 1, OptionTypeError),
    *(("mix", value, OptionError) for value in (-0.1, 1.1, NAN, INFINITE, 0.5, HUGE)),
    *(("mix", value, OptionTypeError) for value in ("half", [0.5], True, object(), {0: 1.0})),
    *(("image_size", value, OptionError) for value in (0, -1, (8,), (8, 8, 8), (), (0, 8), (8, -8), HUGE)),
    *(("image_size", value, OptionTypeError) for value in ("8", 8.0, True, (8, "8"), (8.0, 8), {8, 9}, {8: 9, 9: 8})),
    *(("classes", value, OptionTypeError) for value in (5, [0.5], [None], ["a"], {0: 1}, {1, 2}, [True])),
    *(("classes", value, OptionError) for value in ([], [-1], [HUGE], range(0), "01")),
    ("device", "nowhere", OptionError),
    ("refiner", 5, OptionTypeError),
    ("refiner", b"folder", OptionTypeError),
    ("refiner", [print], OptionTypeError),
    ("cache", "out", OptionError),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    BAD_OPTIONS,
    ids=[f"{name}={str(value)[:12]!r}" for name, value, _ in BAD_OPTIONS],
)
def test_a_bad_option_is_refused_by_name(name: str, value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        diver.DataLoader(DIGITS, **{name: value})
    assert str(caught.value).startswith((f"{name}:", f"{name}[")), caught.value
    assert isinstance(caught.value, (OptionError, ValueError))
    assert isinstance(caught.value, TypeError) == (kind is OptionTypeError)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"world_size": 2},
        {"rank": 2, "world_size": 2},
        {"rank": -1, "world_size": 2},
        {"rank": 0, "world_size": 0},
        {"rank": 0.0, "world_size": 1},
        {"rank": 0, "world_size": "1"},
        {"rank": HUGE, "world_size": HUGE},
    ],
    ids=str,
)
def test_a_bad_rank_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=r"rank|world_size"):
        diver.DataLoader(DIGITS, **options)


def test_an_epoch_without_a_batch_is_refused() -> None:
    with pytest.raises(OptionError, match="there is no batch of"):
        diver.DataLoader(DIGITS, batch_size=11, drop_last=True)
    with pytest.raises(OptionError, match="of 10 samples, none is left for rank 0 of 11: take fewer ranks"):
        diver.DataLoader(DIGITS, rank=0, world_size=11, uneven="drop")


@pytest.mark.parametrize(
    "source", [5, None, 1.5, ["a"], b"examples", object(), torch.zeros(2, 3, 4, 4)], ids=repr
)
def test_a_source_that_is_none_is_refused(source: Any) -> None:
    with pytest.raises(OptionTypeError, match="source"):
        diver.DataLoader(source)


def test_a_source_that_is_not_there_is_said_by_path() -> None:
    with pytest.raises(FileError, match="/no/such/set"):
        diver.DataLoader("/no/such/set")
    with pytest.raises(DataError, match="README"):
        diver.DataLoader("README.md")


def test_unknown_options_and_positional_ones_are_refused() -> None:
    with pytest.raises(
        OptionTypeError, match=r"^batchsize: there is no such option; did you mean batch_size\?"
    ):
        diver.DataLoader(DIGITS, batchsize=2)  # type: ignore[call-arg]
    with pytest.raises(
        OptionTypeError, match=r"^frobnicate: there is no such option; there are refiner, cache"
    ):
        diver.DataLoader(DIGITS, frobnicate=2)  # type: ignore[call-arg]
    for arguments in ((), (DIGITS, 4)):
        with pytest.raises(TypeError):
            diver.DataLoader(*arguments)


# Whoever comes from torch.


@pytest.mark.parametrize("name", list(inspect.signature(torch.utils.data.DataLoader).parameters))
def test_every_option_of_torchs_loader_is_one_or_says_what_stands_in_for_it(name: str) -> None:
    own = inspect.signature(diver.DataLoader).parameters
    assert "source" in own and "batch_size" in own, "help shows the loader's own options"
    if name in own:
        return
    for source in ((), (DIGITS,)):
        with pytest.raises(OptionTypeError, match=f"^{name}: ") as caught:
            diver.DataLoader(*source, **{name: None})
        assert "no such option" not in str(caught.value) and isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("num_workers", "`threads`"),
        ("prefetch_factor", "`prefetch`"),
        ("sampler", "`rank` and `world_size`"),
        ("generator", "`seed`"),
        ("dataset", "`source`"),
    ],
)
def test_what_stands_in_for_an_option_is_named(name: str, said: str) -> None:
    with pytest.raises(OptionTypeError, match=said):
        diver.DataLoader(DIGITS, **{name: None})  # type: ignore[arg-type]


TENSORS = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])


@pytest.mark.parametrize(
    "source",
    [torch.utils.data.TensorDataset(*TENSORS), TENSORS, list(TENSORS)],
    ids=lambda s: type(s).__name__,
)
def test_images_and_labels_are_a_source(source: Any) -> None:
    with diver.DataLoader(source) as loader:
        assert next(iter(loader)).labels.tolist() == [0, 1]


def test_attributes_have_torchs_names_too() -> None:
    with diver.DataLoader(DIGITS, batch_size=4, drop_last=True) as loader:
        assert loader.dataset is loader.source and len(loader.dataset) == 10
        assert loader.batch_size == 4 and loader.drop_last is True


def test_scalars_of_numpy_and_torch_are_numbers() -> None:
    with diver.DataLoader(
        DIGITS,
        batch_size=np.int32(4),
        seed=np.uint64(2**64 - 1),
        threads=np.int8(1),
        prefetch=torch.tensor(2),
        memory_limit=np.int64(10),
        shuffle=np.bool_(True),
        drop_last=np.bool_(False),
        labels=diver.labels.stored(temperature=torch.tensor(2.0)),
        mix=np.float32(0),
        image_size=np.array([16, 16]),
        classes=np.arange(10),
        rank=np.int64(0),
        world_size=np.int64(1),
    ) as loader:
        assert loader.state_dict()["seed"] == 2**64 - 1
        assert sorted(indices(loader)) == list(range(10))


def test_batch_sizes_beyond_the_set_give_one_batch() -> None:
    for batch_size in (10, 11, 2**40, 2**63 - 1):
        with diver.DataLoader(DIGITS, batch_size=batch_size) as loader:
            assert [len(images) for images, _ in loader] == [10]


def test_a_batch_that_no_memory_holds_is_an_error() -> None:
    program = """
        import resource
        from support import *

        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        try:
            next(iter(diver.DataLoader(DIGITS, image_size=200_000, format="numpy")))
        except diver.DiverError as error:
            print("refused")
    """
    assert run(program) == (0, "refused\n", "")


def test_a_loader_that_was_not_made_leaves_no_thread() -> None:
    assert eventually(lambda: not threads())
    for options in ({"labels": 0}, {"mix": 0.5}, {"batch_size": 11, "drop_last": True}, {"uneven": "x"}):
        with pytest.raises(OptionError):
            diver.DataLoader(DIGITS, **options)  # type: ignore[arg-type]
    assert eventually(lambda: not threads())
