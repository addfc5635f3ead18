"""Every claim on synthetic tables that produce every verdict it can give."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest

from companion.evidence import comparisons
from companion.evidence.claims import CLAIMS, OUTCOMES, Verdict, judge
from companion.evidence.comparisons import Part, Side, all_of, most_of, side_of
from companion.evidence.costs import with_costs
from companion.evidence.criteria import CRITERIA, RULES
from companion.evidence.facts import FACTS
from companion.evidence.records import COLUMNS, tidy
from companion.evidence.scales import PROTOCOLS
from companion.evidence.statistics import IMP_DENSITIES, Difference
from companion.studies import CONTESTANTS
from lthlib.errors import ConfigError
from lthlib.recipes import recipe_names
from lthlib.records import COSTS

RESNET20, VGG16 = ("cifar10", "resnet20"), ("cifar10", "vgg16")
RESNET18 = ("cifar10", "resnet18")
THREE = (RESNET20, VGG16, RESNET18)
GRID = tuple(float(density) for density in IMP_DENSITIES[:18])
ALL_ROUNDS = tuple(float(density) for density in IMP_DENSITIES)

Table = pd.DataFrame
Shape = float | Callable[[float], float]


def curve(
    label: str,
    gap: Shape = 0.0,
    judged: str = "retrained",
    *,
    net: tuple[str, str] = RESNET20,
    densities: tuple[float, ...] = GRID,
    seeds: int = 10,
    spread: float = 0.02,
    scale: str = "paper",
    cost: Shape = 1.0,
    own: Shape | None = None,
    **fixed: Any,
) -> Table:
    """Rows of one method: accuracy 92 + gap(density) + noise, and the cost of each ticket."""
    rng = np.random.default_rng(zlib.crc32(f"{label}{judged}{net}".encode()))
    rows = []
    for seed in range(seeds):
        for index, density in enumerate(densities):
            accuracy = 92 + (gap(density) if callable(gap) else gap) + rng.normal() * spread
            total = float(cost(density) if callable(cost) else cost)
            part = total if own is None else float(own(density) if callable(own) else own)
            rows.append(
                {"scale": scale, "dataset": net[0], "architecture": net[1], "label": label}
                | {"seed": seed, "judged": judged, "density": density, "round": index}
                | {"test_accuracy": accuracy, "validation_accuracy": accuracy}
                | dict.fromkeys(COSTS, total)
                | {f"own_{name}": part for name in COSTS}
                | {"run": f"{label}-{judged}-{net}-{seed}-{scale}-{fixed.get('study', '')}"}
            )
    constant: dict[str, Any] = {
        "study": "s",
        "structure": "unstructured",
        "status": "ok",
        "device_name": "A",
    }
    constant |= {"setup": [()] * len(rows)}
    method = {"IMP": "imp"}.get(label, "dense" if label.startswith("dense") else "other")
    table = pd.DataFrame(rows).assign(**{"method": method, **constant, **fixed})
    return table.reindex(columns=list(COLUMNS))


def dense(
    net: tuple[str, str] = RESNET20, label: str = "dense", seeds: int = 10, **rest: Any
) -> Table:
    return curve(label, judged="found", net=net, densities=(1.0,), seeds=seeds, **rest)


def join(*tables: Table) -> Table:
    return with_costs(pd.concat(tables, ignore_index=True))


def at(scale: str, table: Table) -> Table:
    return table.assign(scale=scale)


def lowered(table: Table) -> Table:
    """The same at reduced scale; what was counted is what it was."""
    return table.assign(scale=table["scale"].replace("paper", "reduced"))


def verdict_of(claim: str, table: Table, facts: Mapping[str, float] | None = None) -> Verdict:
    return next(one for one in CLAIMS if one.id == claim).judge(table, facts)


def noisy(table: Table, label: str, points: float, judged: str | None = None) -> Table:
    """Spread one curve's seeds so far that nothing can be said about it."""
    chosen = table["label"] == label
    if judged:
        chosen &= table["judged"] == judged
    tilt = np.where(table["seed"] % 2, points, -points)
    return table.assign(test_accuracy=table["test_accuracy"] + np.where(chosen, tilt, 0))


def falling(knee: float, slope: float = 3.0) -> Callable[[float], float]:
    """Level with dense above a density, then falling: d* is just below `knee`."""
    return lambda density: min(0.0, slope * math.log(density / knee))


# B1: BiP - IMP on three pairs, as found and retrained.


def b1(found: float, retrained: float | None, nets: tuple[tuple[str, str], ...] = THREE) -> Table:
    parts = []
    for net in nets:
        parts += [curve("IMP", net=net), curve("BiP", found, "found", net=net)]
        if retrained is not None:
            parts.append(curve("BiP", retrained, net=net))
    return join(*parts)


B1: dict[str, tuple[Table, str]] = {
    "both lines": (b1(0.5, 0.3), "reproduced"),
    "as found only": (b1(0.5, -0.3), "partly"),
    "retrained missing": (b1(0.5, None), "partly"),
    "below": (b1(-0.5, -0.3), "not reproduced"),
    "straddling": (noisy(b1(0.0, 0.3), "BiP", 2, "found"), "inconclusive"),
    "two pairs": (b1(0.5, 0.3, THREE[:2]), "inconclusive"),
    "four seeds": (b1(0.5, 0.3).query("seed < 4"), "interim"),
    "no BiP": (b1(0.5, 0.3).query("label != 'BiP'"), "not run"),
}

# B2: IMP's cost over BiP's, with and without pretraining (a training costs 1).


def rounds(density: float) -> float:
    return 1 + math.log(density) / math.log(0.8)


def runs_of(trained: Table) -> Callable[[Table], pd.Series]:
    """The run of each row's seed."""
    return lambda rows: rows["seed"].map(trained.drop_duplicates("seed").set_index("seed")["run"])


def b2(bip: float, gap: float = 0.0, steps: Shape = rounds, **rest: Any) -> Table:
    bip_curve = curve("BiP", gap, "found", cost=1 + bip, own=bip, **rest)
    trained = dense()
    return join(trained, curve("IMP", cost=steps), bip_curve.assign(parent=runs_of(trained)))


B2: dict[str, tuple[Table, str]] = {
    "fast either way": (b2(0.5), "reproduced"),
    "fast without pretraining": (b2(1.3), "partly"),
    "slow": (b2(3.0), "not reproduced"),
    "never as accurate": (b2(0.5, gap=-1.0), "not reproduced"),
    "perhaps as accurate": (noisy(b2(0.5, gap=-0.2), "BiP", 1), "inconclusive"),
    "timed on two devices": (b2(0.5, device_name="B"), "partly"),
    "no BiP": (curve("IMP"), "not run"),
    "no dense": (b2(0.5).query("label != 'dense'"), "partly"),
}

