"""The claims of both papers as data (`claims.csv`), and the verdicts on them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files

import pandas as pd

from companion.evidence import criteria
from companion.evidence.comparisons import View
from companion.evidence.criteria import INCONCLUSIVE, NOT, NOT_RUN, PARTLY, REPRODUCED, Finding
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
    all claims that rest on trained networks.
    """

    id: str
    paper: str
    lead: str
    gated: str
    statement: str
    criterion: str
    requires: str

    def judge(self, table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> Verdict:
        """Judge this claim alone, without the gate; at reduced scale if none ran at the paper's.

        The criterion is the function of `criteria` named `find_` and the claim's id.

        Args:
            table: from `tidy`.
            facts: measurements that no record holds, by the names in `FACTS`.

        Raises:
            ConfigError: a fact is unknown or not finite, or the table lacks a column.
        """
        for name, value in (facts or {}).items():
            if name not in FACTS or not math.isfinite(value):
                raise ConfigError(f"fact {name} = {value}; expected finite numbers for {FACTS}")
        find = getattr(criteria, f"find_{self.id.lower()}")
        verdicts = []
        for scale in ("paper", "reduced"):
            view = View.of(table, scale, facts or {}).led_by(self.lead)
            verdicts.append(_verdict(self, view, find(view)))
        return next((one for one in verdicts if one.outcome != NOT_RUN), verdicts[0])


def judge(table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> list[Verdict]:
    """Judge the gate and every claim, in the order of `CLAIMS`; arguments as of `Claim.judge`.

    While the gate does not stand at paper scale, no claim that rests on trained networks gets a
    decisive outcome there: it is inconclusive.
    """
    verdicts = [claim.judge(table, facts) for claim in CLAIMS]
    gate = verdicts[0]
    if gate.outcome == REPRODUCED:
        return verdicts
    pairs = zip(CLAIMS, verdicts, strict=True)
    return [_held(verdict, gate) if claim.gated == "yes" else verdict for claim, verdict in pairs]


def _held(verdict: Verdict, gate: Verdict) -> Verdict:
    if verdict.outcome not in (REPRODUCED, PARTLY, NOT):
        return verdict
    reason = f"Held back: the gate is {gate.headline}; without it this is {verdict.outcome}."
    because, needs = f"{verdict.because} {reason}", (*verdict.needs, "the gate G to stand")
    return replace(verdict, outcome=INCONCLUSIVE, because=because, needs=needs)


def _verdict(claim: Claim, view: View, found: Finding) -> Verdict:
    needs = tuple(dict.fromkeys(found.needs))
    if not found.complete and not needs:
        needs = (claim.requires,)
    if found.outcome == NOT_RUN:
        because = f"No runs that this can be judged on. Needed: {claim.requires}."
        return Verdict(claim.id, NOT_RUN, "paper", None, None, None, 0, because, needs)
    parts = "; ".join(dict.fromkeys(part.text for part in found.parts))
    texts = [f"At {view.scale} scale: {parts}", *found.notes]
    if view.failed:
        texts.append(f"{view.failed} failed runs at this scale are left out")
    lead = sorted(found.lead, key=lambda part: part.effect)
    middle = lead[(len(lead) - 1) // 2]
    outcome: str | None = found.outcome
    direction = None
    if view.scale != "paper":
        outcome, direction = None, DIRECTIONS.get(found.outcome, "undecided")
    elif outcome == REPRODUCED and not found.complete:
        outcome = PARTLY
    interval = None if math.isnan(middle.low) else (middle.low, middle.high)
    because = ". ".join(texts) + "."
    numbers = (middle.effect, interval, middle.n)
    return Verdict(claim.id, outcome, view.scale, direction, *numbers, because, needs)


CLAIMS = tuple(
    Claim(**row)
    for row in csv.DictReader(
        (files(__package__) / "claims.csv").read_text(encoding="utf-8").splitlines()
    )
)
