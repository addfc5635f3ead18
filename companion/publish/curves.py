"""What pages may say about studies and their curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.analysis.head import differences, outcome
from companion.analysis.points import curve_points, pruned
from companion.analysis.precision import (
    margin,
    precision_differences,
    precision_outcome,
    precision_table,
)
from companion.analysis.words import in_brackets
from companion.evidence.statistics import compare, mean_interval, on_grid, sparsest_on_validation
from companion.markdown import Markdown, table
from companion.publish.artefacts import made_by
from companion.publish.normal import Beside, beside
from lthlib.errors import ConfigError, PublishError, refusal
from lthlib.recipes import load_recipe

_JOIN = "\N{NARROW NO-BREAK SPACE}"
_NEAR = 0.15  # relative


class Curves:
    """Records, and the table that `ticket_table` makes of them, asked by study, label and density.

    A label is as figures show it: `BiP`, `CS`, `CS, as found`, `OMP, compute-matched`, `dense`. Of
    a density, a kept fraction in (0, 1], the nearest point of the curve answers, if it lies within
    `tolerance`, relative. A key that no record has is a PublishError, whose message lists those
    there are.
    """

    def __init__(self, records: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> None:
        self._records, self._table = records, table

    def has_study(self, study: str) -> bool:
        """Whether there are records of a study: `[% if has_study("cifar10-reduced") %]`."""
        return bool((self._table["study"] == study).any())

    def made(self, study: str) -> dict[str, Any]:
        """What made a study: `made("digits").commit`.

        Returns:
            `runs`, `tickets` and `failures`, how many; `duration`, the computing time of its runs
            one after the other; `machine`, the devices; `command`, which computes it again; `cost`,
            such as `136 runs, 4.1 million images forward and backward, 6 min 02 s`; `scale`,
            `seeds`, `date`, `commit`.
        """
        rows = self._of(study)
        runs = rows.drop_duplicates("run", keep="last")
        images = runs["own_backward_passes"].sum()
        amount = f"{images / 1e6:.1f} million" if images >= 1e5 else f"{images:,.0f}"
        machines = set(zip(rows["device_name"], rows["device"], strict=True))
        facts = made_by(rows)
        return {
            **facts,
            "tickets": int((rows["status"] == "ok").sum()),
            "failures": int((runs["status"] == "failed").sum()),
            "machine": ", ".join(sorted(f"{name} ({device})" for name, device in machines)),
            "command": f"lth sweep {study}",
            "cost": f"{len(runs)} runs, {amount} images forward and backward, {facts['duration']}",
        }

    def studies(self) -> list[str]:
        """The names of the studies there are records of."""
        return sorted(set(self._table["study"]))

    def accuracy(self, study: str, label: str, density: float, tolerance: float = _NEAR) -> str:
        """Test accuracy in percent, mean ± half the 95 % t-interval from three seeds on.

        `accuracy("digits", "BiP", 0.05)` -> `96.8 ± 0.9`
        """
        return _with_interval(self._at(study, label, density, tolerance)["test_accuracy"])

    def dense_accuracy(self, study: str) -> str:
        """Test accuracy of the dense network, as `accuracy`: `98.3 ± 0.2`."""
        return _with_interval(self._ok(study, "dense")["test_accuracy"])

    def density(self, study: str, label: str, density: float, tolerance: float = _NEAR) -> str:
        """The mean density really reached, in percent: `density("digits", "CS", 0.05)` -> `5.2`."""
        return _significant(100 * self._at(study, label, density, tolerance)["density"].mean())

    def emptied(self, study: str, label: str, density: float) -> list[str]:
        """The layers in which no ticket keeps a weight: `emptied("digits", "OMP", 0.01)`."""
        rows = self._at(study, label, density)
        points = set(zip(rows["run"], rows["round"], strict=True))
        layers = [
            record["layers"]
            for record in self._records
            if record["status"] == "ok" and (record["run"], record["ticket"]["index"]) in points
        ]
        return [name for name in layers[0] if not any(counts[name][0] for counts in layers)]

    def difference(
        self, study: str, label: str, other: str, density: float, tolerance: float = _NEAR
    ) -> str:
        """Mean difference in points with its 95 % interval, paired by seed.

        `difference("digits", "IMP", "OMP", 0.05)` -> `+3.3 [2.1, 4.5]`

        Args:
            study: its name.
            label: of the curve that is ahead where the difference is positive.
            other: label of the other curve, or `dense`.
            density: a kept fraction in (0, 1].
            tolerance: how far from it a point may lie, relative.
        """
        ours = self._at(study, label, density, tolerance)
        dense = other == "dense"
        theirs = self._ok(study, other) if dense else self._at(study, other, density, tolerance)
        return _paired_difference(ours, theirs.groupby(["study", "seed"])["test_accuracy"].mean())

    def difference_table(
        self, study: str, label: str, others: Sequence[str] | None = None
    ) -> Markdown:
        """A Markdown table of what a curve is ahead of others by: a row each, a column a ratio.

        Points of test accuracy with their 95 % interval, paired by seed, at the curve's own
        densities; others are interpolated in log density, seed by seed, and a dash where they do
        not reach. What is dense counts at every density.
        `difference_table("digits", "BiP", ["IMP", "OMP"])`

        Args:
            study: its name.
            label: of the curve.
            others: labels of the others, default all curves but dense.
        """
        ours = self._ok(study, label)
        ours = ours.assign(pruned=pruned(ours))
        points = [point for _, point in ours.groupby("point")]
        points.sort(key=lambda point: float(point["pruned"].mean()))
        if others is None:
            others = [curve for curve in self._curves(study) if curve not in (label, "dense")]
        curves = {curve: self._ok(study, curve) for curve in others}
        rows = [
            [curve, *(_difference_to(theirs, point) for point in points)]
            for curve, theirs in curves.items()
        ]
        heads = [f"{point['pruned'].mean():.3g} % pruned" for point in points]
        return table([f"{label} less", *heads], rows)

    def best_sparse(self, study: str, label: str) -> str:
        """Density, in percent, of the sparsest ticket that matches dense, chosen on validation.

        Matching: validation accuracy no more than one standard deviation below the dense mean. The
        median over the seeds that have such a ticket; `none` where no seed has one.
        `best_sparse("digits", "CS")` -> `4.9`
        """
        dense = mean_interval(self._ok(study, "dense")["validation_accuracy"])
        target = dense.mean - (0.0 if math.isnan(dense.std) else dense.std)
        chosen = sparsest_on_validation(self._ok(study, label), target)
        return _significant(100 * chosen["density"].median()) if len(chosen) else "none"

    def n_seeds(self, study: str, label: str) -> int:
        """How many seeds a curve has: `n_seeds("digits", "dense")` -> `10`."""
        return int(self._ok(study, label)["seed"].nunique())

    def accuracy_table(self, study: str, densities: Iterable[float]) -> Markdown:
        """A Markdown table: a row a curve, a column a density, accuracies as `accuracy` gives them.

        Italics: interpolated seed by seed, in log density, where the curve has no point near but
        one on either side; a dash where it does not reach. `accuracy_table("digits", [0.2, 0.05])`
        """
        columns = list(densities)
        curves = [curve for curve in self._curves(study) if curve != "dense"]
        rows = [[curve, *_accuracies(self._ok(study, curve), columns)] for curve in curves]
        heads = [f"{_significant(100 * density)} %" for density in columns]
        return table(["tickets", *heads], rows)

    def precisions(self, study: str) -> Markdown:
        """Whether a study's precisions are interchangeable: `precisions("digits-precision")`.

        Raises:
            PublishError: no seed was trained in two precisions.
        """
        scale = str(self._of(study)["scale"].iloc[0])
        rows = precision_table(record for record in self._records if record["study"] == study)
        gaps = precision_differences(rows)
        if gaps.empty:
            raise PublishError(f"study {study!r} has no seed in two precisions")
        return precision_outcome(gaps, margin(scale))

    def head(self, study: str) -> str:
        """Which methods are told apart under one budget: `head("digits-head")`.

        They are compared at the densities of the study's recipe.

        Raises:
            PublishError: no recipe has the study's name.
        """
        with refusal(PublishError, f"study {study!r}", ConfigError):
            densities = load_recipe(study).values["study"]["densities"]
        return outcome(differences(self._of(study), densities))

    def compared(self, study: str, mine: str) -> Beside:
        """What `lth compare mine.jsonl study` says, of two studies there are records of."""
        theirs, ours = (
            [record for record in self._records if record["study"] == name]
            for name in (study, mine)
        )
        return beside(theirs, ours)

    def _of(self, study: str) -> pd.DataFrame:
        rows = self._table[self._table["study"] == study]
        if rows.empty:
            names = ", ".join(self.studies()) or "none"
            raise PublishError(f"no records of study {study!r}; known: {names}")
        return rows

    def _curves(self, study: str) -> list[str]:
        return list(dict.fromkeys(self._of(study)["curve"]))

    def _ok(self, study: str, label: str) -> pd.DataFrame:
        rows = self._of(study)
        chosen = rows[(rows["curve"] == label) & (rows["status"] == "ok")]
        if chosen.empty:
            curves = ", ".join(self._curves(study))
            raise PublishError(f"study {study!r} has no judged {label!r}; its curves: {curves}")
        return chosen

    def _at(self, study: str, label: str, density: float, tolerance: float = _NEAR) -> pd.DataFrame:
        rows = self._ok(study, label)
        near = _nearest(rows, density, tolerance)
        if near.empty:
            points = (_significant(100 * value) for value in curve_points(rows)["density"])
            raise PublishError(
                f"{label!r} of study {study!r} has no point within {100 * tolerance:g} % of "
                f"density {density}; it has, in percent: {', '.join(dict.fromkeys(points))}"
            )
        return near


def _accuracies(rows: pd.DataFrame, densities: list[float]) -> Iterator[str]:
    between = on_grid(rows, densities)
    for density in densities:
        near = _nearest(rows, density, 0.05)
        if len(near):
            yield _with_interval(near["test_accuracy"])
        elif between[density].notna().any():
            yield Markdown("*{}*").format(_with_interval(between[density]))
        else:
            yield "–"


def _difference_to(curve: pd.DataFrame, point: pd.DataFrame) -> str:
    """The difference of a point to a curve at its density."""
    if curve["curve"].iloc[0].startswith("dense"):
        return _paired_difference(point, curve.groupby(["study", "seed"])["test_accuracy"].mean())
    at_density = on_grid(curve, [point["density"].mean()]).iloc[:, 0]
    return _paired_difference(point, at_density.dropna())


def _paired_difference(ours: pd.DataFrame, theirs: pd.Series) -> str:
    """The difference of a point to accuracies by study and seed, with its interval."""
    if theirs.empty:
        return "–"
    gap = compare(ours.groupby(["study", "seed"])["test_accuracy"].mean(), theirs)
    return in_brackets(gap.mean, gap.low, gap.high, "+.1f")


def _nearest(rows: pd.DataFrame, density: float, tolerance: float) -> pd.DataFrame:
    """The rows of the point nearest in log density; none if it is further away than allowed."""
    if not 0 < density <= 1:
        raise PublishError(f"density is {density}; expected a kept fraction in (0, 1]")
    means = rows.groupby("point")["density"].mean()
    distance = np.log(means / density).abs()
    if distance.min() > math.log1p(tolerance):
        return rows.iloc[:0]
    return rows[rows["point"] == distance.idxmin()]


def _with_interval(values: pd.Series) -> str:
    interval = mean_interval(values)
    if interval.n < 3:
        return f"{interval.mean:.1f}"
    half = (interval.high - interval.low) / 2
    return f"{interval.mean:.1f}{_JOIN}±{_JOIN}{half:.1f}"


def _significant(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"
