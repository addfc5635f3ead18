"""Processes that compute for another: they leave Ctrl-C to it and end with it, and while they still
start, when it is asked to stop. Imports no torch, so that this holds while torch is imported."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from lthlib.signals import shielded

_POLL = 0.2
begun = threading.Event()  # set by the first piece of work of this process


def asked_to_stop(deadline: float | None, stop_file: str | None) -> bool:
    """Whether the deadline, seconds of `time.time()`, has passed or the stop file is there."""
    late = deadline is not None and time.time() > deadline
    return late or (stop_file is not None and os.path.exists(stop_file))


class Workers(ProcessPoolExecutor):
    """Processes that are started afresh. device: the GPU they see, if any. deadline, stop_file: as
    of `asked_to_stop`; a process that is still starting then ends at once."""

    def __init__(
        self,
        count: int,
        device: str = "",
        deadline: float | None = None,
        stop_file: str | None = None,
    ):
        context = multiprocessing.get_context("spawn")
        given = device, deadline, stop_file
        super().__init__(count, mp_context=context, initializer=_begin, initargs=given)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with shielded():
            return super().submit(fn, *args, **kwargs)


def _begin(device: str, deadline: float | None, stop_file: str | None) -> None:
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    if logging.lastResort:
        # The one who started us may be in the middle of a line that shows progress.
        logging.lastResort.setFormatter(logging.Formatter("\n%(message)s"))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_end_unless_begun, args=(deadline, stop_file), daemon=True).start()


def _end_with_parent() -> None:
    # A pool's process waits for work for ever when its parent was killed.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _end_unless_begun(deadline: float | None, stop_file: str | None) -> None:
    while not begun.wait(_POLL):
        if asked_to_stop(deadline, stop_file):
            os._exit(1)
