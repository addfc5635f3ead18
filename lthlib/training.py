"""One training loop for everything.

State is a flat dictionary of named tensors: `weights/NAME`, `buffers/NAME`, `momentum/NAME`, and
whatever a method adds (`gates/NAME`, `scores/NAME`, `rewind/weights/NAME`). A method supplies
`step(t, *batches)`; the loop owns the data streams, evaluation, cost and checkpoints, so resuming
and rewinding are written once.

Networks stay ordinary modules: effective weights are a function of the state, applied with
`torch.func.functional_call`, and every method starts from the gradient with respect to them.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.sgd import sgd
from torch.utils.flop_counter import FlopCounterMode

from lthlib.data import (
    Batches,
    Dataset,
    DataSettings,
    EvaluationBatches,
    Part,
    evaluation_batches,
)
from lthlib.distributed import Ranks, current
from lthlib.errors import ConfigError, Diverged, MaskError, Paused, check_choice
from lthlib.graphs import Recorder, Replayed, record_graph
from lthlib.masks import Mask, prunable_names

SCHEDULES = ("cosine", "step", "constant")
PRECISIONS = ("fp32", "tf32", "bf16")
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained. Lengths are text with a unit: `85ep` (epochs) or `500it` (optimiser
    steps).

    precision: of products and convolutions, everything that is kept being in single precision:
    `fp32`, `bf16` (autocast), or `tf32` (10 bits of mantissa, on a GPU; as fp32 elsewhere).
    ranks: processes that share the run, see `lthlib.distributed`; `batch_size` counts the images of
    all. sync_batchnorm: BatchNorm normalises over all ranks, on CUDA.
    """

    length: str = "20ep"
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: str = "cosine"
    milestones: tuple[str, ...] = ()
    warmup: str = "0it"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    precision: str = "fp32"
    ranks: int = 1
    sync_batchnorm: bool = False

    def __post_init__(self) -> None:
        check_choice("training.schedule", self.schedule, SCHEDULES)
        check_choice("training.precision", self.precision, PRECISIONS)
        if self.batch_size < 1:
            raise ConfigError(f"training.batch_size is {self.batch_size}; expected at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise ConfigError(
                f"training.learning_rate is {self.learning_rate}; expected a positive number"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"training.momentum is {self.momentum}; expected 0 or more, below 1")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"training.weight_decay is {self.weight_decay}; expected a finite number, 0 or more"
            )
        if self.schedule == "step" and not self.milestones:
            raise ConfigError("training.schedule 'step' needs milestones such as ('56ep', '71ep')")
        if self.ranks < 1:
            raise ConfigError(f"training.ranks is {self.ranks}; expected at least 1")
        if self.sync_batchnorm and self.ranks == 1:
            raise ConfigError("training.sync_batchnorm goes with training.ranks of 2 or more")
        for text in (self.length, self.warmup, *self.milestones):
            steps_of(text, 1)


