"""Small notebooks, made on the spot."""

from __future__ import annotations

import json
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]

PARAMETERS = 'dataset: str = "digits"\nseeds = [0, 1, 2]\nartefacts: str = None\n'
DECLARE = """\
from companion.publish.artefacts import Artefacts
from companion.publish.parameters import choice, declare, some
from lthlib.settings import Seed

P = declare(
    globals(), dataset=choice("digits", "cifar10"), seeds=some(Seed), artefacts=str | None
)
made = Artefacts.of("curve", P)
"""
TIDY = """\
import pandas as pd

rows = pd.DataFrame(
    {
        "scale": "embedded",
        "seed": list(P.seeds) * 2,
        "device": "cpu",
        "finished": "2026-11-21T10:00:00",
        "commit": "0123456789abcdef",
        "dirty": False,
        "own_seconds": 1.5,
        "run": [f"run{seed}" for seed in P.seeds] * 2,
        "status": "ok",
        "density": [0.1] * len(P.seeds) + [0.5] * len(P.seeds),
        "test_accuracy": [97.0 + 0.1 * i for i in range(2 * len(P.seeds))],
    }
)
"""
FIGURE = """\
from matplotlib import pyplot as plt

fig, ax = plt.subplots(figsize=(5, 3))
ax.plot(100 * rows["density"], rows["test_accuracy"], "o")
ax.set(xlabel="density (%)", ylabel="test accuracy (%)")
made.figure(fig, "curve", rows, title="Accuracy against density.", alt="Six dots, rising.")
"""
TABLE = """\
summary = rows.groupby("density", as_index=False)["test_accuracy"].mean()
made.table(summary, "means", title="Mean accuracy.", rows=rows, formats={"density": ".2f"})
print(P.dataset)
"""


def notebook(*sources: str, tagged: tuple[int, ...] = (0,)) -> dict:
    """A stripped notebook of code cells, those in `tagged` being parameters, and folded."""
    cells = [
        {
            "cell_type": "code",
            "id": f"cell-{n}",
            "metadata": {"tags": ["parameters", "hide-input"]} if n in tagged else {},
            "execution_count": None,
            "outputs": [],
            "source": source,
        }
        for n, source in enumerate(sources)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": metadata, "cells": cells}


def write_notebook(path: Path, *sources: str, tagged: tuple[int, ...] = (0,)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook(*sources, tagged=tagged)))
    return path
