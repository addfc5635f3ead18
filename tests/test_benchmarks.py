"""The benchmarks run on a tiny setting and write what they promise; no time is asserted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import timing
from benchmarks.report import report
from benchmarks.tickets import unfolded
from companion.published import read_published

ROOT = Path(__file__).parents[1]
FIELDS = {"name", "reference", "ours", "unit", "ratio", "target", "met", "note"}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    path = tmp_path_factory.mktemp("bench") / "tiny.json"
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--device", "cpu", "--output", path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, read_published(path, "nothing")


def test_every_part_is_measured(measured):
    names = " ".join(row["name"] for row in measured[1]["rows"])
    for part in (
        "peak memory",
        "lth --help",
        "top-k",
        "product of 64 x 64 matrices",
        "dense step, fp32, batch 8",
        "CS step, bf16, batch 8",
        "BiP step, bf16, batch 8",
        "BiP step, batch 8, in dense steps",
        "state BiP adds",
        "runs at once, processes, K = 2",
        "dense epoch of 45,000 images, bf16, batch 8",
        "CS epoch of 45,000 images, bf16, batch 8",
        "BiP epoch of 45,000 images, bf16, batch 8",
        "runs at once, vmap, K = 2",
    ):
        assert part in names


def test_a_row_has_its_fields_and_a_ratio_where_there_is_a_reference(measured):
    for row in measured[1]["rows"]:
        assert set(row) == FIELDS
        assert row["ours"] > 0
        assert (row["ratio"] is None) == (row["reference"] is None)
        assert (row["met"] is None) == (row["target"] == "")


def test_the_report_describes_the_machine_and_the_table_shows_every_row(measured):
    table, report = measured
    assert report["schema"] == 1 and report["started"] <= report["finished"]
    assert {"device", "processor", "cores", "torch", "python"} < set(report["machine"])
    assert all(row["name"] in table for row in report["rows"])


def test_every_program_reports_what_it_was_asked_for_and_where(tmp_path, capsys):
    rows = (timing.row(name, 2.0, "ms", 3.0, note="a note") for name in ("one", "a longer name"))
    report(rows, "tickets", tmp_path / "x.json")
    said = capsys.readouterr().out
    assert f"written to {tmp_path / 'x.json'}" in said and "device: cpu" in said
    lines = [line for line in said.splitlines() if line.endswith("a note")]
    assert [line[:13].strip() for line in lines] == ["one", "a longer name"]
    assert lines[0][13:] == lines[1][13:] and "1.50" in lines[0]
    assert [one["ratio"] for one in read_published(tmp_path / "x.json", "")["rows"]] == [1.5, 1.5]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_an_unfolded_convolution_is_one():
    images, kernels = torch.randn(2, 3, 5, 4), torch.randn(6, 3, 3, 3)
    found = unfolded(kernels.flatten(1).to_sparse_csr(), images)
    torch.testing.assert_close(found, F.conv2d(images, kernels, padding=1), rtol=1e-4, atol=1e-4)
