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
_queue: deque[int] = deque()  # the threads that want a turn; it is the first one's
_queue_changed = threading.Condition()


@contextmanager
def turn(device: torch.device) -> Iterator[Callable[[], None]]:
    """Wait for this thread's turn and keep it while the body runs.

    Within another turn of the same thread nothing is waited for, and nobody let in.

    Args:
        device: that the run computes on.

    Yields:
        A function that the body calls between steps, where others may have their turns.
    """
    me = threading.get_ident()
    if me in _queue:
        yield lambda: None
        return
    since = 0.0
    restore_others: Callable[[], None] = lambda: None  # noqa: E731

    def wait() -> None:
        nonlocal since, restore_others
        with _queue_changed:
            if me in _queue:
                _queue.remove(me)
            _queue.append(me)
            _queue_changed.notify_all()
            _queue_changed.wait_for(lambda: _queue[0] == me)
        since = time.monotonic()
        restore_others = _process_state(device)

    def pause() -> None:
        if len(_queue) > 1 and time.monotonic() - since > SLICE:
            restore_mine = _process_state(device)
            restore_others()
            wait()
            restore_mine()

    try:
        wait()
        with ExitStack() as stack:
            _separate(stack, device)
            yield pause
    finally:
        with _queue_changed:
            if _queue[0] == me:  # not where a wait was interrupted
                restore_others()
            _queue.remove(me)
            _queue_changed.notify_all()


def _process_state(device: torch.device) -> Callable[[], None]:
    """What brings back the settings of the process as they are now."""
    cpu: Any = torch.default_generator
    state: list[tuple[Callable[[Any], object], Any]] = [
        (cpu.set_state, cpu.get_state()),
        (torch.set_num_threads, torch.get_num_threads()),
        (torch.set_deterministic_debug_mode, torch.get_deterministic_debug_mode()),
    ]
    if device.type == "mps":
        state.append((torch.mps.set_rng_state, torch.mps.get_rng_state()))
    if generator := _generator(device):
        state.append((generator.graphsafe_set_state, generator.graphsafe_get_state()))
        state += [(partial(setattr, *setting), getattr(*setting)) for setting in _SETTINGS]

    def restore() -> None:
        for set_value, value in state:
            set_value(value)

    return restore


def _separate(stack: ExitStack, device: torch.device) -> None:
    """Give a run on a GPU a state of the generator, and a stream, that no other run uses."""
    generator = _generator(device)
    if generator is None:
        return
    stack.callback(gc.collect)  # memory that cycles hold, before others need it
    stack.enter_context(torch.cuda.device(device))
    # Its recordings read that state while others are launched.
    generator.graphsafe_set_state(generator.graphsafe_get_state().clone_state())
    outer = torch.cuda.current_stream(device)
    stream = _stream(threading.get_ident(), generator.device)
    stream.wait_stream(outer)
    stack.callback(outer.wait_stream, stream)
    stack.enter_context(torch.cuda.stream(stream))


@cache  # torch has 32 streams and hands them out in turn; two runs at once must not share one
def _stream(thread: int, device: torch.device) -> Any:
    return torch.cuda.Stream(device)


def _generator(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
