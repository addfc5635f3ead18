"""Every method runs on networks that know nothing of pruning."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthlib._torchvision import torchvision
from lthlib.data import Dataset
from lthlib.methods import get_method
from lthlib.settings import build
from lthlib.training import Trainer, TrainingSettings
from tests.training.toys import dense_parent

SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {},
    "imp": {"rounds": 1, "fraction": 0.5, "rewind": "1it"},
    "cs": {"temperature_per": "step", "rewind": "1it", "gate_learning_rate": 1.0},
    "bip": {"density": 0.5},
    "bip-release": {"density": 0.5, "variant": "release"},
    "hydra": {"density": 0.5},
    "omp": {"density": 0.5},
    "snip": {"density": 0.5},
    "grasp": {"density": 0.5},
    "synflow": {"density": 0.5, "iterations": 3},
    "random": {"density": 0.5},
    "retrain": {"mask": "shuffled"},
}


class Classifier(nn.Module):
    """tokens int64 [b, 6] -> logits [b, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embedding(tokens)).mean(1))
        return logits


def mobilenet() -> tuple[nn.Module, Dataset]:
    model = torchvision.models.mobilenet_v2(num_classes=2, width_mult=0.1)
    inputs = torch.randn(8, 3, 32, 32)
    return model, Dataset.from_tensors(
        inputs, torch.arange(8) % 2, validation_fraction=0, test=(inputs, torch.arange(8) % 2)
    )


def transformer() -> tuple[nn.Module, Dataset]:
    tokens = torch.randint(0, 11, (8, 6))
    return Classifier(), Dataset.from_tensors(
        tokens, torch.arange(8) % 2, validation_fraction=0, test=(tokens, torch.arange(8) % 2)
    )


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("network", [mobilenet, transformer])
def test_every_method_prunes_it(network: Any, method: str) -> None:
    torch.manual_seed(0)
    model, data = network()

    def trainer() -> Trainer:
        return Trainer(model, data, TrainingSettings("2it", 8, 0.01))

    chosen = get_method(method.partition("-")[0])
    parent = dense_parent(trainer()) if chosen.parent != "none" else None
    own = trainer()
    *_, ticket = chosen.search(own, build(chosen.settings, SETTINGS[method], method), parent)
    matrices = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert ticket.mask.total >= sum(m.weight.numel() for m in matrices)
    if method in ("dense", "retrain"):
        assert ticket.density == 1.0
    elif method == "cs":
        assert 0 < ticket.density < 1
    else:
        assert ticket.mask.kept == round(ticket.mask.total / 2)
    assert ticket.weights is not None
    assert ticket.weights.keys() == model.state_dict().keys()
    assert all(bool(tensor.isfinite().all()) for tensor in ticket.weights.values())
    for name, kept in ticket.mask.items():
        assert ticket.weights[name][~kept].count_nonzero() == 0
    weights = {n: t for n, t in ticket.weights.items() if n not in own.group("buffers")}
    buffers = {n: t for n, t in ticket.weights.items() if n in own.group("buffers")}
    accuracy = own.evaluate("test", weights, buffers)
    sparse = ticket.apply(model).eval()
    with torch.no_grad():
        right = (sparse(data.test.inputs).argmax(1) == data.test.labels).sum()  # type: ignore[union-attr]
    assert accuracy is not None
    assert math.isclose(accuracy, 100 * int(right) / 8)
    assert own.cost.flops > 0
