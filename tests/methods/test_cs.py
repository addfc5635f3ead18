"""Continuous sparsification: its schedule, its step, its reset, and the properties of cs.md."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lthlib.data import Dataset
from lthlib.errors import ConfigError, MaskError
from lthlib.methods.cs import (
    CSSettings,
    gate_of,
    hard_mask,
    reset_gate,
    search,
    temperature,
)
from lthlib.methods.gates import gated_step
from lthlib.training import Outcome, Trainer, TrainingSettings
from tests.training.toys import batches_of, tiny, tiny_trainer


def search_step(trainer: Trainer, settings: CSSettings, steps: int) -> Callable[..., Outcome]:
    gate = gate_of(settings, steps, trainer.steps_per_epoch)
    return gated_step(trainer, settings, steps, gate)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_temperature_rises_from_1_to_200_over_the_epochs() -> None:
    settings = CSSettings()
    found = [temperature(settings, 352 * e + 351, 85 * 352, 352) for e in (0, 1, 42, 84)]
    assert found == pytest.approx([1.0, 1.0651069, 14.1421356, 200.0], rel=1e-7)
    within = {temperature(settings, 352 + t, 85 * 352, 352) for t in range(352)}
    assert len(within) == 1


def test_the_temperature_may_rise_every_step() -> None:
    settings = CSSettings(temperature_per="step", final_temperature=16.0)
    found = [temperature(settings, t, 5, 2) for t in range(5)]
    assert found == pytest.approx([1, 2, 4, 8, 16])


def test_a_last_epoch_that_is_cut_short_still_ends_at_the_final_temperature() -> None:
    assert temperature(CSSettings(), 6, 7, 3) == 200.0


def test_a_round_too_short_to_rise_is_refused() -> None:
    with pytest.raises(ConfigError, match="a round of 3 steps is too short"):
        temperature(CSSettings(), 0, 3, 3)


@pytest.mark.parametrize(
    ("gate", "distance"), [(0.01, 0.1192), (0.03, 2.47e-3), (0.05, 4.54e-5), (0.1, 2.06e-9)]
)
def test_at_the_final_temperature_the_soft_mask_is_nearly_hard(
    gate: float, distance: float
) -> None:
    for sign in (1, -1):
        gates = {"w": doubles(sign * gate)}
        beta = temperature(CSSettings(), 84, 85, 1)
        soft = torch.sigmoid(beta * gates["w"])
        found = (soft - hard_mask(gates)["w"].double()).abs().item()
        assert found == pytest.approx(distance, rel=5e-3)


@pytest.mark.parametrize("initial_gate", [-0.5, -0.1, 0.0, 0.1])
def test_a_scaled_mask_begins_at_one(initial_gate: float) -> None:
    settings = CSSettings(initial_gate=initial_gate, scaled=True)
    assert settings.scale / (1 + math.exp(-initial_gate)) == pytest.approx(1.0, rel=1e-12)
    assert CSSettings(initial_gate=initial_gate).scale == 1.0


def test_the_hard_mask_is_strict() -> None:
    assert hard_mask({"w": doubles(-1.0, 0.0, 1e-300)})["w"].tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("reset", "expected"),
    [("formula", [-6.0, -0.2, -0.05]), ("release", [-0.05, -0.05, -0.05])],
)
def test_the_two_reset_rules(reset: str, expected: list[float]) -> None:
    gates = {"w": doubles(-0.03, -0.001, 0.03)}
    reset_gate(gates["w"], CSSettings(initial_gate=-0.05, reset=reset))
    assert gates["w"].tolist() == pytest.approx(expected)
    assert hard_mask(gates).kept == 0
    if reset == "formula":
        assert torch.sigmoid(gates["w"][0]).item() == pytest.approx(0.00247, rel=2e-3)


def test_gates_come_back_to_s0_only_from_above_a_200th_of_it() -> None:
    gates = {"w": doubles(-2.6e-4, -2.4e-4)}
    reset_gate(gates["w"], CSSettings(initial_gate=-0.05))
    assert gates["w"][0] < -0.05
    assert gates["w"][1] == -0.05


# Under the largest penalty the useful gate jumps about at the final temperatures, and the last bit
# of a double decides where it ends: between 0.0115 and 0.274 in 20,000 ways of rounding.
@pytest.mark.parametrize(
    ("penalty", "useful", "useless"),
    [
        (0.0, (0.0192, 0.0194), -0.0647),
        (1e-3, (0.0199, 0.0201), -0.2392),
        (1e-2, (0.005, 1.0), -0.642),
    ],
)
def test_selection_on_the_toy_of_two_weights(
    penalty: float, useful: tuple[float, float], useless: float
) -> None:
    """Loss 0.5 sum (m w - t)^2 + lambda sum m with t = (1, 0): the useless weight goes."""
    weights = doubles(0.5, 0.5).requires_grad_()
    gates = doubles(0.0, 0.0).requires_grad_()
    optimiser = torch.optim.SGD([weights, gates], lr=0.1)
    settings = CSSettings(penalty=penalty)
    for t in range(85 * 50):
        mask = torch.sigmoid(temperature(settings, t, 85 * 50, 50) * gates)
        loss = 0.5 * (mask * weights - doubles(1.0, 0.0)).square().sum() + penalty * mask.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert hard_mask({"w": gates})["w"].tolist() == [True, False]
    assert useful[0] < gates[0].item() < useful[1]
    assert gates[1].item() == pytest.approx(useless, abs=1e-4)


class TwoWeights(nn.Module):
    """x [b, 1] -> logits (a x, b x)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x)
        return logits


