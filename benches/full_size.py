"""Times diver beside diffusers on networks as large as the paper's (DiT-XL/2 and Stable Diffusion's autoencoder, 256
pixels) with random weights, which this script makes on the spot: first all runs of diver, then all of diffusers.

Ours is `diver bench`: whole images, from pixels to pixels. Theirs is the reference loop of tests/golden/oracle around
diffusers' networks in eager torch, the autoencoder in the same dtype as the transformer. Also printed: DIVER beside
the bare diffusion run on the same engine, the share of the device's matrix rate that the sampling loop reaches, and the
memory that diver takes.

Needs torch, diffusers and a build of diver. Run from the repository root, or name its parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/golden/oracle"))
import oracle  # noqa: E402

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
CFG_SCALE, CFG_CHANNELS = 4.0, 3
HIDDEN, TOKENS = 1152, 256
# Of a DiT-XL/2's pass over one latent of 4 x 32 x 32 (arXiv 2212.09748, table 4: 118.64 G for 28 blocks).
MULTIPLY_ADDS_A_BLOCK = 118.64e9 / 28


def make_backbone(folder: Path, *, layers: int, device: torch.device) -> None:
    """A backbone of random weights in half precision, as diffusers lays it out."""
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    torch.manual_seed(0)
    with device:
        transformer = DiTTransformer2DModel(
            num_attention_heads=16,
            attention_head_dim=72,
            in_channels=4,
            out_channels=8,
            num_layers=layers,
            sample_size=32,
            patch_size=2,
            num_embeds_ada_norm=1000,
            norm_elementwise_affine=False,
            norm_eps=1e-6,
        )
        vae = AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=[128, 256, 512, 512],
            layers_per_block=2,
            sample_size=256,
        )
    # Each block has a copy of the embeddings in diffusers' layout, and real checkpoints have equal ones.
    first = transformer.transformer_blocks[0].norm1.emb.state_dict()
    for block in transformer.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
    transformer.half().save_pretrained(folder / "transformer")
    vae.half().save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir()
    scheduler = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "num_train_timesteps": 1000}
    scheduler |= {"prediction_type": "epsilon", "clip_sample": False, "steps_offset": 0}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))


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


class Memory:
    """The most memory of the device that is taken while a block runs, bytes, beyond what was taken before."""

    def __init__(self, device: torch.device):
        self.device, self.peak, self.done = device, 0, threading.Event()

    def __enter__(self) -> Memory:
        if self.device.type == "cuda":
            self.before = self.taken()
            self.thread = threading.Thread(target=self.watch)
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.done.set()
            self.thread.join()

    def taken(self) -> int:
        free, total = torch.cuda.mem_get_info(self.device)
        return total - free

    def watch(self) -> None:
        while not self.done.wait(0.02):
            self.peak = max(self.peak, self.taken() - self.before)


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
    parser.add_argument("--compile", action="store_true", help="also time diffusers under torch.compile")
    arguments = parser.parse_args()
    device, dtype = arguments.device, DTYPES[arguments.dtype]
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"

    with tempfile.TemporaryDirectory() as folder:
        backbone = Path(folder)
        make_backbone(backbone, layers=arguments.layers, device=device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if device.type == "cuda":
            rate = matrix_rate(device, dtype, 8192)
            print(f"product of 8192 x 8192 matrices: {rate / 1e12:.1f} TFLOP/s", flush=True)
        else:
            rate = layers_rate(device, dtype, 2)
            print(f"products of a block for two latents: {rate / 1e12:.3f} TFLOP/s", flush=True)

        def ours(mode: str, batches: list[int]) -> dict[int, float]:
            command = [arguments.diver, "bench", arguments.source, "--backbone", backbone, "--json"]
            command += ["--device", str(device), "--dtype", arguments.dtype, "--mode", mode]
            command += ["--steps", str(arguments.steps)]
            command += ["--batches", ",".join(map(str, batches)), "--runs", str(arguments.runs)]
            with Memory(device) as memory:
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            entries = json.loads(done.stdout)["refine"]
            seconds = {entry["batch"]: entry["seconds_per_image"] for entry in entries}
            print(f"diver, mode {mode}: {seconds} s/image; {memory.peak / 1e9:.2f} GB at most", flush=True)
            return seconds

        # For its memory: a run of several batches takes what the largest needs.
        ours("full", [1])
        full = ours("full", arguments.batches)
        bare = ours("raw", arguments.batches)
        alone = ours("vae", arguments.batches)

        reference = Reference(backbone, device, dtype, arguments.steps)
        if arguments.by_turns:
            by_turns(backbone, reference, arguments.steps, arguments.runs)
        variants = {"eager": reference.transformer}
        if arguments.compile:
            variants["compiled"] = torch.compile(reference.transformer)
        theirs: dict[str, dict[int, float]] = {name: {} for name in variants}
        for name, network in variants.items():
            reference.transformer = network
            for batch in arguments.batches:
                pixels, noise = torch.rand(batch, 3, 32, 32), torch.randn(batch, 4, 32, 32)
                classes = torch.arange(batch) % 10
                seconds = median_seconds(
                    lambda p=pixels, c=classes, n=noise: reference.refine(p, c, n), device, arguments.runs
                )
                theirs[name][batch] = seconds / batch
                print(f"diffusers, {name}: {{{batch}: {seconds / batch}}} s/image", flush=True)

    network = f"DiT of {arguments.layers} layers, {arguments.steps} steps, {arguments.dtype}"
    print(f"\n{network}, {machine}, torch {torch.__version__}")
    print(
        "batch  diver s/image  of it sampling  share of matrix rate  DIVER / bare  "
        + "  ".join(f"diffusers {name} s/image  diffusers / diver" for name in variants)
    )
    for batch in arguments.batches:
        sampling = full[batch] - alone[batch]
        # Two operations each, and both rows of the guided pair.
        operations = 2 * 2 * arguments.steps * MULTIPLY_ADDS_A_BLOCK * arguments.layers
        share = operations / sampling / rate
        row = (
            f"{batch:5} {full[batch]:14.4f} {sampling:15.4f} {share:21.1%} {full[batch] / bare[batch]:13.3f}"
        )
        for name in variants:
            found = theirs[name][batch]
            row += f" {found:{len(name) + 20}.4f} {found / full[batch]:18.2f}"
        print(row)


if __name__ == "__main__":
    main()
