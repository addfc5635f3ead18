"""Stochastic l0 and ISS: their gates against formulas written again, their searches against
autograd through a network, and what every search with gates shows while it trains."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lthlib.checkpoints import load_checkpoint
from lthlib.data import Dataset
from lthlib.errors import ConfigError, MaskError, Paused
from lthlib.methods import get_method, iss, l0
from lthlib.methods.cs import CSSettings
from lthlib.methods.gates import gated_step
from lthlib.methods.iss import ISSSettings
from lthlib.methods.l0 import L0Settings
from lthlib.tickets import Ticket
from lthlib.training import Trainer, TrainingSettings
from tests.training.test_resuming import digest, stop_at_question
from tests.training.toys import batches_of, tiny, tiny_trainer

STEPS, EPOCH = 7, 3
PRUNABLE = 147
DRAWS = 20_000
State = dict[str, Tensor]


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def noise(count: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(count, generator=draw, dtype=torch.float64)


def hard_concrete(alpha: Tensor, u: Tensor) -> Tensor:
    """Louizos et al. (2018): the hard concrete gate with beta 2/3, gamma -0.1, zeta 1.1."""
    s = 1 / (1 + torch.exp(-(torch.log(u) - torch.log(1 - u) + alpha) * 1.5))
    return torch.minimum(torch.ones_like(s), torch.maximum(torch.zeros_like(s), 1.2 * s - 0.1))


def open_chance(alpha: Tensor) -> Tensor:
    """Their the penalty: log(0.1 / 1.1) is -log 11."""
    return 1 / (1 + torch.exp(-(alpha + 2 / 3 * math.log(11))))


def survival(alpha: float, value: np.ndarray) -> np.ndarray:
    """Chance that a hard-concrete gate is above a value in (0, 1)."""
    place = (value + 0.1) / 1.2
    shifted: np.ndarray = 1 / (1 + np.exp(-(alpha - 2 / 3 * np.log(place / (1 - place)))))
    return shifted


GATES = (-4.0, -2.4, -1.0, 0.0, 0.5, 2.2, 4.0)
NOISES = (1e-6, 0.01, 0.2, 0.5, 0.8, 0.99, 1 - 1e-6)


def test_a_drawn_gate_and_its_gradients_are_those_of_the_published_formulas() -> None:
    alpha = doubles(*GATES).repeat_interleave(len(NOISES)).requires_grad_()
    u = doubles(*NOISES).repeat(len(GATES))
    at_mask = torch.linspace(-3, 2, len(u), dtype=torch.float64)
    drawn, backward = l0.relax(alpha.detach(), u, 0.7)

    expected = hard_concrete(alpha, u)
    (expected * at_mask).sum().backward()
    loss_gradient, alpha.grad = alpha.grad, None
    (0.7 * open_chance(alpha).sum()).backward()
    # Rounding of 1 - u and of the stretch, in double precision.
    close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-15)
    close(drawn, expected.detach())
    close(backward(at_mask), loss_gradient + alpha.grad)
    close(backward(torch.zeros_like(u)), alpha.grad)
    clipped = (drawn == 0) | (drawn == 1)
    assert (drawn == 0).any()
    assert (drawn == 1).any()
    assert not clipped.all()
    without_penalty = l0.relax(alpha.detach(), u, 0.0)[1](at_mask)
    assert without_penalty[clipped].count_nonzero() == 0
    assert without_penalty[~clipped].all()


@pytest.mark.parametrize("alpha", [-3.0, -1.6, 0.0, 2.2])
def test_gates_open_as_often_as_the_penalty_says_and_have_their_published_mean(
    alpha: float,
) -> None:
    gate = torch.full((DRAWS,), alpha, dtype=torch.float64)
    drawn, _ = l0.relax(gate, noise(DRAWS), 0.0)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) <= 1
    chance = float(l0.chance_open(doubles(alpha)))
    assert chance == pytest.approx(float(open_chance(doubles(alpha))), rel=1e-12)
    error = math.sqrt(chance * (1 - chance) / DRAWS)
    assert abs(float((drawn > 0).double().mean()) - chance) < 4 * error
    # The mean of what lies in [0, 1] is the integral of the chance to be above.
    middles = (np.arange(10_000) + 0.5) / 10_000
    mean = float(survival(alpha, middles).mean())
    assert abs(float(drawn.mean()) - mean) < 4 * float(drawn.std()) / math.sqrt(DRAWS) + 1e-6


def test_the_final_gate_is_open_above_minus_log_11_only() -> None:
    edge = -math.log(11)
    found = l0.final_gate(doubles(edge - 1e-9, edge + 1e-9, 0.0, 2.2, 2.5))
    assert (found > 0).tolist() == [False, True, True, True, True]
    assert found.tolist() == pytest.approx(
        [0, 0, 0.5, 1.2 / (1 + math.exp(-2.2)) - 0.1, 1], abs=1e-9
    )


@pytest.mark.parametrize("s", [-2.0, 0.0, 1.0])
def test_the_masks_of_iss_are_open_with_chance_sigma_s(s: float) -> None:
    drawn, _ = iss.relax(torch.full((DRAWS,), s, dtype=torch.float64), noise(DRAWS), 0.0)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    chance = 1 / (1 + math.exp(-s))
    assert abs(float(drawn.mean()) - chance) < 4 * math.sqrt(chance * (1 - chance) / DRAWS)


def test_one_step_of_iss_on_two_weights_by_hand() -> None:
    """One weight is drawn open, one closed; the gradient of either gate passes straight through."""
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(doubles(0.8, -0.4)[:, None])
    data = Dataset.from_tensors(
        doubles(2.0)[:, None], torch.tensor([0]), validation_fraction=0, num_classes=2
    )
    training = TrainingSettings("2it", 1, 0.1, "constant", weight_decay=0.01)
    trainer = Trainer(model, data, training)
    trainer.keep("gates", {"weight": doubles(0.3, -0.2)[:, None]})
    trainer.keep("gate_momentum", {"weight": torch.zeros(2, 1, dtype=torch.float64)})
    settings = ISSSettings(penalty=0.05, gate_learning_rate=0.7)
    uniform = doubles(0.5, 0.5)
    drawing = iss.gate_of(settings)
    fixed = replace(drawing, relax=lambda dial, s, noise: iss.relax(s, uniform, settings.penalty))
    step = gated_step(trainer, settings, 2, fixed)
    step(0, batches_of(trainer, "train", 1)[0])

    # sigma(0.3) = 0.574 > 0.5 is open, sigma(-0.2) = 0.450 < 0.5 is not: logits (1.6, 0).
    p = math.exp(1.6) / (math.exp(1.6) + 1)
    cases = [(0.8, 0.3, 1, 2 * (p - 1)), (-0.4, -0.2, 0, 2 * (1 - p))]
    for i, (weight, gate, drawn, g) in enumerate(cases):
        sigma = 1 / (1 + math.exp(-gate))
        # Nesterov's first step moves by 1.9 times the gradient; gates do not decay.
        new_weight = weight - 0.1 * 1.9 * (drawn * g + 0.01 * weight)
        new_gate = gate - 0.7 * 1.9 * (weight * g + 0.05) * sigma * (1 - sigma)
        found = (trainer.group("weights")["weight"][i], trainer.group("gates")["weight"][i])
        assert found[0].item() == pytest.approx(new_weight, rel=1e-12)
        assert found[1].item() == pytest.approx(new_gate, rel=1e-12)


L0 = L0Settings(
    initial_gate=0.2, penalty=0.02, gate_learning_rate=20.0, rounds=2, rewind="2it",
    recalibrated=False,
)  # fmt: skip
ISS = ISSSettings(
    initial_gate=0.2, penalty=0.01, gate_learning_rate=3.0, rounds=2, hardening=5.0, rewind="2it",
    recalibrated=False,
)  # fmt: skip
SEARCHES: dict[str, tuple[ModuleType, Any]] = {"l0": (l0, L0), "iss": (iss, ISS)}


class Watched:
    """A search whose noise is written down: one list a round, a tensor for each gate and step."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch):
        module, settings = SEARCHES[name]
        self.trainer, self.uniforms = tiny_trainer(), []
        self.tickets: list[Ticket] = []
        self.states: list[State] = []
        seen: list[Tensor] = []
        relax = module.relax

        def recorded(gate: Tensor, uniform: Tensor, penalty: float) -> Any:
            seen.extend(self.trainer.flat("gates").like(uniform.clone()).values())
            return relax(gate, uniform, penalty)

        monkeypatch.setattr(module, "relax", recorded)
        for ticket in module.search(self.trainer, settings, None):
            self.tickets.append(ticket)
            self.states.append({name: t.clone() for name, t in self.trainer.state.items()})
            # After the last step of a round come the draws of its gated accuracy.
            self.uniforms.append(seen[: STEPS * len(self.trainer.names)])
            seen.clear()
        monkeypatch.undo()