# B3: BiP's cost over one-shot methods', pretraining counted; by what methods declare.


def counted(*tables: Table) -> Table:
    return at("counting", join(*tables)).query("seed == 0")


def b3(omp: float, untrained: float | None, bip: Shape = 2.0) -> Table:
    parts = [dense(), curve("BiP", judged="found", cost=bip)]
    parts += [curve("OMP", cost=omp), curve("Hydra", cost=omp)]
    if untrained is not None:
        parts += [curve(label, cost=untrained) for label in ("SNIP", "GraSP", "SynFlow")]
    return counted(*parts)


B3: dict[str, tuple[Table, str]] = {
    "as cheap as all": (b3(2.0, 1.6), "reproduced"),
    "dearer than untrained": (b3(2.0, 1.0), "partly"),
    "untrained missing": (b3(2.0, None), "partly"),
    "grows": (b3(2.0, 2.0, lambda density: 1.5 + 0.5 * rounds(density) / 10), "partly"),
    "dear": (b3(1.0, 1.0), "not reproduced"),
    "no one-shot": (counted(curve("BiP", judged="found")), "not run"),
}

# B5: all panels, unstructured and filter-wise.

PANELS = [
    *((data, net) for data in ("cifar10", "cifar100") for net in ("resnet18", "resnet20")),
    *(("cifar10", "resnet56"), ("cifar10", "vgg16-fc")),
    *(("tinyimagenet", "resnet18"), ("imagenet", "resnet50")),
]


def b5(gap: float, nets: list[tuple[str, str]], structure: str = "unstructured") -> Table:
    kinds = (("IMP", 0.0, "retrained"), ("BiP", gap, "found"), ("BiP", gap, "retrained"))
    return join(
        *(
            curve(label, points, judged, net=net, structure=structure, study=structure)
            for net in nets
            for label, points, judged in kinds
        )
    )


B5: dict[str, tuple[Table, str]] = {
    "all twelve": (join(b5(0.5, PANELS), b5(0.5, PANELS[:4], "filter")), "reproduced"),
    "not filter-wise": (b5(0.5, PANELS), "partly"),
    "most": (join(b5(0.5, PANELS[:3]), b5(-0.5, PANELS[3:5])), "partly"),
    "few": (join(b5(0.5, PANELS[:2]), b5(-0.5, PANELS[2:6])), "not reproduced"),
    "half": (join(b5(0.5, PANELS[:2]), b5(-0.5, PANELS[2:4])), "inconclusive"),
    "digits only": (b5(0.5, [("digits", "resnet8")]), "not run"),
}

# C1: CS against dense and against both controls.


def c1(
    ticket: float, control: float | None, nets: tuple[tuple[str, str], ...] = THREE[:2]
) -> Table:
    parts = []
    for net in nets:
        parts += [dense(net), curve("CS", falling(ticket), net=net)]
        if control is not None:
            parts += [
                curve(label, falling(control), net=net)
                for label in ("random", "CS, layers shuffled")
            ]
    return join(*parts)


C1: dict[str, tuple[Table, str]] = {
    "sparser than controls": (c1(0.04, 0.5), "reproduced"),
    "controls match": (c1(0.04, 0.04), "partly"),
    "one network": (c1(0.04, 0.5, (RESNET20,)), "partly"),
    "networks differ": (join(c1(0.04, 0.5, (RESNET20,)), c1(0.7, 0.5, (VGG16,))), "partly"),
    "controls missing": (c1(0.04, None), "partly"),
    "inferior": (c1(0.7, 0.5), "not reproduced"),
    "unclear": (noisy(c1(0.04, 0.5), "CS", 2), "inconclusive"),
    "five dense nets": (c1(0.04, 0.5).query("label != 'dense' or seed < 5"), "interim"),
    "no CS": (c1(0.04, 0.5).query("label != 'CS'"), "not run"),
}

# C2: CS against IMP and IMP-C, by d* and by band difference.


def c2(
    ticket: float, other: float, lead: float = 0.0, others: tuple[str, ...] = ("IMP", "IMP-C")
) -> Table:
    parts = []
    for net in (RESNET20, VGG16):
        shape = falling(ticket)
        parts += [dense(net), curve("CS", lambda d, shape=shape: shape(d) + lead, net=net)]
        parts += [curve(label, falling(other), net=net) for label in others]
    return join(*parts)


C2: dict[str, tuple[Table, str]] = {
    "sparser and better": (c2(0.04, 0.3), "reproduced"),
    "no IMP-C": (c2(0.04, 0.3, others=("IMP",)), "partly"),
    "sparser but worse": (
        join(
            *(
                join(
                    dense(net),
                    curve("CS", lambda d: -0.15 if d > 0.015 else -2.0, net=net),
                    *(
                        curve(label, lambda d: 0.6 if d > 0.03 else -2.0, net=net)
                        for label in ("IMP", "IMP-C")
                    ),
                )
                for net in (RESNET20, VGG16)
            )
        ),
        "partly",
    ),
    "denser and worse": (c2(0.6, 0.04), "not reproduced"),
    "unclear": (noisy(c2(0.1, 0.1), "CS", 1), "inconclusive"),
    "no CS": (c2(0.1, 0.1).query("label != 'CS'"), "not run"),
}

# C3: the fine-tuned net's d* against pruners trained as long.


def c3(ticket: float, other: float, *nets: tuple[str, str], epochs: float = 1.0) -> Table:
    others = (("GMP", "found"), ("OMP", "retrained"), ("IMP, learning-rate rewinding", "retrained"))
    parts = []
    for net in nets:
        parts += [dense(net), curve("CS", falling(ticket), "found", net=net)]
        parts += [
            curve(label, falling(other), judged, net=net, cost=epochs) for label, judged in others
        ]
    return join(*parts)


