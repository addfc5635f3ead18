"""Processes that compute for another: they leave Ctrl-C to it and end with it, and while they still
start, when it is asked to stop. Imports no torch, so that this holds while torch is imported."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from multiprocessing.managers import BaseManager
from multiprocessing.util import get_temp_dir
from typing import Any

from lthlib.signals import heeded, shielded

_POLL = 0.2
begun = threading.Event()  # set by the first piece of work of this process
_told = threading.Event()  # set by a signal that asks this process to stop


def asked_to_stop(deadline: float | None, stop_file: str | None) -> bool:
    """Whether the deadline, seconds of `time.time()`, has passed or the stop file is there, or this
    is a process of `Workers` that was told by a signal."""
    late = deadline is not None and time.time() > deadline
    return late or _told.is_set() or (stop_file is not None and os.path.exists(stop_file))


class Workers(ThreadPoolExecutor):
    """Processes that are started afresh, each when it first has work, and again when it died: then
    what it was doing raises BrokenExecutor.

    devices: for each process the GPU it sees, empty for none in particular. threads: of each; every
    one has work of its own. deadline, stop_file: as of `asked_to_stop`; a process that is still
    starting then ends at once.
    """

    def __init__(
        self,
        devices: Sequence[str] = ("",),
        threads: int = 1,
        deadline: float | None = None,
        stop_file: str | None = None,
    ):
        super().__init__(len(devices) * threads, initializer=self._settle)
        self._places = [_Place((one, deadline, stop_file)) for one in devices]
        self._free = self._places * threads
        self._own = threading.local()

    def _settle(self) -> None:
        # For good: what cuDNN searches for, a thread of the process keeps for itself.
        self._own.place = self._free.pop(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(lambda: self._own.place.do(fn, args, kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        for place in self._places:
            place.end()


class _Here:
    """Does in its process what others ask for, each of them in a thread of its own."""

    def do(self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return fn(*args, **kwargs)


class _Process(BaseManager):
    here: Any


_Process.register("Here", _Here)


class _Place:
    """Where work is done: a process, and when it died another one."""

    def __init__(self, given: tuple[str, float | None, str | None]):
        self._given, self._starting = given, threading.Lock()
        self._process: Any = None

    def do(self, *work: Any) -> Any:
        process = None
        try:
            with self._starting:
                process = self._process = self._process or self._start()
            return process.here.do(*work)
        except (EOFError, ConnectionError):
            with self._starting:
                if self._process is process:
                    self._process = None
            raise BrokenExecutor("a process died while it computed") from None

    def _start(self) -> Any:
        get_temp_dir()  # for its socket: a folder of this process, which may outlive it
        process: Any = _Process(ctx=multiprocessing.get_context("spawn"))
        with shielded():
            process.start(_begin, self._given)
        process.here = process.Here()
        return process

    def end(self) -> None:
        """Let the process go, which has nothing to do."""
        if self._process is not None:
            self._process.shutdown()


def _begin(device: str, deadline: float | None, stop_file: str | None) -> None:
    for number in heeded():
        signal.signal(number, lambda number, frame: _told.set())
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    if logging.lastResort:
        # The one who started us may be in the middle of a line that shows progress.
        logging.lastResort.setFormatter(logging.Formatter("\n%(message)s"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_end_unless_begun, args=(deadline, stop_file), daemon=True).start()


def _end_with_parent() -> None:
    # A process waits for work for ever when its parent was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end_unless_begun(deadline: float | None, stop_file: str | None) -> None:
    while not begun.wait(_POLL):
        if asked_to_stop(deadline, stop_file):
            os._exit(1)
