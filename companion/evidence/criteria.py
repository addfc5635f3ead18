"""The criteria: `criteria.csv` says what a claim compares, its rule what follows from that.

A row of the file is comparisons of one kind, of every network, curve and unit that it names, with
`|` between them. Networks are named, or are those that hold all of some curves; `;` stands between
alternatives. Rows with one number in `line` are judged together, lines by the claim's rule; what
stands in line `premise` has to hold, and decides nothing by itself. The other columns are fields of
`comparisons.Case`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

from companion.evidence import comparisons, packaged
from companion.evidence import statistics as stats
from companion.evidence.comparisons import (
    Case,
    Lacking,
    Part,
    Side,
    View,
    all_of,
    exact,
    most_of,
    side_of,
)

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
INTERIM, INCONCLUSIVE, NOT_RUN = "interim", "inconclusive", "not run"
PREMISE = "premise"
# Lines in order: the first has to stand. `most` asks of a line that most comparisons stand and not
# all, `network by network` judges each by itself, `some network` lets one of them be enough.
RULES = IN_ORDER, MOST, NETWORKS, SOME, EITHER, MOSTLY, HOLM = (
    *("in order", "most, in order", "network by network", "some network"),
    *("either", "mostly", "mostly, by Holm"),
)
CRITERIA = packaged("criteria.csv")


@dataclass(frozen=True)
class Finding:
    """What a criterion came to, whatever the scale.

    Attributes:
        outcome: one of the outcomes above.
        parts: all its comparisons.
        lead: those of the headline.
        needs: what is missing, a text each.
        complete: whether nothing is.
        left: the networks that do not count yet.
        so_far: the outcome if means stay as they are.
        premises: the comparisons that have to hold.
    """

    outcome: str
    parts: Sequence[Part]
    lead: Sequence[Part]
    needs: Sequence[str]
    complete: bool
    left: Sequence[str] = ()
    so_far: str = NOT_RUN
    premises: Sequence[Part] = ()


class Tried(NamedTuple):
    """What one case came to on its network: its comparison, or what it lacks."""

    net: str
    part: Part | None = None
    needs: Sequence[str] = ()


def find(claim: str, rule: str, view: View) -> Finding:
    """Make a claim's comparisons over a view, and judge them by one of `RULES`."""
    rows = [row for row in CRITERIA if row["claim"] == claim]
    lines: dict[str, list[Tried]] = {row["line"]: [] for row in rows}
    for row in rows:
        lines[row["line"]] += map(_tried, _cases(view, row))
    premises = lines.pop(PREMISE, None)
    listed = any(" / " in row["nets"] for row in rows)
    finding = _judge_networks(list(lines.values()), rule, view, listed)
    if premises is None:
        return finding
    parts, needs = _parts_of(premises), [need for tried in premises for need in tried.needs]
    if finding.outcome != NOT_RUN and any(part.side == "against" for part in parts):
        finding = replace(finding, outcome=NOT)
    whole = finding.complete and bool(parts) and not needs
    return replace(finding, premises=parts, needs=[*needs, *finding.needs], complete=whole)


def _judge_networks(
    lines: Sequence[Sequence[Tried]], rule: str, view: View, listed: bool
) -> Finding:
    nets = dict.fromkeys(tried.net for line in lines for tried in line)
    if rule in (NETWORKS, SOME):
        lines_by_net = ([_on_nets(line, [net]) for line in lines] for net in nets)
        findings = [_judge_lines(net_lines, NETWORKS, view) for net_lines in lines_by_net]
        together = _join_findings(findings, view)
        return together if rule == NETWORKS else _of_some(findings, together)
    if listed:
        return _judge_lines(lines, rule, view)
    # Where a claim is about whatever networks were run, those that lack their minimum do not count.
    lines_of_nets = [line for line in lines if any(tried.net for tried in line)]
    by_net = {net: [_on_nets(line, [net]) for line in lines_of_nets] for net in nets if net}
    unready = [
        net
        for net, net_lines in by_net.items()
        if any(not line or any(tried.needs for tried in line) for line in net_lines)
    ]
    if len(by_net) - len(unready) < (view.networks if rule == MOST else 1):
        return _judge_lines(lines, rule, view)
    ready = [net for net in nets if net not in unready]
    return replace(
        _judge_lines([_on_nets(line, ready) for line in lines], rule, view), left=unready
    )


def _on_nets(line: Sequence[Tried], nets: Sequence[str]) -> list[Tried]:
    return [tried for tried in line if tried.net in nets]


