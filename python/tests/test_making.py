"""The scripts that made `examples/`: what they write is what diver reads, and the shipped files are theirs."""

from __future__ import annotations

import importlib
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from support import ROOT, stored

import diver

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = torch.get_num_threads()
    # As the scripts: more wait for one another on networks this small.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    # Both examples have a module of this name.
    sys.modules.pop("make_data", None)


def module(name: str) -> Any:
    return importlib.import_module(name)


def make_data(example: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES / example))
    return importlib.import_module("make_data")


@pytest.mark.parametrize("patch", [1, 2])
def test_the_trained_network_is_the_one_that_is_read(patch: int, tmp_path: Path) -> None:
    """A chain of three steps by the trainer's own network and plain arithmetic (method.md's DDIM, guidance on three
    of four channels) gives diver's latents."""
    transformer = module("making.transformer")
    torch.manual_seed(0)
    network = transformer.Transformer(
        transformer.Size(layers=2, width=64, heads=2, patch=patch)
    ).requires_grad_(False)
    for parameter in network.parameters():
        # Gates and outputs start at zero, which would hide everything behind them.
        parameter.copy_((parameter + 0.05 * torch.randn_like(parameter)).half().float())
    transformer.save(network, tmp_path)
    shutil.copytree(EXAMPLES / "digits" / "backbone" / "vae", tmp_path / "vae")
    latents, labels = torch.randn(2, 4, 8, 8), torch.tensor([3, 7])

    schedule = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    times = [0, 500, 999]
    z, scale = latents.clone(), 4.0
    for index in (2, 1, 0):
        time = torch.full((2,), times[index])
        given = network(z, time, labels)[:, :4]
        null = network(z, time, torch.full_like(labels, 10))[:, :3]
        noise = torch.cat([null + scale * (given[:, :3] - null), given[:, 3:]], 1)
        now, then = schedule[times[index]].item(), schedule[times[index - 1]].item() if index else 1.0
        clean = (z - math.sqrt(1 - now) * noise) / math.sqrt(now)
        z = math.sqrt(then) * clean + math.sqrt(1 - then) * noise

    with diver.Refiner.from_pretrained(tmp_path, device="cpu", mode="raw", steps=3) as refiner:
        found = refiner.sample_latents(torch.zeros_like(latents), labels, noise=latents)
    assert (found - z).abs().max() / z.abs().max() < 1e-4


def test_the_loss_trains_noise_and_variances_apart() -> None:
    schedule = module("making.transformer").Schedule(torch.device("cpu"))
    noise, times = torch.randn(4, 4, 8, 8), torch.tensor([0, 10, 500, 999])
    output = torch.cat([noise, torch.full_like(noise, -1.0)], 1).requires_grad_()
    loss, error = schedule.loss(output, noise, times)
    # The right noise with the posterior's variance: nothing is left to learn.
    assert error == 0 and abs(loss.item()) < 1e-5
    wrong = (output.detach() + 0.5).requires_grad_()
    loss, error = schedule.loss(wrong, noise, times)
    loss.backward()
    assert error == pytest.approx(0.25, rel=1e-5)
    gradient = wrong.grad
    assert gradient is not None
    # The bound does not reach the noise: its gradient is that of the weighted error.
    weight = schedule.weight[times]
    assert torch.allclose(gradient[:, :4], weight * 2 * 0.5 / noise.numel(), rtol=1e-4)
    assert (gradient[:, 4:] != 0).all()


def test_timesteps_are_where_small_latents_are_undecided() -> None:
    timesteps = module("making.transformer").timesteps
    torch.manual_seed(0)
    for undecided, least, most in (0, 0.62, 0.66), (0.5, 0.75, 0.79), (1, 0.88, 0.92):
        times = timesteps(20_000, undecided, torch.device("cpu"))
        assert times.dtype == torch.int64 and times.min() >= 0 and times.max() < 1000
        assert least < ((times >= 100) & (times < 740)).float().mean() < most


def test_the_perceptual_distance_sees_what_squared_error_does_not() -> None:
    perceptual = module("making.perceptual")
    torch.manual_seed(0)
    images, labels = torch.rand(32, 3, 32, 32) * 2 - 1, torch.arange(32) % 2
    once, twice = (perceptual.train(images, labels, weight=weight, steps=20) for weight in (1, 2))
    assert once(images, images) == 0
    # Of two images as far away, the one that keeps the edges is nearer than the one that smooths them.
    brighter = images + 0.3
    smooth = torch.nn.functional.avg_pool2d(images, 3, 1, 1)
    smooth = images + (smooth - images) * (0.3 / (smooth - images).pow(2).mean().sqrt())
    near, far = once(brighter, images), once(smooth, images)
    assert 0 < near < far
    assert twice(smooth, images) == pytest.approx(2 * far.item())
    found = smooth.requires_grad_()
    once(found, images).backward()
    assert found.grad is not None and found.grad.abs().sum() > 0


