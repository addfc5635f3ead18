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
from typing import Any

from lthlib.errors import LeaseLost, NoRoom, Paused, StoreError, refusal
from lthlib.files import TEMPORARY, patiently, read_bounded

DURATION = 60.0
_BEATS = 6
_POLL = 0.1
_CONTENDED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOENT)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOKEN = re.compile(r"[0-9a-f]{32}")
_OWNER_LIMIT = 1 << 12


class Lease:
    """The right to write what a lock stands for. path: the lock's folder. duration: seconds without
    a heartbeat after which another may take over."""

    def __init__(self, path: Path, duration: float = DURATION):
        self.path = path
        self.duration = duration
        self.token = uuid.uuid4().hex
        self.lost = False
        self._own = path / self.token
        self._released = threading.Event()

    def check(self) -> None:
        """Raise LeaseLost when another process has taken over, StoreError when that cannot be
        told."""
        with refusal(StoreError, f"cannot reach the lock {self._own}"):
            try:
                os.utime(self._own)
            except (FileNotFoundError, NotADirectoryError):
                self.lost = True
        if self.lost:
            raise LeaseLost(
                f"another process took over {self.path.name}: this one gave no sign of life for "
                f"{self.duration:g} s; nothing more was written"
            )

    def take(self) -> bool:
        """Try to get the lease once; False when somebody has it. Raises StoreError when the lock
        cannot be written, NoRoom where that is for want of room."""
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
            if error.errno not in _CONTENDED and not self._own.exists():
                kind = NoRoom if error.errno in _FULL else StoreError
                raise kind(f"cannot lock {self.path}: {error.strerror}") from None
        return self._own.exists()

    def beat(self) -> None:
        """Give signs of life until the release."""
        while not self._released.wait(self.duration / _BEATS) and not self.lost:
            with contextlib.suppress(StoreError, LeaseLost):
                self.check()

    def release(self) -> None:
        """Give the lease back; nothing happens when it was lost."""
        self._released.set()
        with contextlib.suppress(OSError):
            patiently(os.unlink, self._own)
            self.path.rmdir()


class Watch:
    """Whether a lease is somebody's, asked again and again. path, duration: as of the lease."""

    def __init__(self, path: Path, duration: float = DURATION):
        self.path = path
        self.duration = duration
        self._seen: tuple[Path, bytes, int] | None = None
        self._since = 0.0

    def held(self) -> bool:
        """Whether an owner gives signs of life; one that is gone loses the lease. Raises StoreError
        when the lock cannot be read or written."""
        seen, now = _owner(self.path), time.monotonic()
        if seen is None:
            return False
        if seen != self._seen:
            self._seen, self._since = seen, now
        if not _dead(seen[1]) and now - self._since <= self.duration:
            return True
        with refusal(StoreError, f"cannot take over the lock {self.path}, whose owner is gone"):
            patiently(seen[0].unlink, True)
        return False


@contextlib.contextmanager
def hold(
    path: Path, stop: Callable[[], bool] = lambda: False, duration: float = DURATION
) -> Iterator[Lease]:
    """Wait for a lease and keep it while the body runs.

    An owner that died on this host is replaced at once, any other when its heartbeat has stood
    still for `duration` seconds of this process's own clock. Raises Paused when `stop` says so,
    StoreError when the lock cannot be read or written.
    """
    lease = Lease(path, duration)
    try:
        _wait(lease, stop)
        threading.Thread(target=lease.beat, name=f"lease-{path.name}", daemon=True).start()
        for left in path.parent.glob(f".{path.name}.*"):
            if TEMPORARY.fullmatch(left.name):  # of contenders that died, or that try again
                shutil.rmtree(left, ignore_errors=True)
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
    """As `hold_if_free`, for whoever removes what the lease stands for. Where there is no room for
    a lock, nobody else gets one either: then it is a lease that nobody granted. Where a lock is not
    to be had for another reason, a warning says so, and it is None."""
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
            seen = _owner(path)
            if seen is None:
                path.rmdir()  # a contender that is only beginning tries again
            elif _dead(seen[1]) and TEMPORARY.fullmatch(path.name):
                shutil.rmtree(path)
            elif _dead(seen[1]):
                names.append(path.name)
    return names


def _wait(lease: Lease, stop: Callable[[], bool]) -> None:
    watch, since = Watch(lease.path, lease.duration), time.monotonic()
    while watch.held() or not lease.take():
        if watch.held():
            since = time.monotonic()
        elif time.monotonic() - since > lease.duration:
            raise StoreError(f"the lock {lease.path} holds what no owner left there; remove it")
        if stop():
            raise Paused(f"stopped while another process computes run {lease.path.name}")
        time.sleep(_POLL)


def _owner(path: Path) -> tuple[Path, bytes, int] | None:
    """The owner's file, what it says and its heartbeat."""
    with refusal(StoreError, f"cannot read lock {path}"), contextlib.suppress(FileNotFoundError):
        if path.is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link; remove it")
        for own in path.iterdir():
            if _TOKEN.fullmatch(own.name) is None:
                continue  # NFS keeps a removed file under a name of its own while it is open
            # Opened and not only asked about: that is when NFS looks at the server's copy.
            return own, read_bounded(own, _OWNER_LIMIT), own.lstat().st_mtime_ns
    return None


def _dead(text: bytes) -> bool:
    """Whether an owner ran on this host and is gone."""
    try:
        owner: dict[str, Any] = json.loads(text)
        if os.name != "posix" or owner["host"] != _host():
            return False
        os.kill(owner["pid"], 0)
        # Killed, and its parent has not asked what became of it: as good as gone.
        about = Path(f"/proc/{owner['pid']}/stat").read_text("utf-8")
        return about.rpartition(")")[2].split()[0] == "Z"
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
            link = os.path.islink(path)
            name += " " + (os.readlink(path) if link else Path(path).read_text("utf-8").strip())
    return name
