"""Targets: stored labels, smoothed ones, a teacher's, and averages of them, by torch's formulas."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import eventually, invert, inverter, plain, run, threads
from torch.nn import functional as F

import diver
from diver import labels
from diver.augment import CutMix, HorizontalFlip, RandomResizedCrop
from diver.errors import ClosedError, OptionError, OptionTypeError, TeachError

# Several threads wait for each other by spinning, which takes ages where other work runs beside the tests.
torch.set_num_threads(1)

COUNT, CLASSES = 12, 3
_generator = torch.Generator().manual_seed(2)
SOURCE = diver.from_tensors(
    torch.rand(COUNT, 3, 8, 8, generator=_generator), torch.arange(COUNT) % CLASSES, values="unit"
)
LOGITS = 3 * torch.randn(COUNT, CLASSES, generator=_generator)
SOFT = diver.from_tensors(torch.rand(COUNT, 3, 8, 8, generator=_generator), LOGITS, values="unit")


class Network(torch.nn.Module):
    """A small network with what behaves otherwise in training; counts the images that it sees."""

    def __init__(self, classes: int = CLASSES, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm = torch.nn.BatchNorm2d(3)
        self.drop = torch.nn.Dropout(0.5)
        self.linear = torch.nn.Linear(3 * 8 * 8, classes)
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        logits: torch.Tensor = 4 * self.linear(self.drop(self.norm(images)).flatten(1))
        return logits

    def said(self, images: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """The targets that it makes of images."""
        twin = copy.deepcopy(self).eval()
        with torch.no_grad():
            return torch.softmax(twin(images) / temperature, 1)


def loading(made: labels.Labels, **options: Any) -> diver.DataLoader:
    return diver.DataLoader(SOURCE, labels=made, **{"batch_size": 4, "shuffle": True, "seed": 5, **options})


def near(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return torch.allclose(a, b, atol=tolerance)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert eventually(lambda: not threads())


# Without a teacher.


@pytest.mark.parametrize("temperature", [0.5, 1, 20])
def test_stored_labels(temperature: float) -> None:
    made = labels.stored(temperature=temperature)
    with diver.DataLoader(SOFT, labels=made, batch_size=COUNT) as loader:
        assert near(next(iter(loader)).targets, torch.softmax(LOGITS / temperature, 1))
    with loading(made) as loader:
        batch = next(iter(loader))
    assert torch.equal(batch.targets, F.one_hot(batch.labels, CLASSES).float())


@pytest.mark.parametrize("source", [SOURCE, SOFT], ids=["hard", "soft"])
def test_smoothed_labels_train_as_torchs_do(source: diver.Source) -> None:
    with diver.DataLoader(source, labels=labels.hard(smoothing=0.3), batch_size=COUNT) as loader:
        batch = next(iter(loader))
    logits = torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(1))
    expected = F.cross_entropy(logits, batch.labels, label_smoothing=0.3)
    assert near(F.cross_entropy(logits, batch.targets), expected)
    assert near(batch.targets.amax(1), torch.tensor(0.8))


# A module.


@pytest.mark.parametrize("per", ["image", "view"])
def test_a_module_labels_images(per: str) -> None:
    network = Network()
    with loading(labels.teacher(network, temperature=4, per=per)) as loader:
        for _ in range(4):
            for batch in loader:
                assert near(batch.targets, network.said(batch.images, 4))
        assert network.seen == COUNT, "each image once"
        stats = loader.stats()
        assert (
            stats["taught"] == COUNT
            and stats["label_hits"] >= COUNT
            and stats["stages"]["teach"]["seconds"] > 0
        )


def test_raw_and_refined_images_are_labelled_as_they_are() -> None:
    network = Network()
    mix = diver.mix.steps([(0, 0.0), (1, 0.5), (2, 1.0)])
    with loading(labels.teacher(network), refiner=invert, mix=mix) as loader:
        for _ in range(3):
            for batch in loader:
                assert near(batch.targets, network.said(batch.images))
    assert network.seen == 2 * COUNT


@pytest.mark.parametrize("per", ["image", "view"])
def test_a_loss_on_logits_gets_logits(per: str) -> None:
    network = Network()
    made = labels.teacher(network, temperature=None, per=per)
    assert repr(made).endswith("temperature=None" + (", per='view')" if per == "view" else ")"))
    twin = copy.deepcopy(network).eval()
    for images, targets in loading(made, augment=[HorizontalFlip()] if per == "view" else []):
        with torch.no_grad():
            assert near(targets, twin(images))
    with pytest.raises(OptionError, match=r"teacher: its targets are logits"):
        labels.average(labels.stored(), made, weight=0.5)


def test_an_average_weighs_both() -> None:
    network = Network()
    made = labels.average(
        labels.stored(temperature=2), labels.teacher(network, temperature=2, batch_size=5), weight=0.25
    )
    with diver.DataLoader(SOFT, labels=made, batch_size=COUNT) as loader:
        images, targets = next(iter(loader))
    assert near(targets, 0.25 * torch.softmax(LOGITS / 2, 1) + 0.75 * network.said(images, 2))


def test_views_are_labelled_as_they_are() -> None:
    network = Network()
    augment = [RandomResizedCrop(), HorizontalFlip(), CutMix()]
    with loading(labels.teacher(network, temperature=20, per="view"), augment=augment) as loader:
        for _ in range(2):
            for images, targets in loader:
                assert near(targets, network.said(images, 20))
        assert loader.stats()["taught"] >= 2 * COUNT, "every epoch has its own views"


def test_labels_of_images_are_mixed_with_them() -> None:
    """One image's label is that of all of its views, and a mix of images has the mix of their labels."""
    network = Network()
    with diver.DataLoader(SOURCE, batch_size=COUNT) as loader:
        before = next(iter(loader)).images
    own = network.said(before)
    with loading(labels.teacher(network), augment=[CutMix()]) as loader:
        for batch in loader:
            for image, target, index in zip(batch.images, batch.targets, batch.indices.tolist(), strict=True):
                is_partner = (image != before[index]).any(0)
                partners = [
                    other
                    for other in range(COUNT)
                    if other != index and torch.equal(image[:, is_partner], before[other][:, is_partner])
                ]
                share = 1 - is_partner.float().mean()
                partner = own[partners[0]] if is_partner.any() else own[index]
                assert near(target, share * own[index] + (1 - share) * partner)
    assert network.seen == COUNT


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("per", ["image", "view"])
def test_a_second_run_does_not_ask(per: str, dtype: str, tmp_path: Path) -> None:
    epochs = []
    for is_second in (False, True):
        network = Network()
        made = labels.teacher(network, per=per, dtype=dtype)
        # One batch ahead, so that none of a third epoch is made.
        with loading(made, cache=tmp_path, augment=[HorizontalFlip(), CutMix()], prefetch=1) as loader:
            epochs.append([plain(batch) for _ in range(2) for batch in loader])
            assert loader.stats()["taught"] == network.seen
        assert network.seen == (0 if is_second else COUNT if per == "image" else 2 * COUNT)
    assert epochs[0] == epochs[1]