def relaxed(name: str, gate: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Mask and penalty before its lambda, for autograd."""
    if name == "l0":
        return hard_concrete(gate, u), open_chance(gate).sum()
    chance = 1 / (1 + torch.exp(-gate))
    return chance + ((u < chance).double() - chance).detach(), chance.sum()


def by_autograd(name: str, uniforms: list[list[Tensor]]) -> list[State]:
    """Weights, gates and statistics at the end of each round, by autograd and torch's SGD."""
    settings, trainer = SEARCHES[name][1], tiny_trainer()
    model = tiny().train()
    weights = dict(model.named_parameters())
    start = settings.initial_gate
    gates = {n: nn.Parameter(torch.full_like(weights[n], start)) for n in trainer.names}
    optimiser = torch.optim.SGD(
        [
            {"params": list(weights.values()), "weight_decay": 1e-2},
            {"params": list(gates.values()), "weight_decay": 0.0},
        ],
        lr=0.1, momentum=0.9, nesterov=True, foreach=False,
    )  # fmt: skip
    found = []
    for r in range(settings.rounds):
        batches = batches_of(trainer, f"round-{r}" if r else "train", STEPS)
        draws = iter(uniforms[r])
        for t, (x, y) in enumerate(batches):
            fraction = 0.5 * (1 + math.cos(math.pi * t / STEPS))
            optimiser.param_groups[0]["lr"] = 0.1 * fraction
            optimiser.param_groups[1]["lr"] = settings.gate_learning_rate * fraction
            pairs = {n: relaxed(name, gate, next(draws)) for n, gate in gates.items()}
            thin = weights | {n: weights[n] * mask for n, (mask, _) in pairs.items()}
            loss = F.cross_entropy(functional_call(model, thin, (x,)), y)
            loss = loss + settings.penalty * sum(price for _, price in pairs.values())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        state = {f"weights/{n}": w.detach().clone() for n, w in weights.items()}
        state |= {f"gates/{n}": s.detach().clone() for n, s in gates.items()}
        state |= {f"buffers/{n}": b.clone() for n, b in model.named_buffers()}
        found.append(state)
        if name == "iss":
            for s in gates.values():
                s.data = torch.minimum(5.0 * s.data, torch.full_like(s.data, start))
    return found


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_of_two_rounds_is_autograd_s_with_the_same_noise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(name, monkeypatch)
    for found, expected in zip(watched.states, by_autograd(name, watched.uniforms), strict=True):
        for key, tensor in expected.items():
            # Rounding in double precision, over 14 steps.
            torch.testing.assert_close(found[key], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_yields_a_ticket_a_round(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(name, monkeypatch)
    for ticket, state in zip(watched.tickets, watched.states, strict=True):
        assert 0 < ticket.density < 1
        assert ticket.weights is not None
        for n, kept in ticket.mask.items():
            gate, weight = state[f"gates/{n}"], state[f"weights/{n}"]
            value = (1.2 * torch.sigmoid(gate) - 0.1).clamp(0, 1) if name == "l0" else gate > 0
            assert kept.equal(value > 0)
            torch.testing.assert_close(ticket.weights[n], weight * value, rtol=1e-12, atol=0)
    found = [(t.point, t.index, t.judged, t.rewind_step) for t in watched.tickets]
    assert found == [("round-0", 0, "found", 2), ("round-1", 1, "found", 2)]
    first, second = (ticket.rewind for ticket in watched.tickets)
    assert first is not None
    assert second is not None
    assert all(first[n].equal(second[n]) for n in first)


@pytest.mark.parametrize("name", SEARCHES)
def test_the_noise_is_uniform_and_drawn_anew_for_every_batch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = [u for part in Watched(name, monkeypatch).uniforms for u in part]
    assert len({float(u.flatten()[0]) for u in draws}) == len(draws) == 2 * STEPS * 3
    flat = torch.cat([u.flatten() for u in draws])
    assert float(flat.min()) > 0
    assert float(flat.max()) < 1
    # Mean and variance of a uniform number, to four standard errors.
    count = flat.numel()
    assert abs(float(flat.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / count)
    assert abs(float((flat - 0.5).square().mean()) - 1 / 12) < 4 * math.sqrt(1 / 180 / count)


@pytest.mark.parametrize(
    ("name", "expected"), [("l0", [-3.0, -0.1, 0.0, 0.1]), ("iss", [-15.0, -0.5, 0.0, 0.2])]
)
def test_between_rounds_l0_keeps_its_gates_and_iss_hardens_them(
    name: str, expected: list[float]
) -> None:
    module, settings = SEARCHES[name]
    trainer = tiny_trainer()
    tickets = module.search(trainer, settings, None)
    next(tickets)
    gate = trainer.group("gates")["conv1.weight"].view(-1)
    gate[:4] = doubles(-3.0, -0.1, 0.0, 0.1)
    end = {n: t.clone() for n, t in trainer.state.items() if not n.startswith("gates/")}
    trainer.hooks.should_stop = lambda trainer: True
    with pytest.raises(Paused, match="before step 0 of round 1"):
        next(tickets)
    assert gate[:4].tolist() == pytest.approx(expected, rel=1e-15)
    assert all(trainer.state[n].equal(tensor) for n, tensor in end.items())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("iss", {}),
        ("cs", {"temperature_per": "step"}),
        ("cs", {"temperature_per": "step", "scaled": True}),
    ],
)
def test_a_gate_of_exactly_zero_is_pruned(name: str, settings: dict[str, Any]) -> None:
    trainer, method = tiny_trainer(), get_method(name)
    next(method.search(trainer, method.settings(rewind="0it", **settings), None))
    for gate in trainer.group("gates").values():
        gate.fill_(1.0)
    trainer.group("gates")["linear.weight"].view(-1)[:3] = doubles(0.0, -1e-300, 1e-300)
    assert trainer.standing is not None
    mask = trainer.standing().mask
    assert mask["linear.weight"].view(-1)[:4].tolist() == [False, False, True, True]
    assert mask.kept == PRUNABLE - 2


def last_ticket(name: str, trainer: Trainer, **changes: Any) -> Ticket:
    module, settings = SEARCHES[name]
    chosen = type(settings)(**({**vars(settings), **changes}))
    *_, ticket = module.search(trainer, chosen, None)
    return ticket


@pytest.mark.parametrize("name", SEARCHES)
def test_recalibrating_changes_the_ticket_s_batchnorm_statistics_alone(name: str) -> None:
    plain_trainer, trainer = tiny_trainer(), tiny_trainer()
    plain = last_ticket(name, plain_trainer)
    ticket = last_ticket(name, trainer, recalibrated=True)
    assert ticket.weights is not None
    assert plain.weights is not None
    changed = {n for n in plain.weights if not plain.weights[n].equal(ticket.weights[n])}
    assert changed == set(plain_trainer.group("buffers"))
    assert ticket.mask == plain.mask
    for key, tensor in plain_trainer.state.items():
        assert trainer.state[key].equal(tensor), key
    # An epoch of 20 images, forward only, for each of two tickets.
    assert trainer.cost.forward_passes - plain_trainer.cost.forward_passes == 2 * 20
    assert trainer.cost.backward_passes == plain_trainer.cost.backward_passes


@pytest.mark.parametrize("name", SEARCHES)
def test_recalibrated_statistics_are_those_of_an_epoch_forward_under_the_ticket(name: str) -> None:
    plain = last_ticket(name, tiny_trainer())
    ticket = last_ticket(name, tiny_trainer(), recalibrated=True)
    assert ticket.weights is not None
    assert plain.weights is not None
    model = plain.apply(tiny()).train()
    for module in (model.bn1, model.bn2):
        module.reset_running_stats()  # type: ignore[operator]
        module.momentum = None  # type: ignore[assignment]
    seen = []
    with torch.no_grad():
        for x, _ in batches_of(tiny_trainer(), "statistics", EPOCH):
            seen.append(model.conv1(x).transpose(0, 1).flatten(1))  # type: ignore[operator]
            model(x)
    close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
    mean, var = (
        torch.stack([f(one) for one in seen]).mean(0)
        for f in (lambda one: one.mean(1), lambda one: one.var(1))
    )
    close(ticket.weights["bn1.running_mean"], mean)
    close(ticket.weights["bn1.running_var"], var)
    for n, buffer in model.named_buffers():
        close(ticket.weights[n], buffer)
        assert not buffer.equal(plain.weights[n])


RESUMED: dict[str, dict[str, Any]] = {
    "l0": {"penalty": 0.02, "gate_learning_rate": 20.0, "initial_gate": 0.2},
    "iss": {"penalty": 0.01, "gate_learning_rate": 3.0, "initial_gate": 0.2, "hardening": 5.0},
}


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("stop", [0, 2, 3, 6, 7, 10, 13])
def test_resuming_gives_the_same_bits(name: str, stop: int, tmp_path: Path) -> None:
    """Stopped within an epoch, at its end, and on both sides of a round's end."""
    method = get_method(name)
    settings = method.settings(rounds=2, rewind="2it", **RESUMED[name])
    trainer = tiny_trainer(torch.float32, 0.5)
    tickets = list(method.search(trainer, settings, None))
    whole, history = digest(tickets, trainer), trainer.history
    trainer, path = tiny_trainer(torch.float32, 0.5), tmp_path / "checkpoint.safetensors"
    trainer.hooks = stop_at_question(stop, path)
    with pytest.raises(Paused):
        list(method.search(trainer, settings, None))
    trainer = tiny_trainer(torch.float32, 0.5)
    assert load_checkpoint(trainer, path, "owner")
    assert digest(list(method.search(trainer, settings, None)), trainer) == whole
    ends = [line for line in history if line["step"] == STEPS]
    again = [line for line in trainer.history if line["step"] == STEPS]
    for one, other in zip(ends, again, strict=True):
        for key in ("density", "gates", "gated_validation"):
            assert one[key] == other[key]


def plenty() -> Dataset:
    """Three classes of images, 64 to train and 200 to validate."""
    draw = torch.Generator().manual_seed(11)

    def part(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 3
        noise = torch.randn(count, 1, 5, 5, generator=draw, dtype=torch.float64)
        return noise + 0.5 * labels[:, None, None, None], labels

    return Dataset.from_tensors(*part(64), validation=part(200))


READ: dict[str, Any] = {
    "cs": CSSettings(penalty=3e-3, gate_learning_rate=1.0, rounds=2, rewind="2it"),
    "cs, scaled": CSSettings(0.05, 3e-3, gate_learning_rate=1.0, scaled=True, rewind="2it"),
    "l0": L0Settings(0.2, 0.01, 20.0, rounds=2, rewind="2it"),
    "iss": ISSSettings(0.2, 0.01, 3.0, rounds=2, rewind="2it"),
}


def soft(name: str, gate: Tensor) -> Tensor:
    """The deterministic value of a gate at the end of a round."""
    if name == "l0":
        return open_chance(gate)
    return torch.sigmoid((1.0 if name == "iss" else 200.0) * gate)


@pytest.mark.parametrize("name", READ)
def test_the_history_tells_density_gates_and_accuracy_of_every_epoch(name: str) -> None:
    trainer = Trainer(tiny(), plenty(), TrainingSettings("4ep", 8))
    tickets = get_method(name.partition(",")[0]).search(trainer, READ[name], None)
    for r, ticket in enumerate(tickets):
        lines = [line for line in trainer.history if line["round"] == r]
        assert [line["step"] for line in lines] == [8, 16, 24, 32]
        assert all(len(line["gates"]) == 20 for line in lines)
        assert all(sum(line["gates"]) == PRUNABLE for line in lines)
        assert ["gated_validation" in line for line in lines] == [False] * 3 + [True]
        end = lines[-1]
        assert end["density"] == pytest.approx(ticket.density, rel=1e-12)
        assert 0 <= end["gated_validation"] <= 100
        flat = torch.cat([gate.flatten() for gate in trainer.group("gates").values()])
        counts, _ = np.histogram(soft(name, flat).float().numpy(), bins=20, range=(0, 1))
        assert end["gates"] == counts.tolist()
        if name.startswith("cs"):
            assert ticket.weights is not None
            buffers = {n: ticket.weights[n] for n in trainer.group("buffers")}
            judged = trainer.evaluate("validation", ticket.weights, buffers)
            assert judged is not None
            assert judged > 40  # above chance: something was learned
            assert abs(end["gated_validation"] - judged) <= 0.5


def test_gated_accuracy_of_drawn_gates_is_the_mean_of_five_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(tiny(), plenty(), TrainingSettings("2ep", 8))
    asked: list[float] = []
    evaluate = trainer.evaluate

    def recorded(*arguments: Any) -> float | None:
        value = evaluate(*arguments)
        asked.append(value if value is not None else math.nan)
        return value

    monkeypatch.setattr(trainer, "evaluate", recorded)
    before = torch.get_rng_state()
    list(iss.search(trainer, ISSSettings(0.2, rewind="0it"), None))
    assert torch.get_rng_state().equal(before)
    assert len(asked) == 5
    assert len(set(asked)) > 1
    assert trainer.history[-1]["gated_validation"] == pytest.approx(sum(asked) / 5, rel=1e-12)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_closes_every_gate_says_what_to_change(name: str) -> None:
    with pytest.raises(MaskError, match=r"no gate is open after round 0.*lower penalty"):
        last_ticket(name, tiny_trainer(), penalty=100.0)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_rewind_point_after_the_round_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}\.rewind 7it is not before the end"):
        last_ticket(name, tiny_trainer(), rewind="7it")


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (L0Settings, {"rounds": 0}, r"l0\.rounds is 0; expected at least 1"),
        (L0Settings, {"penalty": -1e-9}, r"l0\.penalty is -1e-09; expected 0 or more"),
        (L0Settings, {"gate_learning_rate": 0.0}, r"l0\.gate_learning_rate is 0\.0"),
        (ISSSettings, {"rounds": 0}, r"iss\.rounds is 0; expected at least 1"),
        (ISSSettings, {"penalty": math.nan}, r"iss\.penalty is nan; expected 0 or more"),
        (ISSSettings, {"hardening": 0.5}, r"iss\.hardening is 0\.5; expected at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    kind: type, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        kind(**settings)
