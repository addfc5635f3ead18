from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from companion.generated import write_image_folder, write_tiny_imagenet
from lthlib.data import DataSettings, load_dataset
from lthlib.errors import ConfigError, DataError


def test_a_generated_folder_has_the_layout_of_imagenet(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "drawn", classes=3, train=5, held_out=2, size=32)
    settings = DataSettings("folder", validation_images=3, image_size=16)
    data = load_dataset("folder", root, cache=tmp_path / "cache", settings=settings)
    assert data.classes == ("class000", "class001", "class002")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 3, 6]
    sizes = set()
    for file in (root / "train").rglob("*.JPEG"):
        with Image.open(file) as image:
            sizes.add(image.size)
    assert len(sizes) > 3  # as in a folder of photographs
    with pytest.raises(DataError, match="is not empty"):
        write_image_folder(root)
    with pytest.raises(ConfigError, match="at least 1 of each"):
        write_image_folder(tmp_path / "none", classes=0)


def test_the_drawn_set_has_the_layout_of_the_archive(tmp_path: Path) -> None:
    drawn = write_tiny_imagenet(tmp_path / "drawn", held_out=3)
    folder = drawn / "tiny-imagenet-200"
    assert sorted(path.name for path in folder.iterdir()) == [
        "train",
        "val",
        "wnids.txt",
        "words.txt",
    ]
    name = (folder / "wnids.txt").read_text().split()[0]
    assert sorted(p.name for p in (folder / "train" / name / "images").iterdir()) == [
        f"{name}_{number}.JPEG" for number in range(2)
    ]
    assert (folder / "train" / name / f"{name}_boxes.txt").is_file()
    assert len((folder / "val/val_annotations.txt").read_text().splitlines()) == 600
    assert len((folder / "words.txt").read_text().splitlines()) == 200
    with pytest.raises(DataError, match="is not empty"):
        write_tiny_imagenet(drawn)
    with pytest.raises(ConfigError, match="at least 1"):
        write_tiny_imagenet(tmp_path / "none", held_out=0)


def test_equal_seeds_draw_equal_sets(tmp_path: Path) -> None:
    seeds = {"one": 0, "again": 0, "other": 1}
    one, again, other = (
        write_tiny_imagenet(tmp_path / name, train=1, held_out=1, seed=seed)
        / "tiny-imagenet-200/val"
        for name, seed in seeds.items()
    )
    image, classes = "images/val_0.JPEG", "val_annotations.txt"
    assert (again / image).read_bytes() == (one / image).read_bytes()
    assert (again / classes).read_text() == (one / classes).read_text()
    assert (other / classes).read_text() != (one / classes).read_text()