def test_the_greatest_logits_are_enough() -> None:
    network = Network(CLASSES)
    with loading(labels.teacher(network, top_k=1)) as loader:
        for images, targets in loader:
            expected = network.said(images)
            top, place = expected.max(1)
            rest = ((1 - top) / 2)[:, None].expand(-1, CLASSES).scatter(1, place[:, None], top[:, None])
            assert near(targets, rest)


@pytest.mark.parametrize("training", [True, False])
def test_a_module_stays_in_its_mode(training: bool) -> None:
    network = Network().train(training)
    network.norm.eval()  # As a frozen one is.
    mean = network.norm.running_mean
    assert mean is not None
    before = mean.clone()
    network.linear.weight.requires_grad_()
    with loading(labels.teacher(network)) as loader:
        targets = next(iter(loader)).targets
    assert not targets.requires_grad and torch.equal(mean, before)
    assert (network.training, network.norm.training, network.drop.training) == (training, False, training)
    assert torch.is_grad_enabled()


def test_a_module_that_fails_stays_in_its_mode() -> None:
    class Failing(Network):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            raise ValueError("told to fail")

    network = Failing()
    with (
        loading(labels.teacher(network)) as loader,
        pytest.raises(TeachError, match="told to fail") as caught,
    ):
        next(iter(loader))
    assert network.training and network.drop.training
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_gets_images_in_the_dtype_of_its_parameters(dtype: torch.dtype) -> None:
    dtypes = set()

    class Typed(Network):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            dtypes.add(images.dtype)
            return super().forward(images)

    network = Typed().to(dtype)
    with loading(labels.teacher(network)) as loader:
        images, targets = next(iter(loader))
    assert dtypes == {dtype} and targets.dtype == torch.float32
    assert near(targets, network.said(images.to(dtype)).float(), 1e-2)


