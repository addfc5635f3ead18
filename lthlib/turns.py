"""Several runs in threads of one process.

Torch's generators, its number of threads, the precision of its products and the choice of kernels
belong to the process. So runs take turns: one of them makes its steps for some milliseconds, then
waits in line, and finds all of these as it left them. On a GPU a run launches more in its turn than
is computed meanwhile, on a stream of its own: there, runs compute side by side.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

SLICE = 0.005  # seconds of a turn, as long as some steps of a small network take to launch
_moved = threading.Condition()
_line: deque[int] = deque()  # the threads that want a turn; it is the first one's


@contextmanager
def turn(device: torch.device) -> Iterator[Callable[[], None]]:
    """Wait for this thread's turn and keep it while the body runs, but for the pauses in which the
    body calls what it is given: between steps, where others may have theirs. device: of the run.

    Within another turn of the same thread nothing is waited for, and nobody let in.
    """
    me = threading.get_ident()
    if me in _line:
        yield lambda: None
        return
    _enter(me)
    others, since = _process_state(device), time.monotonic()

    def pause() -> None:
        nonlocal others, since
        if len(_line) == 1 or time.monotonic() - since < SLICE:
            return
        mine = _process_state(device)
        others()
        _leave(me)
        _enter(me)
        others, since = _process_state(device), time.monotonic()
        mine()

    try:
        with ExitStack() as stack:
            _use_own(stack, device)
            yield pause
    finally:
        if me in _line:  # not where the wait for it was interrupted
            others()
            _leave(me)


def _enter(me: int) -> None:
    with _moved:
        _line.append(me)
        try:
            _moved.wait_for(lambda: _line[0] == me)
        except BaseException:
            _line.remove(me)
            _moved.notify_all()
            raise


def _leave(me: int) -> None:
    with _moved:
        _line.remove(me)
        _moved.notify_all()


def _process_state(device: torch.device) -> Callable[[], None]:
    """What brings back the settings of the process as they are now."""
    threads, numbers = torch.get_num_threads(), torch.default_generator.get_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn: Any = torch.backends.cudnn
    products = (torch.backends.cuda.matmul, cudnn.conv)
    precisions, searched = [kind.fp32_precision for kind in products], cudnn.benchmark
    generator = _generator(device)
    drawn = generator and generator.graphsafe_get_state()

    def restore() -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:
            torch.use_deterministic_algorithms(deterministic)
        torch.default_generator.set_state(numbers)
        for kind, precision in zip(products, precisions, strict=True):
            kind.fp32_precision = precision
        cudnn.benchmark = searched
        if generator is not None:
            generator.graphsafe_set_state(drawn)

    return restore


def _use_own(stack: ExitStack, device: torch.device) -> None:
    """Give a run on a GPU a state of the generator of its own, which its recordings read while
    others are launched, and in a thread also a stream."""
    generator = _generator(device)
    if generator is None:
        return
    generator.graphsafe_set_state(generator.graphsafe_get_state().clone_state())
    if threading.current_thread() is not threading.main_thread():
        outer, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        own.wait_stream(outer)
        stack.callback(outer.wait_stream, own)
        stack.enter_context(torch.cuda.stream(own))


def _generator(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
