"""Pinned memory: what a CUDA device copies from by itself, while the program goes on."""

from __future__ import annotations

from typing import Any

from diver.errors import OptionError


def check() -> None:
    """Refuses what torch cannot pin.

    Raises:
        OptionError: there is no device that memory could be pinned for.
    """
    import torch

    # Asked first: without a driver torch's own words are many.
    if not torch.cuda.is_available():
        raise OptionError(
            "pin_memory: torch finds no CUDA device, and pins memory only for one; leave pin_memory out on this machine"
        )


def empty(size: int) -> Any:
    """``size`` bytes, ``[size]``, uint8.

    They come from torch's caching allocator of pinned memory, and go back to it with their last tensor. The allocator
    notes every stream that copies from them (``to(..., non_blocking=True)``), and gives them out again only when those
    copies are over: so a batch may be dropped as soon as its copy has been asked for.
    """
    import torch

    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def allocate(size: int) -> tuple[Any, int, int]:
    """Pinned bytes, their address and their number, for the engine to write to."""
    memory = empty(size)
    return memory, memory.data_ptr(), memory.numel()


def copied(tensor: Any) -> Any:
    """A copy in pinned memory of a small contiguous tensor, ``torch.Tensor.pin_memory`` as tests can replace it."""
    memory = empty(tensor.numel() * tensor.element_size())
    return memory.view(tensor.dtype).view(tensor.shape).copy_(tensor)
