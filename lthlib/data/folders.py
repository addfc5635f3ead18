"""Folders of class folders: ROOT/train/CLASS/*.png and ROOT/val or ROOT/test beside it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lthlib.data.cache import Decoded, cached
from lthlib.data.parts import Dataset, Part
from lthlib.data.pictures import decode_all, open_rgb
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
    classes = tuple(path.name for path in list_folder(folders["train"])[1])
    listed = {
        part: list_images(folder, classes, "the training folder")
        for part, folder in folders.items()
    }
    native = None
    if settings.image_size is None:
        first = listed["train"][0][0]
        native = open_rgb(first, str(first)).size[::-1]
    parts = read_parts("folder", listed, classes, native, settings, cache, memory_limit)
    if "validation" not in parts:
        return Dataset.split("folder", classes, parts["train"], parts["test"], settings)
    return Dataset("folder", classes, **parts)


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
    folder = root / "imagenet" if os.path.isdir(root / "imagenet" / "train") else root
    train = _find_parts(folder)["train"]
    found = len(list_folder(train)[1])
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
            # Of the labels those listed now count: annotations change without their images.
            parts[name] = replace(decoded.part, labels=labels)
    return parts


def _find_parts(root: Path) -> dict[str, Path]:
    if not os.path.isdir(root / "train"):
        raise DataError(f"{root}: no folder train with one folder per class; give another root")
    names = ("val", "validation", "test")
    held_out = [root / name for name in names if os.path.isdir(root / name)]
    if not held_out:
        raise DataError(
            f"{root}: has train, but no folder val, validation or test beside it; "
            "add one, a test set is never split off by itself"
        )
    parts = {"train": root / "train", "test": held_out[-1]}
    if len(held_out) > 1:
        parts["validation"] = held_out[0]
    return parts


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders in a folder, each by name; hidden ones are left out.

    Raises:
        DataError: the folder cannot be read, or holds what is neither, such as a link that leads
            nowhere or in a circle, or a pipe; names it.
    """
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not (entry.is_dir() or entry.is_file()):
                    raise OSError(errno.EINVAL, "leads to no file and no folder", entry.path)
                (folders if entry.is_dir() else files).append(folder / entry.name)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); mend or remove it, "
            "or fetch the data again"
        ) from error
    return sorted(files), sorted(folders)


def list_images(folder: Path, classes: tuple[str, ...], named_by: str) -> Listing:
    """Image files in folders named by their class, in one shuffled order that is the same for ever:
    the first n are a fair sample. Training folders need images of every class.

    Raises:
        DataError: a folder is none of the classes, whose names come from `named_by`; a class or all
            of them are empty; or as `list_folder` does.
    """
    folders = {path.name: path for path in list_folder(folder)[1]}
    if unknown := sorted(folders.keys() - set(classes)):
        raise DataError(f"{folder / unknown[0]}: a class that {named_by} does not name; remove it")
    files: list[Path] = []
    labels: list[int] = []
    real = Path(os.path.realpath(folder))
    seen = {real, *real.parents}
    for label, name in enumerate(classes):
        found = _images_in(folders[name], seen) if name in folders else []
        if not found and folder.name == "train":
            raise DataError(f"{folder / name}: no images ({', '.join(SUFFIXES)}); add or remove it")
        files += found
        labels += [label] * len(found)
    if not files:
        raise DataError(f"{folder}: no images ({', '.join(SUFFIXES)}) in folders named by class")
    order = torch.randperm(len(files), generator=generator(0, "folder order"))
    return [files[row] for row in order.tolist()], torch.tensor(labels)[order]


def _images_in(folder: Path, seen: set[Path]) -> list[Path]:
    found: list[Path] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        if (real := Path(os.path.realpath(here))) in seen:
            raise DataError(f"{here}: a link to a folder that is listed elsewhere; remove it")
        seen.add(real)
        files, folders = list_folder(here)
        found += [file for file in files if file.suffix.lower() in SUFFIXES]
        waiting += folders
    return sorted(found)


def _decode_files(
    files: list[Path], labels: Tensor, classes: tuple[str, ...], native: tuple[int, int], name: str
) -> Decoded:
    images = np.empty((len(files), *native, 3), np.uint8)
    decode_all(((file, str(file)) for file in files), images, name)
    return Decoded(images, labels.numpy(), classes)
