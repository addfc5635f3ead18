"""When a mask settles: overlaps of successive masks as histories hold them."""

from __future__ import annotations

from typing import Any

import pytest

from companion.figures.convergence import convergence_figure, convergence_means, convergence_table
from lthlib.errors import ConfigError


def history(*overlaps: float | None) -> list[dict[str, Any]]:
    return [{"round": 0, "density": 0.05, "overlap": overlap} for overlap in overlaps]


HISTORIES = {
    ("BiP", 0): history(0.5, 0.9, 0.995, 0.999),
    ("BiP", 1): history(0.7, 0.995, 0.98, 0.997),
    ("BiP, mask frozen", 0): history(1.0, 1.0, 1.0, 1.0),
    ("BiP, as released", 0): history(0.1, 0.2, 0.3, 0.4),
    ("dense", 0): [{"round": 0, "loss": 0.1}],
}


def test_a_row_an_epoch_for_runs_that_have_a_mask() -> None:
    table = convergence_table(HISTORIES)
    assert set(table["tickets"]) == {"BiP", "BiP, mask frozen", "BiP, as released"}
    own = table[(table["tickets"] == "BiP") & (table["seed"] == 0)]
    assert own["epoch"].tolist() == [1, 2, 3, 4]
    assert own["overlap"].tolist() == [0.5, 0.9, 0.995, 0.999]


def test_no_mask_is_said() -> None:
    with pytest.raises(ConfigError, match="no run has a history of its mask's overlap"):
        convergence_table({("dense", 0): HISTORIES["dense", 0]})


def test_when_masks_settle() -> None:
    means = convergence_means(convergence_table(HISTORIES)).set_index("tickets")
    assert means.loc["BiP", "first"] == pytest.approx(0.6)
    assert means.loc["BiP", "settled"] == 4  # of the slower seed
    assert means.loc["BiP, mask frozen", "settled"] == 1
    assert means.loc["BiP, as released", "settled"] != means.loc["BiP, as released", "settled"]


def test_one_line_a_seed_and_equal_masks_at_the_top() -> None:
    (ax,) = convergence_figure(convergence_table(HISTORIES)).axes
    lines = [(str(line.get_gid()), list(line.get_ydata())) for line in ax.lines]
    assert [name for name, _ in lines] == ["BiP", "BiP", "BiP, mask frozen", "BiP, as released"]
    assert lines[2][1] == [99.9] * 4
    assert max(ax.get_ylim()) == pytest.approx(99.9)


def test_the_words_for_it() -> None:
    words = convergence_figure(convergence_table(HISTORIES)).get_label()
    assert "BiP 0.60 after the first epoch, 0.95 half-way, 0.998 at the end" in words
