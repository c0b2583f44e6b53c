"""Any callable as a refiner: how it is called, what it may return, and what becomes of its images."""

from __future__ import annotations

import functools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import (
    DIGITS,
    SHAPES,
    eventually,
    invert,
    inverter,
    normalized,
    plain,
    run,
    stored,
    threads,
    unit_pixels,
)

import diver
from diver import refiners
from diver.errors import ClosedError, DataError, OptionError, OptionTypeError, RefineError


def refining(refiner: Any, **options: Any) -> diver.DataLoader:
    return diver.DataLoader(DIGITS, refiner=refiner, **{"batch_size": 10, **options})


def first(refiner: Any, **options: Any) -> diver.Batch:
    with refining(refiner, **options) as loader:
        return next(iter(loader))


# How it is called.


class Method:
    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        assert labels.dtype == np.int64
        return invert(images)

    def bound(self, images: np.ndarray, keys: Any, /) -> np.ndarray:
        return invert(images)


def _keys_second(images: Any, keys: Any) -> Any:
    assert all(isinstance(key, bytes) for key in keys)
    return invert(images)


def _other_order(images: Any, keys: Any, labels: Any) -> Any:
    assert isinstance(keys[0], bytes) and labels.dtype == np.int64
    return invert(images)


def _cancel_required(images: Any, cancel: Any) -> Any:
    assert cancel.is_cancelled() is False
    return invert(images)


def _optional(images: Any, labels: Any = None, keys: Any = None, *, other: int = 3) -> Any:
    assert labels.shape == (10,) and len(keys) == 10 and other == 3
    return invert(images)


def _keywords(images: Any, *, labels: Any, keys: Any, cancel: Any, progress: Any) -> Any:
    assert labels.shape == (10,) and len(keys) == 10
    progress(1, 2)
    progress(done=2, total=2)
    return invert(images)


def _variants(images: Any, variants: Any) -> Any:
    assert variants.dtype == np.int64 and variants.tolist() == [0] * 10
    return invert(images)


def _any(*arguments: Any) -> Any:
    (images,) = arguments
    return invert(images)


def _labels_first(labels: Any, images: Any) -> Any:
    assert labels.shape == (10,)
    return invert(images)


class Module(torch.nn.Module):
    def forward(self, images: Any, labels: Any) -> torch.Tensor:
        assert labels.shape == (10,)
        return torch.from_numpy(invert(images))


def _any_keywords(images: Any, **rest: Any) -> Any:
    assert not rest
    return invert(images)


def _placed(a: Any, b: Any, c: Any, /) -> Any:
    assert b.dtype == np.int64 and isinstance(c[0], bytes)
    return invert(a)


SIGNATURES: dict[str, Callable[..., Any]] = {
    "images": invert,
    "images, labels": lambda images, labels: invert(images),
    "images, labels, keys": lambda images, labels, keys: invert(images),
    "other names": lambda a, b, c: invert(a),
    "positional only": _placed,
    "keys second": _keys_second,
    "other order": _other_order,
    "cancel required": _cancel_required,
    "optional": _optional,
    "keywords": _keywords,
    "variants": _variants,
    "*arguments": _any,
    "labels first": _labels_first,
    "torch module": Module(),
    "**keywords": _any_keywords,
    "all defaults": lambda images=None: invert(images),
    "object": Method(),
    "method": Method().bound,
    "partial": functools.partial(lambda images, power: invert(images**power), power=1),
}


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_refiner_gets_what_its_signature_asks_for(signature: str) -> None:
    batch = first(SIGNATURES[signature])
    assert batch.refined.all()


@pytest.mark.parametrize(
    "refiner",
    [
        lambda: None,
        lambda images, labels, keys, more: None,
        lambda images, *, strength: None,
        lambda **keywords: None,
    ],
    ids=["nothing", "four", "unknown keyword", "keywords alone"],
)
def test_a_signature_that_cannot_be_called_is_refused_at_once(refiner: Any) -> None:
    with pytest.raises(OptionError, match="refiner: it"):
        refining(refiner)
    with pytest.raises(OptionError, match="refiner: it"):
        refiners.check(refiner)


def test_a_refiner_sees_pixels_labels_and_keys() -> None:
    source = diver.open(DIGITS)
    seen: list[tuple[np.ndarray, np.ndarray, tuple[bytes, ...]]] = []

    def refiner(images: np.ndarray, labels: np.ndarray, keys: tuple[bytes, ...]) -> np.ndarray:
        seen.append((images.copy(), labels, keys))
        assert images.flags.writeable and images.flags.c_contiguous
        result = invert(images)
        images[:] = np.nan  # It is the refiner's own.
        return result

    batch = first(refiner, classes=range(100, 110), batch_size=4, shuffle=True)
    assert batch.refined.all() and bool(torch.isfinite(batch.images).all())
    images = np.concatenate([images for images, _, _ in seen])
    labels = np.concatenate([labels for _, labels, _ in seen])
    keys = [key for _, _, keys in seen for key in keys]
    assert images.dtype == np.float32 and images.min() >= 0 and images.max() <= 1
    assert labels.dtype == np.int64
    index_of = {source.sample(index).digest: index for index in range(10)}
    for image, label, key in zip(images, labels, keys, strict=True):
        index = index_of[key]
        assert label == 100 + source.sample(index).label
        np.testing.assert_allclose(image, unit_pixels(source, index), atol=1e-6)


