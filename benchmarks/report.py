"""What was measured, as one table on the terminal and as JSON under results/bench/."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.other import ROOT
from benchmarks.timing import Row
from lthlib.files import sealed, write_atomically

COLUMNS = "{:<{}} {:>9} {:>9} {:<7} {:>6}  {:<11} {:<7} {}"


def report(rows: Iterable[Row], part: str, output: Path | None, device: str = "cpu") -> None:
    """Measure, print the table, and write what was found and on which machine.

    Args:
        rows: measured while they are asked for.
        part: the file is results/bench/DATE-PART.json,
        output: unless it is said.
        device: that was measured.
    """
    started, load = _now(), _load()
    found = [*rows]
    machine = _machine(device) | {"load average, before and after": [load, _load()]}
    content = {"started": started, "finished": _now(), "machine": machine, "rows": found}
    path = output or ROOT / f"results/bench/{started[:10]}-{part}.json"
    write_atomically(path, sealed({"schema": 1, **content}, indent=1) + b"\n")
    print(*(f"{name}: {value}" for name, value in machine.items()), "", *_table(found), sep="\n")
    print(f"\nwritten to {path}")


def _table(rows: list[Row]) -> Iterator[str]:
    width = max(len(line["name"]) for line in rows)
    yield COLUMNS.format("", width, "reference", "ours", "", "ratio", "target", "", "")
    for line in rows:
        numbers = ("reference", ".4g"), ("ours", ".4g"), ("ratio", ".2f")
        shown = {key: "" if line[key] is None else format(line[key], how) for key, how in numbers}
        met = {True: "met", False: "not met", None: ""}[line["met"]]
        values = line | shown | {"met": met}
        order = ("reference", "ours", "unit", "ratio", "target", "met", "note")
        yield COLUMNS.format(line["name"], width, *(values[key] for key in order)).rstrip()


def _machine(device: str) -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
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