def two_weights() -> Trainer:
    model = TwoWeights().double()
    with torch.no_grad():
        model.linear.weight.copy_(doubles(0.8, -0.4)[:, None])
    data = Dataset.from_tensors(
        doubles(2.0)[:, None], torch.tensor([0]), validation_fraction=0, num_classes=2
    )
    training = TrainingSettings("4it", 1, 0.1, "constant", weight_decay=0.01)
    return Trainer(model, data, training)


@pytest.mark.parametrize("scaled", [False, True])
def test_one_step_on_two_weights_by_hand(scaled: bool) -> None:
    trainer = two_weights()
    settings = CSSettings(
        initial_gate=0.3,
        penalty=0.05,
        gate_learning_rate=0.7,
        scaled=scaled,
        temperature_per="step",
    )
    # The step after the first of four: beta = 200^(1/3).
    trainer.keep("gates", {"linear.weight": torch.full((2, 1), 0.3, dtype=torch.float64)})
    trainer.keep("gate_momentum", {"linear.weight": torch.zeros(2, 1, dtype=torch.float64)})
    search_step(trainer, settings, 4)(1, batches_of(trainer, "train", 1)[0])

    beta, c = 200 ** (1 / 3), (1 + math.exp(-0.3)) if scaled else 1.0
    sigma = 1 / (1 + math.exp(-beta * 0.3))
    logits = [0.8 * c * sigma * 2, -0.4 * c * sigma * 2]
    p = math.exp(logits[0]) / (math.exp(logits[0]) + math.exp(logits[1]))
    for i, (weight, g) in enumerate([(0.8, (p - 1) * 2), (-0.4, (1 - p) * 2)]):
        # Nesterov's first step moves by (1 + momentum) times the gradient.
        decayed = c * sigma * g + 0.01 * weight
        slope = c * beta * sigma * (1 - sigma)
        new_weight = weight - 0.1 * 1.9 * decayed
        new_gate = 0.3 - 0.7 * 1.9 * (weight * g + 0.05) * slope
        assert trainer.group("weights")["linear.weight"][i].item() == pytest.approx(new_weight)
        assert trainer.group("gates")["linear.weight"][i].item() == pytest.approx(new_gate)
        assert trainer.group("momentum")["linear.weight"][i].item() == pytest.approx(decayed)