def noisy(images: np.ndarray, keys: tuple[bytes, ...], variants: np.ndarray) -> np.ndarray:
    seeds = zip(keys, variants.tolist(), strict=True)
    noise = [np.random.default_rng([*key, variant]).random(images.shape[1:]) for key, variant in seeds]
    return invert((images + np.stack(noise)) / 2)


@pytest.mark.parametrize("refiner", [noisy, refiners.Fleet([noisy, noisy])], ids=["alone", "fleet"])
def test_variants_of_a_sample_are_different_images(refiner: Any) -> None:
    images = np.full((4, 3, 8, 8), 0.5, np.float32)
    variants = np.array([0, 1, 2**32 - 1, 1])
    adapter = refiners.Adapter(refiner)
    refined = adapter.call(images, np.zeros(4, np.int64), (bytes(32),) * 4, variants, None, None)
    assert np.array_equal(refined[1], refined[3])
    assert len({image.tobytes() for image in refined}) == 3
    refiners.check(refiner)


def test_the_engine_passes_variants_on() -> None:
    seen: list[list[int]] = []

    def refiner(images: np.ndarray, variants: np.ndarray) -> np.ndarray:
        seen.append(variants.tolist())
        return invert(images)

    refiners.check(refiner)
    assert [0, 0, 0, 0] in seen and [0, 1, 0, 1] in seen


def test_a_fleet_refines_variant_0_by_default() -> None:
    images, keys = np.zeros((3, 3, 4, 4), np.float32), (bytes(32),) * 3
    refined = refiners.Fleet([noisy, noisy])(images, np.zeros(3, np.int64), keys)
    assert np.array_equal(refined, noisy(images, keys, np.zeros(3, np.int64)))


def test_a_refiner_is_called_from_one_other_thread_one_call_at_a_time() -> None:
    idents: set[int] = set()
    inside = threading.Lock()

    def refiner(images: np.ndarray) -> np.ndarray:
        assert inside.acquire(blocking=False), "two calls at once"
        idents.add(threading.get_ident())
        time.sleep(0.002)
        inside.release()
        return invert(images)

    refiner.preferred_batch = 7  # type: ignore[attr-defined]
    with diver.DataLoader(SHAPES, refiner=refiner, threads=4, batch_size=5) as loader:
        assert all(batch.refined.all() for batch in loader)
    assert len(idents) == 1 and threading.main_thread().ident not in idents


