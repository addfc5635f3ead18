"""A shrunk network gives what the masked one gives, and has less in it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lthlib._torchvision import torchvision
from lthlib.masks import Mask, group_axes, prunable_names, select
from lthlib.models import ModelSettings, build_model
from lthlib.shrinking import Narrow, cut

pytest.importorskip("torch_pruning")


def trained(network: nn.Module) -> nn.Module:
    """As if trained: the BatchNorm of a dead filter emits something, above zero or below."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias)
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return network.eval()


def masked(network: nn.Module, mask: Mask) -> nn.Module:
    network = copy.deepcopy(network)
    with torch.no_grad():
        for name, kept in mask.items():
            network.get_parameter(name).mul_(kept)
    return network


def pruned(network: nn.Module, structure: str, density: float) -> nn.Module:
    own = dict(network.named_parameters())
    scores = {name: own[name].detach().abs() for name in prunable_names(network)}
    return masked(network, select(scores, density, structure, axes=group_axes(network)))


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def check_same(before: nn.Module, after: nn.Module, *shape: int) -> None:
    # Neither the size of batch nor the scale of what the cuts were tried on.
    x = 3 * torch.randn(5, *shape, generator=torch.Generator().manual_seed(9)) - 1
    with torch.no_grad():
        expected, found = before(x), after(x)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def two_layers(padding: int = 1, bias: float = 1.0) -> nn.Sequential:
    """conv, BatchNorm, ReLU, conv; filters 1 and 2 of four are pruned, and emit the bias."""
    first, norm = nn.Conv2d(1, 4, 3, padding=padding, bias=False), nn.BatchNorm2d(4)
    second = nn.Conv2d(4, 2, 3, padding=padding)
    with torch.no_grad():
        first.weight[1:3] = 0
        norm.bias[1], norm.bias[2] = bias, 2 * bias
    return nn.Sequential(first, norm, nn.ReLU(), second, nn.Flatten()).eval()


def filters(network: nn.Module) -> list[int]:
    return [len(one.weight) for one in network.modules() if isinstance(one, nn.Conv2d)]


def test_dead_filters_go_where_relu_makes_them_zero() -> None:
    network = two_layers(bias=-1)
    small, left = cut(network, torch.randn(2, 1, 6, 6))
    assert (filters(small), left) == ([2, 2], [])
    assert not any(isinstance(layer, Narrow) for layer in small.modules())
    check_same(network, small, 1, 6, 6)


@pytest.mark.parametrize("padding", [0, 1])
def test_one_filter_stands_for_all_that_emit_a_constant(padding: int) -> None:
    network = two_layers(padding)
    small, _ = cut(network, torch.randn(2, 1, 6, 6))
    assert filters(small) == [3, 2]
    check_same(network, small, 1, 6, 6)


def test_a_filter_that_is_silent_by_chance_stays() -> None:
    network = two_layers(bias=-1)
    with torch.no_grad():
        network[0].weight[0] *= 0.01
        network[1].bias[0] = -9.0  # ReLU lets nothing of the trial through
    small, _ = cut(network, torch.randn(2, 1, 6, 6))
    assert filters(small) == [2, 2]
    x = 1e4 * torch.randn(2, 1, 6, 6)
    assert network[:3](x)[:, 0].any()
    torch.testing.assert_close(small(x), network(x))


def test_a_channel_that_nobody_reads_goes_with_its_filter() -> None:
    network = two_layers(bias=-1)
    with torch.no_grad():
        network[3].weight[:, 0] = 0
    small, _ = cut(network, torch.randn(2, 1, 6, 6))
    assert filters(small) == [1, 2]
    check_same(network, small, 1, 6, 6)


def test_a_layer_whose_filters_are_all_gone_keeps_one() -> None:
    network = two_layers(bias=-1)
    with torch.no_grad():
        network[0].weight.zero_()
    small, _ = cut(network, torch.randn(2, 1, 6, 6))
    assert filters(small)[0] >= 1
    x = torch.randn(3, 1, 6, 6)
    torch.testing.assert_close(small(x), network(x))


