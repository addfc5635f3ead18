"""Networks by name. Each is an ordinary `nn.Module`; pruning never changes its code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lthlib.errors import ConfigError
from lthlib.models.resnet import SHORTCUTS, CifarResNet

__all__ = ["ARCHITECTURES", "CifarResNet", "ModelSettings", "build_model"]

RESNET_BLOCKS = {"resnet8": 1, "resnet20": 3, "resnet56": 9}
ARCHITECTURES = tuple(RESNET_BLOCKS)


@dataclass(frozen=True)
class ModelSettings:
    """Which network, and which of its weights may be pruned."""

    architecture: str = "resnet8"
    width: int = 16
    shortcut: str = "identity"
    prunable: str = "conv+linear"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"model.architecture is {self.architecture!r}; "
                f"expected one of {', '.join(ARCHITECTURES)}"
            )
        if self.shortcut not in SHORTCUTS:
            raise ConfigError(
                f"model.shortcut is {self.shortcut!r}; expected one of {', '.join(SHORTCUTS)}"
            )
        if self.width < 1:
            raise ConfigError(f"model.width is {self.width}; expected at least 1 channel")


def build_model(settings: ModelSettings, classes: int, channels: int, seed: int) -> nn.Module:
    """Build a network with weights drawn from `seed`, leaving torch's global generator as it
    was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CifarResNet(
            RESNET_BLOCKS[settings.architecture],
            classes,
            channels,
            settings.width,
            settings.shortcut,
        )
