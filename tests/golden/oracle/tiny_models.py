"""Tiny configs, their (deterministic) brief training on synthetic latents, and loaders for the golden files one folder up."""
import json, math, os
import numpy as np, torch, torch.nn.functional as F
from safetensors.torch import save_file, load_file
import oracle as O

G = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

DIT = dict(hidden=32, depth=2, heads=4, patch=2, size=8, in_ch=4, classes=10)
DIT_DIFFUSERS = dict(num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2,
                     sample_size=8, patch_size=2, num_embeds_ada_norm=10)
VAE2 = dict(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(32, 64), layers_per_block=1,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8, sample_size=16)
VAE4 = dict(in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 16, 16, 16), layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=4, sample_size=64)
UNET = dict(sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16, 16, 16), layers_per_block=2,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
            cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4)
CLIP = dict(vocab_size=64, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=16,
            bos_token_id=62, eos_token_id=63, pad_token_id=63)


def new_dit_sd(seed: int) -> dict:
    g = torch.Generator().manual_seed(seed)
    D, p, c = DIT["hidden"], DIT["patch"], DIT["in_ch"]
    rn = lambda *s, std: torch.randn(*s, generator=g) * std
    sd = {}

    def lin(name, o, i, gain=1.0):
        sd[name + ".weight"] = rn(o, i, std=gain / math.sqrt(i))
        sd[name + ".bias"] = rn(o, std=0.05)

    sd["x_embedder.proj.weight"] = rn(D, c, p, p, std=1 / math.sqrt(c * p * p))
    sd["x_embedder.proj.bias"] = rn(D, std=0.05)
    grid = DIT["size"] // p
    sd["pos_embed"] = torch.from_numpy(O.sincos_pos_embed(D, grid)).float()[None]
    lin("t_embedder.mlp.0", D, 256)
    lin("t_embedder.mlp.2", D, D)
    sd["y_embedder.embedding_table.weight"] = rn(DIT["classes"] + 1, D, std=0.5)
    for d in range(DIT["depth"]):
        b = f"blocks.{d}."
        lin(b + "attn.qkv", 3 * D, D)
        lin(b + "attn.proj", D, D)
        lin(b + "mlp.fc1", 4 * D, D)
        lin(b + "mlp.fc2", D, 4 * D)
        lin(b + "adaLN_modulation.1", 6 * D, D, 0.3)
    lin("final_layer.adaLN_modulation.1", 2 * D, D, 0.3)
    lin("final_layer.linear", p * p * c * 2, D, 0.5)
    return sd


def class_patterns(n, seed=7):
    g = torch.Generator().manual_seed(seed)
    return F.interpolate(torch.randn(n, 4, 3, 3, generator=g), size=8, mode="bicubic", align_corners=True) * 0.8


def draw_data(mu, y, g):
    smooth = F.interpolate(torch.randn(len(y), 4, 4, 4, generator=g), size=8, mode="bilinear", align_corners=False)
    return mu[y] + 0.5 * smooth + 0.15 * torch.randn(len(y), 4, 8, 8, generator=g)


