"""Encoded images: what is read of each format, and what is refused, beside Pillow."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diver
from diver.errors import DataError, OptionError

WIDTH, HEIGHT = 13, 11


def ours(folder: Path, encoded: bytes) -> np.ndarray | None:
    """What diver reads, `[H, W, 3]`; None where it refuses. The file's name says nothing of its format."""
    file = folder / "0" / "image.png"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(encoded)
    try:
        return np.moveaxis(diver.open(folder).sample(0).values, 0, 2)
    except DataError as error:
        assert str(file) in str(error)
        return None


def pillows(encoded: bytes) -> np.ndarray | None:
    """What Pillow reads, `[H, W, 3]`; None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                image.load()
                return np.asarray(image.convert("RGB"))
        except Exception:  # Of many kinds.
            return None


def picture(mode: str, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """An image of smooth colors, in any mode."""
    y, x = np.mgrid[:height, :width].astype(float)
    channels = [x * 240 / width, y * 250 / height, (x + y) * 255 / (width + height), 255 - x * 9]
    image = Image.fromarray(np.stack(channels, -1).astype(np.uint8), "RGBA")
    if mode == "P":
        return image.convert("RGB").quantize(16)
    return image.convert(mode) if mode in ("RGBA", "LA") else image.convert("RGB").convert(mode)


def encode(mode: str, format: str, **options: Any) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture(mode).save(file, format, **options)
    return file.getvalue()


def interlaced() -> bytes:
    """An interlaced PNG, which Pillow does not write."""
    import struct
    import zlib

    pixels = np.asarray(picture("RGB"))
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    rows = [row for y, x, down, right in passes for row in pixels[y::down, x::right] if row.size]
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


#: The format, its options, the modes that are tried, and how far a channel may be from Pillow's.
FORMATS: dict[str, tuple[str, dict[str, Any], str, int]] = {
    "jpeg": ("JPEG", {"quality": 90}, "RGB L CMYK", 4),
    "jpeg-444": ("JPEG", {"quality": 95, "subsampling": 0, "optimize": True}, "RGB", 4),
    "jpeg-progressive": ("JPEG", {"quality": 90, "progressive": True}, "RGB L CMYK", 4),
    "jpeg-restarts": ("JPEG", {"quality": 90, "restart_marker_blocks": 1}, "RGB", 4),
    "png": ("PNG", {}, "RGB L 1 P RGBA LA", 0),
    "png-transparent": ("PNG", {"transparency": 3}, "P", 0),
    "webp": ("WEBP", {"quality": 80}, "RGB RGBA", 2),
    "webp-lossless": ("WEBP", {"lossless": True}, "RGB RGBA", 0),
    "bmp": ("BMP", {}, "RGB L 1 P RGBA", 0),
    "gif": ("GIF", {}, "P L RGB 1", 0),
    "gif-interlaced": ("GIF", {"interlace": 1, "transparency": 2}, "P", 0),
    "tiff": ("TIFF", {}, "RGB L 1 RGBA CMYK", 0),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}, "RGB L 1 RGBA CMYK", 0),
    "tiff-predicted": ("TIFF", {"compression": "tiff_lzw", "tiffinfo": {317: 2}}, "RGB L", 0),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}, "RGB L 1 RGBA CMYK", 0),
    "tiff-packbits": ("TIFF", {"compression": "packbits"}, "RGB L", 0),
    "tiff-turned": ("TIFF", {"tiffinfo": {274: 6}}, "RGB", 0),
    "ppm": ("PPM", {}, "RGB L 1", 0),
}
WRITTEN = [(name, mode) for name, (_, _, modes, _) in FORMATS.items() for mode in modes.split()]


@pytest.mark.parametrize(("name", "mode"), WRITTEN)
def test_pixels_are_pillows_and_no_cut_file_is_read_that_pillow_refuses(
    tmp_path: Path, name: str, mode: str
) -> None:
    format, options, _, tolerance = FORMATS[name]
    whole = encode(mode, format, **options)
    check_whole_and_cut(tmp_path, whole, tolerance)


def test_interlaced_png(tmp_path: Path) -> None:
    check_whole_and_cut(tmp_path, interlaced(), 0)


def check_whole_and_cut(folder: Path, whole: bytes, tolerance: int) -> None:
    expected, read = pillows(whole), ours(folder, whole)
    assert expected is not None and read is not None
    assert read.shape == expected.shape
    assert np.abs(read.astype(int) - expected).max() <= tolerance
    # The last bytes decide; before them, files are refused alike.
    lengths = [*range(0, max(len(whole) - 80, 0), 7), *range(max(len(whole) - 80, 0), len(whole))]
    for length in lengths:
        cut = ours(folder, whole[:length])
        if cut is not None:
            assert pillows(whole[:length]) is not None, f"the first {length} of {len(whole)} bytes"
            assert np.array_equal(cut, read), f"the first {length} of {len(whole)} bytes"


def animated(format: str) -> bytes:
    file = io.BytesIO()
    frames = [picture("RGBA").rotate(turn) for turn in (0, 90, 180)]
    frames[0].save(file, format, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    return file.getvalue()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_images_in_a_file_the_first_is_read(tmp_path: Path, format: str) -> None:
    if format == "TIFF":
        file = io.BytesIO()
        picture("RGB").save(file, format, save_all=True, append_images=[picture("RGB").rotate(180)])
        encoded = file.getvalue()
    else:
        encoded = animated(format)
    read = ours(tmp_path, encoded)
    assert read is not None and np.array_equal(read, pillows(encoded))


def test_lossy_webp_of_usual_sizes(tmp_path: Path) -> None:
    for width, height, quality in ((224, 224, 80), (97, 131, 30), (33, 1, 95)):
        file = io.BytesIO()
        picture("RGB", width, height).save(file, "WEBP", quality=quality)
        read, expected = ours(tmp_path, file.getvalue()), pillows(file.getvalue())
        assert read is not None and expected is not None
        assert np.abs(read.astype(int) - expected).max() <= 2


def test_exif_orientation_is_not_applied_as_in_pillow(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    for format in ("JPEG", "WEBP", "PNG"):
        encoded = encode("RGB", format, exif=exif)
        read, expected = ours(tmp_path, encoded), pillows(encoded)
        assert (
            read is not None and expected is not None and read.shape == expected.shape == (HEIGHT, WIDTH, 3)
        )


def cut_and_ended(whole: bytes) -> bytes:
    return whole[: len(whole) * 3 // 4] + b"\xff\xd9"


def zero_filled(whole: bytes) -> bytes:
    return whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)


@pytest.mark.parametrize("damage", [cut_and_ended, zero_filled])
def test_damaged_jpegs_are_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG")
    whole = file.getvalue()
    assert ours(tmp_path, whole) is not None
    assert ours(tmp_path, damage(whole)) is None
    trailing = ours(tmp_path, whole + b"\0\0trailing")
    assert trailing is not None and np.array_equal(trailing, ours(tmp_path, whole))


@pytest.mark.parametrize(
    ("mode", "format", "options", "name"),
    [
        ("I;16", "TIFF", {}, "TIFF"),
        ("F", "TIFF", {}, "TIFF"),
        ("P", "TIFF", {}, "TIFF"),
        ("RGB", "TIFF", {"compression": "jpeg"}, "TIFF"),
        ("RGB", "AVIF", {}, "AVIF"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_way_out(
    tmp_path: Path, mode: str, format: str, options: dict[str, Any], name: str
) -> None:
    file = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.arange(143, dtype=np.uint16).reshape(11, 13) * 300).save(file, format)
    else:
        picture(mode).save(file, format, **options)
    assert ours(tmp_path, file.getvalue()) is None
    with pytest.raises(DataError, match=f"{name}.*convert the file to PNG"):
        diver.open(tmp_path)


def deep() -> Image.Image:
    """A grey image of 16 bits."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray((x * 4000 + y * 1500).astype(np.uint16))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16"])