def beside(claim: str, view: View) -> list[str]:
    """Return what is said beside a claim's comparisons, a sentence each."""
    if claim == "B4":
        return [*_implicit_term(view), "The assumption is a zero Hessian, not bi-linearity"]
    nets = view.nets("CS as found", "IMP retrained") if claim == "C5" else []
    return [_other_counts(view, net) for net in nets]


def _cases(view: View, row: Mapping[str, str]) -> Iterator[Case]:
    view = view.counted or view if row["on"] else view
    nets = row["nets"].split("|")
    if row["nets"] and " / " not in row["nets"]:
        alternatives = (view.nets(*curves.split("|")) for curves in row["nets"].split(";"))
        nets = sorted({net for names in alternatives for net in names})
    columns = (nets, *(row[name].split("|") for name in ("ours", "theirs", "of")))
    for net, ours, theirs, of in product(*columns):
        yield Case(view, net, ours, theirs, row["stands"], of, row["compare"])


def _tried(case: Case) -> Tried:
    """Make a comparison at the last look that its seeds reach, else as far as there are any."""
    # At a look only as many seeds count as it has, the first of each curve; so more of them change
    # nothing until the next.
    looks = case.view.looks
    for look in reversed(looks):
        for first in range(look.n, case.seeds() + 1):
            part, _ = _attempt(replace(case, look=look, first=first))
            if part is None:
                continue
            part = replace(part, look=look, open=look != looks[-1], lean=_lean_of(case, part))
            # Where nothing is decided yet, all that there is says more than the first seeds.
            now = _attempt(case)[0] if part.open and part.side == "undecided" else None
            return Tried(case.net, replace(part, value=now.value, text=now.text) if now else part)
    part, needs = _attempt(case)
    if not looks or (part.look if part else not needs):
        return Tried(case.net, part, needs)
    needs = _attempt(replace(case, look=looks[0]))[1]
    if part:
        part = replace(part, side="undecided", lean=_lean_of(case, part))
    return Tried(case.net, part, needs)


def _lean_of(case: Case, part: Part) -> Side:
    return side_of(exact(part.value.mean), case.stands)


def _attempt(case: Case) -> tuple[Part | None, Sequence[str]]:
    try:
        return getattr(comparisons, case.compare)(case), ()
    except Lacking as lack:
        return None, lack.args


def missed(claim: str, view: View) -> str:
    """Return what a claim's comparisons lack of curves that there are, all of one network; empty if
    nothing."""
    rows = (row for row in CRITERIA if row["claim"] == claim and row["theirs"])
    cases = (case for row in rows for case in _cases(view, row))
    measured = (case for case in cases if view.nets(case.ours, case.theirs).count(case.net))
    return "; ".join(dict.fromkeys(need for case in measured for need in _attempt(case)[1]))


def _parts_of(line: Iterable[Tried]) -> list[Part]:
    return list(dict.fromkeys(tried.part for tried in line if tried.part))


def _judge_lines(lines: Sequence[Sequence[Tried]], rule: str, view: View) -> Finding:
    parts_by_line = list(map(_parts_of, lines))
    counting = lines[:1] if rule == NETWORKS and not parts_by_line[0] else lines
    needs = [need for line in counting for tried in line for need in tried.needs]
    if not parts_by_line[0]:
        return Finding(NOT_RUN, (), (), needs, False)
    all_parts = [part for parts in parts_by_line for part in parts]
    so_far = _outcome(rule, [list(map(_leaning, parts)) for parts in parts_by_line], view.networks)
    decided = [[part for part in parts if part.look or not view.looks] for parts in parts_by_line]
    outcome = _outcome(rule, decided, view.networks) if decided[0] else INTERIM
    if outcome == INCONCLUSIVE and any(part.open for part in all_parts):
        outcome = INTERIM
    complete = not needs and all(decided)
    return Finding(outcome, all_parts, parts_by_line[0], needs, complete, so_far=so_far)


def _leaning(part: Part) -> Part:
    return replace(part, side=part.lean, value=replace(part.value, p=0.0))


def _join_findings(findings: Sequence[Finding], view: View) -> Finding:
    """The outcome that networks have in common, or partly where the claim stands on some."""
    measured = [finding for finding in findings if finding.parts]
    parts = [part for finding in measured for part in finding.parts]
    needs = [need for finding in findings for need in finding.needs]
    if not measured:
        return Finding(NOT_RUN, (), (), needs, False)
    # A network that has reached no look yet takes nothing from those that have.
    judged = [finding for finding in measured if not view.looks or finding.lead[0].look] or measured
    outcome = _common_outcome({finding.outcome for finding in judged})
    so_far = _common_outcome({finding.so_far for finding in measured})
    lead = [finding.parts[0] for finding in measured]
    return Finding(outcome, parts, lead, needs, not needs, so_far=so_far)


