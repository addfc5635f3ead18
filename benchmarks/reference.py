"""What ours is compared with, as CIFAR training code commonly is: eager, NCHW, fp32, foreach SGD,
a DataLoader whose persistent workers augment images decoded beforehand. CS and BiP compute what
their releases compute in a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import DataLoader, Dataset

from lthlib._torchvision import torchvision
from lthlib.data import DataSettings, Images
from lthlib.masks import prunable_names
from lthlib.training import TrainingSettings

WORKERS = 2
DENSITY, PENALTY, TEMPERATURE = 0.1, 1e-8, 20.0
Batches = Iterator[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


class DecodedImages(Dataset[tuple[Tensor, int]]):
    """Images in memory, each augmented and normalised when it is asked for."""

    def __init__(self, part: Images, settings: DataSettings):
        self.images = part.images.numpy().copy()
        self.labels = part.labels.tolist()
        t = torchvision.transforms
        crop = t.RandomCrop(self.images.shape[1], padding=settings.padding)
        normalise = t.Normalize(settings.mean, settings.std)
        self.transform = t.Compose([crop, t.RandomHorizontalFlip(), t.ToTensor(), normalise])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def batches(images: DecodedImages, batch_size: int, device: torch.device) -> Batches:
    """Endless shuffled batches on the device."""
    loader = DataLoader(
        images,
        batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    while True:
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def dense(model: nn.Module, source: Batches, s: TrainingSettings) -> Callable[[int], float]:
    """A function that trains n more steps and returns their mean loss."""
    return _trained(lambda x, y: F.cross_entropy(model(x), y), model.parameters(), source, s)


def imp(model: nn.Module, source: Batches, s: TrainingSettings) -> Callable[[int], float]:
    """As `dense`, each weight multiplied by its fixed mask in the forward pass."""
    parameters, masks = dict(model.named_parameters()), _masks(model)

    def loss(x: Tensor, y: Tensor) -> Tensor:
        thin = {name: parameters[name] * mask for name, mask in masks.items()}
        return F.cross_entropy(functional_call(model, {**parameters, **thin}, (x,)), y)

    return _trained(loss, parameters.values(), source, s)


def cs(model: nn.Module, source: Batches, s: TrainingSettings) -> Callable[[int], float]:
    """As `dense`, with a gate for each weight: autograd goes through w * sigmoid(beta s), and the
    penalty is part of the loss."""
    parameters = dict(model.named_parameters())
    gates = {n: nn.Parameter(torch.zeros_like(parameters[n])) for n in prunable_names(model)}

    def loss(x: Tensor, y: Tensor) -> Tensor:
        soft = {name: torch.sigmoid(TEMPERATURE * gate) for name, gate in gates.items()}
        thin = {name: parameters[name] * mask for name, mask in soft.items()}
        logits = functional_call(model, {**parameters, **thin}, (x,))
        return F.cross_entropy(logits, y) + PENALTY * sum(mask.sum() for mask in soft.values())

    return _trained(loss, [*parameters.values(), *gates.values()], source, s)


def _trained(
    loss: Loss, owned: Iterator[nn.Parameter], source: Batches, s: TrainingSettings
) -> Callable[[int], float]:
    optimiser = torch.optim.SGD(
        owned,
        s.learning_rate,
        momentum=s.momentum,
        nesterov=s.nesterov,
        weight_decay=s.weight_decay,
        foreach=True,
    )

    def step() -> float:
        x, y = next(source)
        optimiser.zero_grad()
        value = loss(x, y)
        value.backward()
        optimiser.step()
        return value.item()

    return lambda n: sum(step() for _ in range(n)) / n


def _masks(model: nn.Module) -> dict[str, Tensor]:
    names = prunable_names(model)
    return {n: (torch.rand_like(model.get_parameter(n)) < DENSITY).float() for n in names}


class _Passed(torch.autograd.Function):
    """|s| -> 1 where it is kept; the gradient passes unchanged."""

    @staticmethod
    def forward(context: object, magnitude: Tensor, threshold: Tensor) -> Tensor:
        return (magnitude > threshold).to(magnitude.dtype)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


def bip(model: nn.Module, source: Batches, s: TrainingSettings) -> Callable[[int], float]:
    """A function that makes n bi-level alternations and returns their mean loss: 4 forwards that
    each sort all scores, 3 backwards, two optimisers that own everything."""
    parameters = dict(model.named_parameters())
    names = prunable_names(model)
    scores = {name: nn.Parameter(parameters[name].detach().abs()) for name in names}
    kept = round(DENSITY * sum(score.numel() for score in scores.values()))
    owned = [*parameters.values(), *scores.values()]
    options = {"momentum": s.momentum, "weight_decay": s.weight_decay, "foreach": True}
    lower, upper = (torch.optim.SGD(owned, s.learning_rate, **options) for _ in range(2))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        flat = torch.cat([score.detach().abs().flatten() for score in scores.values()])
        threshold = flat.sort(descending=True).values[kept]
        thin = {
            name: parameters[name] * _Passed.apply(score.abs(), threshold)
            for name, score in scores.items()
        }
        return F.cross_entropy(functional_call(model, {**parameters, **thin}, (x,)), y)

    def step() -> float:
        x, y = next(source)
        lower.zero_grad(set_to_none=False)
        loss(x, y).backward()
        lower.step()
        x, y = next(source)
        upper.zero_grad(set_to_none=False)
        loss(x, y).backward()
        first = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in owned]
        upper.zero_grad(set_to_none=False)
        loss(x, y).backward()
        for parameter, gradient in zip(owned, first, strict=True):
            assert parameter.grad is not None
            parameter.grad.addcmul_(parameter.grad, gradient, value=-1e-4)
        upper.step()
        with torch.no_grad():
            return loss(x, y).item()

    return lambda n: sum(step() for _ in range(n)) / n


METHODS = {"dense": dense, "imp": imp, "cs": cs, "bip": bip}
