"""Gates over training, their gap to the ticket, and when a mask settles."""

from __future__ import annotations

from typing import Any

import pytest

from companion.figures.searching import (
    convergence_figure,
    convergence_means,
    convergence_table,
    gap_table,
    gate_density_figure,
    gate_table,
    gates_figure,
)
from lthlib.errors import ConfigError
from tests.companion.figures.toys import record


def epoch(number: int, density: float, gates: list[int], gated: float | None = None) -> Any:
    entry: dict[str, Any] = {"round": number, "step": 3, "density": density, "gates": gates}
    return entry if gated is None else {**entry, "gated_validation": gated}


HISTORIES = {
    ("CS", 0): [
        epoch(0, 0.5, [0, 10, 0, 0]),
        epoch(0, 0.4, [6, 0, 0, 4], gated=95.0),
        epoch(1, 0.2, [8, 0, 0, 2], gated=90.0),
    ],
    ("CS", 1): [epoch(0, 0.3, [7, 0, 0, 3], gated=94.0)],
    ("ISS", 0): [epoch(0, 0.0, [2, 5, 2, 1], gated=50.0)],
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


def test_a_panel_a_method_and_a_line_a_seed() -> None:
    gates = gate_table(HISTORIES)
    axes = gates_figure(gates).axes
    assert [ax.get_title("left") for ax in axes[:2]] == ["CS", "ISS"]
    (ax,) = gate_density_figure(gates).axes
    lines = [list(line.get_ydata()) for line in ax.lines if line.get_gid() == "density"]
    assert lines == [[50, 40, 20], [30], [0]]
    assert sorted(text.get_text() for text in ax.texts) == ["CS", "ISS"]


def test_the_gap_is_the_ticket_minus_the_gates_of_training() -> None:
    records = [
        record("CS", "cs", 0, 0.4, 94.0, index=0, judged="found"),
        record("CS", "cs", 0, 0.2, 91.0, index=1, judged="found"),
        record("CS", "cs", 1, 0.3, 93.0, index=0, judged="found"),
        record("CS", "cs", 2, 0.3, 93.0, index=0, judged="found"),  # has no history
        record("ISS", "iss", 0, 0.1, 80.0, index=0, judged="found"),
    ]
    gaps = gap_table(HISTORIES, records).set_index(["method", "round"])
    assert gaps["n"].tolist() == [2, 1, 1]
    assert gaps["gap"].tolist() == [-1.0, 1.0, 30.0]
    assert gaps.loc[("CS", 1), ["density", "gated", "ticket"]].tolist() == [0.35, 94.5, 93.5]
    assert gaps.loc[("CS", 1), ["low", "high"]].tolist() == [-1.0, -1.0]


def test_without_validation_images_there_is_no_gap() -> None:
    assert gap_table({("CS", 0): [epoch(0, 0.5, [1, 1, 1, 1])]}, []).empty


def test_the_words_for_it() -> None:
    gates = gate_table({name: HISTORIES[name] for name in (("CS", 0), ("ISS", 0))})
    shares, density = (figure(gates).get_label() for figure in (gates_figure, gate_density_figure))
    assert "CS: 100 % of the gates in the outermost bins; ISS: 30 %" in shares
    assert "CS 50 % after epoch 1 to 20 % after epoch 3" in density


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


def test_when_masks_settle() -> None:
    means = convergence_means(convergence_table(OVERLAPS)).set_index("tickets")
    assert means.loc["BiP", "first"] == pytest.approx(0.6)
    assert means.loc["BiP", "settled"] == 4  # of the slower seed
    assert means.loc["BiP, mask frozen", "settled"] == 1
    assert means.loc["BiP, as released", "settled"] != means.loc["BiP, as released", "settled"]


def test_one_line_a_seed_and_equal_masks_at_the_top() -> None:
    (ax,) = convergence_figure(convergence_table(OVERLAPS)).axes
    lines = [(str(line.get_gid()), list(line.get_ydata())) for line in ax.lines]
    assert [name for name, _ in lines] == ["BiP", "BiP", "BiP, mask frozen", "BiP, as released"]
    assert lines[2][1] == [99.9] * 4
    assert max(ax.get_ylim()) == pytest.approx(99.9)


def test_when_masks_settle_in_words() -> None:
    words = convergence_figure(convergence_table(OVERLAPS)).get_label()
    assert "BiP 0.60 after the first epoch, 0.95 half-way, 0.998 at the end" in words
