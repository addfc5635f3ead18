"""Files are replaced whole or not at all, and only what is a file; they are read within bounds."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lthlib.errors import TicketError
from lthlib.files import TEMPORARY, read_bounded, read_within, replacing, write_atomically
from tests.test_tickets import ticket

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and permissions of POSIX")


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def loop(path: Path) -> None:
    path.symlink_to(path.name)


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": listen,
    "a link to a folder": lambda path: path.symlink_to("."),
    "a link to a device": lambda path: path.symlink_to("/dev/null"),
    "a link to itself": loop,
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_neither_replaced_nor_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    NO_FILES[kind](path)
    before = path.lstat()
    with pytest.raises(OSError, match="there"):
        write_atomically(path, b"new")
    with pytest.raises(OSError):
        read_bounded(path, 10)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert names(tmp_path) == ["there"]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real", tmp_path / "latest"
    link.symlink_to("elsewhere/real")
    for content in (b"made through the link", b"replaced"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert real.read_bytes() == content
    assert names(tmp_path / "elsewhere") == ["real"]
    link.unlink()
    link.symlink_to("nowhere/real")
    with pytest.raises(FileNotFoundError):
        write_atomically(link, b"")
    assert names(tmp_path) == ["elsewhere", "latest"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_permissions_are_kept_and_new_files_get_the_usual_ones(tmp_path: Path, mode: int) -> None:
    path, new = tmp_path / "file", tmp_path / "new"
    path.write_bytes(b"old")
    path.chmod(mode)
    before = os.umask(0o027)
    try:
        write_atomically(path, b"new")
        write_atomically(new, b"new")
    finally:
        os.umask(before)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)
    assert stat.S_IMODE(new.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "line\nbreak"])
def test_a_temporary_name_fits_and_is_known_again(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as file:
        file.write(b"content")
        (temporary,) = names(tmp_path)
        assert TEMPORARY.fullmatch(temporary)
    assert names(tmp_path) == [name]


def test_what_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, b"new", lambda: 1 / 0)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link to a device"])
def test_a_ticket_is_not_written_over_what_is_no_file(tmp_path: Path, kind: str) -> None:
    NO_FILES[kind](tmp_path / "there")
    for path in (tmp_path / "there", "", tmp_path / "a\0b", tmp_path / ("n" * 256)):
        with pytest.raises(TicketError, match="cannot write ticket"):
            ticket().save(path)
    assert names(tmp_path) == ["there"]


@pytest.mark.parametrize("linked", ["", "sub", "sub/file"])
def test_a_folder_is_not_left_through_a_link(tmp_path: Path, linked: str) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").write_bytes(b"content")
    assert read_within(folder, "sub/file", 10) == b"content"
    moved = (folder / linked).rename(tmp_path / "moved")
    (folder / linked).symlink_to(moved)
    with pytest.raises(OSError, match="is a symbolic link") as error:
        read_within(folder, "sub/file", 10)
    assert error.value.errno == errno.ELOOP


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(OSError, match="is longer than 4 bytes"):
        read_bounded(path, 4)