@pytest.mark.parametrize("preferred", [1, 3, np.int64(4), 1000])
def test_calls_bring_as_many_images_as_the_refiner_prefers(preferred: Any) -> None:
    sizes: list[int] = []

    def refiner(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return invert(images)

    refiner.preferred_batch = preferred  # type: ignore[attr-defined]
    first(refiner)
    assert sum(sizes) == 10 and max(sizes) == min(10, preferred)


def test_a_refiner_may_open_sets_and_use_torch() -> None:
    def refiner(images: np.ndarray) -> torch.Tensor:
        with diver.DataLoader(SHAPES, batch_size=50) as other:
            assert sum(len(batch.images) for batch in other) == 100
        assert diver.open(DIGITS).sample(3).label == 3
        weights = torch.ones(1, requires_grad=True)
        return ((1 - torch.from_numpy(images) * weights) * 255).round().to(torch.uint8)

    batch = first(refiner)
    assert torch.equal(batch.images, first(invert).images)


def test_the_interpreter_may_be_held_for_long() -> None:
    def refiner(images: np.ndarray) -> np.ndarray:
        sum(range(20_000_000))  # No thread gets a turn but when the interpreter makes them take turns.
        return invert(images)

    with refining(refiner, batch_size=5) as loader:
        assert [len(batch.images) for batch in loader] == [5, 5]


def test_a_refiner_may_be_the_first_to_import_torch() -> None:
    """And to use it in later calls: torch remembers the thread that it was imported on."""
    program = """
        import sys
        from support import *

        def refiner(images):
            import torch
            pixels = torch.from_numpy(images)
            weights = torch.ones(1, requires_grad=True)
            (pixels * weights).sum().backward()
            assert bool((pixels <= 1).all())
            return ((1 - pixels) * 255).round().to(torch.uint8)

        refiner.preferred_batch = 2
        with diver.DataLoader(DIGITS, refiner=refiner, batch_size=4, format="numpy") as loader:
            assert "torch" not in sys.modules
            print(sum(len(batch.images) for batch in loader))
        diver.refiners.check(refiner)
    """
    assert run(program) == (0, "10\n", "")


# What it may return.


def test_a_fleet_shares_every_batch() -> None:
    together = threading.Barrier(2, timeout=20)
    sizes: list[int] = []

    def member(images: Any, progress: Callable[[int, int], object]) -> Any:
        together.wait()  # Broken, if one were called after the other.
        sizes.append(len(images))
        progress(1, 2)
        progress(2, 2)
        return invert(images)

    member.fingerprint = "member"  # type: ignore[attr-defined]
    member.preferred_batch = 3  # type: ignore[attr-defined]
    fleet = refiners.Fleet([member, member])
    assert (fleet.preferred_batch, fleet.fingerprint, fleet.num_classes) == (6, "member", None)
    images = np.random.default_rng(0).random((5, 3, 4, 4), dtype=np.float32)
    heard: list[tuple[int, int]] = []
    refined = fleet(images, np.zeros(5, np.int64), [b""] * 5, progress=lambda *step: heard.append(step))
    assert np.array_equal(refined, invert(images))
    assert sorted(sizes) == [2, 3] and heard == sorted(heard) and heard[-1] == (10, 10)


def test_a_fleet_refines_for_a_loader() -> None:
    refiners.check(refiners.Fleet([inverter(), inverter(), inverter()]))
    with diver.DataLoader(DIGITS, refiner=refiners.Fleet([inverter(), inverter()]), batch_size=10) as loader:
        shared = [images for images, _ in loader]
    with diver.DataLoader(DIGITS, refiner=inverter(), batch_size=10) as loader:
        assert all(torch.equal(one, other) for one, (other, _) in zip(shared, loader, strict=True))


def test_a_member_that_fails_ends_the_others() -> None:
    def member(images: Any, labels: Any, cancel: Any) -> Any:
        if labels[0] == 1:
            raise ValueError("told to fail")
        assert eventually(cancel.is_cancelled)
        raise ClosedError("cancelled")

    fleet = refiners.Fleet([member, member])
    images = np.zeros((2, 3, 4, 4), np.float32)
    with pytest.raises(ValueError, match="told to fail"):
        fleet(images, np.array([0, 1]), [b""] * 2)
    token = diver._engine.CancelToken()
    token.cancel()
    with pytest.raises(ClosedError):
        fleet(images, np.array([0, 0]), [b""] * 2, cancel=token)


def test_a_refiner_is_released_once_the_cache_is_full(tmp_path: Path) -> None:
    released: list[str] = []
    members = [inverter(), inverter()]
    for member in members:
        member.fingerprint = "inverter"  # type: ignore[attr-defined]
        member.release = lambda: released.append(threading.current_thread().name)  # type: ignore[attr-defined]
    with refining(refiners.Fleet(members), cache=tmp_path) as loader:
        assert len(list(loader)) == 1
        assert eventually(lambda: len(released) == 2)
        assert len(list(loader)) == 1
    assert len(released) == 2


def test_a_release_that_raises_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refiner = inverter()
    refiner.fingerprint = "inverter"  # type: ignore[attr-defined]
    refiner.release = lambda: 1 / 0  # type: ignore[attr-defined]
    with refining(refiner, cache=tmp_path) as loader:
        assert len(list(loader)) == 1
        assert eventually(lambda: "`release` raised ZeroDivisionError: division by zero" in caplog.text)
        assert len(list(loader)) == 1


def test_a_fleet_of_unlike_refiners_is_refused() -> None:
    other = inverter()
    other.fingerprint = "another"  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match="position 1 makes other images than the first"):
        refiners.Fleet([inverter(), other])
    with pytest.raises(OptionError, match="one or more"):
        refiners.Fleet([])
    with pytest.raises(OptionTypeError, match="a sequence of refiners"):
        refiners.Fleet("cuda:0")


def test_refined_batches_are_the_normalised_bytes() -> None:
    source = diver.open(DIGITS)
    with refining(invert, shuffle=True) as loader:
        batch = next(iter(loader))
    for image, index in zip(batch.images.numpy(), batch.indices.tolist(), strict=True):
        expected = normalized(source, invert(unit_pixels(source, index)))
        np.testing.assert_allclose(image, expected, atol=2e-6)
    assert batch.labels.tolist() == [source.sample(index).label for index in batch.indices.tolist()]


def _torch_tensor(images: np.ndarray) -> Any:
    return torch.from_numpy(invert(images))


