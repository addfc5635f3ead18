"""What a notebook found, in a sentence or two with numbers: its page begins with them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from companion.analysis.paper_panels import PAPER
from companion.analysis.points import curve_points
from companion.analysis.words import in_brackets, in_percent, short
from companion.markdown import Markdown, code

# What runs at a scale are worth to a verdict.
_WORTH = {"embedded": ", which feeds no verdict", "reduced": ", which gives a direction at most"}


def finding(sentence: Markdown, table: pd.DataFrame) -> Markdown:
    """Return a finding with what it rests on: network, data set, seeds and scale.

    Args:
        sentence: from one of the functions below.
        table: of the study, from `ticket_table`.
    """
    pruned = table[table["method"] != "dense"]
    rows = table if pruned.empty else pruned
    pairs = dict.fromkeys(zip(rows["architecture"], rows["dataset"], strict=True))
    scales = list(dict.fromkeys(rows["scale"]))
    counts = rows.groupby("curve")["seed"].nunique().agg(["min", "max"])
    return Markdown("**{}** {}; seeds: {}; {} scale{}.").format(
        sentence,
        _begun("; ".join(f"{network} on {dataset}" for network, dataset in pairs)),
        " to ".join(dict.fromkeys(map(str, counts))),
        " and ".join(scales),
        _WORTH.get(scales[0], "") if len(scales) == 1 else "",
    )


def match_dense(tables: Mapping[str, pd.DataFrame]) -> Markdown:
    """Return how few weights each curve needs for a mean within one standard deviation of dense's.

    It may lie no lower than that: the papers' rule, which looks at means alone.

    Args:
        tables: what a row is, in words -> rows of `ticket_table`, dense among them.
    """
    sentences = []
    for noun, rows in tables.items():
        points = curve_points(rows)
        is_dense = points["curve"] == "dense"
        dense, pruned = points[is_dense], points[~is_dense]
        if dense.empty or pruned.empty:
            continue
        floor = dense["mean"].iloc[0] - dense["std"].fillna(0).iloc[0]
        sparsest = pruned[pruned["mean"] >= floor].groupby("curve")["density"].min().sort_values()
        densities = [f"{in_percent(density)} ({curve})" for curve, density in sparsest.items()]
        none = [curve for curve in dict.fromkeys(pruned["curve"]) if curve not in sparsest.index]
        texts = [f"keeps {', '.join(densities)}"] if densities else []
        texts += [f"there is none of {', '.join(none)}"] if none else []
        lead = f"The sparsest {noun} within a standard deviation of dense"
        sentences.append(f"{lead} {'; '.join(texts)}.")
    return Markdown("{}").format(
        " ".join(sentences) or "There is no dense network to compare with."
    )


def cost_most(points: pd.DataFrame, unit: str) -> Markdown:
    """Return what the sparsest ticket of each curve costs, the cheapest first.

    Args:
        points: from `figures.costs.dilemma_points`.
        unit: of the costs.
    """
    pruned = points[points["curve"] != "dense"]
    costs = pruned.groupby("curve", sort=False)["cost"].last().sort_values(kind="stable")
    texts = [
        f"{cost} {unit} ({', '.join(names)})"
        for cost, names in costs.map(short).groupby(costs.map(short), sort=False).groups.items()
    ]
    if not texts:
        return Markdown("There is no ticket.")
    return Markdown("The sparsest ticket of each costs {}.").format(_listed(texts))


def seeds_agree(overlap: pd.DataFrame, chance: pd.DataFrame) -> Markdown:
    """Return how far masks of two seeds of a method agree, and what chance would give.

    Args:
        overlap: intersection over union, curve by curve; its diagonal is read.
        chance: the same of masks drawn at random.
    """
    texts = [
        f"{name} {overlap.loc[name, name]:.2f} ({chance.loc[name, name]:.2f})"
        for name in overlap.index
        if not np.isnan(overlap.loc[name, name])
    ]
    if not texts:
        return Markdown("No method has masks of two seeds here.")
    lead = "Masks of two seeds overlap by this much, in brackets by chance"
    return Markdown("{}: {}.").format(lead, ", ".join(texts))


def departures_tell(effects: pd.DataFrame) -> Markdown:
    """Return what BiP's release is worth, and which of its departures tells most alone.

    Args:
        effects: from `figures.effects.departure_effects`.
    """
    whole = effects["series"] == effects["name"]  # all departures at once
    sentences = []
    if whole.any():
        gaps = _listed(_gap(row) for row in effects[whole].to_dict("records"))
        sentences = [Markdown("The release less the paper's BiP is {}.").format(gaps)]
    for series, rows in effects[~whole].groupby("series", sort=False):
        clear = rows[(rows["low"] > 0) | (rows["high"] < 0)]
        if clear.empty:
            text = Markdown("No departure alone, {}, is told apart from none.").format(series)
        else:
            size = clear["difference"].abs()
            largest = clear[np.isclose(size, size.max(), atol=0.05)]
            names = Markdown(", ").join(map(code, dict.fromkeys(largest["name"])))
            gap = _gap(largest.iloc[0].to_dict())
            text = Markdown("Alone, {}, most comes from {}: {}.").format(series, names, gap)
        sentences.append(text)
    return Markdown(" ").join(sentences)


def controls_tell(differences: pd.DataFrame, method: str) -> Markdown:
    """Return which controls of a method lie below it, above it, or cannot be told apart from it, at
    the sparsest density.

    Args:
        differences: to the method, from `figures.effects.differences`; of other curves than its
            controls nothing is said.
        method: as its curves are named.
    """
    rows = differences[differences["name"].str.startswith(f"{method}, ")]
    if rows.empty:
        return Markdown("No control of {} was run.").format(method)
    density = rows["density"].min()
    rows = rows[rows["density"] == density].sort_values("difference")
    texts = rows["name"].str.removeprefix(f"{method}, ") + rows["difference"].map(" {:+.1f}".format)
    groups = {
        "lower": rows["high"] < 0,
        "higher": rows["low"] > 0,
        "not told apart": (rows["low"] <= 0) & (rows["high"] >= 0),
        "with one seed, and so not told apart": rows["low"].isna(),
    }
    lists = [
        f"{group}: {', '.join(texts[chosen])}" for group, chosen in groups.items() if any(chosen)
    ]
    lead = f"Controls less {method} as found at {in_percent(density)} density, in points"
    return Markdown("{}. {}.").format(lead, _begun("; ".join(lists)))


def settings_tell(means: pd.DataFrame, method: str) -> Markdown:
    """Return which setting moves accuracy most, and which least, among the sparsest tickets.

    Args:
        means: from `figures.sensitivity.sensitivity_means`.
        method: its title.
    """
    rows = means[means["line"] == means["line"].iloc[-1]]
    rows = rows[rows.groupby("setting")["value"].transform("nunique") > 1]
    if rows.empty:
        return Markdown("No setting of {} has two values that can be compared.").format(method)
    order = rows.sort_values("accuracy").groupby("setting", sort=False)
    ends = pd.concat({"low": order.nth(0), "high": order.nth(-1)}, names=["end"])
    ends = ends.set_index("setting", append=True).droplevel(1)
    spread = ends.loc["high"]["accuracy"] - ends.loc["low"]["accuracy"]
    texts = []
    for setting in dict.fromkeys([spread.idxmax(), spread.idxmin()]):
        low, high = (_reached(ends.loc[(end, setting)].to_dict()) for end in ("low", "high"))
        name = str(setting).replace("_", " ")
        texts.append(f"{name}, by {spread[setting]:.1f} points: {low}, {high}")
    lead = f"{method}, {rows['line'].iloc[0]}, moves most with {texts[0]}."
    return Markdown("{}").format(f"{lead} Least with {texts[1]}." if len(texts) > 1 else lead)


def panels_tell(pairs: pd.DataFrame) -> Markdown:
    """Return at how many ratios BiP is ahead of IMP, in the paper's panels and in ours.

    Args:
        pairs: from `paper_panels.bip_minus_imp`.
    """
    texts = []
    for (side, scale), rows in pairs.groupby(["whose", "scale"], sort=False):
        owner = "the paper's" if side == PAPER else "our"
        ratios = f"{rows['ahead'].sum()} of {rows['ratios'].sum()} ratios"
        worth = "" if side == PAPER else f", {scale} scale{_WORTH.get(str(scale), '')}"
        texts.append(f"at {ratios} in {len(rows)} of {owner} panels{worth}")
    if not texts:
        return Markdown("No panel has curves of both BiP and IMP.")
    return Markdown("BiP is ahead of IMP {}.").format(", ".join(texts))


def hypergradient_tells(means: pd.DataFrame) -> Markdown:
    """Return how the Hessian-free hypergradient of a network, and its implicit term alone, lie to
    the exact ones, from the smallest to the largest gamma that has a minimum.

    Args:
        means: from `figures.bilevel.bilevel_means`.
    """
    rows = means[(means["problem"] == "network") & means["cosine"].notna()].sort_values("gamma")
    texts = [
        f"{point}: {_ends(points['implicit_cosine'])}, of the whole {_ends(points['cosine'])}"
        for point, points in rows.groupby("point", sort=False)
    ]
    if not texts:
        return Markdown("The lower level of the network has a minimum nowhere.")
    lead = f"Cosine of the implicit term to the exact one, from γ = {rows['gamma'].min():g}"
    return Markdown("{} to {:g}. {}.").format(lead, rows["gamma"].max(), _begun("; ".join(texts)))


def _ends(values: pd.Series) -> str:
    ends = (f"{round(value, 2) + 0.0:.2f}" for value in values.iloc[[0, -1]])
    return " to ".join(dict.fromkeys(ends))


def _gap(row: Mapping[Any, Any]) -> str:
    difference = round(row["difference"], 1) + 0.0  # never -0.0
    gap = in_brackets(difference, row["low"], row["high"], "+.1f")
    return f"{gap} points at {in_percent(row['density'])} density"


def _reached(row: Mapping[Any, Any]) -> str:
    return f"{row['accuracy']:.1f} % at {row['value']} ({in_percent(row['density'])} kept)"


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(texts: Iterable[str]) -> str:
    *before, last = texts
    return f"{', '.join(before)} and {last}" if before else last
