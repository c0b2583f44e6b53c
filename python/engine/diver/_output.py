"""What a loader's batches become: torch's tensors or numpy's arrays, in ordinary or pinned memory, on a device."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from diver import _engine, _options, _pinned, _tensors
from diver._resident import Resident
from diver.errors import OptionError


class Output:
    """Makes tensors of the engine's batches.

    Args:
        format: ``"torch"``, ``"numpy"`` or ``"auto"``.
        device: Where torch tensors go; None for the CPU.
        pin_memory: Whether they are written to pinned memory first. They always are on their way to a CUDA device.
        resident: The device that keeps the images, and that torch tensors go to; None for none.
        dtype: The engine's option, checked.
        memory_format: Likewise.

    Raises:
        OptionError: they do not go together, or cannot be had here.
        VersionError: torch is asked for, and not installed.
    """

    #: What the engine asks for memory to write images to; None for its own. It knows nothing of the loader.
    allocate: Callable[[int], tuple[Any, int, int]] | None = None
    _resident: Resident | None = None

    def __init__(
        self, format: str, device: Any, pin_memory: bool, resident: Any, *, dtype: str, memory_format: str
    ) -> None:
        if resident is not None and device is not None:
            raise OptionError(
                "device: batches come on the device that keeps the images (resident); leave device out"
            )
        name, device = ("device", device) if resident is None else ("resident", resident)
        format, self._device = _tensors.place(format, device, name)
        pin_memory = _options.boolean("pin_memory", pin_memory)
        #: Whether images stay on the device.
        self.is_resident = resident is not None
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
        import torch
        from torch.utils.dlpack import from_dlpack

        self._tensor = from_dlpack
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._is_channels_last = memory_format == "channels_last"
        if pin_memory or (self._device is not None and self._device.type == "cuda"):
            _pinned.check()
            self.allocate = _pinned.allocate

    def reside(self, shape: tuple[int, int, int], *, slots: int, rows: int) -> None:
        """Takes memory for the images, ``(C, H, W)`` each, on the device that keeps them.

        Raises:
            OptionError: the device has too little.
        """
        import torch

        self._resident = Resident(
            self._device or torch.device("cpu"),
            shape,
            self._dtype,
            is_channels_last=self._is_channels_last,
            slots=slots,
            rows=rows,
            upload=self._uploaded,
        )

    def images(self, raw: _engine.Batch, hold: Callable[[_engine.Batch], None]) -> Any:
        """Images ``[B, C, H, W]``. Called once for each batch, which does not keep pinned memory. ``hold`` is told of a
        batch whose images are on the device from now on."""
        if self._resident is None:
            return self._made(raw)
        slots = self._tensor(raw.slots)
        if raw.is_held:
            return self._resident.gather(slots)
        images = self._made(raw)
        self._resident.keep(slots, images)
        hold(raw)
        return images

    def targets(self, raw: _engine.Batch) -> Any:
        """Target distributions ``[B, classes]``, float32."""
        return self._uploaded(self._tensor(raw.targets))

    def _made(self, raw: _engine.Batch) -> Any:
        """The images that a batch has brought."""
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

    def _uploaded(self, tensor: Any) -> Any:
        """A small tensor on the device, by way of pinned memory: from ordinary memory, the copy would wait until the
        device has done all that it was asked for before."""
        return self._moved(tensor if self.allocate is None else _pinned.copied(tensor))

    def _moved(self, tensor: Any) -> Any:
        if self._device is None:
            return tensor
        return tensor.to(self._device, non_blocking=self.allocate is not None)
