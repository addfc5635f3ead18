"""Networks by name: their sizes are the papers', their weights depend on the seed alone."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from lthlib._torchvision import torchvision
from lthlib.errors import ConfigError
from lthlib.masks import prunable_names
from lthlib.models import ARCHITECTURES, ModelSettings, build_model
from lthlib.models.resnet import Projection


def network(**settings: Any) -> nn.Module:
    classes, channels = settings.pop("classes", 10), settings.pop("channels", 3)
    return build_model(ModelSettings(**settings), classes, channels, seed=0)


def parameters_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def weights_of(model: nn.Module, kind: type) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, kind))


VGG_CONVOLUTIONS = 9 * (
    3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 2 * 256 * 256 + 256 * 512 + 5 * 512 * 512
)


@pytest.mark.parametrize(
    ("architecture", "classes", "convolutions", "linear"),
    [
        ("resnet20", 10, 267_696, 640),
        ("resnet20", 100, 267_696, 6_400),
        ("resnet56", 10, 848_304, 640),
        ("resnet18", 10, 11_159_232, 5_120),
        ("resnet18", 100, 11_159_232, 51_200),
        # A stem of 7 x 7 has 40 weights more for each of 3 x 64 pairs of channels.
        ("resnet18-7x7", 200, 11_159_232 + 40 * 192, 102_400),
        ("resnet50", 1000, 23_454_912, 2_048_000),
        ("vgg16-fc", 10, VGG_CONVOLUTIONS, 2048 * 256 + 256 * 256 + 256 * 10),
        ("vgg16-fc", 100, 14_710_464, 615_424),
    ],
)
def test_the_networks_of_bip_have_its_release_s_counts(
    architecture: str, classes: int, convolutions: int, linear: int
) -> None:
    width = 16 if architecture in ("resnet20", "resnet56") else 64
    model = network(architecture=architecture, width=width, classes=classes)
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


def test_resnet18_is_torchvision_s_with_a_stem_for_small_images() -> None:
    ours, theirs = network(architecture="resnet18", width=64), torchvision.models.resnet18()
    theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    theirs.fc = nn.Linear(512, 10)
    pairs = zip(theirs.state_dict(), ours.state_dict().values(), strict=True)
    theirs.load_state_dict({name: tensor.clone() for name, tensor in pairs})
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_resnet18_may_be_narrow() -> None:
    model = network(architecture="resnet18", width=4, classes=200, channels=1)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions if m.kernel_size == (3, 3)] == (
        [4] * 5 + [8] * 4 + [16] * 4 + [32] * 4
    )
    assert model.eval()(torch.zeros(2, 1, 64, 64)).shape == (2, 200)


def test_resnet18_7x7_is_torchvision_s() -> None:
    model = network(architecture="resnet18-7x7", width=64, classes=1000)
    assert parameters_of(model) == 11_689_512
    theirs = torchvision.models.resnet18()
    assert list(model.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert model.eval()(x).equal(theirs.eval()(x))


def test_vgg16_fc_averages_to_four_pixels_and_has_three_linear_layers() -> None:
    model = network(architecture="vgg16-fc", width=2, classes=7).eval()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [(8, 64), (8, 8), (7, 8)]
    # Random BatchNorm statistics and biases, so that each ReLU closes for some and not for others.
    draw = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, generator=draw)
    for size in (32, 64):
        x = torch.randn(3, 3, size, size, generator=draw)
        features = model.get_submodule("features")(x)
        assert features.shape[2:] == (size // 16, size // 16)
        half = size // 32
        hidden = features.unflatten(2, (2, half)).unflatten(4, (2, half)).mean((3, 5)).flatten(1)
        for layer in linear[:2]:
            hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
        expected = hidden @ linear[2].weight.T + linear[2].bias
        assert torch.allclose(model(x), expected, atol=1e-5)
        assert expected.abs().max() > 0.01


def test_torchvision_is_imported_for_its_own_networks_alone() -> None:
    code = (
        "import sys; from lthlib.models import ModelSettings, build_model; import lthlib.runs;"
        "[build_model(ModelSettings(name, 1), 10, 3, 0) for name in ('vgg16', 'resnet18')];"
        "sys.exit(bool({'torchvision', 'sklearn', 'torch._dynamo'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_torchvision_that_could_not_be_imported_before_can_be_afterwards() -> None:
    code = (
        "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
        "from lthlib._torchvision import torchvision as ours\nimport torchvision\n"
        "assert torchvision is ours and ours.models.resnet50"
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


@pytest.mark.parametrize("architecture", ["vgg16", "vgg16-fc"])
@pytest.mark.parametrize("size", [16, 17, 32])
def test_vgg16_takes_images_that_can_be_halved_four_times(architecture: str, size: int) -> None:
    model = network(architecture=architecture, width=2, classes=7).eval()
    assert model(torch.zeros(2, 3, size, 32)).shape == (2, 7)


@pytest.mark.parametrize("architecture", ["vgg16", "vgg16-fc"])
def test_images_too_small_for_vgg16_are_refused_with_the_smallest_side(architecture: str) -> None:
    model = network(architecture=architecture, width=2, channels=1)
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


# With nn.Conv2d, larger images or fewer channels corrupt memory or give another gradient
# (oneDNN#6035), which depends on the processor.
@pytest.mark.parametrize(("height", "width"), [(8, 8), (31, 9), (56, 56), (64, 63), (128, 64)])
@pytest.mark.parametrize("channels", [1, 2, 4, 7, 8, 12, 16])
def test_a_projection_is_a_product_at_every_second_pixel(
    channels: int, height: int, width: int
) -> None:
    draw = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, height, width, generator=draw)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    projection = Projection(channels, 3, 1, 2, bias=False)
    projected = projection(x)
    expected = torch.einsum("oi,bihw->bohw", projection.weight[:, :, 0, 0], x[:, :, ::2, ::2])
    assert torch.allclose(projected, expected, atol=1e-5)
    up = torch.randn(projected.shape, generator=draw)
    gradients = torch.autograd.grad(projected, (projection.weight, x), up)
    for gradient, product in zip(
        gradients, torch.autograd.grad(expected, (projection.weight, x), up), strict=True
    ):
        assert torch.allclose(gradient, product, rtol=1e-4, atol=1e-4)


def test_a_projection_is_a_product_on_a_processor_with_shorter_vectors() -> None:
    test = f"{__file__}::test_a_projection_is_a_product_at_every_second_pixel"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-m", "pytest", "-q", test], env=environment, check=True)


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
        (
            {"architecture": "resnet18", "width": 4},
            *(0.06534260, -0.13907625, 0.11446420, 4363.40387),
        ),
    ],
)
def test_the_standard_weights_of_a_seed_never_change(
    settings: dict[str, Any], first: float, last: float, bias: float, total: float
) -> None:
    weights = network(**settings).state_dict()
    figures = (
        weights["stem.weight"].flatten()[0].item(),
        weights["linear.weight"].flatten()[-1].item(),
        weights["linear.bias"][-1].item(),
        sum(float(tensor.double().abs().sum()) for tensor in weights.values()),
    )
    # Normal numbers differ in their last bits between kinds of CPU.
    assert figures == pytest.approx((first, last, bias, total), rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        *({"architecture": name, **one.fixed} for name, one in ARCHITECTURES.items()),
        {"architecture": "resnet20", "shortcut": "projection-bare"},
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


# torchvision's networks draw as torchvision does.
@pytest.mark.parametrize(
    "architecture", [name for name, one in ARCHITECTURES.items() if "width" not in one.fixed]
)
def test_kaiming_follows_fan_in(architecture: str) -> None:
    for module in network(architecture=architecture, width=16).modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            expected = math.sqrt(2 / module.weight[0].numel())
            near = 5 / math.sqrt(2 * module.weight.numel())
            assert float(module.weight.detach().std()) == pytest.approx(expected, rel=near)


@pytest.mark.parametrize(
    ("architecture", "initialisation"),
    [*((name, "kaiming") for name in ARCHITECTURES), ("vgg16", "xavier")],
)
def test_either_initialisation_depends_on_the_seed_alone(
    architecture: str, initialisation: str
) -> None:
    settings: dict[str, Any] = {"width": 2, **ARCHITECTURES[architecture].fixed}
    settings |= {"architecture": architecture, "initialisation": initialisation}
    first = network(**settings)
    torch.rand(5)
    second, unlike = network(**settings), build_model(ModelSettings(**settings), 10, 3, seed=1)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(weight.equal(same) for weight, same in pairs)
    assert not next(first.parameters()).equal(next(unlike.parameters()))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_network_takes_images_of_any_size_and_is_explained(architecture: str) -> None:
    settings = {"width": 2, **ARCHITECTURES[architecture].fixed}
    model = network(architecture=architecture, classes=7, **settings).eval()
    for height, width in ((32, 32), (40, 56)):
        assert model(torch.zeros(2, 3, height, width)).shape == (2, 7)
    assert f"`{architecture}`" in str(ModelSettings.__doc__)


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


@pytest.mark.parametrize(
    "architecture", [name for name, one in ARCHITECTURES.items() if "shortcut" in one.fixed]
)
def test_a_shortcut_is_refused_where_there_is_no_choice(architecture: str) -> None:
    with pytest.raises(ConfigError, match=f"'projection', but {architecture} has no"):
        ModelSettings(architecture, width=64, shortcut="projection")


@pytest.mark.parametrize("architecture", ["resnet50", "resnet18-7x7"])
def test_torchvision_s_networks_have_one_width_and_three_channels(architecture: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.width is 16, but {architecture} .* 64 only"):
        ModelSettings(architecture)
    with pytest.raises(ConfigError, match=f"{architecture} takes images of 3 channels, .* have 1"):
        network(architecture=architecture, width=64, channels=1)
