"""Images that stay on a device: each is copied there when it first comes, and gathered there from then on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from diver.errors import OptionError

if TYPE_CHECKING:
    import torch


class Resident:
    """The images of a set, as its batches have them, on a device.

    The engine numbers images by slots, of which one set may use only some: an image gets the next row when it comes.

    Args:
        device: Where the images stay.
        shape: ``(C, H, W)`` of each.
        dtype: Of torch's.
        is_channels_last: Whether batches are.
        slots: How many the engine has.
        rows: How many of them may come at most.
        upload: Copies a small tensor to the device, without waiting for what the device does.

    Raises:
        OptionError: the device has no memory for them.
    """

    def __init__(
        self,
        device: torch.device,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        *,
        is_channels_last: bool,
        slots: int,
        rows: int,
        upload: Callable[[Any], Any],
    ) -> None:
        import torch

        channels, height, width = shape
        size = (height, width, channels) if is_channels_last else shape
        try:
            self._images = torch.empty((rows, *size), dtype=dtype, device=device)
        except RuntimeError as error:
            needed = rows * math.prod(shape) * dtype.itemsize
            raise OptionError(
                f"resident: there is no memory for {rows} images ({needed} bytes) on {device}: {error}"
            ) from error
        self._is_channels_last = is_channels_last
        self._upload = upload
        #: The row of each slot; -1 for images that have not come.
        self._rows = torch.full((slots,), -1)
        self._taken = 0

    def keep(self, slots: torch.Tensor, images: torch.Tensor) -> None:
        """Copies images ``[B, C, H, W]``, which are on the device, to the rows of their slots ``[B]``."""
        import torch

        # A sample that pads its batch comes twice.
        new: torch.Tensor = torch.unique(slots[self._rows[slots] < 0])
        self._rows[new] = torch.arange(self._taken, self._taken + len(new))
        self._taken += len(new)
        if self._is_channels_last:
            images = images.permute(0, 2, 3, 1)
        self._images.index_copy_(0, self._upload(self._rows[slots]), images)

    def gather(self, slots: torch.Tensor) -> torch.Tensor:
        """The images of slots ``[B]`` that have come, as a new tensor ``[B, C, H, W]``."""
        images = self._images.index_select(0, self._upload(self._rows[slots]))
        return images.permute(0, 3, 1, 2) if self._is_channels_last else images