@pytest.mark.parametrize(("beta", "s", "slope"), [(1, 0, 0.25), (200, 0, 50), (200, 0.02, 3.53254)])
def test_the_gradient_of_a_gate_is_beta_m_one_minus_m(beta: float, s: float, slope: float) -> None:
    """The penalty alone: a weight of 0 has no other gradient in its gate."""
    trainer = two_weights()
    trainer.group("weights")["linear.weight"].zero_()
    settings = CSSettings(
        initial_gate=s, penalty=2.0, gate_learning_rate=1.0, temperature_per="step"
    )
    trainer.keep("gates", {"linear.weight": torch.full((2, 1), s, dtype=torch.float64)})
    trainer.keep("gate_momentum", {"linear.weight": torch.zeros(2, 1, dtype=torch.float64)})
    step = search_step(trainer, settings, 4)
    step(0 if beta == 1 else 3, batches_of(trainer, "train", 1)[0])
    found = trainer.group("gate_momentum")["linear.weight"]
    assert found.flatten().tolist() == pytest.approx([2 * slope] * 2, rel=1e-5)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_are_those_of_autograd_through_the_sigmoid(scaled: bool, nesterov: bool) -> None:
    trainer = tiny_trainer(nesterov=nesterov)
    settings = CSSettings(
        initial_gate=0.1, penalty=3e-3, gate_learning_rate=0.6, scaled=scaled, rewind="2it"
    )
    names = trainer.names
    trainer.keep(
        "gates", {n: torch.full_like(w, 0.1) for n, w in trainer.prunable_weights().items()}
    )
    trainer.keep(
        "gate_momentum", {n: torch.zeros_like(w) for n, w in trainer.prunable_weights().items()}
    )
    trainer.fit(search_step(trainer, settings, 7), stop=5)

    model = tiny().train()
    parameters = dict(model.named_parameters())
    gates = {n: nn.Parameter(torch.full_like(parameters[n], 0.1)) for n in names}
    options = {"momentum": 0.9, "nesterov": nesterov, "foreach": False}
    optimiser = torch.optim.SGD(
        [
            {"params": list(parameters.values()), "lr": 0.1, "weight_decay": 1e-2},
            {"params": list(gates.values()), "lr": 0.6, "weight_decay": 0.0},
        ],
        **options,
    )
    c = 1 + math.exp(-0.1) if scaled else 1.0
    for t, (x, y) in enumerate(batches_of(trainer, "train", 5)):
        beta = 200 ** ((t // 3) / 2)
        for group, rate in zip(optimiser.param_groups, (0.1, 0.6), strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * t / 7))
        masks = {n: c * torch.sigmoid(beta * gate) for n, gate in gates.items()}
        thin = parameters | {n: parameters[n] * masks[n] for n in names}
        loss = nn.functional.cross_entropy(functional_call(model, thin, (x,)), y)
        loss = loss + 3e-3 * sum(mask.sum() for mask in masks.values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, parameter in parameters.items():
        found = trainer.group("weights")[name]
        torch.testing.assert_close(found, parameter.detach(), rtol=1e-9, atol=1e-12)
    for name, gate in gates.items():
        found = trainer.group("gates")[name]
        torch.testing.assert_close(found, gate.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        trainer.group("buffers")["bn2.running_var"], model.bn2.running_var, rtol=1e-9, atol=1e-12
    )


SEARCH = CSSettings(
    rounds=2, gate_learning_rate=1.0, temperature_per="step", rewind="2it", penalty=1e-3
)


def test_a_search_yields_a_ticket_a_round_with_its_gates_above_zero() -> None:
    trainer = tiny_trainer()
    found = []
    for ticket in search(trainer, SEARCH, None):
        gates, weights = trainer.group("gates"), trainer.group("weights")
        assert 0 < ticket.density < 1
        for name, kept in ticket.mask.items():
            assert kept.equal(gates[name] > 0)
            assert ticket.weights is not None
            assert ticket.weights[name].equal(weights[name] * kept)
        found.append((ticket.point, ticket.index, ticket.judged, ticket.rewind_step))
    assert found == [("round-0", 0, "found", 2), ("round-1", 1, "found", 2)]
    assert max(float(gate.max()) for gate in trainer.group("gates").values()) <= 0


def test_between_rounds_weights_and_momenta_carry_on_and_gates_are_reset() -> None:
    trainer = tiny_trainer()
    tickets = search(trainer, SEARCH, None)
    next(tickets)
    end = {name: tensor.clone() for name, tensor in trainer.state.items()}
    steps = []

    def stop(trainer: Trainer) -> bool:
        steps.append(trainer.step)
        return True

    trainer.hooks.should_stop = stop
    with pytest.raises(Exception, match="before step 0 of round 1"):
        next(tickets)
    for name, tensor in trainer.state.items():
        if name.startswith("gates/"):
            assert tensor.equal((200 * end[name]).clamp(max=0.0))
        else:
            assert tensor.equal(end[name]), name


def test_the_rewind_point_is_the_state_before_step_k_of_the_first_round() -> None:
    trainer = tiny_trainer()
    *_, last = search(trainer, SEARCH, None)
    early = tiny_trainer()
    prunable = early.prunable_weights()
    early.keep("gates", {n: torch.zeros_like(w) for n, w in prunable.items()})
    early.keep("gate_momentum", {n: torch.zeros_like(w) for n, w in prunable.items()})
    early.fit(search_step(early, SEARCH, 7), stop=2)
    expected = early.group("weights") | early.group("buffers")
    assert last.rewind is not None
    assert last.rewind.keys() == expected.keys()
    assert all(last.rewind[name].equal(expected[name]) for name in expected)


def test_a_scaled_search_leaves_the_scale_in_its_weights() -> None:
    trainer = tiny_trainer()
    settings = CSSettings(scaled=True, temperature_per="step", rewind="0it", gate_learning_rate=1.0)
    (ticket,) = search(trainer, settings, None)
    kept = ticket.mask["conv1.weight"]
    assert ticket.weights is not None
    found, stored = ticket.weights["conv1.weight"], trainer.group("weights")["conv1.weight"]
    assert kept.any()
    assert found[kept].equal(2 * stored[kept])


def test_an_empty_mask_is_an_error_that_says_what_to_change() -> None:
    settings = CSSettings(
        penalty=100.0, gate_learning_rate=1.0, temperature_per="step", rewind="0it"
    )
    with pytest.raises(MaskError, match=r"no gate is open after round 0.*lower penalty"):
        list(search(tiny_trainer(), settings, None))


def test_a_rewind_point_after_the_round_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cs\.rewind 7it is not before the end"):
        list(search(tiny_trainer(), CSSettings(rewind="7it"), None))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"final_temperature": 1.0}, "expected more than 1"),
        ({"rounds": 0}, "at least 1"),
        ({"penalty": -1e-9}, "0 or more"),
        ({"gate_learning_rate": 0.0}, "a positive number"),
        ({"reset": "never"}, "formula, release"),
        ({"temperature_per": "batch"}, "epoch, step"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        CSSettings(**settings)  # type: ignore[arg-type]
