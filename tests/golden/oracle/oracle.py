"""DIVER oracle: an independent PyTorch reference for the method of arXiv 2605.12649.

Written from the maths (the DIVER, DDPM, DDIM and SiT papers) before the Rust code and apart from it; diffusers
classes are only *called* as reference networks.  Where the paper leaves a choice, the flag's comment names it.
Conventions used everywhere:

  k        step counter, k = N..1 (N = 50).  "Step k" maps z_k -> z_{k-1}; z_N is the start, z_0 the result.
  i = k-1  index into the respaced chain, tau[i] the original (0..999) timestep fed to the network.
  abar     cumulative alpha (the paper writes alpha_t for it).
  scalars  all schedule scalars are float64; a scalar meets a float32 tensor only as `tensor * float`
           (torch / tch both round the scalar to f32 there), so op ORDER is the only parity concern.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

VAE_SCALE = 0.18215
T_TRAIN = 1000

# --------------------------------------------------------------------------- (a) schedules


def betas_linear(T: int = T_TRAIN, lo: float = 1e-4, hi: float = 2e-2) -> np.ndarray:
    """DDPM / DiT: straight line in beta, float64."""
    return np.linspace(lo, hi, T, dtype=np.float64)


def betas_scaled_linear(T: int = T_TRAIN, lo: float = 0.00085, hi: float = 0.012) -> np.ndarray:
    """Stable Diffusion: straight line in sqrt(beta), float64."""
    return np.linspace(math.sqrt(lo), math.sqrt(hi), T, dtype=np.float64) ** 2


def abar_of(betas: np.ndarray) -> np.ndarray:
    return np.cumprod(1.0 - betas)


def taus_dit(n: int, T: int = T_TRAIN) -> np.ndarray:
    """create_diffusion("n"): both ends kept, real-valued stride (T-1)/(n-1), accumulated in float and
    rounded half-to-even (Python `round`)."""
    stride = (T - 1) / (n - 1) if n > 1 else 1.0
    out, pos = [], 0.0
    for _ in range(n):
        out.append(round(pos))
        pos += stride
    return np.array(sorted(set(out)), dtype=np.int64)


def taus_ddim_stride(n: int, T: int = T_TRAIN) -> np.ndarray:
    """create_diffusion("ddimn"): the smallest integer stride giving exactly n points from 0."""
    for s in range(1, T):
        if len(range(0, T, s)) == n:
            return np.arange(0, T, s, dtype=np.int64)
    raise ValueError("no integer stride")


def taus_leading(n: int, T: int = T_TRAIN, offset: int = 0) -> np.ndarray:
    return np.arange(n, dtype=np.int64) * (T // n) + offset


def taus_trailing(n: int, T: int = T_TRAIN) -> np.ndarray:
    return (np.round(np.arange(T, 0, -T / n)).astype(np.int64) - 1)[::-1].copy()


@dataclass(frozen=True)
class Chain:
    """A respaced diffusion chain.  Arrays are ascending in i = 0..N-1 (i = k-1)."""

    name: str
    tau: np.ndarray        # int64 [N]
    abar: np.ndarray       # f64 [N]   abar at tau[i]
    abar_prev: np.ndarray  # f64 [N]   abar the step k=i+1 lands on

    @property
    def n(self) -> int:
        return len(self.tau)

    # --- coefficients of  x0 = r z - m eps ;  z' = a x0 + b eps
    @property
    def r(self):
        return np.sqrt(1.0 / self.abar)

    @property
    def m(self):
        return np.sqrt(1.0 / self.abar - 1.0)

    @property
    def a(self):
        return np.sqrt(self.abar_prev)

    @property
    def b(self):
        return np.sqrt(1.0 - self.abar_prev)

    @property
    def beta(self):
        return 1.0 - self.abar / self.abar_prev

    @property
    def beta_tilde(self):
        return self.beta * (1.0 - self.abar_prev) / (1.0 - self.abar)

    @property
    def beta_tilde_clipped(self):
        """first entry replaced by the second (the DiT repo's log-variance clipping)."""
        bt = self.beta_tilde.copy()
        bt[0] = bt[1]
        return bt

    def sigma(self, kind: str) -> np.ndarray:
        if kind == "posterior":      # sqrt(beta_tilde) == DDIM sigma_t at eta = 1
            return np.sqrt(self.beta_tilde)
        if kind == "marginal":       # sqrt(1 - abar_t)
            return np.sqrt(1.0 - self.abar)
        if kind == "beta":           # sqrt(beta_t)
            return np.sqrt(self.beta)
        if kind == "ddim_eta0":      # literal DDIM sigma at eta = 0
            return np.zeros(self.n)
        raise KeyError(kind)


def make_chain(kind: str = "dit", n: int = 50) -> Chain:
    """kinds: dit | ddim | leading0 | leading1 | trailing | linspace_diffusers | sd_leading1"""
    ab = abar_of(betas_scaled_linear() if kind.startswith("sd") else betas_linear())
    if kind == "dit":
        tau, first = taus_dit(n), 1.0
    elif kind == "ddim":
        tau, first = taus_ddim_stride(n), 1.0
    elif kind == "leading0":
        tau, first = taus_leading(n), 1.0
    elif kind == "leading1":
        tau, first = taus_leading(n, offset=1), 1.0
    elif kind == "trailing":
        tau, first = taus_trailing(n), 1.0
    elif kind == "linspace_diffusers":
        tau, first = np.linspace(0, T_TRAIN - 1, n).round().astype(np.int64), 1.0
    elif kind == "sd_leading1":
        tau, first = taus_leading(n, offset=1), float(ab[0])  # set_alpha_to_one = False
    else:
        raise KeyError(kind)
    if kind == "linspace_diffusers":
        # diffusers' DDIM always lands on tau - T//n, which is NOT tau[i-1] under linspace spacing
        prev_t = tau - T_TRAIN // n
        prev = np.where(prev_t >= 0, ab[np.maximum(prev_t, 0)], 1.0)
    else:
        prev = np.concatenate([[first], ab[tau[:-1]]])
    return Chain(kind, tau, ab[tau], prev)


def learned_sigma(chain: Chain, i: int, v: torch.Tensor) -> torch.Tensor:
    """exp(0.5 log var) of DiT's learned-range variance; v = the second half of the output channels
    of the CONDITIONAL branch, meant to lie in [-1, 1] but not clamped."""
    hi = float(np.log(chain.beta[i]))
    lo = float(np.log(chain.beta_tilde_clipped[i]))
    frac = (v + 1.0) / 2.0
    return torch.exp((frac * hi + (1.0 - frac) * lo) * 0.5)


# --------------------------------------------------------------------------- (b) DDIM, eta = 0


def ddim_step(z, eps, r: float, m: float, a: float, b: float):
    """Two-stage form, in this op order:  x0 = z*r - eps*m ;  z' = x0*a + eps*b."""
    x0 = z * r - eps * m
    return x0 * a + eps * b, x0


# --------------------------------------------------------------------------- (c) guidance


def cfg_combine(cond, uncond, scale: float, channels: int):
    """uncond + scale (cond - uncond) on the first `channels` channels; the rest is taken from cond.
    channels = 3: official forward_with_cfg (channel 3 stays purely conditional).  channels = 4: diffusers."""
    g = uncond[:, :channels] + (cond[:, :channels] - uncond[:, :channels]) * scale
    return torch.cat([g, cond[:, channels:]], dim=1)


# --------------------------------------------------------------------------- networks, official layout


def sincos_pos_embed(dim: int, grid: int) -> np.ndarray:
    """[grid*grid, dim] f64.  dims [0,D/2) encode the COLUMN, [D/2,D) the ROW; each half is sin then cos."""
    q = dim // 4
    omega = 1.0 / 10000 ** (np.arange(q, dtype=np.float64) / q)
    rows, cols = np.divmod(np.arange(grid * grid), grid)
    parts = []
    for p in (cols, rows):
        ang = p[:, None].astype(np.float64) * omega[None]
        parts += [np.sin(ang), np.cos(ang)]
    return np.concatenate(parts, axis=1)


def time_features(t: torch.Tensor, dim: int = 256, denom_minus: int = 0) -> torch.Tensor:
    """[cos | sin] features, frequencies 10000^(-j/(half - denom_minus)), ALWAYS computed in float32
    (op order as below: angles reach 999 rad, so a float64 table would differ by ~6e-5).
    denom_minus = 0 official DiT / SiT / SD-UNet; 1 = what diffusers' DiT class computes."""
    half = dim // 2
    j = torch.arange(half, dtype=torch.float32)
    freqs = torch.exp(j * (-math.log(10000.0)) / (half - denom_minus))
    ang = t.float()[:, None] * freqs[None]
    return torch.cat([torch.cos(ang), torch.sin(ang)], dim=-1)


@dataclass(frozen=True)
class Convention:
    """Numerical conventions that differ between the official code and diffusers' DiT class."""

    t_denom_minus: int = 0   # official 0, diffusers 1
    mlp_ln_eps: float = 1e-6  # official 1e-6, diffusers config default 1e-5


OFFICIAL = Convention(0, 1e-6)
DIFFUSERS = Convention(1, 1e-5)


def dit_forward(sd: dict, x, t, y, heads: int, patch: int = 2, conv: Convention = OFFICIAL, taps: dict | None = None):
    """DiT / SiT transformer from an official-layout state dict.  Returns all output channels."""
    lin = lambda name, h: F.linear(h, sd[name + ".weight"], sd[name + ".bias"])
    ln = lambda h, eps: F.layer_norm(h, h.shape[-1:], eps=eps)
    tap = (lambda k, v: taps.__setitem__(k, v)) if taps is not None else (lambda k, v: None)

    h = F.conv2d(x, sd["x_embedder.proj.weight"], sd["x_embedder.proj.bias"], stride=patch)
    gh, gw = h.shape[-2:]
    h = h.flatten(2).transpose(1, 2) + sd["pos_embed"]
    tap("tokens", h)
    tf = time_features(t, sd["t_embedder.mlp.0.weight"].shape[1], conv.t_denom_minus).to(x.dtype)
    tap("time_features", tf)
    c = lin("t_embedder.mlp.2", F.silu(lin("t_embedder.mlp.0", tf))) + sd["y_embedder.embedding_table.weight"][y]
    tap("cond", c)
    sc = F.silu(c)
    B, n, D = h.shape
    n_blocks = 1 + max(int(k.split(".")[1]) for k in sd if k.startswith("blocks."))
    for d in range(n_blocks):
        p = f"blocks.{d}."
        sh1, s1, g1, sh2, s2, g2 = lin(p + "adaLN_modulation.1", sc)[:, None].chunk(6, dim=-1)
        u = ln(h, 1e-6) * (1 + s1) + sh1
        q, k, v = lin(p + "attn.qkv", u).reshape(B, n, 3, heads, D // heads).permute(2, 0, 3, 1, 4)
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, n, D)
        h = h + g1 * lin(p + "attn.proj", o)
        u = ln(h, conv.mlp_ln_eps) * (1 + s2) + sh2
        h = h + g2 * lin(p + "mlp.fc2", F.gelu(lin(p + "mlp.fc1", u), approximate="tanh"))
        tap(f"block{d}", h)
    sh, s = lin("final_layer.adaLN_modulation.1", sc)[:, None].chunk(2, dim=-1)
    h = lin("final_layer.linear", ln(h, 1e-6) * (1 + s) + sh)
    co = h.shape[-1] // (patch * patch)
    h = h.reshape(B, gh, gw, patch, patch, co).permute(0, 5, 1, 3, 2, 4)  # n c h p w q
    return h.reshape(B, co, gh * patch, gw * patch)


# --------------------------------------------------------------------------- key maps

_BLOCK = [  # official suffix -> diffusers suffix (qkv handled apart)
    ("attn.proj", "attn1.to_out.0"),
    ("mlp.fc1", "ff.net.0.proj"),
    ("mlp.fc2", "ff.net.2"),
    ("adaLN_modulation.1", "norm1.linear"),
]
_TOP = [
    ("x_embedder.proj", "pos_embed.proj"),
    ("final_layer.adaLN_modulation.1", "proj_out_1"),
    ("final_layer.linear", "proj_out_2"),
]
_EMB = [  # shared in the official file, copied into EVERY block by diffusers
    ("t_embedder.mlp.0.weight", "timestep_embedder.linear_1.weight"),
    ("t_embedder.mlp.0.bias", "timestep_embedder.linear_1.bias"),
    ("t_embedder.mlp.2.weight", "timestep_embedder.linear_2.weight"),
    ("t_embedder.mlp.2.bias", "timestep_embedder.linear_2.bias"),
    ("y_embedder.embedding_table.weight", "class_embedder.embedding_table.weight"),
]


def official_to_diffusers(sd: dict, depth: int) -> dict:
    out = {}
    for wb in ("weight", "bias"):
        for a, b in _TOP:
            out[f"{b}.{wb}"] = sd[f"{a}.{wb}"]
        for d in range(depth):
            for a, b in _BLOCK:
                out[f"transformer_blocks.{d}.{b}.{wb}"] = sd[f"blocks.{d}.{a}.{wb}"]
            for name, part in zip("qkv", sd[f"blocks.{d}.attn.qkv.{wb}"].chunk(3, dim=0)):
                out[f"transformer_blocks.{d}.attn1.to_{name}.{wb}"] = part.clone()
    for d in range(depth):
        for a, b in _EMB:
            out[f"transformer_blocks.{d}.norm1.emb.{b}"] = sd[a].clone()
    return out  # pos_embed is dropped: diffusers recomputes it (non-persistent buffer)


def diffusers_to_official(sd: dict, depth: int, grid: int) -> dict:
    out = {}
    for wb in ("weight", "bias"):
        for a, b in _TOP:
            out[f"{a}.{wb}"] = sd[f"{b}.{wb}"]
        for d in range(depth):
            for a, b in _BLOCK:
                out[f"blocks.{d}.{a}.{wb}"] = sd[f"transformer_blocks.{d}.{b}.{wb}"]
            out[f"blocks.{d}.attn.qkv.{wb}"] = torch.cat(
                [sd[f"transformer_blocks.{d}.attn1.to_{n}.{wb}"] for n in "qkv"], dim=0)
    for a, b in _EMB:
        out[a] = sd[f"transformer_blocks.0.norm1.emb.{b}"]
    dim = out["x_embedder.proj.weight"].shape[0]
    out["pos_embed"] = torch.from_numpy(sincos_pos_embed(dim, grid)).float()[None]
    return out


# --------------------------------------------------------------------------- VAE helpers


def vae_moments(vae, x):
    """-> mean, clamped logvar (unscaled)."""
    mom = vae.quant_conv(vae.encoder(x))
    mean, logvar = mom.chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0), mom