IMAGENET = ("imagenet", "resnet50")
ON_CIFAR = c3(0.04, 0.3, RESNET20, VGG16)
C3: dict[str, tuple[Table, str]] = {
    "everywhere": (c3(0.04, 0.3, RESNET20, VGG16, IMAGENET), "reproduced"),
    "level on ImageNet": (join(ON_CIFAR, c3(0.2, 0.2, IMAGENET)), "reproduced"),
    "far behind on ImageNet": (join(ON_CIFAR, c3(0.3, 0.1, IMAGENET)), "partly"),
    "CIFAR alone": (ON_CIFAR, "partly"),
    "denser": (c3(0.3, 0.04, RESNET20), "not reproduced"),
    "others trained less": (c3(0.04, 0.3, RESNET20, epochs=0.5), "inconclusive"),
    "others trained more": (c3(0.3, 0.04, RESNET20, epochs=2.0), "inconclusive"),
    "sparser than others trained more": (c3(0.04, 0.3, RESNET20, epochs=2.0), "partly"),
    "no other": (c3(0.04, 0.3, RESNET20).query("label in ['CS', 'dense']"), "not run"),
}

# C4: the validation-chosen ticket against dense with equal training.


def c4(gain: Shape, net: tuple[str, str] = RESNET20, n: int = 10) -> Table:
    tickets = curve("CS", gain, net=net, seeds=n, densities=GRID[:5])
    return join(tickets, dense(net, "dense, equal training"))


C4: dict[str, tuple[Table, str]] = {
    "a point": (join(c4(1.0), c4(1.0, VGG16)), "reproduced"),
    "a point on one network": (c4(1.0), "reproduced"),
    "nothing on the other": (join(c4(1.0), c4(-0.1, VGG16)), "reproduced"),
    "half a point": (join(c4(0.5), c4(0.5, VGG16)), "partly"),
    "half a point on one network": (join(c4(0.5), c4(-0.1, VGG16)), "partly"),
    "a point where most is kept": (
        join(*(c4(lambda d: 1.0 if d > 0.5 else -0.1, net) for net in (RESNET20, VGG16))),
        "not reproduced",
    ),
    "nothing": (join(c4(-0.1), c4(-0.1, VGG16)), "not reproduced"),
    "nothing on one network": (c4(-0.1), "inconclusive"),
    "unclear": (noisy(c4(0.9), "CS", 2), "inconclusive"),
    "eight seeds": (c4(1.0, n=8), "interim"),
    "no CS": (c4(1.0).query("label != 'CS'"), "not run"),
}

# C5: accuracy over the band; that the epochs are six to one is counted.


def c5(search: float, gap: float = 0.0, last: int = 30) -> Table:
    imp = curve("IMP", densities=ALL_ROUNDS[:last], cost=lambda d: 85 * (rounds(d) - 1))
    searches = curve("CS, as found", gap, "found", cost=search)
    tickets = join(curve("IMP", cost=850), searches, curve("CS", gap, cost=search + 85))
    return join(tickets, counted(imp, searches))


C5: dict[str, tuple[Table, str]] = {
    "six to one and as good": (c5(425), "reproduced"),
    "six to one and worse": (c5(425, -1.0), "not reproduced"),
    "as good in half the epochs": (c5(850), "not reproduced"),
    "unclear": (noisy(c5(425), "CS", 3), "inconclusive"),
    "not counted": (c5(425).query("scale == 'paper'"), "partly"),
    "IMP cut short": (c5(425, last=20), "partly"),
    "no tickets retrained": (c5(425).query("label != 'CS'"), "not run"),
}

# C6: CS against the stochastic methods and the best other.


def c6(stochastic: float, best: float) -> Table:
    parts = []
    for net in (RESNET20, VGG16):
        for judged in ("found", "retrained"):
            parts += [curve(label, stochastic, judged, net=net) for label in ("l0", "ISS")]
            parts += [curve("CS", 0.0, judged, net=net), curve("OMP", -3.0, judged, net=net)]
            parts.append(curve("GMP", best, judged, net=net))
    return join(*parts)


def twice(rows: Table) -> pd.Series:
    """Runs of a second search."""
    return rows["run"] + " again"


C6: dict[str, tuple[Table, str]] = {
    "beats all": (c6(-0.5, -0.5), "reproduced"),
    "the stochastic only": (c6(-0.5, 0.5), "partly"),
    "no other": (c6(-0.5, 0.5).query("label not in ['GMP', 'OMP']"), "partly"),
    "beaten": (c6(0.5, 0.5), "not reproduced"),
    "unclear": (noisy(c6(0.0, 0.0), "l0", 2), "inconclusive"),
    "CS alone was searched for twice": (
        join(c6(-0.5, -0.5), c6(-0.5, -0.5).query("label == 'CS'").assign(run=twice)),
        "partly",
    ),
    "no stochastic": (c6(-0.5, 0.5).query("label not in ['l0', 'ISS']"), "not run"),
}

# Also judged, and the gate.


def a1(gap: float, others: tuple[str, ...] = ("OMP", "SNIP", "GraSP", "SynFlow")) -> Table:
    return join(curve("IMP"), *(curve(label, gap) for label in others))


A1: dict[str, tuple[Table, str]] = {
    "all worse": (a1(-0.5), "reproduced"),
    "some missing": (a1(-0.5, ("OMP",)), "partly"),
    "most worse": (join(a1(-0.5, ("OMP", "SNIP", "GraSP")), curve("SynFlow", 0.5)), "partly"),
    "better": (a1(0.5), "not reproduced"),
    "unclear": (noisy(a1(0.0), "IMP", 2), "inconclusive"),
    "no one-shot": (curve("IMP"), "not run"),
}


def a2(imp: Shape, bip: Shape) -> Table:
    return counted(curve("IMP", cost=imp), curve("BiP", judged="found", cost=bip))


A2: dict[str, tuple[Table, str]] = {
    "grows and flat": (a2(rounds, 2.0), "reproduced"),
    "both grow": (a2(rounds, rounds), "partly"),
    "BiP missing on the band": (
        counted(curve("IMP", cost=rounds), curve("BiP", judged="found", densities=GRID[:3])),
        "partly",
    ),
    "only BiP grows": (a2(2.0, rounds), "not reproduced"),
    "no IMP": (counted(curve("BiP", judged="found")), "not run"),
}


def a3(ours: float, theirs: float) -> Table:
    return join(
        curve("CS", judged="found", spread=ours),
        *(curve(label, judged="found", spread=theirs) for label in ("l0", "ISS")),
    )


A3: dict[str, tuple[Table, str]] = {
    "steadier": (a3(0.1, 1.0), "reproduced"),
    "wider": (a3(1.0, 0.1), "not reproduced"),
    "four seeds": (a3(0.1, 1.0).query("seed < 4"), "interim"),
}


# A4 and A5: the ticket chosen on validation against dense; A6: retrained, against stochastic masks.


