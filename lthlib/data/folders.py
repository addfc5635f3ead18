"""Folders of class folders: ROOT/train/CLASS/*.png and ROOT/val or ROOT/test beside it."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lthlib.data.cache import Decoded, cached
from lthlib.data.parts import Dataset, Images, Part, Request
from lthlib.data.pictures import decode_all, open_rgb
from lthlib.data.splits import generator
from lthlib.data.streaming import StreamingPart
from lthlib.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
IMAGENET_CLASSES = 1000
_log = logging.getLogger("lthlib")


@dataclass(frozen=True, eq=False)
class Listing:
    """Image files and their classes.

    Attributes:
        files: path of each of n images.
        labels: int64 [n], class of each image.
        classes: names of all classes in label order.
    """

    files: list[Path]
    labels: Tensor
    classes: tuple[str, ...]


def load_folder(request: Request) -> Dataset:
    """A data set of image files, resident if it fits and streaming otherwise.

    With ROOT/val (or ROOT/validation) and ROOT/test, these are the validation and the test part.
    With one of them, it is the test part, and validation is split from ROOT/train. Training files
    are listed in a fixed shuffled order, so that the first n are a fair sample.

    With `image_size`, images stream through RandomResizedCrop. Without, they all need one size and
    are augmented in the same way whether they fit or not.

    Args:
        request: what was asked for.

    Returns:
        The data set, called `folder`.

    Raises:
        DataError: a folder is missing or empty, or an image cannot be used; names the file.
    """
    root, settings = request.root, request.settings
    held_out = _find_held_out(root)
    train = list_images(root / "train")
    listings = {"train": train}
    for name, folder in held_out.items():
        listings[name] = list_images(folder, train.classes, "the training folder")
    native = None
    if settings.image_size is None:
        native = open_rgb(train.files[0], str(train.files[0])).size[::-1]
    parts = read_parts("folder", listings, native, request)
    if "validation" in parts:
        return Dataset("folder", train.classes, **parts)
    return Dataset.split("folder", train.classes, parts["train"], parts["test"], settings)


def load_imagenet(request: Request) -> Dataset:
    """ImageNet (ILSVRC 2012) from ROOT/imagenet/train or ROOT/train, loaded as `load_folder` does.

    What a few classes or generated images show is nothing about ImageNet, so they go by the name
    `folder`.

    Args:
        request: what was asked for.

    Returns:
        The data set, called `imagenet`.

    Raises:
        DataError: the training folder does not hold 1,000 classes; and all that `load_folder`
            raises.
    """
    folder = request.root / "imagenet"
    folder = folder if os.path.isdir(folder / "train") else request.root
    dataset = load_folder(replace(request, root=folder))
    if dataset.num_classes != IMAGENET_CLASSES:
        raise DataError(
            f"{folder / 'train'}: {dataset.num_classes} class folders, ImageNet has 1,000; use "
            "dataset: folder for anything else"
        )
    return replace(dataset, name="imagenet")


def read_parts(
    title: str, listings: Mapping[str, Listing], native: tuple[int, int] | None, request: Request
) -> dict[str, Part]:
    """Listed files as parts: decoded if all of them fit, streaming otherwise.

    Args:
        title: what entries of the cache are called, followed by the part's name.
        listings: name of a part -> its files.
        native: (height, width) of every file; None streams whatever they fit into.
        request: what was asked for.

    Returns:
        Name of a part -> the part.

    Raises:
        DataError: a file cannot be decoded, or has another size.
    """
    total = sum(len(listing.files) for listing in listings.values())
    if native is None or total * native[0] * native[1] * 3 > request.memory_limit:
        size = request.settings.image_size
        return {
            name: StreamingPart(tuple(listing.files), listing.labels, native, size)
            for name, listing in listings.items()
        }
    return {
        name: _decode_listing(f"{title}-{name}", listing, native, request.cache)
        for name, listing in listings.items()
    }


def _decode_listing(
    title: str, listing: Listing, native: tuple[int, int], cache: str | Path | None
) -> Images:
    def decode() -> Decoded:
        sources = ((file, str(file)) for file in listing.files)
        images = decode_all(sources, len(listing.files), native, title)
        return Decoded(images, listing.labels.numpy(), listing.classes)

    # Of the labels those listed now count: annotations change without their images.
    return replace(cached(title, listing.files, decode, cache).part, labels=listing.labels)


def _find_held_out(root: Path) -> dict[str, Path]:
    if not os.path.isdir(root / "train"):
        raise DataError(f"{root}: no folder train with one folder per class; give another root")
    names = ("val", "validation", "test")
    folders = [root / name for name in names if os.path.isdir(root / name)]
    if not folders:
        raise DataError(
            f"{root}: has train, but no folder val, validation or test beside it; add one, a test "
            "set is never split off by itself"
        )
    if len(folders) == 1:
        return {"test": folders[0]}
    return {"validation": folders[0], "test": folders[-1]}


def list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Image files and folders in a folder, each by name.

    Hidden ones are left out. So is, with a warning, what is neither, such as a pipe.

    Args:
        folder: which one; a link to one will do.

    Returns:
        Image files, and folders.

    Raises:
        DataError: the folder cannot be read, or holds a link that leads nowhere or in a circle;
            names it.
    """
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(folder / entry.name)
                elif not entry.is_file():
                    entry.stat()  # raises where a link leads nowhere
                    _log.warning("%s is no file and no folder; it is left out", entry.path)
                elif entry.name.lower().endswith(SUFFIXES):
                    files.append(folder / entry.name)
    except OSError as error:
        raise DataError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); mend or remove it, "
            "or fetch the data again"
        ) from error
    return sorted(files), sorted(folders)


def list_images(
    folder: Path, classes: tuple[str, ...] | None = None, named_by: str = ""
) -> Listing:
    """Image files in folders named by their class, in one shuffled order that is the same for ever.

    The first n are a fair sample. Training folders need images of every class.

    Args:
        folder: holds the folders.
        classes: names in label order; None takes those of the folders.
        named_by: where the names come from, as an error says it.

    Returns:
        The files of all folders, with labels by `classes`.

    Raises:
        DataError: a folder is none of the classes; a class or all of them are empty; or as
            `list_folder` does.
    """
    folders = {path.name: path for path in list_folder(folder)[1]}
    classes = tuple(folders) if classes is None else classes
    if unknown := sorted(folders.keys() - set(classes)):
        raise DataError(f"{folder / unknown[0]}: a class that {named_by} does not name; remove it")
    files: list[Path] = []
    labels: list[int] = []
    real = Path(os.path.realpath(folder))
    visited = {real, *real.parents}
    for label, name in enumerate(classes):
        images = _images_in(folders[name], visited) if name in folders else []
        if not images and folder.name == "train":
            raise DataError(f"{folder / name}: no images ({', '.join(SUFFIXES)}); add or remove it")
        files += images
        labels += [label] * len(images)
    if not files:
        raise DataError(f"{folder}: no images ({', '.join(SUFFIXES)}) in folders named by class")
    order = torch.randperm(len(files), generator=generator(0, "folder order"))
    return Listing([files[row] for row in order.tolist()], torch.tensor(labels)[order], classes)


def _images_in(folder: Path, visited: set[Path]) -> list[Path]:
    images: list[Path] = []
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        if (real := Path(os.path.realpath(current))) in visited:
            raise DataError(f"{current}: a link to a folder that is listed elsewhere; remove it")
        visited.add(real)
        files, folders = list_folder(current)
        images += files
        waiting += folders
    return sorted(images)