def _not_contiguous(images: np.ndarray) -> Any:
    return np.ascontiguousarray(invert(images).transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.mark.parametrize(
    "refiner",
    [
        _torch_tensor,
        _not_contiguous,
        lambda images: _torch_tensor(images).to(memory_format=torch.channels_last),
        lambda images: list(invert(images)),
        lambda images: invert(images)[:, :, ::-1][:, :, ::-1],
    ],
    ids=["torch", "strided", "channels last", "list", "reversed"],
)
def test_results_come_as_arrays_tensors_and_lists(refiner: Any) -> None:
    assert torch.equal(first(refiner).images, first(invert).images)


def test_results_of_another_size_are_resized() -> None:
    def larger(images: np.ndarray) -> np.ndarray:
        return invert(images).repeat(2, axis=2).repeat(2, axis=3)

    own, resized = first(invert), first(larger)
    assert resized.images.shape == (10, 3, 32, 32)
    assert torch.allclose(resized.images.mean((2, 3)), own.images.mean((2, 3)), atol=0.05)
    assert first(larger, image_size=64).images.shape == (10, 3, 64, 64)


BAD_RESULTS: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "floats": (lambda images: images, "float32"),
    "too few": (lambda images: invert(images)[:-1], r"\[9, 3, 32, 32\]"),
    "too many": (lambda images: invert(np.concatenate([images, images])), r"\[20, 3, 32, 32\]"),
    "channels last": (lambda images: invert(images).transpose(0, 2, 3, 1), r"\[10, 32, 32, 3\]"),
    "one image": (lambda images: invert(images)[0], r"\[3, 32, 32\]"),
    "no pixels": (lambda images: invert(images)[:, :, :0], r"\[10, 3, 0, 32\]"),
    "grey": (lambda images: invert(images)[:, :1], r"\[10, 1, 32, 32\]"),
    "nothing": (lambda images: None, "NoneType"),
    "text": (lambda images: "images", "str"),
    "generator": (lambda images: (image for image in invert(images)), "generator"),
    "signed": (lambda images: invert(images).astype(np.int8), "int8"),
    "half": (lambda images: torch.from_numpy(images).half(), "float16"),
    "brain": (lambda images: torch.from_numpy(images).bfloat16(), "bfloat16"),
    "tuple": (lambda images: (invert(images), None), "tuple"),
}


@pytest.mark.parametrize("kind", BAD_RESULTS)
def test_a_bad_result_is_refused_with_what_came_back(kind: str) -> None:
    refiner, named = BAD_RESULTS[kind]
    with pytest.raises(RefineError, match=named) as caught:
        first(refiner)
    assert "uint8" in str(caught.value), "it says what is expected"


def test_images_of_several_sizes_are_refused_or_resized_alike() -> None:
    sizes = iter([32, 16, 8])

    def shrinking(images: np.ndarray) -> np.ndarray:
        side = next(sizes, 8)
        return invert(images)[:, :, :side, :side]

    shrinking.preferred_batch = 4  # type: ignore[attr-defined]
    assert first(shrinking).images.shape == (10, 3, 32, 32)


def test_an_exception_is_the_cause_and_its_traceback_is_kept() -> None:
    def refiner(images: np.ndarray) -> np.ndarray:
        raise KeyError("no weights")

    with pytest.raises(RefineError, match="no weights") as caught:
        first(refiner)
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert isinstance(caught.value, RuntimeError)
    assert cause.__traceback__ is not None


@pytest.mark.parametrize(
    "exception", [KeyboardInterrupt, SystemExit, StopIteration, GeneratorExit, ClosedError]
)
def test_exceptions_with_a_meaning_of_their_own_are_failures_too(exception: type[BaseException]) -> None:
    def refiner(images: np.ndarray) -> np.ndarray:
        raise exception("odd")

    with pytest.raises(RefineError) as caught:
        first(refiner)
    assert isinstance(caught.value.__cause__, exception)


def test_a_loader_survives_a_batch_that_fails() -> None:
    fails = {2, 3}

    def refiner(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if fails & set(labels.tolist()):
            raise ValueError("told to fail")
        return invert(images)

    refiner.preferred_batch = 1  # type: ignore[attr-defined]
    with refining(refiner, batch_size=2) as loader:
        batches = iter(loader)
        next(batches)
        with pytest.raises(RefineError, match="told to fail"):
            next(batches)
        rest = list(batches)
        assert [batch.indices.tolist() for batch in rest] == [[4, 5], [6, 7], [8, 9]], "the others still come"
        fails.clear()
        epoch = loader.state_dict()["epoch"]
        loader.set_epoch(epoch + 5)  # Beyond what was prefetched.
        assert [batch.refined.tolist() for batch in loader] == [[True, True]] * 5, "it is tried again"


# Its attributes.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fingerprint", 5),
        ("fingerprint", ""),
        ("fingerprint", {}),
        ("fingerprint", ["v1"]),
        ("fingerprint", b"v1"),
        ("fingerprint", {"weights": object()}),
        ("fingerprint", {"weights": np.zeros(3)}),
        ("fingerprint", {"scale": float("nan")}),
        ("fingerprint", {"scale": float("-inf")}),
        ("fingerprint", {"seed": 2**64}),
        ("fingerprint", {"seed": -(2**63) - 1}),
        ("fingerprint", {"parts": [{"seed": [2**70]}]}),
        ("preferred_batch", 0),
        ("preferred_batch", -1),
        ("preferred_batch", 1.5),
        ("preferred_batch", "32"),
        ("preferred_batch", None),
        ("preferred_batch", 2**70),
        ("num_classes", 0),
        ("num_classes", "10"),
        ("num_classes", 10.0),
        ("num_classes", True),
    ],
    ids=str,
)
def test_bad_attributes_are_refused_by_name(name: str, value: Any) -> None:
    refiner = inverter()
    setattr(refiner, name, value)
    with pytest.raises(OptionError, match=rf"refiner\.{name}"):
        refining(refiner)
    with pytest.raises(OptionError, match=rf"refiner\.{name}"):
        refiners.check(refiner)


