"""Tensors and arrays of any kind on their way to the extension, and its tensors on their way back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, SupportsIndex, TypeAlias, cast

import numpy as np
import torch
import torch.utils.dlpack

from diver import _options
from diver.errors import OptionError, OptionTypeError
from diver_refiner import _refiner


class SupportsDlpack(Protocol):
    """A tensor of another library."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


#: Tensors that are taken: torch's, numpy's, and those of any library with DLPack.
TensorLike: TypeAlias = torch.Tensor | np.ndarray[Any, Any] | SupportsDlpack
#: Integers, one for each image, that are taken.
IntegersLike: TypeAlias = Sequence[SupportsIndex] | TensorLike


def floats(name: str, value: TensorLike, shape: tuple[int | str, ...], device: torch.device) -> torch.Tensor:
    """``value`` as a tensor of its own kind for the extension: float32, row-major, on ``device``.

    ``shape`` has a number where a side must be that, and a name where it may be any from 1 up.
    """
    tensor = _tensor(name, value, "a tensor or array of floats")
    if not tensor.is_floating_point():
        hint = "; divide by 255" if tensor.dtype == torch.uint8 else ""
        raise OptionTypeError(f"{name}: floats are expected, not {_name(tensor.dtype)}{hint}")
    sides = list(tensor.shape)
    fits = len(sides) == len(shape) and all(
        side >= 1 if isinstance(expected, str) else side == expected
        for side, expected in zip(sides, shape, strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, shape))
        raise OptionError(f"{name}: a shape {sides} was given, [{expected}] is expected")
    if tensor.layout != torch.strided or tensor.is_meta:
        raise OptionError(f"{name}: a dense tensor with values is expected")
    # A copy in any case: the caller may change its tensor while the extension's thread is still at work.
    tensor = tensor.detach().to(device=device, dtype=torch.float32, copy=True).resolve_neg().contiguous()
    if tensor.is_cuda:
        # The extension's thread computes on a stream of its own.
        torch.cuda.synchronize(tensor.device)
    return tensor


def images(name: str, value: TensorLike, device: torch.device) -> torch.Tensor:
    """Images ``[B, 3, H, W]`` with values in [0, 1]."""
    tensor = floats(name, value, ("B", 3, "H", "W"), device)
    if not bool(((tensor >= 0) & (tensor <= 1)).all()):
        outside = ~((tensor >= 0) & (tensor <= 1))
        image = int(outside.flatten(1).any(1).nonzero()[0, 0])
        found = float(tensor[image][outside[image]][0])
        if not bool(tensor.isfinite().all()):
            hint = "values must be finite"
        elif bool((tensor >= 0).all()) and bool((tensor <= 255).all()) and float(tensor.max()) > 16:
            hint = "if these are bytes, divide by 255"
        else:
            hint = "undo the normalisation, then clamp"
        raise OptionError(f"{name}: image {image} has a value {found:g}, outside [0, 1]; {hint}")
    return tensor


def latents(name: str, value: TensorLike, shape: tuple[int, int, int], device: torch.device) -> torch.Tensor:
    """Finite latents ``[B, C, h, w]``; ``shape`` is ``[C, h, w]``."""
    tensor = floats(name, value, ("B", *shape), device)
    if not bool(tensor.isfinite().all()):
        raise OptionError(f"{name}: it has values that are not finite")
    return tensor


def labels(value: IntegersLike, count: int, what: str, classes: int) -> list[int]:
    """``count`` class indices below ``classes``; ``what`` says of what they are the classes."""
    indices = _integers("labels", value, count, what)
    for position, index in enumerate(indices):
        if not 0 <= index < classes:
            raise OptionError(
                f"labels: {index} (at position {position}) is no class of the backbone, which knows 0 to "
                f"{classes - 1}"
            )
    return indices


def variants(value: IntegersLike | None, count: int, what: str) -> list[int]:
    """``count`` integers of 32 bits, all 0 by default; ``what`` says of what they are the variants."""
    if value is None:
        return [0] * count
    numbers = _integers("variants", value, count, what)
    return _options.integers("variants", numbers, most=2**32 - 1)


def _integers(name: str, value: IntegersLike, count: int, what: str) -> list[int]:
    if isinstance(value, torch.Tensor | np.ndarray) or hasattr(value, "__dlpack__"):
        tensor = _tensor(name, cast(TensorLike, value), "a sequence of integers")
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise OptionTypeError(f"{name}: integers are expected, not {_name(tensor.dtype)}")
        if tensor.dim() != 1:
            raise OptionError(f"{name}: a shape {list(tensor.shape)} was given, [{count}] is expected")
        numbers = [int(number) for number in tensor.tolist()]
    elif isinstance(value, str | bytes) or not isinstance(value, Iterable):
        _options.wrong_type(name, value, "a sequence of integers")
    else:
        # The caller knows the range.
        wide = _options.SEED
        numbers = [
            _options.integer(f"{name}[{position}]", number, least=-wide, most=wide)
            for position, number in enumerate(value)
        ]
    if len(numbers) != count:
        raise OptionError(f"{name}: {len(numbers)} were given for {count} {what}")
    return numbers


def keys(value: Iterable[bytes | str], count: int) -> bytes:
    """``count`` digests, one after the other; each is 32 bytes or their 64 hex digits."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        _options.wrong_type("keys", value, "a sequence of digests")
    digests = [_digest(position, key) for position, key in enumerate(value)]
    if len(digests) != count:
        raise OptionError(f"keys: {len(digests)} were given for {count} images")
    return b"".join(digests)


def _digest(position: int, key: object) -> bytes:
    expected = "32 bytes or 64 hex digits"
    if isinstance(key, str):
        try:
            digest = bytes.fromhex(key) if len(key) == 64 else b""
        except ValueError:
            digest = b""
    elif isinstance(key, bytes | bytearray | memoryview):
        digest = bytes(key)
    else:
        _options.wrong_type(f"keys[{position}]", key, expected)
    if len(digest) != 32:
        raise OptionError(f"keys[{position}]: {key!r} is no digest: {expected} are expected")
    return digest


def from_rust(tensor: _refiner.Tensor) -> torch.Tensor:
    """A tensor of the extension's as torch's, on the same memory."""
    result: torch.Tensor = torch.utils.dlpack.from_dlpack(tensor)
    return result


def _tensor(name: str, value: TensorLike, expected: str) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    try:
        if isinstance(value, np.ndarray):
            return _of_numpy(name, value, expected)
        if hasattr(value, "__dlpack__"):
            tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(value)
            return tensor
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, OptionTypeError):
            raise
        raise OptionError(f"{name}: torch cannot take it over: {error}") from error
    _options.wrong_type(name, value, expected)


def _of_numpy(name: str, array: np.ndarray[Any, Any], expected: str) -> torch.Tensor:
    if array.dtype.kind not in "fiu":
        raise OptionTypeError(f"{name}: {expected} is expected, not an array of {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)  # torch knows no longer one.
    # torch takes arrays in native byte order and without negative strides, and warns of those that are
    # read-only.
    array = np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["A", "C", "W"])
    return torch.from_numpy(array)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
