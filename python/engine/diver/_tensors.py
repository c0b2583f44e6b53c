"""The engine's tensors as torch's or numpy's, on the same memory."""

from __future__ import annotations

import importlib.util
import json
import numbers
import sys
from collections.abc import Callable
from typing import Any

from diver import _engine, _options, _ranks
from diver.errors import OptionError, VersionError


def converter(format: str, device: Any) -> Callable[[_engine.Tensor], Any]:
    """What makes a tensor of ``format`` on ``device``."""
    format, target = place(format, device)
    if format == "numpy":
        return numpy_array
    from torch.utils.dlpack import from_dlpack

    return from_dlpack if target is None else lambda tensor: from_dlpack(tensor).to(target)


def place(format: str, device: Any, name: str = "device") -> tuple[str, Any]:
    """``"torch"`` or ``"numpy"``, whichever ``format`` means here; and torch's device, with its index, or None where
    tensors stay on the CPU. ``name`` is the option that the device was given by.

    Raises:
        OptionError: the device is not there, or numpy cannot use it.
        VersionError: torch is asked for, and not installed.
    """
    format = _options.choice("format", format, ("auto", "torch", "numpy"))
    if format == "auto":
        there = sys.modules.get("torch") or importlib.util.find_spec("torch")
        format = "torch" if there else "numpy"
    if format == "numpy":
        if device is not None:
            raise OptionError(f"{name}: numpy arrays stay on the CPU; give format='torch', or no {name}")
        return format, None
    try:
        import torch
    except ImportError as error:
        raise VersionError("format='torch' needs torch: install it, or give format='numpy'") from error
    if device is None:
        return format, None
    try:
        target = torch.device(device)
        if target.type == "cuda" and target.index is None:
            target = torch.device("cuda", _ranks.own_card(torch))
        # With its index: what the current device is, each thread has for itself.
        target = torch.empty(0, device=target).device
    except (RuntimeError, TypeError, AssertionError, ImportError) as error:
        raise OptionError(f"{name}: {device!r} cannot be used: {error}") from error
    return format, None if target.type == "cpu" else target


def numpy_array(tensor: _engine.Tensor) -> Any:
    """A numpy array that can be written to."""
    import numpy

    values = numpy.from_dlpack(tensor)
    # numpy before 2.1 takes every capsule for read-only.
    return values if values.flags.writeable else values.copy(order="K")


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
        values = as_numpy(name, given)
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


#: Modes of Pillow's that `convert("RGB")` shows as they look, but for alpha, which is dropped.
_COLOURS = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}


def is_picture(image: Any) -> bool:
    """Whether it is an image of Pillow's, which need not be imported to be used."""
    return hasattr(image, "convert") and hasattr(image, "mode")


def _picture(name: str, image: Any) -> Any:
    """An image of Pillow's as bytes, as the reader of image files turns it into them."""
    import numpy

    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips.
        grey = (numpy.asarray(image).astype("uint32") + 128) // 257
        return grey.astype("uint8")[None].repeat(3, axis=0)
    if image.mode not in _COLOURS:
        raise OptionError(
            f"{name}: the image has Pillow's mode {image.mode!r}, which does not say what is black and what is white: "
            "pass an array instead (numpy.asarray(image)), and say what its values are (values=)"
        )
    return numpy.asarray(image.convert("RGB")).transpose(2, 0, 1)


def as_numpy(name: str, given: Any, is_item: bool = False) -> Any:
    """``given`` as an array: an item of a list may be one picture, or have no dimensions.

    Raises:
        OptionError: it is no tensor and no array of numbers, or holds several of different shapes.
    """
    import numpy

    refused = f"{name}: a tensor or an array is expected, not {type(given).__name__}"
    if is_picture(given) and is_item:
        return _picture(name, given)
    items = given if isinstance(given, (list, tuple)) else []
    if any(hasattr(item, "detach") or is_picture(item) for item in items):
        # Tensors or pictures one by one, as a list of images or of labels without dimensions.
        parts = [as_numpy(f"{name}[{at}]", item, True) for at, item in enumerate(given)]
        if len({part.shape for part in parts}) > 1:
            shapes = sorted({part.shape for part in parts})
            raise OptionError(f"{name}: the items have different shapes, as {shapes[0]} and {shapes[1]}")
        return numpy.stack(parts)
    if any(numpy.ma.is_masked(item) for item in [given, *items]):
        raise OptionError(f"{name}: the array has masked values: fill them in first, as with array.filled(0)")
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
    if is_picture(given) or (values.ndim == 0 and not is_item):
        raise OptionError(refused)
    if values.dtype == object:
        flat = values.ravel()
        odd = [at for at, item in enumerate(flat) if not isinstance(item, numbers.Number)]
        if values.ndim == 1 and odd and not hasattr(flat[odd[0]], "__len__"):
            kind = type(flat[odd[0]]).__name__
            raise OptionError(f"{name}[{odd[0]}]: a number is expected, not {kind}")
        raise OptionError(
            f"{name}: expected an array of numbers, found one of Python objects: convert it first, as with "
            "numpy.stack(list(array))"
        )
    return values


def like(array: Any, values: list[Any]) -> Any:
    """Integers or flags in the format of ``array``, and on its device."""
    if type(array).__module__.startswith("numpy"):
        import numpy

        return numpy.array(values)
    import torch

    return torch.tensor(values, device=array.device)
