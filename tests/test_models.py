"""Networks by name: their sizes are the papers', their weights depend on the seed alone."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from lthlib.errors import ConfigError
from lthlib.masks import prunable_names
from lthlib.models import ModelSettings, build_model


def network(**settings: Any) -> nn.Module:
    classes, channels = settings.pop("classes", 10), settings.pop("channels", 3)
    return build_model(ModelSettings(**settings), classes, channels, seed=0)


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def weights_of(model: nn.Module, kind: type) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, kind))


@pytest.mark.parametrize(
    ("architecture", "classes", "convolutions", "linear"),
    [
        ("resnet20", 10, 267_696, 640),
        ("resnet20", 100, 267_696, 6_400),
        ("resnet56", 10, 848_304, 640),
    ],
)
def test_option_a_networks_have_the_release_of_bip_s_counts(
    architecture: str, classes: int, convolutions: int, linear: int
) -> None:
    model = network(architecture=architecture, width=16, classes=classes)
    assert weights_of(model, nn.Conv2d) == convolutions
    assert weights_of(model, nn.Linear) == linear
    parameters = dict(model.named_parameters())
    prunable = sum(parameters[name].numel() for name in prunable_names(model))
    assert prunable == convolutions + linear


def test_the_network_of_the_release_of_cs_has_272_282_parameters() -> None:
    model = network(architecture="resnet20", width=16, shortcut="projection-bare")
    square = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(square) == 19
    assert sum(m.weight.numel() for m in square) == 267_696
    assert weights_of(model, nn.Conv2d) == 267_696 + 512 + 2_048
    # Plus the classifier, 650, and BatchNorm, 1,376.
    assert parameters_of(model) == 272_282


def test_vgg16_has_thirteen_convolutions_and_one_linear_layer() -> None:
    model = network(architecture="vgg16", width=64)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert all(m.kernel_size == (3, 3) and m.bias is None for m in convolutions)
    assert weights_of(model, nn.Conv2d) == 14_710_464
    assert weights_of(model, nn.Linear) == 5_120
    # Plus 10 biases of the classifier, and BatchNorm: 2 for each of 4,224 channels.
    assert parameters_of(model) == 14_710_464 + 5_120 + 10 + 8_448


def test_resnet50_is_torchvision_s() -> None:
    model = network(architecture="resnet50", width=64, classes=1000)
    assert parameters_of(model) == 25_557_032
    # The literature's 25.50 million prunable weights: without biases and BatchNorm.
    assert weights_of(model, nn.Conv2d) + weights_of(model, nn.Linear) == 25_502_912


def test_torchvision_is_imported_for_resnet50_alone() -> None:
    code = (
        "import sys; from lthlib.models import ModelSettings, build_model;"
        "build_model(ModelSettings('vgg16', 1), 10, 3, 0); sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_embedded_study_prunes_19_144_convolution_weights() -> None:
    model = network(architecture="resnet8", width=8, shortcut="projection", channels=1)
    assert weights_of(model, nn.Conv2d) == 19_144
    assert weights_of(model, nn.Linear) == 320


@pytest.mark.parametrize("shortcut", ["identity", "projection", "projection-bare"])
@pytest.mark.parametrize("size", [8, 32])
def test_images_of_any_size_become_one_row_of_logits_each(shortcut: str, size: int) -> None:
    model = network(architecture="resnet8", width=3, shortcut=shortcut, classes=7).eval()
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("size", [16, 17, 32])
def test_vgg16_takes_images_that_can_be_halved_four_times(size: int) -> None:
    model = network(architecture="vgg16", width=2, classes=7).eval()
    assert model(torch.zeros(2, 3, size, 32)).shape == (2, 7)


def test_images_too_small_for_vgg16_are_refused_with_the_smallest_side() -> None:
    model = network(architecture="vgg16", width=2, channels=1)
    with pytest.raises(ConfigError, match=r"8 x 8 pixels are too small.*side of 16 at least"):
        model(torch.zeros(2, 1, 8, 8))
    with pytest.raises(ConfigError, match="32 x 15 pixels are too small"):
        model(torch.zeros(2, 1, 32, 15))


def test_option_a_takes_every_second_pixel_and_pads_channels_with_zeros() -> None:
    model = network(architecture="resnet8", width=2)
    shortcut = model.get_submodule("stage2.0.shortcut")
    x = torch.arange(32.0).view(1, 2, 4, 4)
    expected = torch.zeros(1, 4, 2, 2)
    expected[0, 1] = torch.tensor([[0.0, 2.0], [8.0, 10.0]])
    expected[0, 2] = torch.tensor([[16.0, 18.0], [24.0, 26.0]])
    assert shortcut(x).equal(expected)


def test_weights_depend_on_the_seed_alone() -> None:
    def built(seed: int) -> dict[str, torch.Tensor]:
        return build_model(ModelSettings(width=2), 10, 1, seed).state_dict()

    first = built(3)
    torch.rand(5)
    second = built(3)
    assert all(first[name].equal(second[name]) for name in first)
    assert not first["stem.weight"].equal(built(4)["stem.weight"])


# Published runs started from these: another initialisation would go by their ids.
@pytest.mark.parametrize(
    ("settings", "first", "last", "bias", "total"),
    [
        ({}, 0.08589621, -0.23355880, 0.08372369, 5103.18033),
        (
            {"architecture": "resnet20", "shortcut": "projection-bare"},
            *(0.20683554, 0.01693806, 0.06336022, 16792.57939),
        ),
    ],
)
def test_the_standard_weights_of_a_seed_never_change(
    settings: dict[str, Any], first: float, last: float, bias: float, total: float
) -> None:
    weights = network(**settings).state_dict()
    found = (
        weights["stem.weight"].flatten()[0].item(),
        weights["linear.weight"].flatten()[-1].item(),
        weights["linear.bias"][-1].item(),
        sum(float(tensor.double().abs().sum()) for tensor in weights.values()),
    )
    # Normal numbers differ in their last bits between kinds of CPU.
    assert found == pytest.approx((first, last, bias, total), rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"architecture": "resnet20", "shortcut": "projection-bare"},
        {"architecture": "vgg16", "width": 16},
        {"architecture": "resnet50", "width": 64},
    ],
)
def test_xavier_balances_fan_in_and_fan_out(settings: dict[str, Any]) -> None:
    model = network(**settings, initialisation="xavier")
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            outputs, inputs, *kernel = module.weight.shape
            expected = math.sqrt(2 / ((inputs + outputs) * math.prod(kernel)))
            # Five standard errors of the deviation of a normal sample.
            near = 5 / math.sqrt(2 * module.weight.numel())
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=near)
            # Uniform numbers end at the root of 3.
            assert float(module.weight.detach().abs().max()) > 2 * expected
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert not module.bias.any()


@pytest.mark.parametrize("initialisation", ["kaiming", "xavier"])
def test_either_initialisation_depends_on_the_seed_alone(initialisation: str) -> None:
    settings = {"architecture": "vgg16", "width": 2, "initialisation": initialisation}
    first = network(**settings)
    torch.rand(5)
    second, other = network(**settings), build_model(ModelSettings(**settings), 10, 3, seed=1)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(one.equal(same) for one, same in pairs)
    assert not next(first.parameters()).equal(next(other.parameters()))


def test_building_leaves_torch_s_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    network(width=2)
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("architecture", "resnet9", "resnet8, resnet20, resnet56"),
        ("shortcut", "option-z", "identity, projection, projection-bare"),
        ("width", 0, "at least 1"),
        ("initialisation", "zeros", "kaiming, xavier"),
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{field} is {value!r}.*{expected}"):
        ModelSettings(**{field: value})


@pytest.mark.parametrize("settings", [{"architecture": "vgg16"}, {"architecture": "resnet50"}])
def test_a_shortcut_is_refused_where_there_is_no_choice(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"'projection', but {settings['architecture']} has no"):
        ModelSettings(**settings, width=64, shortcut="projection")


def test_resnet50_has_one_width_and_three_channels() -> None:
    with pytest.raises(ConfigError, match=r"model\.width is 16; resnet50 .* 64 only"):
        ModelSettings(architecture="resnet50")
    with pytest.raises(ConfigError, match="images of 3 channels, and these have 1"):
        network(architecture="resnet50", width=64, channels=1)
