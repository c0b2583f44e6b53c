"""The engine's tensors as torch's or numpy's, on the same memory."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

from diver import _engine, _options, _ranks
from diver.errors import OptionError, VersionError


def converter(format: str, device: Any) -> Callable[[_engine.Tensor], Any]:
    """What makes a tensor of ``format`` on ``device``."""
    format = _options.choice("format", format, ("auto", "torch", "numpy"))
    if format == "auto":
        there = sys.modules.get("torch") or importlib.util.find_spec("torch")
        format = "torch" if there else "numpy"
    if format == "numpy":
        if device is not None:
            raise OptionError("device: numpy arrays stay on the CPU; give format='torch', or no device")
        return numpy_array
    try:
        import torch
        import torch.utils.dlpack
    except ImportError as error:
        raise VersionError("format='torch' needs torch: install it, or give format='numpy'") from error
    from_dlpack: Callable[[_engine.Tensor], Any] = torch.utils.dlpack.from_dlpack
    if device is None:
        return from_dlpack
    try:
        target = torch.device(device)
        if target.type == "cuda" and target.index is None:
            target = torch.device("cuda", _ranks.own_card(torch))
        # With its index: what the current device is, each thread has for itself.
        target = torch.empty(0, device=target).device
    except (RuntimeError, TypeError, AssertionError, ImportError) as error:
        raise OptionError(f"device: {device!r} cannot be used: {error}") from error
    if target.type == "cpu":
        return from_dlpack
    return lambda tensor: from_dlpack(tensor).to(target)


def numpy_array(tensor: _engine.Tensor) -> Any:
    """A numpy array that can be written to."""
    import numpy

    values = numpy.from_dlpack(tensor)
    # numpy before 2.1 takes every capsule for read-only.
    return values if values.flags.writeable else values.copy()


#: Names of dtypes in safetensors, by numpy's.
_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint16": "U16",
    "uint32": "U32",
    "uint64": "U64",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
}


def as_safetensors(tensors: dict[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    """Tensors by name as a safetensors file would hold them: an 8-byte length, a header in JSON, and the values.

    Raises:
        OptionError: one is no tensor, or of a dtype that no image or label has.
    """
    header: dict[str, dict[str, Any]] = {"__metadata__": metadata} if metadata else {}
    parts: list[bytes] = []
    end = 0
    for name, given in tensors.items():
        values = _as_numpy(name, given)
        known = _DTYPES.get(values.dtype.name)
        if known is None:
            raise OptionError(f"{name}: dtype {values.dtype} is not one of {', '.join(_DTYPES)}")
        content = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        header[name] = {
            "dtype": known,
            "shape": list(values.shape),
            "data_offsets": [end, end + len(content)],
        }
        parts.append(content)
        end += len(content)
    text = json.dumps(header).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def _as_numpy(name: str, given: Any, least: tuple[()] | None = None) -> Any:
    """``given`` as an array; one without dimensions where ``least`` is an empty shape."""
    import numpy

    refused = f"{name}: a tensor or an array is expected, not {type(given).__name__}"
    if isinstance(given, (list, tuple)) and any(hasattr(item, "detach") for item in given):
        # Tensors one by one, as a list of images or of labels without dimensions.
        parts = [_as_numpy(f"{name}[{at}]", item, ()) for at, item in enumerate(given)]
        if len({part.shape for part in parts}) > 1:
            shapes = sorted({part.shape for part in parts})
            raise OptionError(f"{name}: the tensors have different shapes, as {shapes[0]} and {shapes[1]}")
        return numpy.stack(parts)
    try:
        if hasattr(given, "detach"):
            # A tensor of torch, which need not be imported to be used. numpy has no bfloat16.
            given = given.detach().cpu()
            if str(given.dtype) == "torch.bfloat16":
                given = given.float()
            given = given.resolve_conj().resolve_neg()
        values = numpy.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        # Sparse ones, and those without values, are tensors and none that can be read: torch says which.
        raise OptionError(f"{refused}: {str(error).splitlines()[0]}") from error
    if values.dtype == object or (values.ndim == 0 and least is None):
        raise OptionError(refused)
    return values


def like(array: Any, values: list[Any]) -> Any:
    """Integers or flags in the format of ``array``, and on its device."""
    if type(array).__module__.startswith("numpy"):
        import numpy

        return numpy.array(values)
    import torch

    return torch.tensor(values, device=array.device)