def vae_to_z0(mean, logvar, noise=None, scale: float = VAE_SCALE):
    """noise None -> posterior mode; else mean + exp(logvar/2) * noise.  Then * scale."""
    z = mean if noise is None else mean + torch.exp(logvar * 0.5) * noise
    return z * scale


def vae_decode(vae, z, scale: float = VAE_SCALE):
    return vae.decoder(vae.post_quant_conv(z / scale))


# --------------------------------------------------------------------------- (d) DIVER on an eps-model


@dataclass(frozen=True)
class Diver:
    steps: int = 50
    t_f: int = 25
    t_h: int = 40
    t_l: int = 25
    gamma: float = 0.1        # 0.02 for NCFM
    si: bool = True           # start from the noised distilled latent (else from pure noise)
    sg: bool = True           # semantic guidance on
    sf: bool = True           # restrict SG to [t_h, t_l] (else SG at every step)
    sigma: str = "posterior"  # posterior | marginal | beta | learned | ddim_eta0
    window: str = "closed"    # closed: t_l<=k<=t_h | high: t_l<k<=t_h | zero_based: t_l<=k-1<=t_h
    grad_at: str = "before"   # before: (z_k - z0), the printed formula | after: (z'_{k-1} - z0)
    start: str = "t_r"        # t_r: all 50 steps, treating z_{t_f} as z_50 | t_f: SDEdit-like, t_f steps only


