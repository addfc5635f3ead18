"""`load_dataset`: one name, one call, for every kind of source."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from lthlib.data.cifar import KINDS, load_cifar
from lthlib.data.folders import load_folder, load_imagenet
from lthlib.data.parts import Dataset, Images, Request
from lthlib.data.settings import DataSettings
from lthlib.data.splits import split_indices
from lthlib.data.tiny_imagenet import load_tiny_imagenet
from lthlib.errors import DataError, shown
from lthlib.settings import coerce

# Those of image files.
READERS: dict[str, Callable[[Request], Dataset]] = {
    **dict.fromkeys(KINDS, load_cifar),
    "tiny-imagenet": load_tiny_imagenet,
    "imagenet": load_imagenet,
    "folder": load_folder,
}
SUPPORTED = ("digits", *READERS)
_DIGITS_TEST_IMAGES = 497
_DIGITS_TEST_SEED = 1797


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    cache: str | Path | None = None,
    settings: DataSettings | None = None,
    download: bool = False,
    memory_limit: int = 2 * 2**30,
) -> Dataset:
    """Load a data set and split it.

    Args:
        name: one of `SUPPORTED`.
        root: data root; None takes $LTHLIB_DATA. `digits` needs none.
        cache: folder of decoded images; None takes $LTHLIB_CACHE, else the user's cache folder.
        settings: how to split; None takes the defaults. Its `dataset` gives way to `name`.
        download: let torchvision fetch CIFAR into `root` if it is not there.
        memory_limit: bytes of decoded images beyond which image files stream from disk.

    Returns:
        The data set, its images memory-mapped where there is a cache.

    Raises:
        DataError: unknown name, missing root, or malformed data.
        ConfigError: the settings do not fit the data.
    """
    if name not in SUPPORTED:
        raise DataError(f"unknown data set {name!r}; there are {', '.join(SUPPORTED)}")
    settings = coerce(settings, DataSettings | None, "settings")
    settings = replace(settings, dataset=name) if settings else DataSettings(dataset=name)
    memory_limit = coerce(memory_limit, int, "memory_limit")
    if name == "digits":
        return _load_digits(settings)
    folder = _find_root(name, root, download)
    return READERS[name](Request(folder, settings, cache, memory_limit, download))


def _load_digits(settings: DataSettings) -> Dataset:
    # uint8 [1797, 8, 8] and [1797], what scikit-learn's load_digits gives: the test images of E.
    # Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (1998), UCI Machine Learning
    # Repository, CC BY 4.0. Pixels run from 0 to 16; times 15, white is 240.
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as source:
        images, labels = (torch.from_numpy(source[name]) for name in ("images", "labels"))
    digits = Images((images * 15).unsqueeze(-1), labels.to(torch.int64))
    pool, test = split_indices(digits.labels, _DIGITS_TEST_IMAGES, _DIGITS_TEST_SEED)
    classes = tuple(map(str, range(10)))
    return Dataset.split("digits", classes, digits.select(pool), digits.select(test), settings)


def _find_root(name: str, root: str | Path | None, download: bool) -> Path:
    chosen = root or os.environ.get("LTHLIB_DATA")
    if chosen and not isinstance(chosen, (str, os.PathLike)):
        raise DataError(f"data root {shown(chosen)} is no path: give one, as text")
    if not chosen:
        raise DataError(
            f"no data root for {name}: give one by --data (a notebook: -p data) or LTHLIB_DATA"
        )
    path = Path(os.path.expanduser(chosen))
    if not os.path.isdir(path) and not download:
        raise DataError(
            f"data root {path} does not exist: give another by --data (a notebook: -p data) or "
            "LTHLIB_DATA, or allow the download of CIFAR with download=True"
        )
    return path
