"""Tensors stand on the engine's buffers: nothing is copied, nothing is lost, nothing leaks."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import DIGITS, SHAPES, invert, stored

import diver

CPU = (1, 0)


@pytest.fixture
def tensor() -> Any:
    """The engine's own images of a batch, with 4 samples of the digits."""
    with diver.DataLoader(DIGITS, batch_size=4, format="numpy") as loader:
        batch = next(iter(loader))
    assert batch._raw is not None
    return batch._raw.images


def test_tensors_and_arrays_are_views_of_one_buffer() -> None:
    with diver.DataLoader(DIGITS, batch_size=4, format="torch") as loader:
        batch = next(iter(loader))
    assert batch._raw is not None
    for tensor, raw in [(batch.images, batch._raw.images), (batch.targets, batch._raw.targets)]:
        array = np.from_dlpack(raw)
        again = torch.from_dlpack(raw)
        assert array.ctypes.data == tensor.data_ptr() == again.data_ptr()
        assert tuple(raw.shape) == tuple(tensor.shape)
        tensor.fill_(7)
        assert (array == 7).all() and bool((again == 7).all())


def test_batches_that_are_kept_stay_as_they_were() -> None:
    with diver.DataLoader(SHAPES, batch_size=16, shuffle=True, prefetch=2) as loader:
        kept, copies = [], []
        for _ in range(5):
            for batch in loader:
                kept.append(batch)
                copies.append((batch.images.clone(), batch.targets.clone()))
        addresses = {batch.images.data_ptr() for batch in kept}
    assert len(addresses) == len(kept) == 35, "no two share a buffer"
    for (images, targets), (copied_images, copied_targets) in zip(kept, copies, strict=True):
        assert torch.equal(images, copied_images) and torch.equal(targets, copied_targets)


def test_a_list_of_an_epoch_is_the_epoch() -> None:
    with diver.DataLoader(SHAPES, batch_size=16, shuffle=True) as loader:
        apart = [images.clone() for images, _ in loader]
        loader.set_epoch(0)
        together = [images for images, _ in list(loader)]
    assert all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))


@pytest.mark.parametrize("format", ["torch", "numpy"])
def test_tensors_outlive_everything_else(format: str) -> None:
    loader = diver.DataLoader(DIGITS, batch_size=4, format=format)
    batches = list(loader)
    expected = [np.asarray(batch.images).copy() for batch in batches]
    kept = [(batch.images, batch.targets) for batch in batches]
    views = [images[1:, :, ::2] for images, _ in kept]
    loader.close()
    del loader, batches
    gc.collect()
    # Whatever was freed would be used again by this.
    filler = [np.full(4 * 3 * 32 * 32, 9.0, np.float32) for _ in range(50)]
    for (images, targets), view, values in zip(kept, views, expected, strict=True):
        assert (np.asarray(images) == values).all() and (np.asarray(view) == values[1:, :, ::2]).all()
        assert (np.asarray(targets).sum(1) == 1).all()
    assert filler[0][0] == 9


@pytest.mark.parametrize("refiner", [None, invert], ids=["raw", "refined"])
def test_changes_in_place_stay_in_their_batch(refiner: Any) -> None:
    with diver.DataLoader(SHAPES, batch_size=50, refiner=refiner) as loader:
        reference = [(images.clone(), targets.clone()) for images, targets in loader]
        kept = []
        for _ in range(6):
            for (images, targets), expected in zip(loader, reference, strict=True):
                assert torch.equal(images, expected[0]) and torch.equal(targets, expected[1])
                images.mul_(0).sub_(1)
                targets.add_(5)
                kept.append(images)
        assert all(bool((images == -1).all()) for images in kept)
        as_stored = [sample.values.tobytes() for sample in stored(diver.open(SHAPES))]
        assert [sample.values.tobytes() for sample in stored(loader.source)] == as_stored


