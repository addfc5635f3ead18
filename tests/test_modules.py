"""Networks as users bring them: wrapped, hooked, lazy, complex."""

from __future__ import annotations

import threading
import warnings
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from lthlib.errors import ConfigError
from lthlib.modules import call, copied, logits_of, unwrapped


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        nn.DataParallel,
        AveragedModel,
        lambda model: compiled(nn.DataParallel(model)),
        lambda model: nn.Sequential(compiled(model[0]), model[1], nn.DataParallel(model[2])),
    ],
)
def test_a_wrapped_network_is_the_network_inside(wrap) -> None:
    model = network()
    wrapped = wrap(model)
    inside = unwrapped(wrapped)
    assert list(inside.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    pairs = zip(inside.parameters(), wrapped.parameters(), strict=True)
    assert all(ours is theirs for ours, theirs in pairs)


def test_a_network_without_a_wrapper_is_itself() -> None:
    model = network()
    model.module = nn.Linear(2, 2)  # a part of its own that is called so
    assert unwrapped(model) is model


@pytest.mark.filterwarnings("ignore:.*jit:DeprecationWarning")
def test_torchscript_is_refused() -> None:
    scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="the network is TorchScript"):
        unwrapped(nn.Sequential(scripted))


@pytest.mark.parametrize("wrong", [nn.Linear, "resnet20", None, [network()]])
def test_what_is_no_network_is_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=r"model is .*; expected an nn.Module"):
        unwrapped(wrong)


def weight_normed() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = network()
        nn.utils.weight_norm(model[0])
        return model


def half_pruned() -> nn.Module:
    model = network()
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


class Average(nn.Module):
    """Keeps a mean of what it saw, with the graph that made it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        self.mean = 0.9 * self.mean + 0.1 * y.mean(0)
        return y + self.mean


@pytest.mark.parametrize("build", [weight_normed, half_pruned, Average])
def test_what_deepcopy_refuses_is_copied_and_shares_nothing(build) -> None:
    model, x = build(), torch.randn(5, 4)
    model(x)
    copy = copied(model)
    model.eval(), copy.eval()
    before = model(x).detach()
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.zero_()
    assert not copy(x).equal(before)
    assert copied(model)(x).shape == before.shape


def test_sparse_gradients_are_dense_in_a_copy() -> None:
    model = nn.Sequential(nn.Embedding(5, 2, sparse=True), nn.EmbeddingBag(5, 2, sparse=True))
    assert not any(module.sparse for module in copied(model))
    assert all(module.sparse for module in model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.LazyLinear(3)), "'0.weight' has no shape yet.*on a batch once"),
        (nn.Sequential(nn.LazyBatchNorm1d(affine=False)), "'0.running_mean' has no shape yet"),
        (nn.Linear(2, 2, dtype=torch.cfloat), "'weight' holds complex numbers"),
    ],
)
def test_what_cannot_be_trained_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        copied(model)


def test_what_holds_something_that_cannot_be_copied_is_refused() -> None:
    model = network()
    model.lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"cannot be copied \(cannot pickle"):
        copied(model)


LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
Named = namedtuple("Named", ["auxiliary", "logits"])


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"loss": torch.zeros(()), "logits": LOGITS},
        SimpleNamespace(logits=LOGITS),
        Named(torch.zeros(3), LOGITS),
        (LOGITS, torch.zeros(3, 7)),
        [LOGITS],
    ],
)
def test_logits_are_found_in_what_networks_give(output: Any) -> None:
    assert logits_of(output) is LOGITS


def test_what_holds_no_logits_is_left_as_it_is() -> None:
    output = {"mean": torch.zeros(3)}
    assert logits_of(output) is output


class Difference(nn.Module):
    def forward(self, left: Any, right: Any) -> Any:
        return left - right


@pytest.mark.parametrize("inputs", [(5, 3), [5, 3], {"right": 3, "left": 5}])
def test_several_inputs_are_handed_over_by_place_or_by_name(inputs: Any) -> None:
    assert call(Difference(), inputs) == 2
