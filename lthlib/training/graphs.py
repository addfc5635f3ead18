"""A training step recorded once and replayed: on a GPU one launch then stands for hundreds."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from lthlib.data.batches import Batch, Batches
from lthlib.devices import memory_ended
from lthlib.training.cost import Meter, Outcome, Step

WARM_UP = 3  # steps before a recording, in which libraries choose their kernels

Recorder = Callable[[Callable[[], None]], Callable[[], None]]


def record_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record what a function launches as a CUDA graph.

    Args:
        work: launches kernels on the current device.

    Returns:
        A function that launches it all again.

    Raises:
        RuntimeError: it waits for the device, or draws numbers on the CPU, which all replays would
            share; torch's generator and its memory are then as before.
    """
    cuda: Any = torch.cuda
    graph, pool, device = cuda.CUDAGraph(), cuda.graph_pool_handle(), cuda.current_device()
    # On the run's own: libraries keep memory for each stream, which no other run may use at once.
    stream = cuda.current_stream()
    if stream == cuda.default_stream():  # which takes no recording
        stream = cuda.Stream()
    generator = cuda.default_generators[device]
    before = generator.graphsafe_get_state().clone_state()
    before_on_cpu = torch.default_generator.get_state()
    with cuda.stream(stream):
        cuda.empty_cache()  # for the recording's
        try:
            # Other threads may go on using the device meanwhile.
            graph.capture_begin(pool, "thread_local")
            work()
            if not torch.equal(torch.default_generator.get_state(), before_on_cpu):
                raise RuntimeError("it draws numbers on the CPU, which a recording would repeat")
            graph.capture_end()
        except BaseException:
            with suppress(RuntimeError):
                graph.capture_end()
            # Where that fails, neither the allocator nor the generator is told of the end.
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(device, pool)
                torch._C._cuda_releasePool(device, pool)
            generator.graphsafe_set_state(before)
            torch.default_generator.set_state(before_on_cpu)
            raise
    return graph.replay


class Steps:
    """The steps of a training: batches, the method's step on them, and the sums.

    They run as they are at first, and where there is a recorder, by replaying a recording of all.

    A recording repeats the same operations on the same memory. All that a replay is told is the
    step's position in its epoch, one number. By it the recording finds its images in the plan of
    the epoch, which lies on the device, and each number that changes from step to step in a table.
    What streams is copied to where the recorded batch lay. Batches of each size have a recording of
    their own, and steps that cannot be recorded run as they are.

    Args:
        step: `step(t, *batches)`, whose state changes in place and which asks `dial` for its
            numbers.
        sources: one batch of each is drawn per step.
        meter: takes what steps report.
        record: makes a function that repeats what the given one does; None where nothing is to be
            recorded.
    """

    def __init__(
        self, step: Step, sources: Sequence[Batches], meter: Meter, record: Recorder | None = None
    ):
        self.step, self.sources, self.meter = step, sources, meter
        self.record = record
        self.length = sources[0].steps_per_epoch
        self.epoch = -1
        self.resident = all(source.resident for source in sources)
        self.position = torch.zeros(1, dtype=torch.int64, device=meter.device)
        # A recording reads it again at each replay, so it lives as long.
        self.offsets = torch.arange(sources[0].batch_size, device=meter.device)
        self.recording = False
        self.warm: Counter[int] = Counter()
        self.recordings: dict[int, tuple[Callable[[], None], Outcome]] = {}
        self.tables: dict[Callable[[int], float], Tensor] = {}
        self.held: dict[int, list[Batch]] = {}

    def dial(self, value: Callable[[int], float], t: int) -> float | Tensor:
        """A number that changes from step to step.

        Args:
            value: the number by the step.
            t: the step.

        Returns:
            `value(t)`; while the step is recorded, a 0-d tensor that will hold it.

        Raises:
            RuntimeError: while a step is recorded, a number that those before did not ask for.
        """
        if self.recording:
            if value not in self.tables:
                raise RuntimeError("it asks for a dial that its first steps did not ask for")
            return self.tables[value].index_select(0, self.position).squeeze(0)
        if self.record and value not in self.tables:
            self.tables[value] = torch.zeros_like(self.meter.losses)
            self._fill_table(value)
        return value(t)

    def __call__(self, t: int) -> Outcome:
        """Make step t; the tensors of its outcome may be overwritten by the next."""
        epoch, position = divmod(t, self.length)
        size = self.sources[0].size(t)
        if self.record:
            if epoch != self.epoch:
                self._begin_epoch(epoch)
            self.position.fill_(position)
        looked_up = self.record and self.resident
        drawn = [] if looked_up else [source.batch(t) for source in self.sources]
        if self.record and size not in self.recordings and self.warm[size] >= WARM_UP:
            self._try_to_record(t, size, drawn)
        if size not in self.recordings:
            self.warm[size] += 1
            # As when they are recorded: libraries choose kernels by where a batch lies, too.
            return self._run_step(t, position, drawn or self._look_up_batches(size))
        for held, batch in zip(self.held.get(size, ()), drawn, strict=False):
            for recorded, tensor in zip(held, batch, strict=True):
                recorded.copy_(tensor, non_blocking=True)
        replay, outcome = self.recordings[size]
        replay()
        return outcome

    def _run_step(self, t: int, position: int | Tensor, batches: Sequence[Batch]) -> Outcome:
        outcome = self.step(t, *batches)
        self.meter.note(position, outcome)
        return outcome

    def _begin_epoch(self, epoch: int) -> None:
        """Put on the device what the steps of an epoch will look up."""
        self.epoch = epoch
        for source in self.sources:
            source.draw(epoch)
        for value in self.tables:
            self._fill_table(value)

    def _fill_table(self, value: Callable[[int], float]) -> None:
        start = self.epoch * self.length
        table = self.tables[value]
        numbers = [value(t) for t in range(start, start + self.length)]
        table.copy_(torch.tensor(numbers, dtype=table.dtype))

    def _try_to_record(self, t: int, size: int, drawn: list[Batch]) -> None:
        if not self.resident:
            self.held[size] = [(x.clone(), y.clone()) for x, y in drawn]
        outcomes: list[Outcome] = []

        def work() -> None:
            self.recording = True
            try:
                batches = self.held.get(size) or self._look_up_batches(size)
                outcomes[:] = [self._run_step(t, self.position, batches)]
            finally:
                self.recording = False

        assert self.record is not None
        try:
            self.recordings[size] = self.record(work), outcomes[0]
        except RuntimeError as error:
            if memory_ended(error):
                raise
            self.record = None
            self.recordings = {}
            reason = str(error).splitlines()[0]
            warnings.warn(f"steps are not recorded, which is slower: {reason}", stacklevel=2)

    def _look_up_batches(self, size: int) -> list[Batch]:
        """The batches at the position in the epoch that the device was told."""
        columns = self.position * self.sources[0].batch_size + self.offsets[:size]
        return [s.cut(s.draw(self.epoch).index_select(1, columns)) for s in self.sources]
