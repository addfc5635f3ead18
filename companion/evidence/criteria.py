"""The criteria: `criteria.csv` says what a claim compares, its rule what follows from that.

A row of the file is comparisons of one kind, of every network, curve and unit that it names, with
`|` between them. Networks are named, or are those that hold all of some curves; `;` stands between
alternatives. Rows with one number in `line` are judged together, lines by the claim's rule. The
other columns are fields of `comparisons.Case`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from companion.evidence import comparisons, packaged
from companion.evidence import statistics as stats
from companion.evidence.comparisons import Case, Lacking, Part, Side, View, all_of, most_of

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"
# Lines in order: the first has to stand. `whole` lets nothing be missing, `most` asks of a line
# that most comparisons stand and not all, `network by network` judges each by itself.
RULES = IN_ORDER, WHOLE, MOST, NETWORKS, EITHER, MOSTLY, HOLM = (
    *("in order", "whole, in order", "most, in order", "network by network"),
    *("either", "mostly", "mostly, by Holm"),
)
CRITERIA = packaged("criteria.csv")


@dataclass(frozen=True)
class Finding:
    """What a criterion came to, whatever the scale; `lead` are the parts of the headline."""

    outcome: str
    parts: Sequence[Part]
    lead: Sequence[Part]
    needs: Sequence[str]
    complete: bool


def find(claim: str, rule: str, view: View) -> Finding:
    """Make a claim's comparisons over a view, and judge them by one of `RULES`."""
    rows = [row for row in CRITERIA if row["claim"] == claim]
    lines = [
        [case for row in rows if row["line"] == number for case in _cases(view, row)]
        for number in dict.fromkeys(row["line"] for row in rows)
    ]
    if rule != NETWORKS:
        return _judged(lines, rule, view)
    nets = dict.fromkeys(case.net for line in lines for case in line)
    alone = ([[case for case in line if case.net == net] for line in lines] for net in nets)
    return _together([_judged(own, rule, view) for own in alone])


def beside(claim: str, view: View) -> list[str]:
    """Return what is said beside a claim's comparisons, a sentence each."""
    if claim == "B4":
        return [*_implicit_term(view), "The assumption is a zero Hessian, not bi-linearity"]
    nets = view.nets("CS as found", "IMP retrained") if claim == "C5" else []
    return [_other_counts(view, net) for net in nets]


def _cases(view: View, row: Mapping[str, str]) -> Iterator[Case]:
    nets = row["nets"].split("|")
    if row["nets"] and " / " not in row["nets"]:
        alternatives = (view.nets(*curves.split("|")) for curves in row["nets"].split(";"))
        nets = sorted({net for found in alternatives for net in found})
    given = (nets, *(row[name].split("|") for name in ("ours", "theirs", "of")))
    for net, ours, theirs, of in product(*given):
        yield Case(view, net, ours, theirs, row["stands"], of, row["compare"])


def _made(cases: Iterable[Case]) -> tuple[list[Part], list[str]]:
    """The comparisons that can be made, and what the others lack."""
    parts: dict[Part, None] = {}
    needs: list[str] = []
    for case in cases:
        try:
            part = getattr(comparisons, case.compare)(case)
        except Lacking as lack:
            needs += lack.args
        else:
            parts |= {part: None} if part else {}
    return list(parts), needs


def _judged(lines: Sequence[Sequence[Case]], rule: str, view: View) -> Finding:
    made = []
    needs: list[str] = []
    for line in lines:
        parts, lacking = _made(line)
        made.append(parts)
        needs += lacking
        if rule == NETWORKS and not made[0]:
            break
    if not made[0] or (rule == WHOLE and needs):
        return Finding(NOT_RUN, (), (), needs, False)
    every = [part for parts in made for part in parts]
    outcome = _outcome(rule, made, view.fewest("networks"))
    return Finding(outcome, every, made[0], needs, not needs and all(made))


def _together(findings: Sequence[Finding]) -> Finding:
    """The outcome that networks have in common, or partly where the claim stands on some."""
    judged = [found for found in findings if found.parts]
    outcomes = {found.outcome for found in judged}
    if len(outcomes) > 1:
        outcomes = {PARTLY if outcomes & {REPRODUCED, PARTLY} else INCONCLUSIVE}
    outcome = outcomes.pop() if outcomes else NOT_RUN
    parts = [part for found in judged for part in found.parts]
    needs = [need for found in findings for need in found.needs]
    return Finding(outcome, parts, [found.parts[0] for found in judged], needs, not needs)


def _outcome(rule: str, lines: Sequence[Sequence[Part]], fewest: int) -> str:
    if rule in (MOSTLY, HOLM):
        return _mostly(_by_holm(lines[0]) if rule == HOLM else _sides(lines[0]))
    each = map(_sides, lines)
    sides = [most_of(line, fewest) if rule == MOST else all_of(line) for line in each]
    return _either(sides) if rule == EITHER else _in_order(sides)


def _in_order(sides: Sequence[Side | None]) -> str:
    """Reproduced if all stand, partly if the first does, not if it is against; None was not run."""
    if sides[0] != "for":
        return NOT if sides[0] == "against" else INCONCLUSIVE
    return REPRODUCED if {*sides} <= {"for", None} else PARTLY


def _either(sides: Sequence[Side | None]) -> str:
    """Reproduced if all stand, partly if one does, not if all are against; None was not run."""
    known = {*sides} - {None}
    if "for" in known:
        return REPRODUCED if known == {"for"} else PARTLY
    return NOT if known == {"against"} else INCONCLUSIVE


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
    pairs = zip(_sides(parts), adjusted, strict=True)
    return [side if p < 1 - stats.LEVEL else "undecided" for side, p in pairs]


def _implicit_term(view: View) -> Iterator[str]:
    """What the cosine of a whole, most of which needs no Hessian, does not tell."""
    ours, theirs = "BiP as found", "BiP, implicit term off as found"
    nets = view.nets(ours, theirs)
    gains, _ = _made(Case(view, net, ours, theirs, "above 0", "", "band") for net in nets)
    yield from (part.text for part in gains)
    if not gains:
        yield f"The implicit term on against off was not run at {view.scale} scale"
    elif all(part.value.high < -stats.MARGIN for part in gains):
        yield "The implicit term is immaterial"
    names = ("implicit_cosine_quadratic", "implicit_cosine_network", "direct_cosine_network")
    if all(name in view.facts for name in names):
        quadratic, network, direct = (view.facts[name] for name in names)
        yield (
            f"Of the implicit term alone the cosine is {quadratic:.2f} on quadratics and "
            f"{network:.2f} on the network; with that term left out, the network's is {direct:.2f}"
        )


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
