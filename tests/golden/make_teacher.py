"""Writes a tiny network as TorchScript, and the logits that torch gets from it and from ResNets:

- teacher_tiny.pt: scripted, and saved in training mode, in which dropout and batch norm would spoil the logits;
- teacher_tiny_frozen.pt: the same network, frozen, which drops what tells the mode;
- teacher_pair.pt: a network that returns two tensors;
- teacher.safetensors: images, and their logits in evaluation mode; for the ResNets, images and weights follow
  formulas, so that the tests make them again.

Run with torch 2.11 and PYTHONHASHSEED=0; every run writes the same bytes.
"""

import io
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).parent


def save(module, name):
    """Without the source's paths on this machine, which torch saves for its error messages."""
    saved = io.BytesIO()
    torch.jit.save(module, saved)
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(HERE / name, "w") as target:
        for entry in source.namelist():
            if not entry.endswith(".debug_pkl"):
                folder = Path(name).stem
                renamed = folder + entry[entry.index("/") :]
                target.writestr(zipfile.ZipInfo(renamed), source.read(entry))


class Block(nn.Module):
    """The basic block of a ResNet, with torchvision's names."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.downsample(x)).relu()


class ResNet18(nn.Module):
    """ResNet-18, or its variant for small images."""

    def __init__(self, classes, small):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False) if small else nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1), x


def noise(*shape):
    """Numbers in [-1, 1] without a visible order, from integers alone."""
    i = torch.arange(torch.Size(shape).numel()) % 1009
    return ((37 * i * i + 11 * i) % 1009 / 504.0 - 1).reshape(shape)


def values(name, shape):
    """Weights by their names, of sizes at which activations neither vanish nor explode."""
    if len(shape) > 1:
        return noise(*shape) * (6 / shape[1:].numel()) ** 0.5
    return 1 + 0.2 * noise(*shape) if name.endswith(("running_var", "weight")) else 0.1 * noise(*shape)


def resnet_logits(small):
    resnet = ResNet18(5, small).eval()
    state = resnet.state_dict()
    weights = {name: values(name, tensor.shape) for name, tensor in state.items() if tensor.dim()}
    resnet.load_state_dict(weights | {name: tensor for name, tensor in state.items() if not tensor.dim()})
    return resnet(noise(2, 3, 32, 32))


torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2, padding=1),
    nn.BatchNorm2d(8),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.5),
    nn.Linear(32, 5),
)
# Statistics that are not those of a new network.
with torch.no_grad():
    network(torch.randn(16, 3, 12, 12) + 0.5)

images = torch.randn(3, 3, 12, 12)
save(torch.jit.script(network.train()), "teacher_tiny.pt")
save(torch.jit.freeze(torch.jit.script(network.eval())), "teacher_tiny_frozen.pt")
save(torch.jit.script(Pair()), "teacher_pair.pt")
with torch.no_grad():
    tensors = {
        "in.images": images,
        "out.logits": network(images),
        "out.resnet18": resnet_logits(small=False),
        "out.resnet18_small": resnet_logits(small=True),
    }
save_file(tensors, HERE / "teacher.safetensors")
