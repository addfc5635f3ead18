"""The average over all pixels."""

from torch import Tensor


def global_average(x: Tensor) -> Tensor:
    """Average over all pixels: [b, channels, h, w] -> [b, channels]."""
    # Equal to adaptive_avg_pool2d in every bit. That one's gradient has lost channels_last, and a
    # ReLU that gets two layouts at once is 20 times slower on a CPU.
    return x.permute(0, 2, 3, 1).mean((1, 2))
