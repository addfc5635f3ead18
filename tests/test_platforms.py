"""What holds where POSIX does not: a system that keeps open files in their places, has neither
folders to flush nor most signals, and writes paths with backslashes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest

from lthlib import files
from lthlib.files import patiently, write_atomically
from lthlib.leases import Lease, hold
from lthlib.records import FILES
from lthlib.runs.store import remove, ticket_file

ROOT = Path(__file__).parents[1]
# Imported by every process of Python that finds it: takes away what Windows does not have.
WITHOUT_POSIX = """
import ctypes, errno, fcntl, io, os, signal, sys

for module, names in {
    os: "chown fork forkpty killpg mkfifo setsid sched_getaffinity O_NOFOLLOW O_NONBLOCK",
    signal: "SIGHUP SIGKILL SIGALRM pthread_sigmask",
}.items():
    for name in names.split():
        delattr(module, name)

open_, fsync, io_open, readlink, CDLL = os.open, os.fsync, io.open, os.readlink, ctypes.CDLL

def open_file(path, flags, *more, **named):
    if os.path.isdir(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)
    return open_(path, flags, *more, **named)

def fsync_writable(handle):
    if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    fsync(handle)

def no_proc(call):
    def called(path, *more, **named):
        if str(path).startswith(("/proc/", "/dev/")):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
        return call(path, *more, **named)
    return called

class Library(CDLL):
    def __init__(self, name, *more, **named):
        if name is None:
            raise TypeError("argument of type 'NoneType' is not iterable")
        super().__init__(name, *more, **named)

os.open, os.fsync = open_file, fsync_writable
os.readlink, io.open = no_proc(readlink), no_proc(io_open)
ctypes.CDLL = Library
"""


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., str]:
    """Runs `lth` in processes that lack what Windows lacks; returns what it said."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_POSIX)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "cp1252"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lthlib", *words], env=environment, cwd=tmp_path,
            encoding="cp1252", capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.skipif(os.name != "posix", reason="takes away what is not there")
def test_a_study_is_computed_and_kept_where_posix_is_missing(
    command: Callable[..., str], tiny_recipe: Path
) -> None:
    study = (str(tiny_recipe), "--densities", "0.5", "--methods", "imp,omp", "--dense-seeds", "1")
    assert "all 3 runs" in command("sweep", *study, "--device", "cpu", "--jobs", "2")
    assert "0 faults" in command("verify")
    command("export", *study, "runs.tar")
    assert "3 new" in command("import", "runs.tar", "--store", "other")


def opened(refusals: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, while another process has a file open that a function of `os` is called for."""
    calls, action = iter(range(refusals)), getattr(os, name)

    def refused(*arguments: Any, **named: Any) -> Any:
        if next(calls, None) is not None:
            raise PermissionError(13, "Access is denied")
        return action(*arguments, **named)

    monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(files, "_PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("refusals", [0, 2, 3])
def test_what_somebody_has_open_is_replaced_when_it_is_closed(
    tmp_path: Path, refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")
    opened(refusals, "replace", monkeypatch)
    if refusals < 3:
        write_atomically(path, b"new")
        assert path.read_bytes() == b"new"
        return
    with pytest.raises(PermissionError, match="denied"):
        write_atomically(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("run.json", b"old")]


def test_a_lease_is_given_back_and_files_are_removed_though_somebody_looks_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(2, "rename", monkeypatch)
    with hold(tmp_path / "locks" / "run"):
        opened(2, "unlink", monkeypatch)
    assert Lease(tmp_path / "locks" / "run").take()
    (tmp_path / "file").touch()
    opened(2, "unlink", monkeypatch)
    remove([tmp_path / "file", tmp_path / "never was"])
    assert not (tmp_path / "file").exists()


def test_other_errors_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_PAUSES", (60.0,))
    with pytest.raises(FileNotFoundError):
        patiently(os.unlink, "nothing of that name")


def test_what_names_a_file_in_a_record_is_written_with_slashes() -> None:
    name = ticket_file("round-0")
    assert PureWindowsPath(name).as_posix() == name == "tickets/round-0.safetensors"
    assert FILES.check({name: 64 * "0"})
    assert not FILES.check({str(PureWindowsPath(name)): 64 * "0"})


@pytest.mark.parametrize("package", ["lthlib", "companion"])
def test_paths_become_text_with_slashes_alone(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        for call in re.findall(r"\.relative_to\([^()]*\)(.{0,12})", file.read_text("utf-8")):
            assert call.startswith((".as_posix()", ".parts")), file
