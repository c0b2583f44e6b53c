"""Trains a network on a distilled dataset, raw, refined or mixed, and goes on where it was stopped.

    python examples/train.py examples/digits/dm_ipc1 --test examples/digits/test.parquet \
        --backbone examples/digits/backbone --mode refined

What is ordinary here is torch; what is diver's is the loader, and its state in the checkpoint: a few numbers, which a
loader in Rust takes as well.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import diver

SHARES = {"raw": 0.0, "mixed": 0.5, "refined": 1.0}


def network(channels: int, classes: int) -> nn.Module:
    """A small residual-free network with batch norm, not the kind that the shipped sets were distilled on."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

    layers = [*block(channels, 32), *block(32, 64), *block(64, 128)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, classes))


def accuracy(model: nn.Module, test: diver.DataLoader) -> float:
    """The share of images of one epoch of ``test`` that ``model`` gets right."""
    model.eval()
    right = count = 0
    with torch.no_grad():
        for batch in test:
            right += int((model(batch.images).argmax(1) == batch.labels).sum())
            count += len(batch.labels)
    model.train()
    return right / count


def save(checkpoint: dict[str, object], path: Path) -> None:
    """Writes a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a distilled dataset")
    parser.add_argument("--test", required=True, help="real images to test on")
    parser.add_argument("--mode", choices=SHARES, default="raw", help="which images to train on (raw)")
    parser.add_argument("--backbone", help="what refines, a diffusers folder")
    parser.add_argument("--cache", default="out/cache", help="where refined images are kept (out/cache)")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights and the order (0)")
    parser.add_argument(
        "--checkpoint", type=Path, help="save here after every batch, and go on from what is there"
    )
    parser.add_argument("--stop-after", type=int, metavar="N", help="stop after N batches, as if interrupted")
    arguments = parser.parse_args()
    if arguments.mode != "raw" and arguments.backbone is None:
        parser.error(f"--mode {arguments.mode} needs a --backbone")

    torch.manual_seed(arguments.seed)
    refine = {} if arguments.mode == "raw" else {"refiner": arguments.backbone, "cache": arguments.cache}
    loader = diver.DataLoader(
        arguments.source,
        **refine,
        mix=SHARES[arguments.mode],
        batch_size=arguments.batch,
        shuffle=True,
        seed=arguments.seed,
    )
    source = loader.source
    # Test images are normalised as the training images are, and every rank tests on all.
    test_set = diver.open(arguments.test, mean=source.mean, std=source.std)
    test = diver.DataLoader(test_set, batch_size=500, rank=0, world_size=1)

    model = network(source.shape[0], source.num_classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if arguments.checkpoint and arguments.checkpoint.exists():
        saved = torch.load(arguments.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])

    batches = 0
    while (epoch := loader.state_dict()["epoch"]) < arguments.epochs:
        for images, targets in loader:
            loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            batches += 1
            if arguments.checkpoint:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                save({**state, "loader": loader.state_dict()}, arguments.checkpoint)
            if batches == arguments.stop_after:
                print(f"stopped in epoch {epoch} after {batches} batches, loss {loss.item():.4f}")
                return
    stats = loader.stats()
    print(f"refined: {stats['misses']} now, {stats['disk_hits'] + stats['memory_hits']} from the cache")
    if batches:
        print(f"loss: {loss.item():.4f} at last")
    print(f"{arguments.mode}: {100 * accuracy(model, test):.1f} % of {test.source.num_samples}")


if __name__ == "__main__":
    try:
        main()
    except diver.DiverError as error:
        sys.exit(f"error: {error}")
