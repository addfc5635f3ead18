"""The claims of both papers as data (`claims.csv`), each with the function that judges it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import pandas as pd

from companion.evidence import comparisons as on
from companion.evidence import statistics as stats
from companion.evidence.comparisons import Curve, Net, Part, Side, View, all_of
from companion.evidence.reported import reported_curve
from lthlib.errors import ConfigError

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"
OUTCOMES = (REPRODUCED, PARTLY, NOT, INCONCLUSIVE, NOT_RUN)
DIRECTIONS = {REPRODUCED: "for", NOT: "against"}

BIP, BIP_RETRAINED = Curve("BiP", "found"), Curve("BiP", "retrained")
BIP_EXPLICIT = Curve("BiP, implicit term off", "found")
CS_FOUND, CS = Curve("CS", "found"), Curve("CS", "retrained")
IMP, IMP_C = Curve("IMP", "retrained"), Curve("IMP-C", "retrained")
IMP_RATE = Curve("IMP, learning-rate rewinding", "retrained")
OMP, HYDRA, GMP = Curve("OMP", "retrained"), Curve("Hydra", "retrained"), Curve("GMP", "found")
UNTRAINED = tuple(Curve(label, "retrained") for label in ("SNIP", "GraSP", "SynFlow"))
CONTROLS = tuple(Curve(label, "retrained") for label in ("random", "CS, layers shuffled"))
DENSE_LONGER = tuple(
    Curve(label, "found") for label in ("dense, equal training", "dense, search epochs")
)
STOCHASTIC = ("l0", "ISS")
OTHERS = ("GMP", "IMP", "IMP-C", "OMP", "BiP", "Hydra", "SNIP", "GraSP", "SynFlow")

RESNET20: Net = ("cifar10", "resnet20")
IMAGENET: Net = ("imagenet", "resnet50")
CIFAR_NETS = (RESNET20, ("cifar10", "vgg16"))
FILTER_PANELS = tuple((data, f"resnet{n}") for data in ("cifar10", "cifar100") for n in (18, 20))
REMAINING_PANELS = (("cifar10", "resnet56"), ("cifar10", "vgg16fc"), ("tinyimagenet", "resnet18"))
PANELS = (*FILTER_PANELS, *REMAINING_PANELS, IMAGENET)

FACTS = {
    "identity_error": "B4: largest relative error of the bilinear identities, in float64",
    "extra_backward_passes": "B4: backward passes of an alternation beyond its lower steps'",
    "cosine_quadratic": "B4: cosine of the Hessian-free to the exact hypergradient, quadratics",
    "cosine_network": "B4: the same on a small network trained on real images",
    "implicit_cosine_quadratic": "B4, beside: cosine of the implicit terms alone, quadratics",
    "implicit_cosine_network": "B4, beside: the same on the network",
    "direct_cosine_network": "B4, beside: cosine_network with the implicit term left out",
    "gap_cs": "A3: CS's accuracy in training less that in evaluation, percent points",
    "gap_stochastic": "A3: the same for the stochastic methods",
    "tuning_trials_equal": "C6: 1 if every method had the same number of tuning trials, else 0",
}
_LEADS = {"G": "IMP", "A1": "OMP", "A2": "BiP", "A3": "CS"}
_UNITS = ("passes", "seconds")
_GATE_MARGIN = 0.5
_FLAT = 1.1
_ONE_SHOT = 1.5
_PAPER_SPEED = 2550 / 425

Results = Iterable[Part | str]


@dataclass(frozen=True)
class Finding:
    """What a judging function found, whatever the scale; `lead` are the parts of the headline."""

    outcome: str
    parts: Sequence[Part]
    lead: Sequence[Part]
    needs: Sequence[str]
    complete: bool
    notes: Sequence[str] = ()


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
    """A claim, its criterion, what judging it requires, and the pure function that judges it."""

    id: str
    paper: str
    statement: str
    criterion: str
    requires: str
    find: Callable[[View], Finding]

    @property
    def gated(self) -> bool:
        """Whether the gate must stand first: for all claims that rest on trained networks."""
        return self.id not in ("G", "B4")

    @property
    def lead(self) -> str:
        """The method whose studies this claim is judged on."""
        return _LEADS.get(self.id) or {"B": "BiP", "C": "CS"}[self.id[0]]

    def judge(self, table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> Verdict:
        """Judge this claim alone, without the gate; at reduced scale if none ran at the paper's.

        Args:
            table: from `tidy`.
            facts: measurements that no record holds, by the names in `FACTS`.

        Raises:
            ConfigError: a fact is unknown or not finite, or the table lacks a column.
        """
        return self._judged(_views(table, facts))

    def _judged(self, views: Sequence[View]) -> Verdict:
        led = [view.led_by(self.lead) for view in views]
        verdicts = [_verdict(self, view, self.find(view)) for view in led]
        return next((one for one in verdicts if one.outcome != NOT_RUN), verdicts[0])


def judge(table: pd.DataFrame, facts: Mapping[str, float] | None = None) -> list[Verdict]:
    """Judge the gate and every claim, in the order of `CLAIMS`.

    While the gate does not stand at paper scale, no claim that rests on trained networks gets a
    decisive outcome there: it is inconclusive.

    Args:
        table: from `tidy`.
        facts: measurements that no record holds, by the names in `FACTS`.

    Raises:
        ConfigError: a fact is unknown or not finite, or the table lacks a column.
    """
    views = _views(table, facts)
    verdicts = [claim._judged(views) for claim in CLAIMS]
    gate = verdicts[0]
    if gate.outcome == REPRODUCED:
        return verdicts
    pairs = zip(CLAIMS, verdicts, strict=True)
    return [_held(verdict, gate) if claim.gated else verdict for claim, verdict in pairs]


def _views(table: pd.DataFrame, facts: Mapping[str, float] | None) -> list[View]:
    for name, value in (facts or {}).items():
        if name not in FACTS or not math.isfinite(value):
            raise ConfigError(f"fact {name} = {value}; expected finite numbers for {FACTS}")
    return [View.of(table, scale, facts or {}) for scale in ("paper", "reduced")]


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


def _finding(
    rule: Callable[..., str],
    *lines: Results,
    reduce: Callable[[list[Side]], Any] = all_of,
    needs: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Finding:
    """Judge lines of comparisons: `rule` sees one side a line; the first line must exist."""
    made = [on.split(line) for line in lines]
    lacking = [*(text for _, missing in made for text in missing), *needs]
    lead = made[0][0]
    if not lead:
        return Finding(NOT_RUN, (), (), lacking, False)
    outcome = rule(*(reduce([part.side for part in parts]) for parts, _ in made))
    complete = not lacking and all(parts for parts, _ in made)
    return Finding(
        outcome, [part for parts, _ in made for part in parts], lead, lacking, complete, notes
    )


def _by_net(groups: Iterable[Results], rank: Callable[[list[Part]], str]) -> Finding:
    """Judge each network by itself: the common outcome, or partly where some stand."""
    made = [on.split(group) for group in groups]
    needs = [text for _, missing in made for text in missing]
    judged = [parts for parts, _ in made if parts]
    outcomes = {rank(parts) for parts in judged}
    if len(outcomes) > 1:
        outcomes = {PARTLY if outcomes & {REPRODUCED, PARTLY} else INCONCLUSIVE}
    outcome = outcomes.pop() if outcomes else NOT_RUN
    parts, lead = [part for group in judged for part in group], [group[0] for group in judged]
    return Finding(outcome, parts, lead, needs, not needs)


def _in_order(first: Side | None, *rest: Side | None) -> str:
    """Reproduced if all stand, partly if the first does, not if it is against; None was not run."""
    if first == "against":
        return NOT
    if first != "for":
        return INCONCLUSIVE
    return REPRODUCED if all(side in ("for", None) for side in rest) else PARTLY


def _either(*sides: Side | None) -> str:
    """Reproduced if all stand, partly if one does, not if all are against; None was not run."""
    known = {side for side in sides if side is not None}
    if "for" in known:
        return REPRODUCED if known == {"for"} else PARTLY
    return NOT if known == {"against"} else INCONCLUSIVE


def _mostly(sides: Sequence[Side]) -> str:
    """Reproduced if all stand, partly if most do, not if most are against."""
    if set(sides) == {"for"}:
        return REPRODUCED
    return {"for": PARTLY, "against": NOT}.get(on.most_of(sides) or "", INCONCLUSIVE)


def find_b1(view: View) -> Finding:
    lines = [
        [on.band_part(view, net, curve, IMP) for net in view.nets(curve, IMP)]
        for curve in (BIP, BIP_RETRAINED)
    ]
    fewest = 3 if view.scale == "paper" else 1
    few = view.scale == "paper" and min(map(len, lines)) < fewest
    needs = ["three pairs of data set and network, as found and retrained"] if few else []

    def most(sides: list[Side]) -> Side | None:
        return "undecided" if 0 < len(sides) < fewest else on.most_of(sides)

    return _finding(_in_order, *lines, reduce=most, needs=needs)


def find_b2(view: View) -> Finding:
    grid = stats.IMP_DENSITIES[2:]
    lines: dict[bool, list[Part | str]] = {True: [], False: []}
    for net in view.nets(BIP, IMP):
        gaps = stats.point_differences(
            *(stats.on_grid(view.select(net, curve), grid) for curve in (BIP, IMP))
        )
        equal = [density for density, gap in gaps.items() if stats.non_inferior(gap)]
        for counted, line in lines.items():
            if gaps and not equal:
                line.append(_best_gap(view, net, gaps))
                continue
            line += [
                on.cost_part(view, net, IMP, BIP, 2.0, min, unit, counted, equal or grid)
                for unit in _UNITS
            ]
    return _finding(_either, *lines.values())


def _best_gap(view: View, net: Net, gaps: Mapping[float, stats.Difference]) -> Part:
    density = max(gaps, key=lambda one: gaps[one].upper)
    gap = gaps[density]
    where = f"at {100 * density:.2g} % density, where BiP comes closest ({view.title(net)})"
    side = on.side_of(gap.lower, gap.upper, stats.MARGIN)
    return on.part_of(side, gap, f"{BIP} - {IMP}", "points", where)


def find_b3(view: View) -> Finding:
    nets = view.nets(BIP)
    first, second = (
        [
            on.cost_part(view, net, BIP, other, _ONE_SHOT, max, unit)
            for net in nets
            for other in others
            for unit in _UNITS
        ]
        for others in ((OMP, HYDRA), UNTRAINED)
    )
    return _finding(_in_order, first, second, [_flat(view, net, BIP) for net in nets])


def _flat(view: View, net: Net, curve: Curve) -> Part | str:
    return on.growth_part(view, net, curve, lambda low, high: on.below(low, high, _FLAT))


def find_b4(view: View) -> Finding:
    names = ("identity_error", "extra_backward_passes", "cosine_quadratic", "cosine_network")
    missing = [f"fact {name}: {FACTS[name]}" for name in names if name not in view.facts]
    if missing:
        return Finding(NOT_RUN, (), (), missing, False)
    error, extra, quadratic, network = (view.facts[name] for name in names)
    exact = [
        _fact(error <= 1e-10, error, f"bilinear identities hold to {error:.1e} (limit 1e-10)"),
        _fact(extra <= 1, extra, f"{extra:g} extra backward passes (limit 1)"),
    ]
    cosines = [
        _fact(value > 0.5, value, f"cosine to the exact hypergradient on {where} {value:.2f}")
        for value, where in ((quadratic, "quadratics"), (network, "a small network"))
    ]
    nets = view.nets(BIP, BIP_EXPLICIT)
    gains, _ = on.split(on.band_part(view, net, BIP, BIP_EXPLICIT) for net in nets)
    notes = [part.text for part in gains] or [
        f"The implicit term on against off was not run at {view.scale} scale"
    ]
    if gains and all(part.high < -stats.MARGIN for part in gains):
        notes.append("The implicit term is immaterial")
    notes += _beside(view.facts)
    notes.append("The assumption is a zero Hessian, not bi-linearity")
    return _finding(_in_order, exact, cosines, notes=notes)


def _beside(facts: Mapping[str, float]) -> list[str]:
    """What the cosine of a whole, most of which needs no Hessian, does not tell."""
    names = ("implicit_cosine_quadratic", "implicit_cosine_network", "direct_cosine_network")
    if not all(name in facts for name in names):
        return []
    quadratic, network, direct = (facts[name] for name in names)
    return [
        f"Of the implicit term alone the cosine is {quadratic:.2f} on quadratics and {network:.2f} "
        f"on the network; with that term left out, the network's is {direct:.2f}"
    ]


def _fact(stands: bool, value: float, text: str) -> Part:
    return Part("for" if stands else "against", value, math.nan, math.nan, 1, text)


def find_b5(view: View) -> Finding:
    filters = replace(view, structure="filter")
    cases = [(view, net) for net in PANELS] + [(filters, net) for net in FILTER_PANELS]
    line = [
        on.band_part(seen, net, curve, IMP) for curve in (BIP, BIP_RETRAINED) for seen, net in cases
    ]
    return _finding(_mostly, line, reduce=list)


def find_c1(view: View) -> Finding:
    def rank(parts: list[Part]) -> str:
        return _in_order(parts[0].side, all_of(part.side for part in parts[1:]))

    groups: list[list[Part | str]] = []
    for net in CIFAR_NETS:
        level = _level_part(view, net, CS)
        controls = CONTROLS if isinstance(level, Part) else ()
        groups.append([level, *(on.star_part(view, net, CS, control) for control in controls)])
    return _by_net(groups, rank)


def _level_part(view: View, net: Net, curve: Curve) -> Part | str:
    """Non-inferiority to dense at the middle of the band: one density, fixed beforehand."""
    grid, dense = stats.band(net[1]), view.dense(net)
    if isinstance(dense, str):
        return dense
    samples = stats.on_grid(view.select(net, curve), grid)
    middle = float(grid[len(grid) // 2])
    if samples[middle].notna().sum() < view.seeds:
        return view.lacks(curve, net, view.seeds, grid)
    gap = stats.point_differences(samples, dense.to_frame())[middle]
    side = on.side_of(gap.lower, gap.upper, stats.MARGIN)
    where = f"at {100 * middle:.2g} % density ({view.title(net)})"
    return on.part_of(side, gap, f"{curve} - dense", "points", where)


def find_c2(view: View) -> Finding:
    cases = [(net, other) for net in CIFAR_NETS for other in (IMP, IMP_C)]
    bands = [on.band_part(view, net, CS, other) for net, other in cases]
    return _finding(_either, bands, [on.star_part(view, net, CS, other) for net, other in cases])


def find_c3(view: View) -> Finding:
    nets, others = (*CIFAR_NETS, IMAGENET), (GMP, OMP, IMP_RATE)
    return _finding(_in_order, [_fair_star(view, net, other) for net in nets for other in others])


def _fair_star(view: View, net: Net, other: Curve) -> Part | str:
    """Compare d*; a win over fewer epochs, or a defeat by more, decides nothing."""
    found = on.stars(view, net, CS_FOUND, other)
    if isinstance(found, str):
        return found
    part = on.compare_stars(f"{CS_FOUND} / {other}", view.title(net), *found)
    ours, theirs = (
        float(stats.on_grid(view.select(net, curve), [star.density], "epochs").mean().iloc[0])
        for curve, star in zip((CS_FOUND, other), found, strict=True)
    )
    side = part.side
    if (side == "for" and theirs < 0.9 * ours) or (side == "against" and theirs > 1.1 * ours):
        side = "undecided"
    return replace(part, side=side, text=f"{part.text}, {ours:.0f} against {theirs:.0f} epochs")


def find_c4(view: View) -> Finding:
    order = (NOT, INCONCLUSIVE, PARTLY, REPRODUCED)

    def rank(parts: list[Part]) -> str:
        return min((_gain_outcome(part) for part in parts), key=order.index)

    groups = [[_gain_part(view, net, dense) for dense in DENSE_LONGER] for net in CIFAR_NETS]
    return _by_net(groups, rank)


def _gain_part(view: View, net: Net, dense: Curve) -> Part | str:
    chosen = stats.best_on_validation(view.select(net, CS)).set_index(["study", "seed"])
    reference = view.dense(net, dense)
    if isinstance(reference, str):
        return reference
    if len(chosen) < view.dense_seeds:
        return f"{view.lacks(CS, net, view.dense_seeds)}, with validation accuracy"
    gap = stats.compare(chosen["test_accuracy"], reference)
    side = "for" if stats.superior(gap) else on.side_of(gap.low, gap.high, 0.8)
    what = f"validation-chosen CS ticket - {dense.label}"
    return on.part_of(side, gap, what, "points", f"({view.title(net)})")


def _gain_outcome(part: Part) -> str:
    if part.side == "for":
        return REPRODUCED if part.effect >= 0.8 else PARTLY
    return NOT if part.side == "against" else INCONCLUSIVE


def find_c5(view: View) -> Finding:
    nets = view.nets(CS_FOUND, IMP)
    counts = [_sequence_part(view, net) for net in nets]
    quality = [on.band_part(view, net, CS, IMP, margin=stats.MARGIN) for net in nets]
    notes = [_epochs_beside(view, net) for net in nets]
    return _finding(_in_order, counts, quality, notes=notes)


def _sequence_part(view: View, net: Net) -> Part | str:
    """Epochs in sequence: IMP's 30 rounds against the longest CS search, searches in parallel."""
    imp, search = view.select(net, IMP), view.select(net, CS_FOUND)
    if imp["density"].min() > 1.02 * stats.IMP_DENSITIES[-1]:
        return f"IMP on {view.title(net)} for 30 rounds"
    counts = [rows.groupby(["study", "seed"])["epochs"].max() for rows in (imp, search)]
    if min(map(len, counts)) < view.seeds:
        return view.lacks(CS_FOUND, net, view.seeds)
    value = stats.ratio(*counts)
    side = on.side_of(value.low, value.high, 0.98 * _PAPER_SPEED)
    return on.part_of(side, value, "epochs in sequence of IMP / CS", "", f"({view.title(net)})")


