"""A training step recorded once and replayed: on a GPU one launch then stands for hundreds."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lthlib.data.batches import Batch, Batches
from lthlib.training.cost import Meter, Outcome

WARM_UP = 3  # steps before a recording, in which libraries choose their kernels

Recorder = Callable[[Callable[[], None]], Callable[[], None]]


def record_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record what `work` launches as a CUDA graph; what is returned launches it all again."""
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on using the device meanwhile.
    with torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"):
        work()
    return graph.replay


class Steps:
    """Makes the steps of a training: batches, the method's step on them, and the sums. As they are
    at first, and where there is a recorder, by replaying a recording of the whole.

    A recording repeats the same operations on the same memory. All that a replay is told is the
    step's place in its epoch, one number. By it the recording finds its images in the plan of the
    epoch, which lies on the device, and each number that changes from step to step in a table. What
    streams is copied to where the recorded batch lay. Batches of each size have a recording of
    their own, and steps that cannot be recorded run as they are.

    step: `step(t, *batches)`, whose state changes in place and which asks `dial` for its numbers.
    sources: one batch of each is drawn per step. meter: takes what steps report. record:
    makes a function that repeats what the given one does; None where nothing is to be recorded.
    """

    def __init__(
        self,
        step: Callable[..., Outcome],
        sources: Sequence[Batches],
        meter: Meter,
        record: Recorder | None = None,
    ):
        self.step, self.sources, self.meter = step, sources, meter
        self.wanted = self.record = record
        self.length, self.epoch = sources[0].steps_per_epoch, -1
        self.resident = all(source.resident for source in sources)
        self.place = torch.zeros(1, dtype=torch.int64, device=meter.device)
        # A recording reads it again at each replay, so it lives as long.
        self.within = torch.arange(sources[0].batch_size, device=meter.device)
        self.recording = False
        self.warm: Counter[int] = Counter()
        self.recordings: dict[int, tuple[Callable[[], None], Outcome]] = {}
        self.tables: dict[Callable[[int], float], Tensor] = {}
        self.held: dict[int, list[Batch]] = {}

    def same(self, step: object, streams: Sequence[str], record: Recorder | None) -> bool:
        """Whether these steps, of these streams, are those that are made here."""
        names = [source.name for source in self.sources]
        return self.step is step and names == list(streams) and self.wanted is record

    def dial(self, value: Callable[[int], float], t: int) -> float | Tensor:
        """`value(t)`; while the step is recorded, a 0-d tensor that will hold it."""
        if self.recording:
            if value not in self.tables:
                raise RuntimeError("it asks for a dial that its first steps did not ask for")
            return self.tables[value].index_select(0, self.place).squeeze(0)
        if self.record and value not in self.tables:
            self.tables[value] = torch.zeros_like(self.meter.losses)
            self._fill(value)
        return value(t)

    def __call__(self, t: int) -> Outcome:
        """Make step t; the tensors of its outcome may be overwritten by the next."""
        epoch, place = divmod(t, self.length)
        if self.record and epoch != self.epoch:
            self._turn(epoch)
        size = self.sources[0].size(t)
        known = size in self.recordings
        drawn = [] if known and self.resident else [source.batch(t) for source in self.sources]
        if self.record:
            self.place.fill_(place)
        if self.record and not known and self.warm[size] >= WARM_UP:
            self._try_to_record(t, size, drawn)
        if size not in self.recordings:
            self.warm[size] += 1
            return self._make(t, place, drawn)
        for held, given in zip(self.held.get(size, ()), drawn, strict=False):
            for there, part in zip(held, given, strict=True):
                there.copy_(part, non_blocking=True)
        replay, outcome = self.recordings[size]
        replay()
        return outcome

    def _make(self, t: int, place: int | Tensor, batches: Sequence[Batch]) -> Outcome:
        outcome = self.step(t, *batches)
        self.meter.note(place, outcome)
        return outcome

    def _turn(self, epoch: int) -> None:
        """Put on the device what the steps of an epoch will look up."""
        self.epoch = epoch
        for source in self.sources:
            source.draw(epoch)
        for value in self.tables:
            self._fill(value)

    def _fill(self, value: Callable[[int], float]) -> None:
        start = self.epoch * self.length
        table = self.tables[value]
        numbers = [value(t) for t in range(start, start + self.length)]
        table.copy_(torch.tensor(numbers, dtype=table.dtype))

    def _try_to_record(self, t: int, size: int, drawn: list[Batch]) -> None:
        if not self.resident:
            self.held[size] = [(x.clone(), y.clone()) for x, y in drawn]
        made: list[Outcome] = []

        def work() -> None:
            self.recording = True
            try:
                batches = self.held.get(size) or [self._chosen(s, size) for s in self.sources]
                made[:] = [self._make(t, self.place, batches)]
            finally:
                self.recording = False

        assert self.record is not None
        try:
            self.recordings[size] = self.record(work), made[0]
        except RuntimeError as error:
            self.record = None
            reason = str(error).splitlines()[0]
            warnings.warn(f"steps are not recorded, which is slower: {reason}", stacklevel=2)

    def _chosen(self, source: Batches, size: int) -> Batch:
        plan = source.draw(self.epoch)
        begin = self.place * source.batch_size
        return source.cut(plan.index_select(1, begin + self.within[:size]))
