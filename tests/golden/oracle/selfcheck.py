"""Reloads the golden files, recomputes everything, compares, and runs structural cross-checks.  Exit 0 = all good.
Needs diffusers and transformers beside torch.  Run from anywhere: python tests/golden/oracle/selfcheck.py"""
import os, sys, time
os.environ.setdefault("OMP_NUM_THREADS", "1")
import warnings
warnings.filterwarnings("ignore")
import numpy as np, torch
from dataclasses import replace
from safetensors.torch import load_file
t0 = time.time()
import oracle as O
import recipes as R
import tiny_models as TM
from tiny_models import G
import diffusers
diffusers.utils.logging.set_verbosity_error()

torch.set_num_threads(1)
torch.set_grad_enabled(False)
TOL = 2e-5          # rel. to the tensor's absmax; measured f32-vs-f64 floor is <= 5e-6 everywhere
# One ulp of a frequency (vector units differ in exp) is 6e-5 rad at t = 999; the network hardly sees it.
TIME_TOL = 1e-4
bad = []


def rel(a, b):
    a, b = a.double(), b.double()
    return ((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item()


def check(name, value, tol, lower=False):
    ok = (value >= tol) if lower else (value <= tol)
    print(f"{'ok  ' if ok else 'FAIL'} {name:64s} {value:.2e} {'>=' if lower else '<='} {tol:.0e}")
    if not ok:
        bad.append(name)


# 1. every golden file from its stored inputs
for name, r in R.ALL.items():
    blob = load_file(f"{G}/{name}.safetensors")
    inp = {k[3:]: v for k, v in blob.items() if k.startswith("in.")}
    want = {k[4:]: v for k, v in blob.items() if k.startswith("out.")}
    got = r.outputs(inp)
    if set(got) != set(want):
        bad.append(name + " keys")
    exact = [k for k in want if not want[k].is_floating_point()]
    if any(not torch.equal(got[k], want[k]) for k in exact):
        bad.append(name + " integer tensors")
    tol = 1e-12 if name == "schedules" else TOL
    angles = [k for k in want if "time_features" in k]
    for k in angles:
        check(f"golden {name}: {k}", rel(got[k], want[k]), TIME_TOL)
    worst = max(((rel(got[k], want[k]), k) for k in want if want[k].is_floating_point() and k not in angles))
    check(f"golden {name}: {len(want)} tensors, worst {worst[1]}", worst[0], tol)

# 2. two key layouts, two numerical conventions
sd = load_file(f"{G}/dit_tiny_official.safetensors")
pt = torch.load(f"{G}/dit_tiny_official.pt", weights_only=True)
check("official .pt == official .safetensors", max(rel(pt[k], sd[k]) for k in sd) + (set(pt) != set(sd)), 0.0)
dsd = load_file(f"{G}/dit_tiny_diffusers.safetensors")
back = O.diffusers_to_official(dsd, TM.DIT["depth"], 4)
check("diffusers -> official keys round trip", max(rel(back[k], sd[k]) for k in sd) + (set(back) != set(sd)), 0.0)
fw = load_file(f"{G}/dit_forward.safetensors")
x, t, y = fw["in.x"], fw["in.t"], fw["in.y"]
raw_d = R.diffusers_dit(torch.float32)(x, timestep=t, class_labels=y).sample
off_d = R.diffusers_dit(torch.float32, official_numerics=True)(x, timestep=t, class_labels=y).sample
check("DiTTransformer2DModel as shipped == golden `diffusers` convention", rel(raw_d, fw["out.diffusers"]), TOL)
check("DiTTransformer2DModel patched (freq shift 0, eps 1e-6) == `official`", rel(off_d, fw["out.official"]), TOL)
check("the two conventions really differ", rel(raw_d, fw["out.official"]), 1e-3, lower=True)
sm = rel(fw["out.diffusers_smallscale"], fw["out.official_smallscale"])
check("small-activation case separates them too", sm, 1e-2, lower=True)

# 3. independent route for the loop: diffusers network + diffusers DDIMScheduler, SG by hand
from diffusers import DDIMScheduler
dd = load_file(f"{G}/diver_dit.safetensors")
z0, nz, yy = dd["in.z0"], dd["in.noise"], dd["in.y"]
net = O.diffusers_dit_net(R.diffusers_dit(torch.float32, official_numerics=True), yy)
for kind, kw in (("leading0", dict(timestep_spacing="leading")), ("trailing", dict(timestep_spacing="trailing")),
                 ("linspace_diffusers", dict(timestep_spacing="linspace"))):
    s = DDIMScheduler(beta_start=1e-4, beta_end=2e-2, beta_schedule="linear", clip_sample=False, **kw)
    s.set_timesteps(50)
    ts = s.timesteps.tolist()
    z = s.add_noise(z0, nz, torch.tensor([ts[50 - 25]] * 2))
    for j, tau in enumerate(ts):
        k = 50 - j
        eps, _ = net(z, tau)
        zn = s.step(eps, tau, z).prev_sample
        if 25 <= k <= 40:
            zn = zn - (z - z0) * (0.1 * float(s._get_variance(tau, tau - 20)) ** 0.5)
        z = zn
    check(f"full via DDIMScheduler({kw['timestep_spacing']}) == final.chain_{kind}", rel(z, dd[f"out.final.chain_{kind}"]), 5e-5)
clo = load_file(f"{G}/diver_sd.safetensors")
s = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                  set_alpha_to_one=False, steps_offset=1)
s.set_timesteps(50)
z = clo["in.noise"]
for k, tau in zip(range(50, 0, -1), s.timesteps.tolist()):
    z = s.step(clo["out.eps_full"][50 - k], tau, clo["out.traj.full"][50 - k]).prev_sample
    if not 25 <= k <= 40:
        e = rel(clo["out.traj.full"][51 - k], z)
        if e > 5e-6:
            bad.append(f"sd step {k}")
print(f"{'ok  ' if not any('sd step' in b for b in bad) else 'FAIL'} SD trajectory outside SP == DDIMScheduler one-step replay")

# 4. VAE helpers == AutoencoderKL public API
for r in (R.vae2_io, R.vae4_io):
    b = load_file(f"{G}/{r.__name__}.safetensors")
    m = r.model(torch.float32)
    post = m.encode(b["in.x"]).latent_dist
    check(f"{r.__name__}: encode().latent_dist.mode() * 0.18215", rel(post.mode() * O.VAE_SCALE, b["out.z0_mode"]), TOL)
    check(f"{r.__name__}: latent_dist.logvar (clamped)", rel(post.logvar, b["out.logvar"]), TOL)
    check(f"{r.__name__}: decode(z / 0.18215)", rel(m.decode(b["in.z"] / O.VAE_SCALE).sample, b["out.decoded"]), TOL)

# 5. invariants of the method
f = dd["out.traj.full"]
check("sigma = DDIM eta 0 (i.e. 0) turns SG off: == SI only", rel(dd["out.final.sigma_ddim_eta0"], dd["out.traj.si"][-1]), 0.0)
check("start latent of full == start latent of si_sg (= z_{t_f})", rel(f[0], dd["out.traj.si_sg"][0]), 0.0)
check("full follows SI exactly through CP (k = 50..41)", rel(f[:11], dd["out.traj.si"][:11]), 0.0)
w = load_file(f"{G}/schedules.safetensors")
n = [int(w[f"out.window.{q}"].sum()) for q in ("closed", "high", "zero_based")]
check(f"guided steps closed/high/zero_based = {n}", float(n != [16, 15, 16]), 0.0)
c = O.make_chain("dit")
lo, hi = c.sigma("posterior")[24:40], c.sigma("beta")[24:40]
check("posterior vs upper learned bound inside SP (rel gap)", float(np.max(hi / lo - 1)), 1.1e-2)
one = O.run_diver(O.dit_net(sd, yy, 4, cfg_scale=1.0), c, z0, nz, O.MODES["full"])[-1]
def cond_only(z, tau):
    o = O.dit_forward(sd, z, torch.full((2,), tau), yy, 4)
    return o[:, :4], o[:, 4:]
check("cfg_scale 1 == conditional only", rel(one, O.run_diver(cond_only, c, z0, nz, O.MODES["full"])[-1]), TOL)
vals = [float((dd[f"out.traj.{m}"][-1] - z0).square().mean().sqrt()) for m in ("raw", "si", "full", "si_sg")]
print("     rms distance of the result to z0:  raw %.3f  si %.3f  full %.3f  si_sg %.3f" % tuple(vals))
if not (vals[0] > vals[2] and vals[1] > vals[2]):
    bad.append("SG does not pull towards z0")
tot = sum(e.stat().st_size for e in os.scandir(G) if e.is_file())
check("size of the golden files in MB", tot / 1e6, 8.0)
print(f"{time.time() - t0:.1f} s, {'ALL OK' if not bad else 'FAILED: ' + ', '.join(bad)}")
sys.exit(1 if bad else 0)
