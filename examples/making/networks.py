"""The networks of the recipes: one that data are distilled on, and one that judges images."""

import torch
import torch.nn.functional as F
from torch import nn


class ConvNet(nn.Module):
    """What classic methods distil on: three blocks of 3 x 3 convolution, instance norm, ReLU and average pooling.

    `diver.eval`'s ConvNet; 32 wide, where the literature has 128.
    """

    def __init__(self, width: int = 32, classes: int = 10, side: int = 32):
        super().__init__()
        blocks = []
        for block in range(3):
            blocks += [
                nn.Conv2d(width if block else 3, width, 3, padding=1),
                nn.GroupNorm(width, width),
                nn.ReLU(),
                nn.AvgPool2d(2),
            ]
        self.body = nn.Sequential(*blocks, nn.Flatten())
        self.classifier = nn.Linear(width * (side // 8) ** 2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(images))


class Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norm around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images) + self.shortcut(images)


def judge(classes: int = 10) -> nn.Sequential:
    """A residual network that reads real images well: three stages of two blocks, 24 to 96 wide."""
    stages = [Residual(24, 24, 1), Residual(24, 24, 1), Residual(24, 48, 2), Residual(48, 48, 1)]
    stages += [Residual(48, 96, 2), Residual(96, 96, 1)]
    head = [nn.BatchNorm2d(96), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, classes)]
    return nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), *stages, *head)


def shifted(images: torch.Tensor, limit: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """All images of a batch moved alike by up to `limit` pixels along both axes, their edges repeated."""
    side = images.shape[-1]
    down, right = torch.randint(0, 2 * limit + 1, (2,), generator=generator).tolist()
    padded = F.pad(images, (limit,) * 4, mode="replicate")
    return padded[..., down : down + side, right : right + side]


def train_judge(images: torch.Tensor, labels: torch.Tensor, *, steps: int, seed: int = 0) -> nn.Sequential:
    """A `judge` of real images `[N, 3, 32, 32]`, -1 to 1."""
    torch.manual_seed(seed)
    network = judge()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        rows = torch.randint(len(images), (64,))
        loss = F.cross_entropy(network(shifted(images[rows], 3)), labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        cycle.step()
    return network.eval().requires_grad_(False)


def recognised(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of `images` in which `network` sees their label, per cent."""
    seen = torch.cat([network(part).argmax(1) for part in images.split(250)])
    return 100 * (seen == labels).float().mean().item()