def _epochs_beside(view: View, net: Net) -> str:
    search, longest = (
        view.select(net, CS_FOUND),
        lambda curve: view.select(net, curve)["epochs"].max(),
    )
    runs = search.groupby(["study", "seed", "run"])["own_epochs"].max()
    sparsest = search["density"].min()
    stopped = stats.on_grid(view.select(net, IMP), [sparsest], "epochs").mean().iloc[0]
    return (
        f"On {view.title(net)}, epochs beside these counts: CS with retraining {longest(CS):.0f}, "
        f"all CS searches {runs.groupby(level=['study', 'seed']).sum().mean():.0f}, IMP stopped at "
        f"CS's sparsest density ({100 * sparsest:.2g} %) {stopped:.0f}, one-shot {longest(OMP):.0f}"
    ).replace("nan", "not run")


def find_c6(view: View) -> Finding:
    tracks = [(net, judged) for net in CIFAR_NETS for judged in ("found", "retrained")]
    stochastic = [
        on.band_part(view, net, Curve("CS", judged), Curve(label, judged))
        for net, judged in tracks
        for label in STOCHASTIC
    ]
    needs = [f"fact tuning_trials_equal: {FACTS['tuning_trials_equal']}"]
    if view.facts.get("tuning_trials_equal") == 1:
        needs = []
    best = [_best_other(view, net, judged) for net, judged in tracks]
    return _finding(_in_order, stochastic, best, needs=needs)