MODES = {  # the rows of the paper's ablation table (Tab. 6)
    "raw": Diver(si=False, sg=False, sf=False),
    "si": Diver(si=True, sg=False, sf=False),
    "sg": Diver(si=False, sg=True, sf=False),
    "si_sg": Diver(si=True, sg=True, sf=False),
    "full": Diver(si=True, sg=True, sf=True),
    "sg_sf": Diver(si=False, sg=True, sf=True),  # not in the table; completes the grid
}


def sg_active(cfg: Diver, k: int) -> bool:
    if not cfg.sg:
        return False
    if not cfg.sf:
        return True
    if cfg.window == "closed":
        return cfg.t_l <= k <= cfg.t_h
    if cfg.window == "high":
        return cfg.t_l < k <= cfg.t_h
    if cfg.window == "zero_based":
        return cfg.t_l <= k - 1 <= cfg.t_h
    raise KeyError(cfg.window)


def noised_start(z0, noise, abar: float):
    return z0 * math.sqrt(abar) + noise * math.sqrt(1.0 - abar)


def run_diver(net, chain: Chain, z0, noise, cfg: Diver, record_eps: bool = False):
    """net(z, tau:int) -> (eps, v|None) with classifier-free guidance already inside.
    Returns trajectory [steps+1,...] with entry 0 the start, last entry the result."""
    z = noised_start(z0, noise, float(chain.abar[cfg.t_f - 1])) if cfg.si else noise
    first = cfg.steps if cfg.start == "t_r" else cfg.t_f
    traj, epss = [z], []
    r, m, a, b = chain.r, chain.m, chain.a, chain.b
    sig = None if cfg.sigma == "learned" else chain.sigma(cfg.sigma)
    for k in range(first, 0, -1):
        i = k - 1
        eps, v = net(z, int(chain.tau[i]))
        zn, _ = ddim_step(z, eps, float(r[i]), float(m[i]), float(a[i]), float(b[i]))
        if sg_active(cfg, k):
            g = (z if cfg.grad_at == "before" else zn) - z0
            w = learned_sigma(chain, i, v) * cfg.gamma if sig is None else cfg.gamma * float(sig[i])
            zn = zn - g * w
        z = zn
        traj.append(z)
        epss.append(eps)
    out = torch.stack(traj)
    return (out, torch.stack(epss)) if record_eps else out


