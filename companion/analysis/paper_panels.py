"""The panels of the BiP paper's Figs 3 and 4: its curves and ours, as differences to dense."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from companion.analysis.points import OUR_NAMES, in_order, judged
from companion.analysis.words import column_in_brackets
from companion.evidence.reported import plain_name, reported, reported_curve
from companion.evidence.statistics import by_replicate, compare, mean_interval, on_grid

METHODS = ("BiP", "IMP", "OMP", "Hydra", "GraSP")
FOREMOST = ("BiP", "IMP")
PAPER, OURS = "paper", "ours"
FIGURES = {"unstructured": "Fig 3", "filter": "Fig 4"}
_NETWORKS = {"vgg16fc": "vgg16", "vgg16": "vgg16 with one linear layer"}
_COLUMNS = [
    *("panel", "whose", "study", "scale", "curve", "pruned", "n", "accuracy"),
    *("dense", "difference", "low", "high"),
]


def paper_panels(structure: str) -> dict[tuple[str, str], str]:
    """Return the paper's panels in its order.

    Args:
        structure: `unstructured` (Fig 3), `filter` (Fig 4) or `channel`.

    Returns:
        (data set, network), as `panel_of` has them -> title; empty for channels, of which no values
        are known.
    """
    rows = reported()
    rows = rows[rows["artefact"] == FIGURES.get(structure, "")]
    pairs = dict.fromkeys(zip(rows["dataset"], rows["architecture"], strict=True))
    return {(plain_name(data), plain_name(net)): f"{data}, {net}" for data, net in pairs}


def panel_of(dataset: str, architecture: str) -> tuple[str, str]:
    """Return what the paper calls a data set and network of ours, in plain letters.

    Its VGG-16 has three linear layers: `vgg16-fc` here. `vgg16`, which has one, is no panel's.

    Args:
        dataset: its name, as ours or the paper's.
        architecture: its name, as ours or the paper's.

    Returns:
        (data set, network), in lower case and without hyphens.
    """
    name = plain_name(architecture)
    return plain_name(dataset), _NETWORKS.get(name, name)


def panel_gaps(
    structure: str, tables: Mapping[str, pd.DataFrame], methods: Sequence[str] = METHODS
) -> pd.DataFrame:
    """Return test accuracy minus dense of the paper's curves and ours, a row a point.

    Args:
        structure: `unstructured`, `filter` or `channel`.
        tables: study -> what it shows, from `ticket_table`; of one data set and network each.
        methods: curves to show, as the paper names them.

    Returns:
        Columns panel, whose (`paper`, `ours`), study, scale, curve, pruned (percent), n, accuracy,
        dense (percent), difference, low, high (points, 95 %); n and interval of ours alone. The
        paper's panels come first, then those of other data sets.
    """
    titles = paper_panels(structure)
    gaps = [_paper_gaps(pair, title, structure, methods) for pair, title in titles.items()]
    for table in tables.values():
        data, net, scale = table[["dataset", "architecture", "scale"]].iloc[0]
        title = titles.get(panel_of(data, net), f"{data}, {net} ({scale})")
        gaps.append(_our_gaps(table, title, methods))
    filled = [gap for gap in gaps if len(gap)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=_COLUMNS)


def bip_minus_imp(gaps: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return by how much BiP is ahead of IMP in each panel, the paper's and ours, a row each.

    The paper's is the mean over the ratios at which both of its curves are known. Ours is the mean
    over BiP's densities within IMP's reach, IMP interpolated in log density, paired by seed.

    Args:
        gaps: from `panel_gaps`.
        tables: the same as there.

    Returns:
        Columns panel, whose, scale, seeds, first, last (percent pruned), ratios (how many), ahead
        (at how many of them BiP's mean is above IMP's), difference, low, high (points, 95 %); seeds
        and interval of ours alone.
    """
    rows = []
    for (panel, side), points in gaps.groupby(["panel", "whose"], sort=False):
        study, scale = points[["study", "scale"]].iloc[0]
        leads = _paper_leads(points) if side == PAPER else _leads_by_seed(tables[study])
        means, over_all = leads.mean(), mean_interval(leads.dropna().mean(axis=1))
        if len(means):
            seeds = float("nan") if side == PAPER else over_all.n
            ratios = (means.index.min(), means.index.max(), len(means), int((means > 0).sum()))
            lead = (over_all.mean, over_all.low, over_all.high)
            rows.append((panel, side, scale, seeds, *ratios, *lead))
    names = ["panel", "whose", "scale", "seeds", "first", "last", "ratios", "ahead"]
    return pd.DataFrame(rows, columns=[*names, "difference", "low", "high"])


