"""The claims of both papers as data (`claims.csv`), and the verdicts on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from companion.evidence import criteria, packaged
from companion.evidence.comparisons import COUNTING, Look, Part, View
from companion.evidence.criteria import (
    INCONCLUSIVE,
    INTERIM,
    NOT,
    NOT_RUN,
    PARTLY,
    REPRODUCED,
)
from companion.evidence.facts import FACTS
from lthlib.errors import ConfigError

OUTCOMES = (REPRODUCED, PARTLY, NOT, INTERIM, INCONCLUSIVE, NOT_RUN)
DECISIVE = OUTCOMES[:3]
DIRECTIONS = {REPRODUCED: "for", NOT: "against"}
WITHHELD = "withheld"
_COUNTED = {
    REPRODUCED: "follows from counting",
    PARTLY: "partly follows from counting",
    NOT: "contradicted by counting",
}
_ELSEWHERE = "tickets at reduced scale lie at other densities"
_SO_FAR = {REPRODUCED: "for", PARTLY: "partly for", NOT: "against"}


@dataclass(frozen=True)
class Verdict:
    """How a claim stands.

    Attributes:
        claim: its id.
        outcome: one of `OUTCOMES`, at the scales "paper" and "counting"; None at "reduced".
        scale: one of these three.
        direction: for, against, undecided or withheld, at reduced scale; else None.
        effect: of the median comparison of the claim's first criterion; None if not run.
        interval: of the same comparison; None if it has none.
        n: its seeds.
        because: every comparison with its numbers.
        needs: what is missing, a text each.
        so_far: where an outcome that is interim leans, or what there is of one that was not run.
        unit: of the effect; none of a ratio.
    """

    claim: str
    outcome: str | None
    scale: str
    direction: str | None
    effect: float | None
    interval: tuple[float, float] | None
    n: int
    because: str
    needs: tuple[str, ...]
    so_far: str = ""
    unit: str = ""

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        if self.outcome is None:
            return f"not run at paper scale; {self.standing} at {self.scale} scale"
        return self.standing

    @property
    def standing(self) -> str:
        """The same at its scale: the outcome, or the direction."""
        if self.outcome is None:
            withheld = self.direction == WITHHELD
            return f"direction {WITHHELD}" if withheld else str(self.direction)
        if self.outcome == INTERIM:
            return f"interim: n = {self.n}, so far {self.so_far}"
        if self.outcome == NOT_RUN and self.so_far:
            return f"{NOT_RUN}: {self.so_far}"
        return _COUNTED.get(self.outcome, NOT_RUN) if self.scale == COUNTING else self.outcome


@dataclass(frozen=True)
class Claim:
    """A claim as `claims.csv` has it: its criterion, and what judging it requires.

    Lists have `|` between them.

    Attributes:
        id: its name on the board.
        paper: which paper claims it.
        lead: the label whose studies it is judged on.
        studies: their order, the first that holds the label counts; what only other claims list
            does not.
        family: whose protocol a run has to follow to be at paper scale, of `protocols.csv`.
        gated: `yes` if the gate must stand first, as for all claims that rest on trained networks.
        rule: how its comparisons are judged, of `criteria.RULES`.
        looks: at how many seeds, and at which level of significance; `counting` if it follows from
            what methods declare to cost.
        minimal: the fewest runs that decide it, `RECIPE: CONTESTANTS; DENSITIES; SEEDS`, or `none`.
        statement: what the paper says.
        criterion: what is compared, in words.
        requires: the runs that it takes, in words.
    """

    id: str
    paper: str
    lead: str
    studies: str
    family: str
    gated: str
    rule: str
    looks: str
    minimal: str
    statement: str
    criterion: str
    requires: str

    def views(self, table: pd.DataFrame, facts: Mapping[str, float]) -> Iterator[View]:
        """Yield what the claim is judged on, at each scale it may be judged at."""
        studies = self.studies.split("|")
        listed = {study for claim in CLAIMS for study in claim.studies.split("|")}
        table = table[~table["study"].isin(listed.difference(studies))]
        counted = View.of(table, COUNTING, facts, self.family).led_by(self.lead, studies)
        if self.looks == COUNTING:
            yield counted
            return
        for scale, looks in (("paper", Look.read(self.looks)), ("reduced", ())):
            view = View.of(table, scale, facts, self.family, self.lead)
            yield replace(view, looks=looks, counted=counted).led_by(self.lead, studies)

    def judge(self, table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> Verdict:
        """Judge this claim alone, without the gate; at reduced scale if none ran at the paper's.

        Args:
            table: from `tidy`; with `companion.counting.counted` for what follows from counting.
            facts: measurements that no record holds, by the names in `FACTS`.

        Raises:
            ConfigError: a fact is unknown or not finite, or the table lacks a column.
        """
        return self._judged(table, _check_facts(facts))[1]

    def gated_by(self, gate: Claim, table: pd.DataFrame, facts: Mapping[str, float]) -> Verdict:
        """Judge this claim, and the gate on the same studies: where that does not stand at paper
        scale, nothing is decided there; where it is against at reduced scale, no direction is
        given."""
        view, verdict = self._judged(table, facts)
        if self.gated == "no" or not (verdict.direction or verdict.outcome in DECISIVE):
            return verdict
        gate_finding = criteria.find(gate.id, gate.rule, view)
        if verdict.direction and gate_finding.outcome == NOT:
            measured = gate_finding.parts[0].text
            reason = f"the gate is against: {measured}; so {verdict.direction} is withheld"
            because = f"{verdict.because} At this scale {reason}."
            return replace(verdict, direction=WITHHELD, because=because)
        if verdict.direction or gate_finding.outcome == REPRODUCED:
            return verdict
        held = f"Held back: on these studies the gate is {gate_finding.outcome}; without it this is"
        because = f"{verdict.because} {held} {verdict.outcome}."
        needs = (*verdict.needs, "the gate G to stand")
        return replace(verdict, outcome=INCONCLUSIVE, because=because, needs=needs)

    def _judged(self, table: pd.DataFrame, facts: Mapping[str, float]) -> tuple[View, Verdict]:
        # What is missing is missing at the first of all scales.
        tried: list[tuple[View, criteria.Finding]] = []
        for view in self.views(table, facts):
            tried.append((view, criteria.find(self.id, self.rule, view)))
            if tried[-1][1].outcome != NOT_RUN:
                return view, self._verdict(*tried[-1], *tried[0])
        verdict = self._verdict(*tried[0], *tried[0])
        if missed := criteria.missed(self.id, tried[-1][0]):
            because = f"{verdict.because} The tickets at reduced scale lack: {missed}."
            verdict = replace(verdict, because=because, so_far=_ELSEWHERE)
        return tried[0][0], verdict

    def _verdict(
        self, view: View, finding: criteria.Finding, paper: View, first: criteria.Finding
    ) -> Verdict:
        needs = tuple(dict.fromkeys(first.needs)) or (() if first.complete else (self.requires,))
        outcome: str | None = finding.outcome
        sentences = list(_sentences(self.id, view, finding))
        if paper.apart:
            off = ", ".join(paper.apart)
            sentences.append(f"Not at paper scale, whatever their recipe says: {off}")
        if outcome == NOT_RUN:
            lacking = f"No runs that this can be judged on. Needed: {self.requires}"
            because = ". ".join([lacking, *sentences]) + "."
            return Verdict(self.id, NOT_RUN, view.scale, None, None, None, 0, because, needs)
        direction = None
        if view.scale == "reduced":
            outcome, direction = None, DIRECTIONS.get(finding.outcome, "undecided")
        elif outcome == REPRODUCED and not finding.complete:
            outcome = PARTLY
        so_far = _SO_FAR.get(finding.so_far, "undecided") if outcome == INTERIM else ""
        lead = sorted(finding.lead, key=lambda part: part.value.mean)
        middle = lead[(len(lead) - 1) // 2]
        value, because = middle.value, ". ".join(sentences) + "."
        interval = (value.low, value.high) if value.low < value.high else None
        numbers = (value.mean, interval, value.n)
        return Verdict(
            self.id, outcome, view.scale, direction, *numbers, because, needs, so_far, middle.unit
        )


def _sentences(claim: str, view: View, finding: criteria.Finding) -> Iterator[str]:
    """What a finding rests on, a sentence each."""
    if finding.parts:
        where = "From counting" if view.scale == COUNTING else f"At {view.scale} scale"
        yield f"{where}: {_join_texts(finding.parts)}"
    if any(part.open for part in finding.parts) or finding.outcome == INTERIM:
        looks = " and ".join(str(look.n) for look in view.looks)
        yield f"Decided at {looks} seeds" + " and not between" * (len(view.looks) > 1)
    yield from view.waiting
    if finding.premises:
        yield f"Premises: {_join_texts(finding.premises)}"
    if finding.parts:
        yield from criteria.beside(claim, view)
    if finding.left:
        yield f"Without their minimum these do not count: {', '.join(finding.left)}"
    if finding.parts and view.failed:
        yield f"{view.failed} failed runs at this scale are left out"


def _join_texts(parts: Sequence[Part]) -> str:
    return "; ".join(dict.fromkeys(part.text for part in parts))


def judge(table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> list[Verdict]:
    """Judge the gate and every claim, in the order of `CLAIMS`; arguments as of `Claim.judge`."""
    facts = _check_facts(facts)
    return [claim.gated_by(CLAIMS[0], table, facts) for claim in CLAIMS]


def _check_facts(facts: Mapping[str, float] | None) -> Mapping[str, float]:
    for name, value in (facts or {}).items():
        if name not in FACTS or not math.isfinite(value):
            raise ConfigError(f"fact {name} = {value}; expected finite numbers for {FACTS}")
    return facts or {}


CLAIMS = tuple(Claim(**row) for row in packaged("claims.csv"))
