"""CIFAR residual networks (He et al., 2016, section 4.2): a stem and three stages of widths w, 2w,
4w."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthlib.errors import ConfigError
from lthlib.models.initialisation import kaiming_

SHORTCUTS = ("identity", "projection", "projection-bare")


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, new channels filled with zeros; no weights."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut: [b, inputs, h, w] -> [b, outputs,
    h/stride, w/stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


def _shortcut(inputs: int, outputs: int, stride: int, kind: str) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "identity":
        return PaddedShortcut(inputs, outputs)
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return conv if kind == "projection-bare" else nn.Sequential(conv, nn.BatchNorm2d(outputs))


class CifarResNet(nn.Module):
    """images [b, channels, h, w] -> logits [b, classes].

    blocks: residual blocks a stage (1: ResNet-8, 3: ResNet-20, 9: ResNet-56). width: channels of
    the first stage.
    shortcut: what a stage's first block adds: `identity` (option A, no weights), `projection` (1x1
    convolution and BatchNorm) or `projection-bare` (1x1 convolution alone, as the CS release has
    it).
    """

    def __init__(
        self,
        blocks: int,
        classes: int,
        channels: int = 3,
        width: int = 16,
        shortcut: str = "identity",
    ):
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise ConfigError(
                f"model.shortcut is {shortcut!r}; expected one of {', '.join(SHORTCUTS)}"
            )
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stage1 = _stage(blocks, width, width, 1, shortcut)
        self.stage2 = _stage(blocks, width, 2 * width, 2, shortcut)
        self.stage3 = _stage(blocks, 2 * width, 4 * width, 2, shortcut)
        self.linear = nn.Linear(4 * width, classes)
        kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.linear(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


def _stage(blocks: int, inputs: int, outputs: int, stride: int, shortcut: str) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, shortcut)
    rest = [BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
