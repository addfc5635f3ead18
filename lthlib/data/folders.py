"""Folders of class folders: ROOT/train/CLASS/*.png and ROOT/val or ROOT/test beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lthlib.data.cache import Decoded, cached
from lthlib.data.parts import Dataset, Images, Part, split_training
from lthlib.data.pictures import decode_all, open_at_size, open_rgb
from lthlib.data.settings import DataSettings
from lthlib.data.splits import generator
from lthlib.data.streaming import StreamingPart
from lthlib.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
IMAGENET_CLASSES = 1000

# Image files and their labels, int64 [n].
Listing = tuple[list[Path], Tensor]


def load_folder(
    root: Path, settings: DataSettings, cache: str | Path | None, memory_limit: int
) -> Dataset:
    """A data set of image files, resident if it fits and streaming otherwise.

    With ROOT/val (or ROOT/validation) and ROOT/test, these are the validation and the test part.
    With one of them, it is the test part, and validation is split from ROOT/train. Training files
    are listed in a fixed shuffled order, so that the first n are a fair sample.

    Arguments:
        root: folder that holds `train` and `val`, `validation` or `test`.
        settings: with `image_size`, images stream through RandomResizedCrop; without, they all
            need one size and are augmented in the same way whether they fit or not.
        cache: see `cache_folder`.
        memory_limit: bytes of decoded images beyond which they stream.
    Raises:
        DataError: a folder is missing or empty, or an image cannot be used; names the file.
    """
    folders = _find_parts(root)
    classes = _list_classes(folders["train"])
    listed = {part: _list_images(folder, classes) for part, folder in folders.items()}
    native = None
    if settings.image_size is None:
        first = listed["train"][0][0]
        native = open_rgb(first, str(first)).size[::-1]
    parts = read_parts("folder", listed, classes, native, settings, cache, memory_limit)
    if "validation" not in parts:
        parts["train"], parts["validation"] = split_training(parts["train"], settings)
    return Dataset("folder", classes, parts["train"], parts["validation"], parts["test"])


def load_imagenet(
    root: Path, settings: DataSettings, cache: str | Path | None, memory_limit: int
) -> Dataset:
    """ImageNet (ILSVRC 2012) from ROOT/imagenet/train or ROOT/train, loaded as `load_folder` does.

    What a few classes or generated images show is nothing about ImageNet, so they go by the name
    `folder`.

    Raises:
        DataError: the training folder does not hold 1,000 classes; and all that `load_folder`
            raises.
    """
    folder = root / "imagenet" if (root / "imagenet" / "train").is_dir() else root
    train = _find_parts(folder)["train"]
    found = len(_list_classes(train))
    if found != IMAGENET_CLASSES:
        raise DataError(
            f"{train}: {found} class folders, ImageNet has {IMAGENET_CLASSES:,}; "
            "use dataset: folder for anything else"
        )
    return replace(load_folder(folder, settings, cache, memory_limit), name="imagenet")


def read_parts(
    title: str,
    listed: Mapping[str, Listing],
    classes: tuple[str, ...],
    native: tuple[int, int] | None,
    settings: DataSettings,
    cache: str | Path | None,
    memory_limit: int,
) -> dict[str, Part]:
    """Listed files as parts: decoded if all of them fit, streaming otherwise.

    Arguments:
        title: what entries of the cache are called, followed by the part's name.
        listed: part -> its files and labels.
        classes: class names in label order.
        native: (height, width) of every file; None streams whatever they fit into.
        settings, cache, memory_limit: as those of `load_folder`.
    Raises:
        DataError: a file cannot be decoded, or has another size.
    """
    total = sum(len(files) for files, _ in listed.values())
    parts: dict[str, Part] = {}
    for name, (files, labels) in listed.items():
        if native is None or total * native[0] * native[1] * 3 > memory_limit:
            parts[name] = StreamingPart(tuple(files), labels, native, settings.image_size)
        else:
            decode = partial(_decode_files, files, labels, classes, native, name)
            decoded = cached(f"{title}-{name}", files, decode, cache)
            parts[name] = Images(torch.from_numpy(decoded.images), labels)
    return parts


def in_fixed_order(files: list[Path], labels: Tensor) -> Listing:
    """The listing in one shuffled order, the same for ever: its first n are a fair sample."""
    order = torch.randperm(len(files), generator=generator(0, "folder order"))
    return [files[row] for row in order.tolist()], labels[order]


def _find_parts(root: Path) -> dict[str, Path]:
    if not (root / "train").is_dir():
        raise DataError(f"{root}: no folder train with one folder per class; give another root")
    held_out = [root / name for name in ("val", "validation", "test") if (root / name).is_dir()]
    if not held_out:
        raise DataError(
            f"{root}: has train, but no folder val, validation or test beside it; "
            "add one, a test set is never split off by itself"
        )
    parts = {"train": root / "train", "test": held_out[-1]}
    if len(held_out) > 1:
        parts["validation"] = held_out[0]
    return parts


def _list_classes(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))


def _list_images(folder: Path, classes: tuple[str, ...]) -> Listing:
    unknown = sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes))
    if unknown:
        raise DataError(f"{folder / unknown[0]}: a class that the training folder does not have")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found and folder.name == "train":
            raise DataError(f"{folder / name}: no images ({', '.join(SUFFIXES)}); add or remove it")
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(f"{folder}: no images ({', '.join(SUFFIXES)}) in folders named by class")
    return in_fixed_order(files, torch.tensor(labels))


def _decode_files(
    files: list[Path], labels: Tensor, classes: tuple[str, ...], native: tuple[int, int], name: str
) -> Decoded:
    images = np.empty((len(files), *native, 3), np.uint8)
    decode_all(partial(open_at_size, native=native), files, images, name)
    return Decoded(images, labels.numpy(), classes)
