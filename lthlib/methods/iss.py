"""Iterative stochastic sparsification (ISS): the stochastic counterpart of CS.

The CS paper compares with a method of this name; its definition was not found. This is our reading:
masks are drawn from a Bernoulli distribution with chance sigma(s), a straight-through gradient
reaches s, and rounds follow one another as in CS.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from lthlib.methods.base import Method
from lthlib.methods.gates import Gate, Relaxed, search_gates
from lthlib.settings import Count, Length, Logit, NotNegative, Positive, Settings, between
from lthlib.tickets import Ticket
from lthlib.training import Trainer


@dataclass(frozen=True)
class ISSSettings(Settings):
    """Settings of ISS; the reading is ours.

    Attributes:
        initial_gate: s0; the chance to be kept starts at sigma(s0).
        penalty: lambda, for each weight's chance.
        gate_learning_rate: of s; w follows the recipe's.
        rounds: how many; each yields a ticket.
        hardening: h; between rounds s becomes min(h s, s0), as in CS, where the factor is the final
            temperature.
        rewind: k, the point that tickets are retrained from, a length from the start.
        recalibrated: whether BatchNorm's statistics are gathered anew under the ticket's mask;
            those of drawn masks do not fit it (ours).
    """

    initial_gate: Logit = 0.0
    penalty: NotNegative = 1e-8
    gate_learning_rate: Positive = 0.1
    rounds: Count = 1
    hardening: Annotated[float, between(1, 1e38)] = 200.0
    rewind: Length = "2ep"
    recalibrated: bool = True


def relax(gate: Tensor, uniform: Tensor, penalty: float) -> Relaxed:
    """The drawn mask, and how a gradient at it becomes one at s.

    Straight through: the mask's gradient is taken for that of its chance sigma(s).

    Args:
        gate: s, of any shape.
        uniform: noise in [0, 1), of that shape.
        penalty: lambda.

    Returns:
        The mask, 0 or 1, of that shape, and a function from w g, with g the gradient at the
        effective weight, to d/ds.

    Source:
        Bengio, Leonard & Courville (2013), for the straight-through gradient.
    """
    chance = torch.sigmoid(gate)

    def backward(at_mask: Tensor) -> Tensor:
        return (at_mask + penalty) * chance * (1 - chance)

    return (uniform < chance).to(gate.dtype), backward


def gate_of(settings: ISSSettings) -> Gate:
    """The gate of ISS."""
    return Gate(
        relax=lambda dial, s, noise: relax(s, noise, settings.penalty),
        soft=lambda dial, s: torch.sigmoid(s),
        kept=lambda s: (s > 0).to(s.dtype),
        reset=lambda s: s.mul_(settings.hardening).clamp_(max=settings.initial_gate),
        drawn=True,
        recalibrated=settings.recalibrated,
    )


def search(trainer: Trainer, settings: ISSSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket a round: the weights more likely kept than not, s > 0."""
    return search_gates(trainer, settings, "iss", gate_of(settings))


METHOD = Method("iss", "ISS", ISSSettings, search)