def dit_net(sd, y, heads, cfg_scale=4.0, channels=3, conv: Convention = OFFICIAL, num_classes=None, patch: int = 2):
    """Official-layout DiT as a guided eps network (cond+uncond batched as [cond; null])."""
    null = sd["y_embedder.embedding_table.weight"].shape[0] - 1 if num_classes is None else num_classes
    yy = torch.cat([y, torch.full_like(y, null)])

    def net(z, tau):
        out = dit_forward(sd, torch.cat([z, z]), torch.full((2 * len(z),), tau), yy, heads, patch, conv)
        c, u = out.chunk(2, dim=0)
        g = cfg_combine(c, u, cfg_scale, channels)
        C = z.shape[1]
        return g[:, :C], (g[:, C:] if g.shape[1] > C else None)

    return net


def diffusers_dit_net(model, y, cfg_scale=4.0, channels=3):
    null = model.config.num_embeds_ada_norm
    yy = torch.cat([y, torch.full_like(y, null)])

    def net(z, tau):
        out = model(torch.cat([z, z]), timestep=torch.full((2 * len(z),), tau), class_labels=yy).sample
        c, u = out.chunk(2, dim=0)
        g = cfg_combine(c, u, cfg_scale, channels)
        return g[:, :z.shape[1]], g[:, z.shape[1]:]

    return net