def test_a_module_without_parameters_gets_float32() -> None:
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    with loading(labels.teacher(network)) as loader:
        images, targets = next(iter(loader))
    assert near(targets, torch.softmax(images.mean((2, 3)), 1))


# What a module is known by.


def known(module: torch.nn.Module) -> str:
    return diver.teachers.weights(module)


def test_equal_weights_are_equal_fingerprints() -> None:
    network = Network()
    assert known(network) == known(copy.deepcopy(network)) == known(Network()) == known(Network().eval())
    assert set(json.loads(known(network))) == {"teacher", "module", "parts", "weights"}
    network.requires_grad_(False)
    assert known(network) == known(Network())


def test_whatever_changes_the_logits_changes_the_fingerprint() -> None:
    class Masked(Network):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("constants", torch.ones(3), persistent=False)

    def changed(change: Callable[[Any], object]) -> str:
        network = Masked()
        change(network)
        return known(network)

    others = [
        changed(lambda network: network.linear.weight.data[0, 0].add_(1e-3)),
        changed(lambda network: network.norm.running_mean.add_(1)),
        changed(lambda network: network.constants.add_(1)),
        changed(lambda network: network.half()),
        changed(lambda network: setattr(network, "drop", torch.nn.Dropout(0.1))),
        known(Network()),
        known(Masked()),
    ]
    assert len(set(others)) == len(others)
    assert known(Masked()) == known(Masked())


def test_addresses_are_no_part_of_a_fingerprint() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation = lambda x: x

        def extra_repr(self) -> str:
            return repr(self.activation)

    one, other = Wrapped(), Wrapped()
    assert repr(one) != repr(other)
    assert known(one) == known(other)


def test_a_state_that_is_no_tensor_needs_a_fingerprint(tmp_path: Path) -> None:
    class Odd(Network):
        def get_extra_state(self) -> object:
            return object()

    with pytest.raises(OptionError, match="fingerprint: the bytes of the module's `_extra_state`"):
        loading(labels.teacher(Odd()), cache=tmp_path)
    loading(labels.teacher(Odd())).close()
    loading(labels.teacher(Odd(), fingerprint="odd"), cache=tmp_path).close()


def test_other_weights_are_asked_anew(tmp_path: Path) -> None:
    for seed, expected in [(0, COUNT), (1, COUNT), (0, 0), (1, 0)]:
        network = Network(seed=seed)
        with loading(labels.teacher(network), cache=tmp_path) as loader:
            for images, targets in loader:
                assert near(targets, Network(seed=seed).said(images))
        assert network.seen == expected


# Any callable.


