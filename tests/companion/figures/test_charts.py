"""What figures share: curves through means with our interval, rows with intervals, grids."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from companion.figures.charts import cells, curves, forest, grid, interval, key, labelled
from companion.figures.style import label_ends, look_of, looks, scaled
from tests.companion.figures.toys import bands


def seeds(values: dict[float, list[float]]) -> pd.DataFrame:
    rows = [("IMP", x, y) for x, own in values.items() for y in own]
    return pd.DataFrame(rows, columns=["curve", "x", "y"])


def panel() -> Axes:
    _, axes = grid(pd.DataFrame(), 4, 3)
    return axes[""]


def drawn(ax: Axes) -> list[list[float]]:
    return [list(line.get_ydata()) for line in ax.lines]


def test_an_interval_needs_three_seeds() -> None:
    assert all(math.isnan(end) for end in interval(pd.Series([1.0, 2.0])))
    low, high = interval(pd.Series([97.0, 97.3, 97.6]))
    # 4.303 is the t quantile of two degrees of freedom.
    assert (low, high) == pytest.approx((97.3 - 0.745, 97.3 + 0.745), abs=1e-3)


def test_a_curve_is_a_mean_with_our_interval() -> None:
    ax = panel()
    table = seeds({2.0: [97.0, 97.3, 97.6], 1.0: [90.0, 91.0]})
    curves(ax, table, "x", "y", looks(["IMP"]), errorbar=interval)
    assert drawn(ax) == [pytest.approx([97.3, 90.5])]
    (area,) = ax.collections
    heights = np.concatenate([path.vertices[:, 1] for path in area.get_paths()])
    assert heights.min() == pytest.approx(97.3 - 0.745, abs=1e-3)
    assert heights.max() == pytest.approx(97.3 + 0.745, abs=1e-3)


def test_means_are_those_of_percentages_whatever_the_scale_of_the_axis() -> None:
    ax = panel()
    table = seeds({1.0: [50.0, 99.0]})
    curves(ax, table, "x", "y", looks(["IMP"]))
    scaled(ax, "y", "error", table["y"])
    assert drawn(ax) == [pytest.approx([74.5])]


def test_a_curve_is_broken_where_nothing_is_known() -> None:
    ax = panel()
    curves(ax, seeds({3.0: [97.0], 2.0: [math.nan], 1.0: [95.0]}), "x", "y", looks(["IMP"]))
    assert drawn(ax) == [[97.0], [95.0]]


def test_rows_that_share_their_index_are_told_apart() -> None:
    parts = [seeds({2.0: [97.0]}), seeds({1.0: [95.0]})]
    ax = panel()
    curves(ax, pd.concat(parts), "x", "y", looks(["IMP"]))
    assert drawn(ax) == [[97.0, 95.0]]


def test_a_band_that_is_known_already() -> None:
    table = seeds({2.0: [97.0], 1.0: [95.0]}).assign(low=[96.0, 94.0], high=[98.0, 96.0])
    axes = [panel(), panel()]
    for ax, shown in zip(axes, (table, table.assign(low=math.nan)), strict=True):
        curves(ax, shown, "x", "y", looks(["IMP"]), ends=("low", "high"))
    assert [bands(ax) for ax in axes] == [1, 0]


def test_a_curve_says_where_it_ends() -> None:
    table = pd.concat([seeds({2.0: [97.0, 98.0], 1.0: [95.0]}), seeds({0.5: [math.nan]})])
    assert curves(panel(), table, "x", "y", looks(["IMP"])) == [("IMP", 1.0, 95.0, "#0072B2")]


def test_rows_stand_from_the_top_with_their_intervals() -> None:
    rows = pd.DataFrame({"name": ["first", "second"], "at": "here", "kind": "any"})
    rows = rows.assign(gap=[1.0, -1.0], low=[0.5, math.nan], high=[1.5, math.nan])
    known = {"any": look_of("BiP")}
    _, axes = forest(rows, ["gap", "low", "high"], known, panel="at", by="kind")
    ax = axes["here"]
    (marks,) = (line for line in ax.lines if line.get_gid() == "any")
    assert list(marks.get_xdata()) == [1.0, -1.0]
    assert list(ax.collections[0].get_segments()[0][:, 0]) == [0.5, 1.5]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


@pytest.mark.parametrize(("total", "rule"), [("first", 0.5), ("last", 1.5)])
def test_a_line_sets_apart_what_sums_up_the_others(total: str, rule: float) -> None:
    rows = pd.DataFrame({"name": ["first", "second", "last"], "at": "", "kind": "", "gap": 1.0})
    _, axes = forest(
        rows, ["gap"], {"": look_of("BiP")}, panel="at", by="kind", total=total, reference=None
    )
    assert list(axes[""].lines[0].get_ydata()) == [rule] * 2


def test_cells_without_a_shade_stay_white() -> None:
    shades = pd.DataFrame([[0.0, math.nan]], ["row"], ["IMP", "OMP"])
    (ax,) = cells(shades, shades.map("{:g}".format), (0, 1), 3, 2).axes
    assert [text.get_text() for text in ax.texts] == ["0", "–"]
    assert ax.collections[0].get_facecolors()[1].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "values", "ticks"),
    [
        ("log", [0.001, 1000], ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]),
        ("log", [1, 100], ["1", "2", "5", "10", "20", "50", "100"]),
        ("cost", [1e5, 1e6], ["100 k", "200 k", "500 k", "1 M"]),
        ("error", [10, 99.5], ["0", "50", "80", "90", "95", "98", "99", "99.5"]),
        ("error", [46, 76], ["45", "50", "55", "60", "65", "70", "75"]),
        ("points", [-90, 90], ["-100", "-10", "-1", "0", "+1", "+10", "+100"]),
    ],
)
def test_ticks_are_round_numbers_that_stand_clear(
    kind: str, values: list[float], ticks: list[str]
) -> None:
    ax = panel()
    scaled(ax, "y", kind, values)
    ax.figure.canvas.draw()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ticks


@pytest.mark.parametrize("kind", ["log", "cost", "error", "points"])
def test_one_value_has_an_axis_and_no_value_leaves_it_alone(kind: str) -> None:
    ax = panel()
    scaled(ax, "y", kind, [math.nan, 50.0])
    low, high = ax.get_ylim()
    assert low < 50 < high
    assert 50 in ax.get_yticks()
    scaled(ax, "y", kind, [math.nan])
    assert ax.get_ylim() == (low, high)


def test_dense_may_stand_on_the_left() -> None:
    ax = panel()
    scaled(ax, "x", "log", [100, 5], falling=True)
    left, right = ax.get_xlim()
    assert left > 100 > 5 > right


def test_labels_at_ends_stand_clear_of_each_other() -> None:
    ax = panel()
    ax.set_ylim(0, 1)
    label_ends(ax, [("one", 0.5, 0.5, "red"), ("two", math.nan, 0.5, "blue")])
    assert [text.get_text() for text in ax.texts] == ["one", "two"]
    below, above = (text.xyann[1] for text in ax.texts)
    assert above - below > 0.05
    assert [text.xy[0] for text in ax.texts] == pytest.approx([0.5, 1.0])


def test_the_name_of_a_line_that_leaves_a_panel_stands_at_its_edge() -> None:
    ax = panel()
    scaled(ax, "y", "log", [1, 100])
    label_ends(ax, [("ISS", 1.0, 0.0, "red")])
    assert ax.texts[0].xyann[1] == pytest.approx(0)


@pytest.mark.parametrize("curve", ["IMP-C", "l0", "random", "SNIP"])
def test_labels_are_dark_enough_to_be_read(curve: str) -> None:
    ax = panel()
    label_ends(ax, [(curve, 0.5, 0.5, look_of(curve).colour)])
    channels = np.array(to_rgb(ax.texts[0].get_color()))
    linear = np.where(channels > 0.04045, ((channels + 0.055) / 1.055) ** 2.4, channels / 12.92)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    assert 1.05 / (luminance + 0.05) >= 4.5  # as WCAG asks of text on white


def test_a_key_names_looks_and_lines() -> None:
    fig, _ = grid(pd.DataFrame(), 4, 3)
    key(fig, {"BiP": look_of("BiP"), "target": {"marker": "|"}}, 2, linestyle="")
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.texts] == ["BiP", "target"]
    assert [line.get_marker() for line in legend.get_lines()] == ["D", "|"]


def test_a_grid_has_a_titled_panel_a_value_and_bears_its_description() -> None:
    table = pd.DataFrame({"density": [0.2, 0.05]})
    fig, axes = grid(table, 4, 3, "{:g}".format, col="density", col_order=[0.2, 0.05])
    assert [ax.get_title() for ax in axes.values()] == ["0.2", "0.05"]
    assert labelled(fig, "Two panels.", "density").get_label() == "Two panels."
    assert tuple(fig.get_size_inches()) == (4, 3)
