"""What ours is compared with, as CIFAR training code commonly is: eager, NCHW, fp32, foreach SGD,
a DataLoader whose persistent workers augment images decoded beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lthlib._torchvision import torchvision
from lthlib.data import DataSettings, Images
from lthlib.training import TrainingSettings

WORKERS = 2
Batches = Iterator[tuple[Tensor, Tensor]]


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
        multiprocessing_context="spawn",
        pin_memory=device.type == "cuda",
    )
    while True:
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def dense(model: nn.Module, source: Batches, s: TrainingSettings) -> Callable[[int], float]:
    """A function that trains n more steps and returns their mean loss."""
    optimiser = torch.optim.SGD(
        model.parameters(),
        s.learning_rate,
        momentum=s.momentum,
        nesterov=s.nesterov,
        weight_decay=s.weight_decay,
        foreach=True,
    )

    def step() -> float:
        x, y = next(source)
        optimiser.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimiser.step()
        return loss.item()

    return lambda n: sum(step() for _ in range(n)) / n
