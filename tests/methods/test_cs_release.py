"""The released code of CS, written again from its description, takes the same path as ours.

`Released` and `release` follow the published program in plain torch: mask parameters inside the
convolutions, two optimisers that live through all rounds, a temperature that is multiplied up, and
the order of statements between rounds. Nothing of `lthlib` computes in them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthlib.data import Dataset
from lthlib.masks import Mask
from lthlib.methods import cs, retrain
from lthlib.methods.cs import CSSettings
from lthlib.methods.retrain import RetrainSettings
from lthlib.models import ModelSettings, build_model
from lthlib.training import Trainer, TrainingSettings
from tests.training.toys import batches_of

CLASSES, CHANNELS, WIDTH = 3, 2, 4
EPOCHS, STEPS, BATCH = 4, 3, 8  # 20 images: batches of 8, 8 and 4
DROPS = (2, 3)
REWIND_EPOCH = 2
PENALTY = 1e-4  # the release's 1e-8 would hide a wrong penalty in so few steps
State = dict[str, Tensor]


class MaskedConv(nn.Module):
    """A 3x3 convolution whose weights are multiplied by a mask of their own."""

    def __init__(self, inputs: int, outputs: int, stride: int, s0: float):
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.mask_weight = nn.Parameter(torch.full((outputs, inputs, 3, 3), s0))
        self.scaling = 1.0 / (1.0 / (1.0 + math.exp(-s0)))
        self.temp, self.ticket = 1.0, False
        self.mask = torch.empty(0)

    def forward(self, x: Tensor) -> Tensor:
        if self.ticket:
            self.mask = self.scaling * (self.mask_weight > 0).to(x.dtype)
        else:
            self.mask = self.scaling * torch.sigmoid(self.temp * self.mask_weight)
        return F.conv2d(x, self.weight * self.mask, stride=self.stride, padding=1)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, s0: float):
        super().__init__()
        self.first = MaskedConv(inputs, outputs, stride, s0)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = MaskedConv(outputs, outputs, 1, s0)
        self.second_norm = nn.BatchNorm2d(outputs)
        # The shortcut has neither mask nor BatchNorm.
        if stride > 1:
            self.skip: nn.Module = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        else:
            self.skip = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.first_norm(self.first(x)).relu()
        out = self.second_norm(self.second(out))
        return (out + self.skip(x)).relu()


class Released(nn.Module):
    """The release's ResNet with one block a stage."""

    def __init__(self, s0: float):
        super().__init__()
        self.conv0 = MaskedConv(CHANNELS, WIDTH, 1, s0)
        self.norm0 = nn.BatchNorm2d(WIDTH)
        self.blocks = nn.Sequential(
            Block(WIDTH, WIDTH, 1, s0),
            Block(WIDTH, 2 * WIDTH, 2, s0),
            Block(2 * WIDTH, 4 * WIDTH, 2, s0),
        )
        self.fc = nn.Linear(4 * WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.norm0(self.conv0(x)).relu())
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits

    def masked(self) -> list[MaskedConv]:
        return [m for m in self.modules() if isinstance(m, MaskedConv)]

    def set_temperature(self, temp: float) -> None:
        for layer in self.masked():
            layer.temp = temp

    def names(self, ours: State) -> dict[str, str]:
        """Our name of each tensor but the masks, by the release's: both list layers in the order of
        the network."""
        own = {name: t for name, t in self.state_dict().items() if "mask_weight" not in name}
        pairs = dict(zip(own, ours, strict=True))
        assert all(own[theirs].shape == ours[name].shape for theirs, name in pairs.items())
        return pairs


@dataclass
class Found:
    """What a search leaves: its state before every step of every round and at each round's end; of
    each round the hard mask and the effective weights under it; the rewind point, and the effective
    weights after retraining."""

    path: dict[tuple[int, int], State] = field(default_factory=dict)
    masks: list[State] = field(default_factory=list)
    thin: list[State] = field(default_factory=list)
    rewind: State = field(default_factory=dict)
    retrained: State = field(default_factory=dict)


def momentum_of(optimiser: torch.optim.SGD, parameter: nn.Parameter) -> Tensor:
    buffer = optimiser.state[parameter].get("momentum_buffer") if optimiser.state else None
    return torch.zeros_like(parameter) if buffer is None else buffer.clone()


