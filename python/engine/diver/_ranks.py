"""Which share of an epoch belongs to this process, and which graphics card."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any, NamedTuple, SupportsIndex

from diver import _engine, _options
from diver.errors import OptionError

_ARGUMENTS = "arguments"
_TORCH = "torch.distributed"


class Ranks(NamedTuple):
    """The rank of this process among the processes that share an epoch."""

    rank: int
    world_size: int
    #: What decided them; None if there is one process because nothing says otherwise.
    origin: str | None

    def __str__(self) -> str:
        origin = "" if self.origin is None else f" ({self.origin})"
        return f"rank {self.rank} of {self.world_size}{origin}"


def decided(rank: SupportsIndex | None, world_size: SupportsIndex | None) -> Ranks:
    """The ranks of the arguments, else of ``torch.distributed`` if it is initialised, else of the environment.

    Raises:
        OptionError: one of the two is missing, or they have values that ranks cannot have.
    """
    if rank is not None and world_size is not None:
        world = _options.integer("world_size", world_size, least=1)
        here = _options.integer("rank", rank)
        if here >= world:
            raise OptionError(f"rank: {here} of {world}: ranks run from 0 to world_size - 1")
        return Ranks(here, world, _ARGUMENTS)
    if rank is not None or world_size is not None:
        given, missing = ("rank", "world_size") if world_size is None else ("world_size", "rank")
        raise OptionError(f"{given}: {missing} is missing; pass both rank and world_size, or neither")
    return _of_torch() or Ranks(*_engine.ranks_from_env())


def newer(ranks: Ranks) -> Ranks | None:
    """The ranks that ``torch.distributed`` says, if they are not ``ranks`` and the program did not pass those itself:
    it was initialised after ``ranks`` were decided."""
    if ranks.origin == _ARGUMENTS:
        return None
    found = _of_torch()
    return None if found is None or found[:2] == ranks[:2] else found


def say(ranks: Ranks) -> None:
    """Logs, once in a process, which of several ranks it is, unless the program passed that itself."""
    if ranks.world_size > 1 and ranks.origin != _ARGUMENTS and ranks not in _SAID:
        _SAID.add(ranks)
        _LOG.warning("%s: the loaders of this process stream the share of this rank", ranks)


def _of_torch() -> Ranks | None:
    # A process that has not imported it has no group either.
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return Ranks(distributed.get_rank(), distributed.get_world_size(), _TORCH)


def own_card(torch: ModuleType | Any) -> int:
    """The index of this process's own CUDA device: torch's current one if the program has chosen it, else that of the
    local rank, else 0.

    Raises:
        OptionError: there are more processes on this machine than devices.
    """
    # Every process starts at 0, so that 0 is no choice. And to ask for it would start CUDA.
    if torch.cuda.is_initialized() and (current := torch.cuda.current_device()) > 0:
        return int(current)
    return _engine.own_card(torch.cuda.device_count())


#: What was logged.
_SAID: set[Ranks] = set()

_LOG = logging.getLogger(__name__)