def _best_other(view: View, net: Net, judged: str) -> Part | str:
    """Compare CS with the other method that is best over the band on validation."""
    scores = {
        label: view.on_band(net, Curve(label, judged), "validation_accuracy") for label in OTHERS
    }
    means = {one: score.mean() for one, score in scores.items() if isinstance(score, pd.Series)}
    best = max(means, key=lambda one: means[one], default="another pruner")
    return on.band_part(view, net, Curve("CS", judged), Curve(best, judged))


def find_a1(view: View) -> Finding:
    others = (OMP, *UNTRAINED)
    nets = sorted({net for other in others for net in view.nets(IMP, other)})
    parts, needs = on.split(on.band_part(view, net, IMP, other) for net in nets for other in others)
    adjusted = stats.holm([1.0 if math.isnan(part.p) else part.p for part in parts])
    line = [
        part if p < 1 - stats.LEVEL else replace(part, side="undecided")
        for part, p in zip(parts, adjusted, strict=True)
    ]
    return _finding(_mostly, line, reduce=list, needs=needs)


def find_a2(view: View) -> Finding:
    def grows(low: float, high: float) -> Side:
        return on.side_of(low, high, _FLAT)

    nets = view.nets(IMP, BIP)
    imp = [on.growth_part(view, net, IMP, grows) for net in nets]
    return _finding(_either, imp, [_flat(view, net, BIP) for net in nets])


