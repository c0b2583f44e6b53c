"""A backbone as large as the paper's for 256 pixels, DiT-XL/2 and Stable Diffusion's autoencoder, of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch


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
