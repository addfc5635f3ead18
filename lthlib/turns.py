"""Several runs in threads of one process.

Torch's generators, its number of threads, the precision of its products and the choice of kernels
belong to the process. So runs take turns: one of them makes its steps for some milliseconds, then
waits in line, and finds all of these as it left them. On a GPU a run launches more in its turn than
is computed meanwhile, on a stream of its own: there, runs compute side by side.
"""

import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import torch

SLICE = 0.005  # seconds of a turn, as long as some steps of a small network take to launch
_cudnn: Any = torch.backends.cudnn
_SETTINGS = [
    (torch.backends.cuda.matmul, "fp32_precision"),
    (_cudnn.conv, "fp32_precision"),
    (_cudnn, "benchmark"),
]
_moved = threading.Condition()
_line: deque[int] = deque()  # the threads that want a turn; it is the first one's


@contextmanager
def turn(device: torch.device) -> Iterator[Callable[[], None]]:
    """Wait for this thread's turn and keep it while the body runs, but for the pauses in which the
    body calls what it is given: between steps, where others may have theirs. device: of the run.

    Within another turn of the same thread nothing is waited for, and nobody let in.
    """
    me, since = threading.get_ident(), 0.0
    others: Callable[[], None] = lambda: None  # noqa: E731
    if me in _line:
        yield others
        return

    def wait() -> Callable[[], None]:
        nonlocal since
        with _moved:
            if me in _line:
                _line.remove(me)
            _line.append(me)
            _moved.notify_all()
            _moved.wait_for(lambda: _line[0] == me)
        since = time.monotonic()
        return _process_state(device)

    def pause() -> None:
        nonlocal others
        if len(_line) > 1 and time.monotonic() - since > SLICE:
            mine = _process_state(device)
            others()
            others = wait()
            mine()

    try:
        others = wait()
        with ExitStack() as stack:
            _use_own(stack, device)
            yield pause
    finally:
        with _moved:
            if _line[0] == me:  # not where a wait was interrupted
                others()
            _line.remove(me)
            _moved.notify_all()


def _process_state(device: torch.device) -> Callable[[], None]:
    """What brings back the settings of the process as they are now."""
    numbers: Any = torch.default_generator
    state: list[tuple[Callable[[Any], object], Any]] = [
        (numbers.set_state, numbers.get_state()),
        (torch.set_num_threads, torch.get_num_threads()),
        (torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode()),
    ]
    if device.type == "mps":
        state.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    if generator := _generator(device):
        state.append((generator.graphsafe_set_state, generator.graphsafe_get_state()))
        state += [(partial(setattr, *place), getattr(*place)) for place in _SETTINGS]

    def restore() -> None:
        for put, value in state:
            put(value)

    return restore


def _use_own(stack: ExitStack, device: torch.device) -> None:
    """Give a run on a GPU that device, a state of the generator of its own, which its recordings
    read while others are launched, and the stream of its thread."""
    generator = _generator(device)
    if generator is None:
        return
    stack.callback(gc.collect)  # memory that cycles hold, before others need it
    stack.enter_context(torch.cuda.device(device))
    generator.graphsafe_set_state(generator.graphsafe_get_state().clone_state())
    outer, own = torch.cuda.current_stream(device), _stream(threading.get_ident(), generator.device)
    own.wait_stream(outer)
    stack.callback(outer.wait_stream, own)
    stack.enter_context(torch.cuda.stream(own))


@cache  # torch has 32 streams and hands them out in turn; two runs at once must not share one
def _stream(thread: int, device: torch.device) -> Any:
    return torch.cuda.Stream(device)


def _generator(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