def test_tensors_may_be_dropped_on_other_threads() -> None:
    with diver.DataLoader(SHAPES, batch_size=10, prefetch=3) as loader:
        expected = [images.clone() for images, _ in loader]
        pile: list[Any] = []
        done = threading.Event()

        def drop() -> None:
            choose = random.Random(1)
            while not done.is_set() or pile:
                if pile:
                    pile.pop(choose.randrange(len(pile)))

        dropping = [threading.Thread(target=drop) for _ in range(2)]
        for thread in dropping:
            thread.start()
        try:
            for _ in range(30):
                for images, values in zip(loader, expected, strict=True):
                    assert torch.equal(images[0], values)
                    pile.append(images[0])
        finally:
            done.set()
            for thread in dropping:
                thread.join()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(work: Callable[[], Any], rounds: int) -> float:
    """Bytes a round, by the slope between the second half and the first."""
    sizes = []
    for _ in range(rounds):
        work()
        sizes.append(resident())
    half = rounds // 2
    return (min(sizes[half:]) - min(sizes[half // 4 : half])) / half


@pytest.mark.parametrize("format", ["torch", "numpy"])
def test_memory_does_not_grow_with_epochs(format: str) -> None:
    with diver.DataLoader(DIGITS, batch_size=4, shuffle=True, format=format) as loader:
        # 12,000 epochs of 3 batches of 49 KB, 1.8 GB in all. Threads and their arenas come and go by some 2 MB; of 150
        # batches a round, one that stayed would be 3 MB.
        assert growth(lambda: [list(loader) for _ in range(50)], rounds=240) < 49_000
    gc.collect()


def test_memory_does_not_grow_with_loaders_and_samples() -> None:
    source = diver.open(DIGITS)

    def work() -> None:
        for _ in range(10):
            with diver.DataLoader(source, batch_size=4, refiner=invert, format="numpy") as loader:
                for batch in loader:
                    _ = (batch.labels, batch.refined)
                loader.load_state_dict(loader.state_dict())
            list(source)

    assert growth(work, rounds=12) < 10 * 20_000


# DLPack, as the array API standard has it.


def test_the_device_is_the_cpu(tensor: Any) -> None:
    assert tuple(tensor.__dlpack_device__()) == CPU


@pytest.mark.parametrize(
    "arguments", [{}, {"max_version": None}, {"max_version": (0, 8)}, {"stream": None}], ids=str
)
def test_who_names_no_version_gets_the_old_capsule(tensor: Any, arguments: dict[str, Any]) -> None:
    assert '"dltensor"' in repr(tensor.__dlpack__(**arguments))


@pytest.mark.parametrize("version", [(1, 0), (1, 1), (2, 5)])
def test_who_names_version_1_gets_the_new_capsule(tensor: Any, version: tuple[int, int]) -> None:
    assert '"dltensor_versioned"' in repr(tensor.__dlpack__(max_version=version))


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_is_consumed_once(tensor: Any, version: Any) -> None:
    capsule = tensor.__dlpack__(max_version=version)
    assert torch.utils.dlpack.from_dlpack(capsule).shape == (4, 3, 32, 32)
    with pytest.raises(RuntimeError, match="once"):
        torch.utils.dlpack.from_dlpack(capsule)


@pytest.mark.parametrize(
    "arguments",
    [
        {"copy": True},
        {"copy": True, "max_version": (1, 0)},
        {"dl_device": (2, 0)},
        {"dl_device": (1, 1)},
        {"dl_device": (99, 0)},
        {"dl_device": "cpu"},
        {"max_version": "1.0"},
        {"max_version": (1,)},
        {"max_version": (-1, 0)},
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(tensor: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises((BufferError, ValueError, TypeError, OverflowError)):
        tensor.__dlpack__(**arguments)


def test_what_it_can_do_is_done(tensor: Any) -> None:
    for arguments in ({"copy": False}, {"copy": None}, {"dl_device": CPU}, {"dl_device": CPU, "copy": False}):
        assert "dltensor" in repr(tensor.__dlpack__(**arguments))
    assert np.from_dlpack(tensor, copy=False, device="cpu").shape == (4, 3, 32, 32)
    with pytest.raises(TypeError):
        tensor.__dlpack__((1, 0))


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_nobody_took_frees_its_memory(version: Any) -> None:
    with diver.DataLoader(SHAPES, batch_size=100, format="numpy", prefetch=1) as loader:

        def work() -> None:
            batch = next(iter(loader))
            assert batch._raw is not None
            for _ in range(20):
                batch._raw.images.__dlpack__(max_version=version)

        assert growth(work, rounds=60) < 100_000, "a batch has 1.2 MB"


def test_arrays_of_tensors_are_writeable_and_row_major(tensor: Any) -> None:
    array = np.from_dlpack(tensor)
    assert array.dtype == np.float32 and array.flags.c_contiguous and array.flags.aligned
    array[0, 0, 0, 0] = 5
    assert torch.from_dlpack(tensor)[0, 0, 0, 0] == 5
    assert "diver" in repr(tensor) and not hasattr(tensor, "__dict__")


def test_the_engine_types_are_not_made_by_hand() -> None:
    from diver import _engine

    for kind in (_engine.Tensor, _engine.Batch, _engine.Source, _engine.Progress, _engine.Mix):
        with pytest.raises(TypeError):
            kind()


def test_tensors_train_a_model() -> None:
    with diver.DataLoader(DIGITS, batch_size=10) as loader:
        images, targets = next(iter(loader))
    weights = torch.zeros(10, 3 * 32 * 32, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(images.flatten(1) @ weights.T, targets)
    loss.backward()
    assert weights.grad is not None and float(weights.grad.abs().sum()) > 0