# --------------------------------------------------------------------------- (f) SD-V1.5


def sd_prompt(cls: str) -> str:
    return f"a photo of a {cls}"


def sd_net(unet, emb_cond, emb_uncond, cfg_scale=7.5):
    """CFG over all 4 channels; prediction type epsilon; no learned variance."""
    emb = torch.cat([emb_uncond, emb_cond])

    def net(z, tau):
        out = unet(torch.cat([z, z]), torch.tensor(tau), encoder_hidden_states=emb).sample
        u, c = out.chunk(2, dim=0)
        return cfg_combine(c, u, cfg_scale, z.shape[1]), None

    return net


# --------------------------------------------------------------------------- (e) SiT, linear path


def snr_time(abar: float) -> float:
    """time s on the linear path z_s = s x + (1-s) eps with the SNR of a VP state of level abar."""
    return math.sqrt(abar) / (math.sqrt(abar) + math.sqrt(1.0 - abar))


def sit_grid(kind: str, n: int = 50, chain: Chain | None = None) -> np.ndarray:
    """s[k], k = 0..n, with s[n] the start (noise) and s[0] = 1 (data)."""
    k = np.arange(n + 1)
    if kind == "uniform":            # n equal steps (official ODE with num_steps = n + 1 grid points)
        return 1.0 - k / n
    if kind == "official_sde":       # n-1 equal steps on [0, 0.96], then one last step of 0.04
        s = np.empty(n + 1)
        s[1:] = np.linspace(0.0, 0.96, n)[::-1]
        s[0] = 1.0
        return s
    if kind == "snr":                # the DiT chain's own noise levels
        s = np.array([1.0] + [snr_time(a) for a in chain.abar])
        s[n] = 0.0
        return s
    raise KeyError(kind)


