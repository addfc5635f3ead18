"""Being asked to stop: by Ctrl-C, by a batch system before it kills, by a terminal that closes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

# SIGHUP is POSIX's alone, SIGBREAK Windows's.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
_STOPS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def heeded() -> list[signal.Signals]:
    """The signals that ask this process to stop: of SIGINT, SIGTERM, SIGHUP and Windows's SIGBREAK
    those that whoever started it did not have ignored, as nohup does with SIGHUP."""
    return [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]


def as_ctrl_c() -> None:
    """From now on every signal that asks to stop raises KeyboardInterrupt."""
    for number in heeded():
        signal.signal(number, signal.default_int_handler)


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Turn the signals that ask to stop into a question that a loop asks before each step.

    A signal that came too late for the loop to ask is raised again at the end.

    Yields:
        A function that says whether one has come; outside of the main thread, always no.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[int] = []
    reported = False

    def stopping() -> bool:
        nonlocal reported
        reported = bool(received)
        return reported

    def receive(number: int, frame: object) -> None:
        received.append(number)

    previous = {number: signal.signal(number, receive) for number in heeded()}
    try:
        yield stopping
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if received and not reported:
        signal.raise_signal(received[0])


@contextmanager
def shielded() -> Iterator[None]:
    """Processes and threads that start in the body never see Ctrl-C, which a terminal sends to all
    of them, not even while they import: whoever started them asks them to stop."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its start would lift the mask
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