def bip_minus_imp_in_words(pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `bip_minus_imp` for readers, with cells of text."""
    ratios = pairs[["first", "last"]].map("{:.3g}".format)
    ours = pairs["whose"] + ", " + pairs["scale"]
    words = {
        "panel": pairs["panel"],
        "whose": pairs["whose"].where(pairs["whose"] == PAPER, ours),
        "seeds": pairs["seeds"],
        "pruned (%)": ["–".join(dict.fromkeys(ends)) for ends in ratios.to_numpy()],
        "BiP ahead at": pairs["ahead"].astype(str) + " of " + pairs["ratios"].astype(str),
        "BiP minus IMP (points)": column_in_brackets(pairs, ["difference", "low", "high"], "+.2f"),
    }
    return pd.DataFrame(words)


def _paper_gaps(
    pair: tuple[str, str], title: str, structure: str, methods: Sequence[str]
) -> pd.DataFrame:
    values = reported_curve(*pair, structure=structure, artefact=FIGURES[structure])
    # Fig 4 draws Fig 3's dense lines, of the same networks.
    dense = float(reported_curve(*pair, method="dense", artefact="Fig 3")["value"].iloc[0])
    rows = values[values["method"].isin(methods)].rename(columns=OUR_NAMES)
    source: dict[str, Any] = {"panel": title, "whose": PAPER, "study": "", "scale": PAPER}
    rows = rows.assign(**source, dense=dense, difference=rows["accuracy"] - dense)
    return in_order(rows, methods, "pruned").reindex(columns=_COLUMNS)


def _our_gaps(table: pd.DataFrame, title: str, methods: Sequence[str]) -> pd.DataFrame:
    good = judged(table)
    dense = by_replicate(good[good["curve"] == "dense"])
    rows = []
    for (curve, _), point in good[good["curve"].isin(methods)].groupby(["curve", "point"]):
        gap = compare(by_replicate(point), dense)
        source = (title, OURS, *point[["study", "scale"]].iloc[0])
        levels = (point["test_accuracy"].mean(), dense.mean())
        difference = (gap.mean, gap.low, gap.high)
        rows.append((*source, curve, point["pruned"].mean(), gap.n, *levels, *difference))
    return in_order(pd.DataFrame(rows, columns=_COLUMNS), methods, "pruned")


def _paper_leads(panel: pd.DataFrame) -> pd.DataFrame:
    """BiP less IMP in points, [1, percent pruned], where both are known."""
    curves = panel.pivot_table(index="curve", columns="pruned", values="difference")
    bip, imp = (curves.reindex([method]).to_numpy() for method in FOREMOST)
    return pd.DataFrame(bip - imp, columns=curves.columns).dropna(axis=1)


def _leads_by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """BiP less IMP in points, [(study, seed), percent pruned], at BiP's densities."""
    good = judged(table)
    bip, imp = (good[good["curve"] == method] for method in FOREMOST)
    gaps = {}
    for _, point in bip.groupby("point", sort=False) if len(imp) else ():
        theirs = on_grid(imp, [point["density"].mean()]).iloc[:, 0]
        gaps[point["pruned"].mean()] = (by_replicate(point) - theirs).dropna()
    return pd.DataFrame({percent: gap for percent, gap in gaps.items() if len(gap)})
