"""The hypergradient against gamma: means, slope, where signs flip, and lines that break."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from matplotlib.text import Text

from companion.figures.bilevel import bilevel_figure, bilevel_means, error_slopes, flip_gamma

NAN = math.nan


def row(
    seed: int, gamma: float, cosine: float, *, point: str = "solved", size: int = 10, **own: Any
) -> dict[str, Any]:
    there = not math.isnan(cosine)
    base = {"problem": "network", "point": point, "size": size, "seed": seed, "gamma": gamma}
    base |= {"definite": there, "loss": 1.0, "distance": 0.5, "cosine": cosine}
    base |= {"implicit_cosine": cosine - 1, "direct_cosine": cosine, "error": 2 / gamma}
    return base | {"implicit_error": 3 / gamma, "flips": 0.1 if there else NAN} | own


def quadratic(size: int = 10, shares: tuple[float, ...] = (1.0, 0.75, 0.25, 0.0)) -> pd.DataFrame:
    """Errors of 4 / gamma; the shares of wrong signs at gamma = 0.1, 1, 10, 100."""
    rows = [
        row(seed, gamma, 0.9, size=size, problem="quadratic")
        | {"weight_error": 4 / gamma, "weight_flips": share}
        for seed in (0, 1)
        for gamma, share in zip((0.1, 1.0, 10.0, 100.0), shares, strict=True)
    ]
    return pd.DataFrame(rows)


def network() -> pd.DataFrame:
    """At `start` seed 1 has no minimum at gamma = 1, and none has one at 0.1."""
    rows = [row(seed, 0.1, NAN, point="start") for seed in (0, 1)]
    rows += [row(0, 1.0, 0.6, point="start"), row(1, 1.0, NAN, point="start")]
    rows += [row(seed, 10.0, 0.8 + 0.1 * seed, point="start") for seed in (0, 1)]
    rows += [
        row(seed, gamma, 1.0, point="trained") for seed in (0, 1) for gamma in (10.0, 0.1, 1.0)
    ]
    return pd.DataFrame(rows)


def lines(ax: Any, gid: str) -> list[list[float]]:
    return [list(line.get_ydata()) for line in ax.lines if line.get_gid() == gid]


def test_means_count_the_seeds_that_have_a_minimum() -> None:
    means = bilevel_means(network()).set_index(["point", "gamma"])
    assert means.loc["start", "n"].tolist() == [0, 1, 2]
    assert means.loc["start", "of"].tolist() == [2, 2, 2]
    assert means.loc[("start", 10.0), "cosine"] == pytest.approx(0.85)
    assert means.loc[("start", 1.0), "cosine"] == pytest.approx(0.6)
    assert math.isnan(means.loc[("start", 0.1), "cosine"])
    both = bilevel_means(pd.concat([quadratic(), network()]))
    assert both["problem"].tolist() == ["quadratic"] * 4 + ["network"] * 6
    assert both["weight_error"].notna().sum() == 4


def test_the_slope_is_that_of_the_last_two_gammas() -> None:
    table = quadratic()
    assert error_slopes(table) == {10: pytest.approx(-1)}
    table.loc[table["gamma"] == 10.0, "weight_error"] = 0.04 * 100
    assert error_slopes(table) == {10: pytest.approx(-2)}
    assert error_slopes(table[::-1]) == {10: pytest.approx(-2)}


def test_one_gamma_has_no_slope() -> None:
    assert math.isnan(error_slopes(quadratic().query("gamma == 1"))[10])


def test_where_half_of_the_signs_are_wrong() -> None:
    assert flip_gamma(quadratic()) == {10: pytest.approx(10**0.5)}
    assert flip_gamma(quadratic(shares=(1.0, 0.5, 0.0, 0.0))) == {10: pytest.approx(1.0)}
    assert flip_gamma(quadratic(shares=(0.6, 0.2, 0.0, 0.0))) == {10: pytest.approx(10**-0.75)}
    never = flip_gamma(quadratic(shares=(0.0,) * 4)) | flip_gamma(quadratic(20, (1.0,) * 4))
    assert all(math.isnan(gamma) for gamma in never.values())


def test_four_panels() -> None:
    errors, signs, left, right = bilevel_figure(quadratic(), network()).axes
    titles = [ax.get_title("left") for ax in (errors, signs, left, right)]
    assert titles == [
        *("Quadratics: relative error", "Quadratics: wrong signs (%)"),
        *("Quadratics: cosine", "Network: cosine"),
    ]
    assert lines(errors, "dθ*/dm") == [pytest.approx([40, 4, 0.4, 0.04])]
    assert lines(errors, "hypergradient") == [pytest.approx([20, 2, 0.2, 0.02])]
    (guide,) = (line for line in errors.lines if line.get_gid() == "slope")
    x, y = guide.get_xdata(), guide.get_ydata()
    assert [a * b for a, b in zip(x, y, strict=True)] == pytest.approx([x[0] * y[0]] * len(x))
    assert lines(signs, "dθ*/dm") == [[100, 75, 25, 0]]
    for ax in (errors, signs):
        (mark,) = (line for line in ax.lines if line.get_gid() == "flip")
        assert mark.get_xdata()[0] == pytest.approx(10**0.5)
    assert lines(left, "hypergradient") == [[0.9] * 4]
    assert lines(left, "implicit term") == [pytest.approx([-0.1] * 4)]


def test_ticks_are_text() -> None:
    fig = bilevel_figure(quadratic(), network())
    fig.canvas.draw()
    ticks = [tick.get_text() for ax in fig.axes for tick in ax.get_xticklabels()]
    assert {"0.1", "1", "10"} <= set(ticks)
    assert not [text for text in fig.findobj(Text) if "$" in text.get_text()]


def test_a_line_breaks_where_some_seed_has_no_minimum() -> None:
    *_, ax = bilevel_figure(quadratic(), network()).axes
    # Neither at gamma = 0.1 nor at 1.
    assert lines(ax, "start") == [pytest.approx([0.85])]
    assert lines(ax, "trained, implicit term") == [[0.0, 0.0, 0.0]]
    ends = {"start", "start, implicit term", "trained", "trained, implicit term"}
    assert {text.get_text() for text in ax.texts} == ends


def test_two_sizes_are_told_apart_and_one_point_of_one_seed_is_enough() -> None:
    two = pd.concat([quadratic(), quadratic(20)])
    errors, *_ = bilevel_figure(two, network()).axes
    said = {text.get_text() for text in errors.texts}
    assert {"dθ*/dm, n = 10", "dθ*/dm, n = 20"} < said
    one = network().query("point == 'trained' and seed == 0 and gamma == 1")
    *_, ax = bilevel_figure(quadratic(), one).axes
    assert lines(ax, "trained") == [[1.0]]


def test_where_nothing_has_a_minimum_the_panel_is_empty() -> None:
    none = network().query("point == 'start' and gamma == 0.1")
    *_, ax = bilevel_figure(quadratic(), none).axes
    assert lines(ax, "start") == []
    assert "gamma 0.1 no minimum" in ax.figure.get_label()


def test_the_words_for_it() -> None:
    words = bilevel_figure(quadratic(), network()).get_label()
    assert "ends with slope -1.00 (n = 10)" in words
    assert "wrong below gamma = 3.2 (n = 10)" in words
    assert "the network, start: gamma 0.1 no minimum, gamma 1 0.60 and -0.40" in words
    never = bilevel_figure(quadratic(shares=(0.0,) * 4), network()).get_label()
    assert "wrong below gamma = no gamma shown (n = 10)" in never
