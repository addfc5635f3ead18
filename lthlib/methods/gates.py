"""What methods with trained gates share: a step on weights and gates, and a readout."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lthlib.errors import ConfigError, MaskError
from lthlib.masks import Mask
from lthlib.methods.base import make_ticket, rewind_step
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Step, Trainer, sgd_step

BINS = 20
DRAWS = 5


# dial, gate, noise -> mask value, and the gradient at the mask -> that at the gate, with penalty.
Relaxed = tuple[Tensor, Callable[[Tensor], Tensor]]
Relax = Callable[[float | Tensor, Tensor, Any], Relaxed]


@dataclass(frozen=True)
class Gate:
    """How a gate s becomes a mask value, of any shape.

    Attributes:
        relax: `relax(dial, s, noise)` in a training step; where gates are drawn, noise is uniform
            in [0, 1), of their shape.
        soft: `soft(dial, s)`, what of it is deterministic, in [0, 1]: the soft mask, or the chance
            that the gate is open.
        kept: `kept(s)`, the mask value in the ticket; 0 where the weight is pruned.
        reset: `reset(s)` prepares the next round, in place.
        drawn: whether `relax` takes noise.
        recalibrated: whether the ticket's BatchNorm statistics are gathered anew, under its own
            mask.
        dial: `dial(step)`, what `relax` and `soft` take first: CS's temperature.
    """

    relax: Relax
    soft: Callable[[float, Tensor], Tensor]
    kept: Callable[[Tensor], Tensor]
    reset: Callable[[Tensor], object]
    drawn: bool = False
    recalibrated: bool = False
    dial: Callable[[int], float] = lambda step: 0.0


def gated_step(trainer: Trainer, settings: Any, steps: int, gate: Gate) -> Step:
    """One step of the recipe's optimiser on weights and of SGD on gates, from one backward pass.

    With mask value m of gate s and g the gradient at m * w: d/dw = m g, and d/ds follows from the
    gradient w g at the mask. Weights decay, gates do not.

    Args:
        trainer: that keeps `gates` and `gate_momentum`.
        settings: of a method, with `gate_learning_rate`.
        steps: of the schedule that both learning rates follow.
        gate: of the method.

    Returns:
        A step for `Trainer.fit`, of one batch.
    """
    buffers = trainer.flat("buffers")
    gates, gate_momenta = trainer.flat("gates"), trainer.flat("gate_momentum")
    gradients = trainer.gradients
    gate_gradients = gates.like(torch.zeros_like(gates.data))
    pruned, thin = trainer.prunable_weights(), trainer.thinned()
    at_weights = gradients.data[: len(gates.data)]
    options = trainer.optimiser_options() | {"weight_decay": 0.0}
    ratio = settings.gate_learning_rate / trainer.settings.learning_rate

    def rate(t: int) -> float:
        return trainer.rate(t, steps)

    def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        x, y = batch
        mask, backward = gate.relax(trainer.dial(gate.dial, t), gates.data, noise(trainer, gate))
        effective = thin(mask)
        loss, correct, _ = trainer.network.gradients(effective, buffers, x, y, gradients)
        gate_gradients.data.copy_(backward(pruned.data * at_weights))
        at_weights.mul_(mask)
        now = trainer.dial(rate, t)
        trainer.update(now)
        sgd_step(gates, gate_gradients, gate_momenta, ratio * now, **options)
        return Outcome(loss, correct, len(y), len(y), len(y))

    return step


def noise(trainer: Trainer, gate: Gate) -> Tensor | None:
    """Uniform noise for all gates, [n], where they are drawn."""
    return trainer.flat("gates").uniform() if gate.drawn else None


def search_gates(trainer: Trainer, settings: Any, name: str, gate: Gate) -> Iterator[Ticket]:
    """Search by training weights and gates; between rounds only gates are reset.

    Args:
        trainer: of the untrained network.
        settings: of a method, with `initial_gate`, which all gates start from; `penalty`, lambda;
            `gate_learning_rate`, while the weights follow the recipe's; `rounds`; and `rewind`,
            the step k that tickets are retrained from.
        name: the method's.
        gate: the method's.

    Yields:
        One ticket a round, judged as found.

    Raises:
        MaskError: no gate is open after a round.
        ConfigError: the rewind point is not before the end of a round.
    """
    steps = trainer.steps()
    k = rewind_step(trainer, f"{name}.rewind", settings.rewind, inside=True)
    prunable = trainer.prunable_weights()
    start = {n: torch.full_like(w, settings.initial_gate) for n, w in prunable.items()}
    gates = trainer.keep("gates", start)
    trainer.keep("gate_momentum", {n: torch.zeros_like(w) for n, w in prunable.items()})
    trainer.observe = lambda step: gate_readout(trainer, gate, step)
    trainer.standing = lambda: _make_gated_ticket(trainer, gate, "stopped", trainer.round, k)
    for r in trainer.rounds(settings.rounds):
        streams, snapshot_at = (("train",), k) if r == 0 else ((f"round-{r}",), None)
        step = gated_step(trainer, settings, steps, gate)
        trainer.fit(step, stop=steps, streams=streams, snapshot_at=snapshot_at)
        trainer.history[-1]["gated_validation"] = gated_accuracy(trainer, gate, steps - 1)
        # Before the reset: after it no gate is above s0, and with s0 <= 0 none is open.
        yield _make_gated_ticket(trainer, gate, f"round-{r}", r, k)
        gate.reset(gates.data)


def _make_gated_ticket(trainer: Trainer, gate: Gate, point: str, index: int, k: int) -> Ticket:
    kept = {name: gate.kept(s) for name, s in trainer.group("gates").items()}
    mask = Mask({name: value > 0 for name, value in kept.items()})
    if mask.kept == 0:
        raise MaskError(
            f"no gate is open after round {index}, the mask is empty; lower penalty or raise "
            "initial_gate"
        )
    weights = trainer.group("weights")
    effective = weights | {name: weights[name] * value for name, value in kept.items()}
    buffers = trainer.gather_statistics(effective) if gate.recalibrated else {}
    return make_ticket(trainer, mask, effective | buffers, point=point, index=index, rewind_step=k)


def gate_readout(trainer: Trainer, gate: Gate, step: int) -> dict[str, Any]:
    """Density and histogram of the gates.

    Args:
        trainer: that keeps `gates`.
        gate: of the method.
        step: of the round, from 0.

    Returns:
        `density`, the share of open gates, and `gates`, how many have their soft value in each of
        20 equal bins of [0, 1].
    """
    flat = trainer.flat("gates").data
    soft = gate.soft(gate.dial(step), flat).float()
    counts = torch.histc(soft.cpu(), BINS, 0, 1)  # on a GPU no kernel for it is deterministic
    kept = int((gate.kept(flat) > 0).sum())
    return {"density": kept / len(flat), "gates": [int(count) for count in counts.tolist()]}


def bisect_initial_gate(
    density_of: Callable[[float], float],
    density: float,
    *,
    low: float = -1.0,
    high: float = 0.25,
    tolerance: float = 0.1,
    trials: int = 8,
) -> list[tuple[float, float]]:
    """Look for the initial gate s0 with which a search ends at a density.

    The higher s0 is, the more gates stay open.

    Args:
        density_of: makes a search with this s0, and returns the density that it reaches.
        density: to reach, in (0, 1).
        low: the least s0 that is looked at.
        high: the largest.
        tolerance: relative to the density.
        trials: at most so many searches.

    Returns:
        (s0, density reached) of every trial; the last one is within the tolerance unless the trials
        ran out.

    Raises:
        ConfigError: the bounds or the density make no sense.
    """
    if not 0 < density < 1 or not low < high or trials < 1:
        raise ConfigError(
            f"cannot look for density {density} between s0 = {low} and {high} in {trials} trials; "
            "expected a density in (0, 1), low below high, at least one trial"
        )
    results: list[tuple[float, float]] = []
    for _ in range(trials):
        gate = (low + high) / 2
        reached = density_of(gate)
        results.append((gate, reached))
        if abs(reached / density - 1) <= tolerance:
            break
        low, high = (gate, high) if reached < density else (low, gate)
    return results


def gated_accuracy(trainer: Trainer, gate: Gate, step: int) -> float | None:
    """Validation accuracy with the gates as training has them.

    Args:
        trainer: that keeps `gates`.
        gate: of the method.
        step: of the round, from 0.

    Returns:
        Percent correct, the mean of five draws where gates are drawn; None without validation
        images.
    """
    gates, thin, values = trainer.flat("gates"), trainer.thinned(), []
    with trainer.network.drawing(trainer.seed):
        for _ in range(DRAWS if gate.drawn else 1):
            mask, _ = gate.relax(gate.dial(step), gates.data, noise(trainer, gate))
            value = trainer.evaluate("validation", thin(mask), trainer.group("buffers"))
            if value is None:
                return None
            values.append(value)
    return sum(values) / len(values)
