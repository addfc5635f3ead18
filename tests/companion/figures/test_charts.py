"""What figures share: curves through means with our interval, rows with intervals, grids."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from companion.figures.charts import curves, forest, grid, interval, labelled, panels, rows_axis
from companion.figures.style import accuracy_axis, look_of, looks
from tests.companion.figures.toys import bands


def seeds(values: dict[float, list[float]]) -> pd.DataFrame:
    rows = [("IMP", x, y) for x, own in values.items() for y in own]
    return pd.DataFrame(rows, columns=["curve", "x", "y"])


def drawn(ax: Axes) -> list[list[float]]:
    return [list(line.get_ydata()) for line in ax.lines]


def test_an_interval_needs_three_seeds() -> None:
    assert all(math.isnan(end) for end in interval(pd.Series([1.0, 2.0])))
    low, high = interval(pd.Series([97.0, 97.3, 97.6]))
    # 4.303 is the t quantile of two degrees of freedom.
    assert (low, high) == pytest.approx((97.3 - 0.745, 97.3 + 0.745), abs=1e-3)


def test_a_curve_is_a_mean_with_our_interval() -> None:
    _, (ax,) = panels(1, 4, 3)
    table = seeds({2.0: [97.0, 97.3, 97.6], 1.0: [90.0, 91.0]})
    curves(ax, table, "x", "y", looks(["IMP"]), errorbar=interval)
    assert drawn(ax) == [pytest.approx([97.3, 90.5])]
    (area,) = ax.collections
    heights = np.concatenate([path.vertices[:, 1] for path in area.get_paths()])
    assert heights.min() == pytest.approx(97.3 - 0.745, abs=1e-3)
    assert heights.max() == pytest.approx(97.3 + 0.745, abs=1e-3)


def test_means_are_those_of_percentages_whatever_the_scale_of_the_axis() -> None:
    _, (ax,) = panels(1, 4, 3)
    table = seeds({1.0: [50.0, 99.0]})
    curves(ax, table, "x", "y", looks(["IMP"]))
    accuracy_axis(ax, table["y"])
    assert drawn(ax) == [pytest.approx([74.5])]


def test_a_curve_is_broken_where_nothing_is_known() -> None:
    _, (ax,) = panels(1, 4, 3)
    curves(ax, seeds({3.0: [97.0], 2.0: [math.nan], 1.0: [95.0]}), "x", "y", looks(["IMP"]))
    assert drawn(ax) == [[97.0], [95.0]]


def test_rows_that_share_their_index_are_told_apart() -> None:
    parts = [seeds({2.0: [97.0]}), seeds({1.0: [95.0]})]
    _, (ax,) = panels(1, 4, 3)
    curves(ax, pd.concat(parts), "x", "y", looks(["IMP"]))
    assert drawn(ax) == [[97.0, 95.0]]


def test_a_band_that_is_known_already() -> None:
    table = seeds({2.0: [97.0], 1.0: [95.0]}).assign(low=[96.0, 94.0], high=[98.0, 96.0])
    _, axes = panels(2, 4, 3)
    for ax, shown in zip(axes, (table, table.assign(low=math.nan)), strict=True):
        curves(ax, shown, "x", "y", looks(["IMP"]), ends=("low", "high"))
    assert [bands(ax) for ax in axes] == [1, 0]


def test_rows_stand_from_the_top_with_their_intervals() -> None:
    rows = pd.DataFrame({"gap": [1.0, -1.0], "low": [0.5, math.nan], "high": [1.5, math.nan]})
    _, (ax,) = panels(1, 4, 3)
    forest(ax, rows, rows.index, ["gap", "low", "high"], look_of("BiP"), "gap")
    rows_axis([ax], ["first", "second"])
    (marks,) = ax.lines
    assert list(marks.get_xdata()) == [1.0, -1.0]
    assert list(ax.collections[0].get_segments()[0][:, 0]) == [0.5, 1.5]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_a_grid_has_a_titled_panel_a_value_and_bears_its_description() -> None:
    table = pd.DataFrame({"density": [0.2, 0.05]})
    fig, axes = grid(table, 4, 3, "{:g}".format, col="density", col_order=[0.2, 0.05])
    assert [ax.get_title() for ax in axes.values()] == ["0.2", "0.05"]
    assert labelled(fig, "Two panels.", "density").get_label() == "Two panels."
    assert tuple(fig.get_size_inches()) == (4, 3)
