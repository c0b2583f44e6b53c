"""Makes networks as large as the published ones, with random weights, and what diffusers' and transformers' classes
(and the reference in tests/golden/oracle, for the DiT and SiT repositories' layout) compute with them on the CPU.

Usage: make.py FOLDER [--quick]. Takes some minutes and 15 GB on disk; parts that are there are kept. `--quick` makes
narrow networks of one layer, to see that all of it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests/golden/oracle"))
import oracle  # noqa: E402

DIT = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
    "norm_elementwise_affine": False,
}
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "sample_size": 256,
}
UNET = {
    "sample_size": 64,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
CLIP = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
# What `--quick` has in place of these: widths that the readers know, and few of everything.
NARROW = {"block_out_channels": [32, 64, 64, 64]}
QUICK = (
    (DIT, {"num_attention_heads": 6, "attention_head_dim": 64, "num_layers": 1}),
    (VAE, NARROW),
    (UNET, NARROW | {"cross_attention_dim": 64}),
    (CLIP, {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}),
)
SCHEDULERS = {
    "dit": {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"},
    "sd": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
}
# What diffusers called the projections of the autoencoder's attention before 2023.
FORMER_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
# A last layer of usual size makes random networks predict noise that has nothing to do with what is there, and latents
# grow a hundredfold in 50 steps.
SMALL = 0.05


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dit(folder: Path) -> None:
    """A DiT-XL/2 in a diffusers folder, for 256 and (with the same weights) 512 pixels, and as checkpoints."""
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(1)
    model = DiTTransformer2DModel(sample_size=32, **DIT).eval()
    first = model.transformer_blocks[0].norm1.emb.state_dict()
    for block in model.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
    model.proj_out_2.weight.data *= SMALL
    model.save_pretrained(folder / "transformer")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULERS["dit"]))
    os.symlink("../vae/whole", folder / "vae")

    larger = folder.parent / "dit-512"
    shutil.rmtree(larger, ignore_errors=True)
    (larger / "transformer").mkdir(parents=True)
    config = json.loads((folder / "transformer/config.json").read_text()) | {"sample_size": 64}
    (larger / "transformer/config.json").write_text(json.dumps(config))
    for name in ("vae", "scheduler"):
        os.symlink(f"../dit/{name}", larger / name)
    weights = "diffusion_pytorch_model.safetensors"
    os.symlink(f"../../dit/transformer/{weights}", larger / "transformer" / weights)

    official = oracle.diffusers_to_official(model.state_dict(), DIT["num_layers"], 16)
    official = {name: tensor.contiguous() for name, tensor in official.items()}
    torch.save(official, folder / "DiT-XL-2-256x256.pt")
    os.symlink("DiT-XL-2-256x256.pt", folder / "SiT-XL-2-256x256.pt")

    as_official(model)
    x, y = random(2, 2, 4, 32, 32), torch.tensor([207, 1000])
    t, s = torch.tensor([795, 20]), torch.tensor([0.0, 0.6])
    out = {"x": x, "t": t, "y": y, "s": s}
    out["forward"] = model(x, timestep=t, class_labels=y).sample
    out["forward_sit"] = oracle.dit_forward(official, x, s, y, DIT["num_attention_heads"])

    z0, noise, classes = random(3, 1, 4, 32, 32), random(4, 1, 4, 32, 32), torch.tensor([388])
    net = oracle.diffusers_dit_net(model, classes)
    chain = oracle.make_chain("dit")
    out |= {"z0": z0, "noise": noise, "classes": classes}
    out["trajectory"], out["eps"] = oracle.run_diver(
        net, chain, z0, noise, oracle.MODES["full"], record_eps=True
    )

    model_512 = DiTTransformer2DModel.from_pretrained(larger / "transformer").eval()
    as_official(model_512)
    out["x_512"] = random(5, 1, 4, 64, 64)
    out["forward_512"] = model_512(out["x_512"], timestep=t[:1], class_labels=y[:1]).sample
    save(folder, out)


def as_official(model: torch.nn.Module) -> None:
    """The numbers of the DiT repository, with which the published weights were trained."""
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
        block.norm3.eps = 1e-6


def vae(folder: Path) -> None:
    """Stable Diffusion's autoencoder, and its weights under the names of before 2023."""
    from diffusers import AutoencoderKL

    torch.manual_seed(6)
    model = AutoencoderKL(**VAE).eval()
    model.save_pretrained(folder / "whole")
    old = {}
    for name, tensor in model.state_dict().items():
        if ".attentions." in name:
            for new, former in FORMER_NAMES.items():
                name = name.replace(f".{new}.", f".{former}.")
            # Some of them were convolutions.
            if tensor.dim() == 2:
                tensor = tensor[..., None, None]
        old[name] = tensor.contiguous()
    (folder / "old").mkdir()
    shutil.copy(folder / "whole/config.json", folder / "old/config.json")
    torch.save(old, folder / "old/diffusion_pytorch_model.bin")

    images, latents = random(7, 1, 3, 256, 256).tanh(), random(8, 2, 4, 32, 32)
    mean, logvar, _ = oracle.vae_moments(model, images)
    save(
        folder,
        {
            "images": images,
            "mean": mean,
            "logvar": logvar,
            "latents": latents,
            "decoded": oracle.vae_decode(model, latents),
        },
    )


def sd(folder: Path) -> None:
    """Stable Diffusion 1.5: UNet and text encoder."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(9)
    unet = UNet2DConditionModel(**UNET).eval()
    unet.conv_out.weight.data *= SMALL
    unet.save_pretrained(folder / "unet")
    text = CLIPTextModel(CLIPTextConfig(**CLIP)).eval()
    text.save_pretrained(folder / "text_encoder")
    (folder / "scheduler").mkdir()
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(SCHEDULERS["sd"]))
    os.symlink("../vae/whole", folder / "vae")

    ids = torch.randint(0, CLIP["eos_token_id"], (2, 77), generator=torch.Generator().manual_seed(10))
    ids[:, 0], ids[0, 6:], ids[1, 1:] = CLIP["bos_token_id"], CLIP["eos_token_id"], CLIP["eos_token_id"]
    embeddings = text(ids).last_hidden_state
    x, t = random(11, 2, 4, 64, 64), torch.tensor([981, 41])
    forward = unet(x, t, encoder_hidden_states=embeddings).sample
    small = unet(x[..., :32, :32].contiguous(), t, encoder_hidden_states=embeddings).sample
    save(
        folder,
        {"ids": ids, "embeddings": embeddings, "x": x, "t": t, "forward": forward, "forward_256": small},
    )


def save(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "io.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Make networks of the published sizes, and what they compute."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true", help="narrow networks of one layer")
    arguments = parser.parse_args()
    if arguments.quick:
        for usual, narrow in QUICK:
            usual |= narrow
    root = arguments.folder
    parts: dict[str, Callable[[Path], None]] = {"vae": vae, "dit": dit, "sd": sd}
    for name, make in parts.items():
        folder = root / name
        if (folder / "io.safetensors").exists():
            continue
        print(f"making {name} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with torch.no_grad():
            make(folder)


if __name__ == "__main__":
    main()
