"""Decoding image files, with bounds, and with errors that name the file."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from lthlib.errors import DataError, refusal
from lthlib.files import read_bounded

Source = tuple[Path | bytes, str]  # of an image: where it is, or its content, and its name
DECODING_THREADS = 2
# Pillow reads dozens of formats more, and for one of them (EPS) runs a program on the file.
FORMATS = ("PNG", "JPEG", "WEBP")
# As Pillow's own, beyond which it warns: 270 MB decoded. Who may switch that off cannot this.
PIXEL_LIMIT = 89_478_485
# Of an encoded image: what as many pixels take that are not compressed.
FILE_LIMIT = 3 * PIXEL_LIMIT
# What is read as it is; those of 16 bits ("I;16") are scaled.
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")


def open_rgb(source: Path | bytes, where: str, size: tuple[int, int] | None = None) -> Image.Image:
    """Decode one image file to RGB; of 16 bits a channel, the upper eight count.

    Args:
        source: path or content of a PNG, JPEG or WebP file, whatever the file is called.
        where: what an error message calls the image.
        size: (height, width) it has to have; None takes any.

    Returns:
        The image, loaded, of mode RGB.

    Raises:
        DataError: the bytes are no image, are damaged, claim more pixels than `PIXEL_LIMIT`, or
            have another size.
    """
    # Pillow's readers raise whatever they stumble on: OSError, SyntaxError, struct.error, ...
    with refusal(DataError, f"{where}: not a readable image", Exception, "replace or remove it"):
        content = source if isinstance(source, bytes) else read_bounded(source, FILE_LIMIT)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise ValueError(
                    f"{image.width} x {image.height} pixels, more than {PIXEL_LIMIT} in all"
                )
            height, width = image.height, image.width
            if size in (None, (height, width)):
                return _to_rgb(image)
    raise DataError(
        f"{where}: {height} x {width} pixels, not {size[0]} x {size[1]}; use folder, and set "
        "image_size"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    # Of 16-bit colour Pillow itself keeps the upper byte; 16-bit grey it would clip at 255.
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode not in MODES:
        raise ValueError(f"pixels of mode {image.mode}, expected 8 or 16 bits a channel")
    # A palette's transparent entries have colours too; Pillow warns that they are dropped.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def decode_all(
    sources: Iterable[Source], count: int, size: tuple[int, int], title: str
) -> np.ndarray:
    """Decode images of one size on a few threads.

    Args:
        sources: of each image, what `open_rgb` takes first and second.
        count: how many there are to be.
        size: (height, width) of all of them.
        title: what the bar and errors call them.

    Returns:
        uint8 [count, height, width, 3].

    Raises:
        DataError: as `open_rgb` raises it, and when there are not `count` of them.
    """
    sources = iter(sources)
    images = np.empty((count, *size, 3), np.uint8)
    done = 0

    def decode(source: Source) -> np.ndarray:
        return np.asarray(open_rgb(*source, size=size))

    with (
        ThreadPoolExecutor(DECODING_THREADS) as pool,
        tqdm(total=count, desc=f"decoding {title}", unit="image", leave=False) as bar,
    ):
        # In pieces: Executor.map takes all its input before it yields anything.
        while piece := list(islice(sources, 1024)):
            for row, image in enumerate(pool.map(decode, piece[: count - done]), start=done):
                images[row] = image
            done += len(piece)
            bar.update(len(piece))
    if done != count:
        raise DataError(f"{title}: {done} images and {count} labels; fetch the files again")
    return images