def steps_of(length: str, steps_per_epoch: int) -> int:
    """`85ep` or `500it` -> optimiser steps. Raises ConfigError for any other form."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)ep|(\d+)it", length)
    if not match:
        raise ConfigError(
            f"length {length!r}; expected epochs such as '85ep' or iterations such as '500it'"
        )
    if match[2]:
        return int(match[2])
    return round(float(match[1]) * steps_per_epoch)


def learning_rate(settings: TrainingSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """Learning rate of optimiser step `step` (from 0) in a training of `steps`.

    cosine: half a period from the full rate towards 0. step: divided by 10 at each milestone. Both
    rise linearly from 1/warmup of their value over `warmup` steps.
    """
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    elif settings.schedule == "step":
        rate *= 0.1 ** sum(step >= steps_of(m, steps_per_epoch) for m in settings.milestones)
    warmup = steps_of(settings.warmup, steps_per_epoch)
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate


@dataclass
class Cost:
    """What was spent. Passes are counted in images: a batch of b forwarded once is b forward
    passes.

    epochs: optimiser steps over steps an epoch. images: images drawn. flops: floating-point
    operations of the dense network, a backward pass counted as two forward ones; masks save none.
    seconds: training alone, no evaluation.
    """

    epochs: float = 0.0
    images: int = 0
    forward_passes: int = 0
    backward_passes: int = 0
    flops: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


@dataclass
class Outcome:
    """What one step reports: mean loss and correct predictions of the `images` it drew, as tensors
    on the device, and its passes."""

    loss: Tensor
    correct: Tensor
    images: int
    forward_passes: int
    backward_passes: int


class Network:
    """A module seen as a function of named tensors."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
        ranks: Ranks | None = None,
    ):
        self.device = torch.device(device)
        self.precision = precision
        self.ranks = ranks or Ranks()
        # In training mode as a whole, whatever mode its parts came in.
        self.model = copy.deepcopy(model).to(self.device).train()
        floating = (p.dtype for p in model.parameters() if p.is_floating_point())
        self.dtype = next(floating, torch.float32)

    def weights(self) -> Tensors:
        """Copies of the parameters, convolutions in channels_last layout."""
        return {
            name: channels_last(p.detach().clone()) for name, p in self.model.named_parameters()
        }

    def buffers(self) -> Tensors:
        """Copies of the buffers (BatchNorm statistics)."""
        return {name: b.detach().clone() for name, b in self.model.named_buffers()}

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """On a GPU: products and convolutions as precise as `precision` says, by the kernels that
        are fastest, or by deterministic ones where torch was asked for these."""
        if self.device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        products = (torch.backends.cuda.matmul, cudnn.conv)
        before, searched = [kind.fp32_precision for kind in products], cudnn.benchmark
        try:
            for kind in products:
                kind.fp32_precision = "tf32" if self.precision == "tf32" else "ieee"
            cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
            yield
        finally:
            cudnn.benchmark = searched
            for kind, value in zip(products, before, strict=True):
                kind.fp32_precision = value

    def _training_mode(self) -> None:
        if not self.model.training:
            self.model.train()

    def _forward(
        self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            logits: Tensor = functional_call(self.model, {**weights, **buffers}, (x,))
        return logits if logits.dtype == torch.float64 else logits.float()

    def forward(
        self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        """Logits [b, classes] in training mode without gradients; BatchNorm's statistics in
        `buffers` move."""
        self._training_mode()
        with torch.no_grad():
            return self._forward(weights, buffers, x)

    @contextmanager
    def averaging(self, buffers: Tensors) -> Iterator[None]:
        """Start BatchNorm's statistics in `buffers` anew, and weigh all batches that follow
        equally."""
        norms = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats
        }
        momenta = {name: module.momentum for name, module in norms.items()}
        for name, module in norms.items():
            module.momentum = None
            for buffer, start in (("running_mean", 0), ("running_var", 1)):
                buffers[f"{name}.{buffer}"].fill_(start)
            buffers[f"{name}.num_batches_tracked"].zero_()
        try:
            yield
        finally:
            for name, module in norms.items():
                module.momentum = momenta[name]

    def gradients(
        self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        """One forward and backward pass in training mode; BatchNorm's statistics in `buffers` move.
        Where ranks share a run, each brings its images, and all get what one process would.

        weights: effective weights by name. x: [b, ...]. y: int64 [b].
        Returns the mean cross-entropy, the number of correct predictions and d loss / d weight by
        name.
        """
        self._training_mode()
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
        logits = self._forward(leaves, buffers, x)
        alone = self.ranks.world == 1
        loss = F.cross_entropy(logits, y, reduction="mean" if alone else "sum")
        parts = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        correct = (logits.detach().argmax(1) == y).sum()
        gradients = dict(zip(leaves, parts, strict=True))
        if alone:
            return loss.detach(), correct, gradients
        return self.ranks.mean(loss.detach(), correct, gradients, len(y))

    @torch.no_grad()
    def accuracy(
        self,
        weights: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        batches: Iterable[tuple[Tensor, Tensor]],
    ) -> float:
        """Percent of correct predictions over `batches`, those of all ranks, in evaluation mode."""
        self.model.eval()
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        total = 0
        with self.arithmetic():
            for x, y in batches:
                correct += (self._forward(weights, buffers, x).argmax(1) == y).sum()
                total += len(y)
        hits, images = self.ranks.total(int(correct), total)
        return 100 * hits / images

    def flops_per_image(self, x: Tensor) -> int:
        """Floating-point operations of one forward pass of one image, two for each multiply-add. x:
        [b, ...]."""
        self.model.eval()
        # With gradients on: without them an encoder layer becomes one operator that has no count.
        with FlopCounterMode(display=False) as counter, torch.enable_grad():
            self.model(x[:1])
        return int(counter.get_total_flops())


def channels_last(tensor: Tensor) -> Tensor:
    """A 4-d tensor in channels_last layout, any other as it is; layouts choose kernels, so resuming
    keeps them."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def sgd_step(
    weights: Iterable[Tensor],
    gradients: Iterable[Tensor],
    momenta: Iterable[Tensor],
    rate: float | Tensor,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
) -> None:
    """One step of torch's SGD in place, on tensors the caller owns; zero momenta behave as a first
    step. On a GPU it is one kernel, and the rate may be a 0-d tensor."""
    owned = list(weights)
    fused = bool(owned) and owned[0].is_cuda
    with torch.no_grad():
        sgd(
            owned,
            list(gradients),
            list(momenta),
            foreach=not fused,
            fused=fused,
            lr=rate,  # type: ignore[arg-type]
            momentum=momentum,
            nesterov=nesterov and momentum > 0,
            weight_decay=weight_decay,
            dampening=0,
            maximize=False,
        )


@dataclass
class Hooks:
    """What the owner of a training is asked: before each step, whether to stop; now and then,
    whether a checkpoint is due, and to save it. The defaults do nothing."""

    should_stop: Callable[[Trainer], bool] = lambda trainer: False
    due: Callable[[], bool] = lambda: False
    save: Callable[[Trainer], None] = lambda trainer: None


@dataclass
class Trainer:
    """State, data and cost of one run; methods drive it.

    `round` and `step` say where the run is. A method written as `for r in trainer.rounds(n)` around
    `trainer.fit(...)` resumes by itself: both begin at the saved place, and everything else a
    method needs lives in `state`.

    replays: whether training steps are recorded and replayed (see `lthlib.graphs`), by default on a
    GPU. recorder: how.

    A method may set two functions: `observe(step)`, what the history is to hold beside loss and
    accuracy, with `density` among it; and `standing()`, the ticket if the search ended now.
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

    def __post_init__(self) -> None:
        model = self.model
        if self.settings.sync_batchnorm and torch.device(self.device).type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
        self.network = Network(model, self.device, self.settings.precision, self.ranks)
        self.names = prunable_names(self.model, self.prunable)
        self.state: Tensors = {}
        for name, tensor in self.network.weights().items():
            self.state[f"weights/{name}"] = tensor
            self.state[f"momentum/{name}"] = torch.zeros_like(tensor)
        for name, tensor in self.network.buffers().items():
            self.state[f"buffers/{name}"] = tensor
        self.round = 0
        self.step = 0
        self.cost = Cost()
        self.history: list[dict[str, Any]] = []
        self.steps_per_epoch = self.batches("train").steps_per_epoch
        self._flops: int | None = None
        self._replayed: Replayed | None = None
        self._meter = _Meter(self.network.device)

    def group(self, prefix: str) -> Tensors:
        """The tensors of the state under `prefix/`, by the rest of their names; in-place changes
        are seen."""
        start = len(prefix) + 1
        return {
            key[start:]: tensor
            for key, tensor in self.state.items()
            if key.startswith(prefix + "/")
        }

    def keep(self, prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
        """Add copies of tensors to the state under `prefix/`, unless a checkpoint brought them;
        returns the group."""
        for name, tensor in tensors.items():
            self.state.setdefault(f"{prefix}/{name}", tensor.detach().clone())
        return self.group(prefix)

    def load(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Copy values into a group of the state, in place."""
        for name, tensor in tensors.items():
            self.state[f"{prefix}/{name}"].copy_(tensor)

    def zero(self, prefix: str) -> None:
        """Fill a group of the state with zeros."""
        for tensor in self.group(prefix).values():
            tensor.zero_()

    def prunable_weights(self) -> Tensors:
        """The weights that a mask may cover."""
        return {name: self.state[f"weights/{name}"] for name in self.names}

    def steps(self, length: str = "") -> int:
        """A length (by default the whole training's) in optimiser steps."""
        return steps_of(length or self.settings.length, self.steps_per_epoch)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of `step` in a training of `steps`."""
        return learning_rate(self.settings, step, steps, self.steps_per_epoch)

    def dial(self, value: Callable[[int], float], t: int) -> float | Tensor:
        """`value(t)`, a number that changes from step to step, such as the learning rate. A step
        asks for it here: where steps are replayed, it is a tensor that is set before each."""
        return self._replayed.dial(value, t) if self._replayed else value(t)

    def optimiser_options(self) -> dict[str, Any]:
        """The recipe's options of `sgd_step`."""
        s = self.settings
        return {"momentum": s.momentum, "nesterov": s.nesterov, "weight_decay": s.weight_decay}

    def batches(self, stream: str) -> Batches:
        """The training images in the order of a named stream; a rank gets its share of each
        batch."""
        return Batches(
            self.dataset.train,
            self.data,
            self.settings.batch_size,
            seed=self.seed,
            stream=stream,
            device=self.network.device,
            dtype=self.network.dtype,
            share=self.ranks.share,
        )

    def in_order(
        self, images: Part, batch_size: int = 1000, share: tuple[int, int] = (0, 1)
    ) -> EvaluationBatches:
        """Every image of a part once, as judging takes them, or a rank's share of them."""
        network = self.network
        return evaluation_batches(
            images, self.data, batch_size, device=network.device, dtype=network.dtype, share=share
        )

    def rounds(self, count: int) -> Iterator[int]:
        """0, 1, ..., count - 1, from the saved round on; the state at the end of a round's body
        starts the next."""
        while self.round < count:
            yield self.round
            self.round, self.step = self.round + 1, 0
            if self.hooks.due():
                self.hooks.save(self)

    def fit(
        self,
        step: Callable[..., Outcome],
        *,
        stop: int,
        start: int = 0,
        streams: Sequence[str] = ("train",),
        snapshot_at: int | None = None,
        replays: bool = True,
    ) -> None:
        """Run `step(t, *batches)` for t = start ... stop - 1, or from the saved step on.

        streams: one batch of each is drawn per step. snapshot_at: the step before which weights,
        buffers and momenta are kept as the rewind point. replays: every step does the same but for
        its batches and dials, so that it may be replayed. Raises Diverged for a loss that is not
        finite, Paused when asked to stop.
        """
        begin = max(start, self.step)
        sources = [self.batches(name).stream(begin) for name in streams]
        salt = _salt(self.seed, self.round, *streams)
        self._meter.reset()
        device = self.network.device
        on_gpu = device.type == "cuda"
        wanted = on_gpu if self.replays is None else self.replays
        if wanted and replays and self.ranks.world == 1 and not isinstance(step, Replayed):
            step = Replayed(step, device, self.recorder)
        self._replayed = step if isinstance(step, Replayed) else None
        with (
            torch.random.fork_rng(devices=[device] if on_gpu else []),
            self.network.arithmetic(),
        ):
            for t in range(begin, stop):
                self.step = t
                if t == snapshot_at:
                    self.snapshot()
                if self.hooks.should_stop(self):
                    self._book(t)
                    self.hooks.save(self)
                    raise Paused(
                        f"stopped before step {t} of round {self.round}; the state is saved"
                    )
                _seed(self.network.device, salt + t)
                try:
                    outcome = step(t, *[next(source) for source in sources])
                except MaskError as error:
                    raise Diverged(f"step {t}: {error}; a smaller learning rate may help") from None
                self._meter.add(outcome, t)
                if (t + 1) % self.steps_per_epoch == 0 or t + 1 == stop:
                    self.step = t + 1
                    self._book(t + 1)
                    if t + 1 < stop and self.hooks.due():
                        self.hooks.save(self)
        if snapshot_at == stop:
            self.snapshot()

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
        cost = self.cost + Cost(
            images=meter.images,
            forward_passes=meter.forward_passes,
            backward_passes=meter.backward_passes,
            flops=self.flops_per_image() * (meter.forward_passes + 2 * meter.backward_passes),
            seconds=time.perf_counter() - meter.started,
        )
        # From whole steps, so that a run that was interrupted ends with the same number.
        steps = round(self.cost.epochs * self.steps_per_epoch) + meter.steps
        cost.epochs = steps / self.steps_per_epoch
        return cost

    def _book(self, step: int) -> None:
        meter = self._meter
        if meter.steps == 0:
            return
        self._agree(f"round {self.round}, step {step}")
        meter.gather(self.ranks)
        epoch = meter.read()
        self.cost = self.spent
        seen = self.observe(step - 1) if self.observe else {}
        self.history.append({"round": self.round, "step": step, **epoch, **seen})
        meter.reset()

    def _agree(self, when: str) -> None:
        """BatchNorm's statistics become those of rank 0; all else must be equal already."""
        self.ranks.follow(self.group("buffers").values())
        self.ranks.check_same(self.state, when)

    def flops_per_image(self) -> int:
        """Forward floating-point operations of one image."""
        if self._flops is None:
            inputs, _ = next(iter(self.in_order(self.dataset.train, 1)))
            self._flops = self.network.flops_per_image(inputs)
        return self._flops

    def snapshot(self) -> None:
        """Keep weights, buffers and momenta as the rewind point."""
        self.ranks.follow(self.group("buffers").values())
        for group in ("weights", "buffers", "momentum"):
            for name, tensor in self.group(group).items():
                self.state[f"rewind/{group}/{name}"] = tensor.clone()

    def rewind(self, optimiser: str = "fresh") -> None:
        """Bring back the rewind point; momenta become zeros (`fresh`) or what they were
        (`restored`)."""
        for group in ("weights", "buffers"):
            self.load(group, self.group(f"rewind/{group}"))
        if optimiser == "restored":
            self.load("momentum", self.group("rewind/momentum"))
        else:
            self.zero("momentum")

    def evaluate(
        self, part: str, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> float | None:
        """Percent correct on `validation` or `test`, from effective weights; None where that part
        is empty."""
        images = getattr(self.dataset, part)
        if images is None or len(images) == 0:
            return None
        batches = self.in_order(images, share=self.ranks.share)
        return self.network.accuracy(weights, buffers, batches)

    def gather_statistics(self, weights: Mapping[str, Tensor]) -> Tensors:
        """BatchNorm's buffers averaged over one epoch forward with these effective weights; the
        state's own stay as they are. Counts as forward passes."""
        buffers = {name: tensor.clone() for name, tensor in self.group("buffers").items()}
        begun, images = time.perf_counter(), 0
        source = self.batches("statistics").stream()
        with self.network.averaging(buffers), self.network.arithmetic():
            for _ in range(self.steps_per_epoch):
                x, _y = next(source)
                self.network.forward(weights, buffers, x)
                images += len(x)
        self.ranks.average(buffers.values())
        (images,) = self.ranks.total(images)
        flops, seconds = self.flops_per_image() * images, time.perf_counter() - begun
        self.cost += Cost(images=images, forward_passes=images, flops=flops, seconds=seconds)
        return buffers

    def masked_step(self, mask: Mask, steps: int, value: float = 1.0) -> Callable[..., Outcome]:
        """A step of SGD under a fixed mask: pruned weights and their momenta are exactly 0 before
        and after it.

        steps: length of the whole schedule that the learning rate follows. value: of the mask where
        it keeps; the network uses value * weight.
        """
        weights, momenta, buffers = (
            self.group("weights"),
            self.group("momentum"),
            self.group("buffers"),
        )
        mask.check(weights)
        mask = mask.to(self.network.device)
        pruned = {name: kept for name, kept in mask.items() if not bool(kept.all())}
        for name, kept in pruned.items():
            weights[name].mul_(kept)
            momenta[name].mul_(kept)
        options = self.optimiser_options()

        def rate(t: int) -> float:
            return self.rate(t, steps)

        def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
            x, y = batch
            effective = weights
            if value != 1:
                effective = weights | {name: weights[name] * value for name in mask}
            loss, correct, gradients = self.network.gradients(effective, buffers, x, y)
            if value != 1:
                gradients |= {name: gradients[name] * value for name in mask}
            for name, kept in pruned.items():
                gradients[name] = gradients[name] * kept
            sgd_step(
                weights.values(),
                gradients.values(),
                momenta.values(),
                self.dial(rate, t),
                **options,
            )
            for name, kept in pruned.items():
                weights[name].mul_(kept)
            return Outcome(loss, correct, len(y), len(y), len(y))

        return step


def _seed(device: torch.device, seed: int) -> None:
    # torch.manual_seed also queues the seed for every accelerator there might be: 0.3 ms a step.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _salt(*address: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(address).encode(), digest_size=6).digest(), "big")


class _Meter:
    """Sums over steps, kept on the device and read once an epoch."""

    def __init__(self, device: torch.device):
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.loss = torch.zeros((), device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=self.device)
        self.steps = self.images = self.forward_passes = self.backward_passes = 0
        self.started = time.perf_counter()

    def add(self, outcome: Outcome, step: int) -> None:
        self.loss += outcome.loss
        self.correct += outcome.correct
        bad = ~torch.isfinite(outcome.loss) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)
        self.steps += 1
        self.images += outcome.images
        self.forward_passes += outcome.forward_passes
        self.backward_passes += outcome.backward_passes

    def gather(self, ranks: Ranks) -> None:
        """Count the images of all ranks; loss and correct predictions are already those of all."""
        self.images, self.forward_passes, self.backward_passes = ranks.total(
            self.images, self.forward_passes, self.backward_passes
        )

    def read(self) -> dict[str, float]:
        bad = int(self.first_bad)
        if bad >= 0:
            raise Diverged(
                f"the loss became NaN or infinite at step {bad}; a smaller learning rate may help"
            )
        return {
            "loss": float(self.loss) / self.steps,
            "train_accuracy": 100 * int(self.correct) / self.images,
            "seconds": time.perf_counter() - self.started,
        }