def find_a3(view: View) -> Finding:
    others = [Curve(label, "found") for label in STOCHASTIC]
    spread = [
        _spread_part(view, net, other) for other in others for net in view.nets(CS_FOUND, other)
    ]
    names = ("gap_cs", "gap_stochastic")
    needs = [f"fact {name}: {FACTS[name]}" for name in names if name not in view.facts]
    gap: list[Part] = []
    if not needs:
        ours, theirs = (view.facts[name] for name in names)
        text = f"gap of training to evaluation {ours:.2f} against {theirs:.2f} points"
        gap.append(_fact(ours < theirs, ours - theirs, text))
    return _finding(_either, spread, gap, needs=needs)


def _spread_part(view: View, net: Net, other: Curve) -> Part | str:
    grid = stats.band(net[1])
    samples = []
    for curve in (CS_FOUND, other):
        sample = stats.on_grid(view.select(net, curve), grid).dropna()
        if len(sample) < view.seeds:
            return view.lacks(curve, net, view.seeds, grid)
        samples.append([sample[density] for density in sample])
    value = stats.spread_ratio(*samples)
    where = f"over {on.percent(grid)} density ({view.title(net)})"
    side = on.below(value.low, value.high, 1.0)
    return on.part_of(side, value, f"spread over seeds of CS / {other.label}", "", where)


