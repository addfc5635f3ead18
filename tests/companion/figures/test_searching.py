"""Gates over training, and when a mask settles."""

from __future__ import annotations

from typing import Any

import pytest

from companion.figures.searching import (
    convergence_figure,
    convergence_table,
    gate_table,
    gates_figure,
)
from lthlib.errors import ConfigError


def epoch(number: int, density: float, gates: list[int]) -> Any:
    return {"round": number, "step": 3, "density": density, "gates": gates}


HISTORIES = {
    ("CS", 0): [
        epoch(0, 0.5, [0, 10, 0, 0]),
        epoch(0, 0.4, [6, 0, 0, 4]),
        epoch(1, 0.2, [8, 0, 0, 2]),
    ],
    ("CS", 1): [epoch(0, 0.3, [7, 0, 0, 3])],
    ("ISS", 0): [epoch(0, 0.0, [2, 5, 2, 1])],
}


def test_shares_of_the_gates_by_epoch() -> None:
    gates = gate_table(HISTORIES)
    first = gates[(gates["method"] == "CS") & (gates["seed"] == 0)]
    assert first["epoch"].tolist() == [1, 2, 3]
    assert first["round"].tolist() == [1, 1, 2]
    assert first["from_0.25"].tolist() == [1.0, 0.0, 0.0]
    assert first["from_0.75"].tolist() == [0.0, 0.4, 0.2]


def test_no_history_is_said() -> None:
    with pytest.raises(ConfigError, match="no search with gates has a history"):
        gate_table({})


def test_a_panel_a_method() -> None:
    gates = gate_table(HISTORIES)
    axes = gates_figure(gates).axes
    assert [ax.get_title("left") for ax in axes[:2]] == ["CS", "ISS"]


def test_the_words_for_it() -> None:
    gates = gate_table({name: HISTORIES[name] for name in (("CS", 0), ("ISS", 0))})
    shares = gates_figure(gates).get_label()
    assert "CS: 100 % of the gates in the outermost bins; ISS: 30 %" in shares


def history(*overlaps: float | None) -> list[dict[str, Any]]:
    return [{"round": 0, "density": 0.05, "overlap": overlap} for overlap in overlaps]


OVERLAPS = {
    ("BiP", 0): history(0.5, 0.9, 0.995, 0.999),
    ("BiP", 1): history(0.7, 0.995, 0.98, 0.997),
    ("BiP, mask frozen", 0): history(1.0, 1.0, 1.0, 1.0),
    ("BiP, as released", 0): history(0.1, 0.2, 0.3, 0.4),
    ("dense", 0): [{"round": 0, "loss": 0.1}],
}


def test_a_row_an_epoch_for_runs_that_have_a_mask() -> None:
    table = convergence_table(OVERLAPS)
    assert set(table["tickets"]) == {"BiP", "BiP, mask frozen", "BiP, as released"}
    own = table[(table["tickets"] == "BiP") & (table["seed"] == 0)]
    assert own["epoch"].tolist() == [1, 2, 3, 4]
    assert own["overlap"].tolist() == [0.5, 0.9, 0.995, 0.999]


def test_no_mask_is_said() -> None:
    with pytest.raises(ConfigError, match="no run has a history of its mask's overlap"):
        convergence_table({("dense", 0): OVERLAPS["dense", 0]})


def test_one_line_a_seed_and_equal_masks_at_the_top() -> None:
    (ax,) = convergence_figure(convergence_table(OVERLAPS)).axes
    lines = [(str(line.get_gid()), list(line.get_ydata())) for line in ax.lines]
    assert [name for name, _ in lines] == ["BiP", "BiP", "BiP, mask frozen", "BiP, as released"]
    assert lines[2][1] == [99.9] * 4
    assert max(ax.get_ylim()) == pytest.approx(99.9)


def test_the_words_for_the_overlap() -> None:
    words = convergence_figure(convergence_table(OVERLAPS)).get_label()
    assert "BiP 0.600 after epoch 1 to 0.998 after epoch 4" in words
