"""Selection of the largest scores, start-up of `lth`, and peak memory of a sweep."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch

from benchmarks.timing import Contestant, Row, compared, row, take_turns
from companion.studies import ticket_study
from lthlib.masks import top_k
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, Store, execute_many

ROOT = Path(__file__).parents[1]
JOBS = 2
HELP = (
    "import atexit, sys; sys.argv = ['lth', '--help']; "
    "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); "
    "from lthlib.cli import main; main()"
)


def top_k_row(size: int, rounds: int, device: str) -> Row:
    """`top_k` of a tenth of the scores against `torch.sort` of them all."""
    scores = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device)

    def repeated(call: Callable[[], object]) -> Contestant:
        def run(n: int) -> float:
            found = float(sum(call() is None for _ in range(n)))
            _finish(device)
            return found

        return Contestant(run, threads=os.cpu_count() or 1)

    sort, ours = repeated(lambda: torch.sort(scores)), repeated(lambda: top_k(scores, size // 10))
    take_turns([sort, ours], rounds)
    target = 15 if size == 25_000_000 else 0
    return compared(f"top-k of {size / 1e6:g} million scores, to torch.sort", sort, ours, target)


def peak(device: str, precision: str, size: int) -> float:
    """Operations a second of the product of two square matrices of this size; threads as set."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=device).to(dtype)

    def run(n: int) -> float:
        for _ in range(n):
            a @ a
        _finish(device)
        return 0.0

    found = Contestant(run, units=4, threads=torch.get_num_threads())
    take_turns([found], rounds=5)
    return 2 * size**3 / (min(found.milliseconds) / 1000)


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def start_up_row(times: int = 5) -> Row:
    """Seconds that `lth --help` takes, the interpreter's start included."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        command = [sys.executable, "-c", HELP]
        out, err = subprocess.DEVNULL, subprocess.PIPE
        done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=err, check=True)
        seconds.append(time.perf_counter() - start)
    imported = done.stderr.split()[-1] == b"True"
    note = f"torch {'IS' if imported else 'is not'} imported; median of {times}"
    met = median(seconds) < 1 and not imported
    return row("lth --help", median(seconds), "s", target="< 1 s", met=met, note=note)


def digits_rows(size: str) -> Iterator[Row]:
    """Time and peak resident memory of a sweep of `digits` in fresh processes; see `sweep`."""
    command = [sys.executable, "-m", "benchmarks.other", size]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    runs, seconds, main, worker = json.loads(done.stdout.splitlines()[-1])
    gib = (main + JOBS * worker) / 2**30
    each = f"main {main / 2**20:.0f} MiB + {JOBS} x largest worker {worker / 2**20:.0f} MiB"
    aim = {"target": "< 2 GiB", "met": gib < 2, "note": f"{size}, {runs} runs: {each}"}
    yield row("peak memory of the digits study", gib, "GiB", **aim)
    if size == "full":
        aim = {"target": "<= 300 s", "met": seconds <= 300, "note": f"{runs} runs, {JOBS} at once"}
        yield row("the digits study", seconds, "s", **aim)


def sweep(size: str) -> tuple[int, float, int, int]:
    """Sweep the study `full`, `short` (a seed of each method, 40 steps) or `tiny` (dense alone).

    Returns the number of runs, seconds, and peak bytes of this process and of its largest worker.
    """
    recipe = load_recipe("digits")
    if size == "full":
        study = ticket_study(recipe)
    else:
        methods = ("imp", "cs", "bip", "omp", "random") if size == "short" else ()
        recipe = recipe.with_(training={"length": "40it"})
        study = ticket_study(recipe, methods=methods, densities=[0.1], seeds=1, dense_seeds=2)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        swept = execute_many(study.configs, Store(folder), Machine("cpu"), jobs=JOBS)
    if swept.failed or swept.unfinished:
        raise RuntimeError(f"{swept.unfinished} runs unfinished, failed: {swept.failed}")
    unit = 1 if sys.platform == "darwin" else 1024
    of = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    main, worker = (resource.getrusage(who).ru_maxrss * unit for who in of)
    return len(study.configs), time.perf_counter() - started, main, worker


if __name__ == "__main__":
    print(json.dumps(sweep(sys.argv[1])))