def a4(gain: float, longer: float | None = 0.0) -> Table:
    parts = [curve("BiP", gain, "found"), dense()]
    if longer is not None:
        parts.append(dense(label="dense, BiP's epochs", gap=longer))
    return join(*parts)


A4: dict[str, tuple[Table, str]] = {
    "better than both": (a4(0.5), "reproduced"),
    "trained on, dense is as good": (a4(0.5, 0.7), "partly"),
    "not trained on": (a4(0.5, None), "partly"),
    "no better": (a4(-0.1), "not reproduced"),
    "unclear": (noisy(a4(0.1), "BiP", 1), "inconclusive"),
    "no BiP": (dense(), "not run"),
}


A5: dict[str, tuple[Table, str]] = {
    "on both networks": (join(c4(0.5), c4(0.5, VGG16)), "reproduced"),
    "on one": (join(c4(0.5), c4(-0.1, VGG16)), "partly"),
    "where most is kept": (
        join(*(c4(lambda d: 0.5 if d > 0.5 else -1.0, net) for net in (RESNET20, VGG16))),
        "reproduced",
    ),
    "no better": (join(c4(-0.1), c4(-0.1, VGG16)), "not reproduced"),
    "unclear": (noisy(c4(0.1), "CS", 1), "inconclusive"),
    "no CS": (dense(), "not run"),
}


def a6(gap: float, *nets: tuple[str, str]) -> Table:
    kinds = (("CS", gap), ("l0", 0.0), ("ISS", 0.0))
    return join(*(curve(label, own, net=net) for label, own in kinds for net in nets))


A6: dict[str, tuple[Table, str]] = {
    "on both networks": (a6(0.5, RESNET20, VGG16), "reproduced"),
    "on one": (join(a6(0.5, RESNET20), a6(-0.5, VGG16)), "partly"),
    "worse": (a6(-0.5, RESNET20, VGG16), "not reproduced"),
    "unclear": (noisy(a6(0.0, RESNET20), "l0", 2), "inconclusive"),
    "no stochastic": (curve("CS"), "not run"),
}


def gate(gap: float, spread: float = 0.02) -> Table:
    # Renda et al.: IMP 91.74 on average over the band, dense 91.71.
    return join(dense(), curve("IMP", 0.03 + gap, spread=spread))


GATE: dict[str, tuple[Table, str]] = {
    "agrees": (gate(0.0), "reproduced"),
    "too good": (gate(1.0), "not reproduced"),
    "too bad": (gate(-1.0), "not reproduced"),
    "unclear": (noisy(gate(0.5), "IMP", 1), "inconclusive"),
    "three dense nets": (gate(0.0).query("label != 'dense' or seed < 3"), "interim"),
}

# H: the ends of three searches under one budget.


def h(cs: float, bip: float) -> Table:
    gaps = {"IMP": 0.0, "CS": cs, "BiP": bip}
    table = join(*(curve(one, gap, densities=(0.26, 0.11)) for one, gap in gaps.items()))
    return table.assign(run=table["run"] + table["density"].astype(str), study="head-to-head")


H: dict[str, tuple[Table, str]] = {
    "in order": (h(0.3, 0.6), "reproduced"),
    "BiP less than CS": (h(0.6, 0.3), "partly"),
    "the other way": (h(-0.3, -0.6), "not reproduced"),
    "unclear": (noisy(h(0.0, 0.0), "IMP", 2), "inconclusive"),
    "four seeds": (h(0.3, 0.6).query("seed < 4"), "interim"),
    "one density": (h(0.3, 0.6).query("density > 0.2"), "not run"),
}

CASES = {
    "G": GATE,
    "B1": B1,
    "B2": B2,
    "B3": B3,
    "B5": B5,
    "C1": C1,
    "C2": C2,
    "C3": C3,
    "C4": C4,
    "C5": C5,
    "C6": C6,
    "A1": A1,
    "A2": A2,
    "A3": A3,
    "A4": A4,
    "A5": A5,
    "A6": A6,
    "H": H,
}
COUNTED = ("A2", "B3")
FLAT = [(claim, name) for claim, cases in CASES.items() for name in cases]
DIRECTIONS = {"reproduced": "for", "not reproduced": "against"}


@pytest.mark.parametrize(("claim", "name"), FLAT)
def test_a_claims_outcome_at_paper_scale(claim: str, name: str) -> None:
    table, expected = CASES[claim][name]
    verdict = verdict_of(claim, table)
    assert (verdict.outcome, verdict.direction) == (expected, None), verdict.because
    assert verdict.scale == ("counting" if claim in COUNTED else "paper")
    assert bool(verdict.needs) or expected != "not run"
    if expected != "not run" and claim not in COUNTED:
        assert verdict.effect is not None and verdict.n >= 2
        assert f"n = {verdict.n}" in verdict.because
        assert verdict.headline.startswith(expected)


@pytest.mark.parametrize("claim", [claim for claim in CASES if claim not in ("G", "A3")])
def test_the_cases_cover_every_outcome(claim: str) -> None:
    some = {"interim", "inconclusive"} if claim in COUNTED else {"interim"}
    assert {outcome for _, outcome in CASES[claim].values()} | some == set(OUTCOMES)


@pytest.mark.parametrize(
    ("claim", "name"),
    [(claim, name) for claim, name in FLAT if CASES[claim][name][1] not in ("partly", "interim")],
)
def test_at_reduced_scale_there_is_only_a_direction(claim: str, name: str) -> None:
    table, expected = CASES[claim][name]
    verdict = verdict_of(claim, lowered(table))
    if verdict.outcome is not None:
        assert claim in COUNTED or (verdict.outcome, expected) == ("not run", "not run")
        assert verdict.direction is None
        return
    assert verdict.scale == "reduced"
    assert verdict.direction in ("for", "against", "undecided")
    # At paper scale each claim's cases give every outcome, so here they give every direction.
    if name == "two pairs":
        assert verdict.direction == "for"
    elif expected != "not run":
        assert verdict.direction == DIRECTIONS.get(expected, "undecided")
    assert verdict.headline == f"not run at paper scale; {verdict.direction} at reduced scale"


PREMISES = {"identity_error": 1e-15, "extra_backward_passes": 1.0}
STEEP = PREMISES | {"implicit_cosine_cifar10": 0.8}
OFF = "BiP, implicit term off"


def b4(gain: float) -> Table:
    return join(curve("BiP", gain, "found"), curve(OFF, judged="found"))


