"""Train the autoencoder of a tiny backbone: diffusers' `AutoencoderKL` on squared error and a perceptual distance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

CHANNELS = (16, 32, 64)
# Weight of the KL divergence from a normal distribution, a value of the image: keeps latents near 0 without blurring.
KL_WEIGHT = 1e-4


def train(
    images: torch.Tensor,
    *,
    steps: int,
    augment: Callable[[torch.Tensor], torch.Tensor],
    batch: int = 32,
    max_lr: float = 2e-3,
    seed: int = 0,
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> AutoencoderKL:
    """An autoencoder of `images` `[N, 3, 32, 32]`, -1 to 1, into latents of 4 x 8 x 8, trained on their device and
    returned on the CPU.

    AdamW under a one-cycle schedule. `augment` changes the images of each batch; `distance` of decoded images and
    originals, already weighted, adds to the squared error. The scaling factor makes 1 the standard deviation of all
    values of latents taken together; weights are rounded to half precision, as they are stored.
    """
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    model = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * len(CHANNELS),
        up_block_types=["UpDecoderBlock2D"] * len(CHANNELS),
        block_out_channels=CHANNELS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=images.shape[-1],
    ).to(images.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=max_lr, weight_decay=1e-4, betas=(0.9, 0.99))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=steps, pct_start=0.08)
    started = time.monotonic()
    for step in range(steps):
        originals = augment(images[torch.randint(len(images), (batch,), device=images.device)])
        posterior = model.encode(originals).latent_dist
        decoded = model.decode(posterior.sample()).sample
        error = F.mse_loss(decoded, originals)
        divergence = posterior.kl().mean() / originals[0].numel()
        optimizer.zero_grad()
        loss = error + KL_WEIGHT * divergence
        if distance is not None:
            loss = loss + distance(decoded, originals)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        cycle.step()
        if step % 100 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(
                f"autoencoder {step:5} of {steps}: {decibels(error.item()):.2f} dB, {seconds:.0f} s",
                flush=True,
            )
    model.half().float().cpu().eval().requires_grad_(False)
    some = images[torch.randperm(len(images))[:1000].to(images.device)].cpu()
    latents = torch.cat([encode(model, part) for part in some.split(100)])
    model.register_to_config(scaling_factor=1 / latents.std().item())
    return model


def turn_to_principal_axes(model: AutoencoderKL, images: torch.Tensor) -> None:
    """Turns the axes of the latents to the principal ones of `images`, that of the largest variance first.

    Images decode as before. But classifier-free guidance as in the DiT repository leaves the last of four channels
    alone, and where that one is part of what the others say, guided latents are none that an image has. Now it is
    the one that says least.
    """
    latents = torch.cat([encode(model, part) for part in images.split(500)])
    covariance = torch.cov(latents.transpose(0, 1).flatten(1).double())
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)
    # Eigenvectors have no sign of their own: the largest component is positive.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = (axes * largest.sign()).float()
    channels = len(axes)
    into, back = model.quant_conv, model.post_quant_conv
    # The first half of the channels are means, the second logarithms of variances. Those have no axes to turn to, and
    # stay: they are thousandths of the latents' own.
    into.weight[:channels] = torch.einsum("ij,iklm->jklm", axes, into.weight[:channels])
    into.bias[:channels] = axes.T @ into.bias[:channels]
    back.weight.copy_(torch.einsum("kilm,ij->kjlm", back.weight, axes))


def save(model: AutoencoderKL, folder: Path) -> None:
    """Write the model to `folder`/vae in half precision, as diffusers lays it out."""
    model.half().save_pretrained(folder / "vae")
    model.float()


def load(folder: Path) -> AutoencoderKL:
    """The model of `folder`/vae in single precision."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    return model.eval().requires_grad_(False)


def encode(model: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The most likely latents of images, unscaled, `[N, 4, 8, 8]`."""
    return model.encode(images).latent_dist.mode()


def psnr(model: AutoencoderKL, images: torch.Tensor) -> float:
    """Peak signal-to-noise ratio, dB, of the reconstructions of `images`, from the squared error over all of them."""
    total = 0.0
    for part in images.split(100):
        decoded = model.decode(encode(model, part)).sample.clamp(-1, 1)
        total += F.mse_loss(decoded, part, reduction="sum").item()
    return decibels(total / images.numel())


def decibels(squared_error: float) -> float:
    """PSNR of images from -1 to 1."""
    return -10 * math.log10(squared_error / 4)
