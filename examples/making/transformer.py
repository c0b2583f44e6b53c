"""Train the diffusion transformer of a tiny backbone: a small DiT with learned variances.

The network is that of "Scalable Diffusion Models with Transformers" (Peebles and Xie, arXiv 2212.09748); the loss is
the hybrid one of "Improved Denoising Diffusion Probabilistic Models" (Nichol and Dhariwal, arXiv 2102.09672): noise
prediction, weighted as in "Efficient Diffusion Training via Min-SNR Weighting Strategy" (Hang et al., arXiv
2303.09556), and the variational bound for the variances alone.
"""

import copy
import dataclasses
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

TIMESTEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
MIN_SNR = 5.0
# Share of the bound in the loss, as in the paper.
BOUND_WEIGHT = 1e-3
NULL_SHARE = 0.1
# Logit of the timestep, as a share of all, around which small latents are undecided.
UNDECIDED = -0.6
FREQUENCIES = 128
# Steps between two saved states.
SAVE_EVERY = 1000


@dataclasses.dataclass(frozen=True)
class Size:
    """Dimensions of a transformer over latents of 4 x 8 x 8."""

    layers: int = 6
    width: int = 128
    heads: int = 4
    patch: int = 2
    classes: int = 10
    channels: int = 4
    side: int = 8


