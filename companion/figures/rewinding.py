"""How far back a mask's weights may go: as found, and retrained from points of dense training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.points import ticket_table
from companion.analysis.words import described_panels, in_percent
from companion.evidence.reported import reported_curve
from companion.evidence.statistics import mean_interval
from companion.figures.charts import forest, grid, key, labelled, seeds
from companion.figures.style import FAINT, accuracy_axis, dense_level, look_of, styled
from lthlib.errors import ConfigError

AS_FOUND = "as found"
_REWIND = "BiP, rewind "
_NEAR = 0.02


def rewinding_table(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return BiP's masks as found, and retrained from points of dense training.

    Args:
        records: of one study. A retrained ticket counts if its run names a rewind point of its own,
            and one as found if such a run retrains it.

    Returns:
        Columns density (a fraction, as asked for), start (`as found`, or the percentage of dense
        training that the weights go back to, as text), seed, accuracy (test, percent): dense to
        sparse, as found first, then from early to late; empty where nothing was retrained so.

    Raises:
        ConfigError: a rewind point cannot be compared with the length of dense training.
    """
    kept = list(records)
    table = ticket_table(kept)
    rewound = [place for place, record in enumerate(kept) if _rewound(record)]
    searches = [kept[place]["config"]["parent"]["config"] for place in rewound]
    rows = [
        (_share(kept[place]["config"]), *_judged(table, place))
        for place in rewound
        if kept[place]["status"] == "ok"
    ]
    rows += [
        (-1.0, *_judged(table, place))
        for place, record in enumerate(kept)
        if record["status"] == "ok" and record["config"] in searches
    ]
    found = pd.DataFrame(rows, columns=["share", "density", "seed", "accuracy"])
    found = found.sort_values(["density", "share", "seed"], ascending=[False, True, True])
    start = [AS_FOUND if share < 0 else f"{share:g}" for share in found["share"]]
    return found.assign(start=start)[["density", "start", "seed", "accuracy"]].reset_index(
        drop=True
    )


def rewinding_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return density, start, n, accuracy, std, low, high: means over seeds."""
    rows = [
        (*key, *vars(mean_interval(own["accuracy"])).values())
        for key, own in table.groupby(["density", "start"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["density", "start", "n", "accuracy", "std", "low", "high"])


def published_rewinding(dataset: str, architecture: str) -> pd.DataFrame:
    """Return density, start, accuracy as the BiP paper reports them for a data set and network;
    empty where it has no such panel."""
    curve = reported_curve(dataset, architecture, artefact="rewinding figure")
    start = curve["method"].str.removeprefix(_REWIND).str.removesuffix(" %")
    start = start.where(curve["method"].str.startswith(_REWIND), AS_FOUND)
    return pd.DataFrame({"density": curve["density"], "start": start, "accuracy": curve["value"]})


@styled()
def rewinding_figure(table: pd.DataFrame, dense: pd.Series, published: pd.DataFrame) -> Figure:
    """Draw accuracy against the point that weights go back to, a panel a density.

    Small dots are seeds, diamonds their means with 95 % intervals; the green line continues the
    mean as found, the dashed one is dense.

    Args:
        table: from `rewinding_table`.
        dense: the dense networks' test accuracies in percent.
        published: from `published_rewinding`; drawn as open markers where a density is the same.
    """
    means, look = rewinding_means(table), look_of("BiP")
    starts = [AS_FOUND, *sorted(set(table["start"]) - {AS_FOUND}, key=float)]
    names = ["as\nfound", *starts[1:]]
    papers = look_of("BiP", colour=FAINT, fill="none")
    densities = list(dict.fromkeys(table["density"]))
    theirs = [published.iloc[:0]]
    fig, axes = grid(
        table, 0.9 + 2.3 * len(densities), 3.0,
        lambda density: f"{in_percent(density)} density", col="density",
        col_order=densities,
    )  # fmt: skip
    for density, ax in axes.items():
        rows, own = (part[part["density"] == density] for part in (table, means))
        near = _near(published, density, starts)
        dense_level(ax, dense)
        seeds(ax, rows["start"].map(starts.index), rows["accuracy"], look.colour)
        values = ["accuracy", "low", "high"]
        forest(ax, own, own["start"].map(starts.index), values, look, "mean", upright=True)
        for level in own.loc[own["start"] == AS_FOUND, "accuracy"]:
            ax.axhline(level, color=look.colour, linewidth=0.9, alpha=0.6, gid="as found")
        at = near["start"].map(starts.index)
        forest(ax, near, at, ["accuracy"], papers, "reported", upright=True)
        ax.set_xticks(range(len(starts)), names, fontsize=8)
        ax.axvline(0.5, color=FAINT, linewidth=0.8)
        ax.set_xlim(-0.5, len(starts) - 0.5)
        theirs.append(near)
    drawn = [dense, *(part["accuracy"] for part in (table, *theirs))]
    first = next(iter(axes.values()))
    accuracy_axis(first, pd.concat(drawn))
    first.set_ylabel("test accuracy (%)")
    if any(map(len, theirs)):
        key(fig, {"as the paper reports": papers.handle}, 1)
    where = means["start"].where(means["start"] == AS_FOUND, "from " + means["start"] + " %")
    form, head = "{accuracy:.1f} % {where}", "{density!p} density: "
    lead = "Test accuracy of BiP's masks"
    text = described_panels(lead, means.assign(where=where), form, "density", head)
    return labelled(fig, text, "retrained from (% of dense training)")


def _rewound(record: Mapping[str, Any]) -> bool:
    return record["method"] == "retrain" and bool(record["config"]["settings"].get("rewind"))


def _judged(table: pd.DataFrame, place: int) -> tuple[float, int, float]:
    row = table.iloc[place]
    return float(row["target_density"]), int(row["seed"]), float(row["test_accuracy"])


def _share(config: Mapping[str, Any]) -> float:
    """A rewind point as a percentage of dense training, both such as `15it` or `10ep`."""
    point, whole = config["settings"]["rewind"], config["training"]["length"]
    if point[-2:] != whole[-2:]:
        raise ConfigError(f"a rewind point of {point} has another unit than training, {whole}")
    return round(100 * float(point[:-2]) / float(whole[:-2]), 1)


def _near(published: pd.DataFrame, density: float, starts: list[str]) -> pd.DataFrame:
    close = (published["density"].astype(float) / density - 1).abs() < _NEAR
    return published[close & published["start"].isin(starts)]
