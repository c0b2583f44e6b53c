from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

from diver.refiners import Adapter

__all__ = [
    "Batch",
    "Cache",
    "CancelToken",
    "Loader",
    "Making",
    "Mix",
    "Progress",
    "SoftLabels",
    "Source",
    "Tensor",
    "check_refiner",
    "join_threads",
    "open",
    "run_command",
    "source_pixels",
]

@final
class Tensor:
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@final
class Batch:
    @property
    def images(self) -> Tensor: ...
    @property
    def targets(self) -> Tensor: ...
    @property
    def labels(self) -> list[int]: ...
    @property
    def indices(self) -> list[int]: ...
    @property
    def refined(self) -> list[bool]: ...

@final
class Cache:
    def __new__(cls, folder: str) -> Cache: ...
    @property
    def path(self) -> Path: ...

@final
class CancelToken:
    def __new__(cls) -> CancelToken: ...
    def is_cancelled(self) -> bool: ...
    def cancel(self) -> None: ...

@final
class Progress:
    def __call__(self, done: int, total: int) -> None: ...

@final
class Mix:
    @staticmethod
    def constant(share: float) -> Mix: ...
    @staticmethod
    def linear(start: float, end: float, epochs: int) -> Mix: ...
    @staticmethod
    def cosine(start: float, end: float, epochs: int) -> Mix: ...
    @staticmethod
    def steps(steps: Sequence[tuple[int, float]]) -> Mix: ...
    def share(self, epoch: int) -> float: ...

@final
class Source:
    def info(self) -> str: ...
    @property
    def path(self) -> Path: ...
    def __len__(self) -> int: ...
    def sample(self, index: int) -> tuple[bytes, bool, int, list[float] | None, bytes]: ...

@final
class Loader:
    def __new__(
        cls,
        source: Source,
        *,
        refiner: Adapter | None,
        cache: Cache | None,
        classes: list[int] | str | None,
        mix: Mix | None,
        on_miss: str,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        shard: tuple[int, int],
        uneven: str,
        image_size: tuple[int, int] | None,
        temperature: float,
        memory_limit: int,
        threads: int,
        prefetch: int,
    ) -> Loader: ...
    def __len__(self) -> int: ...
    @property
    def class_map(self) -> list[int] | None: ...
    def start_epoch(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    def next_batch(self, epoch: int) -> Batch | None: ...
    def state(self) -> str: ...
    def load_state(self, state: str) -> None: ...
    def stats(self) -> str: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...

@final
class SoftLabels:
    def __new__(cls, tree: str, images: Source, teacher_size: int) -> SoftLabels: ...
    @property
    def epochs(self) -> int: ...
    @property
    def batches(self) -> int: ...
    def make(self, epoch: int, batch: int, size: int) -> Making: ...

@final
class Making:
    def result(self) -> tuple[Tensor, Tensor, list[int]]: ...

def open(
    path: str,
    *,
    content: bytes | None,
    dataset: str | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    experiment: int | None,
    num_classes: int | None,
    classes: list[int] | str | None,
    values: str | None,
    zca: str | None,
    factor: int | None,
    canvas: int | None,
) -> Source: ...
def source_pixels(source: Source, indices: Sequence[int]) -> Tensor: ...
def check_refiner(adapter: Adapter, side: int, classes: list[int]) -> None: ...
def join_threads() -> None: ...
def run_command(
    args: list[str],
    make_refiner: Callable[[str, CancelToken], Adapter],
    demo: Callable[[str, CancelToken], str],
) -> int: ...
