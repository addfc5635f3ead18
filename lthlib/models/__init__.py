"""Networks by name. Each is an ordinary `nn.Module`; pruning never changes its code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from lthlib.errors import ConfigError
from lthlib.models.initialisation import xavier_
from lthlib.models.resnet import SHORTCUTS, CifarResNet
from lthlib.models.vgg import CifarVGG

__all__ = ["ARCHITECTURES", "CifarResNet", "CifarVGG", "ModelSettings", "build_model"]

RESNET_BLOCKS = {"resnet8": 1, "resnet20": 3, "resnet56": 9}
ARCHITECTURES = (*RESNET_BLOCKS, "vgg16", "resnet50")
INITIALISATIONS = ("kaiming", "xavier")
_RESNET50_WIDTH = 64


@dataclass(frozen=True)
class ModelSettings:
    """Which network, how its weights are drawn, and which of them may be pruned.

    architecture: `resnet8`, `resnet20`, `resnet56` and `vgg16` for small images, `resnet50` for
        ImageNet (torchvision's).
    width: channels of the first stage of any architecture. The papers' networks have 16 (the CIFAR
        ResNets) and 64 (`vgg16`, `resnet50`); `resnet50` has no other.
    shortcut: of the CIFAR ResNets alone, see `CifarResNet`.
    prunable: see `lthlib.masks.prunable_names`.
    initialisation: `kaiming` (for `resnet50`, what torchvision does) or `xavier` (the CS release).
    Raises ConfigError for a value that makes no sense, or none for that architecture.
    """

    architecture: str = "resnet8"
    width: int = 16
    shortcut: str = "identity"
    prunable: str = "conv+linear"
    initialisation: str = "kaiming"

    def __post_init__(self) -> None:
        for field, known in (
            ("architecture", ARCHITECTURES),
            ("shortcut", SHORTCUTS),
            ("initialisation", INITIALISATIONS),
        ):
            if (value := getattr(self, field)) not in known:
                raise ConfigError(f"model.{field} is {value!r}; expected one of {', '.join(known)}")
        if self.width < 1:
            raise ConfigError(f"model.width is {self.width}; expected at least 1 channel")
        if self.architecture not in RESNET_BLOCKS and self.shortcut != "identity":
            raise ConfigError(
                f"model.shortcut is {self.shortcut!r}, but {self.architecture} has no choice of "
                "shortcuts; leave it out"
            )
        if self.architecture == "resnet50" and self.width != _RESNET50_WIDTH:
            raise ConfigError(
                f"model.width is {self.width}; resnet50 is torchvision's and has "
                f"{_RESNET50_WIDTH} only: set that"
            )


def build_model(settings: ModelSettings, classes: int, channels: int, seed: int) -> nn.Module:
    """Build a network with weights drawn from `seed`, leaving torch's global generator as it
    was.

    classes: of the data set, the length of a row of logits. channels: of its images.
    Returns a network from images [b, channels, h, w] to logits [b, classes].
    Raises ConfigError for `resnet50` with other than 3 channels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module
        if settings.architecture == "vgg16":
            model = CifarVGG(classes, channels, settings.width)
        elif settings.architecture == "resnet50":
            model = _resnet50(classes, channels)
        else:
            blocks = RESNET_BLOCKS[settings.architecture]
            model = CifarResNet(blocks, classes, channels, settings.width, settings.shortcut)
        if settings.initialisation == "xavier":
            xavier_(model)
        return model


def _resnet50(classes: int, channels: int) -> nn.Module:
    if channels != 3:
        raise ConfigError(f"resnet50 takes images of 3 channels, and these have {channels}")
    # Imported here: torchvision takes seconds, and the other networks do without.
    from lthlib._torchvision import torchvision

    model: nn.Module = torchvision.models.resnet50(weights=None, num_classes=classes)
    return model