class Residual(nn.Module):
    """stem, then x + conv(x); what the head reads is their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.inner = nn.Conv2d(4, 4, 3, padding=1, bias=True)
        self.head = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(x + self.inner(x)).mean((2, 3))


def test_a_channel_of_a_residual_connection_goes_when_all_that_add_to_it_are_pruned() -> None:
    network = Residual().eval()
    with torch.no_grad():
        for layer in (network.stem, network.inner):
            layer.weight[1:3] = 0
            layer.bias[1:3] = 0
    small, _ = cut(network, torch.randn(2, 1, 6, 6))
    assert filters(small) == [2, 2, 3]
    check_same(network, small, 1, 6, 6)


def test_where_one_of_them_is_not_pruned_the_other_is_made_narrow() -> None:
    network = Residual().eval()
    with torch.no_grad():
        network.inner.weight[1:3] = 0  # and its bias stays
    small, left = cut(network, torch.randn(2, 1, 6, 6))
    assert isinstance(small.inner, Narrow)
    assert (filters(small), left) == ([4, 2, 3], [])
    check_same(network, small, 1, 6, 6)


def test_grouped_convolutions_are_named_and_stay() -> None:
    layers = [nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten()]
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        network[0].weight[:4] = 0
    small, left = cut(network, torch.randn(2, 4, 5, 5))
    assert (filters(small), left) == ([8, 4], ["0"])
    check_same(network, small, 4, 5, 5)


def test_normalisation_across_channels_keeps_them() -> None:
    layers = [nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3)]
    network = nn.Sequential(*layers).eval()
    with torch.no_grad():
        network[0].weight[:4] = 0
    small, _ = cut(network, torch.randn(2, 6))
    assert small[1].normalized_shape == (8,)
    check_same(network, small, 6)


class Reader(nn.Module):
    """A layer's weights are read by somebody else, not by calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x) @ self.own.weight


def test_a_cut_that_changes_what_comes_out_is_taken_back() -> None:
    network = Reader().eval()
    with torch.no_grad():
        network.own.weight[:4] = 0
    small, left = cut(network, torch.randn(2, 6))
    assert left == ["own"]
    check_same(network, small, 6)


def test_a_network_that_is_one_layer_is_left_as_it_is() -> None:
    network = nn.Linear(6, 6)
    with torch.no_grad():
        network.weight[:4] = 0
    small, _ = cut(network, torch.randn(2, 6))
    assert list(small.state_dict()) == ["weight", "bias"]
    check_same(network, small, 6)


def plain() -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)]
    then = [nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4)]
    return nn.Sequential(*first, *then, nn.Flatten(), nn.Linear(64, 5))


def own(name: str, width: int, shortcut: str = "identity") -> Callable[[], nn.Module]:
    return lambda: build_model(ModelSettings(name, width, shortcut), 5, 3, seed=0)


def mobilenet() -> nn.Module:
    return torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25)


NETWORKS = {
    "plain": (plain, 16),
    "resnet20": (own("resnet20", 8), 16),
    "resnet8 with projections": (own("resnet8", 8, "projection"), 16),
    "vgg16": (own("vgg16", 8), 16),
    "mobilenet": (mobilenet, 32),
}


@pytest.mark.parametrize("structure", ["filter", "channel"])
@pytest.mark.parametrize("name", NETWORKS)
def test_structured_tickets_become_smaller_networks(name: str, structure: str) -> None:
    make, side = NETWORKS[name]
    network = pruned(trained(make()), structure, 0.5)
    small, left = cut(network, torch.randn(2, 3, side, side))
    assert left == []
    assert size(small) < 0.6 * size(network) or (name == "plain" and structure == "channel")
    check_same(network, small, 3, side, side)


def test_scattered_zeros_leave_a_network_as_it_is() -> None:
    network = pruned(trained(plain()), "unstructured", 0.5)
    small, left = cut(network, torch.randn(2, 3, 16, 16))
    assert (size(small), left) == (size(network), [])


def test_inputs_may_be_several() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"logits": self.b(torch.relu(self.a(x + y)))}

    network = Two().eval()
    with torch.no_grad():
        network.a.weight[3:] = 0
        network.a.bias.fill_(-1)
    for example in ((torch.randn(3, 4),) * 2, dict.fromkeys("xy", torch.randn(3, 4))):
        small, _ = cut(network, example)
        assert small.a.out_features == 3
