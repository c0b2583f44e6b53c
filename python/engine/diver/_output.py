"""What a loader's batches become: torch's tensors or numpy's arrays, in ordinary or pinned memory, on a device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from diver import _engine, _options, _pinned, _tensors
from diver.errors import OptionError


class Output:
    """Makes tensors of the engine's batches.

    Args:
        format: ``"torch"``, ``"numpy"`` or ``"auto"``.
        device: Where torch tensors go; None for the CPU.
        pin_memory: Whether they are written to pinned memory first. They always are on their way to a CUDA device.
        dtype: The engine's option, checked.
        memory_format: Likewise.

    Raises:
        OptionError: they do not go together, or cannot be had here.
        VersionError: torch is asked for, and not installed.
    """

    #: What the engine asks for memory to write images to; None for its own. It knows nothing of the loader.
    allocate: Callable[[int], tuple[Any, int, int]] | None = None

    def __init__(self, format: str, device: Any, pin_memory: bool, *, dtype: str, memory_format: str) -> None:
        format, self._device = _tensors.place(format, device)
        pin_memory = _options.boolean("pin_memory", pin_memory)
        if format == "numpy":
            if dtype == "bfloat16":
                raise OptionError(
                    "dtype: numpy has no bfloat16; give another dtype, or format='torch' where torch is installed"
                )
            if pin_memory:
                raise OptionError(
                    "pin_memory: numpy arrays cannot be pinned; leave it out, or give format='torch'"
                )
            self._tensor: Callable[[_engine.Tensor], Any] = _tensors.numpy_array
            return
        from torch.utils.dlpack import from_dlpack

        self._tensor = from_dlpack
        if pin_memory or (self._device is not None and self._device.type == "cuda"):
            import torch

            _pinned.check()
            self.allocate = _pinned.allocate
            self._dtype: torch.dtype = getattr(torch, dtype)
            self._is_channels_last = memory_format == "channels_last"

    def images(self, raw: _engine.Batch) -> Any:
        """Images ``[B, C, H, W]``. Called once for each batch, which does not keep pinned memory."""
        images = raw.images
        if images is not None:
            return self._moved(self._tensor(images))
        batch, channels, height, width = shape = raw.shape
        size = math.prod(shape) * self._dtype.itemsize
        # The memory has room for a full batch.
        values = raw.take_memory()[:size].view(self._dtype)
        if self._is_channels_last:
            return self._moved(values.view(batch, height, width, channels).permute(0, 3, 1, 2))
        return self._moved(values.view(shape))

    def targets(self, raw: _engine.Batch) -> Any:
        """Target distributions ``[B, classes]``, float32."""
        targets = self._tensor(raw.targets)
        # From ordinary memory, a copy to the device waits for all that the device has to do before.
        return self._moved(targets if self.allocate is None else _pinned.copied(targets))

    def _moved(self, tensor: Any) -> Any:
        if self._device is None:
            return tensor
        return tensor.to(self._device, non_blocking=self.allocate is not None)
