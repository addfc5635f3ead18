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
_signalled = threading.Event()  # set by a signal that asks this process to stop


def asked_to_stop(deadline: float | None, stop_file: str | None) -> bool:
    """Whether the deadline has passed or the stop file is there, or this is a process of `Workers`
    that a signal asked to stop.

    Args:
        deadline: in seconds of `time.time()`, or None.
        stop_file: path of a file that asks to stop by being there, or None.
    """
    late = deadline is not None and time.time() > deadline
    return late or _signalled.is_set() or (stop_file is not None and os.path.exists(stop_file))


class Workers(ThreadPoolExecutor):
    """Processes that are started afresh, each when it first has work, and again when it died: then
    the result of what it was doing is BrokenExecutor.

    Args:
        devices: for each process the GPU it sees, empty for none in particular.
        threads: of each process, each with work of its own.
        deadline: as of `asked_to_stop`; a process that is still starting then ends at once.
        stop_file: likewise.
    """

    def __init__(
        self,
        devices: Sequence[str] = ("",),
        threads: int = 1,
        deadline: float | None = None,
        stop_file: str | None = None,
    ):
        super().__init__(len(devices) * threads, initializer=self._assign_process)
        self._processes = [_Process((device, deadline, stop_file)) for device in devices]
        self._unassigned = self._processes * threads
        self._of_thread = threading.local()

    def _assign_process(self) -> None:
        # For good: what cuDNN searches for, a thread of the process keeps for itself.
        self._of_thread.process = self._unassigned.pop(0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(lambda: self._of_thread.process.call(fn, args, kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        for process in self._processes:
            process.end()


class _Caller:
    """Calls functions in its process, each in a thread of its own, for whoever started it."""

    def call(self, fn: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return fn(*args, **kwargs)


class _Manager(BaseManager):
    caller: Any


_Manager.register("Caller", _Caller)


class _Process:
    """A process that computes, and when it died another one."""

    def __init__(self, settings: tuple[str, float | None, str | None]):
        self._settings = settings  # of `_begin`
        self._starting = threading.Lock()
        self._manager: Any = None

    def call(self, *work: Any) -> Any:
        manager = None
        try:
            with self._starting:
                manager = self._manager = self._manager or self._start()
            return manager.caller.call(*work)
        except (EOFError, ConnectionError):
            with self._starting:
                if self._manager is manager:
                    self._manager = None
            raise BrokenExecutor("a process died while it computed") from None

    def _start(self) -> Any:
        get_temp_dir()  # for its socket: a folder of this process, which may outlive it
        manager: Any = _Manager(ctx=multiprocessing.get_context("spawn"))
        with shielded():
            manager.start(_begin, self._settings)
        manager.caller = manager.Caller()
        return manager

    def end(self) -> None:
        if self._manager is not None:
            self._manager.shutdown()


def _begin(device: str, deadline: float | None, stop_file: str | None) -> None:
    for number in heeded():
        signal.signal(number, lambda number, frame: _signalled.set())
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
