"""How the weights of convolutions and linear layers are drawn before training."""

from torch import nn


def kaiming_(model: nn.Module) -> None:
    """Draw weights from a normal distribution of variance 2 / fan-in, in the order of the network.

    Biases and BatchNorm keep what torch gave them.

    Source:
        He et al. (2015), equation 10.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)


def xavier_(model: nn.Module) -> None:
    """Draw weights from a normal distribution of variance 2 / (fan-in + fan-out); set biases to 0.

    They are drawn in the order of the network. BatchNorm keeps what torch gave it, weight 1 and
    bias 0. Together this is the initialisation of the CS release.

    Source:
        Glorot and Bengio (2010), equation 12; the CS release, networks.py:83-91.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
