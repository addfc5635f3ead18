"""Every method runs on networks that know nothing of pruning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthlib._torchvision import torchvision
from lthlib.data import Dataset
from lthlib.methods import METHODS, get_method
from lthlib.modules import logits_of
from lthlib.settings import build
from lthlib.training import Trainer, TrainingSettings
from lthlib.turns import turn
from tests.conftest import NEEDS_GPU
from tests.training.toys import dense_parent

efficient = torchvision.models.efficientnet
mobilenetv3, resnet = torchvision.models.mobilenetv3, torchvision.models.resnet

SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"density": 0.5} if one.takes_density else {} for name, one in METHODS.items()},
    "imp": {"rounds": 1, "fraction": 0.5, "rewind": "1it"},
    "cs": {"temperature_per": "step", "rewind": "1it", "gate_learning_rate": 1.0},
    "l0": {"rewind": "1it"},
    "iss": {"rewind": "1it", "initial_gate": 0.5},
    "bip-release": {"density": 0.5, "variant": "release"},
    "gmp": {"density": 0.5, "every": "1it", "rewind": "1it"},
    "synflow": {"density": 0.5, "iterations": 3},
    "retrain": {"mask": "shuffled"},
}
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


def mobilenet_v3() -> tuple[nn.Module, Tensor]:
    block = partial(mobilenetv3.InvertedResidualConfig, dilation=1, width_mult=1)
    blocks = [
        block(8, 3, 8, 8, True, "RE", stride=2),
        block(8, 5, 16, 8, True, "HS", stride=1),
    ]
    model = mobilenetv3.MobileNetV3(blocks, last_channel=16, num_classes=2)
    return model, torch.randn(12, 3, 16, 16)


def efficientnet() -> tuple[nn.Module, Tensor]:
    block = partial(efficient.MBConvConfig, width_mult=1, depth_mult=1)
    blocks = [block(1, 3, 1, 8, 8, num_layers=1), block(6, 5, 2, 8, 12, num_layers=2)]
    return efficient.EfficientNet(blocks, 0.2, num_classes=2), torch.randn(12, 3, 16, 16)


def bottlenecks() -> tuple[nn.Module, Tensor]:
    """Blocks of a ResNet-50, with and without a projection."""
    shortcut = nn.Sequential(nn.Conv2d(6, 16, 1, 2), nn.BatchNorm2d(16))
    blocks = [resnet.Bottleneck(6, 4, 2, shortcut), resnet.Bottleneck(16, 4)]
    start = [nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)]
    return nn.Sequential(*start, *blocks, *head), torch.randn(12, 3, 10, 10)


def vision_transformer() -> tuple[nn.Module, Tensor]:
    model = torchvision.models.VisionTransformer(8, 4, 1, 2, 8, 16, num_classes=2)
    nn.init.normal_(model.heads.head.weight)  # zeros at first, which tell no weights apart
    return model, torch.randn(12, 3, 8, 8)


@dataclass
class Output:
    """What a classifier of Hugging Face gives: its logits, and more."""

    logits: Tensor
    states: Tensor


class Named(Classifier):
    """Gives its logits by name, and caches what no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("places", torch.arange(6), persistent=False)
        self.place = nn.Embedding(6, 8)

    def forward(self, tokens: Tensor) -> Any:
        states = self.encoder(self.embedding(tokens) + self.place(self.places)).mean(1)
        return Output(self.head(states), states)


def with_named_output() -> tuple[nn.Module, Tensor]:
    return Named(), torch.randint(0, 11, (12, 6))


class Recurrent(nn.Module):
    """[b, 5, 4] -> logits [b, 2] by a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.gru(x)[0][:, -1])
        return logits


def recurrent() -> tuple[nn.Module, Tensor]:
    return Recurrent(), torch.randn(12, 5, 4)


def frozen_backbone() -> tuple[nn.Module, Tensor]:
    backbone, inputs = over_time()
    backbone[:-1].requires_grad_(False).apply(lambda module: module.eval())
    backbone.training = True
    return nn.Sequential(backbone[:-1], nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)), inputs


class UNet(nn.Module):
    """Down, up by a transposed convolution, and a skip connection; then the mean of each map."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skipped = self.down(x)
        both = torch.cat([skipped, self.up(self.deep(skipped))], 1)
        logits: Tensor = self.out(both).mean((2, 3))
        return logits


def u_net() -> tuple[nn.Module, Tensor]:
    return UNet(), torch.randn(12, 1, 8, 8)


NETWORKS = [
    *(mobilenet, mobilenet_v3, efficientnet, bottlenecks, vision_transformer, transformer),
    *(with_named_output, over_time, embeddings, recurrent, frozen_backbone, u_net),
]


@pytest.mark.filterwarnings("ignore:grasp takes finite differences:UserWarning")
@pytest.mark.parametrize(("device", "deterministic"), PLACES)
@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("network", NETWORKS)
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
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    matrices = [m.weight for m in model.modules() if isinstance(m, kinds)]
    assert ticket.mask.total >= sum(m.numel() for m in matrices if m.requires_grad)
    if method in ("dense", "retrain"):
        assert ticket.density == 1.0
    elif chosen.has_gates:
        assert 0 < ticket.density <= 1
    else:
        assert ticket.mask.kept == round(ticket.mask.total / 2)
    assert ticket.weights is not None
    assert ticket.weights.keys() == {
        n for n, _ in (*model.named_parameters(), *model.named_buffers())
    }
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad or ticket.weights[name].equal(parameter)
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
        logits = logits_of(sparse(data.test.inputs))  # type: ignore[union-attr]
        right = (logits.argmax(1) == data.test.labels).sum()
    assert accuracy is not None
    # Another device may round one image's logits to the other side.
    assert abs(accuracy - 100 * int(right) / 8) <= (0 if place.type == "cpu" else 100 / 8)
    assert own.cost.flops > 0
