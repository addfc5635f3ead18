"""Networks by name. Each is an ordinary `nn.Module`; pruning never changes its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from lthlib.errors import ConfigError
from lthlib.models.initialisation import xavier_
from lthlib.models.resnet import SHORTCUTS, CifarResNet
from lthlib.models.vgg import CifarVGG, HiddenVGG
from lthlib.settings import Prunable, Settings, between, one_of

__all__ = [
    "ARCHITECTURES",
    "CifarResNet",
    "CifarVGG",
    "HiddenVGG",
    "ModelSettings",
    "build_model",
]

RESNET_BLOCKS = {"resnet8": 1, "resnet20": 3, "resnet56": 9}
TORCHVISION = {"resnet18-7x7": "resnet18", "resnet50": "resnet50"}
ARCHITECTURES = (*RESNET_BLOCKS, "resnet18", "vgg16", "vgg16-fc", *TORCHVISION)
INITIALISATIONS = ("kaiming", "xavier")
_TORCHVISION_WIDTH = 64


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Which network, how its weights are drawn, and which of them may be pruned.

    architecture: for small images, `resnet8`, `resnet20`, `resnet56`, `resnet18` (3x3 stem without
        max-pooling, projections), `vgg16` (one linear layer) and `vgg16-fc` (three, as the BiP
        release has it); for ImageNet, torchvision's `resnet50` and, for `resnet18-7x7`, its
        resnet18 (7x7 stem of stride 2 and max-pooling).
    width: channels of the first stage of any architecture. The papers' networks have 16
        (`resnet20`, `resnet56`) and 64 (all others); torchvision's have no other.
    shortcut: of `resnet8`, `resnet20` and `resnet56` alone, see `CifarResNet`.
    prunable: see `lthlib.masks.prunable_names`.
    initialisation: `kaiming` (for torchvision's networks, what torchvision does) or `xavier` (the
        CS release).
    Raises ConfigError for a value that makes no sense, or none for that architecture.
    """

    architecture: Annotated[str, one_of(ARCHITECTURES)] = "resnet8"
    width: Annotated[int, between(1, 8192)] = 16
    shortcut: Annotated[str, one_of(SHORTCUTS)] = "identity"
    prunable: Prunable = "conv+linear"
    initialisation: Annotated[str, one_of(INITIALISATIONS)] = "kaiming"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture not in RESNET_BLOCKS and self.shortcut != "identity":
            raise ConfigError(
                f"model.shortcut is {self.shortcut!r}, but {self.architecture} has no choice of "
                "shortcuts; leave it out"
            )
        if self.architecture in TORCHVISION and self.width != _TORCHVISION_WIDTH:
            raise ConfigError(
                f"model.width is {self.width}; {self.architecture} is torchvision's and has "
                f"{_TORCHVISION_WIDTH} only: set that"
            )


def build_model(settings: ModelSettings, classes: int, channels: int, seed: int) -> nn.Module:
    """Build a network with weights drawn from `seed`, leaving torch's global generator as it
    was.

    classes: of the data set, the length of a row of logits. channels: of its images.
    Returns a network from images [b, channels, h, w] to logits [b, classes].
    Raises ConfigError for a network of torchvision's with other than 3 channels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _network(settings, classes, channels)
        if settings.initialisation == "xavier":
            xavier_(model)
        return model


def _network(settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    architecture, width = settings.architecture, settings.width
    if architecture in TORCHVISION:
        return _from_torchvision(architecture, classes, channels)
    if architecture == "vgg16":
        return CifarVGG(classes, channels, width)
    if architecture == "vgg16-fc":
        return HiddenVGG(classes, channels, width)
    if architecture == "resnet18":
        return CifarResNet(2, classes, channels, width, "projection", stages=4)
    blocks = RESNET_BLOCKS[architecture]
    return CifarResNet(blocks, classes, channels, width, settings.shortcut)


def _from_torchvision(architecture: str, classes: int, channels: int) -> nn.Module:
    if channels != 3:
        raise ConfigError(f"{architecture} takes images of 3 channels, and these have {channels}")
    # Imported here: torchvision takes seconds, and the other networks do without.
    from lthlib._torchvision import torchvision

    build = getattr(torchvision.models, TORCHVISION[architecture])
    model: nn.Module = build(weights=None, num_classes=classes)
    return model
