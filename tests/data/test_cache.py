from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lthlib.data import cache_folder, needless_entries, verify_cache
from lthlib.data.cache import Decoded, cached
from lthlib.errors import DataError
from lthlib.leases import hold

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


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def to_itself(file: Path) -> None:
    file.symlink_to(file)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def test_the_second_call_maps_what_the_first_decoded(source: Source) -> None:
    first, second = source.load(), source.load()
    assert source.calls == 1
    assert isinstance(second.images, np.memmap)
    assert np.array_equal(first.images, np.arange(24).reshape(2, 2, 2, 3))
    assert (second.labels.tolist(), second.classes) == ([1, 0], ("ant", "bee"))


def test_an_entry_is_one_file_of_a_head_images_labels_and_a_checksum(source: Source) -> None:
    source.load()
    content = source.entries[0].read_bytes()
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    assert head["sources"][0][:2] == [str(source.file.resolve()), 6]
    assert head["shape"] == [2, 2, 2, 3]
    assert content[8 + length : -32] == bytes(range(24)) + b"\1" + bytes(15)
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()


def test_writing_to_the_mapped_images_leaves_the_cache_as_it_is(source: Source) -> None:
    torch.from_numpy(source.load().images).zero_()
    assert source.load().images.max() == 23
    assert verify_cache(source.cache) == []


def test_a_changed_source_is_decoded_again(source: Source) -> None:
    source.load()
    source.file.write_bytes(b"another source")
    source.load()
    assert source.calls == 2


def sealed_anew(change: Callable[[bytes], bytes]) -> Edit:
    """An entry that somebody changed, its checksum too."""

    def edit(file: Path) -> None:
        content = change(file.read_bytes()[:-32])
        file.write_bytes(content + hashlib.sha256(content).digest())

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_byte,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"short"),
        lambda file: file.write_bytes(file.read_bytes().replace(b"ant", b"cat")),
        make_pipe,
        sealed_anew(lambda content: content[:-3]),
        sealed_anew(lambda content: b"\xff" * 8 + content[8:]),
        sealed_anew(lambda content: content[:8] + b"[" * 100_000),
        sealed_anew(lambda content: bytes(8) + content[8:]),
    ],
)
def test_damage_is_noticed_and_decoded_again(
    source: Source, damage: Edit, caplog: pytest.LogCaptureFixture
) -> None:
    source.load()
    damage(source.entries[0])
    (problem,) = verify_cache(source.cache)
    assert problem.startswith(f"{source.entries[0]}: ")
    assert source.load().classes == ("ant", "bee")
    assert source.calls == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "is damaged" in caplog.text
    assert len(source.entries) == 1
    assert verify_cache(source.cache) == []


def test_what_is_damaged_is_removed_on_request(source: Source) -> None:
    source.load()
    (entry,) = source.entries
    flip_byte(entry)
    for repair in (False, True):
        (problem,) = verify_cache(source.cache, repair)
        assert problem == f"{entry}: its checksum does not match its content"
    assert source.entries == []
    assert verify_cache(source.cache) == []


def test_an_entry_under_another_s_name_is_damaged(source: Source) -> None:
    source.load()
    (entry,) = source.entries
    source.file.write_bytes(b"changed")
    source.load()
    (newer,) = {*source.entries} - {entry}
    entry.replace(newer)
    assert "belongs to another entry" in verify_cache(source.cache)[0]
    source.load()
    assert source.calls == 3


def test_a_damaged_entry_is_not_removed_while_it_is_written(source: Source) -> None:
    source.load()
    (entry,) = source.entries
    flip_byte(entry)
    with hold(source.cache / "locks" / entry.stem):
        assert len(verify_cache(source.cache, repair=True)) == 1
    assert source.entries == [entry]


def test_what_is_not_the_caches_own_is_left_alone(source: Source, tmp_path: Path) -> None:
    """A link in place of an entry is removed, and never what it leads to."""
    source.load()
    (entry,) = source.entries
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").touch()
    notes = entry.with_name("notes.txt")
    notes.touch()
    hidden = entry.with_name(".git")
    hidden.mkdir()
    entry.rename(tmp_path / "before")
    entry.symlink_to(tmp_path / "elsewhere")
    assert len(verify_cache(source.cache, repair=True)) == 1
    assert sorted(source.entries) == [hidden, notes]
    source.load()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine.txt"]
    assert [*needless_entries(source.cache)] == []


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from lthlib.data.cache import Decoded, cached

def decode():
    os.fsync = lambda handle: os.kill(os.getpid(), 9)
    return Decoded(np.zeros((2, 2, 2, 3), np.uint8), np.array([1, 0]), ("ant", "bee"))

cached("set-train", [Path(sys.argv[1])], decode, sys.argv[2])
"""


@pytest.fixture
def killed(source: Source) -> Path:
    """What a process left that was killed while it wrote an entry."""
    command = [sys.executable, "-c", KILLED, str(source.file), str(source.cache)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, check=False, env=environment).returncode == -9
    (left,) = source.entries
    assert left.name.startswith(".set-train-")
    return left


def test_the_next_writer_removes_what_a_killed_one_left(source: Source, killed: Path) -> None:
    source.load()
    assert not killed.exists()
    assert len(source.entries) == 1


def test_what_a_killed_writer_left_is_needless(source: Source, killed: Path) -> None:
    assert [*needless_entries(source.cache)] == [("half-written decoded images", killed)]


def test_what_is_being_written_is_not_needless(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = []

    def look(*_: object) -> None:
        listings.append(
            (
                [path.name.partition("train-")[0] + "train-" for path in source.entries],
                *needless_entries(source.cache),
            )
        )

    monkeypatch.setattr(os, "fsync", look)
    source.load()
    assert listings == [([".set-train-"],), (["set-train-"],)]  # the file, then its folder


def test_room_is_made_where_there_is_none_for_a_lock(
    source: Source, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(self: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "write_text", write_text)
    assert [path for _, path in needless_entries(source.cache)] == [killed]


def test_entries_of_another_version_are_needless(source: Source) -> None:
    source.load()
    folder = cache_folder(source.cache)
    old, half = folder / "set-train-0123456789abcdef", folder / ".set-train-0123456789abcdef-x_y"
    for path in (old, half):
        path.mkdir()
        (path / "images.npy").touch()
    assert [path for _, path in needless_entries(source.cache)] == [half, old]
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


@pytest.mark.parametrize("make", [lambda path: None, os.mkfifo, os.mkdir, to_itself])
def test_a_source_that_is_no_file_is_named(source: Source, make: Edit) -> None:
    source.file.unlink()
    make(source.file)
    with pytest.raises(DataError, match=rf"^{source.file}: (cannot be read|not a regular file)"):
        source.load()


@pytest.mark.parametrize("chosen", ["", "~nobody-of-this-name/cache"])
def test_without_a_home_a_cache_is_asked_for(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("LTHLIB_CACHE", chosen)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user nobody knows
    with pytest.raises(DataError, match=r"no home folder .*; set LTHLIB_CACHE"):
        cache_folder()
    assert verify_cache() == []
    assert [*needless_entries()] == []


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
