"""Differences between precisions, drawn."""

from __future__ import annotations

import pytest

from companion.analysis.precision import TOGETHER, precision_differences, precision_table
from companion.figures.precision import precision_figure
from tests.companion.analysis.test_precision import study


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