def test_classes_beyond_the_refiners_are_refused_at_once() -> None:
    refiner = inverter()
    refiner.num_classes = 9  # type: ignore[attr-defined]
    with pytest.raises((DataError, OptionError), match="class 9 is beyond the refiner's 9 classes"):
        refining(refiner)
    refining(refiner, classes=[0] * 10).close()
    with pytest.raises(DataError, match="label 3 is out of range: the set was opened with 3 classes"):
        refining(refiner, classes=[0, 1, 2])
    with pytest.raises(OptionError, match="classes: label 3"):
        diver.DataLoader(diver.open(DIGITS), refiner=refiner, classes=[0, 1, 2])


# Where its images are kept.


class Counting:
    """Inverts, and counts what it is asked for."""

    def __init__(self, fingerprint: Any) -> None:
        self.fingerprint = fingerprint
        self.images = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        return invert(images)


def epochs(loader: diver.DataLoader, count: int = 2) -> list[Any]:
    with loader:
        return [plain(batch) for _ in range(count) for batch in loader]


def test_images_in_the_cache_are_not_refined_again(tmp_path: Path) -> None:
    refiner = Counting({"weights": "v1", "steps": 4, "nested": {"a": [1, None, True]}})
    cold = epochs(refining(refiner, cache=tmp_path, shuffle=True))
    assert refiner.images == 10
    with refining(refiner, cache=diver.Cache(tmp_path), shuffle=True) as loader:
        assert [plain(batch) for _ in range(2) for batch in loader] == cold
        stats = loader.stats()
    assert refiner.images == 10 and stats["misses"] == 0 and stats["disk_hits"] == 10

    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "fingerprint.json").read_text()) == refiner.fingerprint
    refined = diver.open(folder)
    source = diver.open(DIGITS)
    assert (refined.format, refined.num_samples) == ("parquet", 10)
    by_bytes = {sample.values.tobytes() for sample in stored(refined)}
    assert by_bytes == {invert(unit_pixels(source, index)).tobytes() for index in range(10)}


def test_integers_that_would_be_rounded_are_to_be_strings() -> None:
    refiner = Counting({"seed": 2**64 + 1})
    with pytest.raises(
        OptionError,
        match=r"refiner\.fingerprint: 18446744073709551617 has more than 64 bits: write it as a string",
    ):
        refining(refiner)
    with pytest.raises(OptionError, match=r"refiner\.fingerprint"):
        refining(Counting({"seed": 10**5000}))


def test_the_largest_integers_of_fingerprints_are_kept_apart(tmp_path: Path) -> None:
    seeds = (2**64 - 1, 2**64 - 2, -(2**63), -(2**63) + 1, str(2**64), str(2**64 + 1))
    for seed in seeds:
        refiner = Counting({"seed": seed})
        epochs(refining(refiner, cache=tmp_path))
        assert refiner.images == 10
    assert len(list(tmp_path.iterdir())) == len(seeds)


def test_another_fingerprint_has_another_folder(tmp_path: Path) -> None:
    for fingerprint in ("v1", "v2", {"v": 1}, {"v": 1.5}):
        refiner = Counting(fingerprint)
        epochs(refining(refiner, cache=tmp_path))
        assert refiner.images == 10
    assert len(list(tmp_path.iterdir())) == 4
    for fingerprint in ("v1", {"v": 1}):
        refiner = Counting(fingerprint)
        epochs(refining(refiner, cache=tmp_path))
        assert refiner.images == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_other_classes_are_other_images(tmp_path: Path) -> None:
    for classes, expected in [(None, 10), (range(1, 11), 10), (None, 0)]:
        refiner = Counting("v1")
        epochs(refining(refiner, cache=tmp_path, classes=classes))
        assert refiner.images == expected


