"""Pictures of one layer."""

from __future__ import annotations

import numpy as np
import pytest

from companion.figures.inside import compared, pictures, sigmoid_figure, tiled


def test_a_layer_is_a_picture_with_a_tile_for_each_kernel() -> None:
    layer = np.arange(8).reshape(2, 1, 2, 2)
    assert tiled(layer).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert tiled(layer.transpose(1, 0, 2, 3)).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert tiled(np.arange(6).reshape(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_two_masks_are_compared_weight_by_weight() -> None:
    assert compared([[0, 1], [0, 1]], [[0, 1], [1, 0]]).tolist() == [[0, 1], [2, 3]]


def test_rows_may_be_of_different_length() -> None:
    rows = {
        "CS": [("step 0", np.array([[0.5]])), ("step 9", np.array([[1.0]]))],
        "BiP": [("step 0", compared([[1]], [[1]]))],
    }
    fig = pictures(rows, "Masks", ("both", "came", "left"))
    assert [len(ax.images) for ax in fig.axes] == [1, 1, 1, 0]
    assert [ax.get_ylabel() for ax in fig.axes] == ["CS", "", "BiP", ""]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["both", "came", "left"]
    assert fig.get_label() == "Masks: CS, step 0; CS, step 9; BiP, step 0."


def test_the_sigmoid_steepens() -> None:
    (ax,) = sigmoid_figure([1, 200]).axes
    soft, hard = (line.get_ydata() for line in ax.lines)
    assert soft[-1] == pytest.approx(0.731, abs=1e-3)
    assert hard[0] < 1e-9 < soft[0] < hard[-1]
