"""VGG-16 for CIFAR (Simonyan and Zisserman, 2015, configuration D): BatchNorm after each
convolution, and one linear layer or three."""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthlib.errors import ConfigError
from lthlib.models.initialisation import kaiming_
from lthlib.models.pooling import global_average

# Of each stage: its channels, in units of the first one's, and how many convolutions it has.
STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
SMALLEST_SIDE = 2 ** (len(STAGES) - 1)


class CifarVGG(nn.Module):
    """VGG-16 with one linear layer: images [b, channels, h, w] -> logits [b, classes].

    Thirteen 3x3 convolutions without bias in five stages, max-pooling between the stages and the
    global average after the last one.

    Args:
        classes: length of a row of logits.
        channels: of an image; height and width are at least 16.
        width: channels of the first stage; the paper's is 64. The others have 2, 4, 8 and 8 times
            as many.

    Raises:
        ConfigError: on the first batch, images are too small to be halved four times.

    Source:
        Simonyan and Zisserman (2015), configuration D.
    """

    def __init__(self, classes: int, channels: int = 3, width: int = 64):
        super().__init__()
        self.features = _features(channels, width)
        self.linear = nn.Linear(STAGES[-1][0] * width, classes)
        kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        _check_side(x)
        return self.linear(global_average(self.features(x)))


class HiddenVGG(nn.Module):
    """VGG-16 with three linear layers: images [b, channels, h, w] -> logits [b, classes].

    The convolutions of `CifarVGG`, averaged to 2 x 2 pixels, and three linear layers: from 32 times
    `width` inputs (2,048 at 64) to 4 times (256), to as many, to the classes, with ReLU between.

    Args:
        classes: length of a row of logits.
        channels: of an image; height and width are at least 16.
        width: channels of the first stage, as of `CifarVGG`.

    Raises:
        ConfigError: as `CifarVGG` raises it.

    Source:
        The BiP release, models/vgg_cifar.py.
    """

    def __init__(self, classes: int, channels: int = 3, width: int = 64):
        super().__init__()
        self.features = _features(channels, width)
        hidden = 4 * width
        self.linear1 = nn.Linear(2 * 2 * STAGES[-1][0] * width, hidden)
        self.linear2 = nn.Linear(hidden, hidden)
        self.linear3 = nn.Linear(hidden, classes)
        kaiming_(self)

    def forward(self, x: Tensor) -> Tensor:
        _check_side(x)
        x = torch.flatten(F.adaptive_avg_pool2d(self.features(x), 2), 1)
        x = F.relu(self.linear2(F.relu(self.linear1(x))))
        return self.linear3(x)


def _check_side(x: Tensor) -> None:
    height, width = x.shape[-2:]
    if min(height, width) < SMALLEST_SIDE:
        raise ConfigError(
            f"images of {height} x {width} pixels are too small; use a side of "
            f"{SMALLEST_SIDE} at least, or a resnet"
        )


def _features(channels: int, width: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs = channels
    for stage, (multiple, convolutions) in enumerate(STAGES, start=1):
        if stage > 1:
            layers[f"pool{stage - 1}"] = nn.MaxPool2d(2)
        outputs = multiple * width
        for number in range(1, convolutions + 1):
            layers[f"conv{stage}_{number}"] = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            layers[f"bn{stage}_{number}"] = nn.BatchNorm2d(outputs)
            layers[f"relu{stage}_{number}"] = nn.ReLU()
            inputs = outputs
    return nn.Sequential(layers)
