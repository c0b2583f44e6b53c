"""Writes augment.safetensors: images, the parameters of augmentations, and what the field's own code makes of both.

    git clone https://github.com/VICO-UoE/DatasetCondensation && git -C DatasetCondensation checkout 53f63a6
    pip install torch==2.11.* torchvision==0.26.* scipy safetensors
    python tests/golden/make_augment_golden.py DatasetCondensation

Crops, flips, colour jitter, CutMix and MixUp are torchvision's; the operators of DSA are those of its published code,
which draws its numbers itself: they are recorded. All is computed in double precision. Case `n` of a kind is
`kind.n.input`, `kind.n.<parameters>` and `kind.n.output`; every run writes the same bytes.
"""

import argparse
import math
import pathlib
import sys
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

# Batch, channels, height and width: odd, even, wide, high, grey and tiny images.
SHAPES = [(3, 3, 8, 8), (2, 3, 17, 12), (2, 1, 9, 14), (2, 3, 5, 7), (1, 1, 20, 20), (2, 3, 1, 3)]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

tensors = {}


def write(kind, number, **parts):
    for name, values in parts.items():
        values = torch.as_tensor(values)
        tensors[f"{kind}.{number}.{name}"] = values.float().contiguous().clone()


def noise(shape):
    """Normalised values, as those of a learned image beyond what pixels in [0, 1] have; exact in single precision."""
    return (torch.randn(shape) * 1.5).float().double()


def normalized(pixels):
    channels = pixels.shape[1]
    return functional.normalize(pixels, MEAN[:channels], STD[:channels])


def pixels(images):
    """What `normalized` was given. What rounding moved out of [0, 1] is moved back."""
    channels = images.shape[1]
    mean, std = (torch.tensor(values[:channels]).view(-1, 1, 1) for values in (MEAN, STD))
    return (images * std + mean).clamp(0, 1)


def crops():
    for number, shape in enumerate(SHAPES):
        images = noise(shape)
        transform = v2.RandomResizedCrop(shape[2:], scale=(0.08, 1.0), antialias=True)
        drawn = [transform.make_params([image]) for image in images]
        drawn[0] = {"top": 0, "left": 0, "height": shape[2], "width": shape[3]}
        views = [transform.transform(image, params) for image, params in zip(images, drawn, strict=True)]
        boxes = [[params[name] for name in ("top", "left", "height", "width")] for params in drawn]
        write("crop", number, input=images, boxes=boxes, output=torch.stack(views))


def flips():
    for number, shape in enumerate(SHAPES):
        images = noise(shape)
        flips = torch.arange(shape[0]) % 2 == 0
        views = torch.where(flips.view(-1, 1, 1, 1), functional.horizontal_flip(images), images)
        write("flip", number, input=images, flips=flips, output=views)


def jitters():
    # The last one turns hues alone, of pure colours among others: their hue lies on the border of two sectors.
    amounts = [(0.4, 0.4, 0.4, 0.1), (1.0, 1.0, 1.0, 0.5), (0.8, 0.0, 2.0, 0.3), (0.0, 0.0, 0.0, 0.5)]
    number = 0
    for amount in amounts:
        for shape in SHAPES:
            values = torch.rand(shape)
            values[0] = (values[0] * 3).floor() / 2
            images = normalized(values).float().double()
            transform = v2.ColorJitter(*amount)
            drawn = [transform.make_params([]) for _ in images]
            views = [
                transform.transform(image, params)
                for image, params in zip(pixels(images), drawn, strict=True)
            ]
            names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
            # NaN for what is not adjusted.
            factors = [
                [math.nan if params[name] is None else params[name] for name in names] for params in drawn
            ]
            orders = [params["fn_idx"].tolist() for params in drawn]
            write(
                "jitter",
                number,
                input=images,
                orders=orders,
                factors=factors,
                output=normalized(torch.stack(views)),
            )
            number += 1


def mixes():
    for number, shape in enumerate(SHAPES):
        rows, classes = shape[0], 4
        images, targets = noise(shape), torch.rand(rows, classes).float().double()
        # torchvision mixes each image with the one before it.
        partners = [(row - 1) % rows for row in range(rows)]
        for kind, transform in (
            ("cut_mix", v2.CutMix(num_classes=classes)),
            ("mix_up", v2.MixUp(num_classes=classes)),
        ):
            params = {**transform.make_params([images]), "labels": targets, "batch_size": rows}
            parts = {"share": [params.get("lam_adjusted", params.get("lam"))]}
            if "box" in params:
                left, top, right, bottom = params["box"]
                parts["bounds"] = [top, left, bottom, right]
            parts |= {
                "output": transform.transform(images, params),
                "mixed": transform.transform(targets, params),
            }
            write(kind, number, input=images, targets=targets, partners=partners, **parts)


class Recorded:
    """Stands for a function that draws, and keeps what it drew."""

    def __init__(self, function):
        self.function = function
        self.drawn = []

    def __call__(self, *args, **kwargs):
        self.drawn.append(self.function(*args, **kwargs))
        return self.drawn[-1].clone()


def dsa(code):
    for number, shape in enumerate(SHAPES):
        for kind, functions in code.AUGMENT_FNS.items():
            param = code.ParamDiffAug()
            param.latestseed, param.Siamese = -1, False
            images = views = noise(shape)
            # Its maps are made in single precision, which `torch.float` names.
            with (
                mock.patch.object(torch, "rand", Recorded(torch.rand)) as units,
                mock.patch.object(torch, "randint", Recorded(torch.randint)) as integers,
                mock.patch.object(torch, "float", torch.float64),
            ):
                for function in functions:
                    views = function(views, param)
            drawn = torch.stack([values.flatten().double() for values in units.drawn + integers.drawn], dim=1)
            write(f"dsa_{kind}", number, input=images, drawn=drawn, output=views)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dsa", type=pathlib.Path, help="folder of VICO-UoE/DatasetCondensation")
    sys.path.insert(0, str(parser.parse_args().dsa))
    import utils as code

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    np.random.seed(0)
    crops()
    flips()
    jitters()
    mixes()
    dsa(code)
    save_file(tensors, pathlib.Path(__file__).with_name("augment.safetensors"))


if __name__ == "__main__":
    main()
