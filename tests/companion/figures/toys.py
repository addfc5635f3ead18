"""Records of a small study, made up: what figures need of them and no more."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from companion.analysis.points import ticket_table

COSTS = ("epochs", "images", "forward_passes", "backward_passes", "flops", "seconds")
LAYERS = {"stem.weight": 100, "stage1.0.conv1.weight": 400, "linear.weight": 500}
Record = dict[str, Any]


def config(method: str, seed: int, parent: Record | None = None, **settings: Any) -> Record:
    return {
        "data": {"dataset": "digits", "split_seed": 0},
        "model": {"architecture": "resnet8"},
        "training": {"length": "20it"},
        "method": method,
        "settings": settings,
        "seed": seed,
        "threads": 1,
        "parent": parent,
    }


def record(
    label: str,
    method: str,
    seed: int,
    density: float,
    test: float | None,
    /,
    *,
    index: int = 0,
    own: float = 10.0,
    before: float = 0.0,
    parent: str | None = None,
    judged: str = "retrained",
    source: Record | None = None,
    emptied: tuple[str, ...] = (),
    **settings: Any,
) -> Record:
    """One judged ticket, or a failed run where `test` is None. own, before: cost of any kind.
    emptied: layers that keep no weight."""
    ok = test is not None
    kept = {name: 0 if name in emptied else round(density * n) for name, n in LAYERS.items()}
    return {
        "study": "toy",
        "scale": "embedded",
        "label": label,
        "run": f"{label}-{seed}-{sorted(settings.items())}",
        "parent": parent,
        "config": config(method, seed, source, **settings),
        "method": method,
        "seed": seed,
        "ticket": {"index": index, "target_density": settings.get("density")} if ok else None,
        "judged": judged,
        "status": "ok" if ok else "failed",
        "failure": None if ok else "loss became NaN at step 3",
        "density": density if ok else None,
        "layers": {name: [kept[name], n] for name, n in LAYERS.items()} if ok else None,
        "accuracy": {"validation": test, "test": test},
        "cost": {
            "own": dict.fromkeys(COSTS, own if ok else 0.0),
            "cumulative": dict.fromkeys(COSTS, own + before if ok else 0.0),
        },
        "provenance": {
            "device": "cpu",
            "device_name": "a processor",
            "commit": "0123456789",
            "dirty": False,
            "started": "2026-11-21T10:00:00",
            "finished": "2026-11-21T10:01:00",
        },
    }


def study(seeds: int = 3) -> list[Record]:
    """Two densities of dense, IMP, BiP and its unclipped variant, CS as found and retrained."""
    records = []
    for seed in range(seeds):
        dense = record("dense", "dense", seed, 1.0, 98.0 + 0.1 * seed, judged="found")
        base = {"config": dense["config"], "point": "dense"}
        rests = {"parent": dense["run"], "before": 10.0, "source": base}
        records.append(dense)
        for index, density in enumerate((0.5, 0.25), start=1):
            own = 10.0 * (index + 1)
            records.append(
                record("IMP", "imp", seed, density, 98 - index + 0.2 * seed, index=index, own=own)
            )
        for density, test in ((0.5, 97.0), (0.25, 96.0)):
            given = {"density": density, "judged": "found", "own": 20.0}
            records.append(record("BiP", "bip", seed, density, test + 0.3 * seed, **rests, **given))
            records.append(
                record("BiP, unclipped", "bip", seed, density, 50.0, clip=0.0, **rests, **given)
            )
        for penalty, density in ((1e-4, 0.52 + 0.01 * seed), (1e-3, 0.24 + 0.01 * seed)):
            found = record("CS", "cs", seed, density, 95.0, judged="found", penalty=penalty)
            search = {"config": found["config"], "point": "round-0"}
            again = {"parent": found["run"], "before": 10.0, "source": search}
            records += [found, record("CS", "retrain", seed, density, 97.0, **again)]
            records[-1]["run"] += f"-{penalty}"
    return records


def table(seeds: int = 3) -> pd.DataFrame:
    return ticket_table(study(seeds))


def searches(seeds: int = 3, gates: tuple[float, ...] = (0.0, -0.1)) -> list[Record]:
    """Dense (10 units of any cost), IMP with three rounds, CS with two rounds and two s0, each
    ticket of CS as found and retrained; a round and a retraining take 10 units, or 8 in IMP."""
    records = []
    for seed in range(seeds):
        records.append(record("dense", "dense", seed, 1.0, 98.0 + 0.1 * seed, judged="found"))
        for index, density in enumerate((0.8, 0.64, 0.512), start=1):
            test = 98.5 - index + 0.1 * seed
            own = 10.0 + 8.0 * index
            records.append(record("IMP", "imp", seed, density, test, index=index, own=own))
        for gate in gates:
            for index in (0, 1):
                density = (0.6 + 2 * gate) * 0.7**index + 0.01 * seed
                found = record(
                    *("CS, as found", "cs", seed, density, 95.0 - index),
                    **{"index": index, "own": 10.0 * (index + 1), "judged": "found"},
                    initial_gate=gate,
                )
                search = {"config": found["config"], "point": f"round-{index}"}
                again = record(
                    *("CS", "retrain", seed, density, 97.5 - index + 0.1 * seed),
                    **{"index": index, "own": 8.0, "before": 10.0 * (index + 1)},
                    **{"parent": found["run"], "source": search},
                )
                again["run"] = f"{found['run']}-{index}"
                records += [found, again]
    return records


def bands(ax: Axes) -> int:
    """How many shaded areas a reader sees in a panel."""
    areas = [area for area in ax.collections if isinstance(area, PolyCollection)]
    return sum(any(len(path.vertices) for path in area.get_paths()) for area in areas)
