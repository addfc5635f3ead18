from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lthlib.data.pictures import decode_all, open_rgb
from lthlib.errors import DataError

# Of PNG: channels of each colour type, and the depths that it may have.
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6


def png(kind: int, depth: int, values: np.ndarray, transparent: bytes = b"") -> bytes:
    """A PNG file by its specification. values: integers [height, width, channels]."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    height, width, _ = values.shape
    lines = [line.astype(">u2" if depth == 16 else "u1").tobytes() for line in values]
    if depth < 8:
        bits = [[f"{value:0{depth}b}" for value in line.ravel()] for line in values]
        lines = [bytes([int("".join(line).ljust(8, "0"), 2)]) for line in bits]
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)),
        *([(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))] if kind == PALETTE else []),
        *([(b"tRNS", transparent)] if transparent else []),
        (b"IDAT", zlib.compress(b"".join(b"\0" + line for line in lines))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def decoded(content: bytes) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(open_rgb(content, "row 0"))


@pytest.mark.parametrize(
    ("kind", "channels", "transparent"),
    [
        (GREY, 1, b""),
        (GREY, 1, b"\1\1"),
        (COLOUR, 3, b""),
        (COLOUR, 3, b"\1\1\1\1\1\1"),
        (GREY_ALPHA, 2, b""),
        (COLOUR_ALPHA, 4, b""),
    ],
)
def test_of_sixteen_bits_the_upper_eight_count(
    kind: int, channels: int, transparent: bytes
) -> None:
    values = np.linspace(0, 65_535, 16 * channels).astype(int).reshape(4, 4, channels)
    colours = values[..., : 1 if channels < 3 else 3] >> 8
    pixels = decoded(png(kind, 16, values, transparent))
    assert pixels.tolist() == np.broadcast_to(colours, (4, 4, 3)).tolist()


@pytest.mark.parametrize(
    ("kind", "depth", "values", "transparent", "first"),
    [
        (GREY, 1, [[1, 0]], b"", [255] * 3),
        (GREY, 2, [[2, 0]], b"", [170] * 3),
        (GREY, 4, [[10, 0]], b"\0\1", [170] * 3),
        (GREY, 8, [[77, 0]], b"", [77] * 3),
        (GREY_ALPHA, 8, [[77, 0]], b"", [77] * 3),
        (COLOUR_ALPHA, 8, [[7, 8, 9, 0]], b"", [7, 8, 9]),
        (PALETTE, 8, [[1, 0]], b"", [40, 50, 60]),
        (PALETTE, 8, [[1, 0]], b"\xff\0", [40, 50, 60]),
        (PALETTE, 1, [[1, 0]], b"\xff\x80", [40, 50, 60]),
    ],
)
def test_of_eight_bits_and_fewer_the_colour_is_taken_and_alpha_dropped(
    kind: int, depth: int, values: list[list[int]], transparent: bytes, first: list[int]
) -> None:
    channels = {GREY_ALPHA: 2, COLOUR_ALPHA: 4}.get(kind, 1)
    pixels = np.array(values).reshape(1, -1, channels)
    assert decoded(png(kind, depth, pixels, transparent))[0, 0].tolist() == first


def test_ink_becomes_light() -> None:
    buffer = io.BytesIO()
    Image.new("CMYK", (2, 2), (255, 0, 0, 0)).save(buffer, "JPEG")
    assert decoded(buffer.getvalue())[0, 0].tolist() == [0, 255, 255]


def test_another_size_is_refused_before_the_pixels_are_decoded() -> None:
    content = png(GREY, 8, np.zeros((5, 7, 1), int))[:45]
    with pytest.raises(DataError, match="row 0: not a readable image"):
        open_rgb(content, "row 0", (5, 7))
    with pytest.raises(DataError, match=r"row 0: 5 x 7 pixels, not 7 x 5; .* set image_size"):
        open_rgb(content, "row 0", (7, 5))


def test_a_pipe_and_a_device_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match=f"^{path}: not a readable image"):
            open_rgb(path, str(path))


def test_as_many_images_as_there_is_room_for_are_demanded() -> None:
    image = png(GREY, 8, np.full((1, 1, 1), 5))
    pixels = decode_all([(image, "row 0"), (image, "row 1")], 2, (1, 1), "ants")
    assert pixels.tolist() == [[[[5, 5, 5]]]] * 2
    for count in (1, 3, 2000):
        with pytest.raises(DataError, match=f"ants: {count} images and 2 labels"):
            decode_all([(image, "a row")] * count, 2, (1, 1), "ants")


def test_only_formats_of_data_sets_are_decoded() -> None:
    for kind in ("EPS", "TIFF", "PPM"):
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32)).save(buffer, kind)
        with pytest.raises(DataError, match="row 0: not a readable image"):
            open_rgb(buffer.getvalue(), "row 0")


@given(st.integers(0, 60), st.integers(1, 255))
@settings(max_examples=60)
def test_a_changed_byte_is_an_image_or_a_data_error(position: int, change: int) -> None:
    content = bytearray(png(GREY, 8, np.zeros((32, 32, 1), int)))
    content[position % len(content)] ^= change
    try:
        assert open_rgb(bytes(content), "row 0").mode == "RGB"
    except DataError as error:
        assert str(error).startswith("row 0: not a readable image")