@pytest.mark.parametrize(
    ("facts", "table", "outcome"),
    [
        (STEEP, b4(0.5), "reproduced"),
        (STEEP, tidy([]), "not run"),
        (STEEP | {"implicit_cosine_cifar10": 0.01}, b4(0.5), "partly"),
        (STEEP | {"implicit_cosine_cifar10": 0.01}, b4(-0.5), "not reproduced"),
        (STEEP | {"implicit_cosine_cifar10": 0.01}, b4(-0.5).query("seed < 3"), "interim"),
        (STEEP | {"identity_error": 1e-3}, b4(0.5), "not reproduced"),
        (STEEP | {"extra_backward_passes": 2.0}, b4(0.5), "not reproduced"),
        ({"implicit_cosine_cifar10": 0.8}, b4(0.5), "partly"),
        (PREMISES, b4(0.5), "partly"),
        ({}, tidy([]), "not run"),
    ],
)
def test_b4_is_judged_by_what_can_fail(facts: dict[str, float], table: Table, outcome: str) -> None:
    verdict = verdict_of("B4", table, facts)
    assert (verdict.outcome, verdict.scale, verdict.direction) == (outcome, "paper", None)
    if "identity_error" not in facts and facts:
        assert verdict.needs[0].startswith("fact identity_error")


def test_b4_says_when_the_implicit_term_is_immaterial() -> None:
    assert "immaterial" in verdict_of("B4", b4(0.01), STEEP).because
    assert "immaterial" not in verdict_of("B4", b4(1.0), STEEP).because


def test_what_was_measured_on_digits_decides_nothing_of_b4() -> None:
    digits = {"implicit_cosine_network": 0.9, "cosine_network": 0.9, "direct_cosine_network": 0.8}
    assert verdict_of("B4", tidy([]), PREMISES | digits).outcome == "not run"
    said = verdict_of("B4", b4(0.5), STEEP | digits)
    assert said.outcome == "reproduced"
    assert "the cosine of the term alone is 0.90, of the whole hypergradient 0.90" in said.because


def test_of_a_search_with_gates_the_last_round_counts() -> None:
    first, last = (
        [
            curve("CS", gap, densities=(density,), round=index, rounds=2, study=f"s{density}")
            for density in GRID[2:9:3]
        ]
        for index, gap in enumerate((-9.0, 0.5))
    )
    table = join(*first, *last, curve("l0"), curve("ISS")).assign(study="s")
    assert verdict_of("A6", table).effect == pytest.approx(0.5, abs=0.05)
    early = join(*first, curve("l0"), curve("ISS")).assign(study="s")
    assert verdict_of("A6", early).outcome == "not run"


def test_the_best_other_method_is_chosen_on_validation() -> None:
    table = c6(-0.5, -0.5)
    swapped = table["label"].map({"OMP": 99.0, "GMP": 1.0}).fillna(table["validation_accuracy"])
    verdict = verdict_of("C6", table.assign(validation_accuracy=swapped))
    assert "CS retrained - OMP retrained" in verdict.because
    assert "GMP" not in verdict.because


def test_c5_shows_the_other_counts_beside() -> None:
    because = verdict_of("C5", c5(425)).because
    assert "Premises: epochs in sequence of IMP / CS = 6.00 (cifar10 / resnet20)" in because
    assert "CS with retraining 510, all CS searches 425" in because
    assert "one-shot not run" in because


def test_the_sentence_holds_effect_interval_density_scale_and_n() -> None:
    verdict = verdict_of("B1", b1(0.5, 0.3))
    assert "At paper scale: BiP as found - IMP retrained = +0.5" in verdict.because
    assert "over 51-13 % density (cifar10 / resnet20), n = 10;" in verdict.because
    assert "over 21-2.3 % density (cifar10 / vgg16)" in verdict.because
    assert verdict.effect == pytest.approx(0.5, abs=0.02)
    assert verdict.interval is not None
    assert verdict.interval[0] < verdict.effect < verdict.interval[1]


@pytest.mark.parametrize("claim", list(CASES))
@pytest.mark.parametrize(
    "change", [{"scale": "embedded"}, {"dataset": "digits"}, {"dataset": "folder"}]
)
def test_digits_and_generated_folders_never_feed_a_verdict(
    claim: str, change: dict[str, str]
) -> None:
    table, _ = next(iter(CASES[claim].values()))
    verdict = verdict_of(claim, table.assign(**change))
    assert (verdict.outcome, verdict.direction, verdict.effect) == ("not run", None, None)


def test_embedded_rows_beside_real_ones_change_nothing() -> None:
    table = b1(0.5, 0.3)
    other = b1(-5.0, -5.0).assign(scale="embedded", dataset="digits")
    assert verdict_of("B1", join(table, other)) == verdict_of("B1", table)


def test_a_run_recorded_in_two_studies_counts_once() -> None:
    table = b1(0.5, 0.3)
    assert verdict_of("B1", join(table, table.assign(study="t"))) == verdict_of("B1", table)


def test_another_setting_under_another_label_is_another_method() -> None:
    table = join(a1(-0.5), curve("OMP, compute-matched", 5.0).assign(method="omp"))
    assert verdict_of("A1", table) == verdict_of("A1", a1(-0.5))


def test_a_study_of_precisions_never_leads() -> None:
    names = [f"{label}, {one}" for label in ("dense", "OMP", "BiP") for one in ("fp32", "bf16")]
    more = join(*(curve(name, 5.0, seeds=30) for name in names)).assign(study="precision")
    assert verdict_of("A1", join(a1(-0.5), more)) == verdict_of("A1", a1(-0.5))
    assert verdict_of("B1", join(b1(0.5, 0.3), more)) == verdict_of("B1", b1(0.5, 0.3))


def test_failed_runs_are_left_out_and_counted() -> None:
    broken = curve("BiP", judged="found", seeds=2, densities=(0.1,), status="failed", study="f")
    broken = broken.assign(test_accuracy=math.nan, density=math.nan)
    assert (
        "2 failed runs at this scale are left out"
        in verdict_of("B1", join(b1(1, 1), broken)).because
    )


def test_a_count_has_no_interval() -> None:
    verdict = verdict_of("B2", b2(1.3))
    assert "passes of IMP retrained / BiP as found = 1.74 in every seed, at 51 %" in verdict.because
    assert verdict_of("A2", a2(rounds, 2.0)).interval is None


def test_one_seed_at_reduced_scale_is_undecided() -> None:
    verdict = verdict_of("B1", at("reduced", b1(0.5, 0.3).query("seed == 0")))
    assert (verdict.outcome, verdict.direction) == (None, "undecided")
    assert verdict.interval is None and verdict.n == 1 and "without interval" in verdict.because


