"""Networks by name. Each is an ordinary `nn.Module`; pruning never changes its code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from torch import nn

from lthlib.errors import ConfigError
from lthlib.models.initialisation import xavier_
from lthlib.models.resnet import SHORTCUTS, CifarResNet
from lthlib.models.vgg import CifarVGG, HiddenVGG
from lthlib.settings import Prunable, Settings, between, one_of

INITIALISATIONS = ("kaiming", "xavier")


@dataclass(frozen=True)
class Architecture:
    """How a network is built.

    Attributes:
        build: from settings, number of classes, and channels of an image, in this order.
        fixed: settings that it has no choice of, with the value that they have.
    """

    build: Callable[[ModelSettings, int, int], nn.Module]
    fixed: Mapping[str, Any]


def _residual(blocks: int, settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    return CifarResNet(blocks, classes, channels, settings.width, settings.shortcut)


def _resnet18(settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    return CifarResNet(2, classes, channels, settings.width, "projection", stages=4)


def _vgg(kind: type[nn.Module], settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    return kind(classes, channels, settings.width)


def _from_torchvision(name: str, settings: ModelSettings, classes: int, channels: int) -> nn.Module:
    if channels != 3:
        raise ConfigError(
            f"{settings.architecture} takes images of 3 channels, and these have {channels}"
        )
    # Imported here: torchvision takes seconds, and the other networks do without.
    from lthlib._torchvision import torchvision

    model: nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    return model


_OWN_SHORTCUT = {"shortcut": "identity"}  # the setting's default: it is not read
_TORCHVISION = {**_OWN_SHORTCUT, "width": 64}
ARCHITECTURES = {
    "resnet8": Architecture(partial(_residual, 1), {}),
    "resnet20": Architecture(partial(_residual, 3), {}),
    "resnet56": Architecture(partial(_residual, 9), {}),
    "resnet18": Architecture(_resnet18, _OWN_SHORTCUT),
    "vgg16": Architecture(partial(_vgg, CifarVGG), _OWN_SHORTCUT),
    "vgg16-fc": Architecture(partial(_vgg, HiddenVGG), _OWN_SHORTCUT),
    "resnet18-7x7": Architecture(partial(_from_torchvision, "resnet18"), _TORCHVISION),
    "resnet50": Architecture(partial(_from_torchvision, "resnet50"), _TORCHVISION),
}


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Which network, how its weights are drawn, and which of them may be pruned.

    Attributes:
        architecture: for small images, `resnet8`, `resnet20`, `resnet56`, `resnet18` (3x3 stem
            without max-pooling, projections), `vgg16` (one linear layer) and `vgg16-fc` (three, as
            the BiP release has it); for ImageNet, torchvision's `resnet50` and, for
            `resnet18-7x7`, its resnet18 (7x7 stem of stride 2 and max-pooling).
        width: channels of the first stage of any architecture. The papers' networks have 16
            (`resnet20`, `resnet56`) and 64 (all others); torchvision's have no other.
        shortcut: of `resnet8`, `resnet20` and `resnet56` alone, see `CifarResNet`.
        prunable: see `lthlib.masks.prunable_names`.
        initialisation: `kaiming` (for torchvision's networks, what torchvision does) or `xavier`
            (the CS release).

    Raises:
        ConfigError: a value makes no sense, or none for that architecture.
    """

    architecture: Annotated[str, one_of(ARCHITECTURES)] = "resnet8"
    width: Annotated[int, between(1, 8192)] = 16
    shortcut: Annotated[str, one_of(SHORTCUTS)] = "identity"
    prunable: Prunable = "conv+linear"
    initialisation: Annotated[str, one_of(INITIALISATIONS)] = "kaiming"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, only in ARCHITECTURES[self.architecture].fixed.items():
            value = getattr(self, field)
            if value != only:
                raise ConfigError(
                    f"model.{field} is {value!r}, but {self.architecture} has no choice of "
                    f"{field}s, {only} only: set that"
                )


def build_model(settings: ModelSettings, classes: int, channels: int, seed: int) -> nn.Module:
    """Build a network with weights drawn from a seed, leaving torch's global generator as it was.

    Args:
        settings: which network, and how its weights are drawn.
        classes: of the data set, the length of a row of logits.
        channels: of its images.
        seed: what the weights are drawn from.

    Returns:
        A network from images [b, channels, h, w] to logits [b, classes].

    Raises:
        ConfigError: a network of torchvision's is to take other than 3 channels.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ARCHITECTURES[settings.architecture].build(settings, classes, channels)
        if settings.initialisation == "xavier":
            xavier_(model)
        return model
