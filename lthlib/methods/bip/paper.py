"""Bi-level pruning (Zhang et al., 2022).

Upper level: scores s that choose the mask; lower level: weights under it.
    min over m of l(m * theta(m))   with   theta(m) = argmin l(m * theta) + gamma/2 |theta|^2
Assuming a zero Hessian, d theta / dm = -(1/gamma) diag(g) with g the gradient of l at m * theta, so
that the upper gradient is (theta - (1/gamma) m g) g: one backward pass, first order (Algorithm A1,
A3 to A5). What the released code does instead is in `release`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from lthlib.errors import ConfigError
from lthlib.flat import Flat
from lthlib.masks import Mask, Structure, kept_count, top_k, top_k_global
from lthlib.methods.base import steps_by_sgd
from lthlib.settings import (
    Count,
    Density,
    Momentum,
    NotNegative,
    OwnLength,
    Positive,
    Settings,
    one_of,
)
from lthlib.training import Outcome, Trainer, sgd_step

VARIANTS = ("paper", "release")
AT = ("mask", "scores")
# What the release does otherwise; see `release`.
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
class BiPSettings(Settings):
    """Settings of bi-level pruning; both levels step by SGD, whatever optimiser the recipe has.

    Attributes:
        density: kept fraction in (0, 1], over all prunable weights together.
        length: of the alternation, by default the recipe's.
        gamma: of the lower level's ridge term; the paper's value was not found.
        implicit: whether the implicit gradient is used at all; False: 1/gamma = 0.
        lower_learning_rate: of the weights, in the recipe's schedule; 0.01 in the paper's text, 0.1
            in the release's `configs/*/bip.yml`.
        upper_learning_rate: of the scores, in the recipe's schedule; 0.1 in the paper's text.
        upper_momentum: of the scores.
        clip: bound on the norm of the upper gradient, 0 for none; a bound is a departure from the
            paper.
        lower_steps: SGD steps on the weights for each on the scores.
        variant: `paper`, or `release` for what the released code does, bugs included.
        implicit_rate: the release's lr2, in place of 1/gamma.
        structure: `unstructured`, or each whole `filter` or `channel` of convolutions, layer by
            layer (see `lthlib.masks.select`).
        upper_at: m in the upper gradient: the binary `mask`, its gradient passed straight through
            to the scores, or the `scores` themselves, as A4 is printed.
        switched: names from `DEPARTURES`: done in the paper's variant, undone in the release's.
        weight_decay: of the weights, by default the recipe's.
    """

    density: Density = 0.1
    length: OwnLength = ""
    gamma: Positive = 1.0
    implicit: bool = True
    lower_learning_rate: Positive = 0.1
    upper_learning_rate: NotNegative = 0.1
    upper_momentum: Momentum = 0.9
    clip: NotNegative = 0.0
    lower_steps: Count = 1
    variant: Annotated[str, one_of(VARIANTS)] = "paper"
    implicit_rate: NotNegative = 1e-4
    structure: Structure = "unstructured"
    upper_at: Annotated[str, one_of(AT)] = "mask"
    switched: tuple[Annotated[str, one_of(DEPARTURES)], ...] = ()
    weight_decay: NotNegative | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "release" and self.switched == ("signed",):
            raise ConfigError("bip.switched undoes 'signed', which 'aliased' brings; undo both")

    @property
    def departures(self) -> frozenset[str]:
        """The departures from the paper that are made."""
        by_default = DEPARTURES.keys() if self.variant == "release" else ()
        return frozenset(by_default) ^ frozenset(self.switched)


def upper_gradient(theta: Tensor, gradient: Tensor, mask: Tensor, inverse_gamma: float) -> Tensor:
    """(theta - (1/gamma) m g) g, the hypergradient with a zero Hessian.

    Args:
        theta: weights, of any shape.
        gradient: g, by the effective weights m * theta, of that shape.
        mask: m, or the scores in its place, of that shape.
        inverse_gamma: 1/gamma.

    Returns:
        The gradient of the upper level, of that shape.

    Source:
        BiP (2022), (A4).
    """
    return (theta - inverse_gamma * (mask * gradient)) * gradient


@dataclass
class Alternation:
    """One step of BiP: SGD on the weights, SGD on the scores from another batch, a new mask.

    The optimiser of a level owns that level's variables and nothing else; BatchNorm is trained in
    the lower level alone; its statistics are put back after the upper pass.

    Attributes:
        trainer: of the run, with the trained dense network's weights.
        settings: of the method.
        steps: of the schedule that both learning rates follow.
    """

    trainer: Trainer
    settings: BiPSettings
    steps: int

    def __post_init__(self) -> None:
        trainer, settings = self.trainer, self.settings
        self.prepare()
        self.weights, self.buffers = trainer.flat("weights"), trainer.flat("buffers")
        self.momenta = trainer.flat("momentum").head(self.weights)
        self.pruned, self.thin = trainer.prunable_weights(), trainer.thinned()
        self.masks, self.score_momenta = trainer.flat("masks"), trainer.flat("score_momentum")
        self.scores = self.scored()
        self.at_pruned = trainer.gradients.data[: len(self.masks.data)]
        self.upward = zeros(self.scores)
        self.saved = torch.empty_like(self.buffers.data)
        self.inverse_gamma = 1 / settings.gamma if settings.implicit else 0.0
        self.lower_options = steps_by_sgd(trainer, "BiP's weights and scores")
        if settings.weight_decay is not None:
            self.lower_options["weight_decay"] = settings.weight_decay
        self.upper_options: dict[str, Any] = {
            "momentum": settings.upper_momentum, "nesterov": False, "weight_decay": 0.0
        }  # fmt: skip

    def prepare(self) -> None:
        """Put into the state what is trained beside the weights, as it is at the beginning."""
        prunable = self.trainer.prunable_weights()
        magnitudes = prunable.like(prunable.data.abs())
        self.trainer.keep("scores", magnitudes)
        self.trainer.keep("score_momentum", zeros(magnitudes))
        self.trainer.keep("masks", self.mask_of(magnitudes))

    def __call__(self, t: int, *batches: tuple[Tensor, Tensor]) -> Outcome:
        outcomes = [self.lower(t, batch) for batch in batches[:-1]]
        outcomes.append(self.upper(t, batches[-1]))
        return Outcome(
            torch.stack([outcome.loss for outcome in outcomes]).mean(),
            torch.stack([outcome.correct for outcome in outcomes]).sum(),
            sum(outcome.images for outcome in outcomes),
            sum(outcome.forward_passes for outcome in outcomes),
            sum(outcome.backward_passes for outcome in outcomes),
        )

    def lower(self, t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        """SGD on the weights; the mask stays."""
        x, y = batch
        loss, correct = self.gradients(self.masks, x, y)
        self.at_pruned.mul_(self.masks.data)
        rate = self.trainer.dial(self.lower_rate, t)
        sgd_step(self.weights, self.trainer.gradients, self.momenta, rate, **self.lower_options)
        return Outcome(loss, correct, len(y), len(y), len(y))

    def upper(self, t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        """SGD on the scores, and the mask that they choose; the weights stay."""
        x, y = batch
        relaxed = self.scores if self.settings.upper_at == "scores" else self.masks
        self.saved.copy_(self.buffers.data)
        loss, correct = self.gradients(relaxed, x, y)
        self.buffers.data.copy_(self.saved)
        self.upward.data.copy_(
            upper_gradient(self.pruned.data, self.at_pruned, relaxed.data, self.inverse_gamma)
        )
        if self.settings.clip:
            clip_norm(self.upward, self.settings.clip)
        rate = self.trainer.dial(self.upper_rate, t)
        sgd_step(self.scores, self.upward, self.score_momenta, rate, **self.upper_options)
        self.choose()
        return Outcome(loss, correct, len(y), len(y), len(y))

    def gradients(self, masks: Flat, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Put the gradients by the effective weights, masks times weights, into the trainer's.

        Args:
            masks: of the prunable weights, or scores in their place.
            x: inputs [b, ...].
            y: targets [b, ...].

        Returns:
            The mean loss, and the number of correct predictions.
        """
        network, into = self.trainer.network, self.trainer.gradients
        loss, correct, _ = network.gradients(self.thin(masks.data), self.buffers, x, y, into)
        return loss, correct

    def choose(self) -> None:
        """The mask becomes the scores' projection onto the density."""
        if self.settings.structure == "unstructured":
            scores = self.ranked(self.scores.data)
            if (within := self.trainer.network.open) is not None:
                scores = scores.masked_fill(within[: len(scores)] == 0, -torch.inf)
            self.masks.data.copy_(
                top_k(scores, self.kept(len(scores)), lambda: self.scores.positions)
            )
        else:
            self.trainer.load("masks", self.mask_of(self.scores))

    def mask_of(self, scores: Mapping[str, Tensor]) -> Mask:
        """The projection of scores onto the density."""
        ranked = {name: self.ranked(score) for name, score in scores.items()}
        if self.settings.structure == "unstructured":
            return top_k_global(ranked, self.kept(sum(s.numel() for s in ranked.values())))
        return self.trainer.select(ranked, self.settings.density, self.settings.structure)

    def ranked(self, scores: Tensor) -> Tensor:
        """What of the scores the mask ranks."""
        return scores

    def kept(self, total: int) -> int:
        """How many of `total` weights the density keeps."""
        return kept_count(total, self.settings.density)

    def scored(self) -> Flat:
        """The scores, where they lie."""
        return self.trainer.flat("scores")

    def lower_rate(self, t: int) -> float:
        """Learning rate of the weights at step t."""
        return self.settings.lower_learning_rate * self._share_of_rate(t)

    def upper_rate(self, t: int) -> float:
        """Learning rate of the scores at step t."""
        return self.settings.upper_learning_rate * self._share_of_rate(t)

    def _share_of_rate(self, t: int) -> float:
        return self.trainer.rate(t, self.steps) / self.trainer.settings.learning_rate


def zeros(tensors: Flat) -> Flat:
    """Zeros in the layout of named tensors."""
    return tensors.like(torch.zeros_like(tensors.data))


def clip_norm(gradients: Flat, bound: float) -> None:
    """Scale gradients in place so that their joint Euclidean norm is at most `bound`."""
    norms = torch._foreach_norm(list(gradients.values()))
    norm = torch.linalg.vector_norm(torch.stack(norms))
    gradients.data.mul_((bound / (norm + 1e-12)).clamp(max=1.0))
