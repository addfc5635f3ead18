"""Tiny-ImageNet as its archive unpacks: class folders of training images, and validation images in
one folder beside a file that names the class of each.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lthlib.data.folders import Listing, list_folder, list_images, read_parts
from lthlib.data.parts import Dataset, Request
from lthlib.data.pictures import FILE_LIMIT
from lthlib.errors import DataError, refusal
from lthlib.files import read_bounded

FOLDER = "tiny-imagenet-200"
CLASSES = 200
SIDE = 64
_AGAIN = f"unpack {FOLDER}.zip again"


def load_tiny_imagenet(request: Request) -> Dataset:
    """Tiny-ImageNet from ROOT/tiny-imagenet-200 or ROOT: 64 x 64 pixels, 200 classes.

    Classes are the ids of wnids.txt in alphabetical order. Training files are listed in a fixed
    shuffled order, so that the first n are a fair sample; the official validation images by name,
    as text. What those are for, `settings.official_validation` says. The official test images,
    which have no labels, words.txt and bounding boxes are not read.

    The BiP release takes the halves in the order in which the file system lists the images, and
    drops the last image of each part; here the order is fixed, and nothing is dropped.

    Args:
        request: what was asked for.

    Returns:
        The data set, called `tiny-imagenet`.

    Raises:
        DataError: a folder, file or annotation is missing or does not fit the others, or an image
            cannot be used; names the file.
    """
    root, settings = request.root, request.settings
    folder = root / FOLDER if os.path.isdir(root / FOLDER) else root
    classes = _read_classes(folder / "wnids.txt", root)
    listings = {"train": list_images(folder / "train", classes, "wnids.txt")}
    listings["val"] = _list_validation(folder / "val", classes)
    parts = read_parts("tiny-imagenet", listings, (SIDE, SIDE), request)
    held_out = parts["val"]
    dataset = Dataset.split("tiny-imagenet", classes, parts["train"], held_out, settings)
    if settings.official_validation == "halves":
        first, second = (held_out.select(rows) for rows in _halves(held_out.labels))
        return replace(dataset, validation=first, test=second)
    return dataset


def _read_classes(file: Path, root: Path) -> tuple[str, ...]:
    if not os.path.isfile(file):
        raise DataError(
            f"no tiny-imagenet: looked for wnids.txt in {root / FOLDER} and in {root}. Unpack "
            f"{FOLDER}.zip into the data root, or use dataset: folder for class folders of your own"
        )
    names = [name for line in _read_lines(file) if (name := line.strip())]
    if len(names) != CLASSES or len(set(names)) != CLASSES:
        raise DataError(
            f"{file}: {len(set(names))} classes in {len(names)} lines, Tiny-ImageNet has "
            f"{CLASSES}, each named once; use dataset: folder for anything else"
        )
    return tuple(sorted(names))


def _list_validation(folder: Path, classes: tuple[str, ...]) -> Listing:
    annotations = folder / "val_annotations.txt"
    if not (os.path.isfile(annotations) and os.path.isdir(folder / "images")):
        raise DataError(
            f"{folder}: needs val_annotations.txt and the folder images; where another program has "
            "moved the images into class folders, unpack it again, or use dataset: folder"
        )
    labels = _read_annotations(annotations, classes)
    files, _ = list_folder(folder / "images")
    for name in sorted(labels.keys() ^ {file.name for file in files}):
        fault = (
            f"names {name}, which is not" if name in labels else f"does not name {name}, which is"
        )
        raise DataError(f"{annotations} {fault} in {folder / 'images'}; {_AGAIN}")
    if empty := sorted(set(range(len(classes))) - set(labels.values())):
        raise DataError(f"{annotations}: no image of {classes[empty[0]]}; {_AGAIN}")
    return Listing(files, torch.tensor([labels[file.name] for file in files]), classes)


def _read_annotations(file: Path, classes: tuple[str, ...]) -> dict[str, int]:
    label_of = {name: label for label, name in enumerate(classes)}
    labels: dict[str, int] = {}
    for number, line in enumerate(_read_lines(file), start=1):
        where = f"{file}, line {number}"
        image, *class_and_box = line.split("\t")
        if not class_and_box:
            raise DataError(f"{where}: {line!r}; expected an image, its class and its box")
        if (name := class_and_box[0]) not in label_of:
            raise DataError(f"{where}: class {name!r}, which wnids.txt does not name")
        if image in labels:
            raise DataError(f"{where}: {image} a second time; keep one of its lines")
        labels[image] = label_of[name]
    return labels


def _read_lines(file: Path) -> list[str]:
    unfit = (OSError, UnicodeDecodeError)
    with refusal(DataError, f"{file}: not readable text", unfit, _AGAIN):
        return read_bounded(file, FILE_LIMIT).decode().splitlines()


def _halves(labels: Tensor) -> tuple[Tensor, Tensor]:
    first = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        first[rows[: len(rows) // 2]] = True
    return first.nonzero().squeeze(1), (~first).nonzero().squeeze(1)
