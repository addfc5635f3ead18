"""What a change is worth: differences paired by seed, departures from either end, masks."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from companion.analysis.points import ticket_table
from companion.figures.effects import (
    ALL,
    MADE,
    UNDONE,
    agreement_figure,
    agreement_table,
    departure_effects,
    differences,
    effects_figure,
    effects_in_words,
)
from lthlib.errors import ConfigError
from tests.companion.figures.toys import Record, record

LEVELS = {
    "BiP": 97.0,
    "BiP, as released": 91.0,
    "BiP, aliased": 97.5,
    "BiP, as released, not aliased": 92.0,
    "BiP, mask-rate": 93.0,
    "BiP, as released, not mask-rate": 96.0,
    "BiP, signed": 97.0,
}


def study(seeds: int = 3, densities: tuple[float, ...] = (0.2, 0.05)) -> list[Record]:
    """Accuracies fall with density by a point, and rise with the seed by what cancels in pairs."""
    records = []
    for seed in range(seeds):
        given: dict[str, Any] = {"judged": "found"}
        records.append(record("dense, longer", "bip", seed, 1.0, 99.0 + 0.1 * seed, **given))
        for place, density in enumerate(densities):
            for label, level in LEVELS.items():
                test = level - place + 0.1 * seed
                records.append(record(label, "bip", seed, density, test, density=density, **given))
    return records


def table(seeds: int = 3) -> pd.DataFrame:
    return ticket_table(study(seeds))


def test_differences_are_paired_by_seed_at_each_density() -> None:
    found = differences(table(), ["BiP, as released", "unknown", "BiP, aliased"], "BiP")
    assert found["name"].tolist() == ["BiP, as released"] * 2 + ["BiP, aliased"] * 2
    assert found["density"].tolist() == [0.2, 0.05] * 2
    assert found["n"].tolist() == [3] * 4
    assert found["difference"].tolist() == pytest.approx([-6, -6, 0.5, 0.5])
    assert (found["high"] - found["low"]).max() == pytest.approx(0, abs=1e-9)
    assert found["accuracy"].tolist() == pytest.approx([91.1, 90.1, 97.6, 96.6])


def test_what_keeps_every_weight_stands_at_every_density() -> None:
    found = differences(table(), ["dense, longer"], "BiP")
    assert found["difference"].tolist() == pytest.approx([2.0, 3.0])


def test_a_density_that_a_curve_lacks_is_left_out() -> None:
    records = [one for one in study() if one["label"] != "BiP, aliased" or one["density"] > 0.1]
    found = differences(ticket_table(records), ["BiP, aliased"], "BiP")
    assert found["density"].tolist() == [0.2]


def test_without_the_base_there_is_nothing() -> None:
    assert differences(table(), ["BiP"], "IMP").empty


def test_one_seed_has_no_interval() -> None:
    found = differences(table(1), ["BiP, aliased"], "BiP")
    assert found[["low", "high"]].isna().all().all()
    assert effects_in_words(found)["20 %"].tolist() == ["97.5 (+0.5)"]


def test_failed_runs_do_not_count() -> None:
    records = [*study(2), record("BiP, aliased", "bip", 2, 0.2, None, density=0.2)]
    found = differences(ticket_table(records), ["BiP, aliased"], "BiP")
    assert found["n"].tolist() == [2, 2]


def test_a_departure_is_worth_what_having_it_adds_from_either_end() -> None:
    effects = departure_effects(table(), ["aliased", "signed", "mask-rate", "counting"])
    sparse = effects[effects["density"] == 0.05].set_index(["name", "series"])["difference"]
    assert sparse.to_dict() == pytest.approx(
        {
            (ALL, ALL): -6.0,
            ("mask-rate", MADE): -4.0,
            ("mask-rate", UNDONE): -5.0,
            ("aliased", MADE): 0.5,
            ("aliased", UNDONE): -1.0,
            ("signed", MADE): 0.0,
        }
    )


def test_the_largest_stand_first_below_all_at_once() -> None:
    effects = departure_effects(table(), ["signed", "aliased", "mask-rate"])
    assert list(dict.fromkeys(effects["name"])) == [ALL, "mask-rate", "aliased", "signed"]


def test_no_departure_at_all_is_said() -> None:
    with pytest.raises(ConfigError, match="no departure to compare with 'BiP'"):
        departure_effects(ticket_table([record("IMP", "imp", 0, 0.5, 97.0)]), ["aliased"])


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_row_a_departure_and_a_panel_a_density(seeds: int) -> None:
    effects = departure_effects(table(seeds), ["signed", "aliased", "mask-rate"])
    fig = effects_figure(effects, "points")
    assert [ax.get_title("left") for ax in fig.axes] == ["20 % density", "5 % density"]
    names = [tick.get_text() for tick in fig.axes[0].get_yticklabels()]
    assert names == [ALL, "mask-rate", "aliased", "signed"]
    marks = {str(line.get_gid()): line for line in fig.axes[1].lines}
    assert list(marks[MADE].get_xdata()) == pytest.approx([-4.0, 0.5, 0.0])
    assert list(marks[MADE].get_ydata()) == pytest.approx([0.84, 1.84, 2.84])
    assert list(marks[UNDONE].get_ydata()) == pytest.approx([1.16, 2.16])


def test_a_figure_of_one_difference() -> None:
    (ax,) = effects_figure(differences(table(1), ["BiP, aliased"], "BiP").head(1), "points").axes
    (mark,) = (line for line in ax.lines if line.get_gid() == "")
    assert list(mark.get_xdata()) == pytest.approx([0.5])


def test_the_words_for_it() -> None:
    effects = departure_effects(table(), ["aliased", "mask-rate"])
    assert effects_figure(effects, "points").get_label() == (
        "Differences in points at 5 % density: all at once -6.0; mask-rate -4.0 made in the "
        "paper's BiP and -5.0 undone in the release; aliased +0.5 made in the paper's BiP and "
        "-1.0 undone in the release."
    )


def test_a_table_for_readers_has_a_column_a_density() -> None:
    found = differences(table(), ["BiP", "dense, longer", "BiP, aliased"], "BiP")
    words = effects_in_words(found, base="BiP")
    assert list(words.columns) == ["name", "20 %", "5 %"]
    assert words["name"].tolist() == ["BiP", "dense, longer", "BiP, aliased"]
    assert words["5 %"].tolist() == ["96.1", "99.1 (+3.0 [3.0, 3.0])", "96.6 (+0.5 [0.5, 0.5])"]


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
    (marks,) = (line for line in made.lines if line.get_gid() == "the paper's")
    assert list(marks.get_xdata()) == [0.60, 0.95]
    assert list(marks.get_ydata()) == [1, 2]
    (spans,) = (area for area in undone.collections if area.get_gid() == "span")
    assert [list(ends[:, 0]) for ends in spans.get_segments()] == [[0.10, 0.10], [0.30, 0.40]]


def test_overlaps_in_words() -> None:
    words = agreement_figure(agreement_table(OVERLAP, OVERLAP, ["aliased"])).get_label()
    assert "aliased, made in the paper's BiP: 0.60 with the paper's mask and 0.20 with" in words