class Counting:
    """Says how bright an image is in three places; counts images, and may have a fingerprint."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.float32 and images.flags.writeable
        self.sizes.append(len(images))
        logits = images.mean((1, 3))[:, [0, 3, 7]]
        images[:] = np.nan  # It is the teacher's own.
        return logits


@pytest.mark.parametrize("fingerprint", ["v1", {"weights": "v1", "crop": [1, 2]}, None], ids=str)
def test_logits_of_a_callable_are_kept_by_its_fingerprint(
    fingerprint: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for is_second in (False, True):
        teacher = Counting()
        with loading(labels.teacher(teacher, fingerprint=fingerprint), cache=tmp_path) as loader:
            for images, targets in loader:
                assert near(targets, torch.softmax(images.mean((1, 3))[:, [0, 3, 7]], 1))
        assert sum(teacher.sizes) == (0 if is_second and fingerprint else COUNT)
    assert ("no fingerprint" in caplog.text) == (fingerprint is None)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_calls_bring_as_many_images_as_are_asked_for(size: int) -> None:
    teacher = Counting()
    with loading(labels.teacher(teacher, batch_size=size), batch_size=COUNT) as loader:
        next(iter(loader))
    assert sum(teacher.sizes) == COUNT and max(teacher.sizes) == min(size, COUNT)


def _lists(images: np.ndarray) -> list[list[float]]:
    return [[float(image[0, 0, 0]), 0.0, 1.0] for image in images]


def _cancel(x: np.ndarray, cancel: Any) -> torch.Tensor:
    assert cancel.is_cancelled() is False
    return torch.from_numpy(x[:, :, 0, 0]).requires_grad_()


class Method:
    def __call__(self, *images: np.ndarray) -> Any:
        return images[0][:, :, 0, 0].astype(np.float64)


GOOD: dict[str, Callable[..., Any]] = {
    "function": lambda images: images[:, :, 0, 0],
    "other name": lambda x: x[:, :, 0, 0],
    "tensor with a gradient, and cancel": _cancel,
    "float16": lambda images: torch.from_numpy(images[:, :, 0, 0]).half(),
    "bfloat16": lambda images: torch.from_numpy(images[:, :, 0, 0]).bfloat16(),
    "integers": lambda images: (100 * images[:, :, 0, 0]).astype(np.int64),
    "strided": lambda images: images[:, :, ::-1, 0][:, :, 0],
    "lists": _lists,
    "rows": lambda images: [torch.from_numpy(image[:, 0, 0]) for image in images],
    "object": Method(),
    "module": Network().eval(),
}


@pytest.mark.parametrize("kind", GOOD)
def test_results_come_as_arrays_tensors_and_lists(kind: str) -> None:
    with loading(labels.teacher(GOOD[kind])) as loader:
        for batch in loader:
            assert near(batch.targets.sum(1), torch.ones(4))
    diver.teachers.check(GOOD[kind], shape=(3, 8, 8))


BAD: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "nothing": (lambda images: None, "NoneType came back"),
    "text": (lambda images: "logits", "str came back"),
    "dict": (lambda images: {"logits": images}, "dict came back"),
    "one row": (lambda images: images[0, :, 0, 0], r"float32 \[3\] came back"),
    "too few": (lambda images: images[1:, :, 0, 0], r"\[11, 3\] came back"),
    "too many": (lambda images: np.zeros((24, 3)), r"\[24, 3\] came back"),
    "features": (lambda images: images, r"\[12, 3, 8, 8\] came back"),
    "no classes": (lambda images: images[:, :0, 0, 0], r"\[12, 0\] came back"),
    "flags": (lambda images: images[:, :, 0, 0] > 0, "bool"),
    "complex": (lambda images: images[:, :, 0, 0] * 1j, "complex64"),
    "two": (lambda images: (torch.zeros(12, 3), torch.zeros(12, 8)), "tuple came back"),
    "NaN": (lambda images: images[:, :, 0, 0] * np.nan, "image 0 for class 0 is NaN"),
    "infinite": (lambda images: images[:, :, 0, 0] + np.inf, "is inf"),
    "beyond float32": (lambda images: np.full((len(images), 3), 1e300), "is inf"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_result_is_refused_with_what_came_back(kind: str) -> None:
    teacher, said = BAD[kind]
    with (
        loading(labels.teacher(teacher), batch_size=COUNT) as loader,
        pytest.raises(TeachError, match=said),
    ):
        next(iter(loader))


def test_other_classes_are_refused() -> None:
    with pytest.raises(OptionError, match=r"teacher: .* 4 classes, the dataset has 3"):
        loading(labels.teacher(Network(4), num_classes=4))
    with (
        loading(labels.teacher(Network(4))) as loader,
        pytest.raises(OptionError, match=r"teacher: .* 4 classes, the dataset has 3"),
    ):
        next(iter(loader))
    loading(labels.teacher(Network(), num_classes=3)).close()


@pytest.mark.parametrize("exception", [KeyError, KeyboardInterrupt, SystemExit, StopIteration, ClosedError])
def test_an_exception_is_the_cause_and_its_traceback_is_kept(exception: type[BaseException]) -> None:
    def teacher(images: np.ndarray) -> np.ndarray:
        raise exception("odd")

    with loading(labels.teacher(teacher)) as loader, pytest.raises(TeachError, match="odd") as caught:
        next(iter(loader))
    cause = caught.value.__cause__
    assert isinstance(cause, exception) and cause.__traceback__ is not None
    assert isinstance(caught.value, RuntimeError)


def test_a_loader_survives_a_batch_that_fails() -> None:
    fails = True

    def teacher(images: np.ndarray) -> np.ndarray:
        if fails:
            raise ValueError("told to fail")
        return np.zeros((len(images), CLASSES))

    with loading(labels.teacher(teacher), batch_size=COUNT, prefetch=1) as loader:
        with pytest.raises(TeachError):
            next(iter(loader))
        fails = False
        loader.set_epoch(7)  # Beyond what was made ahead.
        assert len(list(loader)) == 1, "it is tried again"


def test_a_teacher_cannot_wait_for_its_own_loader() -> None:
    loaders: list[diver.DataLoader] = []

    def teacher(images: np.ndarray) -> np.ndarray:
        next(iter(loaders[0]))
        return np.zeros((len(images), CLASSES))

    with loading(labels.teacher(teacher)) as loader:
        loaders.append(loader)
        with pytest.raises(TeachError, match="cannot use or close the loader that waits for it"):
            next(iter(loader))
        loaders.clear()


def test_closing_cancels_a_teacher_at_work() -> None:
    entered, noticed = threading.Event(), threading.Event()

    def teacher(images: np.ndarray, cancel: Any) -> np.ndarray:
        entered.set()
        if eventually(cancel.is_cancelled):
            noticed.set()
        return np.zeros((len(images), CLASSES))

    loader = loading(labels.teacher(teacher))
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            next(iter(loader))
        except diver.DiverError as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert entered.wait(5)
    loader.close()
    waiting.join(5)
    assert noticed.is_set() and isinstance(caught[0], ClosedError)
    assert eventually(lambda: not threads())


def test_a_teacher_is_called_from_one_other_thread_one_call_at_a_time() -> None:
    idents: set[int] = set()
    inside = threading.Lock()

    def teacher(images: np.ndarray) -> np.ndarray:
        assert inside.acquire(blocking=False), "two calls at once"
        idents.add(threading.get_ident())
        time.sleep(0.002)
        inside.release()
        return np.zeros((len(images), CLASSES))

    with loading(labels.teacher(teacher, batch_size=2), threads=4, batch_size=3) as loader:
        assert len(list(loader)) == 4
    assert len(idents) == 1 and threading.main_thread().ident not in idents


def test_a_teacher_may_open_sets_and_load_others() -> None:
    def teacher(images: np.ndarray) -> np.ndarray:
        with diver.DataLoader(SOFT, batch_size=5) as other:
            assert sum(len(batch.images) for batch in other) == COUNT
        torch.set_num_threads(1)
        return np.zeros((len(images), CLASSES))

    with loading(labels.teacher(teacher)) as loader:
        assert len(list(loader)) == 3


def test_a_teacher_may_be_the_first_to_import_torch() -> None:
    """And to use it in later calls: torch remembers the thread that it was imported on."""
    program = """
        import sys
        from support import *

        def teacher(images):
            import torch
            torch.set_num_threads(1)
            weights = torch.ones(3 * 32 * 32, 10, requires_grad=True)
            logits = torch.from_numpy(images).flatten(1) @ weights
            logits.sum().backward()
            return logits

        with diver.DataLoader(
            DIGITS, labels=diver.labels.teacher(teacher, batch_size=2), batch_size=4, format="numpy"
        ) as loader:
            assert "torch" not in sys.modules
            print(sum(len(batch.images) for batch in loader))
        diver.teachers.check(lambda images: teacher(images) / 100)
    """
    assert run(program) == (0, "10\n", "")


def test_a_teacher_may_collect_garbage_that_its_loader_is_part_of() -> None:
    program = """
        import gc, signal, threading
        from support import *

        entered, dropped = threading.Event(), threading.Event()

        def teacher(images):
            entered.set()
            dropped.wait()
            gc.collect()
            return np.zeros((len(images), 10))

        def give_up(*_):
            raise TimeoutError

        class Trainer:
            def __init__(self):
                self.itself = self
                made = diver.labels.teacher(teacher)
                self.loader = diver.DataLoader(DIGITS, labels=made, batch_size=5, format="numpy")

        def begin():
            trainer = Trainer()
            signal.signal(signal.SIGALRM, give_up)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
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
    assert run(program) == (0, "done\n", "")