class Block(nn.Module):
    """Attention and a feed-forward network, both shifted, scaled and gated by the conditioning (adaLN-Zero)."""

    def __init__(self, size: Size):
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.modulation = nn.Linear(width, 6 * width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: torch.Tensor, conditioning: torch.Tensor) -> torch.Tensor:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (
            self.modulation(F.silu(conditioning)).unsqueeze(1).chunk(6, -1)
        )
        tokens = tokens + gate * self.attend(self.norm(tokens) * (1 + scale) + shift)
        hidden = self.widen(self.norm(tokens) * (1 + mlp_scale) + mlp_shift)
        return tokens + mlp_gate * self.narrow(F.gelu(hidden, approximate="tanh"))

    def attend(self, tokens: torch.Tensor) -> torch.Tensor:
        def heads(values: torch.Tensor) -> torch.Tensor:
            return values.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(self.query(tokens)), heads(self.key(tokens)), heads(self.value(tokens))
        )
        return self.out(mixed.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Noise (4 channels) and where the variance lies between its bounds (4 more) of noisy latents.

    Class `size.classes` is the null class. Times enter as in the DiT repository: frequencies fall by powers of
    1/10000 in steps of 1/128 (diffusers: 1/127).
    """

    def __init__(self, size: Size):
        super().__init__()
        self.size = size
        width, patch = size.width, size.patch
        self.patches = nn.Conv2d(size.channels, width, patch, patch)
        self.times = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.labels = nn.Embedding(size.classes + 1, width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, patch * patch * 2 * size.channels)
        self.register_buffer("positions", positions(width, size.side // patch), persistent=False)
        self.initialise()

    def initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patches.weight.view(self.size.width, -1))
        nn.init.zeros_(self.patches.bias)
        for weight in (self.labels.weight, self.times[0].weight, self.times[2].weight):
            nn.init.normal_(weight, std=0.02)
        for zero in [*(block.modulation for block in self.blocks), self.modulation, self.out]:
            nn.init.zeros_(zero.weight)

    def forward(self, latents: torch.Tensor, times: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        size = self.size
        places = torch.arange(FREQUENCIES, device=times.device)
        frequencies = torch.exp(-math.log(10000) * places / FREQUENCIES)
        angles = times.float().unsqueeze(1) * frequencies
        conditioning = self.times(torch.cat([angles.cos(), angles.sin()], -1)) + self.labels(labels)
        tokens = self.patches(latents).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens, conditioning)
        shift, scale = self.modulation(F.silu(conditioning)).unsqueeze(1).chunk(2, -1)
        tokens = self.out(self.norm(tokens) * (1 + scale) + shift)
        grid = size.side // size.patch
        tokens = tokens.view(-1, grid, grid, size.patch, size.patch, 2 * size.channels)
        return tokens.permute(0, 5, 1, 3, 2, 4).reshape(-1, 2 * size.channels, size.side, size.side)


def positions(width: int, grid: int) -> torch.Tensor:
    """Sines and cosines of each token's column, then of its row, `[1, grid * grid, width]`."""
    place = torch.arange(grid, dtype=torch.float64)
    omega = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    angles = [axis.reshape(-1, 1) * omega for axis in (columns, rows)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1).float().unsqueeze(0)


class Schedule:
    """Linear betas over 1000 timesteps, and what the loss needs of them, each `[1000, 1, 1, 1]` on `device`."""

    def __init__(self, device: torch.device) -> None:
        betas = torch.linspace(BETA_START, BETA_END, TIMESTEPS, dtype=torch.float64)
        alpha_bar = torch.cumprod(1 - betas, 0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
        posterior = betas * (1 - before) / (1 - alpha_bar)
        # The posterior variance of the first step is 0; its neighbour's stands in for the logarithm.
        posterior[0] = posterior[1]

        def column(values: torch.Tensor) -> torch.Tensor:
            return values.float().view(-1, 1, 1, 1).to(device)

        self.signal, self.noise = column(alpha_bar.sqrt()), column((1 - alpha_bar).sqrt())
        self.low, self.high = column(posterior.log()), column(betas.log())
        # The mean of the step is (z - noise_share * noise) / sqrt(1 - beta).
        self.noise_share = column(betas / (1 - alpha_bar).sqrt())
        self.shrink = column((1 - betas).sqrt())
        snr = column(alpha_bar / (1 - alpha_bar))
        self.weight = snr.clamp(max=MIN_SNR) / snr

    def loss(
        self, output: torch.Tensor, noise: torch.Tensor, times: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of a batch, and the plain squared error of its noise."""
        predicted, fraction = output.chunk(2, 1)
        error = (predicted - noise).pow(2)
        # KL divergence between two normal distributions whose means differ by the error of the noise, held fixed:
        # the bound trains variances alone. In the first step it stands for the likelihood.
        variance = self.low[times]
        log_variance = variance + (fraction + 1) / 2 * (self.high[times] - variance)
        distance = (self.noise_share / self.shrink)[times].pow(2) * error.detach()
        divergence = log_variance - variance - 1 + ((variance.exp() + distance) / log_variance.exp())
        bound = (divergence / 2 / math.log(2)).mean()
        weighted = (self.weight[times] * error).mean()
        return weighted + BOUND_WEIGHT * TIMESTEPS * bound, error.mean().detach()


def timesteps(count: int, undecided: float, device: torch.device) -> torch.Tensor:
    """Timesteps `[count]`: a share `undecided` of them from where a latent of 8 x 8 is neither clear nor lost, the
    others from anywhere.

    So small a latent is gone in far less noise than those that the schedule was made for, and over half of its
    timesteps show almost noise alone. The share is logit-normal ("Scaling Rectified Flow Transformers for
    High-Resolution Image Synthesis", Esser et al., arXiv 2403.03206); nine in ten of its timesteps lie from 100 to
    740.
    """
    anywhere = torch.randint(TIMESTEPS, (count,), device=device)
    if undecided == 0:
        return anywhere
    around = torch.sigmoid(UNDECIDED + torch.randn(count, device=device)) * TIMESTEPS
    return torch.where(torch.rand(count, device=device) < undecided, around.long(), anywhere)


def train(
    latents: torch.Tensor,
    spread: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: int,
    size: Size,
    undecided: float,
    batch: int = 64,
    max_lr: float = 1.5e-3,
    seed: int = 0,
    progress: Path,
) -> Transformer:
    """A transformer of scaled latents, drawn from normal distributions with means `latents` `[N, 4, 8, 8]` and
    standard deviations `spread`, and of their labels `[N]`; trained on their device and returned on the CPU.

    Timesteps are drawn as `timesteps` says. Muon and AdamW under a cosine schedule; the result is a moving average
    of the weights. Every `SAVE_EVERY` steps the state is written to the file `progress`, from which an interrupted
    training goes on; one of other settings or data is refused.
    """
    torch.manual_seed(seed)
    device = latents.device
    of = {
        "steps": steps,
        "size": dataclasses.asdict(size),
        "undecided": undecided,
        "batch": batch,
        "max_lr": max_lr,
        "seed": seed,
        "device": device.type,
        "samples": len(latents),
    }
    model = Transformer(size).to(device)
    average = copy.deepcopy(model).requires_grad_(False)
    schedule = Schedule(device)
    optimizers = optimizers_of(model)
    started, running, first = time.monotonic(), torch.ones((), device=device), 0
    if progress.exists():
        state = torch.load(progress, map_location=device)
        changed = [name for name, value in of.items() if state.get("of", {}).get(name) != value]
        if changed:
            raise ValueError(
                f"{progress}: of a training with other {', '.join(changed)}: delete it to start anew"
            )
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        set_random_state(state["random"], device)
        first, running = state["step"], state["running"]
    for step in range(first, steps):
        rate = max_lr * min(1, (step + 1) / 200) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate
        rows = torch.randint(len(latents), (batch,), device=device)
        clean = latents[rows] + spread[rows] * torch.randn(batch, *latents.shape[1:], device=device)
        classes = torch.where(torch.rand(batch, device=device) < NULL_SHARE, size.classes, labels[rows])
        times = timesteps(batch, undecided, device)
        noise = torch.randn_like(clean)
        noisy = schedule.signal[times] * clean + schedule.noise[times] * noise
        loss, error = schedule.loss(model(noisy, times, classes), noise, times)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        decay = min(0.9990, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        running = running.lerp(error, 0.02)
        if step % 250 == 0 or step == steps - 1:
            seconds = time.monotonic() - started
            print(
                f"transformer {step:5} of {steps}: error {running.item():.4f}, loss {loss.item():.4f}, {seconds:.0f} s",
                flush=True,
            )
        if (step + 1) % SAVE_EVERY == 0:
            state = {
                "of": of,
                "step": step + 1,
                "running": running,
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "random": random_state(device),
            }
            # Whole or not at all, whenever the script is stopped.
            partial = progress.with_suffix(".partial")
            torch.save(state, partial)
            partial.rename(progress)
    return average.cpu()


def random_state(device: torch.device) -> torch.Tensor:
    """The state of the device's default generator."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_random_state(state: torch.Tensor, device: torch.device) -> None:
    """Put that generator back into a state."""
    # A state is bytes on the CPU, wherever it was loaded to.
    if device.type == "cuda":
        torch.cuda.set_rng_state(state.cpu(), device)
    else:
        torch.set_rng_state(state.cpu())


def optimizers_of(model: Transformer) -> list[torch.optim.Optimizer]:
    """Muon ("Muon is Scalable for LLM Training", Liu et al., arXiv 2502.16982) for the matrices of the blocks, AdamW
    for everything else."""
    matrices = [weight for weight in model.blocks.parameters() if weight.ndim == 2]
    apart = {id(weight) for weight in matrices}
    rest = [weight for weight in model.parameters() if id(weight) not in apart]
    return [
        torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, weight_decay=0.0, betas=(0.9, 0.99)),
    ]


def save(model: Transformer, folder: Path) -> None:
    """Write the model to `folder`/transformer and its schedule to `folder`/scheduler, in half precision, under the
    names of diffusers' `DiTTransformer2DModel`, which keeps a copy of the embeddings in every block."""
    size = model.size
    own = model.state_dict()
    stored = {f"pos_embed.proj.{kind}": own[f"patches.{kind}"] for kind in ("weight", "bias")}
    names = {
        "out": "attn1.to_out.0",
        "widen": "ff.net.0.proj",
        "narrow": "ff.net.2",
        "modulation": "norm1.linear",
    }
    names |= {"query": "attn1.to_q", "key": "attn1.to_k", "value": "attn1.to_v"}
    for layer in range(size.layers):
        prefix = f"transformer_blocks.{layer}"
        stored[f"{prefix}.norm1.emb.class_embedder.embedding_table.weight"] = own["labels.weight"]
        for kind in ("weight", "bias"):
            for index, position in (1, 0), (2, 2):
                stored[f"{prefix}.norm1.emb.timestep_embedder.linear_{index}.{kind}"] = own[
                    f"times.{position}.{kind}"
                ]
            for name, diffusers_name in names.items():
                stored[f"{prefix}.{diffusers_name}.{kind}"] = own[f"blocks.{layer}.{name}.{kind}"]
    for kind in ("weight", "bias"):
        stored[f"proj_out_1.{kind}"] = own[f"modulation.{kind}"]
        stored[f"proj_out_2.{kind}"] = own[f"out.{kind}"]
    config = {
        "_class_name": "DiTTransformer2DModel",
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "attention_head_dim": size.width // size.heads,
        "in_channels": size.channels,
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": size.heads,
        "num_embeds_ada_norm": size.classes,
        "num_layers": size.layers,
        "out_channels": 2 * size.channels,
        "patch_size": size.patch,
        "sample_size": size.side,
    }
    scheduler = {
        "_class_name": "DDIMScheduler",
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "linear",
        "num_train_timesteps": TIMESTEPS,
        "clip_sample": False,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "prediction_type": "epsilon",
    }
    for part, content in ("transformer", config), ("scheduler", scheduler):
        (folder / part).mkdir(parents=True, exist_ok=True)
        name = "config.json" if part == "transformer" else "scheduler_config.json"
        (folder / part / name).write_text(json.dumps(content, indent=2) + "\n")
    weights = {name: value.half().clone() for name, value in stored.items()}
    save_file(weights, folder / "transformer" / "diffusion_pytorch_model.safetensors")
