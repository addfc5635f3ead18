"""How many times faster than the reference: a table of a benchmark's rows, and its figure."""

from __future__ import annotations

import math
from typing import Any

import pytest

from companion.figures.benchmarks import (
    MET,
    NO_TARGET,
    NOT_MET,
    benchmark_figure,
    benchmark_ratios,
    benchmark_table,
)


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
