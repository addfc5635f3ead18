"""One training loop for everything.

State is a flat dictionary of named tensors: `weights/NAME`, `buffers/NAME`, `momentum/NAME`, and
whatever a method adds (`gates/NAME`, `scores/NAME`, `rewind/weights/NAME`). A method supplies
`step(t, *batches)`; the loop owns the data streams, evaluation, cost and checkpoints, so resuming
and rewinding are written once.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from lthlib.data import Batches, Dataset, DataSettings, EvaluationBatches, Part
from lthlib.distributed import Ranks, current
from lthlib.errors import ConfigError, Diverged, MaskError, Paused
from lthlib.flat import Flat, Named, memory_order
from lthlib.masks import Mask, group_axes, prunable_names, select
from lthlib.modules import copied, unwrapped
from lthlib.training.cost import Cost, Meter, Outcome, Step
from lthlib.training.graphs import Recorder, Steps, record_graph
from lthlib.training.network import Network, Tensors, adamw_step, moments_of, sgd_step
from lthlib.training.objective import Objective
from lthlib.training.settings import TrainingSettings, learning_rate, steps_of


@dataclass
class Hooks:
    """What the owner of a training is asked; the defaults do nothing.

    Attributes:
        should_stop: before each step, whether to stop.
        due: now and then, whether a checkpoint is due.
        save: saves one.
        kept: what whoever stops it is told of its state.
    """

    should_stop: Callable[[Trainer], bool] = lambda trainer: False
    due: Callable[[], bool] = lambda: False
    save: Callable[[Trainer], None] = lambda trainer: None
    kept: str = "nothing is saved"


@dataclass
class Trainer:
    """State, data and cost of one run; methods drive it.

    `round` and `step` say where the run is. A method written as `for r in trainer.rounds(n)` around
    `trainer.fit(...)` resumes by itself: both begin at the saved place, and everything else a
    method needs lives in `state`.

    Attributes:
        model: left as it is; what wraps it is taken off.
        dataset: to train and judge on.
        settings: length, batch size, learning rate and so on.
        data: crop, flip and normalisation of images.
        seed: of the order of the data, and of what is drawn.
        prunable: which weights a mask may cover, see `lthlib.masks.prunable_names`.
        device: where it computes.
        hooks: questions to its owner.
        observe: set by a method; `observe(step)` is what the history is to hold beside loss and
            accuracy, with `density` among it.
        standing: set by a method; `standing()` is the ticket if the search ended now.
        replays: whether steps are recorded and replayed (see `training.graphs`), by default on a
            GPU.
        recorder: how they are recorded.
        ranks: the processes that share the run.
        objective: loss and metric.
    """

    model: nn.Module
    dataset: Dataset
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    data: DataSettings = field(default_factory=DataSettings)
    seed: int = 0
    prunable: str | tuple[str, ...] = "conv+linear"
    device: torch.device | str = "cpu"
    hooks: Hooks = field(default_factory=Hooks)
    observe: Callable[[int], dict[str, Any]] | None = None
    standing: Callable[[], Any] | None = None
    replays: bool | None = None
    recorder: Recorder = record_graph
    ranks: Ranks = field(default_factory=current)
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self) -> None:
        model = self.model = unwrapped(self.model)
        if self.settings.sync_batchnorm and torch.device(self.device).type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(copied(model))
        self.objective.check(self.dataset.train.labels, self.ranks.world)
        self.network = Network(
            model, self.device, self.settings.precision, self.ranks, self.objective
        )
        self.within: Mask | None = None
        self.names = prunable_names(self.model, self.prunable)
        self._axes = group_axes(self.model)
        self.state: Tensors = {}
        self._groups: dict[str, Flat] = {}
        weights, buffers = self.network.weights(), self.network.buffers()
        order = memory_order(weights, self.names)
        self._order = (*order, *(f"square/{name}" for name in order), "step/count")
        for name in weights:
            self.state |= {f"weights/{name}": weights[name], f"momentum/{name}": weights[name]}
        self.keep("weights", weights)
        self.keep("momentum", moments_of(weights, self.settings.optimiser))
        self.zero("momentum")
        self.keep("buffers", buffers)
        # Where gradients by the weights are put.
        self.gradients = self.flat("weights").like(torch.zeros_like(self.flat("weights").data))
        self.round = 0
        self.step = 0
        self.cost = Cost()
        self.history: list[dict[str, Any]] = []
        # What the run has found, by the ticket's name, and the SHA-256 of the files it has written.
        self.records: dict[str, dict[str, Any]] = {}
        self.files: dict[str, str] = {}
        images, size, ranks = len(self.dataset.train), self.settings.batch_size, self.ranks.world
        self._leaves_one = (images % size or size) // ranks == 1 and self._refuses_one()
        self._drops_last = self._leaves_one and min(images, size) // ranks > 1
        self.steps_per_epoch = self.batches("train").steps_per_epoch
        self._flops: int | None = None
        self.maker: Steps | None = None
        self._maker_key: Any = None
        self._meter = Meter(self.steps_per_epoch, self.network.device, self.network.wide)

    def _check_batches(self) -> None:
        """Say what becomes of a batch of one image, which BatchNorm cannot normalise."""
        size, images = self.settings.batch_size, len(self.dataset.train)
        batches = f"{images} images in batches of {size}"
        if self._drops_last:
            warnings.warn(
                f"{batches} leave one, which BatchNorm cannot normalise: each epoch leaves out its "
                "last; another training.batch_size keeps all",
                stacklevel=3,
            )
        elif self._leaves_one:
            raise ConfigError(f"{batches} leave BatchNorm a single one to normalise by")

    def _refuses_one(self) -> bool:
        network = self.network
        x, _ = self.first_two(1)
        try:
            with network.drawing(self.seed):
                network.forward(network.weights(), network.buffers(), x)
        except ValueError as error:
            return "more than 1 value per channel" in str(error)
        return False

    def group(self, prefix: str) -> Tensors:
        """The tensors of the state under a prefix.

        Args:
            prefix: such as `weights`.

        Returns:
            The tensors themselves, by what follows `prefix/` in their names; a `Flat` once the
            group was kept.
        """
        if prefix in self._groups:
            return self._groups[prefix]
        start = len(prefix) + 1
        return {k[start:]: t for k, t in self.state.items() if k.startswith(prefix + "/")}

    def keep(self, prefix: str, tensors: Named) -> Flat:
        """Add copies of tensors to the state, unless a checkpoint brought them.

        Args:
            prefix: they are called `prefix/NAME`.
            tensors: by name, as they are at the beginning.

        Returns:
            The group, which lies in one piece of memory, in the order of the weights.
        """
        if prefix not in self._groups:
            order = () if prefix == "buffers" else self._order
            group = Flat.of(tensors, order, self._groups.get("weights"))
            for name, tensor in group.items():
                tensor.copy_(self.state.get(f"{prefix}/{name}", tensor))
                self.state[f"{prefix}/{name}"] = tensor
            self._groups[prefix] = group
        return self._groups[prefix]

    def flat(self, prefix: str) -> Flat:
        """A group that is kept."""
        return self._groups[prefix]

    def thinned(self) -> Callable[[Tensor], Flat]:
        """Effective weights from mask values.

        Returns:
            A function from mask values of the prunable weights, [n] as these lie, to all weights;
            what it returns is overwritten by the next call.
        """
        weights = self.flat("weights")
        thin = weights.like(weights.data.clone())
        count = len(self.prunable_weights().data)
        sizes = [count, len(weights.data) - count]
        prunable, unprunable = weights.data.split(sizes)
        masked, unmasked = thin.data.split(sizes)

        def effective(mask: Tensor) -> Flat:
            torch.mul(prunable, mask, out=masked)
            unmasked.copy_(unprunable)
            return thin

        return effective

    def load(self, prefix: str, tensors: Named) -> None:
        """Copy values into a group of the state, in place."""
        for name, tensor in tensors.items():
            self.state[f"{prefix}/{name}"].copy_(tensor)

    def zero(self, prefix: str) -> None:
        """Fill a group that is kept with zeros."""
        self.flat(prefix).data.zero_()

    def prunable_weights(self) -> Flat:
        """The weights that a mask may cover: the first of all in memory."""
        return self.flat("weights").head(self.names)

    def select(
        self, scores: Named, density: float, structure: str = "unstructured", **options: Any
    ) -> Mask:
        """Choose weights by `lthlib.masks.select`, with the axes of this network's layers.

        Args:
            scores: of the prunable weights, by name.
            density: kept fraction in (0, 1].
            structure: `unstructured`, `filter` or `channel`.
            options: others of `select`; what a pruned network was confined to is `within`.

        Returns:
            The mask.
        """
        if self.within is not None:
            inside = {n: self.within[n].to(score.device) for n, score in scores.items()}
            options.setdefault("within", inside)
        return select(scores, density, structure, axes=self._axes, **options)

    def confine(self, mask: Mask) -> None:
        """Leave a network that was pruned so, whatever the method.

        Args:
            mask: outside of which weights are 0, and get no gradient.
        """
        self.within = mask.to(self.network.device)
        factor = self.flat("weights").like(torch.ones_like(self.flat("weights").data))
        for name, kept in mask.items():
            factor[name].copy_(kept)
        self.network.open = factor.data

    def steps(self, length: str = "") -> int:
        """A length in optimiser steps.

        Args:
            length: by default the whole training's.

        Returns:
            Steps, rounded.

        Raises:
            ConfigError: it is more than nothing, and yet no step.
        """
        length = length or self.settings.length
        steps = steps_of(length, self.steps_per_epoch)
        if not steps and steps_of(length, 10**12):
            raise ConfigError(f"{length} is no step where an epoch has {self.steps_per_epoch}")
        return steps

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, from 0, in a training of `steps`."""
        return learning_rate(self.settings, step, steps, self.steps_per_epoch)

    def dial(self, value: Callable[[int], float], t: int) -> float | Tensor:
        """A number that changes from step to step, such as the learning rate.

        A step asks for it here, so that it can be replayed.

        Args:
            value: the number by the step.
            t: the step.

        Returns:
            `value(t)`; where steps are replayed, a 0-d tensor that is set before each.
        """
        return self.maker.dial(value, t) if self.maker else value(t)

    def optimiser_options(self) -> dict[str, Any]:
        """The recipe's options of `sgd_step`."""
        s = self.settings
        return {"momentum": s.momentum, "nesterov": s.nesterov, "weight_decay": s.weight_decay}

    def update(self, rate: float | Tensor) -> None:
        """One step of the recipe's optimiser on all weights, from `gradients`."""
        weights, momenta = self.flat("weights"), self.flat("momentum")
        if self.settings.optimiser == "sgd":
            sgd_step(weights, self.gradients, momenta, rate, **self.optimiser_options())
        else:
            adamw_step(weights, self.gradients, momenta, rate, self.settings)

    def batches(self, stream: str) -> Batches:
        """The training images in the order of a named stream; a rank gets its share of each."""
        return Batches(
            self.dataset.train, self.data, self.settings.batch_size, seed=self.seed, stream=stream,
            whole=self._drops_last, share=self.ranks.share, **self._placement,
        )  # fmt: skip

    def first_two(self, count: int = 2) -> Any:
        """The batch of the first two training inputs, to try a network with.

        Args:
            count: 1 for the first alone.

        Returns:
            Inputs and targets; one input twice if there is only one.
        """
        rows = torch.arange(count) % len(self.dataset.train)
        return next(iter(self.in_order(self.dataset.train.select(rows))))

    def in_order(self, images: Part, batch_size: int = 1000, **options: Any) -> EvaluationBatches:
        """Every image of a part once, as judging takes them.

        Args:
            images: the part.
            batch_size: of all ranks.
            options: others of `EvaluationBatches`.

        Returns:
            The batches.
        """
        return EvaluationBatches(images, self.data, batch_size, **(self._placement | options))

    @property
    def _placement(self) -> dict[str, Any]:
        return {"device": self.network.device, "dtype": self.network.dtype}

    def rounds(self, count: int) -> Iterator[int]:
        """Go through the rounds of a method, from the saved one on.

        Args:
            count: how many there are.

        Yields:
            0, 1, ..., count - 1; the state at the end of a round's body starts the next.
        """
        while self.round < count:
            yield self.round
            self.round, self.step = self.round + 1, 0
            if self.hooks.due():
                self.hooks.save(self)

    def fit(
        self,
        step: Step,
        *,
        stop: int,
        start: int = 0,
        streams: Sequence[str] = ("train",),
        snapshot_at: int | None = None,
        replays: bool = True,
    ) -> None:
        """Run `step(t, *batches)` for t = start ... stop - 1, or from the saved step on.

        Args:
            step: one step of the method.
            stop: the step at which it ends.
            start: the step of the schedule to begin at.
            streams: one batch of each is drawn per step.
            snapshot_at: the step before which weights, buffers and momenta are kept as the rewind
                point.
            replays: every step does the same but for its batches and dials, so that it may be
                replayed.

        Raises:
            Diverged: the loss is not finite.
            Paused: the owner asks to stop.
            ConfigError: a batch holds one image, which BatchNorm cannot normalise.
        """
        self._check_batches()
        begin = max(start, self.step)
        salt = _salt(self.seed, self.round, *streams)
        self._meter.reset()
        steps = self._make_steps(step, streams, replays)
        with self.network.drawing(salt), self.network.arithmetic():
            for t in range(begin, stop):
                self.step = t
                if t == snapshot_at:
                    self.snapshot()
                if self.hooks.should_stop(self):
                    self._close_epoch(t)
                    self.hooks.save(self)
                    raise Paused(
                        f"stopped before step {t} of round {self.round}; {self.hooks.kept}"
                    )
                self.network.draw_from(salt + t)
                try:
                    outcome = steps(t)
                except MaskError as error:
                    raise Diverged(f"step {t}: {error}; a smaller learning rate may help") from None
                self._meter.count(outcome, t)
                if (t + 1) % self.steps_per_epoch == 0 or t + 1 == stop:
                    self.step = t + 1
                    self._close_epoch(t + 1)
                    if t + 1 < stop and self.hooks.due():
                        self.hooks.save(self)
        if snapshot_at == stop:
            self.snapshot()

    def _make_steps(self, step: Step, streams: Sequence[str], replays: bool) -> Steps:
        """What makes these steps: as before, recordings included, where they are the same."""
        if self.replays is not None:
            replays &= self.replays
        else:
            replays &= self.network.device.type == "cuda"
        recorder = self.recorder if replays and self.ranks.world == 1 else None
        key = (id(step), *streams, recorder)  # the step lives as long as what makes it
        if self.maker is None or self._maker_key != key:
            sources = [self.batches(name) for name in streams]
            self._maker_key, self.maker = key, Steps(step, sources, self._meter, recorder)
        return self.maker

    @property
    def passes(self) -> int:
        """Images sent backward so far, the current epoch included."""
        return self.cost.backward_passes + self.ranks.world * self._meter.backward_passes

    @property
    def spent(self) -> Cost:
        """What the run cost so far, the current epoch included."""
        meter = self._meter
        if meter.steps == 0:
            return self.cost
        passes = Cost(0, meter.images, meter.forward_passes, meter.backward_passes)
        cost = self.cost + self.priced(passes, meter.started)
        # From whole steps, so that a run that was interrupted ends with the same number.
        steps = round(self.cost.epochs * self.steps_per_epoch) + meter.steps
        cost.epochs = steps / self.steps_per_epoch
        return cost

    def priced(self, passes: Cost, begun: float) -> Cost:
        """A cost in passes, with the operations and the seconds that they took.

        Args:
            passes: the cost.
            begun: when they began, by `time.perf_counter`.

        Returns:
            A new cost.
        """
        operations = passes.forward_passes + 2 * passes.backward_passes
        seconds = time.perf_counter() - begun
        return replace(passes, flops=self.flops_per_image() * operations, seconds=seconds)

    def _close_epoch(self, step: int) -> None:
        meter = self._meter
        if meter.steps == 0:
            return
        # BatchNorm's statistics become those of rank 0; all else must be equal already.
        self.ranks.follow(self.group("buffers").values())
        self.ranks.check_same(self.state, f"round {self.round}, step {step}")
        meter.gather(self.ranks)
        epoch = meter.read()
        self.cost = self.spent
        readout = self.observe(step - 1) if self.observe else {}
        self.history.append({"round": self.round, "step": step, **epoch, **readout})
        meter.reset()

    def flops_per_image(self) -> int:
        """Forward floating-point operations of one image."""
        if self._flops is None:
            inputs, _ = self.first_two()
            self._flops = self.network.flops_per_image(inputs)
        return self._flops

    def snapshot(self) -> None:
        """Keep weights, buffers and momenta as the rewind point."""
        self.ranks.follow(self.group("buffers").values())
        for group in ("weights", "buffers", "momentum"):
            for name, tensor in self.group(group).items():
                self.state[f"rewind/{group}/{name}"] = tensor.clone()

    def rewind(self, optimiser: str = "fresh") -> None:
        """Bring back the rewind point.

        Args:
            optimiser: momenta become zeros (`fresh`), or what they were (`restored`).
        """
        for group in ("weights", "buffers"):
            self.load(group, self.group(f"rewind/{group}"))
        if optimiser == "restored":
            self.load("momentum", self.group("rewind/momentum"))
        else:
            self.zero("momentum")

    def evaluate(self, part: str, weights: Named, buffers: Named | None = None) -> float | None:
        """The metric on a part of the data.

        Args:
            part: `train`, `validation` or `test`.
            weights: effective weights by name.
            buffers: by name; may stand among the weights.

        Returns:
            By default percent correct; None where that part is empty.
        """
        images = getattr(self.dataset, part)
        if images is None or len(images) == 0:
            return None
        batches = self.in_order(images, share=self.ranks.share)
        return self.network.judge(weights, buffers or {}, batches)

    def gather_statistics(self, weights: Named) -> Tensors:
        """Average BatchNorm's statistics over one epoch forward, which counts as forward passes.

        Args:
            weights: effective weights by name.

        Returns:
            Buffers by name; the state's stay as they are.
        """
        buffers = {name: tensor.clone() for name, tensor in self.group("buffers").items()}
        begun = time.perf_counter()
        images = 0
        source = self.batches("statistics").stream()
        with self.network.averaging(buffers), self.network.arithmetic():
            for _ in range(self.steps_per_epoch):
                x, y = next(source)
                self.network.forward(weights, buffers, x)
                images += len(y)
        self.ranks.average(buffers.values())
        (images,) = self.ranks.total(images)
        self.cost += self.priced(Cost(images=images, forward_passes=images), begun)
        return buffers

    def masked_step(self, mask: Mask, steps: int, value: float = 1.0) -> Step:
        """A step of the recipe's optimiser under a fixed mask.

        Pruned weights and their momenta are exactly 0 before and after it.

        Args:
            mask: of weights, by name.
            steps: length of the whole schedule that the learning rate follows.
            value: of the mask where it keeps; the network uses value * weight.

        Returns:
            A step for `fit`, of one batch.
        """
        weights, momenta, buffers = (self.flat(g) for g in ("weights", "momentum", "buffers"))
        mask.check(weights)
        # What weights and gradients are multiplied by; 1 where there is no mask.
        factor = weights.like(torch.ones_like(weights.data))
        for name, kept in mask.to(self.network.device).items():
            factor[name].copy_(kept)
            for tensors in (weights, momenta):
                tensors[name].mul_(factor[name])
            factor[name].mul_(value)
        changes = bool((factor.data != 1).any())
        thin = weights if value == 1 else weights.like(torch.zeros_like(weights.data))
        gradients = self.gradients

        def rate(t: int) -> float:
            return self.rate(t, steps)

        def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
            x, y = batch
            if thin is not weights:
                torch.mul(weights.data, factor.data, out=thin.data)
            loss, correct, _ = self.network.gradients(thin, buffers, x, y, gradients)
            if changes:
                gradients.data.mul_(factor.data)
            self.update(self.dial(rate, t))
            return Outcome(loss, correct, len(y), len(y), len(y))

        return step


def _salt(*address: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(address).encode(), digest_size=6).digest(), "big")
