"""Networks by name: their sizes are the papers', their weights depend on the seed alone."""

from __future__ import annotations

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
    assert sum(p.numel() for p in model.parameters()) == 272_282


def test_the_embedded_study_prunes_19_144_convolution_weights() -> None:
    model = network(architecture="resnet8", width=8, shortcut="projection", channels=1)
    assert weights_of(model, nn.Conv2d) == 19_144
    assert weights_of(model, nn.Linear) == 320


@pytest.mark.parametrize("shortcut", ["identity", "projection", "projection-bare"])
@pytest.mark.parametrize("size", [8, 32])
def test_images_of_any_size_become_one_row_of_logits_each(shortcut: str, size: int) -> None:
    model = network(architecture="resnet8", width=3, shortcut=shortcut, classes=7).eval()
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 7)


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
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{field} is {value!r}.*{expected}"):
        ModelSettings(**{field: value})
