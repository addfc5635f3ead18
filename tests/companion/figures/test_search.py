"""What a search costs, drawn."""

from __future__ import annotations

import pandas as pd
import pytest

from companion.analysis.points import ticket_table
from companion.analysis.search import search_costs
from companion.figures.search import search_figure
from tests.companion.figures.toys import searches


@pytest.fixture(scope="module")
def costs() -> pd.DataFrame:
    return search_costs(ticket_table(searches()))


def test_a_line_a_search_and_one_for_searches_at_once(costs: pd.DataFrame) -> None:
    fig = search_figure(costs)
    assert [ax.get_title("left") for ax in fig.axes] == ["One after the other", "All together"]
    for ax in fig.axes:
        names = sorted(text.get_text() for text in ax.texts)
        assert names == ["CS", "CS, searches at once", "IMP"]
        assert sorted(line.get_gid() for line in ax.lines) == ["found"] * 3 + ["retrained"] * 3
    words = "CS, searches at once: 4 tickets after 20 epochs in sequence, 40 in total"
    assert words in fig.get_label()
