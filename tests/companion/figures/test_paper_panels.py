"""The paper's panels, drawn with ours beside."""

from __future__ import annotations

from companion.analysis.paper_panels import panel_gaps
from companion.analysis.points import ticket_table
from companion.figures.paper_panels import panels_figure
from tests.companion.analysis.test_paper_panels import C10_RN20, DIGITS, on_cifar
from tests.companion.figures.toys import record, study


def test_a_panel_without_runs_says_so() -> None:
    gaps = panel_gaps("unstructured", {"toy": on_cifar(study(1))}, ["BiP", "IMP"])
    fig = panels_figure(gaps, {"toy": "reduced scale; 8 of 200 epochs"})
    said = {ax.get_title("left"): ax.texts[0].get_text() for ax in fig.axes}
    assert said["CIFAR-10, ResNet-18"] == "paper: dense 94.77 %\nours: not run"
    assert said[C10_RN20] == (
        "paper: dense 92.12 %\nours: dense 98.0 %, reduced scale\n8 of 200 epochs"
    )
    assert {line.get_gid() for line in fig.axes[0].lines} == {"dense", "paper"}
    assert {line.get_gid() for line in fig.axes[1].lines} == {"dense", "paper", "ours"}
    words = fig.get_label()
    assert "CIFAR-10, ResNet-20: IMP (ours) -1.0 at 50 % to -2.0 at 75 %" in words
    assert "Ours not run: CIFAR-10, ResNet-18; CIFAR-10, ResNet-56" in words


def test_each_panel_has_its_own_scale_that_keeps_the_papers_curves_legible() -> None:
    records = study(1)
    for one in records:
        if one["label"] == "IMP":
            one["accuracy"]["test"] = 20.0
    gaps = panel_gaps("unstructured", {"toy": on_cifar(records)})
    fig = panels_figure(gaps, {"toy": "reduced scale"})
    bottoms = [ax.get_ylim()[0] for ax in fig.axes]
    assert len(set(bottoms)) == len(bottoms)
    assert -15 < bottoms[1] < -3


def test_digits_have_a_panel_of_their_own_beside_filters() -> None:
    records = study(1)
    gaps = panel_gaps("filter", {"toy": ticket_table(records)})
    fig = panels_figure(gaps, {"toy": "embedded scale"})
    shown = [ax for ax in fig.axes if ax.get_visible()]
    assert [ax.get_title("left") for ax in shown][-1] == DIGITS
    assert shown[-1].texts[0].get_text() == "ours: dense 98.0 %, embedded scale"


def test_one_ticket_and_failed_runs_are_enough() -> None:
    records = [
        record("dense", "dense", 0, 1.0, 98.0, judged="found"),
        record("BiP", "bip", 0, 0.5, 97.0, judged="found", density=0.5),
        record("BiP", "bip", 1, 0.5, None, density=0.5),
    ]
    gaps = panel_gaps("channel", {"toy": ticket_table(records)})
    assert len(panels_figure(gaps, {"toy": "embedded scale"}).axes) == 1
