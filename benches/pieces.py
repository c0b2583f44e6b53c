"""What a block of DiT-XL/2 spends between its matrix products, and what other kernels would take for the same.

Each piece is timed alone, on tensors of the shapes and strides that diver's sampling loop makes: attention by each
implementation that torch has, and normalisation, modulation and gate as diver's separate calls beside one fused
kernel (torch.compile's). An own kernel pays if the fused one is much the faster.

Prints a table, and writes it as JSON where it is asked to. Needs torch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import layer_norm, scaled_dot_product_attention

HEADS, WIDTH, TOKENS = 16, 72, 256
HIDDEN = HEADS * WIDTH


def seconds(piece: Callable[[], Any], device: torch.device, runs: int) -> float:
    """Median time of a call once it is warm; several calls are timed together, as they follow one another in a loop."""
    together = 20 if device.type == "cuda" else 1

    def run() -> float:
        started = time.perf_counter()
        for _ in range(together):
            piece()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - started) / together

    run()
    return statistics.median(run() for _ in range(runs))


def attention(rows: int, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Attention of `rows` sequences: torch's own choice, then each implementation."""
    qkv = torch.randn(rows, TOKENS, 3, HEADS, WIDTH, device=device, dtype=dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    yield "attention, torch's choice", lambda: scaled_dot_product_attention(q, k, v)

    def attend(backend: SDPBackend) -> None:
        with sdpa_kernel(backend):
            scaled_dot_product_attention(q, k, v)

    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        backend = getattr(SDPBackend, name)
        yield f"attention, {name.removesuffix('_ATTENTION').lower()}", lambda backend=backend: attend(backend)


def between(rows: int, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What lies between two products of a block: the gate of one part, and the next one's normalisation."""
    h, update = torch.randn(2, rows, TOKENS, HIDDEN, device=device, dtype=dtype)
    gate, shift, scale = torch.randn(3, rows, 1, HIDDEN, device=device, dtype=dtype)

    def modulated(h: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(shift, layer_norm(h, [HIDDEN], eps=1e-6), scale)

    # The compiler puts `h` where it likes; eagerly it stays where it is.
    def separate(h: torch.Tensor) -> torch.Tensor:
        return modulated(h.addcmul_(gate, update))

    @torch.compile(dynamic=False)
    def fused(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.addcmul(h, gate, update)
        return h, modulated(h)

    yield "gate, norm and modulation, separate", lambda: separate(h)
    yield "gate, norm and modulation, fused", lambda: fused(h)
    yield "gate alone", lambda: h.addcmul_(gate, update)
    yield "norm alone", lambda: layer_norm(h, [HIDDEN], eps=1e-6)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All pieces; None instead of a time where torch refuses one."""
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    # A guided image is two rows.
    rows = 2 * arguments.batch
    found: dict[str, float | None] = {}
    with torch.inference_mode():
        for pieces in (attention, between):
            for name, piece in pieces(rows, device, dtype):
                try:
                    found[name] = 1e3 * seconds(piece, device, arguments.runs)
                except RuntimeError as error:
                    print(f"{name}: {str(error).splitlines()[0]}")
                    found[name] = None
    return {"batch": arguments.batch, "dtype": arguments.dtype, "ms": found}


def table(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = [f"One block, batch {found['batch']}, {found['dtype']}", "", "| piece | ms |", "|:--|--:|"]
    lines += [f"| {name} | {'refused' if ms is None else f'{ms:.4f}'} |" for name, ms in found["ms"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", type=Path, help="file to write what was found to")
    arguments = parser.parse_args()
    found = measure(arguments)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
