"""The tiny networks of the golden files, as a diffusers folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open

# Several threads wait for each other by spinning, which takes ages where other work runs beside the tests.
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def _network(folder: Path, name: str, file: str = "diffusion_pytorch_model.safetensors") -> None:
    """Writes the weights of a golden file with their configuration."""
    folder.mkdir(parents=True)
    weights = GOLDEN / f"{name}.safetensors"
    shutil.copy(weights, folder / file)
    with safe_open(weights, "pt") as opened:
        (folder / "config.json").write_text(opened.metadata()["config"])


def _scheduler(folder: Path, **betas: float | str) -> None:
    (folder / "scheduler").mkdir()
    scheduler = {"num_train_timesteps": 1000} | betas
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))


def backbone(folder: Path) -> Path:
    """Writes the folder: a DiT of 10 classes at 16 x 16, latents ``[4, 8, 8]``."""
    _network(folder / "transformer", "dit_tiny_diffusers")
    _network(folder / "vae", "vae2_tiny")
    _scheduler(folder, beta_start=0.0001, beta_end=0.02, beta_schedule="linear")
    return folder


#: In this vocabulary the reference's made-up ids spell a prompt: "a photo of a d" is class 3, "... h" class 7.
_VOCABULARY = {
    "a</w>": 5,
    "photo</w>": 6,
    "of</w>": 7,
    "d</w>": 13,
    "h</w>": 17,
    "p": 0,
    "h": 1,
    "o": 2,
    "t": 3,
}
_VOCABULARY |= {"f</w>": 4, "o</w>": 8, "ph": 9, "pho": 10, "phot": 11}
_VOCABULARY |= {"<|startoftext|>": 62, "<|endoftext|>": 63}
_MERGES = ["#version: 0.2", "p h", "ph o", "pho t", "phot o</w>", "o f</w>"]


def stable_diffusion(folder: Path) -> Path:
    """The tiny Stable Diffusion as a diffusers folder, with the autoencoder of the tiny DiT."""
    _network(folder / "unet", "unet_tiny")
    _network(folder / "text_encoder", "clip_tiny", "model.safetensors")
    _network(folder / "vae", "vae2_tiny")
    _scheduler(folder, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.json").write_text(json.dumps(_VOCABULARY))
    (folder / "tokenizer/merges.txt").write_text("\n".join(_MERGES) + "\n")
    return folder
