"""A training step recorded once and replayed: on a GPU one launch then stands for hundreds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3  # steps before the recording, in which libraries choose their kernels
DIALS = 8

Batch = tuple[Tensor, Tensor]
Step = Callable[..., Any]
Recorder = Callable[[Callable[[], None]], Callable[[], None]]


def record_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record what `work` launches as a CUDA graph; what is returned launches it all again."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on using the device meanwhile.
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
        work()
    return graph.replay


class Replayed:
    """Calls a step as it is at first, then records it and replays the recording.

    A recording repeats the same operations on the same memory. So a batch is copied to where the
    recorded one lay, and each number that changes from step to step is a dial: a value on the
    device, set before each replay. Batches of another size, such as the last one of an epoch, and
    steps that cannot be recorded run as they are.

    step: `step(t, *batches)`, whose state changes in place and which asks `dial` for its numbers.
    record: makes a function that repeats what the given one does; `record_graph` on a GPU.
    """

    def __init__(
        self,
        step: Step,
        device: torch.device,
        record: Recorder = record_graph,
    ):
        self.step, self.record = step, record
        self.replay: Callable[[], None] | None = None
        self.warm, self.largest, self.recordable, self.recording = 0, 0, True, False
        self.inputs: list[Batch] = []
        self.outcome: Any = None
        self.functions: list[Callable[[int], float]] = []
        self.values = torch.zeros(DIALS, device=device)

    def dial(self, value: Callable[[int], float], t: int) -> float | Tensor:
        """`value(t)`; while the step is recorded, the 0-d tensor that will hold it."""
        if not self.recording:
            return value(t)
        if value not in self.functions:
            self.functions.append(value)
        return self.values[self.functions.index(value)]

    def __call__(self, t: int, *batches: Batch) -> Any:
        """Make step t; returns its outcome, whose tensors the next call may overwrite."""
        size = sum(len(y) for _, y in batches)
        self.largest = max(self.largest, size)
        ready = self.warm >= WARM_UP and size == self.largest
        if self.replay is None and self.recordable and ready:
            self._try_to_record(t, batches)
        if self.replay is None or not self._takes(batches):
            self.warm += 1
            return self.step(t, *batches)
        for held, given in zip(self.inputs, batches, strict=True):
            for place, tensor in zip(held, given, strict=True):
                place.copy_(tensor)
        now = [value(t) for value in self.functions]
        self.values[: len(now)].copy_(torch.tensor(now), non_blocking=True)
        self.replay()
        return self.outcome

    def _takes(self, batches: tuple[Batch, ...]) -> bool:
        return all(
            held.shape == given.shape
            for pair, other in zip(self.inputs, batches, strict=True)
            for held, given in zip(pair, other, strict=True)
        )

    def _try_to_record(self, t: int, batches: tuple[Batch, ...]) -> None:
        self.inputs = [(x.clone(), y.clone()) for x, y in batches]

        def work() -> None:
            self.functions, self.recording = [], True
            try:
                self.outcome = self.step(t, *self.inputs)
            finally:
                self.recording = False

        try:
            self.replay = self.record(work)
        except RuntimeError as error:
            self.recordable = False
            reason = str(error).splitlines()[0]
            warnings.warn(f"steps are not recorded, which is slower: {reason}", stacklevel=2)
