"""What pages may say about results: functions for their text, over records; unknown keys fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.analysis.points import curve_points, pruned, ticket_table
from companion.analysis.precision import (
    margin,
    precision_differences,
    precision_outcome,
    precision_table,
)
from companion.analysis.words import in_brackets
from companion.evidence.claims import CLAIMS, Verdict, judge
from companion.evidence.facts import FACTS, Fact
from companion.evidence.statistics import compare, mean_interval, on_grid, sparsest_on_validation
from companion.markdown import Markdown, code, table
from companion.publish import artefacts, checks
from lthlib.errors import PublishError

_JOIN = "\N{NARROW NO-BREAK SPACE}"


def page_context(
    records: Iterable[Mapping[str, Any]],
    facts: Mapping[str, Fact] | None = None,
    reports: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Callable[..., Any]]:
    """Return the functions that pages may call, by name: the public methods of `Results`.

    Args:
        records: of all studies: published ones and those of the local store.
        facts: measurements that no record holds, from `evidence.load_facts`.
        reports: on studies that were computed again, from `publish.checks.load_reports`.
    """
    results = Results(records, facts, reports)
    names = [name for name in vars(Results) if not name.startswith("_")]
    return {name: getattr(results, name) for name in names}


class Results:
    """Records, asked by study, label and density.

    label: as figures show it: `BiP`, `CS`, `CS, as found`, `OMP, compute-matched`, `dense`.
    density: a kept fraction in (0, 1]; the nearest point of the curve answers, if it lies within
    `tolerance`, relative. Every function raises PublishError for a key that no record has; the
    message lists those there are.
    """

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]],
        facts: Mapping[str, Fact] | None = None,
        reports: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._records = list(records)
        self._table = ticket_table(self._records)
        self._facts = facts or {}
        self._reports = reports or {}
        self._judged: list[Verdict] | None = None

    def has_study(self, study: str) -> bool:
        """Whether there are records of a study: `[% if has_study("cifar10-reduced") %]`."""
        return bool((self._table["study"] == study).any())

    def accuracy(self, study: str, label: str, density: float, tolerance: float = 0.15) -> str:
        """Test accuracy in percent, mean ± half the 95 % t-interval from three seeds on.

        `accuracy("digits", "BiP", 0.05)` -> `96.8 ± 0.9`
        """
        return _with_interval(self._at(study, label, density, tolerance)["test_accuracy"])

    def dense_accuracy(self, study: str) -> str:
        """Test accuracy of the dense network, as `accuracy`: `98.3 ± 0.2`."""
        return _with_interval(self._ok(study, "dense")["test_accuracy"])

    def density(self, study: str, label: str, density: float, tolerance: float = 0.15) -> str:
        """The mean density really reached, in percent: `density("digits", "CS", 0.05)` -> `5.2`."""
        return _significant(100 * self._at(study, label, density, tolerance)["density"].mean())

    def emptied(self, study: str, label: str, density: float) -> list[str]:
        """The layers in which no ticket keeps a weight: `emptied("digits", "OMP", 0.01)`."""
        rows = self._at(study, label, density)
        points = set(zip(rows["run"], rows["round"], strict=True))
        layers = [
            one["layers"]
            for one in self._records
            if one["status"] == "ok" and (one["run"], one["ticket"]["index"]) in points
        ]
        return [name for name in layers[0] if not any(own[name][0] for own in layers)]

    def difference(
        self, study: str, label: str, other: str, density: float, tolerance: float = 0.15
    ) -> str:
        """Mean difference in points with its 95 % interval, paired by seed; `other` may be `dense`.

        `difference("digits", "IMP", "OMP", 0.05)` -> `+3.3 [2.1, 4.5]`
        """
        ours = self._at(study, label, density, tolerance)
        dense = other == "dense"
        theirs = self._ok(study, other) if dense else self._at(study, other, density, tolerance)
        gap = compare(*(rows.groupby("seed")["test_accuracy"].mean() for rows in (ours, theirs)))
        if math.isnan(gap.low):
            return f"{gap.mean:+.1f}"
        return f"{gap.mean:+.1f} [{gap.low:.1f}, {gap.high:.1f}]"

    def difference_table(
        self, study: str, label: str, others: Sequence[str] | None = None
    ) -> Markdown:
        """A Markdown table of what a curve is ahead of others by: a row each, a column a ratio.

        Points of test accuracy with their 95 % interval, paired by seed, at the curve's own
        densities; others are interpolated in log density, seed by seed, and a dash where they do
        not reach. What is dense counts at every density. others: default all curves but dense.
        `difference_table("digits", "BiP", ["IMP", "OMP"])`
        """
        ours = self._ok(study, label)
        ours = ours.assign(pruned=pruned(ours))
        points = sorted(
            (own for _, own in ours.groupby("point")), key=lambda own: float(own["pruned"].mean())
        )
        if others is None:
            others = [one for one in self.curves(study) if one not in (label, "dense")]
        rows = []
        for other in others:
            theirs = self._ok(study, other)
            rows.append([other, *(_ahead(own, theirs) for own in points)])
        heads = [f"{own['pruned'].mean():.3g} % pruned" for own in points]
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

    def count(self, study: str, label: str | None = None) -> int:
        """How many tickets were judged, of a study or of one of its curves; failed runs not."""
        rows = self._of(study) if label is None else self._ok(study, label)
        return int((rows["status"] == "ok").sum())

    def failures(self, study: str) -> int:
        """How many runs of a study failed."""
        rows = self._of(study)
        return int(rows.loc[rows["status"] == "failed", "run"].nunique())

    def densities(self, study: str, label: str) -> str:
        """The densities of a curve in percent, dense to sparse: `50, 20, 10, 5, 2, 1`."""
        points = curve_points(self._ok(study, label))["density"]
        return ", ".join(dict.fromkeys(_significant(100 * value) for value in points))

    def accuracy_table(self, study: str, densities: Iterable[float]) -> Markdown:
        """A Markdown table: a row a curve, a column a density, accuracies as `accuracy` gives them.

        Italics: interpolated seed by seed, in log density, where the curve has no point near but
        one on either side; a dash where it does not reach. `accuracy_table("digits", [0.2, 0.05])`
        """
        wanted = list(densities)
        curves = [curve for curve in self.curves(study) if curve != "dense"]
        rows = [[curve, *self._accuracies(study, curve, wanted)] for curve in curves]
        columns = ["tickets", *(f"{_significant(100 * one)} %" for one in wanted)]
        return table(columns, rows)

    def _accuracies(self, study: str, curve: str, densities: list[float]) -> Iterator[str]:
        rows = self._ok(study, curve)
        between = on_grid(rows, densities)
        for density in densities:
            near = _nearest(rows, density, 0.05)
            if len(near):
                yield _with_interval(near["test_accuracy"])
            elif between[density].notna().any():
                yield Markdown("*{}*").format(_with_interval(between[density]))
            else:
                yield "–"

    def study_cost(self, study: str) -> str:
        """What a study took: `136 runs, 4.1 million images forward and backward, 6 min 02 s`."""
        rows = self._of(study).drop_duplicates("run", keep="last")
        images = rows["own_backward_passes"].sum()
        amount = f"{images / 1e6:.1f} million" if images >= 1e5 else f"{images:,.0f}"
        return f"{len(rows)} runs, {amount} images forward and backward, {self.duration(study)}"

    def duration(self, study: str) -> str:
        """Computing time of a study's runs, one after the other: `6 min 02 s`."""
        return artefacts.duration(float(self._of(study).groupby("run")["own_seconds"].max().sum()))

    def machine(self, study: str) -> str:
        """The devices that computed a study: `Intel Xeon ... (cpu)`."""
        rows = self._of(study)
        names = sorted(
            {f"{a} ({b})" for a, b in zip(rows["device_name"], rows["device"], strict=True)}
        )
        return ", ".join(names)

    def date(self, study: str) -> str:
        """When a study was computed: `2026-11-21`, or `2026-11-20 to 2026-11-21`."""
        days = sorted(self._of(study)["finished"].astype(str).str[:10])
        return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"

    def commit(self, study: str) -> str:
        """The commits a study was computed at, 7 digits each; `none` outside a repository."""
        rows = self._of(study)
        commits = sorted(set(rows["commit"].dropna().astype(str).str[:7]))
        return (", ".join(commits) or "none") + artefacts.uncommitted(rows)

    def command(self, study: str) -> str:
        """The command that computes a study again: `lth sweep digits`."""
        self._of(study)
        return f"lth sweep {study}"

    def studies(self) -> Markdown:
        """A Markdown table of the studies there are records of."""
        rows = [
            [
                study,
                str(self._of(study)["scale"].iloc[0]),
                str(self.count(study)),
                self.date(study),
                self.duration(study),
                self.machine(study),
            ]
            for study in sorted(set(self._table["study"]))
        ]
        return table(["study", "scale", "tickets", "date", "computing time", "machine"], rows)

    def precisions(self, study: str) -> Markdown:
        """Whether a study's precisions are interchangeable: `precisions("digits-precision")`."""
        scale = str(self._of(study)["scale"].iloc[0])
        rows = precision_table(one for one in self._records if one["study"] == study)
        found = precision_differences(rows)
        if found.empty:
            raise PublishError(f"study {study!r} has no seed in two precisions")
        return precision_outcome(found, margin(scale))

    def has_fact(self, name: str) -> bool:
        """Whether a fact was measured: `[% if has_fact("cosine_network") %]`."""
        if name not in FACTS:
            raise PublishError(f"unknown fact {name!r}; known: {', '.join(FACTS)}")
        return name in self._facts

    def fact(self, name: str) -> str:
        """The value of a fact: `fact("cosine_network")` -> `0.97`."""
        value = self._fact(name).value
        return f"{value:.2f}" if 0.005 <= abs(value) < 1e3 else f"{value:.1g}"

    def fact_spread(self, name: str) -> str:
        """The least and the greatest value over a fact's seeds: `0.96 to 0.98`."""
        values = self._fact(name).values
        return f"{min(values):.2f} to {max(values):.2f}"

    def fact_made(self, name: str) -> str:
        """How a fact is defined, and what measured it when, on what."""
        fact = self._fact(name)
        made = fact.provenance
        commit = (made["commit"] or "none")[:7] + (", with changes" if made["dirty"] else "")
        seeds = ", ".join(map(str, fact.seeds))
        return (
            f"{fact.definition}. Seeds: {seeds} · device: {made['device_name']} "
            f"({made['device']}) · date: {made['finished'][:10]} · commit: {commit} · "
            f"PyTorch {made['torch']}"
        )

    def _fact(self, name: str) -> Fact:
        if not self.has_fact(name):
            raise PublishError(f"fact {name!r} was not measured; `lth facts` measures it")
        return self._facts[name]

    def checked(self) -> list[str]:
        """The studies of which a report on computing them again is published."""
        return list(self._reports)

    def check_rule(self) -> str:
        """How far numbers that are computed again may differ, in words."""
        return checks.rule()

    def check(self, study: str) -> Markdown:
        """How computing a study again went, in a few sentences: `check("digits")`."""
        return checks.sentence(self._report(study))

    def check_table(self, study: str) -> Markdown:
        """A Markdown table of that, curve by curve."""
        return checks.table(self._report(study))

    def _report(self, study: str) -> Mapping[str, Any]:
        if study not in self._reports:
            known = ", ".join(self._reports) or "none"
            raise PublishError(f"no report on computing {study!r} again; there are: {known}")
        return self._reports[study]

    def verdicts(self) -> list[Verdict]:
        """All verdicts, in the order of the claims; the gate G comes first."""
        if self._judged is None:
            values = {name: fact.value for name, fact in self._facts.items()}
            self._judged = judge(self._table, values)
        return self._judged

    def verdict(self, claim_id: str) -> Markdown:
        """How a claim stands, in a sentence: `verdict("B1")` -> `**not run**. No runs ...`."""
        found = {verdict.claim: verdict for verdict in self.verdicts()}
        if claim_id not in found:
            raise PublishError(f"unknown claim {claim_id!r}; known: {', '.join(found)}")
        chosen = found[claim_id]
        return Markdown("**{}**. {}").format(chosen.headline, chosen.because)

    def needs(self, claim_id: str) -> list[str]:
        """What is missing for a claim's verdict, in words, one entry each."""
        self.verdict(claim_id)
        return next(list(one.needs) for one in self.verdicts() if one.claim == claim_id)

    def gate(self) -> Markdown:
        """How the gate stands: whether our IMP agrees with independently published data."""
        return self.verdict("G")

    def claim(self, claim_id: str) -> Any:
        """A claim as data: `claim("B1").statement`, `.criterion`, `.requires`, `.paper`."""
        self.verdict(claim_id)
        return next(one for one in CLAIMS if one.id == claim_id)

    def about(self, recipe: str) -> str:
        """A recipe in one sentence. `about("cifar10-bip")`"""
        from lthlib.recipes import load_recipe

        return load_recipe(recipe).about

    def recipe_table(self, recipe: str) -> Markdown:
        """A Markdown table of a recipe: field, value, source. `recipe_table("digits")`"""
        from lthlib.recipes import load_recipe

        loaded = load_recipe(recipe)
        rows = [
            [code(name), _plain(_look_up(loaded.values, name)), source]
            for name, source in loaded.sources.items()
        ]
        return table(["field", "value", "source"], rows)

    def _of(self, study: str) -> pd.DataFrame:
        rows = self._table[self._table["study"] == study]
        if rows.empty:
            known = ", ".join(sorted(set(self._table["study"]))) or "none"
            raise PublishError(f"no records of study {study!r}; known: {known}")
        return rows

    def curves(self, study: str) -> list[str]:
        """The curves of a study, as figures name them."""
        return list(dict.fromkeys(self._of(study)["curve"]))

    def _ok(self, study: str, label: str) -> pd.DataFrame:
        rows = self._of(study)
        chosen = rows[(rows["curve"] == label) & (rows["status"] == "ok")]
        if chosen.empty:
            known = ", ".join(self.curves(study))
            raise PublishError(f"study {study!r} has no judged {label!r}; its curves: {known}")
        return chosen

    def _at(self, study: str, label: str, density: float, tolerance: float = 0.15) -> pd.DataFrame:
        rows = self._ok(study, label)
        near = _nearest(rows, density, tolerance)
        if near.empty:
            known = self.densities(study, label)
            raise PublishError(
                f"{label!r} of study {study!r} has no point within {100 * tolerance:g} % of "
                f"density {density}; it has, in percent: {known}"
            )
        return near


def _ahead(ours: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """The difference of a point to a curve at its density."""
    keys = ["study", "seed"]
    if theirs["curve"].iloc[0].startswith("dense"):
        other = theirs.groupby(keys)["test_accuracy"].mean()
    else:
        other = on_grid(theirs, [ours["density"].mean()]).iloc[:, 0].dropna()
    if other.empty:
        return "–"
    gap = compare(ours.groupby(keys)["test_accuracy"].mean(), other)
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
    found = mean_interval(values)
    if found.n < 3:
        return f"{found.mean:.1f}"
    half = (found.high - found.low) / 2
    return f"{found.mean:.1f}{_JOIN}±{_JOIN}{half:.1f}"


def _significant(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def _look_up(values: Mapping[str, Any], dotted: str) -> Any:
    found: Any = values
    for name in dotted.split("."):
        found = found[name]
    return found


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)
