from typing import Any, Protocol, final

__all__ = ["Refiner", "Tensor", "close_all", "demo"]

class _CancelToken(Protocol):
    def is_cancelled(self) -> bool: ...

class _Progress(Protocol):
    def __call__(self, done: int, total: int, /) -> object: ...

@final
class Tensor:
    @property
    def shape(self) -> tuple[int, ...]: ...
    def __dlpack__(
        self,
        *,
        stream: Any | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

@final
class Refiner:
    @staticmethod
    def load(args: str, cancel: object | None = None) -> Refiner: ...
    @property
    def description(self) -> str: ...
    @property
    def preferred_batch(self) -> int: ...
    def check_open(self) -> None: ...
    def encode(self, images: Any) -> Tensor: ...
    def sample_latents(
        self,
        z0: Any,
        labels: list[int],
        noise: Any | None,
        keys: bytes | None,
        variants: list[int],
        knobs: str,
    ) -> Tensor: ...
    def decode(self, z: Any) -> Tensor: ...
    def refine(
        self, images: Any, labels: list[int], keys: bytes | None, variants: list[int], knobs: str
    ) -> Tensor: ...
    def refine_bytes(
        self,
        images: Any,
        labels: list[int],
        keys: bytes,
        variants: list[int],
        cancel: _CancelToken | None,
        progress: _Progress | None,
    ) -> Tensor: ...
    def release(self) -> bool: ...
    def close(self) -> None: ...

def close_all() -> None: ...
def demo(args: str, cancel: _CancelToken) -> str: ...
