"""Networks and data small enough to train in milliseconds, in double precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lthlib.data import Dataset, DataSettings
from lthlib.tickets import Ticket
from lthlib.training import Trainer, TrainingSettings

IMAGES = 20
BATCH = 8
STEPS_PER_EPOCH = 3  # 8 + 8 + 4 images


class Tiny(nn.Module):
    """images [b, 1, 5, 5] -> logits [b, 3]: 147 prunable weights, two BatchNorms, one bias."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(self.dropout(x.mean((2, 3))))
        return logits


def tiny(dtype: torch.dtype = torch.float64, dropout: float = 0.0, seed: int = 1) -> Tiny:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tiny(dropout).to(dtype)


def images(dtype: torch.dtype = torch.float64) -> Dataset:
    """Three classes told apart by the mean of their pixels; 20 images to train, 6 of each other."""
    draw = torch.Generator().manual_seed(7)

    def part(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % 3
        noise = torch.randn(count, 1, 5, 5, generator=draw, dtype=torch.float64)
        return (noise + labels[:, None, None, None]).to(dtype), labels

    inputs, labels = part(IMAGES)
    return Dataset.from_tensors(inputs, labels, validation=part(6), test=part(6))


def tiny_trainer(
    dtype: torch.dtype = torch.float64, dropout: float = 0.0, seed: int = 0, **settings: object
) -> Trainer:
    chosen = {"length": "7it", "batch_size": BATCH, "weight_decay": 1e-2} | settings
    training = TrainingSettings(**chosen)  # type: ignore[arg-type]
    return Trainer(tiny(dtype, dropout), images(dtype), training, DataSettings(), seed)


def dense_parent(trainer: Trainer, rewind: str = "1it") -> Ticket:
    """The trained dense network that other methods start from."""
    from lthlib.methods import get_method

    dense = get_method("dense")
    (ticket,) = dense.search(trainer, dense.settings(rewind), None)
    return ticket


def batches_of(trainer: Trainer, stream: str, count: int) -> list[tuple[Tensor, Tensor]]:
    """The first batches of a stream."""
    source = trainer.batches(stream).stream()
    return [next(source) for _ in range(count)]
