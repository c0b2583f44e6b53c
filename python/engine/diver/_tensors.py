"""The engine's tensors as torch's or numpy's, on the same memory."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

from diver import _engine
from diver.errors import OptionError, VersionError


def converter(format: str, device: Any) -> Callable[[_engine.Tensor], Any]:
    """What makes a tensor of ``format`` on ``device``."""
    if format not in ("auto", "torch", "numpy"):
        raise OptionError(f"format: {format!r} is none of 'auto', 'torch', 'numpy'")
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
        # With its index: what the current device is, each thread has for itself.
        target = torch.empty(0, device=torch.device(device)).device
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


def like(array: Any, values: list[Any]) -> Any:
    """Integers or flags in the format of ``array``, and on its device."""
    if type(array).__module__.startswith("numpy"):
        import numpy

        return numpy.array(values)
    import torch

    return torch.tensor(values, device=array.device)
