"""A training step of ours against one of the reference, and the methods' steps in dense steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from benchmarks import reference
from benchmarks.timing import Contestant, Row, compared, row, take_turns
from lthlib.data import Dataset, DataSettings, Images, load_dataset
from lthlib.errors import DataError
from lthlib.masks import Mask
from lthlib.methods import bip, cs
from lthlib.methods.gates import gated_step
from lthlib.models import ModelSettings, build_model
from lthlib.training import Trainer, TrainingSettings

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
COUNT, LENGTH, DENSITY = 10_000, 10_000, 0.1
DATA = DataSettings("cifar10", COUNT, 0, padding=4, flip=True, mean=MEAN, std=STD)
TARGETS = {"fp32": 1.4, "bf16": 2.3}


def images() -> tuple[Dataset, str]:
    """CIFAR-10 where LTHLIB_DATA has it, else generated images of its shape; and which it is."""
    try:
        return load_dataset("cifar10", settings=DATA), f"CIFAR-10, first {COUNT} training images"
    except DataError as error:
        return _generated(), f"{COUNT} generated 32x32 colour images ({error})"


def _generated() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (COUNT,), generator=draw)
    patterns = torch.randint(64, 192, (10, 4, 4, 3), generator=draw)
    noise = torch.randint(-64, 64, (COUNT, 32, 32, 3), generator=draw)
    pictures = patterns.repeat_interleave(8, 1).repeat_interleave(8, 2)[labels] + noise
    part = Images(pictures.to(torch.uint8), labels)
    nothing = part.select(torch.arange(0))
    return Dataset("generated", tuple("0123456789"), part, nothing, nothing)


@dataclass
class Steps:
    """The network and batch that are measured, in `rounds` turns of `units` steps."""

    dataset: Dataset
    device: torch.device
    model: ModelSettings
    batch_size: int
    rounds: int
    units: int

    def rows(self) -> Iterator[Row]:
        """Measure all steps; contestants of every number of threads take turns with each other."""
        cores = os.cpu_count() or 1
        assert isinstance(self.dataset.train, Images)
        decoded = reference.DecodedImages(self.dataset.train, DATA)
        source = reference.batches(decoded, self.batch_size, self.device)
        groups = {n: self._contestants(n, source, n == 1) for n in sorted({cores, 1})[::-1]}
        take_turns([c for group in groups.values() for c in group.values()], self.rounds)
        for threads, group in groups.items():
            for precision, target in TARGETS.items():
                name = f"{self.model.architecture} step, {precision}, {threads} thread(s)"
                aim = target if threads == cores else 0
                yield compared(name, group["reference"], group[precision], aim)
        for precision in TARGETS:
            group = groups[cores]
            yield self._losses(precision, group["reference"].late_loss, group[precision].late_loss)
        group = groups[1]
        for method in ("CS", "BiP"):
            cost = f"{group[method].typical / group['fp32'].typical:.2f} dense steps"
            name = f"{method} step, fp32, 1 thread(s), to our dense"
            yield compared(name, group["fp32"], group[method]) | {"note": cost}

    def alternations(self, times_dense: float, times_reference: float) -> Iterator[Row]:
        """BiP's alternation in bf16 against our dense step and against the reference's alternation,
        on all cores; what it keeps beside the dense state. The two numbers are what is aimed at: at
        most so many dense steps, at least so many times faster."""
        assert isinstance(self.dataset.train, Images)
        decoded = reference.DecodedImages(self.dataset.train, DATA)
        source = reference.batches(decoded, self.batch_size, self.device)
        settings = TrainingSettings(
            f"{LENGTH}it", self.batch_size, schedule="constant", precision="bf16"
        )
        runs = {
            "dense": self._ours(_dense_step, settings),
            "BiP": self._ours(_bip_step, settings, ("lower-0", "upper")),
            "reference": reference.alternation(self._network(), source, settings, DENSITY),
        }
        cores = os.cpu_count() or 1
        group = {name: Contestant(run, self.units, cores) for name, run in runs.items()}
        take_turns(group.values(), self.rounds)
        what = f"{self.model.architecture} BiP alternation, bf16, batch {self.batch_size}"
        share = group["BiP"].typical / group["dense"].typical
        aim = {"target": f"<= {times_dense:g} x", "met": share <= times_dense}
        line = row(f"{what}, to dense", group["BiP"].typical, "ms", group["dense"].typical)
        yield line | aim | {"note": f"{share:.2f} dense steps"}
        yield compared(f"{what}, to reference", group["reference"], group["BiP"], times_reference)
        yield self._state()

    def _state(self) -> Row:
        trainer = Trainer(self._network(), self.dataset, TrainingSettings("1it"), DATA)
        before, prunable = _bytes(trainer.state), _bytes(trainer.prunable_weights())
        bip.prepare(trainer, bip.BiPSettings(density=DENSITY))
        copies = (_bytes(trainer.state) - before) / prunable
        aim = {"target": "<= 2", "met": copies <= 2}
        note = "scores, their momentum, masks; in copies of the prunable weights"
        name = f"{self.model.architecture} state BiP adds"
        return row(name, copies, "", note=note) | aim

    def _losses(self, precision: str, theirs: float, ours: float) -> Row:
        note = f"later half of {self.rounds * (self.units + 1)} steps from the same weights"
        aim = {"target": "within 10 %", "met": abs(theirs / ours - 1) <= 0.1}
        return row(f"training loss, {precision}", ours, "nats", theirs, note=note, **aim)

    def _contestants(
        self, threads: int, source: reference.Batches, methods: bool
    ) -> dict[str, Contestant]:
        settings = TrainingSettings(f"{LENGTH}it", self.batch_size, schedule="constant")
        runs = {"reference": reference.dense(self._network(), source, settings)}
        for precision in TARGETS:
            runs[precision] = self._ours(_dense_step, replace(settings, precision=precision))
        if methods:
            runs["CS"] = self._ours(_cs_step, settings)
            runs["BiP"] = self._ours(_bip_step, settings, ("lower-0", "upper"))
        return {name: Contestant(run, self.units, threads) for name, run in runs.items()}

    def _network(self) -> nn.Module:
        return build_model(self.model, 10, 3, seed=0).to(self.device).train()

    def _ours(
        self,
        make_step: Callable[[Trainer], Callable[..., Any]],
        settings: TrainingSettings,
        streams: tuple[str, ...] = ("train",),
    ) -> Callable[[int], float]:
        trainer = Trainer(self._network(), self.dataset, settings, DATA, device=self.device)
        step = make_step(trainer)

        def run(n: int) -> float:
            trainer.fit(step, stop=trainer.step + n, streams=streams)
            return trainer.history[-1]["loss"]

        return run


def _bytes(tensors: dict[str, torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _dense_step(trainer: Trainer) -> Callable[..., Any]:
    return trainer.masked_step(Mask.full(trainer.group("weights"), trainer.names), LENGTH)


def _cs_step(trainer: Trainer) -> Callable[..., Any]:
    for group in ("gates", "gate_momentum"):
        trainer.keep(group, {n: torch.zeros_like(w) for n, w in trainer.prunable_weights().items()})
    settings = cs.CSSettings(temperature_per="step")
    gate = cs.gate_of(settings, LENGTH, trainer.steps_per_epoch)
    return gated_step(trainer, settings, LENGTH, gate.relax)


def _bip_step(trainer: Trainer) -> Callable[..., Any]:
    settings = bip.BiPSettings(density=DENSITY)
    bip.prepare(trainer, settings)
    return bip.Alternation(trainer, settings, LENGTH)
