"""The command line of an example's `make.py`: its settings in, backbone and distilled sets out."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from making import autoencoder, distil, networks, perceptual, transformer

# The learning rate's cycle has two parts, each of at least a step.
QUICK_STEPS = 15
QUICK_BATCH = 8
# One of so many images is enough to see that all of it runs.
QUICK_STRIDE = 10


@dataclass(frozen=True)
class Distilled:
    """A distilled set: `method` is dm or dc."""

    method: str
    ipc: int
    steps: int

    @property
    def folder(self) -> str:
        return f"{self.method}_ipc{self.ipc}"


@dataclass(frozen=True)
class Recipe:
    """How an example is made from its real images.

    `augment` changes the images of each batch for the autoencoder. The transformer learns from the latents of the
    training images and of `augmented_copies` of them, changed likewise. `perceptual_weight` is that of the
    perceptual distance beside the autoencoder's squared error, `undecided` the share of `transformer.timesteps`.
    """

    name: str
    folder: Path
    splits: Callable[[], dict[str, tuple[np.ndarray, np.ndarray]]]
    mean: float
    std: float
    augment: Callable[[torch.Tensor], torch.Tensor]
    augmented_copies: int
    autoencoder_steps: int
    autoencoder_batch: int
    perceptual_weight: float
    transformer_steps: int
    transformer_batch: int
    undecided: float
    size: transformer.Size
    sets: tuple[Distilled, ...]
    judge_steps: int
    perceptual_steps: int = perceptual.STEPS
    # Images of each class that `check` has the diffusion model draw.
    drawn_per_class: int = 50

    def quick(self) -> "Recipe":
        """The same with so few steps that nothing is learned, to see that all of it runs."""
        return replace(
            self,
            autoencoder_steps=QUICK_STEPS,
            autoencoder_batch=QUICK_BATCH,
            perceptual_steps=QUICK_STEPS,
            transformer_steps=QUICK_STEPS,
            transformer_batch=QUICK_BATCH,
            judge_steps=QUICK_STEPS,
            sets=tuple(replace(wanted, steps=2) for wanted in self.sets),
            drawn_per_class=1,
        )


def main(recipe: Recipe) -> None:
    """Make the parts that the command line names, one after another."""
    parser = argparse.ArgumentParser(description=f"Make the {recipe.name} example from nothing.")
    sets = {wanted.folder: wanted for wanted in recipe.sets}
    parts = ["autoencoder", "axes", "transformer", *sets, "check"]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all without any")
    parser.add_argument("--out", type=Path, default=recipe.folder, help="folder for the results")
    parser.add_argument("--threads", type=int, default=2, help="threads that compute")
    parser.add_argument(
        "--device", type=torch.device, default="cpu", help="where the autoencoder and the transformer train"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and images, to see that it runs; needs --out"
    )
    arguments = parser.parse_args()
    if arguments.quick and arguments.out.resolve() == recipe.folder.resolve():
        parser.error("--quick needs --out: what it makes must not replace the shipped files")
    if unknown := set(arguments.parts) - set(parts):
        parser.error(f"there is no part {sorted(unknown)[0]}")
    torch.set_num_threads(arguments.threads)
    data = {split: tensors(*arrays) for split, arrays in recipe.splits().items()}
    if arguments.quick:
        recipe = recipe.quick()
        sets = {wanted.folder: wanted for wanted in recipe.sets}
        data = {
            split: (images[::QUICK_STRIDE], labels[::QUICK_STRIDE])
            for split, (images, labels) in data.items()
        }
    backbone = arguments.out / "backbone"
    for part in arguments.parts or parts:
        match part:
            case "autoencoder":
                make_autoencoder(recipe, data, backbone, arguments.device)
            case "axes":
                turn_axes(data, backbone)
            case "transformer":
                make_transformer(recipe, data, backbone, arguments.device)
            case "check":
                check(recipe, data, backbone)
            case _:
                make_set(recipe, data, sets[part], arguments.out / part)


def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `[N, H, W, 3]` uint8 as `[N, 3, H, W]` from -1 to 1, and labels as int64."""
    planar = torch.from_numpy(images).permute(0, 3, 1, 2).float().contiguous()
    return planar / 127.5 - 1, torch.from_numpy(labels.astype(np.int64))


Data = dict[str, tuple[torch.Tensor, torch.Tensor]]


