"""Times diver beside plain torch, in turn on the same machine, and prints the ratios.

- Refinement: `diver bench` beside the reference loop of tests/golden/oracle in eager torch, with the VAE of
  diffusers; the same backbone, batch and number of threads.
- Streaming: epochs of `diver bench` from memory, and of diver.DataLoader, beside torch.utils.data.DataLoader over a
  TensorDataset.

Needs diver, torch, safetensors and diffusers (`make bench` installs the last one). Run from the repository root.
`--quick` runs the same steps on a few images, to see that they run: its ratios mean little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

import diver

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/golden/oracle"))
import oracle  # noqa: E402

DIVER = ROOT / "target/release/diver"
STREAM_BATCH = 64
STREAM_IMAGES = 20_000  # as in `diver bench`
QUICK_STREAM_IMAGES = 500


class EagerTorch:
    """The reference loop on one backbone."""

    def __init__(self, folder: Path):
        from diffusers import AutoencoderKL

        config = json.loads((folder / "transformer/config.json").read_text())
        weights = load_file(folder / "transformer/diffusion_pytorch_model.safetensors")
        self.patch = config["patch_size"]
        grid = config["sample_size"] // self.patch
        self.heads = config["num_attention_heads"]
        self.weights = oracle.diffusers_to_official(
            {key: value.float() for key, value in weights.items()}, config["num_layers"], grid
        )
        self.vae = AutoencoderKL.from_pretrained(folder / "vae", low_cpu_mem_usage=False).float().eval()
        self.chain = oracle.make_chain("dit")

    @torch.no_grad()
    def refine(self, pixels: torch.Tensor, labels: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        scale = self.vae.config.scaling_factor
        images = oracle.preprocess(pixels, self.vae.config.sample_size)
        mean, logvar, _ = oracle.vae_moments(self.vae, images)
        z0 = oracle.vae_to_z0(mean, logvar, scale=scale)
        net = oracle.dit_net(self.weights, labels, self.heads, patch=self.patch)
        latents = oracle.run_diver(net, self.chain, z0, noise, oracle.MODES["full"])[-1]
        decoded = oracle.postprocess(oracle.vae_decode(self.vae, latents, scale))
        return (decoded * 255).round().to(torch.uint8)


def diver_bench(name: str, subset: str, batches: list[int], runs: int) -> dict:
    folder = ROOT / "examples" / name
    command = [
        DIVER,
        "bench",
        folder / subset,
        "--backbone",
        folder / "backbone",
        "--device",
        "cpu",
        "--json",
    ]
    command += ["--batches", ",".join(map(str, batches)), "--stream-batch", str(STREAM_BATCH)]
    command += ["--runs", str(runs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def seconds(run, runs: int) -> float:
    """Median time after a warm-up run."""
    run()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def torch_stream(images: torch.Tensor, labels: torch.Tensor, least: int, runs: int) -> float:
    """Images a second of whole shuffled epochs through torch's DataLoader, of `least` images or more."""
    loader = DataLoader(TensorDataset(images, labels), batch_size=STREAM_BATCH, shuffle=True)
    return stream(loader, len(images), least, runs)


def diver_stream(folder: Path, least: int, runs: int) -> float:
    """The same through diver's."""
    with diver.DataLoader(folder, batch_size=STREAM_BATCH, shuffle=True) as loader:
        return stream(loader, len(loader.source), least, runs)


def stream(loader: Iterable, samples: int, least: int, runs: int) -> float:
    epochs = -(-least // samples)

    def run():
        for _ in range(epochs):
            for _batch in loader:
                pass

    return epochs * samples / seconds(run, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="how often the two take turns (default: 3; quick: 1)")
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1 10 50; quick: 1 2")
    parser.add_argument("--quick", action="store_true", help="a few images, to see that it runs")
    arguments = parser.parse_args()
    quick = arguments.quick
    rounds = arguments.rounds or (1 if quick else 3)
    batches = arguments.batches or ([1, 2] if quick else [1, 10, 50])
    runs = 1 if quick else 3
    least = QUICK_STREAM_IMAGES if quick else STREAM_IMAGES

    for name, subset in (("digits", "dm_ipc1"), ("shapes", "dm_ipc10")):
        folder = ROOT / "examples" / name
        images = torch.load(folder / subset / "images_best.pt", weights_only=True)
        labels = torch.load(folder / subset / "labels_best.pt", weights_only=True)
        reference = EagerTorch(folder / "backbone")
        size = reference.vae.config.sample_size // 2 ** (len(reference.vae.config.block_out_channels) - 1)

        ours: dict[int, list[float]] = {batch: [] for batch in batches}
        theirs: dict[int, list[float]] = {batch: [] for batch in batches}
        streams = []
        for _ in range(rounds):
            report = diver_bench(name, subset, batches, runs)
            for entry in report["refine"]:
                ours[entry["batch"]].append(entry["seconds_per_image"])
            for batch in batches:
                repeat = torch.arange(batch) % len(images)
                pixels = images[repeat].mul(0.25).add(0.5).clamp(0, 1)
                noise = torch.randn(batch, 4, size, size)
                run = partial(reference.refine, pixels, labels[repeat], noise)
                theirs[batch].append(seconds(run, runs) / batch)
            torch_rate = torch_stream(images, labels, least, runs)
            stream = report["stream"]
            rates = stream["raw_images_per_second"], stream["refined_images_per_second"]
            streams.append((*rates, diver_stream(folder / subset, least, runs), torch_rate))

        print(f"{name}/{subset}: {len(images)} images, {torch.get_num_threads()} threads")
        print("  refine  batch  diver s/image  eager torch s/image  diver / torch")
        for batch in batches:
            a, b = statistics.median(ours[batch]), statistics.median(theirs[batch])
            ratio = statistics.median(x / y for x, y in zip(ours[batch], theirs[batch], strict=True))
            print(f"  {batch:13} {a:14.4f} {b:20.4f} {ratio:14.2f}")
        names = ("raw", "refined", "raw in Python")
        for name, column in zip(names, zip(*streams, strict=True), strict=False):
            ratio = statistics.median(
                ours / torch_rate for ours, (*_, torch_rate) in zip(column, streams, strict=True)
            )
            rate = statistics.median(column)
            print(
                f"  stream  batch {STREAM_BATCH}: {name} {rate:.0f} images/s, {ratio:.1f}x torch's DataLoader"
            )


if __name__ == "__main__":
    main()