def train_dit(kind: str, steps=1500, seed=0):
    """kind: eps (DiT) | vel (SiT)"""
    sd = new_dit_sd(seed)
    g = torch.Generator().manual_seed(seed + 100)
    mu = class_patterns(10)
    ps = {k: v.requires_grad_(True) for k, v in sd.items() if k != "pos_embed"}
    opt = torch.optim.Adam(ps.values(), lr=2e-3)
    ab = torch.from_numpy(O.abar_of(O.betas_linear())).float()
    for it in range(steps):
        for gr in opt.param_groups:
            gr["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * it / steps)) + 1e-5
        y = torch.randint(0, 10, (64,), generator=g)
        x = draw_data(mu, y, g)
        e = torch.randn(x.shape, generator=g)
        yy = torch.where(torch.rand(64, generator=g) < 0.15, 10, y)
        if kind == "eps":
            t = torch.randint(0, 1000, (64,), generator=g)
            A = ab[t][:, None, None, None]
            z, target = A.sqrt() * x + (1 - A).sqrt() * e, e
        else:
            t = torch.rand(64, generator=g)
            s = t[:, None, None, None]
            z, target = s * x + (1 - s) * e, x - e
        out = O.dit_forward(sd, z, t, yy, DIT["heads"])
        loss = F.mse_loss(out[:, :4], target) + 1e-3 * out[:, 4:].square().mean()
        opt.zero_grad(); loss.backward(); opt.step()
        if it % 500 == 0 or it == steps - 1:
            print(kind, it, round(loss.item(), 4), flush=True)
    return {k: v.detach().contiguous() for k, v in sd.items()}


def clip_model():
    from transformers import CLIPTextConfig, CLIPTextModel
    return CLIPTextModel(CLIPTextConfig(**CLIP)).eval()


def clip_to_hub(sd):
    """transformers >= 5 names CLIPTextModel keys without the hub files' `text_model.` prefix"""
    return {k if k.startswith("text_model.") else "text_model." + k: v.contiguous() for k, v in sd.items()}


def load_clip():
    m = clip_model()
    own = set(m.state_dict())
    sd = load_file(f"{G}/clip_tiny.safetensors")
    m.load_state_dict({(k if k in own else k.removeprefix("text_model.")): v for k, v in sd.items()}, strict=True)
    return m


def unet_model():
    from diffusers import UNet2DConditionModel
    return UNet2DConditionModel(**UNET).eval()


def vae_model(cfg):
    from diffusers import AutoencoderKL
    return AutoencoderKL(**cfg).eval()


def prompt_ids(n):
    """Synthetic token ids shaped like CLIP's: bos, a few words, eos, eos-padding; uncond = bos + eos padding."""
    ids = torch.full((n, 77), 63, dtype=torch.long)
    ids[:, 0] = 62
    for i in range(n):
        w = [5, 6, 7, 5, 10 + i]  # "a photo of a <class i>"
        ids[i, 1:1 + len(w)] = torch.tensor(w)
    un = torch.full((1, 77), 63, dtype=torch.long); un[:, 0] = 62
    return ids, un


def train_unet(clip, steps=300, seed=3):
    torch.manual_seed(seed)
    m = unet_model()
    g = torch.Generator().manual_seed(seed + 100)
    mu = class_patterns(10)
    ids, un = prompt_ids(10)
    with torch.no_grad():
        emb = torch.cat([clip(ids).last_hidden_state, clip(un).last_hidden_state])
    ab = torch.from_numpy(O.abar_of(O.betas_scaled_linear())).float()
    opt = torch.optim.Adam(m.parameters(), lr=3e-3)
    m.train()
    for it in range(steps):
        for gr in opt.param_groups:
            gr["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * it / steps)) + 1e-5
        y = torch.randint(0, 10, (32,), generator=g)
        x = draw_data(mu, y, g)
        e = torch.randn(x.shape, generator=g)
        t = torch.randint(0, 1000, (32,), generator=g)
        A = ab[t][:, None, None, None]
        yy = torch.where(torch.rand(32, generator=g) < 0.15, 10, y)
        out = m(A.sqrt() * x + (1 - A).sqrt() * e, t, encoder_hidden_states=emb[yy]).sample
        loss = F.mse_loss(out, e)
        opt.zero_grad(); loss.backward(); opt.step()
        if it % 25 == 0 or it == steps - 1:
            print("unet", it, round(loss.item(), 4), flush=True)
    return m.eval()


def fit_vae_scale(vae, x, target_std=1.0):
    """random VAE whose scaled mean has ~unit std, posterior logvar around -8 (a few entries hit the clamp)."""
    with torch.no_grad():
        for p in vae.parameters():          # break the trivial affine GroupNorm / zero-bias init
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.1)
        mean, _, _ = O.vae_moments(vae, x)
        k = target_std / (mean.std() * O.VAE_SCALE)
        vae.quant_conv.weight[:4] *= k
        vae.quant_conv.bias[:4] *= k
        vae.quant_conv.weight[4:] *= 2.0
        vae.quant_conv.bias[4:] = torch.tensor([-8.0, -6.0, -30.0, -10.0])
        # decoder output to about [-1,1]
        d = O.vae_decode(vae, torch.randn(2, 4, 8, 8) * 1.0)
        vae.decoder.conv_out.weight *= 0.5 / d.std()
    return vae


def main(stages):
    torch.set_num_threads(1)
    os.makedirs(G, exist_ok=True)
    if "dit" in stages:
        sd = train_dit("eps", seed=0)
        save_file(sd, f"{G}/dit_tiny_official.safetensors", metadata={"config": json.dumps(DIT), "layout": "facebookresearch/DiT"})
        torch.save(sd, f"{G}/dit_tiny_official.pt")
        save_file(O.official_to_diffusers(sd, DIT["depth"]), f"{G}/dit_tiny_diffusers.safetensors",
                  metadata={"config": json.dumps(DIT_DIFFUSERS), "layout": "diffusers.DiTTransformer2DModel"})
    if "sit" in stages:
        sd = train_dit("vel", seed=1)
        save_file(sd, f"{G}/sit_tiny_official.safetensors", metadata={"config": json.dumps(DIT), "layout": "willisma/SiT"})
    if "clip" in stages:
        torch.manual_seed(2)
        clip = clip_model()
        with torch.no_grad():
            for p in clip.parameters():
                p.mul_(3.0) if p.ndim > 1 else p.add_(torch.randn_like(p) * 0.1)
        save_file(clip_to_hub(clip.state_dict()), f"{G}/clip_tiny.safetensors",
                  metadata={"config": json.dumps(CLIP)})
    if "unet" in stages:
        unet = train_unet(load_clip())
        save_file({k: v.contiguous() for k, v in unet.state_dict().items()}, f"{G}/unet_tiny.safetensors",
                  metadata={"config": json.dumps(UNET)})
    if "vae" in stages:
        for name, cfg in (("vae2", VAE2), ("vae4", VAE4)):
            torch.manual_seed(11 if name == "vae2" else 12)
            v = fit_vae_scale(vae_model(cfg), torch.rand(4, 3, cfg["sample_size"], cfg["sample_size"]) * 2 - 1)
            save_file({k: t.contiguous() for k, t in v.state_dict().items()}, f"{G}/{name}_tiny.safetensors",
                      metadata={"config": json.dumps(cfg)})


if __name__ == "__main__":
    import sys
    main(sys.argv[1:] or ["dit", "sit", "clip", "unet", "vae"])
