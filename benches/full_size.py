"""Times diver beside diffusers on networks as large as the paper's (DiT-XL/2 and Stable Diffusion's autoencoder, 256
pixels) with random weights, which this script makes on the spot: first all runs of diver, then all of diffusers.

Ours is `diver bench`: whole images, from pixels to pixels. Theirs is the reference loop of tests/golden/oracle around
diffusers' networks in eager torch, the autoencoder in the same dtype as the transformer. Also printed: DIVER beside
the bare diffusion run on the same engine, and the share of the device's matrix rate that the sampling loop reaches.

Prints a table, and writes it as JSON where it is asked to. Needs torch, diffusers and a build of diver. Run from the
repository root, or name its parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/golden/oracle"))
import oracle  # noqa: E402
from backbone import make_backbone  # noqa: E402

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CFG_SCALE, CFG_CHANNELS = 4.0, 3
HIDDEN, TOKENS = 1152, 256
# Of a DiT-XL/2's pass over one latent of 4 x 32 x 32 (arXiv 2212.09748, table 4: 118.64 G for 28 blocks).
MULTIPLY_ADDS_A_BLOCK = 118.64e9 / 28


class Reference:
    """The reference loop around diffusers' networks."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, steps: int):
        from diffusers import AutoencoderKL, DiTTransformer2DModel

        self.device, self.dtype = device, dtype
        self.transformer = DiTTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=dtype)
        self.transformer = self.transformer.to(device).eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=dtype).to(device).eval()
        self.chain = oracle.make_chain("dit", steps)
        share = steps / 50
        self.method = dataclasses.replace(
            oracle.MODES["full"],
            steps=steps,
            t_f=max(round(25 * share), 1),
            t_h=max(round(40 * share), 1),
            t_l=max(round(25 * share), 1),
        )

    @torch.no_grad()
    def refine(self, pixels: torch.Tensor, classes: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        scale = self.vae.config.scaling_factor
        images = oracle.preprocess(pixels.to(self.device), self.vae.config.sample_size).to(self.dtype)
        mean, logvar, _ = oracle.vae_moments(self.vae, images)
        z0 = oracle.vae_to_z0(mean.float(), logvar.float(), scale=scale)
        latents = oracle.run_diver(
            self.guided(classes.to(self.device)), self.chain, z0, noise.to(self.device), self.method
        )[-1]
        decoded = oracle.postprocess(oracle.vae_decode(self.vae, latents.to(self.dtype), scale).float())
        return (decoded * 255).round().to(torch.uint8).cpu()

    def guided(self, classes: torch.Tensor):
        null = torch.full_like(classes, self.transformer.config.num_embeds_ada_norm)
        both = torch.cat([classes, null])

        def net(z: torch.Tensor, tau: int) -> tuple[torch.Tensor, torch.Tensor]:
            times = torch.full((2 * len(z),), tau, device=self.device)
            rows = torch.cat([z, z]).to(self.dtype)
            out = self.transformer(rows, timestep=times, class_labels=both).sample.float()
            cond, uncond = out.chunk(2)
            guided = oracle.cfg_combine(cond, uncond, CFG_SCALE, CFG_CHANNELS)
            return guided[:, :4], guided[:, 4:]

        return net


def by_turns(folder: Path, reference: Reference, steps: int, runs: int) -> None:
    """Times the sampling loop alone, ours and theirs by turns in one process: on busy machines rates drift."""
    from diver_refiner import Refiner

    dtype = {torch.float32: "f32", torch.bfloat16: "bf16"}[reference.dtype]
    refiner = Refiner.from_pretrained(folder, device=str(reference.device), dtype=dtype, steps=steps)
    z0, noise, classes = torch.randn(1, 4, 32, 32), torch.randn(1, 4, 32, 32), torch.tensor([7])

    @torch.no_grad()
    def theirs() -> None:
        given = (z0.to(reference.device), noise.to(reference.device), reference.method)
        oracle.run_diver(reference.guided(classes.to(reference.device)), reference.chain, *given)

    def ours() -> None:
        refiner.sample_latents(z0, classes, noise)

    pairs = [
        tuple(median_seconds(run, reference.device, runs=1) for run in (ours, theirs)) for _ in range(runs)
    ]
    ours_median, theirs_median = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"sampling alone, batch 1, by turns: diver {ours_median:.3f} s, diffusers {theirs_median:.3f} s",
        end="; ",
    )
    print(f"diffusers / diver {theirs_median / ours_median:.2f}", flush=True)


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a product of two random square matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / median_seconds(lambda: a @ b, device, runs=10)


def layers_rate(device: torch.device, dtype: torch.dtype, rows: int) -> float:
    """Operations a second of the products in one block of a DiT-XL/2, for so many latents."""
    shapes = [(HIDDEN, 3 * HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN, HIDDEN)]
    layers = [torch.randn(outputs, inputs, device=device, dtype=dtype) for inputs, outputs in shapes]
    tokens = [torch.randn(rows * TOKENS, inputs, device=device, dtype=dtype) for inputs, _ in shapes]

    def run() -> None:
        for x, weight in zip(tokens, layers, strict=True):
            torch.nn.functional.linear(x, weight)

    operations = sum(2 * rows * TOKENS * inputs * outputs for inputs, outputs in shapes)
    return operations / median_seconds(run, device, runs=10)


