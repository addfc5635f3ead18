"""Bi-level pruning (Zhang et al., 2022).

Upper level: scores s that choose the mask; lower level: weights under it.
    min over m of l(m * theta(m))   with   theta(m) = argmin l(m * theta) + gamma/2 |theta|^2
Assuming a zero Hessian, d theta / dm = -(1/gamma) diag(g) with g the gradient of l at m * theta, so
that the upper gradient is (theta - (1/gamma) m g) g: one backward pass, first order (Algorithm A1,
A3 to A5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lthlib.errors import ConfigError
from lthlib.masks import Mask, kept_count, top_k_global
from lthlib.methods.base import Method, make_ticket
from lthlib.methods.retrain import load_start
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Tensors, Trainer, sgd_step

VARIANTS = ("paper", "release")


@dataclass(frozen=True)
class BiPSettings:
    """density: kept fraction in (0, 1], over all prunable weights together. length: of the
    alternation, by default the recipe's. gamma: of the lower level's ridge term; implicit: use the
    implicit gradient at all (False: 1/gamma = 0).

    lower_learning_rate, upper_learning_rate: both follow the recipe's schedule shape.
    upper_momentum: of the scores.
    clip: bound on the norm of the upper gradient, 0 for none; a bound is a departure from the
    paper.
    lower_steps: SGD steps on the weights for each on the scores.
    variant: `paper`, or `release` for what the released code does, bugs included (see
    `release_step`); it ignores gamma, implicit, clip, lower_steps and upper_momentum.
    implicit_rate: the release's lr2, in place of 1/gamma.
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
        if self.clip < 0 or self.lower_steps < 1:
            raise ConfigError("bip needs clip >= 0 (0 for none) and lower_steps >= 1")
        if self.variant not in VARIANTS:
            raise ConfigError(
                f"bip.variant is {self.variant!r}; expected one of {', '.join(VARIANTS)}"
            )


def upper_gradient(theta: Tensor, gradient: Tensor, mask: Tensor, inverse_gamma: float) -> Tensor:
    """(theta - (1/gamma) m g) g, the hypergradient with a zero Hessian (A4); all tensors of one
    shape."""
    return (theta - inverse_gamma * (mask * gradient)) * gradient


def paper_step(trainer: Trainer, settings: BiPSettings, steps: int) -> Callable[..., Outcome]:
    """One alternation: SGD on the weights under the mask, SGD on the scores from another batch, a
    new mask.

    The optimiser of a level owns only that level's variables; BatchNorm is trained in the lower
    level alone, and the upper pass works on copies of its statistics.
    """
    weights, momenta, buffers = (
        trainer.group("weights"),
        trainer.group("momentum"),
        trainer.group("buffers"),
    )
    scores, score_momenta, masks = (
        trainer.group("scores"),
        trainer.group("score_momentum"),
        trainer.group("masks"),
    )
    options = trainer.optimiser_options()
    upper: dict[str, Any] = {
        "momentum": settings.upper_momentum,
        "nesterov": False,
        "weight_decay": 0.0,
    }
    kept = kept_count(sum(score.numel() for score in scores.values()), settings.density)
    inverse_gamma = 1 / settings.gamma if settings.implicit else 0.0

    def step(t: int, *batches: tuple[Tensor, Tensor]) -> Outcome:
        shape = trainer.rate(t, steps) / trainer.settings.learning_rate
        total_loss = torch.zeros((), device=trainer.network.device)
        total_correct, images = torch.zeros_like(total_loss, dtype=torch.int64), 0
        for x, y in batches[:-1]:
            loss, correct, gradients = trainer.network.gradients(
                effective(weights, masks), buffers, x, y
            )
            for name, mask in masks.items():
                gradients[name] = gradients[name] * mask
            rate = settings.lower_learning_rate * shape
            sgd_step(weights.values(), gradients.values(), momenta.values(), rate, **options)
            total_loss, total_correct, images = (
                total_loss + loss,
                total_correct + correct,
                images + len(y),
            )
        x, y = batches[-1]
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        loss, correct, gradients = trainer.network.gradients(
            effective(weights, masks), copies, x, y
        )
        upward = [upper_gradient(weights[n], gradients[n], masks[n], inverse_gamma) for n in scores]
        if settings.clip:
            clip_norm(upward, settings.clip)
        sgd_step(
            scores.values(),
            upward,
            score_momenta.values(),
            settings.upper_learning_rate * shape,
            **upper,
        )
        trainer.load("masks", top_k_global(scores, kept))
        images += len(y)
        return Outcome(
            (total_loss + loss) / len(batches), total_correct + correct, images, images, images
        )

    return step


