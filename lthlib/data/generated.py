"""Image folders drawn by a program: they have the layout of ImageNet and nothing of its content.

They prove that a path works from files to figures. Nothing that is trained on them feeds a verdict.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lthlib.errors import ConfigError, DataError


def write_image_folder(
    root: str | Path,
    *,
    classes: int = 4,
    train: int = 24,
    held_out: int = 8,
    size: int = 80,
    seed: int = 0,
) -> Path:
    """Write ROOT/train/CLASS/*.JPEG and ROOT/val/CLASS/*.JPEG; returns ROOT.

    Each class is a grating of its own direction and colour, each image has its own phase, shape and
    noise. classes: number of class folders. train, held_out: images a class. size: shorter side in
    pixels; the longer one differs from image to image. Raises ConfigError for numbers that make no
    folder, DataError when ROOT already holds a file.
    """
    if min(classes, train, held_out) < 1 or size < 8:
        raise ConfigError(
            f"cannot draw {classes} classes of {train} and {held_out} images of {size} pixels; "
            "expected at least 1 of each, and 8 pixels"
        )
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root} is not empty; give a new folder")
    draw = np.random.default_rng(seed)
    for part, count in (("train", train), ("val", held_out)):
        for label in range(classes):
            folder = root / part / f"class{label:03d}"
            folder.mkdir(parents=True)
            for number in range(count):
                image = _grating(label / classes, size, draw)
                Image.fromarray(image).save(folder / f"{number:04d}.JPEG", quality=90)
    return root


def _grating(kind: float, size: int, draw: np.random.Generator) -> np.ndarray:
    height, width = size + int(draw.integers(size // 2)), size + int(draw.integers(size // 2))
    rows, columns = np.mgrid[:height, :width] / size
    along = columns * np.cos(np.pi * kind) + rows * np.sin(np.pi * kind)
    wave = np.sin(2 * np.pi * (4 * along + draw.random()))
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (kind + np.array([0, 1 / 3, 2 / 3])))
    image = 128 + 90 * wave[:, :, None] * colour + draw.normal(0, 20, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8)
