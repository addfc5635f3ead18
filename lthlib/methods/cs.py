"""Continuous Sparsification (Savarese, Silva & Maire, 2020).

Every prunable weight w has a gate s; the network uses w * sigma(beta s), and beta grows within a
round until the soft mask is a step. Equation 4: minimise L(f(x; w * sigma(beta s))) + lambda * sum
sigma(beta s). The ticket is s > 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lthlib.errors import ConfigError
from lthlib.masks import Mask
from lthlib.methods.base import Method
from lthlib.methods.gates import Gate, Relaxed, search_gates
from lthlib.settings import Count, Length, Logit, NotNegative, Positive, Settings, above, one_of
from lthlib.tickets import Ticket
from lthlib.training import Trainer

RESETS = ("formula", "release")
UNITS = ("epoch", "step")


@dataclass(frozen=True)
class CSSettings(Settings):
    """initial_gate: s0; larger keeps more. penalty: lambda, for each weight's mask value.
    final_temperature: beta at the end of a round, from 1. gate_learning_rate: of s; w follows the
    recipe's. rounds: each yields a ticket.

    reset: between rounds s becomes min(beta s, s0) (`formula`) or min(s, s0) (`release`, whose code
    resets beta first).
    scaled: multiply the mask by 1/sigma(s0), as the release does, so that it starts at 1.
    temperature_per: beta grows every `epoch`, as in the release, or every `step`. rewind: the step
    k that tickets are retrained from.
    """

    initial_gate: Logit = 0.0
    penalty: NotNegative = 1e-8
    final_temperature: Annotated[float, above(1)] = 200.0
    gate_learning_rate: Positive = 0.1
    rounds: Count = 1
    reset: Annotated[str, one_of(RESETS)] = "formula"
    scaled: bool = False
    temperature_per: Annotated[str, one_of(UNITS)] = "epoch"
    rewind: Length = "2ep"

    @property
    def scale(self) -> float:
        """What multiplies sigma(beta s): 1, or the release's 1/sigma(s0)."""
        return 1 + math.exp(-self.initial_gate) if self.scaled else 1.0


def temperature(settings: CSSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """beta at `step` of a round of `steps`: from 1 to the final temperature, exponentially, per
    epoch or per step."""
    unit = steps_per_epoch if settings.temperature_per == "epoch" else 1
    last = math.ceil(steps / unit) - 1
    if last < 1:
        raise ConfigError(
            f"a round of {steps} steps is too short for a temperature that grows every {unit} "
            "steps; give a longer training.length, or cs.temperature_per step"
        )
    return float(settings.final_temperature ** (step // unit / last))


def hard_mask(gates: dict[str, Tensor]) -> Mask:
    """H(s): 1 where s > 0, strictly."""
    return Mask({name: gate.detach() > 0 for name, gate in gates.items()})


def reset_gate(gate: Tensor, settings: CSSettings) -> None:
    """Prepare the next round in place: no gate above s0; what was pruned stays low by as much as
    the rule keeps."""
    factor = settings.final_temperature if settings.reset == "formula" else 1.0
    gate.mul_(factor).clamp_(max=settings.initial_gate)


def relax(gate: Tensor, beta: float | Tensor, settings: CSSettings) -> Relaxed:
    """The soft mask m = c sigma(beta s), and how a gradient at it becomes one at s.

    With g the gradient at m * w: d/ds = (w g + lambda) c beta sigma (1 - sigma).
    """
    scale = settings.scale
    soft = torch.sigmoid(beta * gate)

    def backward(at_mask: Tensor) -> Tensor:
        return (at_mask + settings.penalty) * ((scale * beta) * soft * (1 - soft))

    return scale * soft, backward


def gate_of(settings: CSSettings, steps: int, steps_per_epoch: int) -> Gate:
    """The gate of CS in a round of `steps`."""

    return Gate(
        dial=lambda step: temperature(settings, step, steps, steps_per_epoch),
        relax=lambda beta, s, noise: relax(s, beta, settings),
        soft=lambda beta, s: torch.sigmoid(beta * s),
        kept=lambda s: (s > 0).to(s.dtype) * settings.scale,
        reset=lambda s: reset_gate(s, settings),
    )


def search(trainer: Trainer, settings: CSSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket a round, judged as found; weights carry on between rounds, only gates are
    reset."""
    gate = gate_of(settings, trainer.steps(), trainer.steps_per_epoch)
    return search_gates(trainer, settings, "cs", gate)


METHOD = Method("cs", "CS", CSSettings, search)