def test_without_a_fingerprint_images_stay_in_memory(tmp_path: Path) -> None:
    refiner = Counting(None)
    epochs(refining(refiner, cache=tmp_path))
    assert refiner.images == 10, "once a loader"
    epochs(refining(refiner, cache=tmp_path))
    assert refiner.images == 20 and list(tmp_path.iterdir()) == []


def test_without_a_cache_memory_must_suffice() -> None:
    need = 10 * 3 * 32 * 32
    with pytest.raises(OptionError, match=f"memory_limit: {need} bytes"):
        refining(Counting("v1"), memory_limit=need - 1)
    refining(Counting("v1"), memory_limit=need).close()


def test_a_cache_on_disk_needs_no_memory(tmp_path: Path) -> None:
    refiner = Counting("v1")
    with refining(refiner, cache=tmp_path, memory_limit=0) as loader:
        batches = [plain(batch) for _ in range(3) for batch in loader]
        assert loader.stats()["memory_hits"] == 0
    assert refiner.images == 10 and batches[0] == batches[1] == batches[2]


def test_a_damaged_part_of_the_cache_is_set_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refiner = Counting("v1")
    expected = epochs(refining(refiner, cache=tmp_path))
    for part in tmp_path.glob("*/*.parquet"):
        part.write_bytes(part.read_bytes()[:100])
    with caplog.at_level("WARNING"):
        assert epochs(refining(refiner, cache=tmp_path)) == expected
    assert refiner.images == 20
    assert any("parquet" in record.getMessage() for record in caplog.records)


# How much is refined.


@pytest.mark.parametrize(
    ("mix", "shares"),
    [
        (0, [0, 0, 0]),
        (1, [10, 10, 10]),
        (0.3, [3, 3, 3]),
        (diver.mix.constant(0.5), [5, 5, 5]),
        (diver.mix.linear(0.2, 1.0, epochs=5), [2, 4, 6, 8, 10, 10]),
        (diver.mix.cosine(0, 1, epochs=3), [0, 5, 10, 10]),
        (diver.mix.steps([(1, 0.5), (3, 1.0)]), [0, 5, 5, 10]),
        (diver.mix.function(lambda epoch: [0.1, 1, 0.5][epoch], epochs=3), [1, 10, 5, 5]),
        (diver.mix.steps(iter([(0, np.float32(0.5))])), [5, 5]),
    ],
    ids=repr,
)
def test_exactly_the_share_is_refined(mix: Any, shares: list[int]) -> None:
    source = diver.open(DIGITS)
    with refining(invert, batch_size=3, shuffle=True, seed=2, mix=mix) as loader:
        for share in shares:
            refined = []
            for batch in loader:
                for image, index, flag in zip(
                    batch.images, batch.indices.tolist(), batch.refined.tolist(), strict=True
                ):
                    refined += [index] * flag
                    if not flag:
                        assert image.numpy().tobytes() == source.sample(index).values.tobytes()
            assert len(refined) == share


def test_which_samples_are_refined_changes_with_the_epoch() -> None:
    with refining(invert, mix=0.5, seed=2) as loader:
        chosen = [tuple(next(iter(loader)).refined.tolist()) for _ in range(6)]
    assert len(set(chosen)) > 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: diver.mix.constant(1.5),
        lambda: diver.mix.constant("half"),  # type: ignore[arg-type]
        lambda: diver.mix.constant(float("nan")),
        lambda: diver.mix.linear(0, 2, epochs=3),
        lambda: diver.mix.linear(0, 1, epochs=0),
        lambda: diver.mix.linear(0, 1, epochs=1.5),  # type: ignore[arg-type]
        lambda: diver.mix.cosine(-1, 1, epochs=3),
        lambda: diver.mix.cosine(0, 1, epochs=2**70),
        lambda: diver.mix.function(lambda epoch: 1.5, epochs=2),
        lambda: diver.mix.function(lambda epoch: float("nan"), epochs=2),
        lambda: diver.mix.function(lambda epoch: "all", epochs=2),  # type: ignore[arg-type,return-value]
        lambda: diver.mix.function(lambda epoch: 1, epochs=0),
        lambda: diver.mix.function(0.5, epochs=2),  # type: ignore[arg-type]
        lambda: diver.mix.steps([]),
        lambda: diver.mix.steps([(5, 0.5), (2, 1.0)]),
        lambda: diver.mix.steps([(0, 1.5)]),
        lambda: diver.mix.steps([0.5, 1.0]),  # type: ignore[list-item]
        lambda: diver.mix.steps({0: 0.5}),  # type: ignore[arg-type]
        lambda: diver.mix.steps(5),  # type: ignore[arg-type]
        lambda: diver.mix.steps([(-1, 0.5)]),
        lambda: diver.mix.steps([("a", 0.5)]),  # type: ignore[list-item]
    ],
)
def test_impossible_schedules_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(OptionError):
        make()


