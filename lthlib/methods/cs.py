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
    """Settings of Continuous Sparsification.

    Attributes:
        initial_gate: s0, which all gates start from; larger keeps more. The release's README names
            -0.1, 0 and 0.1.
        penalty: lambda, for each weight's mask value; 1e-8 in the release, main.py:26.
        final_temperature: B, what beta is at the end of a round, from 1; 200 in the release,
            main.py:27.
        gate_learning_rate: of s; w follows the recipe's. The release's main.py:111.
        rounds: how many; each yields a ticket.
        reset: what s becomes between rounds: min(B s, s0) (`formula`), or min(s, s0) (`release`,
            whose main.py:116 resets beta first).
        scaled: whether the mask is multiplied by 1/sigma(s0), so that it starts at 1; the
            release's layers.py:30-34.
        temperature_per: beta grows every `epoch`, as in the release, or every `step`.
        rewind: k, the point that tickets are retrained from, a length from the start.
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
        """What multiplies sigma(beta s), 1 or the release's 1/sigma(s0)."""
        return 1 + math.exp(-self.initial_gate) if self.scaled else 1.0


def temperature(settings: CSSettings, step: int, steps: int, steps_per_epoch: int) -> float:
    """beta, which grows exponentially from 1 to the final temperature in a round.

    Args:
        settings: with the final temperature, and whether it grows per epoch or per step.
        step: of the round, from 0.
        steps: of the whole round.
        steps_per_epoch: optimiser steps of an epoch.

    Returns:
        beta = B^(e / (E - 1)) in epoch, or step, e of E.

    Raises:
        ConfigError: the round has one epoch, or step, alone.

    Source:
        CS (2020); the release, main.py:27, for B.
    """
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
    """Prepare a gate for the next round: none above s0, and what was pruned stays low.

    Args:
        gate: s, of any shape; changed in place.
        settings: with s0 and the rule, `reset`.
    """
    factor = settings.final_temperature if settings.reset == "formula" else 1.0
    gate.mul_(factor).clamp_(max=settings.initial_gate)


def relax(gate: Tensor, beta: float | Tensor, settings: CSSettings) -> Relaxed:
    """The soft mask m = c sigma(beta s), and how a gradient at it becomes one at s.

    With g the gradient at m * w: d/ds = (w g + lambda) c beta sigma (1 - sigma).

    Args:
        gate: s, of any shape.
        beta: the temperature, a number or a 0-d tensor.
        settings: with lambda, and c as `scale`.

    Returns:
        m, of the gates' shape, and a function from w g, of that shape, to d/ds.

    Source:
        CS (2020), equation (4).
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
    """Yield one ticket a round, judged as found; between rounds only gates are reset."""
    gate = gate_of(settings, trainer.steps(), trainer.steps_per_epoch)
    return search_gates(trainer, settings, "cs", gate)


METHOD = Method("cs", "CS", CSSettings, search)
