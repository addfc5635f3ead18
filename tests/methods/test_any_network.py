"""Every method runs on networks that know nothing of pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthlib._torchvision import torchvision
from lthlib.data import Dataset
from lthlib.methods import get_method
from lthlib.settings import build
from lthlib.training import Trainer, TrainingSettings
from lthlib.turns import turn
from tests.conftest import NEEDS_GPU
from tests.training.toys import dense_parent

SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {},
    "imp": {"rounds": 1, "fraction": 0.5, "rewind": "1it"},
    "cs": {"temperature_per": "step", "rewind": "1it", "gate_learning_rate": 1.0},
    "l0": {"rewind": "1it"},
    "iss": {"rewind": "1it", "initial_gate": 0.5},
    "bip": {"density": 0.5},
    "bip-release": {"density": 0.5, "variant": "release"},
    "hydra": {"density": 0.5},
    "omp": {"density": 0.5},
    "gmp": {"density": 0.5, "every": "1it", "rewind": "1it"},
    "snip": {"density": 0.5},
    "grasp": {"density": 0.5},
    "synflow": {"density": 0.5, "iterations": 3},
    "random": {"density": 0.5},
    "retrain": {"mask": "shuffled"},
}
OF_OWN_DENSITY = ("cs", "l0", "iss")
# Once more with only those kernels of a GPU that give the same bits each time.
PLACES = [("cpu", False), *(pytest.param("cuda", only, marks=NEEDS_GPU) for only in (False, True))]


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


def mobilenet() -> tuple[nn.Module, Tensor]:
    return torchvision.models.mobilenet_v2(num_classes=2, width_mult=0.1), torch.randn(
        12, 3, 32, 32
    )


def transformer() -> tuple[nn.Module, Tensor]:
    return Classifier(), torch.randint(0, 11, (12, 6))


def over_time() -> tuple[nn.Module, Tensor]:
    first = [nn.Conv1d(2, 6, 3, stride=2), nn.BatchNorm1d(6), nn.ReLU()]
    then = [nn.Conv1d(6, 8, 3, groups=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*first, *then, nn.Linear(8, 2)), torch.randn(12, 2, 16)


def embeddings() -> tuple[nn.Module, Tensor]:
    layers = [nn.Embedding(11, 4), nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 2)]
    return nn.Sequential(*layers), torch.randint(0, 11, (12, 6))


@pytest.mark.parametrize(("device", "deterministic"), PLACES)
@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("network", [mobilenet, transformer, over_time, embeddings])
def test_every_method_prunes_it(
    network: Any, method: str, device: str, deterministic: bool
) -> None:
    torch.manual_seed(0)
    model, inputs = network()
    labels = torch.arange(12) % 2
    data = Dataset.from_tensors(
        inputs, labels, validation_fraction=0, test=(inputs[:8], labels[:8])
    )
    # A batch of 8 and one of 4; on a GPU long enough for the steps to be recorded.
    length = "4it" if device == "cpu" else "10it"

    def trainer() -> Trainer:
        return Trainer(model, data, TrainingSettings(length, 8, 0.01), device=device)

    with turn(torch.device(device)):
        torch.use_deterministic_algorithms(deterministic)
        pruned(model, data, method, trainer)


def pruned(model: nn.Module, data: Dataset, method: str, trainer: Callable[[], Trainer]) -> None:
    chosen = get_method(method.partition("-")[0])
    parent = dense_parent(trainer()) if chosen.parent != "none" else None
    own = trainer()
    *_, ticket = chosen.search(own, build(chosen.settings, SETTINGS[method], method), parent)
    matrices = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    assert ticket.mask.total >= sum(m.weight.numel() for m in matrices)
    if method in ("dense", "retrain"):
        assert ticket.density == 1.0
    elif method in OF_OWN_DENSITY:
        assert 0 < ticket.density <= 1
    else:
        assert ticket.mask.kept == round(ticket.mask.total / 2)
    assert ticket.weights is not None
    assert ticket.weights.keys() == model.state_dict().keys()
    assert all(bool(tensor.isfinite().all()) for tensor in ticket.weights.values())
    for name, kept in ticket.mask.items():
        assert ticket.weights[name][~kept].count_nonzero() == 0
    weights = {n: t for n, t in ticket.weights.items() if n not in own.group("buffers")}
    buffers = {n: t for n, t in ticket.weights.items() if n in own.group("buffers")}
    place = own.network.device
    accuracy = own.evaluate(
        "test",
        {name: tensor.to(place) for name, tensor in weights.items()},
        {name: tensor.to(place) for name, tensor in buffers.items()},
    )
    sparse = ticket.apply(model).eval()
    with torch.no_grad():
        right = (sparse(data.test.inputs).argmax(1) == data.test.labels).sum()  # type: ignore[union-attr]
    assert accuracy is not None
    # Another device may round one image's logits to the other side.
    assert abs(accuracy - 100 * int(right) / 8) <= (0 if place.type == "cpu" else 100 / 8)
    assert own.cost.flops > 0
