"""A distance between images as a network sees them.

After LPIPS ("The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", Zhang et al., arXiv 1801.03924).
Squared error alone favours smooth pictures, and a star is told from a disc by its points.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from making.networks import ConvNet, shifted
from torch import nn

STEPS = 2000
BATCH = 64
MAX_LR = 2e-3
SEED = 1


def train(
    images: torch.Tensor, labels: torch.Tensor, *, weight: float, steps: int = STEPS
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """`weight` times the distance in a `ConvNet` that was taught the labels `[N]` of `images` `[N, 3, 32, 32]`, as a
    function of two batches of images: the squared difference of its features after each block, which have length 1
    in every place, averaged over places and blocks."""
    torch.manual_seed(SEED)
    network = ConvNet().to(images.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=MAX_LR, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, MAX_LR, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (BATCH,), device=images.device)
        loss = F.cross_entropy(network(shifted(images[rows], 3)), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    network.eval().requires_grad_(False)

    def distance(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        pairs = list(zip(features(network, found), features(network, wanted), strict=True))
        return weight * sum((a - b).pow(2).sum(1).mean() for a, b in pairs) / len(pairs)

    return distance


def features(network: ConvNet, images: torch.Tensor) -> list[torch.Tensor]:
    """What the network makes of images after each of its blocks, `[N, C, h, w]`, each place of length 1."""
    found = []
    for layer in network.body:
        images = layer(images)
        if isinstance(layer, nn.ReLU):
            found.append(F.normalize(images, dim=1))
    return found