def make_autoencoder(recipe: Recipe, data: Data, backbone: Path, device: torch.device) -> None:
    images, labels = (values.to(device) for values in data["train"])
    distance = None
    if recipe.perceptual_weight:
        distance = perceptual.train(
            images, labels, weight=recipe.perceptual_weight, steps=recipe.perceptual_steps
        )
    model = autoencoder.train(
        images,
        steps=recipe.autoencoder_steps,
        batch=recipe.autoencoder_batch,
        augment=recipe.augment,
        distance=distance,
    )
    autoencoder.save(model, backbone)
    print(f"validation images: {autoencoder.psnr(model, data['validation'][0]):.2f} dB")


def turn_axes(data: Data, backbone: Path) -> None:
    images, _ = data["train"]
    model = autoencoder.load(backbone)
    autoencoder.turn_to_principal_axes(model, images)
    autoencoder.save(model, backbone)
    model = autoencoder.load(backbone)
    posterior = model.encode(images[:1000]).latent_dist
    latents, spread = (values * model.config.scaling_factor for values in (posterior.mean, posterior.std))
    print(f"standard deviations along the axes: {[round(v, 3) for v in latents.std((0, 2, 3)).tolist()]}")
    print(f"of the posterior: {[round(v, 3) for v in spread.mean((0, 2, 3)).tolist()]}")
    print(f"validation images: {autoencoder.psnr(model, data['validation'][0]):.2f} dB")


def make_transformer(recipe: Recipe, data: Data, backbone: Path, device: torch.device) -> None:
    torch.manual_seed(0)
    vae = autoencoder.load(backbone)
    images, labels = data["train"]
    images = torch.cat([images, *(recipe.augment(images) for _ in range(recipe.augmented_copies))])
    labels = labels.repeat(1 + recipe.augmented_copies)
    posteriors = [vae.encode(part).latent_dist for part in images.split(200)]
    scale = vae.config.scaling_factor
    progress = backbone / "transformer.progress"
    model = transformer.train(
        (torch.cat([posterior.mean for posterior in posteriors]) * scale).to(device),
        (torch.cat([posterior.std for posterior in posteriors]) * scale).to(device),
        labels.to(device),
        steps=recipe.transformer_steps,
        batch=recipe.transformer_batch,
        undecided=recipe.undecided,
        size=recipe.size,
        progress=progress,
    )
    transformer.save(model, backbone)
    progress.unlink(missing_ok=True)


def make_set(recipe: Recipe, data: Data, wanted: Distilled, folder: Path) -> None:
    images, labels = data["train"]
    normalised = ((images + 1) / 2 - recipe.mean) / recipe.std
    method = {"dm": distil.dm, "dc": distil.dc}[wanted.method]
    synthetic = method(normalised, labels, ipc=wanted.ipc, steps=wanted.steps)
    distil.save(
        folder,
        synthetic,
        classes=int(labels.max()) + 1,
        method=wanted.method.upper(),
        dataset=recipe.name,
        mean=recipe.mean,
        std=recipe.std,
    )


def check(recipe: Recipe, data: Data, backbone: Path) -> None:
    """Print how well the autoencoder reconstructs held-out images, and how many images of the bare diffusion model a
    network trained on real ones recognises."""
    import diver

    vae = autoencoder.load(backbone)
    judge = networks.train_judge(*data["train"], steps=recipe.judge_steps)
    for split in "validation", "test":
        images, labels = data[split]
        found = networks.recognised(judge, images, labels)
        through = torch.cat([vae(part).sample.clamp(-1, 1) for part in images.split(200)])
        left = networks.recognised(judge, through, labels)
        print(
            f"{split}: {autoencoder.psnr(vae, images):.2f} dB; the judge recognises {found:.1f} % of real images"
        )
        print(f"{split}: and {left:.1f} % of them after the autoencoder")
    labels = torch.arange(recipe.size.classes).repeat_interleave(recipe.drawn_per_class)
    noise = torch.randn(len(labels), recipe.size.channels, recipe.size.side, recipe.size.side)
    with diver.Refiner.from_pretrained(backbone, device="cpu", mode="raw") as refiner:
        latents = refiner.sample_latents(torch.zeros_like(noise), labels, noise=noise)
        drawn = refiner.decode(latents)
    found = networks.recognised(judge, drawn * 2 - 1, labels)
    print(f"bare diffusion: the judge recognises {found:.1f} % of {len(labels)} images")
