"""Draw the shapes data set as Parquet: `train`, `validation` and `test.parquet` beside this script.

Ten classes of shapes (`CLASS_NAMES`), each a textured shape on a textured background with distracting discs, random
pose and lighting. Colour and texture go with the class, but loosely. RGB, 32 x 32 pixels, drawn at 64 x 64 and
halved. Of each class 1000 images train; of 150 held out, the first 50 test and the others are for validation.

Requirements: numpy, pillow, pyarrow. It takes half a minute. The random stream is numpy's legacy one, the same on
every platform; a pixel may differ by one grey level where a platform's sine does. The bytes of the files also
depend on the versions of pillow (zlib) and pyarrow.

    python examples/shapes/make_data.py [--out FOLDER] [--splits train validation test] [--train-per-class 50]
"""

import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from making.parquet import write_splits

CLASS_NAMES = ["disc", "ring", "square", "triangle", "star", "plus", "crescent", "heart", "bars", "cross"]
SIDE = 32
CANVAS = 2 * SIDE
TRAIN_PER_CLASS = 1000
HELD_OUT_PER_CLASS = 150
TEST_PER_CLASS = 50
# Draws of one class share a random stream, so the sizes of the batches it is drawn in are part of the recipe.
TRAIN_BATCH = 250


class Painter:
    """Draws `count` images at once, one value of everything random for each.

    Every method draws from the one random stream, in the order in which it is called.
    """

    def __init__(self, count: int, random: np.random.RandomState):
        self.count = count
        self.random = random
        axis = (np.arange(CANVAS) + 0.5) / CANVAS * 2 - 1
        rows, columns = np.meshgrid(axis, axis, indexing="ij")
        self.x = columns[None].repeat(count, 0)
        self.y = rows[None].repeat(count, 0)
        self.image = np.zeros((count, CANVAS, CANVAS, 3))

    def uniform(self, low: float, high: float) -> np.ndarray:
        """One number an image, `[count, 1, 1]`."""
        return self.random.uniform(low, high, (self.count, 1, 1))

    def hues(self, mean: float, spread: float, random_share: float) -> np.ndarray:
        """Hues around `mean`, a share of them from the whole circle, `[count]`."""
        hues = mean + spread * self.random.randn(self.count)
        anywhere = self.random.rand(self.count) < random_share
        hues[anywhere] = self.random.rand(anywhere.sum())
        return hues

    def colours(self, hues: np.ndarray, least_saturation: float, values: tuple[float, float]) -> np.ndarray:
        """A colour for each hue, `[count, 1, 1, 3]`."""
        saturation = self.random.uniform(least_saturation, 1, self.count)
        value = self.random.uniform(*values, self.count)
        return hsv_to_rgb(hues, saturation, value)[:, None, None, :]

    def texture(self, favourite: int) -> np.ndarray:
        """How much of the second of two colours each pixel has, `[count, H, W, 1]`, 0 to 1.

        Half of the images have the `favourite` kind: 0 gradient, 1 stripes, 2 checks, 3 clouds.
        """
        favoured = self.random.rand(self.count) < 0.5
        kinds = np.where(favoured, favourite, self.random.randint(0, 4, self.count))[:, None, None]
        angle, frequency, phase = self.uniform(0, math.pi), self.uniform(2, 5), self.uniform(0, 6.28)
        along = self.x * np.cos(angle) + self.y * np.sin(angle)
        across = -self.x * np.sin(angle) + self.y * np.cos(angle)
        gradient = 0.5 * along
        stripes = np.sin(frequency * 3 * along + phase)
        checks = 0.8 * np.sign(np.sin(frequency * 1.6 * along + phase) * np.sin(frequency * 1.6 * across))
        clouds = 0.5 * sum(self.wave() for _ in range(4))
        pattern = np.select([kinds == 0, kinds == 1, kinds == 2], [gradient, stripes, checks], clouds)
        return np.clip(0.5 + 0.5 * pattern, 0, 1)[..., None]

    def wave(self) -> np.ndarray:
        """A slow plane wave of random direction, `[count, H, W]`."""
        horizontal = self.uniform(1, 5) * self.x
        vertical = self.uniform(1, 5) * self.y * np.sign(self.uniform(-1, 1))
        return np.sin(horizontal + vertical + self.uniform(0, 6.28))

    def paint(self, mask: np.ndarray, colour: np.ndarray) -> None:
        """Cover the picture with `colour` where `mask` is 1."""
        self.image = self.image * (1 - mask) + colour * mask

    def paint_background(self, label: int) -> None:
        hues = self.hues((label * 3 % 10) / 10 + 0.05, 0.12, 0.45)
        first = self.colours(hues, 0.15, (0.25, 0.85))
        second = self.colours(hues + 0.08 * self.random.randn(self.count), 0.15, (0.2, 0.9))
        blend = self.texture(label % 4)
        self.image = first * (1 - blend) + second * blend

    def paint_distractor(self) -> None:
        """A small disc, in half of the images."""
        present = (self.random.rand(self.count) < 0.5)[:, None, None]
        x, y = self.x - self.uniform(-1, 1), self.y - self.uniform(-1, 1)
        mask = soft_mask(np.hypot(x, y) - self.uniform(0.06, 0.2)) * present
        self.paint(mask[..., None], self.colours(self.random.rand(self.count), 0.3, (0.4, 1.0)))

    def paint_shape(self, label: int) -> None:
        angle, scale = self.uniform(-0.6, 0.6), self.uniform(0.42, 0.78)
        centre_x, centre_y = self.uniform(-0.28, 0.28), self.uniform(-0.28, 0.28)
        aspect = np.exp(self.uniform(-0.2, 0.2))
        x, y = (self.x - centre_x) / aspect, (self.y - centre_y) * aspect
        x, y = (
            (x * np.cos(angle) + y * np.sin(angle)) / scale,
            (-x * np.sin(angle) + y * np.cos(angle)) / scale,
        )
        hues = self.hues(label / 10, 0.07, 0.25)
        first = self.colours(hues, 0.45, (0.5, 1.0))
        second = self.colours(hues + 0.06 * self.random.randn(self.count), 0.4, (0.35, 1.0))
        blend = self.texture((label // 2 + 1) % 4)
        mask = soft_mask(signed_distance(label, x, y) * scale)[..., None]
        self.paint(mask, first * (1 - blend) + second * blend)

    def light(self) -> None:
        """Brighten towards a side, and add noise."""
        gradient = self.uniform(-0.35, 0.35) * self.x + self.uniform(-0.35, 0.35) * self.y
        self.image = self.image * (1 + gradient[..., None]) + 0.02 * self.random.randn(*self.image.shape)


def signed_distance(label: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Roughly the distance from the outline of a shape of size 1 around the origin; negative inside."""
    radius, azimuth = np.hypot(x, y), np.arctan2(y, x)
    match CLASS_NAMES[label]:
        case "disc":
            return radius - 1
        case "ring":
            return np.abs(radius - 0.8) - 0.22
        case "square":
            return np.maximum(abs(x), abs(y)) - 0.85
        case "triangle":
            return np.maximum(0.866 * abs(x) - 0.5 * y - 0.5, y - 0.6)
        case "star":
            return radius - (0.72 + 0.3 * np.cos(5 * azimuth))
        case "plus":
            upright = np.maximum(abs(x) - 0.3, abs(y) - 1)
            level = np.maximum(abs(y) - 0.3, abs(x) - 1)
            return np.minimum(upright, level)
        case "crescent":
            return np.maximum(radius - 1, 0.8 - np.hypot(x - 0.45, y))
        case "heart":
            height = -1.1 * y + 0.25 - 0.75 * np.sqrt(abs(x) + 1e-3)
            return 0.6 * (x**2 + height**2 - 0.85)
        case "bars":
            return np.maximum(abs(x) - 1, np.minimum(abs(y - 0.45), abs(y + 0.45)) - 0.24)
        case "cross":
            diagonals = np.minimum(abs(x - y), abs(x + y)) * 0.707 - 0.22
            return np.maximum(diagonals, radius - 1.05)
    raise ValueError(f"there is no class {label}")


def soft_mask(distance: np.ndarray) -> np.ndarray:
    """1 inside, 0 outside, with an edge of about a pixel."""
    return 1 / (1 + np.exp(np.clip(distance * 40, -50, 50)))


def hsv_to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`[N]` hues (of any turn), saturations and values to `[N, 3]`."""
    hue = (hue % 1) * 6
    sector = np.floor(hue)
    part = hue - sector
    low = value * (1 - saturation)
    falling = value * (1 - saturation * part)
    rising = value * (1 - saturation * (1 - part))
    sector = sector.astype(int) % 6
    red = np.choose(sector, [value, falling, low, low, rising, value])
    green = np.choose(sector, [rising, value, value, falling, low, low])
    blue = np.choose(sector, [low, low, rising, value, value, falling])
    return np.stack([red, green, blue], -1)


def draw(label: int, count: int, random: np.random.RandomState) -> np.ndarray:
    """`count` images of one class, `[count, 32, 32, 3]` uint8."""
    painter = Painter(count, random)
    painter.paint_background(label)
    for _ in range(3):
        painter.paint_distractor()
    painter.paint_shape(label)
    painter.light()
    pixels = np.clip(painter.image, 0, 1).reshape(count, SIDE, 2, SIDE, 2, 3).mean((2, 4))
    return np.round(pixels * 255).astype(np.uint8)


def draw_class(label: int) -> dict[str, np.ndarray]:
    """All images of one class, by split."""
    random = np.random.RandomState(100 + label)
    train = [draw(label, TRAIN_BATCH, random) for _ in range(TRAIN_PER_CLASS // TRAIN_BATCH)]
    held_out = draw(label, HELD_OUT_PER_CLASS, random)
    return {
        "train": np.concatenate(train),
        "validation": held_out[TEST_PER_CLASS:],
        "test": held_out[:TEST_PER_CLASS],
    }


def splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images `[N, 32, 32, 3]` uint8 and labels `[N]` of `train`, `validation` and `test`, class after class."""
    classes = [draw_class(label) for label in range(len(CLASS_NAMES))]
    labels = np.arange(len(classes))
    return {
        split: (np.concatenate([drawn[split] for drawn in classes]), labels.repeat(len(classes[0][split])))
        for split in classes[0]
    }


if __name__ == "__main__":
    write_splits(
        "Draw the shapes as Parquet.", Path(__file__).parent, splits, CLASS_NAMES, train_per_class=50
    )
