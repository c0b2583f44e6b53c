"""The settings of the method, as keywords."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Literal, SupportsFloat, SupportsIndex, TypeAlias, TypedDict

from diver import _options
from diver.errors import OptionError

Mode: TypeAlias = Literal["raw", "si", "sg", "si_sg", "full", "sg_sf", "vae"]
Sigma: TypeAlias = Literal["posterior", "marginal", "beta", "learned", "ddim_eta0"]
Chain: TypeAlias = Literal[
    "dit", "ddim", "leading0", "leading1", "trailing", "linspace_diffusers", "sd_leading1"
]
Start: TypeAlias = Literal["t_r", "t_f"]
WindowEnds: TypeAlias = Literal["closed", "high", "zero_based"]
Gradient: TypeAlias = Literal["latent", "after", "x0"]
Solver: TypeAlias = Literal["euler", "heun", "sde"]
Grid: TypeAlias = Literal["uniform", "official_sde", "snr"]
FlowMapping: TypeAlias = Literal["snr", "counter"]
FlowStart: TypeAlias = Literal["vp", "path"]


class KnobOptions(TypedDict, total=False):
    """The settings of the method; one that is left out, or None, is not given.

    - ``mode`` ("full"): what runs. ``raw``, ``si``, ``sg``, ``si_sg``, ``full`` and ``sg_sf`` are the rows of
      the paper's ablation; ``vae`` encodes and decodes only.
    - ``steps`` (50): denoising steps, 2 or more. ``t_f`` and ``window`` scale with it unless they are given.
    - ``t_f`` (25): the step whose noise level the distilled latent is noised to, 1 to ``steps``.
    - ``window`` ((40, 25)): first and last guided step, counting down.
    - ``gamma`` (0.1): strength of the pull toward the distilled latent, 0 or more.
    - ``cfg_scale`` (4.0; 7.5 for Stable Diffusion): scale of classifier-free guidance, 0 or more; 1 means none.
    - ``cfg_channels`` (3; 4 for Stable Diffusion): latent channels under classifier-free guidance, 3 as in DiT's
      own code, 4 as in diffusers.
    - ``sigma`` ("posterior"): scale of the pull at each step.
    - ``chain`` ("dit"; "sd_leading1" for Stable Diffusion): which timesteps are visited.
    - ``start`` ("t_r"): the first step: ``t_r`` (all run) or ``t_f`` (from the noised latent's own step).
    - ``window_ends`` ("closed"): which ends of the window are guided.
    - ``gradient`` ("latent"): what is pulled: the latent before the step, ``after`` it, or the prediction
      ``x0``.

    For a SiT alone, which moves from noise to data along straight lines:

    - ``solver`` ("euler"): how it is integrated; ``heun`` calls the network twice a step, ``sde`` draws noise at
      every step.
    - ``grid`` (that of the solver): the times that are visited: ``uniform``, ``official_sde`` or ``snr`` (the noise
      levels of ``chain``).
    - ``mapping`` ("snr"): how ``window`` is found among them: by the noise of the chain's steps, or by ``counter``.
    - ``flow_start`` ("vp"): the latent it starts from: of unit variance, or on its own ``path``.
    """

    mode: Mode | None
    steps: SupportsIndex | None
    t_f: SupportsIndex | None
    window: Iterable[SupportsIndex] | None
    gamma: SupportsFloat | None
    cfg_scale: SupportsFloat | None
    cfg_channels: SupportsIndex | None
    sigma: Sigma | None
    chain: Chain | None
    start: Start | None
    window_ends: WindowEnds | None
    gradient: Gradient | None
    solver: Solver | None
    grid: Grid | None
    mapping: FlowMapping | None
    flow_start: FlowStart | None


#: All of them, in the order of the documentation.
NAMES = tuple(KnobOptions.__annotations__)


def checked(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are given, once their names, types and ranges are known to be right."""
    for name in knobs:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, 1)
            meant = f"did you mean {close[0]}?" if close else f"there are {', '.join(NAMES)}"
            if name == "refine_seed":
                meant = "give seed to a call"
            raise OptionError(f"{name}: there is no such setting; {meant}")
    return _options.given("knobs", knobs)


def seed(name: str, value: SupportsIndex | None) -> dict[str, Any]:
    """The seed of the noise as a setting, by the name that a call has for it."""
    schema = _options.schema("knobs")["refine_seed"]
    return {} if value is None else {"refine_seed": _options.checked(name, value, schema)}