def test_a_cache_keeps_what_a_teacher_says_without_a_refiner(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cache: without a refiner or a teacher"):
        diver.DataLoader(SOURCE, cache=tmp_path)
    with loading(labels.teacher(Network()), cache=tmp_path) as loader:
        list(loader)
    assert list(tmp_path.iterdir())


def test_images_of_an_unnamed_refiner_are_not_found_again(tmp_path: Path) -> None:
    for _ in range(2):
        network = Network()
        with loading(labels.teacher(network), refiner=inverter(), cache=tmp_path) as loader:
            list(loader)
        assert network.seen == COUNT


# What they are.


def test_labels_are_values() -> None:
    network = Network()
    made = [
        labels.stored(),
        labels.stored(temperature=2),
        labels.hard(),
        labels.hard(smoothing=0.1),
        labels.teacher(network),
        labels.teacher(network, temperature=2),
        labels.teacher(network, fingerprint="v1"),
        labels.average(labels.stored(), labels.teacher(network), weight=0.5),
    ]
    assert len(set(made)) == len(made)
    assert labels.teacher(network, temperature=np.float32(2)) == made[5]
    assert [eval(repr(one)) for one in made[:4]] == made[:4]
    assert pickle.loads(pickle.dumps(made[:4])) == made[:4]
    assert repr(made[6]).startswith("diver.labels.teacher(model=Network, fingerprint=")
    with pytest.raises(dataclasses.FrozenInstanceError):
        made[0].temperature = 3.0  # type: ignore[attr-defined]


def bright(images: np.ndarray) -> Any:
    return images[:, :, 0, 0]


BAD_ARGUMENTS: list[tuple[str, Callable[..., Any], Any]] = [
    *(("temperature", labels.stored, value) for value in (0, -1, float("nan"), float("inf"), 1e300, 1e-60, "1", None)),
    *(("temperature", labels.teacher, value) for value in (0, True, [1])),
    *(("smoothing", labels.hard, value) for value in (1, -0.1, 2, float("nan"), "a")),
    *(("fingerprint", labels.teacher, value) for value in (5, "", {}, ["v1"], {"a": object()}, {"seed": 2**64})),
    *(("per", labels.teacher, value) for value in ("images", "", None, 1)),
    *(("batch_size", labels.teacher, value) for value in (0, -1, 1.5, "32", None)),
    *(("num_classes", labels.teacher, value) for value in (0, "10", True)),
    *(("dtype", labels.teacher, value) for value in ("half", torch.float16, None)),
    *(("top_k", labels.teacher, value) for value in (0, -1, 1.0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "make", "value"), BAD_ARGUMENTS, ids=str)
def test_a_bad_argument_is_refused_by_name(name: str, make: Callable[..., Any], value: Any) -> None:
    with pytest.raises(OptionError, match=f"^{name}: "):
        make(*([bright] if make is labels.teacher else []), **{name: value})


@pytest.mark.parametrize("model", [5, "resnet18", None, [bright]], ids=str)
def test_a_model_must_be_callable(model: Any) -> None:
    for make in (labels.teacher, diver.teachers.check):
        with pytest.raises(OptionTypeError, match="model: a torch module or another callable"):
            make(model)


def test_a_signature_that_cannot_be_called_is_refused_at_once() -> None:
    for model in (
        lambda: None,
        lambda images, labels: None,
        lambda images, *, scale: None,
        lambda **all: None,
    ):
        with pytest.raises(OptionError, match="model: it"):
            labels.teacher(model)


def test_an_average_is_of_one_temperature() -> None:
    stored, teacher = labels.stored(), labels.teacher(bright)
    with pytest.raises(OptionError, match=r"temperature: the stored labels have 1.0, the teacher has 4.0"):
        labels.average(stored, labels.teacher(bright, temperature=4), weight=0.5)
    for weight in (-0.1, 1.1, float("nan"), "half"):
        with pytest.raises(OptionError, match=r"^weight: "):
            labels.average(stored, teacher, weight=weight)  # type: ignore[arg-type]
    for parts in ((labels.hard(), teacher), (stored, bright), (stored, stored), (teacher, stored)):
        with pytest.raises(OptionTypeError, match=r"^(stored|teacher): what diver\.labels\."):
            labels.average(*parts, weight=0.5)


# The suite.


class Broken:
    """Teachers that each break one rule."""

    @staticmethod
    def random(images: np.ndarray) -> Any:
        return np.random.default_rng().random((len(images), 3))

    @staticmethod
    def batch_dependent(images: np.ndarray) -> Any:
        return bright(images - images.mean())

    @staticmethod
    def constant(images: np.ndarray) -> Any:
        return np.ones((len(images), 3))

    @staticmethod
    def infinite(images: np.ndarray) -> Any:
        return bright(images) + np.inf

    @staticmethod
    def raising(images: np.ndarray) -> Any:
        raise RuntimeError("told to fail")

    class _Released:
        factor = 1

        def release(self) -> None:
            self.factor = 2

        def __call__(self, images: np.ndarray) -> Any:
            return self.factor * bright(images)

    other_after_release = _Released()


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("random", "equal calls give equal logits"),
        ("batch_dependent", "do not depend on its batch"),
        ("constant", "different images get different logits"),
        ("infinite", "is inf"),
        ("raising", "told to fail"),
        ("other_after_release", "a release changes no logits"),
    ],
)
def test_the_suite_names_the_rule_that_is_broken(name: str, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        diver.teachers.check(getattr(Broken, name))


@pytest.mark.parametrize(
    "options",
    [{"shape": (3, 8)}, {"shape": 8}, {"shape": (3, 0, 8)}, {"tolerance": -1}, {"tolerance": "1"}],
    ids=str,
)
def test_the_suite_checks_its_own_arguments(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        diver.teachers.check(bright, **options)


def test_a_module_in_training_passes_the_suite() -> None:
    diver.teachers.check(Network(), shape=(3, 8, 8))


# Losses.


def test_the_divergence_of_the_docs_is_the_methods() -> None:
    """``KLDivLoss`` of SRe2L's and RDED's training, between softmaxes at one temperature."""
    network, student, temperature = Network(), Network(seed=1).eval(), 20.0
    with loading(labels.teacher(network, temperature=temperature)) as loader:
        images, targets = next(iter(loader))
    loss = F.kl_div(F.log_softmax(student(images) / temperature, 1), targets, reduction="batchmean")
    own, other = network.said(images, temperature), student.said(images, temperature)
    assert near(loss, (own * (own / other).log()).sum(1).mean(), 1e-6)
