"""What a refinement of full size does on a GPU: the most memory that libtorch's allocator gave out, and how long which
kernels of the sampling loop run.

The network has random weights. It runs in this process, on the libtorch of Python's torch, so
that torch can be asked: `torch.cuda.max_memory_allocated`, which leaves out CUDA's own share and what the allocator
keeps in reserve, and `torch.profiler`.

Prints tables, and writes them as JSON where it is asked to. Needs torch (CUDA), diffusers and diver_refiner. Run from
the repository root.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from backbone import make_backbone

#: What a kernel does, by a part of its name; the first that fits.
KINDS = {
    "attention": ("flash", "fmha", "attention"),
    "products": ("gemm", "cutlass", "nvjet", "xmma", "cublas"),
    "normalisations": ("layer_norm", "LayerNorm", "group_norm", "GroupNorm", "RowwiseMoments"),
    "convolutions": ("conv", "cudnn"),
    "GELU": ("Gelu", "gelu"),
    "modulation and gates": ("addcmul",),
    "copies": ("copy", "Memcpy", "CatArray", "Memset"),
}


def kind_of(kernel: str) -> str:
    """What a kernel does."""
    found = (kind for kind, parts in KINDS.items() if any(part in kernel for part in parts))
    return next(found, "the rest")


def memory(refiner, device: torch.device, batch: int) -> dict[str, float]:
    """The peak while whole images are refined, weights included, and the weights alone; GB."""
    pixels, classes = torch.rand(batch, 3, 32, 32), torch.arange(batch) % 10
    torch.cuda.reset_peak_memory_stats(device)
    refiner.refine(pixels, classes)
    peak, weights = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    return {"batch": batch, "peak_gb": peak / 1e9, "weights_gb": weights / 1e9}


def profile(refiner, device: torch.device, batch: int) -> dict[str, Any]:
    """Times of the sampling loop, milliseconds: as a whole, and in kernels, by what they do."""
    z0, noise, classes = (
        torch.randn(batch, 4, 32, 32),
        torch.randn(batch, 4, 32, 32),
        torch.arange(batch) % 10,
    )

    def sample() -> float:
        started = time.perf_counter()
        refiner.sample_latents(z0, classes, noise)
        torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - started)

    sample()
    whole = sample()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        sample()
    kernels = [event for event in profiled.key_averages() if event.self_device_time_total > 0]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    kinds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in kernels:
        kinds[kind_of(event.key)] += event.self_device_time_total / 1e3
        calls[kind_of(event.key)] += event.count
    return {
        "batch": batch,
        "loop_ms": whole,
        "kernels_ms": sum(kinds.values()),
        "kinds": {kind: {"ms": kinds[kind], "calls": calls[kind]} for kind, _ in kinds.most_common()},
        "longest": [
            {"kernel": event.key, "ms": event.self_device_time_total / 1e3, "calls": event.count}
            for event in kernels[:20]
        ],
    }


def table(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = [f"{found['device']}, {found['dtype']}, {found['layers']} layers, {found['steps']} steps", ""]
    for row in found["memory"]:
        lines.append(
            f"- batch {row['batch']}: {row['peak_gb']:.2f} GB at most, of it weights {row['weights_gb']:.2f} GB"
        )
    lines.append(f"- after a release: {found['released_gb']:.3f} GB")
    for row in found["profiles"]:
        in_kernels = row["kernels_ms"]
        lines += [
            "",
            f"Sampling, batch {row['batch']}: {row['loop_ms']:.1f} ms, in kernels {in_kernels:.1f} ms",
            "",
        ]
        lines += ["| kernels | share | ms | calls |", "|:--|--:|--:|--:|"]
        for kind, of in row["kinds"].items():
            lines.append(f"| {kind} | {of['ms'] / in_kernels:.1%} | {of['ms']:.2f} | {of['calls']} |")
    return "\n".join(lines)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    from diver_refiner import Refiner

    device = arguments.device
    with tempfile.TemporaryDirectory() as folder:
        make_backbone(Path(folder), layers=arguments.layers, device=device)
        torch.cuda.empty_cache()
        options = {"steps": arguments.steps, "batch_size": max(arguments.batches)}
        with Refiner.from_pretrained(folder, device=str(device), dtype=arguments.dtype, **options) as refiner:
            memories = [memory(refiner, device, batch) for batch in arguments.batches]
            profiles = [profile(refiner, device, batch) for batch in arguments.batches]
            refiner.release()
            released = torch.cuda.memory_allocated(device) / 1e9
    return {
        "device": torch.cuda.get_device_name(device),
        "dtype": arguments.dtype,
        "layers": arguments.layers,
        "steps": arguments.steps,
        "memory": memories,
        "profiles": profiles,
        "released_gb": released,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    parser.add_argument(
        "--layers", type=int, default=28, help="fewer make a smaller network, to try this script"
    )
    parser.add_argument("--steps", type=int, default=10, help="of the chain; every one does the same")
    parser.add_argument("--json", type=Path, help="file to write what was found to")
    arguments = parser.parse_args()
    if arguments.device.type != "cuda":
        parser.error("a GPU is needed")
    found = measure(arguments)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