def median_seconds(run, device: torch.device, runs: int) -> float:
    """Median time after a warm-up run."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def ours(arguments: argparse.Namespace, backbone: Path, mode: str, batches: list[int]) -> dict[int, float]:
    """Seconds of an image by `diver bench`, for each batch."""
    command = [arguments.diver, "bench", arguments.source, "--backbone", backbone, "--json"]
    command += ["--device", str(arguments.device), "--dtype", arguments.dtype, "--mode", mode]
    command += ["--steps", str(arguments.steps)]
    command += ["--batches", ",".join(map(str, batches)), "--runs", str(arguments.runs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = {entry["batch"]: entry["seconds_per_image"] for entry in json.loads(done.stdout)["refine"]}
    print(f"diver, mode {mode}: {seconds} s/image", flush=True)
    return seconds


def theirs(
    arguments: argparse.Namespace, reference: Reference, name: str, batches: list[int]
) -> dict[int, float]:
    """Seconds of an image by the reference loop, for each batch."""
    seconds = {}
    for batch in batches:
        pixels, noise = torch.rand(batch, 3, 32, 32), torch.randn(batch, 4, 32, 32)
        classes = torch.arange(batch) % 10
        time = median_seconds(
            lambda p=pixels, c=classes, n=noise: reference.refine(p, c, n), arguments.device, arguments.runs
        )
        seconds[batch] = time / batch
        print(f"diffusers, {name}: {{{batch}: {seconds[batch]}}} s/image", flush=True)
    return seconds


def measure(arguments: argparse.Namespace, backbone: Path) -> dict[str, Any]:
    """All times, and what they are of."""
    device, dtype = arguments.device, DTYPES[arguments.dtype]
    make_backbone(backbone, layers=arguments.layers, device=device)
    rows = 2 * max(arguments.batches)
    rates = {f"products of a block for {rows} latents": layers_rate(device, dtype, rows)}
    if device.type == "cuda":
        # The network's own products reach a part of what large square ones do.
        rates["product of 8192 x 8192 matrices"] = matrix_rate(device, dtype, 8192)
        torch.cuda.empty_cache()
    for of, rate in rates.items():
        print(f"{of}: {rate / 1e12:.3f} TFLOP/s", flush=True)

    full, bare, alone = (
        ours(arguments, backbone, mode, arguments.batches) for mode in ("full", "raw", "vae")
    )
    reference = Reference(backbone, device, dtype, arguments.steps)
    if arguments.by_turns:
        by_turns(backbone, reference, arguments.steps, arguments.runs)
    diffusers = {"eager": theirs(arguments, reference, "eager", arguments.batches)}
    if arguments.compile:
        reference.transformer = torch.compile(reference.transformer)
        try:
            diffusers["compiled"] = theirs(arguments, reference, "compiled", arguments.compile)
        except Exception as error:  # It needs a C compiler, and Triton. The other figures stand without it.
            print(f"FAILED: torch.compile: {error}", flush=True)

    # Two operations each, and both rows of the guided pair.
    operations = 2 * 2 * arguments.steps * MULTIPLY_ADDS_A_BLOCK * arguments.layers
    rows = [
        {
            "batch": batch,
            "seconds_per_image": full[batch],
            "of_it_sampling": full[batch] - alone[batch],
            "share_of_matrix_rate": operations / (full[batch] - alone[batch]) / max(rates.values()),
            "over_bare_diffusion": full[batch] / bare[batch],
            "diffusers_over_diver": {
                name: seconds[batch] / full[batch] for name, seconds in diffusers.items() if batch in seconds
            },
        }
        for batch in arguments.batches
    ]
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "dtype": arguments.dtype,
        "layers": arguments.layers,
        "steps": arguments.steps,
        "matrix_rates": rates,
        "rows": rows,
    }


def table(found: dict[str, Any]) -> str:
    """The rows as Markdown."""
    network = f"DiT of {found['layers']} layers, {found['steps']} steps, {found['dtype']}"
    variants = list(dict.fromkeys(name for row in found["rows"] for name in row["diffusers_over_diver"]))
    titles = [
        "batch",
        "diver, s/image",
        "of it sampling",
        "share of the matrix rate",
        "DIVER / bare diffusion",
    ]
    titles += [f"diffusers, {name} / diver" for name in variants]
    lines = [f"{network}, {found['device']}, torch {found['torch']}", "", f"| {' | '.join(titles)} |"]
    lines.append("|" + "--:|" * len(titles))
    for row in found["rows"]:
        ratios = [row["diffusers_over_diver"].get(name) for name in variants]
        cells = [str(row["batch"]), f"{row['seconds_per_image']:.4f}", f"{row['of_it_sampling']:.4f}"]
        cells += [f"{row['share_of_matrix_rate']:.1%}", f"{row['over_bare_diffusion']:.3f}"]
        cells += ["" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument(
        "--layers", type=int, default=28, help="fewer make a smaller network, to try this script"
    )
    parser.add_argument("--steps", type=int, default=50, help="fewer for slow machines")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--diver", type=Path, default=ROOT / "target/release/diver")
    parser.add_argument("--source", type=Path, default=ROOT / "examples/shapes/dm_ipc10")
    parser.add_argument(
        "--by-turns", action="store_true", help="also time sampling alone, by turns (needs diver_refiner)"
    )
    parser.add_argument(
        "--compile",
        type=int,
        nargs="+",
        default=[],
        metavar="BATCH",
        help="batches to time diffusers under torch.compile at, too; each takes minutes to compile",
    )
    parser.add_argument("--json", type=Path, help="file to write what was found to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(arguments, Path(folder))
    print(f"\n{table(found)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
