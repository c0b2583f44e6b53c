"""Writes networks as large as Stable Diffusion v1.5's, with random weights, and what diffusers and transformers compute
on them, for the test that compares:

    python benches/full_size_sd.py FOLDER
    DIVER_FULL_SIZE_SD=FOLDER cargo test --release --test golden_sd -- --ignored --nocapture

Needs torch, diffusers and transformers, 2 GB of disk and 8 GB of memory. Nothing is downloaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

SIDE, TOKENS = 32, 77


def main(folder: Path) -> None:
    """Writes `unet/`, `text_encoder/` (half precision) and `reference.safetensors`."""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768).eval()
    count = sum(weight.numel() for weight in unet.parameters())
    print(f"UNet: {count} parameters")
    # The reference computes with what the files hold.
    unet = unet.half()
    unet.save_pretrained(folder / "unet")
    unet = unet.float()
    text = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768,
            intermediate_size=3072,
            num_attention_heads=12,
            num_hidden_layers=12,
            bos_token_id=49406,
            eos_token_id=49407,
        )
    ).eval()
    print(f"text encoder: {sum(weight.numel() for weight in text.parameters())} parameters")
    text = text.half()
    text.save_pretrained(folder / "text_encoder")
    text = text.float()

    ids = torch.randint(0, 49406, (2, TOKENS))
    ids[:, 0], ids[0, 9:], ids[1, 30:] = 49406, 49407, 49407
    x, t = torch.randn(2, 4, SIDE, SIDE), torch.tensor([981, 41])
    embeddings = text(ids).last_hidden_state
    eps = unet(x, t, encoder_hidden_states=embeddings).sample
    tensors = {"in.ids": ids, "in.x": x, "in.t": t, "out.embeddings": embeddings, "out.eps": eps}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "reference.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
