"""Bi-level pruning (Zhang et al., 2022).

Upper level: scores s that choose the mask; lower level: weights under it.
    min over m of l(m * theta(m))   with   theta(m) = argmin l(m * theta) + gamma/2 |theta|^2
Assuming a zero Hessian, d theta / dm = -(1/gamma) diag(g) with g the gradient of l at m * theta, so
that the upper gradient is (theta - (1/gamma) m g) g: one backward pass, first order (Algorithm A1,
A3 to A5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lthlib.errors import ConfigError, MaskError, check_choice
from lthlib.masks import STRUCTURES, Mask, kept_count, pack, select, top_k_global, unpack
from lthlib.methods.base import Method, make_ticket
from lthlib.methods.retrain import load_start
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Tensors, Trainer, sgd_step

VARIANTS = ("paper", "release")
AT = ("mask", "scores")
DEPARTURES = {
    "aliased": "scores and weights share storage: the mask is the top-k of |theta|, and each level "
    "moves what the other owns; ranks as `signed` does",
    "signed": "scores start as theta, the mask is the top-k of |s|, and d|s|/ds = sign(s)",
    "squared": "the implicit term is -lr2 (score gradient)^2, from a second backward pass; what "
    "else the upper level trains gets it too",
    "shared-optimisers": "the optimiser of either level owns all parameters; what is not its own "
    "has a gradient of 0, which still decays it and moves it by momentum",
    "score-decay": "scores decay and have momentum as weights do",
    "upper-batchnorm": "the upper level trains BatchNorm's affine parameters, its passes move the "
    "statistics, and so does one more pass for the log",
    "per-epoch": "the lower rate follows a cosine by whole epochs, from epoch - 1",
    "mask-rate": "the upper rate is the lower's, divided by 10 after half and again after three "
    "quarters of the epochs; `upper_learning_rate` is ignored",
    "plain-momentum": "no Nesterov momentum, whatever the recipe says",
    "counting": "keeps n - int((1 - density) n) weights of n, not the nearest number",
}


@dataclass(frozen=True)
class BiPSettings:
    """density: kept fraction in (0, 1], over all prunable weights together. length: of the
    alternation, by default the recipe's. gamma: of the lower level's ridge term; implicit: use the
    implicit gradient at all (False: 1/gamma = 0).

    lower_learning_rate, upper_learning_rate: both follow the recipe's schedule shape.
    upper_momentum: of the scores. weight_decay: of the weights, by default the recipe's.
    clip: bound on the norm of the upper gradient, 0 for none; a bound is a departure from the
    paper.
    lower_steps: SGD steps on the weights for each on the scores.
    variant: `paper`, or `release` for what the released code does, bugs included.
    implicit_rate: the release's lr2, in place of 1/gamma.
    structure: `unstructured`, or whole `filter`s or `channel`s of convolutions, layer by layer (see
    `lthlib.masks.select`).
    upper_at: m in the upper gradient: the binary `mask`, its gradient passed straight through to
    the scores, or the `scores` themselves, as A4 is printed.
    switched: names from `DEPARTURES`: done in the paper's variant, undone in the release's.
    """

    density: float = 0.1
    length: str = ""
    gamma: float = 1.0
    implicit: bool = True
    lower_learning_rate: float = 0.1
    upper_learning_rate: float = 0.1
    upper_momentum: float = 0.9
    clip: float = 0.0
    lower_steps: int = 1
    variant: str = "paper"
    implicit_rate: float = 1e-4
    structure: str = "unstructured"
    upper_at: str = "mask"
    switched: tuple[str, ...] = ()
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        kept_count(1 << 40, self.density)
        if not self.gamma > 0:
            raise ConfigError(
                f"bip.gamma is {self.gamma}; expected a positive number "
                "(implicit=False for 1/gamma = 0)"
            )
        if not self.lower_learning_rate > 0 or self.upper_learning_rate < 0:
            raise ConfigError(
                "bip needs lower_learning_rate > 0 and upper_learning_rate >= 0 "
                "(0 freezes the mask)"
            )
        if self.weight_decay is not None and not self.weight_decay >= 0:
            raise ConfigError(f"bip.weight_decay is {self.weight_decay}; expected 0 or more")
        if self.clip < 0 or self.lower_steps < 1:
            raise ConfigError("bip needs clip >= 0 (0 for none) and lower_steps >= 1")
        for name, value, allowed in (
            ("variant", self.variant, VARIANTS),
            ("structure", self.structure, STRUCTURES),
            ("upper_at", self.upper_at, AT),
            *(("switched", name, tuple(DEPARTURES)) for name in self.switched),
        ):
            check_choice(f"bip.{name}", value, allowed)
        if self.variant == "release" and self.switched == ("signed",):
            raise ConfigError(
                "bip.switched undoes 'signed', which 'aliased' brings all the same; undo both"
            )

    def departs(self, name: str) -> bool:
        """Whether a departure of the release from the paper is made."""
        return (name in self.switched) == (self.variant == "paper")

    @property
    def signed(self) -> bool:
        """Whether the mask ranks |s|."""
        return self.departs("aliased") or self.departs("signed")


def upper_gradient(theta: Tensor, gradient: Tensor, mask: Tensor, inverse_gamma: float) -> Tensor:
    """(theta - (1/gamma) m g) g, the hypergradient with a zero Hessian (A4); all tensors of one
    shape."""
    return (theta - inverse_gamma * (mask * gradient)) * gradient


@dataclass
class Alternation:
    """One step of BiP: SGD on the weights under the mask, SGD on the scores from another batch, a
    new mask.

    In the paper's variant the optimiser of a level owns only that level's variables; BatchNorm is
    trained in the lower level alone, and the upper pass works on copies of its statistics. What the
    release does instead is one branch for each of `DEPARTURES`. Where its passes repeat what was
    computed already, they are counted and not made again.
    """

    trainer: Trainer
    settings: BiPSettings
    steps: int

    def __post_init__(self) -> None:
        trainer, settings = self.trainer, self.settings
        self.weights, self.buffers = trainer.group("weights"), trainer.group("buffers")
        self.momenta, self.masks = trainer.group("momentum"), trainer.group("masks")
        aliased = settings.departs("aliased")
        self.scores = trainer.prunable_weights() if aliased else trainer.group("scores")
        self.score_momenta = trainer.group("score_momentum")
        self.upper_momenta = trainer.group("upper_momentum")
        self.lower_score_momenta = trainer.group("lower_score_momentum")
        self.inverse_gamma = 1 / settings.gamma if settings.implicit else 0.0
        self.lower_options = trainer.optimiser_options()
        if settings.weight_decay is not None:
            self.lower_options["weight_decay"] = settings.weight_decay
        if settings.departs("plain-momentum"):
            self.lower_options["nesterov"] = False
        self.upper_options = self.lower_options
        if not settings.departs("score-decay"):
            self.upper_options = {
                "momentum": settings.upper_momentum, "nesterov": False, "weight_decay": 0.0
            }  # fmt: skip
        norms = batchnorm_names(trainer.network.model)
        self.upper_trained = norms if settings.departs("upper-batchnorm") else set()

    def __call__(self, t: int, *batches: tuple[Tensor, Tensor]) -> Outcome:
        outcomes = [self._lower(t, batch) for batch in batches[:-1]]
        outcomes.append(self._upper(t, batches[-1]))
        return Outcome(
            torch.stack([one.loss for one in outcomes]).mean(),
            torch.stack([one.correct for one in outcomes]).sum(),
            sum(one.images for one in outcomes),
            sum(one.forward_passes for one in outcomes),
            sum(one.backward_passes for one in outcomes),
        )

    def _lower(self, t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        loss, correct, gradients = self._gradients(self.masks, self.buffers, x, y)
        gradients |= {name: gradients[name] * mask for name, mask in self.masks.items()}
        rate = self.trainer.dial(self._lower_rate, t)
        _sgd(self.weights, gradients, self.momenta, rate, self.lower_options)
        # The release's first lower step skips the scores: their gradient does not exist yet.
        if self.settings.departs("shared-optimisers") and t > 0:
            rest = self.lower_score_momenta
            _sgd(self.scores, _zeros(self.scores), rest, rate, self.lower_options)
        if self.settings.departs("shared-optimisers") or self.settings.departs("aliased"):
            self._choose()
        return Outcome(loss, correct, len(y), len(y), len(y))

    def _upper(self, t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        settings, weights = self.settings, self.weights
        relaxed = self.scores if settings.upper_at == "scores" else self.masks
        moving, squared = settings.departs("upper-batchnorm"), settings.departs("squared")
        buffers = self.buffers if moving else {n: b.clone() for n, b in self.buffers.items()}
        loss, correct, gradients = self._gradients(relaxed, buffers, x, y)
        if squared and moving:
            self.trainer.network.forward(effective(weights, relaxed), buffers, x)
        inverse_gamma = 0.0 if squared else self.inverse_gamma
        upward = {
            n: upper_gradient(weights[n], gradients[n], relaxed[n], inverse_gamma)
            for n in self.scores
        }
        if settings.signed:
            upward = {n: found * self.scores[n].sign() for n, found in upward.items()}
        others = {n: gradients[n] for n in self.upper_trained}
        if squared:
            lr2 = settings.implicit_rate
            upward, others = (
                {n: g - lr2 * g**2 for n, g in found.items()} for found in (upward, others)
            )
        if settings.clip:
            clip_norm(upward.values(), settings.clip)
        rate = self.trainer.dial(self._upper_rate, t)
        if settings.departs("shared-optimisers"):
            others = _zeros(weights) | others
        owned = {n: weights[n] for n in others}
        # Weights keep their own decay and momentum whichever optimiser moves them.
        _sgd(owned, others, self.upper_momenta, rate, self.lower_options)
        _sgd(self.scores, upward, self.score_momenta, rate, self.upper_options)
        self._choose()
        if moving:
            self.trainer.network.forward(effective(weights, self.masks), buffers, x)
        images = len(y)
        return Outcome(
            loss, correct, images, (1 + squared + moving) * images, (1 + squared) * images
        )

    def _gradients(
        self, masks: Tensors, buffers: Tensors, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, Tensors]:
        thin = effective(self.weights, masks)
        return self.trainer.network.gradients(thin, buffers, x, y)

    def _choose(self) -> None:
        self.trainer.load("masks", choose(self.scores, self.settings))

    def _lower_rate(self, t: int) -> float:
        if self.settings.departs("per-epoch"):
            per_epoch = self.trainer.steps_per_epoch
            return self.settings.lower_learning_rate * _cosine(t, self.steps, per_epoch)
        return self.settings.lower_learning_rate * self._shape(t)

    def _upper_rate(self, t: int) -> float:
        if self.settings.departs("mask-rate"):
            per_epoch = self.trainer.steps_per_epoch
            return self.settings.lower_learning_rate * _drops(t, self.steps, per_epoch)
        return self.settings.upper_learning_rate * self._shape(t)

    def _shape(self, t: int) -> float:
        return self.trainer.rate(t, self.steps) / self.trainer.settings.learning_rate


def choose(scores: Mapping[str, Tensor], settings: BiPSettings) -> Mask:
    """The mask of the scores: their projection onto the density."""
    if settings.signed:
        scores = {name: score.abs() for name, score in scores.items()}
    if settings.structure == "unstructured" and settings.departs("counting"):
        size = sum(score.numel() for score in scores.values())
        return top_k_global(scores, size - int((1 - settings.density) * size))
    return select(scores, settings.density, settings.structure)


def batchnorm_names(model: nn.Module) -> set[str]:
    """Names of BatchNorm's affine parameters."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.named_parameters()
    }


