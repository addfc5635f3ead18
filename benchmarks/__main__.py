"""Measure, print one table, and write it as JSON under results/bench/."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.other import ROOT, memory_row, start_up_row, top_k_row
from benchmarks.reference import WORKERS
from benchmarks.steps import Steps, images
from benchmarks.timing import Row
from lthlib.files import write_atomically
from lthlib.models import ModelSettings

PARTS = ("memory", "startup", "topk", "steps", "bip")
# Network, batch size; dense steps that an alternation may take, and times it is to be faster.
ALTERNATIONS = (
    ("resnet20", 16, 128, 2.3, 4.0),
    ("resnet18", 64, 32, 2.6, 6.0),
    ("resnet18", 64, 128, 2.6, 4.5),
)
COLUMNS = "{:<46} {:>9} {:>9} {:<4} {:>6}  {:<11} {:<7} {}"


def main() -> None:
    """Run the parts that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="measure these parts alone")
    add("--full", action="store_true", help="memory: sweep the whole digits study (minutes)")
    add("--tiny", action="store_true", help="a small network and few turns, to see that it runs")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--output", type=Path, help="file to write; default results/bench/DATE-DEVICE.json")
    options = parser.parse_args()
    started, load = _now(), [_load()]
    rows: list[Row] = []
    for part in (part for part in PARTS if part in options.only):
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        rows += _rows(part, options)
    machine = _machine(options.device) | {"load average, before and after": [*load, _load()]}
    report = {"started": started, "finished": _now(), "machine": machine, "rows": rows}
    path = options.output or ROOT / f"results/bench/{started[:10]}-{options.device}.json"
    write_atomically(path, (json.dumps({"schema": 1, **report}, indent=1) + "\n").encode())
    print(*(f"{name}: {value}" for name, value in machine.items()), "", *_table(rows), sep="\n")
    print(f"\nwritten to {path}")


def _rows(part: str, options: argparse.Namespace) -> Iterator[Row]:
    if part == "memory":
        yield memory_row("full" if options.full else "tiny" if options.tiny else "short")
    elif part == "startup":
        yield start_up_row()
    elif part == "topk":
        for size in (1_000,) if options.tiny else (270_000, 11_000_000, 25_000_000):
            yield top_k_row(size, rounds=3)
    elif part == "bip":
        dataset, source = images()
        cases = (("resnet8", 2, 8, 2.3, 4.0),) if options.tiny else ALTERNATIONS
        for name, width, batch_size, dense, reference in cases:
            extent = (batch_size, 2, 1) if options.tiny else (batch_size, 3, 1)
            steps = Steps(
                dataset, torch.device(options.device), ModelSettings(name, width), *extent
            )
            yield from steps.alternations(dense, reference)
    else:
        dataset, source = images()
        model = ModelSettings("resnet8", 2) if options.tiny else ModelSettings("resnet20", 16)
        extent = (8, 2, 1) if options.tiny else (128, 5, 4)
        print(f"batch {extent[0]}, {source}; {WORKERS} loader workers in the reference")
        yield from Steps(dataset, torch.device(options.device), model, *extent).rows()


def _machine(device: str) -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = cpu.partition("model name")[2].partition("\n")[0].strip("\t :") or platform.processor()
    return {
        "device": torch.cuda.get_device_name(device) if device != "cpu" else device,
        "processor": named or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _table(rows: list[Row]) -> Iterator[str]:
    yield COLUMNS.format("", "reference", "ours", "", "ratio", "target", "", "")
    for row in rows:
        numbers = ("reference", ".4g"), ("ours", ".4g"), ("ratio", ".2f")
        shown = {key: "" if row[key] is None else format(row[key], how) for key, how in numbers}
        met = {True: "met", False: "not met", None: ""}[row["met"]]
        values = row | shown | {"met": met}
        order = ("name", "reference", "ours", "unit", "ratio", "target", "met", "note")
        yield COLUMNS.format(*(values[key] for key in order)).rstrip()


if __name__ == "__main__":
    main()
