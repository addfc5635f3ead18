"""Residual networks for small images: a 3x3 stem and stages of widths w, 2w, 4w (He et al., 2016,
section 4.2), and for ResNet-18 a fourth of 8w.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lthlib.errors import check_choice
from lthlib.models.initialisation import kaiming_
from lthlib.models.pooling import global_average

SHORTCUTS = ("identity", "projection", "projection-bare")


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, new channels filled with zeros; no weights."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.extra = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        # Not x[:, :, ::2, ::2]: its gradient is not channels_last, as in `global_average`.
        pixels = F.avg_pool2d(x, 1, 2)
        return F.pad(pixels, (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2))


class Projection(nn.Conv2d):
    """1x1 convolution without bias: an `nn.Conv2d`, kept from crashing on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        # oneDNN's gradient of a strided 1x1 convolution writes past its memory where a vector holds
        # more numbers than there are channels (uxlfoundation/oneDNN#6035): 8 with AVX2, at any
        # size; 16 with AVX-512, from some 40 x 40 pixels on. The published runs, of 8 channels
        # and at most 32 x 32 pixels, keep their bits.
        channels = self.in_channels
        pixels = x.shape[-2:].numel()
        if x.device.type == "cpu" and (channels < 8 or (channels < 16 and pixels > 32 * 32)):
            return F.conv2d(F.avg_pool2d(x, 1, self.stride), self.weight)
        return super().forward(x)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BatchNorm around a shortcut.

    It maps [b, inputs, h, w] to [b, outputs, h / stride, w / stride].

    Args:
        inputs: channels of what comes in.
        outputs: channels of what goes out.
        stride: 1, or 2 to halve height and width.
        shortcut: see `CifarResNet`; nothing but the input itself where both have one shape.
    """

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
    conv = Projection(inputs, outputs, 1, stride, bias=False)
    return conv if kind == "projection-bare" else nn.Sequential(conv, nn.BatchNorm2d(outputs))


class CifarResNet(nn.Module):
    """A residual network: images [b, channels, h, w] -> logits [b, classes].

    Args:
        blocks: residual blocks a stage (1: ResNet-8, 3: ResNet-20, 9: ResNet-56).
        classes: length of a row of logits.
        channels: of an image.
        width: channels of the first stage; each further one doubles them and halves height and
            width.
        shortcut: what a stage's first block adds: `identity` (option A, no weights), `projection`
            (1x1 convolution and BatchNorm) or `projection-bare` (1x1 convolution alone, as the CS
            release has it).
        stages: three; ResNet-18, with two blocks a stage and projections, has four.

    Raises:
        ConfigError: the shortcut is none of `SHORTCUTS`.

    Source:
        He et al. (2016), section 4.2.
    """

    def __init__(
        self,
        blocks: int,
        classes: int,
        channels: int = 3,
        width: int = 16,
        shortcut: str = "identity",
        stages: int = 3,
    ):
        super().__init__()
        check_choice("model.shortcut", shortcut, SHORTCUTS)
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.stages = tuple(f"stage{number}" for number in range(1, stages + 1))
        inputs = width
        for number, name in enumerate(self.stages):
            outputs, stride = width * 2**number, 2 if number else 1
            self.add_module(name, _stage(blocks, inputs, outputs, stride, shortcut))
            inputs = outputs
        self.linear = nn.Linear(inputs, classes)
        kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.linear(global_average(x))


def _stage(blocks: int, inputs: int, outputs: int, stride: int, shortcut: str) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride, shortcut)
    further = (BasicBlock(outputs, outputs, 1, shortcut) for _ in range(blocks - 1))
    return nn.Sequential(first, *further)
