"""Hydra (Sehwag et al., 2020), without its robust loss: learn scores while the weights rest.

The mask is the top-k of |s|, its gradient passed straight through to the scores. What is found is
meant to be fine-tuned under the mask afterwards (`retrain` with `start: own`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lthlib.errors import ConfigError
from lthlib.masks import Mask, Structure
from lthlib.methods.base import Method, make_ticket, steps_by_sgd
from lthlib.methods.bip import batchnorm_names
from lthlib.methods.retrain import load_start
from lthlib.settings import Density, OwnLength, Positive, Settings, one_of
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Step, Trainer, sgd_step

INITIAL = ("scaled", "weights")


@dataclass(frozen=True)
class HydraSettings(Settings):
    """Settings of Hydra.

    Attributes:
        density: kept fraction in (0, 1]; over all prunable weights together, where Hydra's own code
            goes layer by layer.
        length: of the training of the scores, by default the recipe's.
        learning_rate: of the scores s and of BatchNorm's affine parameters, which both learn, with
            the recipe's schedule, momentum and decay; the BiP release's `configs/*/hydra.yml`.
        initial: scores start as sqrt(6 / fan-in) theta / max|theta| of their layer (`scaled`,
            Hydra's code), or as the `weights` (the BiP release).
        aliased: scores and weights share storage, as in the BiP release, so that the weights, said
            to rest, move with the scores; needs `initial: weights`.
        structure: `unstructured`, `filter` or `channel`, see `lthlib.masks.select`.
    """

    density: Density = 0.1
    length: OwnLength = ""
    learning_rate: Positive = 0.1
    initial: Annotated[str, one_of(INITIAL)] = "scaled"
    aliased: bool = False
    structure: Structure = "unstructured"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aliased and self.initial != "weights":
            raise ConfigError("hydra.aliased scores are the weights; set hydra.initial to weights")


def initial_scores(weights: Mapping[str, Tensor], initial: str) -> dict[str, Tensor]:
    """Scores of the weights of each layer, before they are trained.

    Args:
        weights: by name, [out, in, ...].
        initial: as in `HydraSettings`.

    Returns:
        Scores by name, in the weights' shapes.
    """
    if initial == "weights":
        return {name: weight.clone() for name, weight in weights.items()}
    return {
        name: (6 / weight[0].numel()) ** 0.5 * weight / weight.abs().amax().clamp_min(1e-12)
        for name, weight in weights.items()
    }


def _make_step(trainer: Trainer, settings: HydraSettings, steps: int) -> Step:
    buffers, masks, thin = trainer.flat("buffers"), trainer.flat("masks"), trainer.thinned()
    weights, momenta = trainer.prunable_weights(), trainer.flat("score_momentum")
    scores = weights if settings.aliased else trainer.flat("scores")
    gradients = trainer.gradients
    at_scores = scores.like(torch.zeros_like(scores.data))
    at_weights = gradients.data[: len(scores.data)]
    norms = {n: trainer.flat("weights")[n] for n in batchnorm_names(trainer.network.model)}
    options = steps_by_sgd(trainer, "Hydra's scores")

    def rate(t: int) -> float:
        return settings.learning_rate * trainer.rate(t, steps) / trainer.settings.learning_rate

    def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        loss, correct, _ = trainer.network.gradients(thin(masks.data), buffers, x, y, gradients)
        torch.mul(at_weights * weights.data, scores.data.sign(), out=at_scores.data)
        now = trainer.dial(rate, t)
        sgd_step(scores, at_scores, momenta, now, **options)
        sgd_step(norms, gradients, trainer.group("momentum"), now, **options)
        trainer.load("masks", _choose_mask(trainer, scores, settings))
        return Outcome(loss, correct, len(y), len(y), len(y))

    return step


def _choose_mask(trainer: Trainer, scores: Mapping[str, Tensor], settings: HydraSettings) -> Mask:
    magnitudes = {name: score.abs() for name, score in scores.items()}
    return trainer.select(magnitudes, settings.density, settings.structure)


def search(trainer: Trainer, settings: HydraSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, judged as found: the weights of the dense parent under the mask."""
    assert parent is not None and parent.weights is not None
    steps = trainer.steps(settings.length)
    if trainer.round == 0:
        load_start(trainer, parent, "own")
    prunable = trainer.prunable_weights()
    scores = initial_scores(prunable, settings.initial)
    trainer.keep("score_momentum", {n: torch.zeros_like(score) for n, score in scores.items()})
    if not settings.aliased:
        trainer.keep("scores", scores)
    trainer.keep("masks", _choose_mask(trainer, scores, settings))
    for _ in trainer.rounds(1):
        trainer.fit(_make_step(trainer, settings, steps), stop=steps)
        yield make_ticket(trainer, Mask(trainer.group("masks")), target_density=settings.density)


METHOD = Method("hydra", "Hydra", HydraSettings, search, parent="dense")
