from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lthlib.data import cache_folder, verify_cache
from lthlib.data.cache import Decoded, cached
from lthlib.errors import DataError

Edit = Callable[[Path], None]


class Source:
    """One file and a decoder that counts its calls."""

    def __init__(self, folder: Path) -> None:
        self.file, self.cache, self.calls = folder / "source.bin", folder / "cache", 0
        self.file.write_bytes(b"source")

    def decode(self) -> Decoded:
        self.calls += 1
        images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
        return Decoded(images, np.array([1, 0]), ("ant", "bee"))

    def load(self) -> Decoded:
        return cached("set-train", [self.file], self.decode, self.cache)

    @property
    def entries(self) -> list[Path]:
        return list(cache_folder(self.cache).iterdir())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


def flip_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def test_the_second_call_maps_what_the_first_decoded(source: Source) -> None:
    first, second = source.load(), source.load()
    assert source.calls == 1
    assert isinstance(second.images, np.memmap)
    assert np.array_equal(first.images, np.arange(24).reshape(2, 2, 2, 3))
    assert (second.labels.tolist(), second.classes) == ([1, 0], ("ant", "bee"))


def test_an_entry_is_two_arrays_and_a_manifest_and_nothing_else(source: Source) -> None:
    source.load()
    (entry,) = source.entries
    names = sorted(path.name for path in entry.iterdir())
    assert names == ["images.npy", "labels.npy", "manifest.json"]
    manifest = json.loads((entry / "manifest.json").read_text())
    assert manifest["sources"][0][:2] == [str(source.file.resolve()), 6]


def test_writing_to_the_mapped_images_leaves_the_cache_as_it_is(source: Source) -> None:
    torch.from_numpy(source.load().images).zero_()
    assert source.load().images.max() == 23
    assert verify_cache(source.cache) == []


def test_a_changed_source_is_decoded_again(source: Source) -> None:
    source.load()
    source.file.write_bytes(b"another source")
    source.load()
    assert source.calls == 2


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("images.npy", truncate),
        ("images.npy", Path.unlink),
        ("labels.npy", truncate),
        ("labels.npy", lambda file: file.write_bytes(b"x" * file.stat().st_size)),
        ("manifest.json", truncate),
        ("manifest.json", Path.unlink),
        ("manifest.json", lambda file: file.write_text("[]")),
        ("manifest.json", lambda file: file.write_text(file.read_text().replace("ant", "cat"))),
    ],
)
def test_damage_is_noticed_and_decoded_again(
    source: Source, file: str, damage: Edit, caplog: pytest.LogCaptureFixture
) -> None:
    source.load()
    damage(source.entries[0] / file)
    with caplog.at_level(logging.INFO, logger="lthlib.data.cache"):
        assert source.load().classes == ("ant", "bee")
    assert source.calls == 2
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "is damaged" in caplog.text
    assert len(source.entries) == 1
    assert verify_cache(source.cache) == []


def test_a_flipped_byte_is_found_by_the_full_check(source: Source) -> None:
    source.load()
    flip_byte(source.entries[0] / "images.npy")
    (problem,) = verify_cache(source.cache)
    assert "checksum of images.npy" in problem
    assert source.entries == []
    source.load()
    assert source.calls == 2
    assert verify_cache(source.cache) == []


def test_a_cache_that_is_not_there_is_clean(tmp_path: Path) -> None:
    assert verify_cache(tmp_path / "nowhere") == []


def test_another_process_that_was_first_is_no_trouble(source: Source) -> None:
    def slow() -> Decoded:
        source.load()
        return source.decode()

    decoded = cached("set-train", [source.file], slow, source.cache)
    assert decoded.labels.tolist() == [1, 0]
    assert len(source.entries) == 1


def test_a_failed_decoding_leaves_nothing_behind(source: Source) -> None:
    def fail() -> Decoded:
        raise DataError("row 3 is damaged")

    with pytest.raises(DataError, match="row 3"):
        cached("set-train", [source.file], fail, source.cache)
    assert not cache_folder(source.cache).exists()


def test_a_cache_that_cannot_be_written_says_what_to_do(source: Source) -> None:
    source.cache.write_text("a file, not a folder")
    with pytest.raises(DataError, match="LTHLIB_CACHE"):
        source.load()


def test_the_cache_folder_is_argument_then_variable_then_the_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LTHLIB_CACHE", "/variable")
    monkeypatch.setenv("XDG_CACHE_HOME", "/user")
    assert cache_folder("/argument") == Path("/argument/decoded")
    assert cache_folder() == Path("/variable/decoded")
    monkeypatch.delenv("LTHLIB_CACHE")
    assert cache_folder() == Path("/user/lthlib/decoded")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/lthlib/decoded"
