"""Leases: of all processes and hosts that share a store or a cache, one at a time writes what a
lease stands for, such as a run.

A lease is a folder that holds one file, named by its owner's token. The folder is made aside and
renamed into place, which a file system, NFS too, grants to one of several contenders. The owner
touches its file as a heartbeat. To take over, a contender removes that very file: of several one
succeeds, none can hit a successor's, and an owner that wakes up finds its own gone.
"""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lthlib.errors import LeaseLost, NoRoom, Paused, StoreError, refusal
from lthlib.files import TEMPORARY, patiently, read_bounded

DURATION = 60.0
_BEATS = 6
_POLL = 0.1
_CONTENDED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_TOKEN = re.compile(r"[0-9a-f]{32}")
_OWNER_LIMIT = 1 << 12


class Lease:
    """The right to write what a lock stands for.

    Args:
        path: the lock's folder, which the lease makes.
        duration: seconds without a heartbeat after which another may take over.
    """

    def __init__(self, path: Path, duration: float = DURATION):
        self.path = path
        self.duration = duration
        self.token = uuid.uuid4().hex
        self.lost = False
        self._file = path / self.token
        self._released = threading.Event()

    def check(self) -> None:
        """Give a sign of life, and see that the lease is still held.

        Raises:
            LeaseLost: another process has taken over.
            StoreError: whether that is so cannot be seen.
        """
        with refusal(StoreError, f"cannot reach the lock {self._file}"):
            try:
                os.utime(self._file)
            except (FileNotFoundError, NotADirectoryError):
                self.lost = True
        if self.lost:
            raise LeaseLost(
                f"another process took over {self.path.name}: this one gave no sign of life for "
                f"{self.duration:g} s; nothing more was written"
            )

    def take(self) -> bool:
        """Try to get the lease once.

        Returns:
            Whether it is got; if not, somebody has it.

        Raises:
            NoRoom: the disk has no room for the lock.
            StoreError: the lock cannot be written for another reason.
        """
        aside = self.path.with_name(f".{self.path.name}.{self.token}")
        owner = {"host": _host(), "pid": os.getpid()}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside.mkdir()
            (aside / self.token).write_bytes(json.dumps(owner).encode())
            with contextlib.suppress(OSError):
                self.path.rmdir()  # what a release or a takeover left, so certainly empty
            patiently(os.rename, aside, self.path)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            if error.errno not in _CONTENDED and not self._file.exists():
                kind = NoRoom if error.errno in _NO_ROOM else StoreError
                raise kind(f"cannot lock {self.path}: {error.strerror}") from None
        return self._file.exists()

    def beat(self) -> None:
        """Give signs of life until the release."""
        while not self._released.wait(self.duration / _BEATS) and not self.lost:
            with contextlib.suppress(StoreError, LeaseLost):
                self.check()

    def release(self) -> None:
        """Give the lease back; nothing happens when it was lost."""
        self._released.set()
        with contextlib.suppress(OSError):
            patiently(os.unlink, self._file)
            self.path.rmdir()


class Watch:
    """Whether a lease is somebody's, asked again and again.

    Args:
        path: the lock's folder.
        duration: seconds without a heartbeat after which its owner is held to be gone.
    """

    def __init__(self, path: Path, duration: float = DURATION):
        self.path = path
        self.duration = duration
        self._owner: _Owner | None = None
        self._since = 0.0

    def held(self) -> bool:
        """Whether an owner gives signs of life; one that is gone loses the lease.

        Raises:
            StoreError: the lock cannot be read or written.
        """
        owner = _read_owner(self.path)
        now = time.monotonic()
        if owner is None:
            return False
        if owner != self._owner:
            self._owner = owner
            self._since = now
        if not _is_dead(owner) and now - self._since <= self.duration:
            return True
        with refusal(StoreError, f"cannot take over the lock {self.path}, whose owner is gone"):
            patiently(owner.file.unlink, True)
        return False


