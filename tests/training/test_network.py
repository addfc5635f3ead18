"""Which tensors of a network a training moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthlib.data import Dataset
from lthlib.errors import ConfigError, MaskError
from lthlib.methods import get_method
from lthlib.settings import build
from lthlib.training import Network, Trainer, TrainingSettings
from tests.methods.test_any_network import SETTINGS
from tests.training.toys import dense_parent

INPUTS, LABELS = (
    torch.randn(12, 4, generator=torch.Generator().manual_seed(0)),
    torch.arange(12) % 2,
)
DATA = Dataset.from_tensors(INPUTS, LABELS, validation_fraction=0, test=(INPUTS, LABELS))


def trainer_of(model: nn.Module, **more: Any) -> Trainer:
    return Trainer(model, DATA, TrainingSettings("4it", 8, 0.1, weight_decay=0.1), **more)


class Backbone(nn.Module):
    """A frozen layer, BatchNorm and table of whole numbers, and a head that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6).requires_grad_(False)
        self.norm = nn.BatchNorm1d(6).requires_grad_(False)
        self.order = nn.Parameter(torch.tensor([5, 4, 3, 2, 1, 0]), requires_grad=False)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.body(x))[:, self.order].relu())
        return logits


@pytest.mark.parametrize("method", [name for name in SETTINGS if name != "retrain"])
def test_what_is_frozen_is_neither_trained_nor_decayed_nor_pruned(method: str) -> None:
    model, own = Backbone(), get_method(method.partition("-")[0])
    parent = dense_parent(trainer_of(model)) if own.parent != "none" else None
    *_, ticket = own.search(trainer_of(model), build(own.settings, SETTINGS[method], ""), parent)
    assert list(ticket.mask) == ["head.weight"]
    before = dict(model.named_parameters())
    frozen = [name for name in before if not name.startswith("head")]
    assert all(ticket.weights[name].equal(before[name]) for name in frozen)
    assert not ticket.weights["head.bias"].equal(before["head.bias"])
    assert int(ticket.weights["norm.num_batches_tracked"]) > 0


def test_frozen_weights_cannot_be_named() -> None:
    with pytest.raises(MaskError, match=r"'body.weight', whose weights are frozen"):
        trainer_of(Backbone(), prunable=("body.weight",))
    with pytest.raises(MaskError, match=r"no conv\+linear weights to prune that are trained"):
        trainer_of(Backbone().requires_grad_(False))


class Mean(nn.Module):
    """Centres its inputs by a mean that it keeps: assigned anew at each forward pass."""

    def __init__(self, persistent: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("mean", torch.ones(4), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x * self.mean)
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        return logits


def test_a_buffer_that_a_forward_pass_assigns_is_kept() -> None:
    model, network = Mean(), Network(Mean())
    network.model.load_state_dict(model.state_dict())
    weights, buffers = network.weights(), network.buffers()
    loss, _, gradients = network.gradients(weights, buffers, INPUTS, LABELS)
    expected = nn.functional.cross_entropy(model(INPUTS), LABELS)
    expected.backward()
    assert loss.equal(expected.detach())
    assert gradients["linear.weight"].equal(model.linear.weight.grad)  # by the mean as it was
    assert buffers["mean"].equal(model.mean)
    network.forward(weights, buffers, INPUTS)
    model(INPUTS)
    assert buffers["mean"].equal(model.mean)


class Cache(nn.Module):
    """Keeps something whose shape follows the batch."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("seen", None, persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.detach() if self.seen is None else self.seen
        logits: Tensor = self.linear(x + self.seen)
        return logits


def test_a_cache_is_made_anew_and_a_buffer_that_is_to_be_saved_must_have_a_shape() -> None:
    network = Network(Cache(persistent=False))
    weights, buffers = network.weights(), network.buffers()
    for count in (12, 5):
        network.forward(weights, buffers, INPUTS[:count])
    assert buffers == {}
    with pytest.raises(ConfigError, match=r"'seen' of Cache of shape \[12, 4\], which was None"):
        trained = Network(Cache(persistent=True))
        trained.gradients(trained.weights(), trained.buffers(), INPUTS, LABELS)


def test_counting_operations_leaves_a_network_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), Counter())
    network = Network(model)
    assert network.flops_per_image(INPUTS[:2]) == 2 * 4 * 6
    assert int(network.model[2].calls) == 0


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x