def test_schedules_are_values() -> None:
    assert diver.mix.linear(0, 1, epochs=5) == diver.mix.linear(0.0, 1.0, epochs=5)
    assert diver.mix.linear(0, 1, epochs=5) != diver.mix.cosine(0, 1, epochs=5)
    assert diver.mix.constant(0.5).share(2**40) == 0.5
    assert "0.5" in repr(diver.mix.constant(0.5))


def test_on_miss_raw_does_not_wait_and_catches_up() -> None:
    gate = threading.Event()

    def refiner(images: np.ndarray, cancel: Any) -> np.ndarray:
        while not gate.wait(0.01) and not cancel.is_cancelled():
            pass
        return invert(images)

    with refining(refiner, on_miss="raw", batch_size=5) as loader:
        for batch in loader:
            assert not batch.refined.any()
        assert loader.stats()["raw_fallbacks"] >= 10
        gate.set()
        assert eventually(lambda: all(batch.refined.all() for batch in loader))


def test_closing_cancels_a_refinement_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    entered = threading.Event()
    noticed: list[float] = []

    def refiner(images: np.ndarray, *, cancel: Any) -> np.ndarray:
        entered.set()
        while not cancel.is_cancelled():
            time.sleep(0.005)
        noticed.append(time.monotonic())
        return invert(images)  # Too late.

    refiner.fingerprint = "v1"  # type: ignore[attr-defined]
    loader = refining(refiner, cache=tmp_path, on_miss="raw")
    next(iter(loader))
    assert entered.wait(5)
    closed = time.monotonic()
    loader.close()
    assert noticed and noticed[0] - closed < 0.5
    assert list(tmp_path.glob("*/*.parquet")) == []


def test_progress_after_the_call_is_not_heard_and_does_no_harm() -> None:
    kept: list[Any] = []

    def refiner(images: np.ndarray, cancel: Any, progress: Any) -> np.ndarray:
        kept.extend([cancel, progress])
        with pytest.raises(OptionError, match="progress"):
            progress(3, 2)
        with pytest.raises((TypeError, OverflowError, OptionError)):
            progress(-1, 2)
        return invert(images)

    assert first(refiner).refined.all()
    cancel, progress = kept[:2]
    progress(1, 2)
    assert cancel.is_cancelled(), "the loader was closed"


# The suite.


