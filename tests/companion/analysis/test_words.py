"""Numbers and tables in words."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from companion.analysis.words import (
    described_curves,
    described_panels,
    described_rows,
    duration,
    in_brackets,
    in_percent,
    short,
)

TABLE = pd.DataFrame(
    {
        "curve": ["CS", "CS", "CS", "IMP"],
        "density": [0.5, 0.2, 0.05, 1.0],
        "gap": [0.25, -1.0, -3.0, 0.0],
        "cost": [12_345.0, 900.0, 5e9, 1.0],
    }
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (11100, "3 h 05 min"),
        (259_000, "71 h 56 min"),
        (259_200, "3.0 days"),
        (1_080_000, "12.5 days"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (in_percent(1.0), "100 %"),
        (in_percent(0.0995), "10 %"),
        (in_percent(0.0523), "5.2 %"),
        (short(12_500_000), "12.5 M"),
        (short(830), "830"),
        (in_brackets(0.31, 0.1, 0.52, "+.1f"), "+0.3 [0.1, 0.5]"),
        (in_brackets(0.31, math.nan, math.nan, "+.1f"), "+0.3"),
        (in_brackets(math.nan, math.nan, math.nan, ".1f"), "–"),
    ],
)
def test_numbers(said: str, words: str) -> None:
    assert said == words


def test_rows() -> None:
    text = described_rows("Gaps", TABLE.tail(2), "{curve} {gap:+.1f} for {cost!k} at {density!p}")
    assert text == "Gaps: CS -3.0 for 5 G at 5 %; IMP +0.0 for 1 at 100 %."


def test_curves_are_told_by_their_two_ends_and_a_single_point_once() -> None:
    text = described_curves("Gaps", TABLE, "{gap:+.1f} at {density!p}")
    assert text == "Gaps: CS +0.2 at 50 % to -3.0 at 5 %; IMP +0.0 at 100 %."


def test_panels_are_told_row_by_row() -> None:
    text = described_panels("Gaps", TABLE, "{gap:+.0f}", "curve", "{curve}: ", " and ")
    assert text == "Gaps: CS: +0 and -1 and -3; IMP: +0."


def test_braces_in_a_name_are_text() -> None:
    odd = pd.DataFrame({"curve": ["{gap} $x$"], "gap": [1.0]})
    assert described_rows("Odd", odd, "{curve} {gap:.0f}") == "Odd: {gap} $x$ 1."
