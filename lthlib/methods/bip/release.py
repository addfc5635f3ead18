"""The released code of BiP: the paper's alternation, and one branch for each of `DEPARTURES`.

Where the release's passes repeat what was computed already, they are counted and not made again.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lthlib.flat import Flat
from lthlib.masks import is_trained
from lthlib.methods.bip.paper import Alternation, clip_norm, upper_gradient, zeros
from lthlib.training import Outcome, sgd_step


@dataclass
class ReleasedAlternation(Alternation):
    """One step of BiP as released, with those departures from the paper that are made."""

    def __post_init__(self) -> None:
        self.departures = self.settings.departures
        # The mask ranks |s|.
        self.signed = not self.departures.isdisjoint(("aliased", "signed"))
        super().__post_init__()
        self.upper_momenta = self.trainer.group("upper_momentum")
        self.lower_score_momenta = self.trainer.group("lower_score_momentum")
        if "plain-momentum" in self.departures:
            self.lower_options["nesterov"] = False
        if "score-decay" in self.departures:
            self.upper_options = self.lower_options
        norms = batchnorm_names(self.trainer.network.model)
        self.upper_trained = norms if "upper-batchnorm" in self.departures else set()

    def prepare(self) -> None:
        keep, prunable = self.trainer.keep, self.trainer.prunable_weights()
        if "aliased" not in self.departures:
            keep("scores", prunable if self.signed else {n: w.abs() for n, w in prunable.items()})
        keep("score_momentum", zeros(prunable))
        if "shared-optimisers" in self.departures:
            keep("lower_score_momentum", zeros(prunable))
        if not self.departures.isdisjoint(("shared-optimisers", "upper-batchnorm")):
            keep("upper_momentum", zeros(self.trainer.flat("weights")))
        keep("masks", self.mask_of({name: weight.abs() for name, weight in prunable.items()}))

    def lower(self, t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        outcome = super().lower(t, batch)
        # The release's first lower step skips the scores: their gradient does not exist yet.
        if "shared-optimisers" in self.departures and t > 0:
            rate = self.trainer.dial(self.lower_rate, t)
            momenta = self.lower_score_momenta
            sgd_step(self.scores, zeros(self.scores), momenta, rate, **self.lower_options)
        if not self.departures.isdisjoint(("shared-optimisers", "aliased")):
            self.choose()
        return outcome

    def upper(self, t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        settings, weights, forward = self.settings, self.weights, self.trainer.network.forward
        relaxed = self.scores if settings.upper_at == "scores" else self.masks
        moving, squared = "upper-batchnorm" in self.departures, "squared" in self.departures
        self.saved.copy_(self.buffers.data)
        loss, correct = self.gradients(relaxed, x, y)
        if squared and moving:
            forward(self.thin(relaxed.data), self.buffers, x)
        if not moving:
            self.buffers.data.copy_(self.saved)
        inverse_gamma = 0.0 if squared else self.inverse_gamma
        upward = upper_gradient(self.pruned.data, self.at_pruned, relaxed.data, inverse_gamma)
        if self.signed:
            upward = upward * self.scores.data.sign()
        gradients = {n: self.trainer.gradients[n] for n in self.upper_trained}
        if squared:
            lr2 = settings.implicit_rate
            upward = upward - lr2 * upward**2
            gradients = {n: g - lr2 * g**2 for n, g in gradients.items()}
        self.upward.data.copy_(upward)
        if settings.clip:
            clip_norm(self.upward, settings.clip)
        rate = self.trainer.dial(self.upper_rate, t)
        if "shared-optimisers" in self.departures:
            gradients = {**zeros(weights), **gradients}
        owned = {n: weights[n] for n in gradients}
        # Weights keep their own decay and momentum whichever optimiser moves them.
        sgd_step(owned, gradients, self.upper_momenta, rate, **self.lower_options)
        sgd_step(self.scores, self.upward, self.score_momenta, rate, **self.upper_options)
        self.choose()
        if moving:
            forward(self.thin(self.masks.data), self.buffers, x)
        n = len(y)
        return Outcome(loss, correct, n, (1 + squared + moving) * n, (1 + squared) * n)

    def ranked(self, scores: Tensor) -> Tensor:
        return scores.abs() if self.signed else scores

    def kept(self, total: int) -> int:
        if "counting" in self.departures:
            return total - int((1 - self.settings.density) * total)
        return super().kept(total)

    def scored(self) -> Flat:
        return self.pruned if "aliased" in self.departures else super().scored()

    def lower_rate(self, t: int) -> float:
        if "per-epoch" not in self.departures:
            return super().lower_rate(t)
        per_epoch = self.trainer.steps_per_epoch
        return self.settings.lower_learning_rate * _cosine_rate(t, self.steps, per_epoch)

    def upper_rate(self, t: int) -> float:
        if "mask-rate" not in self.departures:
            return super().upper_rate(t)
        per_epoch = self.trainer.steps_per_epoch
        return self.settings.lower_learning_rate * _rate_in_drops(t, self.steps, per_epoch)


def batchnorm_names(model: nn.Module) -> set[str]:
    """Names of BatchNorm's affine parameters that are trained."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for name, parameter in module.named_parameters()
        if is_trained(parameter)
    }


# The release computes its cosine from epoch - 1, so that it starts a little below the full rate.
def _cosine_rate(step: int, steps: int, steps_per_epoch: int) -> float:
    epochs = max(1, math.ceil(steps / steps_per_epoch))
    return 0.5 * (1 + math.cos(math.pi * (step // steps_per_epoch - 1) / epochs))


def _rate_in_drops(step: int, steps: int, steps_per_epoch: int) -> float:
    epoch, epochs = step // steps_per_epoch, math.ceil(steps / steps_per_epoch)
    return 1.0 if epoch < 0.5 * epochs else 0.1 if epoch < 0.75 * epochs else 0.01