@contextlib.contextmanager
def hold(
    path: Path, stop: Callable[[], bool] = lambda: False, duration: float = DURATION
) -> Iterator[Lease]:
    """Wait for a lease and keep it while the body runs.

    An owner that died on this host is replaced at once, any other when its heartbeat has stood
    still for a while by this process's own clock.

    Args:
        path: the lock's folder.
        stop: asked again and again whether to wait no longer.
        duration: seconds that the heartbeat of an owner may stand still.

    Yields:
        The lease.

    Raises:
        Paused: somebody has the lease, and `stop` says to wait no longer.
        StoreError: the lock cannot be read or written.
    """
    lease = Lease(path, duration)
    try:
        _wait(lease, stop)
        threading.Thread(target=lease.beat, name=f"lease-{path.name}", daemon=True).start()
        for folder in path.parent.glob(f".{path.name}.*"):
            if TEMPORARY.fullmatch(folder.name):  # of contenders that died, or that try again
                shutil.rmtree(folder, ignore_errors=True)
        yield lease
    finally:
        lease.release()


@contextlib.contextmanager
def hold_if_free(path: Path) -> Iterator[Lease | None]:
    """Keep a lease while the body runs, without waiting for it; None when somebody has it."""
    with contextlib.ExitStack() as stack:
        lease: Lease | None = None
        with contextlib.suppress(Paused):
            lease = stack.enter_context(hold(path, lambda: True))
        yield lease


@contextlib.contextmanager
def making_room(path: Path) -> Iterator[Lease | None]:
    """As `hold_if_free`, for whoever removes what the lease stands for.

    Yields:
        The lease. Where the disk has no room for a lock, nobody else gets one either, and it is a
        lease that nobody granted. None when somebody has it, or, with a warning, where a lock is
        not to be had for another reason.
    """
    with contextlib.ExitStack() as stack:
        lease: Lease | None = None
        try:
            lease = stack.enter_context(hold_if_free(path))
        except NoRoom:
            lease = Lease(path)
        except StoreError as error:
            logging.getLogger("lthlib").warning("%s", error)
        yield lease


def abandoned(locks: Path) -> list[str]:
    """Names of the locks in a folder whose owners died on this host; what contenders left there is
    removed."""
    names = []
    for path in sorted(locks.iterdir()) if locks.is_dir() else []:
        with contextlib.suppress(OSError, StoreError):
            owner = _read_owner(path)
            if owner is None:
                path.rmdir()  # a contender that is only beginning tries again
            elif _is_dead(owner) and TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path)
            elif _is_dead(owner):
                names.append(path.name)
    return names


def _wait(lease: Lease, stop: Callable[[], bool]) -> None:
    watch = Watch(lease.path, lease.duration)
    since = time.monotonic()
    while watch.held() or not lease.take():
        if watch.held():
            since = time.monotonic()
        elif time.monotonic() - since > lease.duration:
            raise StoreError(f"the lock {lease.path} holds what no owner left there; remove it")
        if stop():
            raise Paused(f"stopped while another process computes run {lease.path.name}")
        time.sleep(_POLL)


class _Owner(NamedTuple):
    """What an owner's file holds, and when it was last touched; it moves with each heartbeat."""

    file: Path
    text: bytes
    beat: int  # nanoseconds


def _read_owner(path: Path) -> _Owner | None:
    with refusal(StoreError, f"cannot read lock {path}"), contextlib.suppress(FileNotFoundError):
        if path.is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link; remove it")
        for file in path.iterdir():
            if _TOKEN.fullmatch(file.name) is None:
                continue  # NFS keeps a removed file under a name of its own while it is open
            # Opened and not only asked about: that is when NFS looks at the server's copy.
            return _Owner(file, read_bounded(file, _OWNER_LIMIT), file.lstat().st_mtime_ns)
    return None


def _is_dead(owner: _Owner) -> bool:
    """Whether an owner ran on this host and is gone."""
    try:
        process: dict[str, Any] = json.loads(owner.text)
        if os.name != "posix" or process["host"] != _host():
            return False
        os.kill(process["pid"], 0)
        # Killed, and its parent has not asked what became of it: as good as gone.
        status = Path(f"/proc/{process['pid']}/stat").read_text("utf-8")
        return status.rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, IndexError, OSError, OverflowError):
        return False


@cache
def _host() -> str:
    # A container shares its host's name, or has another's, but not the numbers of processes.
    name = socket.gethostname()
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            is_link = os.path.islink(path)
            name += " " + (os.readlink(path) if is_link else Path(path).read_text("utf-8").strip())
    return name
