"""What pages quote of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from companion.publish.source import quoting
from lthlib.errors import PublishError
from lthlib.files import sealed

ROWS = [
    {"name": "speed", "ours": 3.14159, "reference": 1234.5, "unit": "ms", "note": "by hand"},
    {"name": "imp: runs", "ours": 628, "unit": "", "note": ""},
    {"name": "imp: on 8", "ours": 7.4312, "unit": "h", "note": ""},
    {"name": "cs: on 8", "ours": 0.5, "unit": "h", "note": ""},
    {"name": "net, dense: 1 image", "ours": 4.0, "ratio": 1.0, "unit": "ms", "note": "3 to 5"},
    {"name": "net, cut: 1 image", "ours": 1.25, "ratio": 3.2, "unit": "ms", "note": "1 to 2"},
    {"name": "load", "ours": 99.6091, "unit": "%", "note": ""},
    {"name": "cs: runs", "ours": 4.0, "unit": "", "note": ""},
]
MACHINE = {"processor": "a processor", "cores": 2, "device": "cpu", "torch": "2.13.0"}


@pytest.fixture
def quote(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "results" / "bench"
    folder.mkdir(parents=True)
    for date, rows in (("2026-01-01", []), ("2026-02-01", ROWS)):
        report = {"started": f"{date}T10:00:00+00:00", "machine": MACHINE, "rows": rows}
        (folder / f"{date}-cluster.json").write_bytes(sealed(report) + b"\n")
    return quoting(tmp_path)


def test_the_newest_report_is_quoted_and_rounded(quote: dict[str, Any]) -> None:
    assert quote["bench"]("cluster", "speed") == "3.14"
    assert quote["bench"]("cluster", "speed", "reference") == "1,234"
    assert quote["bench"]("cluster", "speed", "note") == "by hand"
    assert quote["bench"]("cluster", "load") == "99.6"
    assert quote["bench"]("cluster", "imp: runs") == "628"
    assert quote["bench_made"]("cluster").startswith("a processor, 2 cores · device: cpu · date")


def test_rows_of_a_group_are_a_line_of_a_table(quote: dict[str, Any]) -> None:
    head, _, imp, cs = quote["bench_table"]("cluster", "imp", "cs").splitlines()
    assert head.replace(" ", "") == "||runs|on8,h|"
    assert imp.replace(" ", "") == "|imp|628|7.43|"
    assert cs.replace(" ", "") == "|cs|4|0.5|"


def test_latencies_of_a_network_stand_beside_their_intervals(quote: dict[str, Any]) -> None:
    head, _, dense, cut = quote["bench_latencies"]("cluster", "net").splitlines()
    assert head.replace(" ", "") == "||1image,ms|1image,timesasfast|"
    assert dense == "| dense | 4 (3 to 5) | 1.00 |"
    assert cut == "| cut | 1.25 (1 to 2) | 3.20 |"
    with pytest.raises(PublishError, match="no network 'other'"):
        quote["bench_latencies"]("cluster", "other")


def test_unknown_rows_and_reports_stop_the_build(quote: dict[str, Any]) -> None:
    with pytest.raises(PublishError, match="no row 'pace'; known: speed, imp: runs"):
        quote["bench"]("cluster", "pace")
    with pytest.raises(PublishError, match="no results/bench/DATE-moon"):
        quote["bench_made"]("moon")


def test_targets_are_counted_and_those_that_are_not_met_are_named(tmp_path: Path) -> None:
    assert not quoting(tmp_path)["has_bench"]("cpu")
    assert quoting(tmp_path)["bench_targets"]("cpu") == "nothing has been measured"
    folder = tmp_path / "results" / "bench"
    folder.mkdir(parents=True)
    outcomes = {"a": True, "b": None, "c": False, "d": True}
    rows = [{"name": name, "met": met} for name, met in outcomes.items()]
    (folder / "2026-01-01-cpu.json").write_bytes(sealed({"rows": rows}) + b"\n")
    quote = quoting(tmp_path)
    assert quote["has_bench"]("cpu")
    assert quote["bench_targets"]("cpu") == "2 of 3 targets are met; not met: c"