def release_step(trainer: Trainer, settings: BiPSettings, steps: int) -> Callable[..., Outcome]:
    """One alternation as the released code performs it.

    Scores and weights share storage, so the mask is the top-k of |theta|. Both optimisers own every
    parameter: each updates theta twice, once as weight and once as score, and decays it both times
    (the first lower step skips the scores, whose gradient does not exist yet). The implicit term is
    -lr2 * (score gradient)^2 and also reaches BatchNorm's affine parameters, which the upper level
    trains too; it freezes other biases, whose gradient is then 0. The upper batch is
    forwarded three times, each moving BatchNorm's statistics; the second backward pass repeats the
    first one's gradients, so it is counted but not computed again.
    """
    weights, buffers = trainer.group("weights"), trainer.group("buffers")
    lower, lower_scores = trainer.group("momentum"), trainer.group("score_momentum")
    upper, upper_scores = trainer.group("upper_momentum"), trainer.group("upper_score_momentum")
    masks, names = trainer.group("masks"), trainer.names
    options = trainer.optimiser_options() | {"nesterov": False}
    kept = kept_count(sum(weights[name].numel() for name in names), settings.density)
    batchnorm = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in trainer.network.model.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for name, _ in module.named_parameters()
    }
    zeros = {n: torch.zeros_like(weight) for n, weight in weights.items() if n not in batchnorm}

    def update_scores(gradients: Mapping[str, Tensor], momenta: Tensors, rate: float) -> None:
        shared = [weights[name] for name in names]
        sgd_step(
            shared, [gradients[n] for n in names], [momenta[n] for n in names], rate, **options
        )

    def step(t: int, low: tuple[Tensor, Tensor], up: tuple[Tensor, Tensor]) -> Outcome:
        x, y = low
        loss, correct, gradients = trainer.network.gradients(
            effective(weights, masks), buffers, x, y
        )
        gradients |= {name: gradients[name] * masks[name] for name in names}
        rate = settings.lower_learning_rate * _cosine_per_epoch(t, steps, trainer.steps_per_epoch)
        sgd_step(weights.values(), gradients.values(), lower.values(), rate, **options)
        if t > 0:
            update_scores(zeros, lower_scores, rate)
        trainer.load("masks", magnitude_mask(weights, names, kept))

        x, y = up
        thin = effective(weights, masks)
        up_loss, up_correct, gradients = trainer.network.gradients(thin, buffers, x, y)
        trainer.network.forward(thin, buffers, x)
        score_gradients = {n: gradients[n] * weights[n].abs() for n in names}
        for found in (gradients, score_gradients):
            for name, gradient in found.items():
                found[name] = gradient - settings.implicit_rate * gradient**2
        gradients |= zeros
        rate = settings.upper_learning_rate * _step_per_epoch(t, steps, trainer.steps_per_epoch)
        sgd_step(weights.values(), gradients.values(), upper.values(), rate, **options)
        update_scores(score_gradients, upper_scores, rate)
        trainer.load("masks", magnitude_mask(weights, names, kept))
        trainer.network.forward(effective(weights, masks), buffers, x)
        low_images, up_images = len(low[1]), len(y)
        return Outcome(
            (loss + up_loss) / 2,
            correct + up_correct,
            low_images + up_images,
            low_images + 3 * up_images,
            low_images + 2 * up_images,
        )

    return step


def effective(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensors:
    """m * theta where there is a mask, theta elsewhere."""
    return {**weights, **{name: weights[name] * mask for name, mask in masks.items()}}


def magnitude_mask(weights: Mapping[str, Tensor], names: tuple[str, ...], kept: int) -> Mask:
    """The `kept` largest |theta| over all prunable weights."""
    return top_k_global({name: weights[name].abs() for name in names}, kept)


def clip_norm(gradients: list[Tensor], bound: float) -> None:
    """Scale gradients in place so that their joint Euclidean norm is at most `bound`."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    factor = (bound / (norm + 1e-12)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)


# The release computes its cosine from epoch - 1, so that it starts a little below the full rate.
def _cosine_per_epoch(step: int, steps: int, steps_per_epoch: int) -> float:
    epochs = max(1, math.ceil(steps / steps_per_epoch))
    return 0.5 * (1 + math.cos(math.pi * (step // steps_per_epoch - 1) / epochs))


def _step_per_epoch(step: int, steps: int, steps_per_epoch: int) -> float:
    epoch, epochs = step // steps_per_epoch, math.ceil(steps / steps_per_epoch)
    return 1.0 if epoch < 0.5 * epochs else 0.1 if epoch < 0.75 * epochs else 0.01


def search(trainer: Trainer, settings: BiPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, judged as found: m * theta at the end, without retraining. parent: the
    trained dense network."""
    assert parent is not None and parent.weights is not None
    steps = trainer.steps(settings.length)
    if trainer.round == 0:
        load_start(trainer, parent, "own")
    prunable = trainer.prunable_weights()
    kept = kept_count(sum(weight.numel() for weight in prunable.values()), settings.density)
    zeros = {name: torch.zeros_like(weight) for name, weight in prunable.items()}
    release = settings.variant == "release"
    if not release:
        trainer.keep("scores", {name: weight.abs() for name, weight in prunable.items()})
    trainer.keep("score_momentum", zeros)
    if release:
        trainer.keep("upper_score_momentum", zeros)
        trainer.keep(
            "upper_momentum", {n: torch.zeros_like(w) for n, w in trainer.group("weights").items()}
        )
    masks = trainer.keep("masks", magnitude_mask(prunable, trainer.names, kept))
    make_step = release_step if release else paper_step
    lower = ("lower",) if release else tuple(f"lower-{i}" for i in range(settings.lower_steps))
    for _ in trainer.rounds(1):
        trainer.fit(make_step(trainer, settings, steps), stop=steps, streams=(*lower, "upper"))
        mask = Mask({name: mask.clone() for name, mask in masks.items()})
        yield make_ticket(
            trainer, mask, trainer.group("weights"), point="ticket", index=0, judged="found",
            target_density=settings.density,
        )  # fmt: skip


def _work(settings: BiPSettings, steps: Callable[[str], int], start: int) -> int:
    batches = 3 if settings.variant == "release" else settings.lower_steps + 1
    return batches * steps(settings.length)


METHOD = Method("bip", "BiP", BiPSettings, search, _work, parent="dense")
