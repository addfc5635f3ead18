"""Tickets beside dense, precisions beside fp32, speeds beside their reference."""

from __future__ import annotations

import math
from typing import Any

import pytest

from companion.analysis.points import ticket_table
from companion.analysis.precision import TOGETHER, precision_differences, precision_table
from companion.analysis.winners import winning_tickets
from companion.figures.beside import (
    MET,
    NO_TARGET,
    NOT_MET,
    benchmark_figure,
    benchmark_ratios,
    benchmark_table,
    precision_figure,
    winners_figure,
)
from tests.companion.analysis.test_precision import study
from tests.companion.figures.toys import record, searches


def test_a_dot_and_a_density_for_every_curve() -> None:
    winners = winning_tickets(ticket_table(searches()))
    left, right = winners_figure(winners).axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["IMP", "CS, as found", "CS"]
    curves = {"IMP", "CS, as found", "CS"}
    dots = [x for line in right.lines if line.get_gid() in curves for x in line.get_xdata()]
    wanted = winners[winners["choice"] == "best performing"]["difference"].tolist()
    assert dots == pytest.approx(wanted)
    assert not any(math.isnan(dot) for dot in dots)


def test_where_nothing_matches_it_says_none() -> None:
    records = [record("dense", "dense", s, 1.0, 97.0 + s, judged="found") for s in range(3)]
    records.append(record("IMP", "imp", 0, 0.8, 99.0, index=1))
    records[-1]["accuracy"]["validation"] = 50.0
    fig = winners_figure(winning_tickets(ticket_table(records)))
    assert "none" in [text.get_text() for text in fig.axes[0].texts]
    assert "sparsest" not in fig.get_label()
    assert "IMP, best performing: +1.0 points at 80 %" in fig.get_label()


def test_a_row_a_ticket_and_the_margins_as_bands() -> None:
    rows = precision_differences(precision_table(study("tf32")))
    left, right = precision_figure(rows, 0.5).axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
        *("dense", "BiP, 20 %", "CS, 10 %", TOGETHER)
    ]
    marks = {str(line.get_gid()): line for line in left.lines}
    assert list(marks["bf16"].get_ydata()) == pytest.approx([-0.15, 0.85, 1.85, 2.85])
    assert list(marks["tf32"].get_xdata()) == [0, 0, 0, 0]
    start = "Differences to fp32 in points of accuracy: dense in bf16 "
    assert left.figure.get_label().startswith(start)
    (band,) = (patch for patch in right.patches if patch.get_gid() == "margin")
    assert band.get_extents().width > 0


def row(name: str, unit: str, ratio: float | None, target: str = "", met: Any = None) -> dict:
    line = {"name": name, "reference": 4.0, "ours": 2.0, "unit": unit, "ratio": ratio}
    return line | {"target": target, "met": met, "note": ""}


ROWS = [
    row("dense step", "ms", 2.0, ">= 1.5 x", True),
    row("CS step", "ms", 1.8, ">= 2 x", False),
    row("IMP step", "ms", 1.6),
    row("training loss", "nats", 1.01, "within 10 %", True),
    row("memory", "GiB", None, "< 2 GiB", True),
    row("runs at once", "im/s", 1.3, ">= 1.2 x", True),
]


def test_a_table_says_in_words_what_is_met() -> None:
    table = benchmark_table(ROWS)
    assert table["met"].tolist() == [MET, NOT_MET, "", MET, MET, MET]
    assert math.isnan(table["ratio"][4])


def test_ratios_are_of_what_takes_time() -> None:
    ratios = benchmark_ratios(benchmark_table(ROWS))
    assert ratios["name"].tolist() == ["dense step", "CS step", "IMP step", "runs at once"]
    assert ratios["target"].tolist() == pytest.approx([1.5, 2.0, math.nan, 1.2], nan_ok=True)
    assert ratios["outcome"].tolist() == [MET, NOT_MET, NO_TARGET, MET]


def test_a_row_a_benchmark_with_its_target() -> None:
    (ax,) = benchmark_figure(benchmark_ratios(benchmark_table(ROWS))).axes
    marks = {str(line.get_gid()): line for line in ax.lines}
    assert list(marks[MET].get_xdata()) == [2.0, 1.3]
    assert list(marks[NOT_MET].get_ydata()) == [1]
    assert list(marks["target"].get_xdata())[:2] == [1.5, 2.0]


def test_the_words_for_it() -> None:
    words = benchmark_figure(benchmark_ratios(benchmark_table(ROWS[1:3]))).get_label()
    assert words == ("Times faster than the reference: CS step 1.8 of 2 aimed at; IMP step 1.6.")