class Broken:
    """Refiners that each break one rule."""

    @staticmethod
    def random(images: np.ndarray) -> np.ndarray:
        return np.random.default_rng().integers(0, 256, images.shape, np.uint8)

    @staticmethod
    def batch_dependent(images: np.ndarray) -> np.ndarray:
        return invert(np.clip(images - images.mean() + 0.5, 0, 1))

    @staticmethod
    def too_few(images: np.ndarray) -> np.ndarray:
        return invert(images)[:1]

    @staticmethod
    def size_by_batch(images: np.ndarray) -> np.ndarray:
        return invert(images) if len(images) > 1 else invert(images)[:, :, :8, :8]

    @staticmethod
    def raising(images: np.ndarray) -> np.ndarray:
        raise RuntimeError("told to fail")

    @staticmethod
    def place_dependent(images: np.ndarray) -> np.ndarray:
        result = invert(images)
        result[1:] //= 2
        return result

    @staticmethod
    def without_variants(images: np.ndarray, keys: tuple[bytes, ...]) -> np.ndarray:
        return noisy(images, keys, np.zeros(len(keys), np.int64))

    @staticmethod
    def variants_of_others(images: np.ndarray, variants: np.ndarray) -> np.ndarray:
        return invert(images) // (2 if variants.any() else 1)

    @staticmethod
    def remembers_cancelling(images: np.ndarray, cancel: Any, progress: Any) -> np.ndarray:
        progress(1, 2)
        time.sleep(0.05)  # The listener is on another thread.
        if cancel.is_cancelled():
            Broken.offset = 7
        return invert(images) + np.uint8(Broken.offset)

    class _Released:
        """What it does changes with a release."""

        def __init__(self, then: Callable[[np.ndarray], np.ndarray]) -> None:
            self.now, self.then = invert, then

        def release(self) -> None:
            self.now = self.then

        def __call__(self, images: np.ndarray) -> np.ndarray:
            return self.now(images)

    broken_by_release = _Released(raising)
    other_after_release = _Released(lambda images: invert(images) // 2)

    offset = 0


RULES = {
    "random": "equal batches give equal bytes",
    "batch_dependent": "alone and in its batch",
    "too_few": "came back",
    "size_by_batch": "one size in every batch",
    "raising": "told to fail",
    "place_dependent": "alone and in its batch",
    "without_variants": "its variant",
    "variants_of_others": "others in its batch",
    "remembers_cancelling": "leaves nothing behind",
    "broken_by_release": "a released refiner refines again",
    "other_after_release": "a release changes no image",
}


@pytest.mark.parametrize("name", RULES)
def test_the_suite_names_the_rule_that_is_broken(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match=RULES[name]):
        refiners.check(getattr(Broken, name))


GOOD: dict[str, Callable[..., Any]] = {
    "invert": invert,
    "by label": lambda images, labels: invert(images) // (1 + labels.astype(np.uint8)[:, None, None, None]),
    "by key and variant": noisy,
    "by variant": lambda x, variants: invert(x) // (1 + variants.astype(np.uint8)[:, None, None, None]),
    "larger": lambda images: invert(images).repeat(2, 2).repeat(2, 3),
    "torch": lambda images: (torch.from_numpy(images) * 255).round().to(torch.uint8),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_refiner_passes_the_suite(name: str) -> None:
    refiners.check(GOOD[name])
    refiners.check(GOOD[name], side=5, classes=(0, 3, 9))


def test_the_suite_asks_a_refiner_with_known_classes_for_those() -> None:
    def refiner(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        assert (labels < 5).all()
        return invert(images)

    refiner.num_classes = 5  # type: ignore[attr-defined]
    refiners.check(refiner, classes=(3, 4))
    with pytest.raises(AssertionError, match="known conditioning"):
        refiners.check(refiner, classes=(4, 5))


@pytest.mark.parametrize(
    "options",
    [
        {"side": 0},
        {"side": -1},
        {"side": 1.5},
        {"side": None},
        {"classes": ()},
        {"classes": (1,)},
        {"classes": 5},
    ],
    ids=str,
)
def test_the_suite_checks_its_own_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        refiners.check(invert, **options)
    with pytest.raises(OptionTypeError, match="refiner"):
        refiners.check(5)  # type: ignore[arg-type]


# Lifetimes.


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert eventually(lambda: not threads())


@pytest.mark.parametrize("on_miss", ["raw", "wait"])
def test_a_refiner_may_collect_garbage_that_its_loader_is_part_of(on_miss: str) -> None:
    """Garbage is collected on whichever thread allocates, the refining one too, whose loader may be in it."""
    program = """
        import gc, signal, sys, threading
        from support import *

        entered, dropped = threading.Event(), threading.Event()

        def refiner(images):
            entered.set()
            dropped.wait()
            gc.collect()
            return invert(images)

        def give_up(*_):
            raise TimeoutError

        class Trainer:
            def __init__(self):
                self.itself = self
                self.loader = diver.DataLoader(DIGITS, refiner=refiner, on_miss=sys.argv[1], batch_size=5)

        def begin():
            trainer = Trainer()
            signal.signal(signal.SIGALRM, give_up)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                while True:
                    next(iter(trainer.loader))
            except TimeoutError:
                pass
            entered.wait()

        gc.disable()
        begin()
        dropped.set()
        assert eventually(lambda: not threads())
        print("done")
    """
    code, out, err = run(program, on_miss)
    assert (code, out, err) == (0, "done\n", "")


def test_a_cache_that_cannot_be_used_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with diver.DataLoader(DIGITS, refiner=inverter(), cache=tmp_path / "cache", batch_size=10) as loader:
        next(iter(loader))
    assert "not used, as the refiner has no fingerprint" in caplog.text
    assert not list((tmp_path / "cache").iterdir())


def test_images_that_are_lost_with_the_loader_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(DIGITS, tmp_path / "set")
    diver.DataLoader(tmp_path / "set", refiner=Counting("v1"), cache=tmp_path / "cache").close()
    diver.DataLoader(tmp_path / "set", refiner=inverter()).close()
    diver.DataLoader(tmp_path / "set", refiner=Counting("v1"), rank=1, world_size=2).close()
    diver.DataLoader(tmp_path / "set").close()
    assert "no cache" not in caplog.text
    for _ in range(2):
        diver.DataLoader(tmp_path / "set", refiner=Counting("v1")).close()
    assert (
        caplog.text.count("no cache is given: refined images are kept in memory and lost with the loader")
        == 1
    )


def test_labels_of_another_number_of_classes_need_a_list() -> None:
    refiner = inverter()
    refiner.num_classes = 1000  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match=r"has 10 classes, but the refiner knows 1000.*identity"):
        diver.DataLoader(DIGITS, refiner=refiner)
    diver.DataLoader(DIGITS, refiner=refiner, classes=range(10)).close()


def test_a_refiner_cannot_wait_for_its_own_loader() -> None:
    loaders = []

    def refiner(images: np.ndarray) -> np.ndarray:
        next(iter(loaders[0]))
        return invert(images)

    with diver.DataLoader(DIGITS, refiner=refiner, batch_size=10) as loader:
        loaders.append(loader)
        with pytest.raises(RefineError, match="cannot use or close the loader that waits for it"):
            next(iter(loader))
        loaders.clear()