def _sgd(
    weights: Tensors,
    gradients: Tensors,
    momenta: Tensors,
    rate: float | Tensor,
    options: dict[str, Any],
) -> None:
    names = list(weights)
    sgd_step(
        weights.values(), [gradients[n] for n in names], [momenta[n] for n in names], rate,
        **options,
    )  # fmt: skip


def _zeros(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def effective(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensors:
    """m * theta where there is a mask, theta elsewhere."""
    return {**weights, **{name: weights[name] * mask for name, mask in masks.items()}}


def clip_norm(gradients: Iterable[Tensor], bound: float) -> None:
    """Scale gradients in place so that their joint Euclidean norm is at most `bound`."""
    gradients = list(gradients)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    factor = (bound / (norm + 1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)


# The release computes its cosine from epoch - 1, so that it starts a little below the full rate.
def _cosine(step: int, steps: int, steps_per_epoch: int) -> float:
    epochs = max(1, math.ceil(steps / steps_per_epoch))
    return 0.5 * (1 + math.cos(math.pi * (step // steps_per_epoch - 1) / epochs))


def _drops(step: int, steps: int, steps_per_epoch: int) -> float:
    epoch, epochs = step // steps_per_epoch, math.ceil(steps / steps_per_epoch)
    return 1.0 if epoch < 0.5 * epochs else 0.1 if epoch < 0.75 * epochs else 0.01


def prepare(trainer: Trainer, settings: BiPSettings) -> None:
    """Put what an `Alternation` needs beside the weights into the state: scores, the mask of the
    largest magnitudes, and momenta."""
    prunable = trainer.prunable_weights()
    magnitudes = {name: weight.abs() for name, weight in prunable.items()}
    if not settings.departs("aliased"):
        trainer.keep("scores", prunable if settings.departs("signed") else magnitudes)
    trainer.keep("score_momentum", _zeros(prunable))
    if settings.departs("shared-optimisers"):
        trainer.keep("lower_score_momentum", _zeros(prunable))
    if settings.departs("shared-optimisers") or settings.departs("upper-batchnorm"):
        trainer.keep("upper_momentum", _zeros(trainer.group("weights")))
    first = choose(magnitudes, settings)
    trainer.keep("masks", first)
    trainer.keep("earlier_masks", {name: pack(kept) for name, kept in first.items()})


def search(trainer: Trainer, settings: BiPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, judged as found: m * theta at the end, without retraining. parent: the
    trained dense network."""
    assert parent is not None and parent.weights is not None
    steps = trainer.steps(settings.length)
    if trainer.round == 0:
        load_start(trainer, parent, "own")
    prepare(trainer, settings)
    masks = trainer.group("masks")
    trainer.observe = _watch(trainer, steps)
    lower = tuple(f"lower-{i}" for i in range(settings.lower_steps))
    for _ in trainer.rounds(1):
        trainer.fit(Alternation(trainer, settings, steps), stop=steps, streams=(*lower, "upper"))
        mask = Mask({name: mask.clone() for name, mask in masks.items()})
        yield make_ticket(
            trainer, mask, trainer.group("weights"), point="ticket", index=0, judged="found",
            target_density=settings.density,
        )  # fmt: skip


def _watch(trainer: Trainer, steps: int) -> Callable[[int], dict[str, Any]]:
    """Density of the mask, and its overlap with the mask of one epoch before."""
    masks, earlier = trainer.group("masks"), trainer.group("earlier_masks")

    def observe(step: int) -> dict[str, Any]:
        mask = Mask(masks).to("cpu")
        if mask.kept == 0:  # on a GPU, where the ranking does not look for them
            raise MaskError("the scores hold NaN; a smaller upper_learning_rate may help")
        before = Mask({n: unpack(earlier[n].cpu(), kept.shape) for n, kept in mask.items()})
        if (step + 1) % trainer.steps_per_epoch == 0 or step + 1 == steps:
            trainer.load("earlier_masks", {name: pack(kept) for name, kept in mask.items()})
        return {"density": mask.density, "overlap": mask.overlap(before)}

    return observe


def _work(settings: BiPSettings, steps: Callable[[str], int], start: int) -> int:
    return (settings.lower_steps + 1 + settings.departs("squared")) * steps(settings.length)


METHOD = Method("bip", "BiP", BiPSettings, search, _work, version=2, parent="dense")
