"""Which mask a variant finds: overlaps with the mask of either end."""

from __future__ import annotations

import pandas as pd
import pytest

from companion.figures.agreement import agreement_figure, agreement_table
from companion.figures.effects import ALL, MADE, UNDONE
from lthlib.errors import ConfigError

CURVES = ["BiP", "BiP, as released", "BiP, aliased", "BiP, as released, not aliased", "BiP, signed"]
OVERLAP = pd.DataFrame(
    [
        [float("nan"), 0.10, 0.60, 0.30, 0.95],
        [0.10, float("nan"), 0.20, 0.40, 0.11],
        [0.60, 0.20, float("nan"), 0.0, 0.0],
        [0.30, 0.40, 0.0, float("nan"), 0.0],
        [0.95, 0.11, 0.0, 0.0, float("nan")],
    ],
    CURVES,
    CURVES,
)


def test_each_variant_is_compared_with_both_ends() -> None:
    table = agreement_table(OVERLAP, OVERLAP / 10, ["signed", "aliased", "counting"])
    found = table.set_index(["name", "series", "compared_with"])["overlap"]
    assert found.to_dict() == {
        (ALL, MADE, "the release's"): 0.10,
        (ALL, UNDONE, "the paper's"): 0.10,
        ("aliased", MADE, "the paper's"): 0.60,
        ("aliased", MADE, "the release's"): 0.20,
        ("aliased", UNDONE, "the paper's"): 0.30,
        ("aliased", UNDONE, "the release's"): 0.40,
        ("signed", MADE, "the paper's"): 0.95,
        ("signed", MADE, "the release's"): 0.11,
    }
    assert table["by_chance"].tolist() == pytest.approx((table["overlap"] / 10).tolist())


def test_what_moves_the_mask_most_stands_first() -> None:
    table = agreement_table(OVERLAP, OVERLAP, ["signed", "aliased"])
    assert list(dict.fromkeys(table["name"])) == [ALL, "aliased", "signed"]


def test_both_ends_are_needed() -> None:
    alone = OVERLAP.loc[["BiP"], ["BiP"]]
    with pytest.raises(ConfigError, match="no mask of 'BiP, as released' to compare with"):
        agreement_table(alone, alone, ["aliased"])


def test_a_panel_an_end_with_two_marks_a_row() -> None:
    fig = agreement_figure(agreement_table(OVERLAP, OVERLAP / 10, ["signed", "aliased"]))
    made, undone = fig.axes
    assert [ax.get_title("left") for ax in fig.axes] == [MADE, UNDONE]
    assert [tick.get_text() for tick in made.get_yticklabels()] == [ALL, "aliased", "signed"]
    (marks,) = (line for line in made.lines if line.get_gid() == "with the paper's mask")
    assert list(marks.get_xdata()) == [0.60, 0.95]
    assert list(marks.get_ydata()) == [1, 2]
    (spans,) = (area for area in undone.collections if area.get_gid() == "span")
    assert [list(ends[:, 0]) for ends in spans.get_segments()] == [[0.10, 0.10], [0.30, 0.40]]


def test_the_words_for_it() -> None:
    words = agreement_figure(agreement_table(OVERLAP, OVERLAP, ["aliased"])).get_label()
    assert "aliased, made in the paper's BiP: 0.60 with the paper's mask and 0.20 with" in words
