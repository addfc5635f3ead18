"""Processes that compute for another: they leave Ctrl-C to it and end with it, and while they still
start, when it is asked to stop. Imports no torch, so that this holds while torch is imported."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
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
        super().__init__(len(devices) * threads)
        self._processes = [_Process(threads, (one, deadline, stop_file)) for one in devices]
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in self._processes * threads:
            self._idle.put(process)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(self._elsewhere, fn, args, kwargs)

    def _elsewhere(self, *work: Any) -> Any:
        process = self._idle.get()
        try:
            return process.call(pickle.dumps(work))
        finally:
            self._idle.put(process)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait, cancel_futures=cancel_futures)
        for process in self._processes:
            process.end()


class _Process:
    """A process, with a lane to each of its threads."""

    def __init__(self, threads: int, given: tuple[str, float | None, str | None]):
        self._threads, self._given = threads, given
        self._starting = threading.Lock()
        self._process: Any = None
        self._lanes: queue.SimpleQueue[Connection] = queue.SimpleQueue()

    def call(self, work: bytes) -> Any:
        with self._starting:
            if self._process is None:
                self._start()
            process, lanes = self._process, self._lanes
        lane = lanes.get()
        try:
            lane.send_bytes(work)
            done, found = pickle.loads(lane.recv_bytes())
        except (EOFError, OSError):
            with self._starting:
                if self._process is process:
                    self._process = None
            raise BrokenExecutor("a process died while it computed") from None
        lanes.put(lane)
        if not done:
            raise found
        return found

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(self._threads)]
        theirs = [lane for _, lane in pairs]
        with shielded():
            self._process = context.Process(target=_serve, args=(theirs, *self._given))
            self._process.start()
        self._lanes = queue.SimpleQueue()
        for ours, lane in pairs:
            lane.close()
            self._lanes.put(ours)

    def end(self) -> None:
        """Let a process go that has nothing to do."""
        if self._process is not None:
            while not self._lanes.empty():
                self._lanes.get().close()
            self._process.join()


def _serve(
    lanes: list[Connection], device: str, deadline: float | None, stop_file: str | None
) -> None:
    for number in heeded():
        signal.signal(number, lambda number, frame: _told.set())
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    if logging.lastResort:
        # The one who started us may be in the middle of a line that shows progress.
        logging.lastResort.setFormatter(logging.Formatter("\n%(message)s"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_end_unless_begun, args=(deadline, stop_file), daemon=True).start()
    threads = [threading.Thread(target=_answer, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _answer(lane: Connection) -> None:
    while True:
        try:
            work = lane.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            fn, args, kwargs = pickle.loads(work)
            reply = pickle.dumps((True, fn(*args, **kwargs)))
        except Exception as error:
            error.add_note(traceback.format_exc())  # which is not sent itself
            reply = pickle.dumps((False, error))
        lane.send_bytes(reply)


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
