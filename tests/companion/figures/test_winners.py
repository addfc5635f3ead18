"""The two tickets of each curve, drawn."""

from __future__ import annotations

import math

import pytest

from companion.analysis.points import ticket_table
from companion.analysis.winners import winning_tickets
from companion.figures.winners import winners_figure
from tests.companion.figures.toys import record, searches


def test_a_dot_and_a_density_for_every_curve() -> None:
    winners = winning_tickets(ticket_table(searches()))
    left, right = winners_figure(winners).axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["IMP", "CS, as found", "CS"]
    dots = [x for line in right.lines if line.get_gid() == "ticket" for x in line.get_xdata()]
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
