"""The criteria: one function for each claim, `find_` and its id, from the rows that count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from companion.evidence import comparisons as on
from companion.evidence import statistics as stats
from companion.evidence.comparisons import Curve, Net, Part, Side, View, all_of, band_part
from companion.evidence.facts import FACTS
from companion.evidence.reported import reported_curve

REPRODUCED, PARTLY, NOT = "reproduced", "partly", "not reproduced"
INCONCLUSIVE, NOT_RUN = "inconclusive", "not run"

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
_UNITS = ("passes", "seconds")
_GATE_MARGIN = 0.5
_FLAT = 1.1
_ONE_SHOT = 1.5
_PAPER_SPEED = 2550 / 425

Results = Iterable[Part | str]


@dataclass(frozen=True)
class Finding:
    """What a criterion came to, whatever the scale; `lead` are the parts of the headline."""

    outcome: str
    parts: Sequence[Part]
    lead: Sequence[Part]
    needs: Sequence[str]
    complete: bool
    notes: Sequence[str] = ()


def _finding(
    rule: Callable[..., str],
    *lines: Results,
    reduce: Callable[[list[Side]], Any] = all_of,
    needs: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Finding:
    """Judge lines of comparisons: `rule` sees one side a line; the first line must exist."""
    made, missing = zip(*map(on.split, lines), strict=True)
    lacking = [*(text for line in missing for text in line), *needs]
    if not made[0]:
        return Finding(NOT_RUN, (), (), lacking, False)
    outcome = rule(*(reduce([part.side for part in parts]) for parts in made))
    every = [part for parts in made for part in parts]
    return Finding(outcome, every, made[0], lacking, not lacking and all(made), notes)


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


def _bands(view: View, ours: Curve, theirs: Curve) -> list[Part | str]:
    return [band_part(view, net, ours, theirs) for net in view.nets(ours, theirs)]


def _missing(view: View, *names: str) -> list[str]:
    return [_fact_needed(name) for name in names if name not in view.facts]


def _fact_needed(name: str) -> str:
    return f"fact {name}: {FACTS[name]}"


def find_b1(view: View) -> Finding:
    lines = [_bands(view, curve, IMP) for curve in (BIP, BIP_RETRAINED)]
    fewest = view.fewest("networks")
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
        equal = [density for density, gap in gaps.items() if on.not_inferior(gap) == "for"]
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
    return on.part_of(on.not_inferior(gap), gap, f"{BIP} - {IMP}", "points", where)


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
    if missing := _missing(view, *names):
        return Finding(NOT_RUN, (), (), missing, False)
    error, extra, quadratic, network = (view.facts[name] for name in names)
    exact = [
        _measured(error <= 1e-10, error, f"bilinear identities hold to {error:.1e} (limit 1e-10)"),
        _measured(extra <= 1, extra, f"{extra:g} extra backward passes (limit 1)"),
    ]
    cosines = [
        _measured(value > 0.5, value, f"cosine to the exact hypergradient on {where} {value:.2f}")
        for value, where in ((quadratic, "quadratics"), (network, "a small network"))
    ]
    gains, _ = on.split(_bands(view, BIP, BIP_EXPLICIT))
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


def _measured(stands: bool, value: float, text: str) -> Part:
    return Part("for" if stands else "against", value, math.nan, math.nan, 1, text)


def find_b5(view: View) -> Finding:
    filters = replace(view, structure="filter")
    cases = [(view, net) for net in PANELS] + [(filters, net) for net in FILTER_PANELS]
    line = [
        band_part(seen, net, curve, IMP) for curve in (BIP, BIP_RETRAINED) for seen, net in cases
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
    if samples[middle].notna().sum() < view.fewest("seeds"):
        return view.lacks(curve, net, view.fewest("seeds"), grid)
    gap = stats.point_differences(samples, dense.to_frame())[middle]
    where = f"at {100 * middle:.2g} % density ({view.title(net)})"
    return on.part_of(on.not_inferior(gap), gap, f"{curve} - dense", "points", where)


def find_c2(view: View) -> Finding:
    cases = [(net, other) for net in CIFAR_NETS for other in (IMP, IMP_C)]
    bands = [band_part(view, net, CS, other) for net, other in cases]
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
    if len(chosen) < view.fewest("dense seeds"):
        return f"{view.lacks(CS, net, view.fewest('dense seeds'))}, with validation accuracy"
    gap = stats.compare(chosen["test_accuracy"], reference)
    side = "for" if gap.lower > 0 else on.side_of(gap.low, gap.high, 0.8)
    what = f"validation-chosen CS ticket - {dense.label}"
    return on.part_of(side, gap, what, "points", f"({view.title(net)})")


def _gain_outcome(part: Part) -> str:
    if part.side == "for":
        return REPRODUCED if part.effect >= 0.8 else PARTLY
    return NOT if part.side == "against" else INCONCLUSIVE


def find_c5(view: View) -> Finding:
    nets = view.nets(CS_FOUND, IMP)
    counts = [_sequence_part(view, net) for net in nets]
    quality = [band_part(view, net, CS, IMP, on.not_inferior) for net in nets]
    notes = [_epochs_beside(view, net) for net in nets]
    return _finding(_in_order, counts, quality, notes=notes)


def _sequence_part(view: View, net: Net) -> Part | str:
    """Epochs in sequence: IMP's 30 rounds against the longest CS search, searches in parallel."""
    imp, search = view.select(net, IMP), view.select(net, CS_FOUND)
    if imp["density"].min() > 1.02 * stats.IMP_DENSITIES[-1]:
        return f"IMP on {view.title(net)} for 30 rounds"
    counts = [rows.groupby(["study", "seed"])["epochs"].max() for rows in (imp, search)]
    if min(map(len, counts)) < view.fewest("seeds"):
        return view.lacks(CS_FOUND, net, view.fewest("seeds"))
    value = stats.ratio(*counts)
    side = on.side_of(value.low, value.high, 0.98 * _PAPER_SPEED)
    return on.part_of(side, value, "epochs in sequence of IMP / CS", "", f"({view.title(net)})")


