"""Decoding image files, with bounds, and with errors that name the file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from lthlib.errors import DataError

DECODING_THREADS = 2
# Pillow reads dozens of formats more, and for one of them (EPS) runs a program on the file.
FORMATS = ("PNG", "JPEG", "WEBP")
# As Pillow's own, beyond which it warns: 270 MB decoded. Who may switch that off cannot this.
PIXEL_LIMIT = 89_478_485


def open_rgb(source: Path | bytes, where: str) -> Image.Image:
    """Decode one image file to RGB.

    Arguments:
        source: path or content of a PNG, JPEG or WebP file, whatever the file is called.
        where: what an error message calls the image.
    Raises:
        DataError: the bytes are no image, are damaged, or claim more pixels than `PIXEL_LIMIT`.
    """
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(opened, formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                size = f"{image.width} x {image.height}"
                raise ValueError(f"{size} pixels, more than {PIXEL_LIMIT} in all")
            return image.convert("RGB")
    # Pillow's readers raise whatever they stumble on: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise DataError(f"{where}: not a readable image ({error}); replace or remove it") from error


def open_at_size(file: Path, native: tuple[int, int] | None) -> np.ndarray:
    """Decode one file to uint8 [height, width, 3]; DataError unless (height, width) = native."""
    image = np.array(open_rgb(file, str(file)))
    if image.shape[:2] != native:
        raise DataError(
            f"{file}: {image.shape[0]} x {image.shape[1]} pixels, the others have {native}; "
            "where sizes differ, use dataset: folder and set image_size"
        )
    return image


def decode_all(
    read: Callable[[Any], np.ndarray], sources: Iterable[Any], out: np.ndarray, title: str
) -> None:
    """Fill `out` (uint8 [n, h, w, c]) with `read(source)` of n sources, on a few threads."""
    sources = iter(sources)
    done = 0
    with (
        ThreadPoolExecutor(DECODING_THREADS) as pool,
        tqdm(total=len(out), desc=f"decoding {title}", unit="image", leave=False) as bar,
    ):
        # In pieces: Executor.map takes all its input before it yields anything.
        while piece := list(islice(sources, 1024)):
            for array in pool.map(read, piece):
                out[done] = array
                done += 1
            bar.update(len(piece))
