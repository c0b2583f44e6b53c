"""What a batch's images are written as, and where: dtypes, memory formats, pinned memory."""

from __future__ import annotations

import gc
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support import DIGITS, SHAPES, eventually, inverter, plain, run, stored

import diver
from diver import _pinned
from diver.errors import OptionError, OptionTypeError

DTYPES = ["float32", "float16", "bfloat16", "uint8"]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
#: Loaders whose batches hold raw images, views, blends, and both kinds beside each other.
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "raw": lambda: {"source": SHAPES},
    "resized": lambda: {"source": SHAPES, "image_size": (24, 20)},
    "views": lambda: {
        "source": SHAPES,
        "augment": [diver.augment.HorizontalFlip(), diver.augment.RandomResizedCrop()],
    },
    "mixed": lambda: {"source": DIGITS, "refiner": inverter(), "mix": 0.5},
    "blended": lambda: {"source": DIGITS, "refiner": inverter(), "mix": 0.5, "mode": "blend"},
}


def batches(**options: Any) -> list[diver.Batch]:
    with diver.DataLoader(batch_size=7, shuffle=True, seed=5, **options) as loader:
        return [batch for _ in range(2) for batch in loader]


def as_torch_does(images: torch.Tensor, dtype: str, source: diver.Source) -> torch.Tensor:
    """Normalised float32 images in another dtype."""
    if dtype != "uint8":
        return images.to(getattr(torch, dtype))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (source.mean, source.std))
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_images_are_converted_as_torch_converts_them(kind: str, dtype: str) -> None:
    options = KINDS[kind]()
    source = options["source"] = diver.open(options["source"])
    expected = batches(**options)
    for (memory_format, torch_format), threads in itertools.product(FORMATS.items(), [1, 4]):
        made = batches(**options, dtype=dtype, memory_format=memory_format, threads=threads)
        assert len(made) == len(expected)
        for batch, reference in zip(made, expected, strict=True):
            converted = as_torch_does(reference.images, dtype, source).to(memory_format=torch_format)
            assert batch.images.dtype == converted.dtype
            assert batch.images.shape == converted.shape
            assert batch.images.stride() == converted.stride()
            assert torch.equal(batch.images, converted)
            assert torch.equal(batch.targets, reference.targets) and batch.targets.dtype == torch.float32
            assert batch.indices.tolist() == reference.indices.tolist()


def test_bytes_are_those_that_are_stored_or_refined() -> None:
    source = diver.open("examples/digits/test.parquet", mean=(0.1, 0.2, 0.3), std=(0.5, 0.01, 0.2))
    values = np.stack([sample.values for sample in stored(source)])
    assert values.dtype == np.uint8
    with diver.DataLoader(source, dtype="uint8", refiner=inverter(), mix=0.5, shuffle=True) as loader:
        batch = next(iter(loader))
    refined = batch.refined.numpy()
    assert refined.any() and not refined.all()
    expected = values[batch.indices.numpy()]
    expected = np.where(refined[:, None, None, None], 255 - expected, expected)
    assert np.array_equal(batch.images.numpy(), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_numpy_arrays_of_every_dtype_that_numpy_has(dtype: str, memory_format: str) -> None:
    options = {"source": SHAPES, "dtype": dtype, "memory_format": memory_format}
    for array, tensor in zip(batches(**options, format="numpy"), batches(**options), strict=True):
        assert type(array.images) is np.ndarray and array.images.dtype == np.dtype(dtype)
        assert array.images.flags.writeable
        assert np.array_equal(array.images, tensor.images.numpy())
        assert array.images.strides == tensor.images.numpy().strides


def test_numpy_has_no_bfloat16() -> None:
    with pytest.raises(OptionError, match="dtype: numpy has no bfloat16"):
        diver.DataLoader(SHAPES, dtype="bfloat16", format="numpy")


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("dtype", "float64", OptionError),
        ("dtype", "half", OptionError),
        ("dtype", torch.float16, OptionTypeError),
        ("dtype", None, OptionTypeError),
        ("memory_format", "nhwc", OptionError),
        ("memory_format", torch.channels_last, OptionTypeError),
        ("pin_memory", "yes", OptionTypeError),
        ("pin_memory", 1, OptionTypeError),
    ],
)
def test_values_that_there_are_not_are_refused(option: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"^{option}: "):
        diver.DataLoader(SHAPES, **{option: value})


