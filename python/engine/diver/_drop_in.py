"""Options that this loader has not, most of them torch's: what stands in for each is said where it is given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from diver.errors import OptionTypeError

_P = ParamSpec("_P")

_NO_WORKERS = (
    "there are no worker processes: `threads` assemble batches, `prefetch` of them ahead; leave it out"
)
_ORDER = (
    "`shuffle` and `seed` decide the order, and every rank of torch.distributed, torchrun or srun gets its share of "
    "it; `rank` and `world_size` choose another"
)
_HINTS = {
    "dataset": "it is called `source` here: a path, what diver.open gives, or diver.from_tensors(images, labels)",
    "num_workers": _NO_WORKERS,
    "persistent_workers": _NO_WORKERS,
    "worker_init_fn": _NO_WORKERS,
    "multiprocessing_context": _NO_WORKERS,
    "timeout": _NO_WORKERS,
    "prefetch_factor": "it is called `prefetch` here, and counts batches of the whole loader",
    "pin_memory_device": "`device` decides it here: leave it out",
    "sampler": _ORDER,
    "batch_sampler": _ORDER,
    "in_order": "batches always come in order; leave it out",
    "generator": "`seed` decides the order here",
    "temperature": "it belongs to the labels: labels=diver.labels.stored(temperature=...)",
    "collate_fn": "batches are assembled by the engine, as images and targets: change them in the loop",
}


def hinted(init: Callable[_P, None]) -> Callable[_P, None]:
    """``init``, which says of a keyword that it does not know what is meant, or what stands in for it."""
    # All that are keywords alone have defaults.
    known: list[str] = list(getattr(init, "__kwdefaults__", None) or ())

    @functools.wraps(init)
    def checked(*arguments: _P.args, **options: _P.kwargs) -> None:
        for name in options:
            if name in _HINTS:
                raise OptionTypeError(f"{name}: {_HINTS[name]}")
            if name not in known and name != "source":
                import difflib

                close = difflib.get_close_matches(name, known, 1)
                meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
                raise OptionTypeError(f"{name}: there is no such option; {meant}")
        init(*arguments, **options)

    return checked