def test_a_stopped_training_goes_on_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = module("making.transformer")
    monkeypatch.setattr(transformer, "SAVE_EVERY", 4)
    torch.manual_seed(0)
    latents, labels = torch.randn(10, 4, 8, 8), torch.arange(10)
    size = transformer.Size(layers=1, width=32, heads=1, patch=4)

    def train(name: str, undecided: float = 0.5) -> torch.Tensor:
        spread = torch.full_like(latents, 0.1)
        model = transformer.train(
            latents,
            spread,
            labels,
            steps=10,
            size=size,
            batch=2,
            undecided=undecided,
            progress=tmp_path / name,
        )
        return torch.cat([weight.flatten() for weight in model.parameters()])

    whole = train("whole")
    loss, calls = transformer.Schedule.loss, iter(range(100))

    def stopping(*arguments: Any) -> Any:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(transformer.Schedule, "loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        train("stopped")
    with pytest.raises(ValueError, match="stopped: of a training with other undecided: delete it"):
        train("stopped", undecided=0.4)
    assert torch.equal(train("stopped"), whole)


def test_turned_latents_decode_as_before() -> None:
    autoencoder = module("making.autoencoder")
    torch.manual_seed(0)

    class Stub(torch.nn.Module):
        """The two convolutions that latents pass, around nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.quant_conv, self.post_quant_conv = torch.nn.Conv2d(6, 8, 1), torch.nn.Conv2d(4, 4, 1)
            self.requires_grad_(False)

    model = Stub()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(autoencoder, "encode", lambda model, images: model.quant_conv(images)[:, :4])
    try:
        images = torch.randn(600, 6, 2, 2)
        before = model.post_quant_conv(autoencoder.encode(model, images))
        autoencoder.turn_to_principal_axes(model, images)
        latents = autoencoder.encode(model, images)
        assert torch.allclose(model.post_quant_conv(latents), before, atol=1e-5)
        covariance = torch.cov(latents.transpose(0, 1).flatten(1))
        variances = covariance.diagonal()
        assert (variances[:-1] >= variances[1:]).all()
        assert (covariance - variances.diag()).abs().max() < 1e-5
        weight = model.quant_conv.weight.clone()
        autoencoder.turn_to_principal_axes(model, images)
        assert torch.allclose(model.quant_conv.weight, weight, atol=1e-4)
    finally:
        monkey.undo()


@pytest.mark.parametrize("method", ["dm", "dc"])
def test_distillation_lowers_its_loss_and_is_saved_in_both_formats(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distil = module("making.distil")
    monkeypatch.setattr(distil, "REAL_BATCH", 8)
    torch.manual_seed(0)
    labels = torch.arange(3).repeat_interleave(8)
    images = torch.randn(24, 3, 32, 32) * 0.1 + labels.view(-1, 1, 1, 1) - 1
    loss_of = {"dm": distil.distribution_matching, "dc": distil.gradient_matching}[method]

    def loss(synthetic: torch.Tensor) -> float:
        task = distil.Task(images, labels, 1, seed=5)
        task.synthetic.data.copy_(synthetic)
        return float(loss_of(task).detach())

    synthetic = getattr(distil, method)(images, labels, ipc=1, steps=12)
    start = distil.Task(images, labels, 1, seed=1).synthetic.detach()
    assert loss(synthetic) < loss(start)

    distil.save(tmp_path, synthetic, classes=3, method=method.upper(), dataset="dots", mean=0.4, std=0.2)
    for path in (tmp_path, tmp_path / f"res_{method.upper()}_dots_ConvNet_1ipc.pt"):
        source = diver.open(path)
        assert (source.num_samples, source.num_classes, source.shape) == (3, 3, (3, 32, 32))
        sample = source.sample(2)
        assert sample.label == 2 and np.array_equal(sample.values, synthetic[2].numpy())
    assert json.loads((tmp_path / "norm.json").read_text()) == {"mean": 0.4, "std": 0.2}


def test_the_shipped_shapes_are_what_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = make_data("shapes", monkeypatch).draw_class(4)
    for split, of_class in ("test", 50), ("validation", 100), ("train", 50):
        source = diver.open(EXAMPLES / "shapes" / f"{split}.parquet")
        for index in (0, of_class - 1):
            sample = source.sample(4 * of_class + index)
            assert sample.label == 4 and sample.values.dtype == np.uint8
            # A sine may differ between platforms by a grey level.
            difference = sample.values.astype(int) - drawn[split][index].transpose(2, 0, 1)
            assert np.abs(difference).max() <= 1


def test_the_shipped_digits_are_what_the_script_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    splits = make_data("digits", monkeypatch).splits()
    sizes = {split: len(labels) for split, (_, labels) in splits.items()}
    assert sum(sizes.values()) == 1797 and sizes["test"] == 359
    for split in ("test", "validation"):
        source = diver.open(EXAMPLES / "digits" / f"{split}.parquet")
        images, labels = splits[split]
        assert [sample.label for sample in stored(source)] == labels.tolist()
        values = np.stack([sample.values for sample in stored(source)])
        assert np.array_equal(values, images.transpose(0, 3, 1, 2))
