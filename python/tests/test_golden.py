"""The stages of the refiner against the reference, through Python, by the golden files of the Rust tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from diver.errors import OptionError
from diver_refiner import Refiner

#: The largest accepted difference, as a share of the largest reference value.
TOLERANCE = 2e-5

MODES = ["raw", "si", "sg", "si_sg", "full", "sg_sf"]

VARIANTS: dict[str, dict[str, Any]] = {
    "sigma_marginal": {"sigma": "marginal"},
    "sigma_beta": {"sigma": "beta"},
    "sigma_learned": {"sigma": "learned"},
    "sigma_ddim_eta0": {"sigma": "ddim_eta0"},
    "gamma0.02": {"gamma": 0.02},
    "window_high": {"window_ends": "high"},
    "window_zero_based": {"window_ends": "zero_based"},
    "grad_after": {"gradient": "after"},
    "start_tf": {"start": "t_f"},
    "t_f10": {"t_f": 10},
    "chain_ddim": {"chain": "ddim"},
    "chain_leading0": {"chain": "leading0"},
    "chain_leading1": {"chain": "leading1"},
    "chain_trailing": {"chain": "trailing"},
    "chain_linspace_diffusers": {"chain": "linspace_diffusers"},
    "cfg_all4": {"cfg_channels": 4},
    "cfg_scale1.5": {"cfg_scale": 1.5},
}

#: A network built by other conventions, which a folder does not ask for.
NOT_A_KNOB = {"conv_diffusers"}


def golden(name: str) -> dict[str, torch.Tensor]:
    return load_file(tiny.GOLDEN / f"{name}.safetensors")


@pytest.fixture(scope="module")
def refiner(tmp_path_factory: pytest.TempPathFactory) -> Refiner:
    return Refiner.from_pretrained(
        tiny.backbone(tmp_path_factory.mktemp("backbone")), device="cpu", dtype="f32"
    )


@pytest.fixture(scope="module")
def dit() -> dict[str, torch.Tensor]:
    return golden("diver_dit")


def check(found: torch.Tensor, reference: torch.Tensor) -> None:
    assert found.shape == reference.shape and found.dtype == torch.float32
    apart = float((found.double() - reference.double()).abs().max() / reference.double().abs().max())
    assert apart <= TOLERANCE, f"{apart:.2e} off"


@pytest.mark.parametrize("mode", MODES)
def test_modes(refiner: Refiner, dit: dict[str, torch.Tensor], mode: Any) -> None:
    z = refiner.sample_latents(dit["in.z0"], dit["in.y"], dit["in.noise"], mode=mode)
    check(z, dit[f"out.traj.{mode}"][-1])


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(refiner: Refiner, dit: dict[str, torch.Tensor], name: str) -> None:
    z = refiner.sample_latents(dit["in.z0"], dit["in.y"], dit["in.noise"], **VARIANTS[name])
    check(z, dit[f"out.final.{name}"])


def test_no_golden_latent_is_left_out(dit: dict[str, torch.Tensor]) -> None:
    def outputs(prefix: str) -> set[str]:
        return {key.removeprefix(prefix) for key in dit if key.startswith(prefix)}

    assert outputs("out.traj.") == set(MODES)
    assert outputs("out.final.") == VARIANTS.keys() | NOT_A_KNOB


def test_the_autoencoder(refiner: Refiner) -> None:
    vae = golden("vae2_io")
    check(refiner.encode((vae["in.x"] + 1) / 2), vae["out.z0_mode"])
    check(refiner.decode(vae["in.z"]), ((vae["out.decoded"] + 1) / 2).clamp(0, 1))


def test_image_to_image(refiner: Refiner) -> None:
    e2e = golden("diver_e2e")
    # Some values lie beyond [0, 1]; the reference clamps them.
    z0 = refiner.encode(e2e["in.img"].clamp(0, 1))
    check(z0, e2e["out.z0"])
    z = refiner.sample_latents(z0, e2e["in.y"], e2e["in.noise"])
    check(z, e2e["out.z_hat0"])
    check(refiner.decode(z), e2e["out.image01"])


def test_settings_of_a_refiner_are_those_of_a_call(tmp_path: Path, dit: dict[str, torch.Tensor]) -> None:
    with Refiner.from_pretrained(
        tiny.backbone(tmp_path), device="cpu", dtype="f32", mode="sg", gamma=0.1
    ) as own:
        z = own.sample_latents(dit["in.z0"], dit["in.y"], dit["in.noise"])
        check(z, dit["out.traj.sg"][-1])


def test_a_dit_from_its_own_checkpoint(tmp_path: Path, dit: dict[str, torch.Tensor]) -> None:
    checkpoint = tiny.GOLDEN / "dit_tiny_official.pt"
    vae = tiny.backbone(tmp_path)
    with Refiner.from_pretrained(checkpoint, vae=vae, num_heads=4, device="cpu", dtype="f32") as refiner:
        check(refiner.sample_latents(dit["in.z0"], dit["in.y"], dit["in.noise"]), dit["out.traj.full"][-1])


SIT_VARIANTS: dict[str, dict[str, Any]] = {
    "si": {"mode": "si"},
    "full_heun": {"solver": "heun"},
    "full_counter": {"mapping": "counter"},
    "full_counter_path": {"mapping": "counter", "flow_start": "path"},
    "full_snrgrid": {"grid": "snr", "mapping": "counter"},
    "full_sigma_kernel": {"sigma": "beta"},
}


def test_a_sit(tmp_path: Path) -> None:
    sit = golden("diver_sit")
    checkpoint, vae = tiny.GOLDEN / "sit_tiny_official.safetensors", tiny.backbone(tmp_path)
    given = sit["in.z0"], sit["in.y"], sit["in.noise"]
    with Refiner.from_pretrained(checkpoint, vae=vae, num_heads=4, device="cpu", dtype="f32") as refiner:
        check(refiner.sample_latents(*given), sit["out.traj.full"][-1])
        for name, knobs in SIT_VARIANTS.items():
            check(refiner.sample_latents(*given, **knobs), sit[f"out.final.{name}"])
        with pytest.raises(OptionError, match=r"^solver: `sde` draws noise at every step"):
            refiner.sample_latents(*given, solver="sde")
        drawn = refiner.sample_latents(*given[:2], solver="sde", keys=["0" * 64, "1" * 64])
        assert not torch.equal(drawn[0], drawn[1])
        with pytest.raises(OptionError, match=r"^start: `t_f` is for diffusion chains"):
            refiner.sample_latents(*given, start="t_f")


def test_stable_diffusion(tmp_path: Path) -> None:
    sd = golden("diver_sd")
    folder, names = tiny.stable_diffusion(tmp_path), list("abcdefghij")
    with Refiner.from_pretrained(folder, class_names=names, device="cpu", dtype="f32") as refiner:
        assert (refiner.num_classes, refiner.resolution) == (10, 16)
        assert (refiner.knobs["cfg_scale"], refiner.knobs["chain"]) == (7.5, "sd_leading1")
        check(refiner.sample_latents(sd["in.z0"], sd["in.y"], sd["in.noise"]), sd["out.traj.full"][-1])
        raw = refiner.sample_latents(sd["in.z0"], sd["in.y"], sd["in.noise"], mode="raw")
        check(raw, sd["out.final.raw"])
        fingerprint = refiner.fingerprint
    with Refiner.from_pretrained(folder, prompt="a drawing of a {}", resolution=32, device="cpu") as other:
        assert (other.num_classes, other.resolution) == (1000, 32)
        assert other.refine(torch.rand(1, 3, 8, 8), [3], steps=2).shape == (1, 3, 32, 32)
        assert other.fingerprint != fingerprint
