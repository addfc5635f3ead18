"""Image files drawn by a program, with the layout of a real data set and nothing of its content.

They prove that a path works from files to figures. Nothing that is trained on them feeds a verdict.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from lthlib.data.tiny_imagenet import CLASSES, FOLDER, SIDE
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
    """Write ROOT/train/CLASS/*.JPEG and ROOT/val/CLASS/*.JPEG.

    Each class is a grating of its own direction and colour, each image has its own phase, shape and
    noise.

    Args:
        root: a new or empty folder.
        classes: number of class folders, at least 1.
        train: images a class in train, at least 1.
        held_out: images a class in val, at least 1.
        size: shorter side in pixels, at least 8; the longer one differs from image to image.
        seed: of all that is drawn.

    Returns:
        The folder.

    Raises:
        ConfigError: numbers that make no folder.
        DataError: the folder already holds a file.
    """
    if min(classes, train, held_out) < 1 or size < 8:
        raise ConfigError(
            f"cannot draw {classes} classes of {train} and {held_out} images of {size} pixels; "
            "expected at least 1 of each, and 8 pixels"
        )
    root = _new_folder(root)
    draw = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", held_out)):
        for label in range(classes):
            for number in range(count):
                shape = (size + int(draw.integers(size // 2)), size + int(draw.integers(size // 2)))
                file = root / split / f"class{label:03d}" / f"{number:04d}.JPEG"
                _draw_grating(file, label / classes, shape, size, draw)
    return root


def write_tiny_imagenet(
    root: str | Path, *, train: int = 2, held_out: int = 2, seed: int = 0
) -> Path:
    """Write ROOT/tiny-imagenet-200 as the archive of Tiny-ImageNet has it.

    It has gratings of 64 x 64 pixels in 200 classes, whose ids WordNet does not have.

    Args:
        root: a new or empty folder.
        train: images a class in train, at least 1.
        held_out: images a class in val, at least 1.
        seed: of all that is drawn.

    Returns:
        The folder.

    Raises:
        ConfigError: numbers that make no folder.
        DataError: the folder already holds a file.
    """
    if min(train, held_out) < 1:
        raise ConfigError(f"cannot draw {train} and {held_out} images a class; expected at least 1")
    root = _new_folder(root)
    draw = np.random.default_rng(seed)
    names = [f"n{99_000_000 + label}" for label in range(CLASSES)]
    lists: dict[str, list[str]] = {}
    for label, name in enumerate(names):
        for number in range(train):
            file = f"{name}_{number}.JPEG"
            path = root / FOLDER / "train" / name / "images" / file
            _draw_grating(path, label / CLASSES, (SIDE, SIDE), SIDE, draw)
            lists.setdefault(f"train/{name}/{name}_boxes.txt", []).append(f"{file}\t0\t0\t63\t63")
    for number, label in enumerate(draw.permutation(np.repeat(np.arange(CLASSES), held_out))):
        file = f"val_{number}.JPEG"
        path = root / FOLDER / "val" / "images" / file
        _draw_grating(path, label / CLASSES, (SIDE, SIDE), SIDE, draw)
        line = f"{file}\t{names[label]}\t0\t0\t63\t63"
        lists.setdefault("val/val_annotations.txt", []).append(line)
    lists["wnids.txt"] = [names[label] for label in draw.permutation(CLASSES)]
    lists["words.txt"] = [f"{name}\tgrating {label}" for label, name in enumerate(names)]
    for name, lines in lists.items():
        (root / FOLDER / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return root


def _new_folder(root: str | Path) -> Path:
    root = Path(root)
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root} is not empty; give a new folder")
    return root


def _draw_grating(
    file: Path, kind: float, shape: tuple[int, int], size: int, draw: np.random.Generator
) -> None:
    height, width = shape
    rows, columns = np.mgrid[:height, :width] / size
    along = columns * np.cos(np.pi * kind) + rows * np.sin(np.pi * kind)
    wave = np.sin(2 * np.pi * (4 * along + draw.random()))
    colour = 0.5 + 0.5 * np.cos(2 * np.pi * (kind + np.array([0, 1 / 3, 2 / 3])))
    image = 128 + 90 * wave[:, :, None] * colour + draw.normal(0, 20, (height, width, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file, quality=90)
