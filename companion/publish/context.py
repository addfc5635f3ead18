"""What pages may say about results: functions for their text, over records; unknown keys fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import pandas as pd

from companion.analysis.points import ticket_table
from companion.analysis.words import in_brackets
from companion.counting import counted, counted_table, missing
from companion.evidence.claims import CLAIMS, Verdict, judge
from companion.evidence.comparisons import COUNTING
from companion.evidence.facts import FACTS, Fact
from companion.evidence.records import tidy
from companion.markdown import Markdown
from companion.markdown import table as markdown_table
from companion.publish import checks
from companion.publish.curves import Curves
from lthlib.errors import PublishError


def page_context(
    records: Iterable[Mapping[str, Any]],
    facts: Mapping[str, Fact] | None = None,
    reports: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Callable[..., Any]]:
    """Return the functions that pages may call, by name.

    Args:
        records: of all studies: published ones and those of the local store.
        facts: measurements that no record holds, from `evidence.load_facts`.
        reports: on studies that were computed again, from `publish.checks.load_reports`.
    """
    rows = list(records)
    facts = facts or {}
    answering = (Curves(rows, ticket_table(rows)), Claims(tidy(rows), facts), Facts(facts))
    methods = {
        name: getattr(owner, name) for owner in answering for name in dir(owner) if name[0] != "_"
    }

    def published() -> Mapping[str, Mapping[str, Any]]:
        """The reports on studies that were computed again, by study."""
        return reports or {}

    return {
        **methods,
        "reports": published,
        "check": checks.sentence,
        "check_table": checks.table,
        "check_rule": checks.rule,
    }


class Claims:
    """The claims, each with its verdict over the records and facts there are."""

    def __init__(self, table: pd.DataFrame, facts: Mapping[str, Fact]) -> None:
        self._table, self._values = table, {name: fact.value for name, fact in facts.items()}

    def board(self) -> Markdown:
        """A table of all claims.

        What the paper says, what was measured and how it stands, what would decide it, and how many
        minutes of a GPU that still takes.
        """
        heads = ("claim", "the paper says", "measured", "scale", "it stands", "what decides it")
        rows = map(_board_row, self.claims())
        return markdown_table([*heads, "GPU minutes missing"], rows, {6})

    def counts(self) -> Markdown:
        """A table of what tickets cost by what their methods declare; claims follow from it."""
        return counted_table(self._counted)

    def claims(self) -> list[dict[str, Any]]:
        """All claims as `claim` gives them, the gate G first."""
        return list(self._judged.values())

    def claim(self, claim_id: str) -> dict[str, Any]:
        """A claim as data: `claim("B1").statement`.

        It has all that `Claim` and `Verdict` have, such as `.needs`; how it stands in a sentence is
        `.verdict`, `**not run**. No runs ...`; what was measured, in short, is `.measured`.

        Raises:
            PublishError: there is no such claim; the message lists those there are.
        """
        if claim_id not in self._judged:
            raise PublishError(f"unknown claim {claim_id!r}; known: {', '.join(self._judged)}")
        return self._judged[claim_id]

    @cached_property
    def _counted(self) -> pd.DataFrame:
        return counted()

    @cached_property
    def _judged(self) -> dict[str, dict[str, Any]]:
        table = pd.concat([self._table, self._counted], ignore_index=True)
        claims = {
            claim.id: {
                **asdict(claim),
                "missing": asdict(missing(claim, next(claim.views(table, self._values)).rows)),
            }
            for claim in CLAIMS
        }
        sentence = Markdown("**{}**. {}").format
        return {
            verdict.claim: {
                **claims[verdict.claim],
                **asdict(verdict),
                "headline": verdict.headline,
                "standing": verdict.standing,
                "measured": _measured(verdict),
                "verdict": sentence(verdict.headline, verdict.because),
            }
            for verdict in judge(table, self._values)
        }


def _board_row(claim: Mapping[str, Any]) -> list[str]:
    return [
        Markdown("{{ref}}`{0} <claim-{0}>`").format(claim["id"]),
        claim["statement"],
        claim["measured"],
        claim["scale"] if claim["measured"] != "–" else "–",
        claim["standing"],
        claim["requires"] if claim["looks"] == COUNTING else _decides(claim),
        f"{claim['missing']['minutes']:,.0f}",
    ]


def _measured(verdict: Verdict) -> str:
    if verdict.effect is None:
        return "–"
    low, high = verdict.interval or (math.nan, math.nan)
    effect = in_brackets(verdict.effect, low, high, "+.2f" if verdict.unit else ".2f")
    n = "" if verdict.scale == COUNTING else f", n = {verdict.n}"
    return f"{effect} {verdict.unit or 'times'}{n}"


def _decides(claim: Mapping[str, Any]) -> str:
    seeds = max(int(runs.rpartition("; ")[2]) for runs in claim["minimal"].split("|"))
    return f"{claim['requires']}; {seeds} seeds"


class Facts:
    """Measurements that no record holds."""

    def __init__(self, facts: Mapping[str, Fact]) -> None:
        self._facts = facts

    def has_fact(self, name: str) -> bool:
        """Whether a fact was measured: `[% if has_fact("cosine_network") %]`.

        Raises:
            PublishError: there is no such fact; the message lists those there are.
        """
        if name not in FACTS:
            raise PublishError(f"unknown fact {name!r}; known: {', '.join(FACTS)}")
        return name in self._facts

    def fact(self, name: str) -> dict[str, str]:
        """A fact: `fact("cosine_network").value` -> `0.97`.

        `.spread` is the least and the greatest value over its seeds, `0.96 to 0.98`; `.made` how it
        is defined, and what measured it when.

        Raises:
            PublishError: there is no such fact, or it was not measured.
        """
        if not self.has_fact(name):
            raise PublishError(f"fact {name!r} was not measured; `lth facts` measures it")
        fact = self._facts[name]
        origin = fact.provenance
        commit = (origin["commit"] or "none")[:7] + (", with changes" if origin["dirty"] else "")
        form = ".2f" if 0.005 <= abs(fact.value) < 1e3 else ".1g"
        return {
            "value": format(fact.value, form),
            "spread": f"{min(fact.values):.2f} to {max(fact.values):.2f}",
            "made": f"{fact.definition}. Seeds: {', '.join(map(str, fact.seeds))} · "
            f"device: {origin['device_name']} ({origin['device']}) · "
            f"date: {origin['finished'][:10]} · commit: {commit} · PyTorch {origin['torch']}",
        }
