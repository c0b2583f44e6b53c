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


def backbone(folder: Path) -> Path:
    """Writes the folder: a DiT of 10 classes at 16 x 16, latents ``[4, 8, 8]``."""
    for part, name in [("transformer", "dit_tiny_diffusers"), ("vae", "vae2_tiny")]:
        weights = GOLDEN / f"{name}.safetensors"
        (folder / part).mkdir(parents=True)
        shutil.copy(weights, folder / part / "diffusion_pytorch_model.safetensors")
        with safe_open(weights, "pt") as file:
            (folder / part / "config.json").write_text(file.metadata()["config"])
    (folder / "scheduler").mkdir()
    scheduler = {
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "num_train_timesteps": 1000,
    }
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder
