"""Distil a data set with the two classic methods, and write the result as their programs do.

DM is "Dataset Condensation with Distribution Matching" (Zhao and Bilen, arXiv 2110.04181): synthetic images whose
mean features are those of the real ones, in many networks of random weights. DC is "Dataset Condensation with
Gradient Matching" (Zhao, Mopuri and Bilen, arXiv 2006.05929): synthetic images on which the loss has the gradients
that it has on real ones. Both start from noise, work on the ConvNet, and shift real and synthetic images alike.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from making.networks import ConvNet, shifted

REAL_BATCH = 64
SHIFT = 3


class Task:
    """Real images of each class, normalised, and the synthetic ones in the making."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, ipc: int, seed: int):
        torch.manual_seed(seed)
        self.classes = int(labels.max()) + 1
        self.of_class = [images[labels == label] for label in range(self.classes)]
        self.ipc = ipc
        self.synthetic = torch.randn(self.classes * ipc, *images.shape[1:], requires_grad=True)
        self.labels = torch.arange(self.classes).repeat_interleave(ipc)

    def real(self, label: int) -> torch.Tensor:
        """A batch of real images of one class."""
        images = self.of_class[label]
        return images[torch.randint(len(images), (REAL_BATCH,))]


def shifted_alike(*batches: torch.Tensor) -> Iterator[torch.Tensor]:
    """The batches, all moved by one random distance."""
    seed = int(torch.randint(1 << 30, (1,)))
    return (shifted(batch, SHIFT, torch.Generator().manual_seed(seed)) for batch in batches)


def distribution_matching(task: Task) -> torch.Tensor:
    """The loss of DM, in one network of random weights, over all classes."""
    network = ConvNet().requires_grad_(False).body
    real, synthetic = shifted_alike(
        torch.cat([task.real(label) for label in range(task.classes)]), task.synthetic
    )
    with torch.no_grad():
        target = network(real).view(task.classes, REAL_BATCH, -1).mean(1)
    found = network(synthetic).view(task.classes, task.ipc, -1).mean(1)
    return (target - found).pow(2).sum()


def gradient_matching(task: Task) -> torch.Tensor:
    """The loss of DC, in one network of random weights, over all classes."""
    network = ConvNet()
    weights = list(network.parameters())
    loss = torch.zeros(())
    for label in range(task.classes):
        rows = task.labels == label
        real, synthetic = shifted_alike(task.real(label), task.synthetic[rows])
        target = torch.autograd.grad(
            F.cross_entropy(network(real), torch.full((REAL_BATCH,), label)), weights
        )
        found = torch.autograd.grad(
            F.cross_entropy(network(synthetic), task.labels[rows]), weights, create_graph=True
        )
        for a, b in zip(target, found, strict=True):
            if a.dim() > 1:
                loss = loss + (1 - F.cosine_similarity(a.flatten(1), b.flatten(1), dim=1, eps=1e-6)).sum()
    return loss


def run(
    task: Task, loss_of: Callable[[Task], torch.Tensor], optimizer: torch.optim.Optimizer, steps: int
) -> torch.Tensor:
    """The synthetic images after `steps` steps, each in a network of its own; the learning rate falls to a tenth."""
    rate = optimizer.param_groups[0]["lr"]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, rate / 10)
    started = time.monotonic()
    for step in range(steps):
        loss = loss_of(task)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps - 1:
            print(
                f"{loss_of.__name__} {step:4}: {loss.item():.3f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    return task.synthetic.detach().clone()


def dm(images: torch.Tensor, labels: torch.Tensor, *, ipc: int, steps: int, seed: int = 1) -> torch.Tensor:
    """`ipc` images a class by distribution matching, normalised like `images`, class after class."""
    task = Task(images, labels, ipc, seed)
    # Plain descent, as in the paper; with several images a class it is slow, and Adam stands in.
    if ipc == 1:
        optimizer: torch.optim.Optimizer = torch.optim.SGD([task.synthetic], lr=0.5, momentum=0.5)
    else:
        optimizer = torch.optim.Adam([task.synthetic], lr=0.05, betas=(0.5, 0.95))
    return run(task, distribution_matching, optimizer, steps)


def dc(images: torch.Tensor, labels: torch.Tensor, *, ipc: int, steps: int, seed: int = 1) -> torch.Tensor:
    """`ipc` images a class by gradient matching, normalised like `images`, class after class. Networks are not
    trained in between, which the paper does for more than one image a class."""
    task = Task(images, labels, ipc, seed)
    optimizer = torch.optim.Adam([task.synthetic], lr=0.05, betas=(0.5, 0.95))
    return run(task, gradient_matching, optimizer, steps)


def save(
    folder: Path, images: torch.Tensor, *, classes: int, method: str, dataset: str, mean: float, std: float
) -> None:
    """Write a set to `folder` in the formats of DatasetCondensation (`res_*.pt`) and of MTT (`images_best.pt`,
    `labels_best.pt`), with the constants that normalised it (`norm.json`)."""
    folder.mkdir(parents=True, exist_ok=True)
    ipc = len(images) // classes
    labels = torch.arange(classes).repeat_interleave(ipc)
    name = f"res_{method}_{dataset}_ConvNet_{ipc}ipc.pt"
    torch.save({"data": [[images, labels]], "accs_all_exps": {}}, folder / name)
    torch.save(images, folder / "images_best.pt")
    torch.save(labels, folder / "labels_best.pt")
    (folder / "norm.json").write_text(json.dumps({"mean": mean, "std": std}))
