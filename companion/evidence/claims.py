"""The claims of both papers as data (`claims.csv`), and the verdicts on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from companion.evidence import criteria, packaged
from companion.evidence.comparisons import View
from companion.evidence.criteria import INCONCLUSIVE, NOT, NOT_RUN, PARTLY, REPRODUCED
from companion.evidence.facts import FACTS
from lthlib.errors import ConfigError

OUTCOMES = (REPRODUCED, PARTLY, NOT, INCONCLUSIVE, NOT_RUN)
DIRECTIONS = {REPRODUCED: "for", NOT: "against"}


@dataclass(frozen=True)
class Verdict:
    """How a claim stands.

    `outcome` is one of `OUTCOMES` and belongs to `scale` "paper"; at "reduced" it is None and
    `direction` says for, against or undecided. `effect` and `interval` are those of the median
    comparison of the claim's first criterion, `n` its seeds. `because` gives every comparison with
    its numbers, `needs` what is missing.
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

    @property
    def headline(self) -> str:
        """The verdict in a few words."""
        return self.outcome or f"not run at paper scale; {self.direction} at {self.scale} scale"


@dataclass(frozen=True)
class Claim:
    """A claim as `claims.csv` has it: its criterion, and what judging it requires.

    lead: the label whose studies it is judged on. gated: `yes` if the gate must stand first, as for
    all claims that rest on trained networks. rule: how its comparisons are judged, of
    `criteria.RULES`.
    """

    id: str
    paper: str
    lead: str
    gated: str
    rule: str
    statement: str
    criterion: str
    requires: str

    def judge(self, table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> Verdict:
        """Judge this claim alone, without the gate; at reduced scale if none ran at the paper's.

        Args:
            table: from `tidy`.
            facts: measurements that no record holds, by the names in `FACTS`.

        Raises:
            ConfigError: a fact is unknown or not finite, or the table lacks a column.
        """
        for name, value in (facts or {}).items():
            if name not in FACTS or not math.isfinite(value):
                raise ConfigError(f"fact {name} = {value}; expected finite numbers for {FACTS}")
        scales = (View.of(table, scale, facts or {}) for scale in ("paper", "reduced"))
        views = [view.led_by(self.lead) for view in scales]
        findings = [(view, criteria.find(self.id, self.rule, view)) for view in views]
        run = (found for found in findings if found[1].outcome != NOT_RUN)
        return self._verdict(*next(run, findings[0]))

    def _verdict(self, view: View, found: criteria.Finding) -> Verdict:
        needs = tuple(dict.fromkeys(found.needs)) or (() if found.complete else (self.requires,))
        outcome: str | None = found.outcome
        if outcome == NOT_RUN:
            because = f"No runs that this can be judged on. Needed: {self.requires}."
            return Verdict(self.id, NOT_RUN, "paper", None, None, None, 0, because, needs)
        texts = "; ".join(dict.fromkeys(part.text for part in found.parts))
        sentences = [f"At {view.scale} scale: {texts}", *criteria.beside(self.id, view)]
        if found.left:
            sentences.append(f"Without their minimum these do not count: {', '.join(found.left)}")
        if view.failed:
            sentences.append(f"{view.failed} failed runs at this scale are left out")
        direction = None
        if view.scale != "paper":
            outcome, direction = None, DIRECTIONS.get(found.outcome, "undecided")
        elif outcome == REPRODUCED and not found.complete:
            outcome = PARTLY
        lead = sorted((part.value for part in found.lead), key=lambda value: value.mean)
        middle = lead[(len(lead) - 1) // 2]
        interval = None if math.isnan(middle.low) else (middle.low, middle.high)
        numbers = (middle.mean, interval, middle.n)
        because = ". ".join(sentences) + "."
        return Verdict(self.id, outcome, view.scale, direction, *numbers, because, needs)


def judge(table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> list[Verdict]:
    """Judge the gate and every claim, in the order of `CLAIMS`; arguments as of `Claim.judge`.

    While the gate does not stand at paper scale, no claim that rests on trained networks gets a
    decisive outcome there: it is inconclusive.
    """
    gate, *others = (claim.judge(table, facts) for claim in CLAIMS)
    if gate.outcome == REPRODUCED:
        return [gate, *others]
    held = f"Held back: the gate is {gate.headline}; without it this is"
    verdicts = [gate]
    for claim, verdict in zip(CLAIMS[1:], others, strict=True):
        if claim.gated == "yes" and verdict.outcome in (REPRODUCED, PARTLY, NOT):
            because = f"{verdict.because} {held} {verdict.outcome}."
            needs = (*verdict.needs, "the gate G to stand")
            verdict = replace(verdict, outcome=INCONCLUSIVE, because=because, needs=needs)
        verdicts.append(verdict)
    return verdicts


CLAIMS = tuple(Claim(**row) for row in packaged("claims.csv"))
