"""Accuracy against density: what is drawn, and that it is drawn truly, beside published data."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.analysis.points import by_initial_gate, main_curves, ticket_table
from companion.figures.accuracy import (
    accuracy_against_density,
    accuracy_of_variants,
    beside_published,
    imp_minus_dense,
)
from companion.figures.style import spread
from tests.companion.figures.toys import Record, bands, record, searches, study, table


def drawn(fig: Figure, gid: str) -> list[tuple[list[float], list[float]]]:
    """Each line's points, then each cloud of marks'."""
    lines = [line for ax in fig.axes for line in ax.lines if line.get_gid() == gid]
    clouds = [area for ax in fig.axes for area in ax.collections if area.get_gid() == gid]
    points = [line.get_xydata() for line in lines] + [area.get_offsets() for area in clouds]
    return [(list(own[:, 0]), list(own[:, 1])) for own in points]


def labels(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_means_seeds_bands_and_labels() -> None:
    fig = accuracy_against_density(main_curves(table(seeds=3)))
    (ax,) = fig.axes
    assert sorted(labels(ax)) == ["BiP", "CS", "IMP", "dense"]
    means = drawn(fig, "mean")
    assert len(means) == 3
    assert means[0] == ([50.0, 25.0], pytest.approx([97.2, 96.2]))
    assert [len(x) for x, _ in drawn(fig, "seeds")] == [18]
    assert bands(ax) == 3
    assert drawn(fig, "dense") == [([0, 1], pytest.approx([98.1, 98.1]))]


def test_one_seed_has_no_dots_and_no_band() -> None:
    fig = accuracy_against_density(main_curves(table(seeds=1)))
    assert drawn(fig, "seeds") == [([], [])]
    assert bands(fig.axes[0]) == 0


def test_one_row_is_enough() -> None:
    fig = accuracy_against_density(ticket_table([record("IMP", "imp", 0, 0.5, 97.0)]))
    assert labels(fig.axes[0]) == ["IMP"]


def test_dense_runs_from_left_to_right() -> None:
    left, right = accuracy_against_density(main_curves(table())).axes[0].get_xlim()
    assert left > 100 > 25 > right


@pytest.mark.parametrize("worst", [10.0, 60.0, 97.5])
def test_collapse_and_small_differences_fit_into_the_axes(worst: float) -> None:
    records = [*study(1), record("random", "random", 0, 0.25, worst, density=0.25)]
    ax = accuracy_against_density(main_curves(ticket_table(records))).axes[0]
    low, high = ax.get_ylim()
    assert low <= min(worst, 96) < 98 <= high < 100
    assert len(ax.get_yticks()) >= 3


def test_perfect_accuracy_is_drawn() -> None:
    ax = accuracy_against_density(ticket_table([record("IMP", "imp", 0, 0.5, 100.0)])).axes[0]
    assert np.isfinite(ax.get_ylim()).all()


def test_a_density_that_every_seed_failed_at_breaks_the_line() -> None:
    records = [record("BiP", "bip", 0, d, 97.0, density=d) for d in (0.5, 0.1)]
    records.append(record("BiP", "bip", 0, 0.2, None, density=0.2))
    fig = accuracy_against_density(ticket_table(records))
    assert drawn(fig, "mean") == [([50.0], [97.0]), ([10.0], [97.0])]
    assert drawn(fig, "failed")[0][0] == [20.0]


def test_a_density_that_one_seed_failed_at_keeps_its_mean() -> None:
    records = [record("BiP", "bip", seed, 0.2, 97.0, density=0.2) for seed in (0, 1)]
    records.append(record("BiP", "bip", 2, 0.2, None, density=0.2))
    fig = accuracy_against_density(ticket_table(records))
    assert drawn(fig, "mean") == [([20.0], [97.0])]
    assert drawn(fig, "failed")[0][0] == [20.0]


def test_a_ticket_with_an_emptied_layer_has_a_ring_and_is_told_of() -> None:
    records = [record("OMP", "omp", seed, 0.02, 60.0 + seed) for seed in (0, 1)]
    records.append(record("OMP", "omp", 2, 0.02, 10.0, emptied=("stem.weight",)))
    fig = accuracy_against_density(ticket_table(records))
    assert drawn(fig, "emptied") == [([2.0], [10.0])]
    (legend,) = fig.legends
    assert [text.get_text() for text in legend.texts] == ["a layer keeps no weight"]
    assert "rings mark tickets with an emptied layer, of OMP" in fig.get_label()
    whole = accuracy_against_density(table())
    assert not whole.legends
    assert "emptied" not in whole.get_label()


def test_values_of_the_papers_are_open_markers() -> None:
    papers = pd.DataFrame({"method": ["BiP", "OMP"], "density": [0.3, 0.2], "value": [92.0, 91.0]})
    fig = accuracy_against_density(main_curves(table()), papers)
    assert drawn(fig, "reported") == [([30.0], [92.0]), ([20.0], [91.0])]
    assert [text.get_text() for text in fig.legends[0].texts] == ["as reported elsewhere"]


def test_variants_stand_beside_their_method() -> None:
    fig = accuracy_of_variants(table())
    assert fig is not None
    assert [ax.get_title("left") for ax in fig.axes] == ["BiP", "CS"]
    assert [sorted(labels(ax)) for ax in fig.axes] == [
        ["BiP", "BiP, unclipped", "dense"],
        ["CS", "CS, as found", "dense"],
    ]
    assert accuracy_of_variants(main_curves(table())) is None


def test_each_initial_gate_has_a_line_through_its_rounds() -> None:
    split = by_initial_gate(main_curves(ticket_table(searches(seeds=1))))
    fig = accuracy_against_density(split)
    assert sorted(labels(fig.axes[0])) == ["CS, s0 = -0.1", "CS, s0 = 0", "IMP", "dense"]
    assert drawn(fig, "mean")[1:] == [
        (pytest.approx([60, 42]), [97.5, 96.5]),
        (pytest.approx([40, 28]), [97.5, 96.5]),
    ]


def test_learning_rate_rewinding_is_a_method_and_no_variant() -> None:
    name = "IMP, learning-rate rewinding"
    records = [record(label, "imp", 0, 0.5, 97.0, index=1) for label in (name, "IMP, halved")]
    assert set(main_curves(ticket_table(records))["curve"]) == {name}


def test_panels_share_their_scales() -> None:
    whole = ticket_table(searches(seeds=1))
    dense = whole["curve"] == "dense"
    parts = {name: whole[dense | (whole["curve"] == name)] for name in ("IMP", "CS")}
    fig = accuracy_against_density(parts)
    assert [ax.get_title("left") for ax in fig.axes] == ["IMP", "CS"]
    assert fig.axes[0].get_xlim() == fig.axes[1].get_xlim()
    assert [sorted(labels(ax)) for ax in fig.axes] == [["IMP", "dense"], ["CS", "dense"]]


def test_panels_say_what_each_of_them_shows() -> None:
    parts = {"As found": table(seeds=1), "Fine-tuned": main_curves(table(seeds=1))}
    fig = accuracy_against_density(parts)
    assert [ax.get_title("left") for ax in fig.axes] == ["As found", "Fine-tuned"]
    first, second = fig.get_label().split(" Fine-tuned: ")
    assert first.startswith("As found: Test accuracy by density, dense to sparse: dense 98.0 %")
    assert "CS, as found 95.0 %" in first and "as found" not in second


def test_equal_tables_make_equal_files() -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        with rc_context({"svg.hashsalt": "any"}):
            accuracy_against_density(table()).savefig(file, format="svg", metadata={"Date": None})
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_the_words_for_it() -> None:
    text = accuracy_against_density(main_curves(table(seeds=1))).get_label()
    assert "dense 98.0 % at 100 % density;" in text
    assert "IMP 97.0 % at 50 % density to 96.0 % at 25 % density" in text


def test_labels_are_moved_apart_as_little_as_needed() -> None:
    assert spread([0.1, 0.5], 0.05) == pytest.approx([0.1, 0.5])
    assert spread([0.50, 0.51], 0.05) == pytest.approx([0.48, 0.53])
    assert spread([0.50, 0.50, 0.56], 0.05) == pytest.approx([0.47, 0.52, 0.57])


def on_cifar(records: list[Record]) -> list[Record]:
    for one in records:
        one["config"]["data"]["dataset"] = "cifar10"
        one["config"]["model"]["architecture"] = "resnet20"
    return records


def test_ours_is_paired_with_dense_by_seed() -> None:
    gaps = imp_minus_dense(ticket_table(on_cifar(searches())))
    ours = gaps[gaps["whose"] == "ours"]
    assert ours["density"].tolist() == pytest.approx([0.8, 0.64, 0.512])
    assert ours["difference"].tolist() == pytest.approx([-0.5, -1.5, -2.5])
    assert ours["n"].tolist() == [3, 3, 3]
    assert ours["low"].tolist() == pytest.approx([-0.5, -1.5, -2.5])


def test_theirs_is_what_was_published() -> None:
    gaps = imp_minus_dense(ticket_table(on_cifar(searches(seeds=1))))
    theirs = gaps[gaps["whose"] == "Renda et al. (2020)"].set_index("density")
    assert theirs.loc[0.8, "difference"] == pytest.approx(91.76 - 91.71)
    assert len(theirs) == 10


def test_other_networks_have_no_published_imp() -> None:
    assert imp_minus_dense(ticket_table(searches(seeds=1))).empty
    without = [one for one in on_cifar(searches(seeds=1)) if one["label"] != "IMP"]
    assert imp_minus_dense(ticket_table(without)).empty


def test_both_are_drawn_and_said() -> None:
    gaps = imp_minus_dense(ticket_table(on_cifar(searches(seeds=1))))
    (ax,) = beside_published(gaps).axes
    lines = {line.get_gid(): list(line.get_ydata()) for line in ax.lines}
    assert lines["ours"] == pytest.approx([-0.5, -1.5, -2.5])
    assert len(lines["Renda et al. (2020)"]) == 10
    assert "ours -0.5 points at 80 % density to -2.5 points at 51 % density" in (
        beside_published(gaps).get_label()
    )
