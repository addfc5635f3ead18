"""Where weights are kept, and how far masks agree."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from companion.figures.layers import layer_densities, layer_table, mask_overlap
from lthlib.errors import ConfigError
from tests.companion.figures.toys import LAYERS, record, study


def test_the_point_nearest_to_a_density_is_averaged_over_seeds() -> None:
    layers = layer_table(study(3), 0.25).set_index(["curve", "layer"])
    assert layers.loc[("CS", "linear.weight"), ["n", "weights", "kept"]].tolist() == [3, 500, 0.25]
    assert layers.loc[("IMP", "stem.weight"), "kept"] == 0.25


def test_layers_stand_in_the_order_of_the_network() -> None:
    layers = layer_table(study(1), 0.25)
    assert list(dict.fromkeys(layers["layer"])) == list(LAYERS)


def test_a_variant_with_the_same_masks_is_left_out() -> None:
    assert "CS, as found" not in set(layer_table(study(1), 0.25)["curve"])


def test_a_curve_without_a_point_nearby_is_left_out() -> None:
    records = [*study(1), record("OMP", "omp", 0, 0.9, 98.0, density=0.9)]
    assert "OMP" not in set(layer_table(records, 0.25)["curve"])
    with pytest.raises(ConfigError, match=r"within 25 % of density 0\.01"):
        layer_table(records, 0.01)


def test_every_layer_and_method_has_a_number() -> None:
    records = [record("IMP", "imp", 0, 0.25, 97.0), record("OMP", "omp", 0, 0.21, 97.0)]
    (ax,) = layer_densities(layer_table(records, 0.25)).axes
    assert [text.get_text() for text in ax.texts] == ["25", "21"] * 3
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "stem  (100)",
        "stage1.0.conv1  (400)",
        "linear  (500)",
    ]


def test_an_emptied_layer_is_zero() -> None:
    one = record("OMP", "omp", 0, 0.25, 10.0)
    one["layers"]["linear.weight"] = [0, 500]
    layers = layer_table([one], 0.25)
    assert layer_densities(layers).axes[0].texts[-1].get_text() == "0.0"
    assert "OMP keeps least of linear.weight" in layer_densities(layers).get_label()


def test_overlap_stands_above_chance() -> None:
    names = ["IMP", "OMP, compute-matched"]
    overlap = pd.DataFrame([[0.15, 0.48], [0.48, np.nan]], names, names)
    (ax,) = mask_overlap(overlap, overlap / 3).axes
    assert [text.get_text() for text in ax.texts] == [
        "0.15\n(0.05)",
        "0.48\n(0.16)",
        "0.48\n(0.16)",
        "–",
    ]
