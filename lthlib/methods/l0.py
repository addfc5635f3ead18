"""Stochastic l0 regularisation with hard-concrete gates (Louizos, Welling & Kingma, 2018).

Each weight has a gate of its own, where the paper gates groups. A gate's parameter s is the paper's
log alpha. Training multiplies each weight by a gate drawn anew for every batch; the expected number
of open gates is the penalty.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lthlib.methods.base import Method
from lthlib.methods.gates import Gate, Relaxed, search_gates
from lthlib.settings import Count, Length, Logit, NotNegative, Positive, Settings
from lthlib.tickets import Ticket
from lthlib.training import Trainer

BETA = 2 / 3
LOW, HIGH = -0.1, 1.1
_SHIFT = BETA * math.log(-LOW / HIGH)


@dataclass(frozen=True)
class L0Settings(Settings):
    """Settings of stochastic l0 regularisation.

    Attributes:
        initial_gate: log alpha at the start; 2.2 makes the final gate 0.98 (ours).
        penalty: lambda, for each gate's chance to be open.
        gate_learning_rate: of log alpha; w follows the recipe's.
        rounds: how many; each yields a ticket, and gates carry on between them.
        rewind: k, the point that tickets are retrained from, a length from the start.
        recalibrated: whether BatchNorm's statistics are gathered anew under the ticket's mask;
            those of drawn masks do not fit it (ours).
    """

    initial_gate: Logit = 2.2
    penalty: NotNegative = 1e-8
    gate_learning_rate: Positive = 0.1
    rounds: Count = 1
    rewind: Length = "2ep"
    recalibrated: bool = True


def stretch(concrete: Tensor) -> Tensor:
    """From (0, 1) to (-0.1, 1.1), then clipped to [0, 1], as their hard concrete gate is."""
    return (concrete * (HIGH - LOW) + LOW).clamp(0, 1)


def chance_open(gate: Tensor) -> Tensor:
    """Probability that a drawn gate is not 0, which their penalty counts."""
    return torch.sigmoid(gate - _SHIFT)


def relax(gate: Tensor, uniform: Tensor, penalty: float) -> Relaxed:
    """The drawn gate, and how a gradient at it becomes one at log alpha.

    Args:
        gate: log alpha, of any shape.
        uniform: noise in (0, 1), of that shape.
        penalty: lambda.

    Returns:
        The gate's value in [0, 1], of that shape, and a function from w g, with g the gradient at
        the effective weight, to that by log alpha.

    Source:
        Louizos, Welling & Kingma (2018), the hard concrete distribution.
    """
    concrete = torch.sigmoid((torch.logit(uniform) + gate) / BETA)
    drawn = stretch(concrete)

    def backward(at_mask: Tensor) -> Tensor:
        inside = (drawn > 0) & (drawn < 1)
        slope = inside * concrete * (1 - concrete) * ((HIGH - LOW) / BETA)
        chance = chance_open(gate)
        return at_mask * slope + penalty * chance * (1 - chance)

    return drawn, backward


def final_gate(gate: Tensor) -> Tensor:
    """The gate of a network that is no longer trained; 0 prunes the weight."""
    return stretch(torch.sigmoid(gate))


def search(trainer: Trainer, settings: L0Settings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket a round: the weights whose final gate is above 0, times that gate."""
    gate = Gate(
        # Single precision draws an exact 0 now and then, whose logit is infinite.
        relax=lambda dial, s, noise: relax(s, noise.clamp(1e-6, 1 - 1e-6), settings.penalty),
        soft=lambda dial, s: chance_open(s),
        kept=final_gate,
        reset=lambda s: None,
        drawn=True,
        recalibrated=settings.recalibrated,
    )
    return search_gates(trainer, settings, "l0", gate)


METHOD = Method("l0", "l0", L0Settings, search)