class Program:
    """The release's main program, watched before every step."""

    def __init__(self, start: State, s0: float, rounds: int, dtype: torch.dtype):
        self.s0, self.rounds = s0, rounds
        self.net = Released(s0).to(dtype).train()
        for layer in self.net.masked():
            nn.init.constant_(layer.mask_weight, s0)  # again, in this precision
        self.ours = self.net.names(start)
        self.net.load_state_dict({t: start[o] for t, o in self.ours.items()}, strict=False)
        named = dict(self.net.named_parameters())
        self.mask_params = {n: p for n, p in named.items() if "mask" in n}
        self.weight_params = {n: p for n, p in named.items() if "mask" not in n}
        self.found = Found()

    def run(self, batches: dict[int, list[tuple[Tensor, Tensor]]]) -> Found:
        weights = torch.optim.SGD(
            self.weight_params.values(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        masks = torch.optim.SGD(self.mask_params.values(), lr=0.1, momentum=0.9, nesterov=True)
        saved: State = {}
        for r in range(self.rounds):
            for epoch in range(EPOCHS):
                if r == 0 and epoch == REWIND_EPOCH:
                    saved = {n: t.clone() for n, t in self.net.state_dict().items()}
                self.epoch(epoch, batches[r], (weights, masks), r)
            self.found.path[r, EPOCHS * STEPS] = self.seen(weights, masks)
            self.found.masks.append(
                {self.gate_name(n): s.detach() > 0 for n, s in self.mask_params.items()}
            )
            self.found.thin.append(self.effective())
            if r < self.rounds - 1:
                # In the release's order: the reset no longer sees the final temperature.
                self.net.set_temperature(1.0)
                for layer in self.net.masked():
                    s = layer.mask_weight
                    s.data = torch.clamp(layer.temp * s.data, max=self.s0)
        self.found.rewind = {o: saved[t] for t, o in self.ours.items()}
        self.retrain(saved, batches[0])
        return self.found

    def retrain(self, saved: State, batches: list[tuple[Tensor, Tensor]]) -> None:
        weights = torch.optim.SGD(
            self.weight_params.values(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        self.net.load_state_dict({t: saved[t] for t in self.ours}, strict=False)
        for layer in self.net.masked():
            layer.ticket = True
        for epoch in range(EPOCHS):
            self.epoch(epoch, batches, (weights,), None)
        self.found.retrained = self.effective()

    def effective(self) -> State:
        """Every tensor as the network uses it with the hard mask, by our names."""
        state = {o: self.net.state_dict()[t].clone() for t, o in self.ours.items()}
        for theirs, s in self.mask_params.items():
            state[self.gate_name(theirs)] *= self.net.conv0.scaling * (s.detach() > 0).to(s.dtype)
        return state

    def epoch(
        self,
        epoch: int,
        batches: list[tuple[Tensor, Tensor]],
        optimisers: tuple[torch.optim.SGD, ...],
        r: int | None,
    ) -> None:
        if epoch > 0:
            self.net.set_temperature(self.net.conv0.temp * 200 ** (1 / (EPOCHS - 1)))
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = 0.1 * 0.1 ** sum(epoch >= drop for drop in DROPS)
        for step in range(epoch * STEPS, (epoch + 1) * STEPS):
            if r is not None:
                self.found.path[r, step] = self.seen(*optimisers)
            x, y = batches[step]
            loss = F.cross_entropy(self.net(x), y)
            loss = loss + PENALTY * sum(layer.mask.sum() for layer in self.net.masked())
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()

    def gate_name(self, theirs: str) -> str:
        return self.ours[theirs.replace("mask_weight", "weight")]

    def seen(self, weights: torch.optim.SGD, masks: torch.optim.SGD) -> State:
        state = {}
        for theirs, tensor in self.net.state_dict().items():
            if theirs not in self.ours:
                continue
            group = "weights" if theirs in self.weight_params else "buffers"
            state[f"{group}/{self.ours[theirs]}"] = tensor.clone()
        for theirs, parameter in self.weight_params.items():
            state[f"momentum/{self.ours[theirs]}"] = momentum_of(weights, parameter)
        for theirs, parameter in self.mask_params.items():
            state[f"gates/{self.gate_name(theirs)}"] = parameter.detach().clone()
            state[f"gate_momentum/{self.gate_name(theirs)}"] = momentum_of(masks, parameter)
        return state


@functools.cache
def images(dtype: torch.dtype) -> Dataset:
    draw = torch.Generator().manual_seed(3)
    labels = torch.arange(20) % CLASSES
    inputs = torch.randn(20, CHANNELS, 8, 8, generator=draw, dtype=torch.float64)
    inputs += labels[:, None, None, None]
    return Dataset.from_tensors(inputs.to(dtype), labels, validation_fraction=0)


RELEASE = CSSettings(
    initial_gate=0.0, penalty=PENALTY, gate_learning_rate=0.1, rounds=2, reset="release",
    scaled=True, temperature_per="epoch", rewind=f"{REWIND_EPOCH}ep",
)  # fmt: skip
MODEL = ModelSettings("resnet8", WIDTH, "projection-bare", "conv>1x1", "xavier")


def our_trainer(model: ModelSettings, dtype: torch.dtype) -> Trainer:
    training = TrainingSettings(
        length=f"{EPOCHS}ep", batch_size=BATCH, learning_rate=0.1, schedule="step",
        milestones=tuple(f"{drop}ep" for drop in DROPS), momentum=0.9, nesterov=True,
        weight_decay=1e-4,
    )  # fmt: skip
    network = build_model(model, CLASSES, CHANNELS, seed=5).to(dtype)
    return Trainer(network, images(dtype), training, prunable=model.prunable)


def release(settings: CSSettings, dtype: torch.dtype = torch.float64) -> Found:
    """The released program on the weights and batches of our trainer."""
    trainer = our_trainer(MODEL, dtype)
    start = build_model(MODEL, CLASSES, CHANNELS, seed=5).to(dtype).state_dict()
    batches = {
        r: batches_of(trainer, "train" if r == 0 else f"round-{r}", EPOCHS * STEPS)
        for r in range(settings.rounds)
    }
    return Program(start, settings.initial_gate, settings.rounds, dtype).run(batches)


def ours(
    settings: CSSettings,
    retraining: RetrainSettings | None = None,
    model: ModelSettings = MODEL,
    dtype: torch.dtype = torch.float64,
) -> Found:
    """What `lthlib` does; by default retrained as the release retrains."""
    found, trainer = Found(), our_trainer(model, dtype)
    steps = EPOCHS * STEPS

    def see(trainer: Trainer) -> bool:
        found.path[trainer.round, trainer.step] = copies(trainer.state)
        return False

    trainer.hooks.should_stop = see
    for ticket in cs.search(trainer, settings, None):
        found.path[ticket.index, steps] = copies(trainer.state)
        found.masks.append(dict(ticket.mask))
        found.thin.append(ticket.weights or {})
    found.rewind = ticket.rewind or {}
    chosen = retraining or RetrainSettings(schedule="restart", mask_value=settings.scale)
    (again,) = retrain.search(our_trainer(model, dtype), chosen, ticket)
    found.retrained = again.weights or {}
    return found


def copies(state: State) -> State:
    return {name: t.clone() for name, t in state.items() if not name.startswith("rewind/")}


@functools.cache
def released_path() -> Found:
    return release(RELEASE)


def differences(one: State, other: State) -> Iterator[tuple[str, float]]:
    """By name, the largest difference relative to the tensor's largest entry."""
    for name in one.keys() & other.keys():
        size = max(float(one[name].abs().max()), 1e-300)
        yield name, float((one[name] - other[name]).abs().max()) / size


@pytest.mark.parametrize("initial_gate", [-0.01, 0.0, 0.01])
def test_the_release_and_we_take_the_same_path_through_rounds_and_retraining(
    initial_gate: float,
) -> None:
    settings = replace(RELEASE, initial_gate=initial_gate)
    theirs, found = release(settings), ours(settings)
    assert found.path.keys() == theirs.path.keys()
    assert len(found.path) == 2 * (EPOCHS * STEPS + 1)
    # Rounding: entries near 0 are compared at the size of a weight or gate.
    close = functools.partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
    for place, state in theirs.path.items():
        assert found.path[place].keys() == state.keys()
        for name, tensor in state.items():
            close(found.path[place][name], tensor, msg=lambda m, at=(place, name): f"{at}: {m}")
    assert len(found.masks) == 2
    for mask, expected in zip(found.masks, theirs.masks, strict=True):
        assert mask.keys() == expected.keys()
        assert all(mask[name].equal(expected[name]) for name in expected)
        assert 0 < Mask(mask).density < 1
    pairs = [(found.rewind, theirs.rewind), (found.retrained, theirs.retrained)]
    for mine, expected in [*zip(found.thin, theirs.thin, strict=True), *pairs]:
        assert mine.keys() == expected.keys()
        for name, tensor in expected.items():
            close(mine[name], tensor)


def test_the_comparison_covers_every_boundary_and_something_moves() -> None:
    path = released_path().path
    for r in range(2):
        start, end = path[r, 0], path[r, EPOCHS * STEPS]
        moved = {name.partition("/")[0] for name, much in differences(start, end) if much > 1e-3}
        assert moved == {"weights", "buffers", "momentum", "gates", "gate_momentum"}
    gates = [name for name in path[0, 0] if name.startswith("gates/")]
    assert len(gates) == 7  # the stem and six 3x3 convolutions; no shortcut, no classifier
    # Between the rounds the gates are clamped, and only they change.
    before, after = path[0, EPOCHS * STEPS], path[1, 0]
    assert {name for name in before if not before[name].equal(after[name])} == set(gates)
    assert any(float(before[name].max()) > 0 for name in gates)


def test_in_single_precision_the_first_steps_agree() -> None:
    theirs = release(RELEASE, torch.float32).path
    found = ours(RELEASE, dtype=torch.float32).path
    for step in range(4):
        for name, tensor in theirs[0, step].items():
            # A hundred units in the last place of the largest entry.
            size = max(float(tensor.abs().max()), 1e-3)
            torch.testing.assert_close(found[0, step][name], tensor, rtol=1e-5, atol=1e-5 * size)


SEARCH_DEPARTURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "reset": ({"reset": "formula"}, {}),
    "scaled": ({"scaled": False}, {}),
    "temperature_per": ({"temperature_per": "step"}, {}),
    "penalty": ({"penalty": 0.0}, {}),
    "final_temperature": ({"final_temperature": 100.0}, {}),
    "gate_learning_rate": ({"gate_learning_rate": 0.05}, {}),
    "prunable, 1x1": ({}, {"prunable": "conv"}),
    "prunable, classifier": ({}, {"prunable": "conv+linear"}),
    "initialisation": ({}, {"initialisation": "kaiming"}),
    "shortcut, BatchNorm": ({}, {"shortcut": "projection"}),
    "shortcut, option A": ({}, {"shortcut": "identity"}),
}


@pytest.mark.parametrize("departure", SEARCH_DEPARTURES)
def test_each_departure_from_the_release_alone_changes_the_path(departure: str) -> None:
    settings, model = SEARCH_DEPARTURES[departure]
    chosen = replace(RELEASE, **settings)
    found, theirs = ours(chosen, model=replace(MODEL, **model)), released_path()
    last = (1, EPOCHS * STEPS)
    apart = dict(differences(theirs.path[last], found.path[last]))
    assert apart["weights/stem.weight"] > 1e-2
    assert apart["gates/stem.weight"] > 1e-2
    if departure == "reset":
        # Nothing else differs: the first round is the same, the second begins apart.
        assert max(much for _, much in differences(theirs.path[0, 12], found.path[0, 12])) < 1e-9
        assert dict(differences(theirs.path[1, 0], found.path[1, 0]))["gates/stem.weight"] > 1


@pytest.mark.parametrize("departure", [{"schedule": "continue"}, {"mask_value": 1.0}])
def test_each_departure_in_retraining_alone_changes_the_trained_ticket(
    departure: dict[str, Any],
) -> None:
    like_theirs = RetrainSettings(schedule="restart", mask_value=RELEASE.scale)
    found = ours(RELEASE, replace(like_theirs, **departure))
    apart = dict(differences(released_path().retrained, found.retrained))
    assert apart["stem.weight"] > 1e-2


def slope(beta: float, s: float) -> float:
    m = 1 / (1 + math.exp(-beta * s))
    return beta * m * (1 - m)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("beta", "s", "expected"),
    [(1, 0.0, 0.25), (200, 0.0, 50), (200, 0.02, 3.53254), (200, -0.1, 4.122e-7)],
)
def test_a_gate_s_gradient_and_its_penalty_s_have_the_stated_values(
    beta: float, s: float, expected: float, scaled: bool
) -> None:
    settings = CSSettings(initial_gate=s, penalty=1e-3, scaled=scaled)
    c = 1 + math.exp(-s) if scaled else 1.0
    gate = torch.tensor([s], dtype=torch.float64)
    mask, backward = cs.relax(gate, beta, settings)
    assert mask.item() == pytest.approx(c / (1 + math.exp(-beta * s)), rel=1e-12)
    penalty = backward(torch.zeros(1, dtype=torch.float64)).item()
    both = backward(torch.ones(1, dtype=torch.float64)).item()
    assert penalty == pytest.approx(1e-3 * c * slope(beta, s), rel=1e-9)
    assert (both - penalty) / c == pytest.approx(expected, rel=2e-4)  # as many digits as stated


@pytest.mark.parametrize(
    ("penalty", "final"),
    [(0.0, (0.0193, -0.0647)), (1e-3, (0.02, -0.2392)), (1e-2, (None, -0.642))],
)
def test_our_own_gradient_selects_the_useful_of_two_weights(
    penalty: float, final: tuple[float | None, float]
) -> None:
    """Loss 0.5 sum (m w - t)^2 + lambda sum m with t = (1, 0).

    With the largest penalty the useful gate jumps about at the end, and the last bit of an earlier
    step decides where it stands.
    """
    settings = CSSettings(penalty=penalty)
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)
    w, s = torch.full_like(target, 0.5), torch.zeros_like(target)
    for t in range(85 * 50):
        m, backward = cs.relax(s, cs.temperature(settings, t, 85 * 50, 50), settings)
        g = m * w - target
        ds, dw = backward(w * g), m * g
        w, s = w - 0.1 * dw, s - 0.1 * ds
    assert cs.hard_mask({"s": s})["s"].tolist() == [True, False]
    for gate, expected in zip(s.tolist(), final, strict=True):
        assert expected is None or gate == pytest.approx(expected, abs=1e-4)