def test_images_in_memory_are_those_of_their_files(tmp_path: Path, mode: str) -> None:
    image = deep() if mode == "I;16" else picture(mode)
    assert image.mode == mode
    file = io.BytesIO()
    image.save(file, "PNG")
    read = ours(tmp_path, file.getvalue())
    assert read is not None
    source = diver.from_dataset([(image, 0), (image, 1)])
    assert np.array_equal(np.moveaxis(source.sample(1).values, 0, 2), read)


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_images_in_memory_whose_range_is_unknown_are_refused(mode: str) -> None:
    image = Image.new(mode, (WIDTH, HEIGHT))
    with pytest.raises(OptionError, match=rf"images\[0\].*Pillow's mode '{mode}'.*numpy\.asarray"):
        diver.from_dataset([(image, 0)])


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames_beyond_the_first_are_told(tmp_path: Path, format: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    (tmp_path / "cat").mkdir()
    options = {} if format == "TIFF" else {"loop": 0, "duration": 100}
    frames[0].save(
        tmp_path / "cat" / f"a.{format}", format, save_all=True, append_images=frames[1:], **options
    )
    source = diver.open(tmp_path)
    assert len(source) == 1 and any("1 image" in note and "frames" in note for note in source.notes)
    frames[0].save(tmp_path / "cat" / f"a.{format}", format)
    assert not any("frames" in note for note in diver.open(tmp_path).notes)


@pytest.mark.parametrize("name", ["a.ico", "a.tga", "a.pcx"])
def test_images_that_are_not_read_are_not_passed_over(tmp_path: Path, name: str) -> None:
    for folder, file in (("cat", "a.png"), ("dog", name)):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / folder / file)
    with pytest.raises(DataError, match=rf"{name}.*to PNG"):
        diver.open(tmp_path)