def test_a_curve_that_misses_the_band_is_named() -> None:
    table = join(b1(0.5, 0.3), curve("BiP", 0.5, net=VGG16, densities=(0.2,), study="more"))
    table = table[(table["study"] == "more") | (table["label"] + table["judged"] != "BiPretrained")]
    verdict = verdict_of("B1", table.assign(study="s"))
    assert verdict.outcome == "partly"
    assert verdict.needs[0] == (
        "BiP retrained on cifar10 / vgg16 over 21-2.3 % density (5 seeds or more at paper scale)"
    )


def test_more_data_never_lowers_a_verdict() -> None:
    """A fourth pair with one seed does not count, is named, and needs nothing of the claim."""
    net = ("cifar100", "resnet20")
    parts = (curve("BiP", -1.0, "found", net=net), curve("BiP", net=net), curve("IMP", net=net))
    verdict = verdict_of("B1", join(b1(0.5, 0.3), *(part.query("seed < 1") for part in parts)))
    assert (verdict.outcome, verdict.needs) == ("reproduced", ())
    assert "their minimum these do not count: cifar100 / resnet20." in verdict.because
    assert "cifar100" not in verdict.because.split("Without")[0]


def test_a_method_half_measured_on_another_network_does_not_lower_a_verdict() -> None:
    few = (curve("IMP", net=VGG16), curve("OMP", net=VGG16, seeds=2))
    assert verdict_of("A1", join(a1(-0.5), *few)).outcome == "reproduced"
    only = verdict_of("A1", join(*few, curve("SNIP", -0.5, net=VGG16)))
    assert only.outcome == "partly" and len(only.needs) == 3


def test_no_curve_is_filled_in_where_it_was_not_measured() -> None:
    """Two equal curves that bend: one measured at three densities, the other at each round."""

    def bent(density: float) -> float:
        return -2.0 * math.log(density) ** 2

    few = (0.512, 0.262, 0.134)
    found = [curve("BiP", bent, judged, densities=few) for judged in ("found", "retrained")]
    verdict = verdict_of("B1", join(curve("IMP", bent), *found))
    assert verdict.effect == pytest.approx(0.0, abs=0.03)
    at_two = [part[part["density"] != 0.262] for part in found]
    assert verdict_of("B1", join(curve("IMP", bent), *at_two)).outcome == "not run"


def test_a_curve_with_densities_of_its_own_is_compared_at_those() -> None:
    """CS misses IMP's rounds, each seed by other amounts; the curves fall, and are the same."""

    def steep(density: float) -> float:
        return 3.0 * math.log(density)

    seeds = [
        curve(
            "CS", steep, densities=tuple(d * (0.92 + 0.02 * seed) for d in (0.5, 0.3, 0.2))
        ).query("seed == @seed")
        for seed in range(8)
    ]
    part = verdict_of("C5", join(c5(425).query("label != 'CS'"), *seeds))
    assert "CS retrained - IMP retrained" in part.because
    value = verdict_of("C2", join(curve("IMP", steep), *seeds))
    assert value.effect == pytest.approx(0.0, abs=0.03)


def test_what_rests_on_the_same_runs_is_paired() -> None:
    """The luck of ten dense nets, a point, is in both curves, and goes out of the difference."""
    trained = dense()
    luck = trained["seed"].map(dict(enumerate([-1.0, 1.0] * 5)))
    trained["test_accuracy"] += luck
    of = runs_of(trained)
    pair = [curve("BiP", judged="found"), curve("BiP, implicit term off", judged="found")]
    for part in pair:
        part["test_accuracy"] += part["seed"].map(lambda seed: (-1.0) ** seed)
    shared = join(trained, *(part.assign(parent=of) for part in pair))
    assert "[-0.0" in (said := verdict_of("B4", shared, STEEP).because)
    assert "n = 10 pairs" in said
    apart = verdict_of("B4", join(trained, *pair), STEEP).because
    assert "n = 10 pairs" not in apart


def test_b2_asks_for_accuracy_and_cost_at_each_fixed_density() -> None:
    verdict = verdict_of("B2", b2(0.5))
    for percent in (51, 26, 13):
        where = f"at {percent} % density"
        assert "points [" in verdict.because and verdict.because.count(where) == 5


def test_failing_where_speed_is_low_gains_nothing() -> None:
    """BiP 3 points worse at 51 %, where it is slow, and as good where it is fast."""
    table = b2(1.3)
    worse = (table["label"] == "BiP") & (table["density"] > 0.5)
    table = table.assign(test_accuracy=table["test_accuracy"] - 3.0 * worse)
    assert verdict_of("B2", table).outcome == "not reproduced"


def test_densities_of_one_seed_are_no_sample_of_its_spread() -> None:
    """Seeds of CS that lie apart along the whole curve count once each, not once a density."""
    table = a3(0.0, 0.02)
    shift = table["seed"].map(dict(enumerate(np.linspace(-0.02, 0.02, 8))))
    table = table.assign(test_accuracy=table["test_accuracy"] + (table["label"] == "CS") * shift)
    verdict = verdict_of("A3", table)
    assert verdict.effect is not None and verdict.effect > 1.2


def test_a_curve_that_never_crosses_decides_no_ratio_against_it() -> None:
    # CS is measured to 10 % only and never falls; IMP to 2 %, and never falls either.
    table = join(dense(), curve("CS", densities=GRID[:10]), curve("IMP"))
    because = verdict_of("C2", table).because
    assert "d* of CS retrained / IMP retrained = at most 11 % / at most 1.8 %" in because
    assert verdict_of("C2", table).outcome == "inconclusive"


def test_the_gate_holds_back_decisive_outcomes() -> None:
    table = join(b1(0.5, 0.3), a2(rounds, 2.0))
    verdicts = {one.claim: one for one in judge(table)}
    assert verdicts["G"].outcome == "not run"
    assert verdicts["B1"].outcome == "inconclusive"
    assert "without it this is reproduced" in verdicts["B1"].because
    assert "the gate G to stand" in verdicts["B1"].needs
    assert verdicts["A2"].headline == "follows from counting"


def test_once_the_gate_stands_outcomes_are_given() -> None:
    table = join(b1(0.5, 0.3), dense())
    verdicts = judge(table)
    assert [one.claim for one in verdicts] == [claim.id for claim in CLAIMS]
    assert (verdicts[0].outcome, verdicts[1].outcome) == ("reproduced", "reproduced")