def _epochs_beside(view: View, net: Net) -> str:
    def longest(curve: Curve) -> float:
        return float(view.select(net, curve)["epochs"].max())

    search = view.select(net, CS_FOUND)
    runs = search.groupby(["study", "seed", "run"])["own_epochs"].max()
    every = runs.groupby(level=["study", "seed"]).sum().mean()
    sparsest = search["density"].min()
    stopped = stats.on_grid(view.select(net, IMP), [sparsest], "epochs").mean().iloc[0]
    retrained, searches, imp, one_shot = (
        "not run" if math.isnan(count) else f"{count:.0f}"
        for count in (longest(CS), every, stopped, longest(OMP))
    )
    return (
        f"On {view.title(net)}, epochs beside these counts: CS with retraining {retrained}, "
        f"all CS searches {searches}, IMP stopped at CS's sparsest density "
        f"({100 * sparsest:.2g} %) {imp}, one-shot {one_shot}"
    )


def find_c6(view: View) -> Finding:
    tracks = [(net, judged) for net in CIFAR_NETS for judged in ("found", "retrained")]
    stochastic = [
        band_part(view, net, Curve("CS", judged), Curve(label, judged))
        for net, judged in tracks
        for label in STOCHASTIC
    ]
    equal = view.facts.get("tuning_trials_equal") == 1
    needs = [] if equal else [_fact_needed("tuning_trials_equal")]
    best = [_best_other(view, net, judged) for net, judged in tracks]
    return _finding(_in_order, stochastic, best, needs=needs)


def _best_other(view: View, net: Net, judged: str) -> Part | str:
    """Compare CS with the other method that is best over the band on validation."""
    scores = {
        label: view.on_band(net, Curve(label, judged), "validation_accuracy") for label in OTHERS
    }
    means = {one: score.mean() for one, score in scores.items() if isinstance(score, pd.Series)}
    best = max(means, key=lambda one: means[one], default="another pruner")
    return band_part(view, net, Curve("CS", judged), Curve(best, judged))


def find_a1(view: View) -> Finding:
    others = (OMP, *UNTRAINED)
    nets = sorted({net for other in others for net in view.nets(IMP, other)})
    parts, needs = on.split(band_part(view, net, IMP, other) for net in nets for other in others)
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
    needs = _missing(view, *names)
    gap: list[Part] = []
    if not needs:
        ours, theirs = (view.facts[name] for name in names)
        text = f"gap of training to evaluation {ours:.2f} against {theirs:.2f} points"
        gap.append(_measured(ours < theirs, ours - theirs, text))
    return _finding(_either, spread, gap, needs=needs)


def _spread_part(view: View, net: Net, other: Curve) -> Part | str:
    grid = stats.band(net[1])
    samples = []
    for curve in (CS_FOUND, other):
        sample = stats.on_grid(view.select(net, curve), grid).dropna()
        if len(sample) < view.fewest("seeds"):
            return view.lacks(curve, net, view.fewest("seeds"), grid)
        samples.append([sample[density] for density in sample])
    value = stats.spread_ratio(*samples)
    where = f"over {on.percent(grid)} density ({view.title(net)})"
    side = on.below(value.low, value.high, 1.0)
    return on.part_of(side, value, f"spread over seeds of CS / {other.label}", "", where)


def find_g(view: View) -> Finding:
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
