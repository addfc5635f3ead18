"""Contestants that take turns, so that a busy neighbour slows all of them alike."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import fmean, median
from typing import Any

import torch

Row = dict[str, Any]
Work = Callable[[int], float]


@dataclass
class Contestant:
    """`run(n)` does n units of work and returns their mean loss; `units` are timed a turn."""

    run: Work
    units: int = 1
    threads: int = 1
    milliseconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """One unit untimed, then `units` timed."""
        torch.set_num_threads(self.threads)
        self.run(1)
        start = time.perf_counter()
        self.losses.append(self.run(self.units))
        self.milliseconds.append(1000 * (time.perf_counter() - start) / self.units)

    @property
    def typical(self) -> float:
        """Median milliseconds of a unit."""
        return median(self.milliseconds)

    @property
    def late_loss(self) -> float:
        """Mean loss over the later half of the turns."""
        return fmean(self.losses[len(self.losses) // 2 :])


class Elsewhere:
    """Workers in processes of their own that work at the same time: each has its own memory
    allocator and threads, as a program has that runs by itself. Use it as a context.

    make: builds a worker there from each of `arguments`; the processes live as long as the context.
    """

    def __init__(self, make: Callable[..., Work], arguments: Sequence[tuple[Any, ...]]):
        context = multiprocessing.get_context("spawn")
        self.ends: list[Connection] = []
        self.processes = []
        for given in arguments:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, given))
            process.start()
            self.ends.append(ours)
            self.processes.append(process)

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *error: object) -> None:
        for end in self.ends:
            end.close()
        for process in self.processes:
            process.join()

    def __call__(self, n: int) -> float:
        """All do n units; returns the mean of their losses. Those of 0 only wait until all are
        built."""
        for end in self.ends:
            end.send(n)
        return fmean(end.recv() for end in self.ends)


def _serve(end: Connection, make: Callable[..., Work], given: tuple[Any, ...]) -> None:
    work = make(*given)
    try:
        while True:
            n = end.recv()
            end.send(work(n) if n else 0.0)
    except EOFError:
        os._exit(0)  # at once: a data loader would wait for its workers


def take_turns(contestants: Iterable[Contestant], rounds: int) -> None:
    """Give each contestant a turn a round, in alternating order."""
    order = list(contestants)
    for _ in range(rounds):
        for contestant in order:
            contestant.turn()
        order.reverse()


def row(name: str, ours: float, unit: str, reference: float | None = None, **more: Any) -> Row:
    """A line of the table. ratio: reference / ours. more: `target` as text, `met`, `note`."""
    ratio = None if reference is None else reference / ours
    line: Row = {"name": name, "reference": reference, "ours": ours, "unit": unit, "ratio": ratio}
    return line | {"target": "", "met": None, "note": ""} | more


def compared(name: str, reference: Contestant, ours: Contestant, at_least: float = 0) -> Row:
    """A row of milliseconds; at_least: the ratio that is aimed at, 0 for none."""
    line = row(name, ours.typical, "ms", reference.typical)
    aim = {"target": f">= {at_least:g} x", "met": line["ratio"] >= at_least}
    return line | aim if at_least else line
