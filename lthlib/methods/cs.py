"""Continuous Sparsification (Savarese, Silva & Maire, 2020).

Every prunable weight w has a gate s; the network uses w * sigma(beta s), and beta grows within a
round until the soft mask is a step. Equation 4: minimise L(f(x; w * sigma(beta s))) + lambda * sum
sigma(beta s). The ticket is s > 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lthlib.errors import ConfigError, MaskError
from lthlib.masks import Mask
from lthlib.methods.base import Method, make_ticket
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Trainer, sgd_step

RESETS = ("formula", "release")
UNITS = ("epoch", "step")


@dataclass(frozen=True)
class CSSettings:
    """initial_gate: s0; larger keeps more. penalty: lambda, for each weight's mask value.
    final_temperature: beta at the end of a round, from 1. gate_learning_rate: of s; w follows the
    recipe's. rounds: each yields a ticket.

    reset: between rounds s becomes min(beta s, s0) (`formula`) or min(s, s0) (`release`, whose code
    resets beta first).
    scaled: multiply the mask by 1/sigma(s0), as the release does, so that it starts at 1.
    temperature_per: beta grows every `epoch`, as in the release, or every `step`. rewind: the step
    k that tickets are retrained from.
    """

    initial_gate: float = 0.0
    penalty: float = 1e-8
    final_temperature: float = 200.0
    gate_learning_rate: float = 0.1
    rounds: int = 1
    reset: str = "formula"
    scaled: bool = False
    temperature_per: str = "epoch"
    rewind: str = "2ep"

    def __post_init__(self) -> None:
        if not self.final_temperature > 1:
            raise ConfigError(
                f"cs.final_temperature is {self.final_temperature}; expected more than 1"
            )
        if self.rounds < 1:
            raise ConfigError(f"cs.rounds is {self.rounds}; expected at least 1")
        if self.penalty < 0:
            raise ConfigError(f"cs.penalty is {self.penalty}; expected 0 or more")
        if not self.gate_learning_rate > 0:
            raise ConfigError(
                f"cs.gate_learning_rate is {self.gate_learning_rate}; expected a positive number"
            )
        for name, value, allowed in (
            ("reset", self.reset, RESETS),
            ("temperature_per", self.temperature_per, UNITS),
        ):
            if value not in allowed:
                raise ConfigError(f"cs.{name} is {value!r}; expected one of {', '.join(allowed)}")

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
            f"a round of {steps} steps is too short for a temperature that grows every {unit} steps"
        )
    return float(settings.final_temperature ** (step // unit / last))


def hard_mask(gates: dict[str, Tensor]) -> Mask:
    """H(s): 1 where s > 0, strictly."""
    return Mask({name: gate.detach() > 0 for name, gate in gates.items()})


def reset_gates(gates: dict[str, Tensor], settings: CSSettings) -> None:
    """Prepare the next round in place: no gate above s0; what was pruned stays low by as much as
    the rule keeps."""
    factor = settings.final_temperature if settings.reset == "formula" else 1.0
    for gate in gates.values():
        gate.mul_(factor).clamp_(max=settings.initial_gate)


def search_step(trainer: Trainer, settings: CSSettings, steps: int) -> Callable[..., Outcome]:
    """One SGD step on weights and gates, from one backward pass.

    With m = c sigma(beta s) and g the gradient at m * w: d/dw = m g, d/ds = (w g + lambda) c beta
    sigma (1 - sigma). Weights decay, gates do not.
    """
    weights, momenta, buffers = (
        trainer.group("weights"),
        trainer.group("momentum"),
        trainer.group("buffers"),
    )
    gates, gate_momenta = trainer.group("gates"), trainer.group("gate_momentum")
    options = trainer.optimiser_options()
    ratio = settings.gate_learning_rate / trainer.settings.learning_rate
    scale = settings.scale

    def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        beta = temperature(settings, t, steps, trainer.steps_per_epoch)
        soft = {name: torch.sigmoid(beta * gate) for name, gate in gates.items()}
        effective = weights | {name: weights[name] * (scale * soft[name]) for name in gates}
        loss, correct, gradients = trainer.network.gradients(effective, buffers, x, y)
        gate_gradients = []
        for name, m in soft.items():
            slope = (scale * beta) * m * (1 - m)
            gate_gradients.append((weights[name] * gradients[name] + settings.penalty) * slope)
            gradients[name] = gradients[name] * (scale * m)
        rate = trainer.rate(t, steps)
        sgd_step(weights.values(), gradients.values(), momenta.values(), rate, **options)
        sgd_step(
            gates.values(),
            gate_gradients,
            gate_momenta.values(),
            ratio * rate,
            **(options | {"weight_decay": 0.0}),
        )
        return Outcome(loss, correct, len(y), len(y), len(y))

    return step


def search(trainer: Trainer, settings: CSSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket a round, judged as found; weights carry on between rounds, only gates are
    reset."""
    steps, k = trainer.steps(), trainer.steps(settings.rewind)
    if k >= steps:
        raise ConfigError(
            f"cs.rewind {settings.rewind} is not before the end of a round ({steps} steps)"
        )
    prunable = trainer.prunable_weights()
    gates = trainer.keep(
        "gates", {n: torch.full_like(w, settings.initial_gate) for n, w in prunable.items()}
    )
    trainer.keep("gate_momentum", {name: torch.zeros_like(w) for name, w in prunable.items()})
    for r in trainer.rounds(settings.rounds):
        trainer.fit(
            search_step(trainer, settings, steps),
            stop=steps,
            streams=("train",) if r == 0 else (f"round-{r}",),
            snapshot_at=k if r == 0 else None,
        )
        mask = hard_mask(gates)
        if mask.kept == 0:
            raise MaskError(
                f"no gate is above 0 after round {r}, the mask is empty; lower penalty or raise "
                "initial_gate"
            )
        effective = {name: tensor * settings.scale for name, tensor in prunable.items()}
        yield make_ticket(
            trainer, mask, trainer.group("weights") | effective, point=f"round-{r}", index=r,
            judged="found", rewind_step=k,
        )  # fmt: skip
        reset_gates(gates, settings)


METHOD = Method(
    "cs", "CS", CSSettings, search, lambda settings, steps, start: settings.rounds * steps("")
)
