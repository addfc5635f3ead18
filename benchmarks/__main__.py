"""Measure, print one table, and write it as JSON under results/bench/."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.other import digits_rows, peak, start_up_row, top_k_row
from benchmarks.reference import WORKERS
from benchmarks.report import report
from benchmarks.steps import (
    Case,
    against_reference,
    agreement_rows,
    alternation_rows,
    epoch_rows,
    images,
    many_rows,
    memory_on_device,
)
from benchmarks.timing import Row, row
from lthlib.models import ModelSettings

PARTS = ("agreement", "memory", "startup", "topk", "steps", "epochs", "bip", "many")
WIDTHS = {"resnet20": 16, "resnet18": 64, "vgg16": 64}
# Of each network: how many times faster than the reference a step is to be, 0 for no target.
AIMS: dict[str, dict[str, dict[tuple[str, str], float]]] = {
    "cpu": {
        "resnet20": {
            ("dense", "fp32"): 1.5,
            ("dense", "bf16"): 2.5,
            ("imp", "bf16"): 0,
            ("cs", "fp32"): 0,
            ("cs", "bf16"): 2.0,
            ("bip", "fp32"): 0,
            ("bip", "bf16"): 4.0,
        },
        "resnet18": {("dense", "bf16"): 2.0},
        "vgg16": {("dense", "bf16"): 0, ("cs", "bf16"): 0},
    },
    "cuda": {
        "resnet20": {
            ("dense", "fp32"): 0,
            ("dense", "tf32"): 0,
            ("dense", "bf16"): 10.0,
            ("imp", "bf16"): 0,
            ("cs", "bf16"): 8.0,
            ("bip", "bf16"): 8.0,
        },
        "resnet18": {("dense", "bf16"): 4.0, ("cs", "bf16"): 0, ("bip", "bf16"): 8.0},
        "vgg16": {("dense", "bf16"): 0, ("cs", "bf16"): 0},
    },
}
TINY = {key: {"resnet20": {("dense", "fp32"): 0.0, ("cs", "bf16"): 0.0}} for key in AIMS}
# On a CPU, batch sizes of ResNet-18: dense steps an alternation may take, times it is to be faster.
ALTERNATIONS = {32: (2.6, 6.0), 128: (2.6, 4.5)}


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
    report(_measured(options), options.device, options.output, options.device)


def _measured(options: argparse.Namespace) -> Iterator[Row]:
    for part in (part for part in PARTS if part in options.only):
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        yield from _rows(part, options)


def _rows(part: str, options: argparse.Namespace) -> Iterator[Row]:
    if part == "memory":
        yield from digits_rows("full" if options.full else "tiny" if options.tiny else "short")
    elif part == "startup":
        yield start_up_row()
    elif part == "topk":
        for size in (1_000,) if options.tiny else (270_000, 11_000_000, 25_000_000):
            yield top_k_row(size, 3, options.device)
    else:
        yield from _training(part, options)


def _training(part: str, options: argparse.Namespace) -> Iterator[Row]:
    tiny, on_gpu = options.tiny, options.device != "cpu"
    cores = 1 if on_gpu else os.cpu_count() or 1
    small = _case("resnet20", 128, options, cores)
    if part == "agreement" and on_gpu:
        yield from agreement_rows(small)
    elif part == "epochs":
        if on_gpu or tiny:
            yield from epoch_rows(small, 2 if tiny else 5, 3 if tiny else 1 << 20)
    elif part == "many":
        counts = (1, 2, 4, 8) if on_gpu else (2,) if tiny else (1, 2)
        yield from many_rows(small, counts, 2 if tiny else 4, 1 if tiny else 50 if on_gpu else 4)
    elif part == "bip" and not on_gpu:
        for size, (dense, times) in {8: (0.0, 0.0)}.items() if tiny else ALTERNATIONS.items():
            case = _case("resnet18", size, options, cores)
            yield from alternation_rows(case, dense, times, 2 if tiny else 3)
    elif part == "steps":
        yield from _steps(options, cores, on_gpu)


def _steps(options: argparse.Namespace, cores: int, on_gpu: bool) -> Iterator[Row]:
    tiny = options.tiny
    print(f"{images()[1]}; {WORKERS} loader workers in the reference")
    torch.set_num_threads(cores)
    precisions = ("fp32", "tf32", "bf16") if on_gpu else ("fp32", "bf16")
    size = 64 if tiny else 8192 if on_gpu else 2048
    peaks = {p: peak(options.device, p, size) for p in precisions}
    for precision, value in peaks.items():
        yield row(f"product of {size} x {size} matrices, {precision}", value / 1e9, "GF/s")
    for name, aims in (TINY if tiny else AIMS)["cuda" if on_gpu else "cpu"].items():
        units = 1 if tiny else 60 if on_gpu else 4 if name == "resnet20" else 1
        rounds = 2 if tiny or name != "resnet20" else 5
        case = _case(name, 128, options, cores)
        yield from against_reference(case, aims, peaks, rounds, units)
        if on_gpu:
            yield memory_on_device(case)
        elif name == "resnet20" and cores > 1 and not tiny:
            one = {key: 0.0 for key in aims if key[0] == "dense"}
            yield from against_reference(replace(case, threads=1), one, peaks, rounds, units)


def _case(name: str, batch_size: int, options: argparse.Namespace, threads: int) -> Case:
    if options.tiny:
        name, batch_size = "resnet8", 8
    model = ModelSettings(name, 2 if options.tiny else WIDTHS[name])
    return Case(model, batch_size, options.device, threads)


if __name__ == "__main__":
    main()
