"""The refiner as a Python object: tensors of all kinds in, errors by name, Ctrl-C, threads, forks, ends."""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from support import stored

import diver
from diver.errors import (
    ClosedError,
    DataError,
    DiverError,
    OptionError,
    OptionTypeError,
    RefineError,
    VersionError,
)
from diver.refiners import Adapter, Fleet, check
from diver_refiner import Refiner

FAST: dict[str, Any] = {"steps": 4}
#: Long enough to be interrupted; a step of the tiny network takes some milliseconds.
LONG: dict[str, Any] = {"steps": 1000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def shared(folder: Path) -> Refiner:
    """A refiner for tests that leave it as it is."""
    return Refiner.from_pretrained(folder, device="cpu", **FAST)


@pytest.fixture
def refiner(folder: Path) -> Iterator[Refiner]:
    with Refiner.from_pretrained(folder, device="cpu", **FAST) as refiner:
        yield refiner


def images(count: int = 2, side: int = 16) -> torch.Tensor:
    values = torch.arange(count * 3 * side * side, dtype=torch.float32)
    return (values * 0.01).sin().abs().reshape(count, 3, side, side)


def keys(count: int) -> tuple[bytes, ...]:
    return tuple(bytes([i + 1]) * 32 for i in range(count))


# What it says of itself.


def test_attributes(shared: Refiner) -> None:
    assert (shared.num_classes, shared.resolution, shared.preferred_batch) == (10, 16, 32)
    assert shared.device == torch.device("cpu") and shared.dtype == torch.float32
    assert shared.knobs == {
        "mode": "full",
        "steps": 4,
        "t_f": 2,
        "window": (3, 2),
        "gamma": 0.1,
        "cfg_scale": 4.0,
        "cfg_channels": 3,
        "sigma": "posterior",
        "chain": "dit",
        "start": "t_r",
        "window_ends": "closed",
        "gradient": "latent",
        "solver": "euler",
        "grid": "uniform",
        "mapping": "snr",
        "flow_start": "vp",
        "refine_seed": 0,
    }
    assert repr(shared) == "<Refiner of 10 classes at 16 x 16 on cpu, float32, mode full, 4 steps>"
    assert diver.Refiner is Refiner


def test_fingerprint(folder: Path, shared: Refiner) -> None:
    fingerprint = shared.fingerprint
    assert fingerprint["refiner"] == "diver" and fingerprint["dtype"] == "f32"
    assert fingerprint["knobs"]["window"] == [3, 2] and fingerprint["refine_seed"] == 0
    assert len(bytes.fromhex(fingerprint["backbone"])) == 32
    fingerprint.clear()
    assert shared.fingerprint, "a caller's copy is its own"
    with Refiner.from_pretrained(folder, device="cpu", **FAST, refine_seed=2**64 - 1) as other:
        assert other.fingerprint == shared.fingerprint | {"refine_seed": 2**64 - 1}


def test_numbers_are_kept_to_the_last_bit(folder: Path) -> None:
    gamma = 0.1 + 0.2
    with Refiner.from_pretrained(folder, device="cpu", gamma=gamma, cfg_scale=1 / 3) as refiner:
        assert refiner.knobs["gamma"] == gamma == refiner.fingerprint["knobs"]["gamma"]
        assert refiner.knobs["cfg_scale"] == 1 / 3


def test_presets(folder: Path) -> None:
    def gamma(**options: Any) -> float:
        with Refiner.from_pretrained(folder, device="cpu", **options) as refiner:
            return float(refiner.knobs["gamma"])

    assert gamma(preset="ncfm") == 0.02
    assert gamma(preset="mtt") == 0.1
    assert gamma(preset="ncfm", gamma=0.5) == 0.5


def test_a_presets_window_scales_with_the_steps(folder: Path) -> None:
    with Refiner.from_pretrained(folder, device="cpu", preset="small_latents", steps=20) as refiner:
        assert tuple(refiner.knobs["window"]) == (12, 5)


def test_names_of_devices_and_dtypes(folder: Path) -> None:
    dtypes: dict[str | torch.dtype, str] = {
        "auto": "f32",
        "f32": "f32",
        "float32": "f32",
        torch.float32: "f32",
        "bf16": "bf16",
        "bfloat16": "bf16",
        torch.bfloat16: "bf16",
    }
    for dtype, name in dtypes.items():
        with Refiner.from_pretrained(str(folder), device=torch.device("cpu", 0), dtype=dtype) as refiner:
            assert refiner.dtype == (torch.float32 if name == "f32" else torch.bfloat16)
            assert refiner.fingerprint["dtype"] == name


def test_home_is_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    Refiner.from_pretrained(f"~/{folder.name}", device="cpu").close()


def test_from_command_line_options(folder: Path, shared: Refiner) -> None:
    options = {
        "backbone": str(folder),
        "device": "cpu",
        "dtype": "auto",
        "batch_size": 7,
        "knobs": {"steps": 4},
    }
    refiner = Refiner._from_args(json.dumps(options))
    assert refiner.fingerprint == shared.fingerprint and refiner.preferred_batch == 7
    z0 = refiner.encode(images())
    # Scaled from the steps that were given, as for any other refiner.
    assert refiner.sample_latents(z0, [1, 2], steps=6).equal(shared.sample_latents(z0, [1, 2], steps=6))


# Stages, seeds and settings.


def test_refine_is_its_stages(shared: Refiner) -> None:
    x, y = images(side=12), [3, 9]
    refined = shared.refine(x, y, keys=keys(2))
    assert refined.shape == (2, 3, 16, 16) and refined.dtype == torch.float32 and not refined.requires_grad
    assert 0 <= float(refined.min()) < float(refined.max()) <= 1
    z0 = shared.encode(x)
    assert z0.shape == (2, 4, 8, 8)
    assert not shared.decode(shared.sample_latents(z0, y)).equal(refined), "its noise is that of the latents"
    # With the bare autoencoder there is no noise in it.
    vae = shared.refine(x, y, mode="vae")
    assert shared.sample_latents(z0, y, mode="vae").equal(z0)
    assert vae.allclose(shared.decode(z0), atol=1e-5) and not vae.allclose(refined, atol=1e-2)


def test_latents_of_mode_vae_are_a_copy(shared: Refiner) -> None:
    z0 = torch.ones(1, 4, 8, 8)
    z = shared.sample_latents(z0, [0], mode="vae")
    z0.zero_()
    assert z.equal(torch.ones(1, 4, 8, 8))


def test_noise_follows_seed_and_key(shared: Refiner) -> None:
    x, y = images(), [1, 2]
    first = shared.refine(x, y, keys=keys(2))
    assert shared.refine(x, y, keys=[key.hex() for key in keys(2)]).equal(first)
    assert shared.refine(x, y, keys=list(keys(2)), seed=0).equal(first)
    assert not shared.refine(x, y, keys=keys(2), seed=1).equal(first)
    assert not shared.refine(x, y, keys=keys(2)[::-1]).equal(first)
    # Keys belong to images, not to places.
    turned = shared.refine(x.flip(0), y[::-1], keys=keys(2)[::-1]).flip(0)
    assert (turned - first).abs().max() < 1e-4
    z0 = shared.encode(x)
    drawn = shared.sample_latents(z0, y)
    assert shared.sample_latents(z0, y, seed=0).equal(drawn)
    assert not shared.sample_latents(z0, y, seed=2**64 - 1).equal(drawn)
    assert (shared.sample_latents(z0[1:], y[1:]) - drawn[1:]).abs().max() < 1e-4 * drawn.abs().max()


def test_noise_follows_the_variant(shared: Refiner) -> None:
    x, y, same = images(1).expand(4, -1, -1, -1), [1] * 4, keys(1) * 4
    variants = np.array([0, 1, 2**32 - 1, 1])
    z0 = shared.encode(x)
    adapter = Adapter(Fleet([shared, shared]))
    for refined in (
        shared.refine(x, y, keys=same, variants=variants),
        shared.refine(x, y, variants=torch.from_numpy(variants)),
        shared.sample_latents(z0, y, keys=same, variants=variants.astype(np.uint32)),
        shared.sample_latents(z0, y, variants=variants.tolist()),
        torch.from_numpy(shared(x, y, same, variants=variants)).float() / 255,
        torch.from_numpy(adapter.call(x.numpy(), np.array(y), same, variants, None, None)).float() / 255,
    ):
        apart = [float((refined[a] - refined[b]).abs().max()) for a, b in ((1, 3), (0, 1), (0, 2), (1, 2))]
        assert apart[0] < 0.005 and min(apart[1:]) > 0.02, apart
    zeros = [0] * 4
    assert shared.refine(x, y, keys=same, variants=zeros).equal(shared.refine(x, y, keys=same))
    assert shared.sample_latents(z0, y, variants=zeros).equal(shared.sample_latents(z0, y))
    assert np.array_equal(shared(x, y, same, variants=zeros), shared(x, y, same))


def normals(hashed: bytes, count: int) -> list[float]:
    """Steps 3 to 5 of `src/method/noise.rs`, from the hash of step 2."""
    h0, h1, h2, h3 = struct.unpack("<4I", hashed)
    low = 2**32 - 1
    values = []
    for block in range(count // 2):
        x0, x1, x2, x3 = block, 0, h2, h3
        for turn in range(10):
            a, b = 0xD2511F53 * x0, 0xCD9E8D57 * x2
            key0, key1 = h0 + turn * 0x9E3779B9 & low, h1 + turn * 0xBB67AE85 & low
            x0, x1, x2, x3 = b >> 32 ^ x1 ^ key0, b & low, a >> 32 ^ x3 ^ key1, a & low
        u, v = ((x1 << 32 | x0) >> 11) + 1, (x3 << 32 | x2) >> 11
        radius, angle = math.sqrt(-2 * math.log(u / 2**53)), math.tau * v / 2**53
        values += [radius * math.cos(angle), radius * math.sin(angle)]
    return values


@pytest.mark.parametrize(
    ("seed", "variant", "hashed", "first"),
    [
        (0, 0, "2251de301bcdbf3547d7cbec9d2d3e90", [0xBF499644, 0x3FCF29A5, 0xBF91205D]),
        (2**64 - 1, 3, "4b6b9657d25bed99831dc66e6dca8377", [0x3FCF6559, 0x3FCF1B48, 0xBEB8D243]),
    ],
)
def test_noise_has_known_answers(
    shared: Refiner, seed: int, variant: int, hashed: str, first: list[int]
) -> None:
    """The streams of `whole_streams_have_known_answers` in `src/method/noise.rs`."""
    noise = torch.tensor(normals(bytes.fromhex(hashed), 256)).reshape(1, 4, 8, 8)
    assert noise.numpy().view(np.uint32).flatten()[:3].tolist() == first
    abc = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
    z0 = shared.encode(images(1))
    drawn = shared.sample_latents(z0, [1], keys=[abc], variants=[variant], seed=seed)
    torch.testing.assert_close(drawn, shared.sample_latents(z0, [1], noise), rtol=1e-5, atol=1e-5)


def test_the_refiners_seed_is_the_default(folder: Path, shared: Refiner) -> None:
    x, y = images(), [1, 2]
    with Refiner.from_pretrained(folder, device="cpu", **FAST, refine_seed=5) as other:
        assert other.knobs["refine_seed"] == 5
        assert other.refine(x, y).equal(shared.refine(x, y, seed=5))
        assert other.refine(x, y, seed=0).equal(shared.refine(x, y))


def test_default_keys_are_the_digests_of_samples(shared: Refiner, tmp_path: Path) -> None:
    """As the engine has them for a set that stores these values."""
    x, y = images(), torch.tensor([4, 5])
    torch.save({"data": [[x, y]]}, tmp_path / "res_DM_CIFAR10_ConvNet_1ipc.pt")
    source = diver.open(tmp_path / "res_DM_CIFAR10_ConvNet_1ipc.pt", dataset="cifar10")
    digests = [source.sample(index).digest for index in range(len(source))]
    assert shared.refine(x, y).equal(shared.refine(x, y, keys=digests))


@pytest.mark.parametrize("classes", [None, [7, 3, 1, 0, 2, 4, 5, 6, 8, 9]])
def test_by_hand_stage_by_stage_images_are_the_loaders(shared: Refiner, classes: list[int] | None) -> None:
    """As the documentation of `Refiner` has it."""
    source = diver.open("examples/digits/dm_ipc1", classes=classes)
    samples = [source.sample(index) for index in range(8)]
    labels = [source.class_map[s.label] if source.class_map else s.label for s in samples]
    z0 = shared.encode(source.pixels(range(8)))
    z = shared.sample_latents(z0, labels, keys=[s.digest for s in samples])
    refined = shared.decode(z)
    with diver.DataLoader(source, refiner=shared, batch_size=8, image_size=16) as loader:
        batch = next(iter(loader))
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (source.mean, source.std))
    # Rounded to bytes on their way.
    assert (batch.images * std + mean - refined).abs().max() < 0.6 / 255


def test_settings_of_a_call(folder: Path, shared: Refiner) -> None:
    x, y = images(), [1, 2]
    own = shared.refine(x, y)
    other = shared.refine(x, y, gamma=3.0, window=(4, 1), sigma="marginal")
    assert not other.equal(own)
    assert shared.knobs["gamma"] == 0.1 and shared.refine(x, y).equal(own), "for that call alone"
    with Refiner.from_pretrained(
        folder, device="cpu", steps=np.int64(4), gamma=np.float32(3.0), window=[4, 1], sigma="marginal"
    ) as same:
        assert same.refine(x, y).equal(other)
        # What was scaled is scaled again; what was given stays.
        assert same.refine(x, y, window=(3, 2), gamma=0.1, sigma="posterior").equal(own)
    with Refiner.from_pretrained(folder, device="cpu", steps=20) as scaled:
        assert scaled.refine(x, y, steps=4).equal(own)
    with Refiner.from_pretrained(folder, device="cpu", steps=20, t_f=10, window=(16, 10)) as given:
        with pytest.raises(OptionError, match="t_f: 10 is not a step from 1 to 4"):
            given.refine(x, y, steps=4)
        assert given.refine(x, y, steps=4, t_f=2, window=(3, 2)).equal(own)


def test_batches_go_through_in_parts(folder: Path) -> None:
    x, y = images(5), [0, 3, 3, 9, 1]
    with Refiner.from_pretrained(folder, device="cpu", **FAST) as whole:
        at_once = whole.refine(x, y)
    with Refiner.from_pretrained(folder, device="cpu", **FAST, batch_size=2) as parts:
        assert parts.preferred_batch == 2
        assert (parts.refine(x, y) - at_once).abs().max() < 1e-4


def test_a_released_refiner_refines_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A relative path stays the same folder.
    monkeypatch.chdir(folder.parent)
    with Refiner.from_pretrained(folder.name, device="cpu", **FAST) as refiner:
        before = refiner.refine(images(), [0, 1])
        refiner.release()
        monkeypatch.chdir("/")
        assert refiner.refine(images(), [0, 1]).equal(before)
        refiner.release()
        refiner.release()
    refiner.release()  # There is nothing left to give back.


# As the engine calls it.


@pytest.mark.parametrize("options", [{}, {"mode": "vae"}, {"batch_size": 2}, {"dtype": "bf16"}])
def test_bytes_are_rounded_images(folder: Path, options: dict[str, Any]) -> None:
    x, y = images(3, side=12), np.array([1, 2, 3])
    with Refiner.from_pretrained(folder, device="cpu", steps=10, **options) as refiner:
        found = refiner(x.numpy(), y, keys(3))
        assert isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.shape == (3, 3, 16, 16)
        expected = (refiner.refine(x, y, keys=keys(3)) * 255).round().to(torch.uint8).numpy()
        assert np.array_equal(found, expected)


def test_it_conforms(folder: Path) -> None:
    with Refiner.from_pretrained(folder, device="cpu", steps=10) as refiner:
        check(refiner, side=16, classes=range(10))
        check(refiner, side=12, classes=range(10))


def test_progress_is_heard_and_its_exceptions_end_the_call(refiner: Refiner) -> None:
    heard: list[tuple[int, int]] = []
    x, y = images().numpy(), np.array([1, 2])
    refiner(x, y, keys(2), progress=lambda done, total: heard.append((done, total)))
    assert heard == [(2, 8), (4, 8), (6, 8), (8, 8)]

    class OfTheCallers(Exception):
        pass

    def fail(_done: int, _total: int) -> None:
        raise OfTheCallers

    with pytest.raises(OfTheCallers):
        refiner(x, y, keys(2), progress=fail)
    refiner(x, y, keys(2))


class Cancel:
    def __init__(self) -> None:
        self.cancelled = False

    def is_cancelled(self) -> bool:
        return self.cancelled


def test_cancelling_ends_a_call(folder: Path) -> None:
    x, y, cancel = images(16).numpy(), np.ones(16, np.int64), Cancel()
    with Refiner.from_pretrained(folder, device="cpu", **LONG) as refiner:
        started = threading.Event()
        cancelled_at: list[float] = []

        def stop() -> None:
            started.wait(10)
            cancelled_at.append(time.monotonic())
            cancel.cancelled = True

        stopper = threading.Thread(target=stop)
        stopper.start()
        with pytest.raises(ClosedError, match=r"^cancelled$"):
            refiner(x, y, keys(16), cancel=cancel, progress=lambda _done, _total: started.set())
        assert time.monotonic() - cancelled_at[0] < 0.3
        stopper.join()
        with pytest.raises(ClosedError, match=r"^cancelled$"):
            refiner(x, y, keys(16), cancel=cancel)
        # The thread is free again.
        before = time.monotonic()
        refiner.encode(x)
        assert time.monotonic() - before < 1


# Tensors of all kinds.


class OnlyDlpack:
    """A tensor of a library that torch knows nothing of."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def read_only(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array.flags.writeable = False
    return array


KINDS: dict[str, Callable[[torch.Tensor], Any]] = {
    "numpy": lambda x: x.numpy(),
    "numpy of float64": lambda x: x.double().numpy(),
    "numpy, longdouble": lambda x: x.numpy().astype(np.longdouble),
    "numpy, big-endian": lambda x: x.numpy().astype(">f4"),
    "numpy, backwards": lambda x: np.ascontiguousarray(x.numpy()[::-1, :, ::-1])[::-1, :, ::-1],
    "numpy, read-only": lambda x: read_only(x.numpy().copy()),
    "float64": lambda x: x.double(),
    "not contiguous": lambda x: x.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "every other": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "negated lazily": lambda x: torch.complex(x, -x).conj().imag,
    "with a graph": lambda x: x.clone().requires_grad_() * 1.0,
    "a parameter": lambda x: torch.nn.Parameter(x),
    "DLPack alone": OnlyDlpack,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_all_kinds(shared: Refiner, kind: str) -> None:
    convert, x = KINDS[kind], images()
    assert kind != "not contiguous" or not convert(x).is_contiguous()
    z0 = shared.encode(x)
    found = shared.encode(convert(x))
    assert type(found) is torch.Tensor and found.grad_fn is None and found.equal(z0)
    z = shared.sample_latents(z0, [1, 2], z0)
    assert shared.sample_latents(convert(z0), [1, 2], convert(z0)).equal(z)
    assert shared.decode(convert(z)).equal(shared.decode(z))
    assert shared.refine(convert(x), [1, 2]).equal(shared.refine(x, [1, 2]))


def test_half_precision_is_taken(shared: Refiner) -> None:
    half = images().half()
    assert shared.encode(half).equal(shared.encode(half.float()))
    assert shared.encode(half.numpy()).equal(shared.encode(half.float()))
    assert shared.encode(images().bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    "labels",
    [
        (1, 2),
        np.array([1, 2], dtype=np.uint8),
        np.array([1, 2], dtype=">i2"),
        torch.tensor([1, 2]),
        torch.tensor([1, 9, 2], dtype=torch.int16)[::2],
        [torch.tensor(1), np.int32(2)],
        OnlyDlpack(torch.tensor([1, 2])),
        range(1, 3),
    ],
    ids=str,
)
def test_labels_of_all_kinds(shared: Refiner, labels: Any) -> None:
    assert shared.refine(images(), labels).equal(shared.refine(images(), [1, 2]))


def test_results_outlive_the_refiner(folder: Path) -> None:
    refiner = Refiner.from_pretrained(folder, device="cpu", **FAST)
    z0, pixels = refiner.encode(images()), refiner(images().numpy(), [1, 2], keys(2))
    again = z0.clone(), pixels.copy()
    refiner.close()
    del refiner
    gc.collect()
    images(64)  # Memory that was freed would be taken by now.
    assert z0.equal(again[0]) and np.array_equal(pixels, again[1])
    z0 += 1
    pixels += 1


def test_the_callers_tensors_stay_as_they_are(shared: Refiner) -> None:
    x, z0 = images(), torch.ones(2, 4, 8, 8)
    shared.refine(x, [1, 2])
    shared.sample_latents(z0, [1, 2], z0)
    assert x.equal(images()) and z0.equal(torch.ones(2, 4, 8, 8))


def test_inputs_are_let_go(shared: Refiner) -> None:
    array = images().numpy()
    before = sys.getrefcount(array)
    for _ in range(3):
        shared.encode(array)
        shared(array, [1, 2], keys(2))
    gc.collect()
    assert sys.getrefcount(array) == before


# Arguments that are wrong.

NAN = images().index_fill(0, torch.tensor([1]), math.nan)
WRONG_TYPES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda r: r.encode((images() * 255).byte()), "images: floats are expected, not uint8; divide by 255"),
    (lambda r: r.encode(np.zeros((1, 3, 16, 16), int)), "images: floats are expected, not int64"),
    (
        lambda r: r.encode(torch.zeros(1, 3, 16, 16, dtype=torch.complex64)),
        "images: floats are expected, not complex64",
    ),
    (
        lambda r: r.encode(np.array(["a"])),
        "images: a tensor or array of floats is expected, not an array of <U1",
    ),
    (lambda r: r.encode([[0.5]]), "images: a tensor or array of floats is expected, not list"),
    (lambda r: r.refine(None, [1]), "images: a tensor or array of floats is expected, not NoneType"),
    (lambda r: r.refine(images(), [1.0, 2.0]), r"labels\[0\]: an integer is expected, not float"),
    (lambda r: r.refine(images(), np.array([1.0, 2.0])), "labels: integers are expected, not float64"),
    (
        lambda r: r(images().numpy(), torch.tensor([1.0, 2.0]), keys(2)),
        "labels: integers are expected, not float32",
    ),
    (lambda r: r.refine(images(), torch.tensor([True, False])), "labels: integers are expected, not bool"),
    (lambda r: r.refine(images(), [True, 1]), r"labels\[0\]: an integer is expected, not bool"),
    (lambda r: r.refine(images(), 1), "labels: a sequence of integers is expected, not int"),
    (lambda r: r.refine(images(), "12"), "labels: a sequence of integers is expected, not str"),
    (lambda r: r.refine(images(), [1, 2], seed="1"), "seed: an integer is expected, not str"),
    (
        lambda r: r.refine(images(), [1, 2], keys=[1, 2]),
        r"keys\[0\]: 32 bytes or 64 hex digits is expected, not int",
    ),
    (
        lambda r: r.refine(images(), [1, 2], variants=1),
        "variants: a sequence of integers is expected, not int",
    ),
    (
        lambda r: r.sample_latents(torch.zeros(1, 4, 8, 8), [1], variants=np.array([1.0])),
        "variants: integers are expected, not float64",
    ),
    (lambda r: r(images().numpy(), [1, 2], b"a" * 64), "keys: a sequence of digests is expected, not bytes"),
    (
        lambda r: r(images().numpy(), [1, 2], keys(2), cancel=1),
        r"cancel: an object with is_cancelled\(\) is expected, not int",
    ),
    (lambda r: r(images().numpy(), [1, 2], keys(2), progress=1), "progress: a callable is expected, not int"),
]

WRONG_VALUES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda r: r.encode(images()[0]), r"images: a shape \[3, 16, 16\] was given, \[B, 3, H, W\] is expected"),
    (lambda r: r.refine(images()[:, :1], [1, 2]), r"images: a shape \[2, 1, 16, 16\] was given"),
    (lambda r: r.encode(images()[:0]), r"images: a shape \[0, 3, 16, 16\] was given"),
    (lambda r: r.encode(images()[..., :0]), r"images: a shape \[2, 3, 16, 0\] was given"),
    (lambda r: r.refine(images() * 2, [1, 2]), "images: image 0 has a value .*, outside"),
    (lambda r: r.encode(NAN), "images: image 1 has a value nan, outside"),
    (lambda r: r(NAN.numpy(), [1, 2], keys(2)), "images: image 1 has a value nan, outside"),
    (lambda r: r.encode(images().to_sparse()), "images: a dense tensor with values is expected"),
    (lambda r: r.encode(images().to("meta")), "images: a dense tensor with values is expected"),
    (lambda r: r.encode(OnlyDlpack(images().to_sparse())), "images: torch cannot take it over"),
    (
        lambda r: r.decode(torch.zeros(1, 3, 8, 8)),
        r"z: a shape \[1, 3, 8, 8\] was given, \[B, 4, 8, 8\] is expected",
    ),
    (lambda r: r.decode(torch.full((1, 4, 8, 8), math.inf)), "z: it has values that are not finite"),
    (lambda r: r.sample_latents(torch.zeros(1, 4, 4, 4), [1]), r"z0: a shape \[1, 4, 4, 4\]"),
    (
        lambda r: r.sample_latents(torch.zeros(2, 4, 8, 8), [1, 2], torch.zeros(1, 4, 8, 8)),
        "noise: 1 rows were given for 2 latents",
    ),
    (
        lambda r: r.sample_latents(torch.zeros(1, 4, 8, 8), [1], torch.zeros(1, 4, 8, 8), seed=1),
        "seed: noise was given too",
    ),
    (lambda r: r.refine(images(), [1]), "labels: 1 were given for 2 images"),
    (lambda r: r.sample_latents(torch.zeros(1, 4, 8, 8), [1, 2]), "labels: 2 were given for 1 latents"),
    (
        lambda r: r.refine(images(), [1, 10], mode="vae"),
        r"labels: 10 \(at position 1\) is no class of the backbone, which knows 0 to 9",
    ),
    (lambda r: r.refine(images(), torch.tensor([-1, 1])), r"labels: -1 \(at position 0\)"),
    (lambda r: r.refine(images(), [1, 2**70]), "labels"),
    (
        lambda r: r.refine(images(), torch.tensor([[1, 2]])),
        r"labels: a shape \[1, 2\] was given, \[2\] is expected",
    ),
    (lambda r: r.refine(images(), [1, 2], seed=-1), "seed: -1 must be at least 0"),
    (lambda r: r.refine(images(), [1, 2], seed=2**64), f"seed: {2**64} must be at most {2**64 - 1}"),
    (
        lambda r: r.sample_latents(torch.zeros(1, 4, 8, 8), [1], torch.zeros(1, 4, 8, 8), variants=[0]),
        "variants: noise was given too",
    ),
    (lambda r: r.refine(images(), [1, 2], variants=[0]), "variants: 1 were given for 2 images"),
    (lambda r: r.refine(images(), [1, 2], variants=[0, -1]), r"variants\[1\]: -1 must be at least 0"),
    (
        lambda r: r(images().numpy(), [1, 2], keys(2), variants=[2**32, 0]),
        rf"variants\[0\]: {2**32} must be at most {2**32 - 1}",
    ),
    (lambda r: r.refine(images(), [1, 2], keys=keys(1)), "keys: 1 were given for 2 images"),
    (
        lambda r: r.refine(images(), [1, 2], keys=[b"a", b"b"]),
        r"keys\[0\]: b'a' is no digest: 32 bytes or 64 hex digits",
    ),
    (lambda r: r.refine(images(), [1, 2], keys=["g" * 64] * 2), r"keys\[0\]: 'ggg"),
    (lambda r: r.refine(images(), [1, 2], keys=["ab " * 21 + "a"] * 2), r"keys\[0\]: 'ab "),
]


def refused(error: type[DiverError], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=r"^" + message) as raised:
        call()
    assert raised.type is error and "\n" not in str(raised.value)


@pytest.mark.parametrize(("call", "message"), WRONG_TYPES, ids=[message for _, message in WRONG_TYPES])
def test_wrong_types(shared: Refiner, call: Callable[[Refiner], Any], message: str) -> None:
    refused(OptionTypeError, message, lambda: call(shared))


@pytest.mark.parametrize(("call", "message"), WRONG_VALUES, ids=[message for _, message in WRONG_VALUES])
def test_wrong_values(shared: Refiner, call: Callable[[Refiner], Any], message: str) -> None:
    refused(OptionError, message, lambda: call(shared))


WRONG_KNOBS: list[tuple[dict[str, Any], type[DiverError], str]] = [
    ({"gama": 1}, OptionError, "gama: there is no such setting; did you mean gamma?"),
    ({"colour": 1}, OptionError, "colour: there is no such setting; there are mode, steps"),
    ({"steps": 1}, OptionError, "steps: 1 must be at least 2"),
    ({"steps": 4.0}, OptionTypeError, "steps: an integer is expected, not float"),
    ({"steps": True}, OptionTypeError, "steps: an integer is expected, not bool"),
    ({"steps": 2**80}, OptionError, "steps: "),
    ({"steps": 1001}, OptionError, "chain: `dit` has no chain of 1001 steps over 1000 timesteps"),
    ({"t_f": 5}, OptionError, "t_f: 5 is not a step from 1 to 4"),
    ({"window": (2, 3)}, OptionError, r"window: 2\.\.3 is not two steps from 4 down to 1, the higher first"),
    ({"window": (3, 2, 1)}, OptionError, "window: 3 values; 2 are expected"),
    ({"window": "ab"}, OptionTypeError, "window: a sequence of integers is expected, not str"),
    ({"window": 3}, OptionTypeError, "window: a sequence of integers is expected, not int"),
    ({"gamma": -1}, OptionError, "gamma: -1.0 must be at least 0"),
    ({"gamma": math.nan}, OptionError, "gamma: nan is not finite"),
    ({"cfg_scale": math.inf}, OptionError, "cfg_scale: inf is not finite"),
    ({"gamma": "0.1"}, OptionTypeError, "gamma: a number is expected, not str"),
    ({"cfg_channels": 5}, OptionError, "cfg_channels: 5 must be at most 4"),
    ({"mode": "fool"}, OptionError, "mode: `fool` is not one of raw, si, sg, si_sg, full, sg_sf, vae"),
    ({"mode": 1}, OptionTypeError, "mode: a string is expected, not int"),
    ({"sigma": "prior"}, OptionError, "sigma: `prior` is not one of posterior"),
    ({"chain": "x"}, OptionError, "chain: `x` is not one of dit"),
    ({"start": "x"}, OptionError, "start: `x` is not one of t_r, t_f"),
    ({"window_ends": "x"}, OptionError, "window_ends: `x` is not one of closed"),
    ({"gradient": "x"}, OptionError, "gradient: `x` is not one of latent"),
]


@pytest.mark.parametrize(("knobs", "error", "message"), WRONG_KNOBS, ids=[str(w[0]) for w in WRONG_KNOBS])
def test_wrong_settings(
    folder: Path, shared: Refiner, knobs: dict[str, Any], error: type[DiverError], message: str
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: shared.refine(images(), [1, 2], **knobs),
        lambda: shared.sample_latents(torch.zeros(1, 4, 8, 8), [1], **knobs),
        lambda: Refiner.from_pretrained(folder, device="cpu", **({"steps": 4} | knobs)),
    ]
    for call in calls:
        refused(error, message, call)


WRONG_OPTIONS: list[tuple[dict[str, Any], type[DiverError], str]] = [
    ({"device": "gpu"}, OptionError, "device: `gpu` is not one of auto, cpu, cuda, cuda:N"),
    ({"device": torch.device("meta")}, OptionError, "device: `meta` is not one of"),
    ({"device": "cuda:4096"}, OptionError, "device: `cuda:4096`: .*; the device `cpu` works without"),
    ({"device": "cuda:0,cuda:1"}, OptionError, "device: expected one device; diver.refiners.Fleet joins"),
    ({"device": 0}, OptionTypeError, "device: a string is expected, not int"),
    ({"dtype": "f16"}, OptionError, "dtype: `f16` is not one of auto, f32, bf16"),
    ({"dtype": torch.float16}, OptionError, "dtype: `float16` is not one of auto, f32, bf16"),
    ({"dtype": 32}, OptionTypeError, "dtype: a string is expected, not int"),
    ({"batch_size": 0}, OptionError, "batch_size: 0 must be at least 1"),
    ({"batch_size": 1.5}, OptionTypeError, "batch_size: an integer is expected, not float"),
    ({"preset": "gan"}, OptionError, "preset: `gan` is not one of dc, dsa"),
    ({"preset": 1}, OptionTypeError, "preset: a string is expected, not int"),
    ({"refine_seed": -1}, OptionError, "refine_seed: -1 must be at least 0"),
    ({"model": "gan"}, OptionError, "model: `gan` is not one of dit, sit, stable_diffusion"),
    ({"model": "sit"}, OptionError, "model: `sit` was given, but the folder .* holds a dit"),
    ({"num_heads": 4}, OptionError, "num_heads: a folder's config.json tells them"),
    ({"vae": 1}, OptionTypeError, "vae: a path is expected, not int"),
    (
        {"prompt": "a {}"},
        OptionError,
        "prompt: is for Stable Diffusion; this backbone is conditioned on classes",
    ),
    ({"class_names": "cat"}, OptionTypeError, "class_names: a sequence of strings is expected, not str"),
    ({"class_names": ["cat", 1]}, OptionTypeError, r"class_names\[1\]: a string is expected, not int"),
    ({"resolution": 32}, OptionError, "resolution: a transformer works on images of its own size alone"),
    ({"path": 1}, OptionTypeError, "path: a path is expected, not int"),
    ({"path": b"x"}, OptionTypeError, "path: a path as text is expected, not bytes"),
    ({"path": os.fsdecode(b"\xff")}, OptionError, r"path: '\\udcff' is not UTF-8"),
    ({"path": "no/such/folder"}, DataError, "no/such/folder: there is no such folder, and a repository"),
]


@pytest.mark.parametrize(
    ("options", "error", "message"), WRONG_OPTIONS, ids=[str(w[0]) for w in WRONG_OPTIONS]
)
def test_wrong_options(folder: Path, options: dict[str, Any], error: type[DiverError], message: str) -> None:
    refused(error, message, lambda: Refiner.from_pretrained(**({"path": folder} | options)))


def test_a_seed_is_given_to_calls_as_seed(shared: Refiner) -> None:
    with pytest.raises(OptionError, match=r"^refine_seed: there is no such setting; give seed to a call"):
        shared.refine(images(), [1, 2], refine_seed=1)  # type: ignore[call-arg]


def test_a_damaged_backbone(tmp_path: Path) -> None:
    folder = tiny.backbone(tmp_path / "backbone")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"^" + str(weights)):
        Refiner.from_pretrained(folder, device="cpu")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(DiverError) as raised:
        Refiner.from_pretrained(folder, device="cpu")
    assert isinstance(raised.value, OSError) and raised.value.filename == str(folder / "vae" / "config.json")


def test_images_that_are_not_finite(tmp_path: Path) -> None:
    folder = tiny.backbone(tmp_path / "backbone")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["decoder.conv_out.bias"][0] = math.inf
    save_file(tensors, weights)
    with Refiner.from_pretrained(folder, device="cpu", **FAST) as refiner:
        for call in (refiner.refine, refiner):
            with pytest.raises(RefineError, match="image 0 of the batch has values that are not finite"):
                call(images(), [1, 2], keys=keys(2))


def test_it_is_not_made_by_its_class(folder: Path) -> None:
    with pytest.raises(OptionTypeError, match=r"Refiner.from_pretrained\(path\)"):
        Refiner(folder)


# Its end.


def test_a_closed_refiner_says_so(folder: Path) -> None:
    refiner = Refiner.from_pretrained(folder, device="cpu", **FAST)
    with refiner as entered:
        assert entered is refiner
    refiner.close()
    z0 = torch.zeros(1, 4, 8, 8)
    calls: list[Callable[[], Any]] = [
        lambda: refiner.encode(images()),
        lambda: refiner.sample_latents(z0, [1]),
        lambda: refiner.decode(z0),
        lambda: refiner.refine(images(), [1, 2]),
        lambda: refiner(images().numpy(), [1, 2], keys(2)),
        lambda: refiner.__enter__(),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match=r"^the refiner is closed$"):
            call()
    assert refiner.num_classes == 10 and refiner.fingerprint and "Refiner" in repr(refiner)


def threads() -> int:
    """Threads of refiners, those of their pools included."""
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # It has ended.
            count += (task / "comm").read_text().strip() == "diver-refiner"
    return count


def test_threads_end_with_their_refiners(folder: Path) -> None:
    def fall_to(count: int) -> bool:
        """The threads of a pool end a little after the one that has it."""
        end = time.monotonic() + 5
        while threads() > count and time.monotonic() < end:
            time.sleep(0.001)
        return threads() == count

    gc.collect()
    before = threads()
    refiners = [Refiner.from_pretrained(folder, device="cpu")]
    one = threads()
    refiners.append(Refiner.from_pretrained(folder, device="cpu"))
    assert before < one < threads()
    refiners[0].close()
    assert fall_to(one)
    refiners.clear()
    gc.collect()
    assert fall_to(before)
    with pytest.raises(DataError):
        Refiner.from_pretrained("no/such/folder")
    assert fall_to(before)


def test_closing_ends_calls_of_other_threads(folder: Path) -> None:
    refiner = Refiner.from_pretrained(folder, device="cpu", **LONG)
    errors: list[BaseException] = []
    started = threading.Event()

    def call() -> None:
        try:
            refiner(images(16), [1] * 16, keys(16), progress=lambda _done, _total: started.set())
        except BaseException as error:
            errors.append(error)

    # One runs, two wait.
    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    assert started.wait(10)
    before = time.monotonic()
    refiner.close()
    for caller in callers:
        caller.join(10)
    assert time.monotonic() - before < 1
    assert [type(error) for error in errors] == [ClosedError] * 3


def test_it_cannot_be_pickled_or_copied(shared: Refiner) -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(OptionTypeError, match="cannot be pickled or copied: pass the path") as raised:
            attempt(shared)
        assert isinstance(raised.value, TypeError)


# Threads.


def test_threads_share_a_refiner(shared: Refiner) -> None:
    jobs: list[tuple[torch.Tensor, list[int], dict[str, Any]]] = [
        (images(3)[i : i + 1], [i], {"gamma": 0.1 * (i + 1), "seed": i}) for i in range(3)
    ]
    expected = [shared.refine(x, y, **options) for x, y, options in jobs]
    found: list[list[torch.Tensor]] = [[] for _ in jobs]

    def call(job: int) -> None:
        x, y, options = jobs[job]
        for _ in range(10):
            found[job].append(shared.refine(x, y, **options))

    callers = [threading.Thread(target=call, args=(job,)) for job in range(len(jobs))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    for job, expectation in enumerate(expected):
        assert len(found[job]) == 10 and all(image.equal(expectation) for image in found[job])


def test_the_interpreter_is_free_meanwhile(shared: Refiner) -> None:
    longest, stop = 0.0, threading.Event()

    def count() -> None:
        nonlocal longest
        last = time.monotonic()
        while not stop.is_set():
            time.sleep(0.001)
            now = time.monotonic()
            longest, last = max(longest, now - last), now

    counter = threading.Thread(target=count)
    counter.start()
    before = time.monotonic()
    shared.sample_latents(torch.zeros(16, 4, 8, 8), [1] * 16, **LONG)
    took = time.monotonic() - before
    stop.set()
    counter.join()
    assert took > 0.3, "long enough to tell"
    assert longest < took / 2, f"held for {longest:.2f} s of {took:.2f} s"


# Processes.


def script(text: str, folder: Path, *, interrupt_after: str | None = None) -> tuple[int, str, str]:
    """Runs Python code in a process of its own, with the ``folder`` of a backbone: code, output, errors.

    It is sent SIGINT once it has printed the line ``interrupt_after``, and then a while.
    """
    header = f"""
        import os, sys, threading, time, signal
        import numpy as np, torch, diver, diver_refiner
        from diver_refiner import Refiner
        from diver.errors import *
        torch.set_num_threads(1)
        folder = {str(folder)!r}
        z0, x, y = torch.zeros(16, 4, 8, 8), torch.rand(16, 3, 16, 16), [1] * 16
        keys = (bytes(32),) * 16

        def interrupt(after=0.2):
            "Sends this process SIGINT, and says when."
            def send():
                sent.append(time.monotonic())
                os.kill(os.getpid(), signal.SIGINT)
            sent = []
            timer = threading.Timer(after, send)
            timer.daemon = True
            timer.start()
            return sent
        """
    code = textwrap.dedent(header) + textwrap.dedent(text)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        heard = ""
        if interrupt_after is not None:
            assert process.stdout is not None
            for line in process.stdout:
                heard += line
                if line.strip() == interrupt_after:
                    time.sleep(0.3)
                    process.send_signal(signal.SIGINT)
                    break
        try:
            out, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, heard + out, errors


def test_ctrl_c(folder: Path) -> None:
    text = """
        refiner = Refiner.from_pretrained(folder, device="cpu", steps=1000)
        calls = dict(
            sample_latents=lambda: refiner.sample_latents(z0, y),
            refine=lambda: refiner.refine(x, y),
            call=lambda: refiner(x, y, keys),
            call_with_progress=lambda: refiner(x, y, keys, progress=max),
            # Not to be cancelled: they go on, on tensors that nobody else has.
            encode=lambda: refiner.encode(torch.rand(600, 3, 16, 16)),
            decode=lambda: refiner.decode(torch.rand(600, 4, 8, 8)),
        )
        for name, call in calls.items():
            sent = interrupt()
            try:
                call()
                print(name, "was not interrupted")
            except KeyboardInterrupt:
                late = time.monotonic() - sent[0]
                if late > 0.3:
                    print(name, "took", late)
            if name not in ("encode", "decode"):
                # The job has ended: the next one does not wait for it.
                before = time.monotonic()
                refiner.encode(x)
                if time.monotonic() - before > 0.5:
                    print(name, "went on")
        print("end")
        """
    assert script(text, folder) == (0, "end\n", "")


def test_ctrl_c_that_nobody_catches(folder: Path) -> None:
    text = """
        refiner = Refiner.from_pretrained(folder, device="cpu")
        interrupt()
        refiner.sample_latents(z0, y, steps=1000)
        """
    code, _, errors = script(text, folder)
    assert code == -signal.SIGINT and errors.rstrip().endswith("KeyboardInterrupt"), errors


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A backbone whose configuration is read for as long as nobody writes it: it is a pipe."""
    folder = tiny.backbone(tmp_path / "slow")
    config = folder / "transformer" / "config.json"
    config.unlink()
    os.mkfifo(config)
    return folder


def test_ctrl_c_while_weights_are_read(slow: Path) -> None:
    text = """
        sent = interrupt()
        try:
            Refiner.from_pretrained(folder, device="cpu")
            print("not interrupted")
        except KeyboardInterrupt:
            late = time.monotonic() - sent[0]
            print("end" if late < 0.3 else late)
        # What was left behind comes to its end while the process waits for it.
        def write():
            with open(folder + "/transformer/config.json", "w") as pipe:
                pipe.write("{}")
        threading.Timer(0.2, write).start()
        """
    assert script(text, slow) == (0, "end\n", "")


def test_a_second_ctrl_c_does_not_wait(slow: Path) -> None:
    text = """
        interrupt()
        try:
            Refiner.from_pretrained(folder, device="cpu")
        except KeyboardInterrupt:
            print("first", flush=True)
        """
    assert script(text, slow, interrupt_after="first") == (130, "first\n", "")


def test_a_process_ends_while_others_refine(folder: Path) -> None:
    text = """
        refiner = Refiner.from_pretrained(folder, device="cpu", steps=1000)
        kept = [Refiner.from_pretrained(folder, device="cpu"), refiner]
        started = threading.Event()
        def call():
            refiner(x, y, keys, progress=lambda *_: started.set())
        for _ in range(2):
            threading.Thread(target=call, daemon=True).start()
        started.wait()
        print("end")
        """
    for _ in range(3):
        code, out, errors = script(text, folder)
        assert (code, out) == (0, "end\n"), errors
        assert "Fatal" not in errors and "terminate" not in errors and "panicked" not in errors, errors


def test_a_forked_child_is_told(folder: Path) -> None:
    text = """
        refiner = Refiner.from_pretrained(folder, device="cpu")
        refiner.encode(torch.rand(1, 3, 16, 16))
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            for call in (lambda: refiner.encode(torch.rand(1, 3, 16, 16)), lambda: refiner.decode(z0)):
                try:
                    call()
                    print("no error")
                except ClosedError as error:
                    told = str(error)
            print(told)
            # Neither this, nor dropping it, nor the end of the process waits for a thread that is not here.
            refiner.close()
            del refiner, call
            import gc
            gc.collect()
            print("child")
            sys.exit(3)
        before = time.monotonic()
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), time.monotonic() - before < 5)
        print(refiner.encode(torch.rand(1, 3, 16, 16)).shape)
        """
    code, out, errors = script(text, folder)
    told, *rest = out.splitlines()
    assert (code, rest, errors) == (0, ["child", "3 True", "torch.Size([1, 4, 8, 8])"], "")
    assert "forked" in told and "`spawn`" in told, told


def test_another_torch_is_refused(tmp_path: Path) -> None:
    def message(prelude: str) -> str:
        code = f"""
            import sys
            {prelude}
            import diver
            from diver.errors import VersionError
            for refused in (lambda: __import__("diver_refiner"), lambda: diver.Refiner):
                try:
                    refused()
                except VersionError as error:
                    print(error)
            """
        command = [sys.executable, "-c", textwrap.dedent(code)]
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        first, second = out.splitlines()
        assert first == second
        return first

    way_out = (
        "run `pip install 'torch==2.11.*'`, or fill the cache with the command `diver refine` in another "
        "environment: the loader itself needs no torch"
    )
    other = message("import torch; torch.__version__ = '2.12.0+cpu'")
    assert other == f"torch 2.12.0+cpu is installed, 2.11 is needed: {way_out}"
    older = message("import torch; torch.__version__ = '2.1.1'")
    assert older.startswith("torch 2.1.1 is installed")
    missing = message("sys.modules['torch'] = None")
    assert missing == f"torch 2.11 is needed, and torch cannot be imported: {way_out}"
    assert issubclass(VersionError, ImportError)


def test_messages_go_to_logging(folder: Path) -> None:
    text = """
        import logging
        form = "%(levelname)s %(name)s: %(message)s"
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format=form)
        Refiner.from_pretrained(folder)
        """
    code, out, errors = script(text, folder)
    assert (code, errors) == (0, "")
    if not torch.cuda.is_available():
        assert "INFO diver.device: refining on the CPU" in out, out


def test_tensors_that_are_not_aligned_are_taken(shared: Refiner) -> None:
    memory = bytearray(4 * 2 * 3 * 16 * 16 + 1)
    odd = torch.frombuffer(memory, dtype=torch.float32, offset=1).reshape(2, 3, 16, 16)
    assert torch.equal(shared.encode(odd), shared.encode(odd.clone()))
    odd_array = np.frombuffer(memory, dtype=np.uint8)[1:].view(np.float32).reshape(2, 3, 16, 16)
    assert torch.equal(shared.encode(odd_array), shared.encode(odd.clone()))


def test_with_the_keys_of_a_source_the_stages_do_what_a_loader_does() -> None:
    with Refiner.from_pretrained("examples/digits/backbone", device="cpu", steps=4) as refiner:
        source = diver.open("examples/digits/dm_ipc1")
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (source.mean, source.std))
        samples = stored(source)
        values = torch.from_numpy(np.stack([sample.values for sample in samples]))
        pixels = (values * std + mean).clamp(0, 1)
        keys, labels = [sample.digest for sample in samples], [sample.label for sample in samples]
        with diver.DataLoader(source, refiner=refiner, batch_size=10) as loader:
            streamed = next(iter(loader)).images * std + mean
        whole = refiner.refine(pixels, labels, keys=keys)
        stages = refiner.decode(refiner.sample_latents(refiner.encode(pixels), labels, keys=keys))
        assert (whole - stages).abs().max() < 1e-4
        assert (whole - streamed).abs().max() < 0.6 / 255, "a loader rounds to bytes"
        with pytest.raises(OptionError, match="keys: noise was given too"):
            z0 = refiner.encode(pixels)
            refiner.sample_latents(z0, labels, z0, keys=keys)
