"""CIFAR-10 itself, where LTHLIB_DATA points at it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lthlib.data import Dataset, DataSettings, Images, load_dataset

ROOT = os.environ.get("LTHLIB_DATA")
CACHE = os.environ.get("LTHLIB_CACHE")

pytestmark = pytest.mark.skipif(
    not ROOT or not Path(ROOT, "cifar10").is_dir(), reason="LTHLIB_DATA holds no cifar10 folder"
)


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cache = CACHE or tmp_path_factory.mktemp("cache")
    return load_dataset("cifar10", ROOT, cache=cache, settings=DataSettings(validation_images=0))


def test_it_holds_the_published_images(cifar10: Dataset) -> None:
    assert (len(cifar10.train), len(cifar10.test)) == (50_000, 10_000)
    assert torch.bincount(cifar10.train.labels).tolist() == [5_000] * 10
    assert torch.bincount(cifar10.test.labels).tolist() == [1_000] * 10
    assert cifar10.classes[0] == "airplane"


def test_its_channels_have_the_published_mean_and_deviation(cifar10: Dataset) -> None:
    assert isinstance(cifar10.train, Images)
    pixels = cifar10.train.storage.numpy().reshape(-1, 3)
    counts = np.stack([np.bincount(pixels[:, channel], minlength=256) for channel in range(3)])
    share, level = counts / len(pixels), np.arange(256) / 255
    mean = share @ level
    assert np.round(mean, 4).tolist() == [0.4914, 0.4822, 0.4465]
    deviation = np.sqrt(share @ level**2 - mean**2)
    assert np.round(deviation, 4).tolist() == [0.2470, 0.2435, 0.2616]