def find_gate(view: View) -> Finding:
    curve, dense = view.on_band(RESNET20, IMP), view.dense(RESNET20)
    if isinstance(curve, str) or isinstance(dense, str):
        return _finding(_in_order, [one for one in (curve, dense) if isinstance(one, str)])
    theirs = reported_curve(*RESNET20, artefact="published data").set_index("method")
    imp = theirs.loc["IMP, weight rewinding"]
    level = stats.interpolate(imp["density"], imp["value"], stats.BAND).mean()
    expected = float(level - theirs.loc[["dense"], "value"].iloc[0])
    gap = stats.welch_difference(curve - expected, dense)
    inside: tuple[Side, Side] = (
        on.side_of(gap.lower, gap.upper, -_GATE_MARGIN),
        on.below(gap.lower, gap.upper, _GATE_MARGIN),
    )
    where = f"from Renda et al.'s {expected:+.2f} over {on.percent(stats.BAND)} density"
    side = all_of(inside) or "undecided"
    return _finding(_in_order, [on.part_of(side, gap, "our IMP - dense, apart", "points", where)])


_FIND = {
    "G": find_gate,
    "B1": find_b1,
    "B2": find_b2,
    "B3": find_b3,
    "B4": find_b4,
    "B5": find_b5,
    "C1": find_c1,
    "C2": find_c2,
    "C3": find_c3,
    "C4": find_c4,
    "C5": find_c5,
    "C6": find_c6,
    "A1": find_a1,
    "A2": find_a2,
    "A3": find_a3,
}


def _claims() -> tuple[Claim, ...]:
    lines = (files(__package__) / "claims.csv").read_text(encoding="utf-8").splitlines()
    return tuple(Claim(**row, find=_FIND[row["id"]]) for row in csv.DictReader(lines))


CLAIMS = _claims()