def sit_sigma(kind: str, s: float, s_next: float) -> float:
    """sigma for the step s -> s_next.  posterior: std of q(z_{s'} | z_s, x) for the Gaussian path
    (alpha = s, sigma = 1 - s), the exact analogue of sqrt(beta_tilde)."""
    if kind == "marginal":
        return 1.0 - s
    if kind == "posterior":
        st2, sp2 = (1.0 - s) ** 2, (1.0 - s_next) ** 2
        cond = st2 - (s / s_next) ** 2 * sp2
        return math.sqrt(max(sp2 / st2 * cond, 0.0))
    if kind == "kernel":             # std of one Euler-Maruyama step with w = 1 - s
        return math.sqrt(2.0 * (1.0 - s) * (s_next - s))
    raise KeyError(kind)


@dataclass(frozen=True)
class SitOpts:
    solver: str = "euler"      # euler | heun (ODE) ; em (SDE, w = 1 - s, last step noise-free)
    grid: str = "uniform"      # uniform | official_sde | snr
    mapping: str = "snr"       # window and t_f by matched SNR (snr) or by the raw counter (counter)
    si_start: str = "vp"       # vp: sqrt(abar) z0 + sqrt(1-abar) eps | path: s_f z0 + (1-s_f) eps
    sigma: str = "posterior"