def test_the_gate_is_asked_of_the_studies_that_a_claim_is_judged_on() -> None:
    """Two studies: in BiP's the gate is against, in another, which G is judged on, it stands."""
    ours = join(b1(0.5, 0.3), dense(gap=-1.0)).assign(study="bip-core")
    other = gate(0.0).assign(study="gate")
    other["run"] += " of the gate"
    verdicts = {one.claim: one for one in judge(join(ours, other))}
    assert verdicts["G"].outcome == "reproduced"
    assert verdicts["B1"].outcome == "inconclusive"
    assert "on these studies the gate is not reproduced" in verdicts["B1"].because


@pytest.mark.parametrize(("apart", "direction"), [(0.0, "for"), (-1.0, "withheld"), (None, "for")])
def test_a_direction_is_withheld_where_the_gate_is_against(
    apart: float | None, direction: str
) -> None:
    nets = dense(gap=apart) if apart is not None else dense(VGG16)
    (verdict,) = (v for v in judge(at("reduced", join(b1(0.5, 0.3), nets))) if v.claim == "B1")
    assert (verdict.outcome, verdict.direction) == (None, direction)
    assert ("so for is withheld" in verdict.because) == (direction == "withheld")
    said = "direction withheld" if direction == "withheld" else direction
    assert verdict.headline == f"not run at paper scale; {said} at reduced scale"


# When a verdict may change: at 5 and at 10 seeds.


@pytest.mark.parametrize(
    ("gap", "tilt", "at_five"), [(0.5, 0.1, "reproduced"), (0.3, 0.3, "interim")]
)
def test_more_seeds_change_a_verdict_only_at_a_look(gap: float, tilt: float, at_five: str) -> None:
    """Seeds whose IMP is better and worse in turn, from one to twelve."""
    others = (curve(one, -gap, seeds=12) for one in ("OMP", "SNIP", "GraSP", "SynFlow"))
    table = noisy(join(curve("IMP", seeds=12), *others), "IMP", tilt)
    verdicts = [verdict_of("A1", table.query("seed < @n")) for n in range(1, 13)]
    outcomes = [one.outcome for one in verdicts]
    assert outcomes[:4] == ["interim"] * 4
    assert set(outcomes[4:9]) == {at_five} and len(set(outcomes[9:])) == 1
    assert outcomes[9] in ("reproduced", "inconclusive")
    assert [one.n for one in verdicts[:4]] == [1, 2, 3, 4]
    if at_five == "reproduced":
        assert len({one.effect for one in verdicts[4:9]}) == 1


def test_an_interim_verdict_says_where_it_leans() -> None:
    for gap, leaning in ((0.5, "for"), (-0.5, "against")):
        verdict = verdict_of("B1", b1(gap, gap).query("seed < 3"))
        assert verdict.headline == f"interim: n = 3, so far {leaning}"
        assert "Decided at 5 and 10 seeds and not between" in verdict.because
        assert any("5 seeds or more" in need for need in verdict.needs)


def test_intervals_are_those_of_the_look() -> None:
    """At five seeds 99.48 % and not 95 %: wider by t's quantiles, whatever the numbers."""
    table = join(dense(), curve("IMP", 0.03, spread=0.2)).query("label == 'dense' or seed < 5")
    verdict = verdict_of("G", table)
    plain = verdict_of("G", at("reduced", table))
    assert verdict.interval is not None and plain.interval is not None
    wide, narrow = (high - low for low, high in (verdict.interval, plain.interval))
    assert wide > 1.3 * narrow


# Which runs are at paper scale, and which study is judged.


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"width": "4"}, "width 4, not 16"),
        ({"length": "5ep"}, "length 5ep, not 85ep"),
        ({"schedule": "cosine"}, "schedule cosine, not step at 56ep, 71ep"),
        ({"batch_size": "512"}, "batch_size 512, not 128"),
        ({"train_images": "10000"}, "train_images 10000, not all"),
        ({"retrain.length": "3ep"}, "retrain.length 3ep, not the whole schedule"),
    ],
)
def test_paper_scale_is_checked_and_not_declared(changed: dict[str, str], reason: str) -> None:
    paper = {"train_images": "all", "width": "16", "batch_size": "128", "length": "85ep"}
    paper |= {"schedule": "step at 56ep, 71ep", "cs.length": ""}
    for setup, scale in ((paper, "paper"), (paper | changed, "reduced")):
        table = c5(425)
        table["setup"] = [tuple(setup.items())] * len(table)
        verdict = verdict_of("C5", table)
        assert verdict.scale == scale
        assert (reason in verdict.because) == (scale == "reduced")


def test_another_network_is_not_at_paper_scale() -> None:
    wrong = b1(0.5, 0.3).assign(architecture="resnet8")
    assert "network resnet8" in verdict_of("B1", wrong).because
    assert verdict_of("B1", wrong).outcome is None


def test_only_runs_that_a_claim_could_be_judged_on_are_named_as_departing() -> None:
    """Not those of BiP on a network of its own, nor those of a study that other claims list."""
    other = join(*(curve(one, net=RESNET18, study="mine") for one in ("BiP", "IMP")))
    tickets = c1(0.04, 0.5)
    assert verdict_of("C1", join(tickets, other)) == verdict_of("C1", tickets)
    head = h(0.5, 1.0)
    head["setup"] = [(("length", "40ep"),)] * len(head)
    assert "length 40ep" not in verdict_of("C1", join(tickets, head)).because
    assert "length 40ep" in verdict_of("C1", head.assign(study="mine")).because
    assert verdict_of("H", head).outcome == "reproduced"
    assert verdict_of("H", tickets).outcome == "not run"


def test_tickets_at_other_densities_are_said_to_be_there() -> None:
    """Of CS with three initial gates, say: two in the band, and none at its middle."""
    tickets = curve("CS", densities=(GRID[3], GRID[8]))
    few = at("reduced", join(dense(), tickets))
    verdict = verdict_of("C1", few)
    assert verdict.headline == "not run: tickets at reduced scale lie at other densities"
    assert "lack: CS retrained on cifar10 / resnet20 over 26-21 % density" in verdict.because
    assert verdict_of("A6", few).headline == "not run"


def test_what_a_direction_leaves_to_do_is_said_of_the_papers_scale() -> None:
    verdict = verdict_of("B1", lowered(b1(0.5, 0.3)))
    assert verdict.direction == "for"
    assert verdict.needs == ("three pairs of data set and network, as found and retrained",)