def _of_some(findings: Sequence[Finding], together: Finding) -> Finding:
    """One network on which the claim stands is enough; against it are only all of them."""
    if any(finding.outcome == REPRODUCED for finding in findings):
        return replace(together, outcome=REPRODUCED, needs=(), complete=True)
    if together.outcome == NOT and not together.complete:
        return replace(together, outcome=INCONCLUSIVE)
    return together


def _common_outcome(outcomes: set[str]) -> str:
    if len(outcomes) == 1:
        return outcomes.pop()
    if outcomes & {REPRODUCED, PARTLY}:
        return PARTLY
    return INTERIM if INTERIM in outcomes else INCONCLUSIVE


def _outcome(rule: str, lines: Sequence[Sequence[Part]], fewest: int) -> str:
    if rule in (MOSTLY, HOLM):
        return _mostly(_by_holm(lines[0]) if rule == HOLM else _sides(lines[0]))
    sides = [most_of(_sides(line), fewest) if rule == MOST else all_of(line) for line in lines]
    return _either(sides) if rule == EITHER else _in_order(sides)


def _in_order(sides: Sequence[Side | None]) -> str:
    """Reproduced if all stand, partly if the first does, not if it is against; None was not run."""
    if sides[0] != "for":
        return NOT if sides[0] == "against" else INCONCLUSIVE
    return REPRODUCED if {*sides} <= {"for", None} else PARTLY


def _either(sides: Sequence[Side | None]) -> str:
    """Reproduced if all stand, partly if one does, not if all are against; None was not run."""
    measured = {*sides} - {None}
    if "for" in measured:
        return REPRODUCED if measured == {"for"} else PARTLY
    return NOT if measured == {"against"} else INCONCLUSIVE


def _mostly(sides: Sequence[Side]) -> str:
    """Reproduced if all stand, partly if most do, not if most are against."""
    if set(sides) == {"for"}:
        return REPRODUCED
    return {"for": PARTLY, "against": NOT}.get(most_of(sides) or "", INCONCLUSIVE)


def _sides(parts: Sequence[Part]) -> list[Side]:
    return [part.side for part in parts]


def _by_holm(parts: Sequence[Part]) -> list[Side]:
    """Sides of those that are significant after Holm's correction."""
    adjusted = stats.holm([1.0 if math.isnan(part.value.p) else part.value.p for part in parts])
    pairs = zip(parts, adjusted, strict=True)
    return [part.side if p < part.alpha else "undecided" for part, p in pairs]


def _implicit_term(view: View) -> Iterator[str]:
    """What the cosine of a whole, most of which needs no Hessian, does not tell."""
    ours, theirs = "BiP as found", "BiP, implicit term off as found"
    nets = view.nets(ours, theirs)
    cases = (Case(view, net, ours, theirs, "above 0", "", "band") for net in nets)
    gains = _parts_of(map(_tried, cases))
    if gains and all(part.value.high < -stats.MARGIN for part in gains):
        yield "The implicit term is immaterial: it is worth less than 0.2 points"
    names = ("implicit_cosine_network", "cosine_network", "direct_cosine_network")
    if all(name in view.facts for name in names):
        yield (
            "On the digits, which decide nothing, the cosine of the term alone is {:.2f}, of the "
            "whole hypergradient {:.2f}, and with the term left out {:.2f}"
        ).format(*(view.facts[name] for name in names))


def _other_counts(view: View, net: str) -> str:
    search = view.select(net, "CS as found")
    runs = search.groupby(["study", "seed", "run"])["own_epochs"].max()
    sparsest = search["density"].min()
    imp = stats.on_grid(view.select(net, "IMP retrained"), [sparsest], "epochs")
    counts = (
        view.select(net, "CS retrained")["epochs"].max(),
        runs.groupby(level=["study", "seed"]).sum().mean(),
        imp.mean().iloc[0],
        view.select(net, "OMP retrained")["epochs"].max(),
    )
    retrained, searches, stopped, one_shot = (
        "not run" if math.isnan(count) else f"{count:.0f}" for count in counts
    )
    return (
        f"On {net}, epochs beside these counts: CS with retraining {retrained}, all CS searches "
        f"{searches}, IMP stopped at CS's sparsest density ({100 * sparsest:.2g} %) {stopped}, "
        f"one-shot {one_shot}"
    )