def sit_window(cfg: Diver, opts: SitOpts, k: int, s_k: float, chain: Chain) -> bool:
    if not cfg.sg:
        return False
    if not cfg.sf:
        return True
    if opts.mapping == "counter":
        return cfg.t_l <= k <= cfg.t_h
    lo, hi = snr_time(float(chain.abar[cfg.t_h - 1])), snr_time(float(chain.abar[cfg.t_l - 1]))
    return lo <= s_k <= hi


def run_diver_sit(net, z0, noise, cfg: Diver, opts: SitOpts, chain: Chain, step_noise=None):
    """net(z, s) -> velocity (data minus noise).  step_noise [steps,...] is used by solver 'em' only,
    consumed in order of execution (entry 0 belongs to k = steps)."""
    n = cfg.steps
    s = sit_grid(opts.grid, n, chain)
    ab = float(chain.abar[cfg.t_f - 1])
    if not cfg.si:
        z = noise
    elif opts.si_start == "vp":
        z = noised_start(z0, noise, ab)
    else:
        s_f = snr_time(ab) if opts.mapping == "snr" else 1.0 - cfg.t_f / n
        z = z0 * s_f + noise * (1.0 - s_f)
    traj = [z]
    for j, k in enumerate(range(n, 0, -1)):
        s_k, s_n = float(s[k]), float(s[k - 1])
        ds = s_n - s_k
        v = net(z, s_k)
        if opts.solver == "euler":
            zn = z + v * ds
        elif opts.solver == "heun":
            v2 = net(z + v * ds, s_n)
            zn = z + (v + v2) * (0.5 * ds)
        elif opts.solver == "em":
            # drift v + w*score with w = 1-s and score = -(z - s v)/(1-s)  ->  v - (z - s v)
            zn = z + (v - (z - v * s_k)) * ds
            if k > 1:
                zn = zn + step_noise[j] * math.sqrt(2.0 * (1.0 - s_k) * ds)
        else:
            raise KeyError(opts.solver)
        if sit_window(cfg, opts, k, s_k, chain):
            zn = zn - (z - z0) * (cfg.gamma * sit_sigma(opts.sigma, s_k, s_n))
        z = zn
        traj.append(z)
    return torch.stack(traj)


def sit_net(sd, y, heads, cfg_scale=4.0, channels=3):
    """Official-layout SiT velocity; output has 8 channels for the released 256px model, first 4 kept.
    The time enters the sinusoid UNSCALED (s in [0,1], not s*1000)."""
    null = sd["y_embedder.embedding_table.weight"].shape[0] - 1
    yy = torch.cat([y, torch.full_like(y, null)])

    def net(z, s):
        t = torch.full((2 * len(z),), s, dtype=torch.float32)
        out = dit_forward(sd, torch.cat([z, z]), t, yy, heads)[:, :z.shape[1]]
        c, u = out.chunk(2, dim=0)
        return cfg_combine(c, u, cfg_scale, channels)

    return net


# --------------------------------------------------------------------------- image side


def preprocess(img01, size: int = 256, mode: str = "bicubic"):
    """[0,1] float NCHW (already de-normalised) -> clamp -> resize -> clamp -> [-1,1]."""
    x = img01.clamp(0, 1)
    if x.shape[-1] != size or x.shape[-2] != size:
        x = F.interpolate(x, size=(size, size), mode=mode, align_corners=False, antialias=False).clamp(0, 1)
    return x * 2.0 - 1.0


def postprocess(x):
    """decoder output -> [0,1]"""
    return ((x + 1.0) / 2.0).clamp(0, 1)


if __name__ == "__main__":
    for kind in ("dit", "ddim", "leading1", "trailing", "sd_leading1"):
        c = make_chain(kind)
        print(kind, c.tau.tolist())
        for k in (50, 40, 25, 1):
            i = k - 1
            print(f"  k={k:2d} tau={c.tau[i]:3d} abar={c.abar[i]:.6f} marginal={c.sigma('marginal')[i]:.5f} "
                  f"posterior={c.sigma('posterior')[i]:.5f} beta={c.sigma('beta')[i]:.5f}")