def test_the_study_that_is_judged_was_chosen_beforehand() -> None:
    """The first by the claim's order, however many tickets another holds; enough seeds go first."""
    core = b1(0.5, 0.3).assign(study="bip-core")
    other = b1(-0.5, -0.3).assign(study="bip-cifar10-resnet20")
    other["run"] += " of the other"
    assert verdict_of("B1", join(core, other)).outcome == "reproduced"
    assert verdict_of("B1", join(core.query("density > 0.02"), other)).outcome == "reproduced"
    begun = join(core.query("seed < 4"), other)
    assert (verdict := verdict_of("B1", begun)).outcome == "not reproduced"
    assert "bip-core takes the place of bip-cifar10-resnet20 at 5 seeds of BiP; it has 4" in (
        verdict.because
    )
    assert "takes the place" not in verdict_of("B1", join(core, other)).because


def test_nothing_run_is_said_so() -> None:
    for verdict in judge(tidy([])):
        assert (verdict.outcome, verdict.direction, verdict.n) == ("not run", None, 0)
        assert verdict.needs and verdict.because.startswith("No runs that this can be judged on")


def test_judging_is_pure() -> None:
    table = b1(0.5, 0.3)
    before = table.copy()
    assert judge(table) == judge(table)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("facts", [{"speed": 1.0}, {"identity_error": math.nan}])
def test_a_wrong_fact_is_refused(facts: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="expected finite numbers for"):
        judge(tidy([]), facts)


def test_a_table_of_another_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lacks columns \['density'\]"):
        judge(tidy([]).drop(columns="density"))


def test_claims_are_complete() -> None:
    ids = [claim.id for claim in CLAIMS]
    assert ids[0] == "G" and len(ids) == len(set(ids))
    assert CASES.keys() | {"B4"} == set(ids)  # B4 rests on facts too
    assert {row["claim"] for row in CRITERIA} == set(ids)
    for claim in CLAIMS:
        assert all(vars(claim).values()) and claim.gated in ("yes", "no")
        assert claim.rule in RULES
    for row in CRITERIA:
        assert callable(getattr(comparisons, row["compare"])) and row["ours"]


def test_claims_and_criteria_name_what_there_is() -> None:
    """A name that is misspelled would leave a claim without runs for ever."""
    families = {row["family"] for row in PROTOCOLS}
    labels = {"dense", *(contestant.label for contestant in CONTESTANTS.values())}
    for claim in CLAIMS:
        assert claim.lead in labels
        assert set(claim.family.split("|")) <= families
        assert set(claim.studies.split("|")) <= set(recipe_names())
    curves = {curve for row in CRITERIA for curve in f"{row['ours']}|{row['theirs']}".split("|")}
    curves = {re.sub(r"(^| )(as found|retrained)$", "", curve) for curve in curves} - {""}
    assert curves <= labels | set(FACTS)


def test_a_margin_of_zero_is_no_other_question() -> None:
    """A sure loss of 0.1 points: not above zero, and not inferior, each by its own bounds."""
    loss = Difference(9, True, -0.1, -0.13, -0.07, -0.12, -0.08, 0.0)
    assert (side_of(loss, "above 0"), side_of(loss, "not below -0.2")) == ("against", "for")
    wide = Difference(9, True, -0.1, -0.21, 0.01, -0.19, -0.01, 0.05)
    assert (side_of(wide, "above 0"), side_of(wide, "not below -0.2")) == ("undecided", "for")


def test_a_count_that_was_not_run_is_said_so() -> None:
    assert "one-shot not run" in verdict_of("C5", c5(425)).because
    assert "one-shot 170" in verdict_of("C5", join(c5(425), curve("OMP", cost=170))).because


@pytest.mark.parametrize(
    ("low", "high", "stands", "side"),
    [
        (0.1, 1, "above 0", "for"),
        (-1, -0.1, "above 0", "against"),
        (-1, 1, "above 0", "undecided"),
        (math.nan, math.nan, "above 0", "undecided"),
        (0.1, 0.9, "below 1", "for"),
        (1.1, 2, "below 1", "against"),
        (0.5, 2, "below 1", "undecided"),
        (2, 2, "above 2", "undecided"),
        (2, 2, "at least 2", "for"),
        (1.5, 1.5, "at most 1.5", "for"),
        (-0.19, 1, "not below -0.2", "for"),
        (-0.2, 1, "not below -0.2", "undecided"),
        (-0.4, 0.4, "within 0.5", "for"),
        (-0.6, 0.4, "within 0.5", "undecided"),
        (0.6, 0.9, "within 0.5", "against"),
    ],
)
def test_sides(low: float, high: float, stands: str, side: str) -> None:
    assert side_of(Difference(3, False, 0.0, low, high, low, high, 0.5), stands) == side


def test_sides_together() -> None:
    parts = [Part(side, Difference(3, False, *[0.0] * 5, 0.03), "") for side in get_args(Side)]
    stands, against, open_ = parts
    assert all_of([stands, open_]) == "undecided" and all_of([]) is None
    assert all_of([against]) == "against" and all_of([stands]) == "for"
    # One of four that is against by chance once in thirty times says nothing of all.
    assert all_of([stands, stands, stands, against]) == "undecided"
    sure = replace(against, value=replace(against.value, p=0.02))
    assert all_of([stands, stands, stands, sure]) == "against"
    assert most_of(["for", "for", "against"]) == "for" and most_of([]) is None
    assert most_of(["for", "against"]) == "undecided"
    assert most_of(["for", "for"], fewest=3) == "undecided"


def test_studies_of_one_network_are_not_mixed() -> None:
    """Two recipes, one of whose networks are 10 points worse: each claim sees its own method's."""
    ours = [curve("BiP", 0.5, "found"), curve("BiP", 0.5), curve("IMP"), dense()]
    theirs = [curve("CS", -9.0), curve("IMP", -10.0), dense(gap=-10.0)]
    table = join(
        *(part.assign(study="bip") for part in ours),
        *(part.assign(study="cs", run="cs " + part["run"]) for part in theirs),
    )
    for claim, method, gap in (("B1", "BiP", 0.5), ("C2", "CS", 1.0), ("G", "IMP", 0.0)):
        assert verdict_of(claim, at("reduced", table)).effect == pytest.approx(gap, abs=0.1), method


def test_a_run_of_two_studies_counts_once() -> None:
    parts = [curve("BiP", 0.5, "found"), curve("BiP", 0.5), curve("IMP"), dense()]
    table = join(*parts)
    again = join(table.assign(study="a"), table.assign(study="b"))
    assert verdict_of("B1", at("reduced", again)) == verdict_of("B1", at("reduced", table))