# Pinned memory.


@pytest.mark.skipif(torch.cuda.is_available(), reason="memory can be pinned here")
def test_memory_is_not_pinned_without_a_device_to_pin_it_for() -> None:
    with pytest.raises(OptionError, match=r"^pin_memory: .*CUDA"):
        diver.DataLoader(SHAPES, pin_memory=True)


def test_numpy_arrays_are_not_pinned() -> None:
    with pytest.raises(OptionError, match=r"^pin_memory: .*numpy"):
        diver.DataLoader(SHAPES, pin_memory=True, format="numpy")


class Host:
    """Ordinary memory in place of pinned memory, and who asked for it."""

    def __init__(self) -> None:
        #: For each call, whether it came from the thread that trains.
        self.asked: list[bool] = []
        self.sizes: list[int] = []
        #: Numbers of the calls that fail, from 0 on.
        self.fails_at: set[int] = set()
        self._lock = threading.Lock()
        self._here = threading.get_ident()

    def empty(self, size: int) -> torch.Tensor:
        with self._lock:
            self.asked.append(threading.get_ident() == self._here)
            self.sizes.append(size)
            if len(self.asked) - 1 in self.fails_at:
                raise RuntimeError("CUDA error: out of memory")
        return torch.empty(size, dtype=torch.uint8)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host()
    monkeypatch.setattr(_pinned, "check", lambda: None)
    monkeypatch.setattr(_pinned, "empty", host.empty)
    yield host


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_in_pinned_memory(kind: str, host: Host) -> None:
    for dtype, memory_format, threads in itertools.product(DTYPES, FORMATS, [1, 4]):
        options = {**KINDS[kind](), "dtype": dtype, "memory_format": memory_format, "threads": threads}
        expected = batches(**options)
        asked = len(host.asked)
        # All batches are kept: none is written over.
        made = batches(**options, pin_memory=True)
        assert len(host.asked) - asked >= 2 * len(made)
        for batch, reference in zip(made, expected, strict=True):
            assert (
                torch.equal(batch.images, reference.images) and batch.images.dtype == reference.images.dtype
            )
            assert batch.images.stride() == reference.images.stride()
            assert torch.equal(batch.targets, reference.targets)
        places = {batch.images.data_ptr() for batch in made} | {batch.targets.data_ptr() for batch in made}
        assert len(places) == 2 * len(made)


def test_the_engine_asks_for_the_first_batches_alone(host: Host) -> None:
    with diver.DataLoader(SHAPES, batch_size=5, prefetch=3, threads=2, pin_memory=True) as loader:
        batches = sum(1 for _ in range(5) for _ in loader)
    # Of every batch, the consumer brings memory for its targets, and for the images of another.
    assert batches == 100 and host.asked.count(True) == 2 * batches
    assert host.asked.count(False) <= 3 + 2


def test_batches_of_pinned_memory_go_on_to_a_device(host: Host) -> None:
    with diver.DataLoader(SHAPES, batch_size=6, device="meta", pin_memory=True, dtype="float16") as loader:
        batch = next(iter(loader))
    assert {tensor.device.type for tensor in batch} == {"meta"} and host.asked
    assert (batch.images.shape, batch.images.dtype) == ((6, 3, *loader.source.shape[1:]), torch.float16)
    assert batch.indices.is_meta and batch.labels.shape == (6,)


