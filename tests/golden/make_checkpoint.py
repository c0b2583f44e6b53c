"""Writes dit_tiny_checkpoint.pt: the tiny DiT as the training script of the DiT repository saves it."""

import argparse
from pathlib import Path

import torch

folder = Path(__file__).parent
weights = torch.load(folder / "dit_tiny_official.pt", weights_only=True)
moments = {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(2, 2), "exp_avg_sq": torch.zeros(2, 2)}}
groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "foreach": None, "params": [0]}]
checkpoint = {
    # As far as it goes: what is sampled from is the average of the weights.
    "model": {"x_embedder.proj.bias": weights["x_embedder.proj.bias"] + 1},
    "ema": {name: tensor.half() for name, tensor in weights.items()},
    "opt": {"state": moments, "param_groups": groups},
    "args": argparse.Namespace(
        model="DiT-S/2", image_size=64, num_classes=10, ckpt_every=50_000, data_path=None
    ),
}
torch.save(checkpoint, folder / "dit_tiny_checkpoint.pt")