def test_memory_is_given_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[weakref.ref[Any]] = []

    def empty(size: int) -> torch.Tensor:
        memory = host.empty(size)
        given.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr(_pinned, "empty", empty)
    loader = diver.DataLoader(SHAPES, batch_size=5, pin_memory=True)
    # An epoch that is left, and another one: what was made of the first is forgotten.
    next(iter(loader))
    kept = [batch for batch, _ in zip(loader, range(3), strict=False)]
    values = [plain(batch) for batch in kept]
    loader.close()
    assert [plain(batch) for batch in kept] == values, "a batch outlives its loader"
    del kept
    gc.collect()
    assert eventually(lambda: all(memory() is None for memory in given))


def test_memory_that_is_not_there_fails_one_batch(host: Host) -> None:
    host.fails_at = {1}
    with diver.DataLoader(SHAPES, batch_size=5, pin_memory=True, threads=1, prefetch=1) as loader:
        epoch = iter(loader)
        outcomes = []
        for _ in range(len(loader)):
            try:
                outcomes.append(next(epoch).images.shape[0])
            except OptionError as error:
                assert "pin_memory" in str(error) and "out of memory" in str(error)
                outcomes.append(0)
    assert outcomes.count(0) <= 1 and len(outcomes) == len(loader)


def test_no_thread_waits_for_one_that_waits_for_it() -> None:
    """Ten loaders whose threads ask Python for memory, while Python waits for them, leaves epochs and closes them."""
    program = """
        import sys, threading
        import torch
        import diver
        from diver import _pinned

        _pinned.check = lambda: None
        _pinned.empty = lambda size: torch.empty(size, dtype=torch.uint8)
        sys.setswitchinterval(1e-5)
        total = 0

        def stream(number):
            global total
            for round in range(3):
                loader = diver.DataLoader(
                    sys.argv[1], batch_size=3, threads=4, prefetch=8, pin_memory=True, seed=number
                )
                for at, batch in enumerate(loader):
                    total += len(batch.images)
                    if at == 5 * round:
                        break
                for batch in loader:
                    total += len(batch.images)
                if round != 1:
                    loader.close()

        threads = [threading.Thread(target=stream, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print("done")
    """
    code, out, err = run(program, str(SHAPES), timeout=100)
    assert (code, out) == (0, "done\n"), err


# Images that stay on a device.

RESIDENT: dict[str, Callable[[], dict[str, Any]]] = {
    "raw": lambda: {"source": SHAPES},
    "resized": lambda: {"source": SHAPES, "image_size": (24, 20)},
    "refined": lambda: {"source": DIGITS, "refiner": inverter()},
    "mixed": lambda: {
        "source": DIGITS,
        "refiner": inverter(),
        "mix": diver.mix.linear(0, 1, epochs=4),
        "variants": 2,
    },
    "both": lambda: {"source": DIGITS, "refiner": inverter(), "mode": "both"},
}


@pytest.mark.parametrize("kind", RESIDENT)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_images_that_stay_are_those_of_the_engine(kind: str, dtype: str, memory_format: str) -> None:
    options = {**RESIDENT[kind](), "dtype": dtype, "memory_format": memory_format}
    options |= {"batch_size": 4, "shuffle": True, "seed": 3, "prefetch": 2}
    with diver.DataLoader(**options) as plain, diver.DataLoader(**options, resident="cpu") as loader:
        for epoch in range(9):
            held = []
            for batch, expected in zip(loader, plain, strict=True):
                assert torch.equal(batch.images, expected.images)
                assert batch.images.dtype == expected.images.dtype
                assert batch.images.stride() == expected.images.stride()
                assert torch.equal(batch.targets, expected.targets)
                for name in ("labels", "indices", "refined"):
                    assert getattr(batch, name).tolist() == getattr(expected, name).tolist()
                held.append(batch._raw.is_held)
                # What a program does with its batch does not reach those that stay.
                batch.images.zero_()
            assert epoch != 0 or not any(held)
        assert all(held)


def test_images_stay_while_they_come_raw_for_want_of_refined_ones() -> None:
    source = diver.open(DIGITS)
    with diver.DataLoader(source, refiner=inverter(), on_miss="raw", batch_size=4, resident="cpu") as loader:
        assert eventually(lambda: all(batch.refined.all() for batch in loader))
        for batch in loader:
            expected = 255 - (source.pixels(batch.indices.tolist()) * 255).round()
            mean, std = (
                np.array(values, np.float32).reshape(3, 1, 1) for values in (source.mean, source.std)
            )
            np.testing.assert_allclose(batch.images.numpy() * std + mean, expected / 255, atol=1e-5)


def test_images_that_stay_come_by_way_of_pinned_memory(host: Host) -> None:
    options: dict[str, Any] = {"source": SHAPES, "batch_size": 5, "shuffle": True}
    with (
        diver.DataLoader(**options) as plain,
        diver.DataLoader(**options, resident="cpu", pin_memory=True) as loader,
    ):
        for _ in range(3):
            for batch, expected in zip(loader, plain, strict=True):
                assert torch.equal(batch.images, expected.images)
        # Targets, and where the images are, take a few bytes.
        large = [size for size in host.sizes if size > 4096]
        for batch, expected in zip(loader, plain, strict=True):
            assert torch.equal(batch.images, expected.images)
        assert [size for size in host.sizes if size > 4096] == large


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"augment": [diver.augment.HorizontalFlip()]}, "augment"),
        ({"refiner": inverter(), "mode": "blend", "mix": 0.5}, "mode"),
        (
            {"labels": diver.labels.teacher(lambda images: np.zeros((len(images), 10)), fingerprint=None)},
            "teacher",
        ),
        ({"format": "numpy"}, "numpy"),
        ({"resident": "nowhere"}, "nowhere"),
        ({"resident": 1.5}, "1.5"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_images_that_cannot_stay_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=rf"^resident: .*{named}"):
        diver.DataLoader(DIGITS, **{"resident": "cpu", **options})


def test_there_is_one_device() -> None:
    with pytest.raises(OptionError, match=r"^device: .*resident"):
        diver.DataLoader(DIGITS, resident="cpu", device="cpu")


def test_a_set_that_does_not_fit_a_device_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^resident: .*bytes"):
        diver.DataLoader(
            DIGITS, image_size=16384, resident="cpu", memory_limit=2**50, variants=1024, refiner=inverter()
        )


# On a CUDA device, where there is one.

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@needs_cuda
def test_memory_is_pinned() -> None:
    with diver.DataLoader(SHAPES, batch_size=8, pin_memory=True, memory_format="channels_last") as loader:
        for batch in loader:
            assert batch.images.is_pinned() and batch.targets.is_pinned()
            assert batch.images.is_contiguous(memory_format=torch.channels_last)


@needs_cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("place", ["device", "resident"])
def test_batches_on_a_device_are_those_of_the_engine(dtype: str, memory_format: str, place: str) -> None:
    options: dict[str, Any] = {"source": SHAPES, "batch_size": 8, "shuffle": True, "image_size": 128}
    options |= {"dtype": dtype, "memory_format": memory_format}
    found = []
    with diver.DataLoader(**options) as plain, diver.DataLoader(**options, **{place: "cuda"}) as loader:
        expected = [batch for _ in range(4) for batch in plain]
        # The device is late, and batches are dropped before their copies are over.
        for _ in range(4):
            for images, targets in loader:
                torch.cuda._sleep(10_000_000)
                found.append((images.clone(), targets.clone(), images.stride()))
    for (images, targets, stride), batch in zip(found, expected, strict=True):
        assert images.device.type == targets.device.type == "cuda" and stride == batch.images.stride()
        assert torch.equal(images.cpu(), batch.images) and torch.equal(targets.cpu(), batch.targets)
