"""How far back a mask's weights may go: as found, and retrained from points of dense training."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from companion.analysis.points import ticket_table
from companion.analysis.words import described_panels, in_percent
from companion.evidence.reported import reported_curve
from companion.evidence.statistics import estimates
from companion.figures.charts import grid, interval, key, labelled, level
from companion.figures.style import FAINT, look_of, scaled, styled
from lthlib.errors import ConfigError
from lthlib.settings import LENGTH

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
    records = list(records)
    table = ticket_table(records).drop(columns="density")
    share = pd.Series([_share(record["config"]) for record in records], dtype=float)
    as_found = share.isna() & table["run"].isin(table.loc[share.notna(), "parent"])
    table = table.assign(share=share.mask(as_found, -1.0)).dropna(subset="share")
    start = table["share"].map("{:g}".format).mask(table["share"] < 0, AS_FOUND)
    names = {"target_density": "density", "test_accuracy": "accuracy"}
    table = table[table["status"] == "ok"].assign(start=start).rename(columns=names)
    table = table.sort_values(["density", "share", "seed"], ascending=[False, True, True])
    return table[["density", "start", "seed", "accuracy"]].reset_index(drop=True)


def rewinding_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds.

    Args:
        table: from `rewinding_table`.

    Returns:
        Columns density, start, n, accuracy, std, low, high.
    """
    return estimates(table, ["density", "start"], "accuracy").rename(columns={"mean": "accuracy"})


def published_rewinding(dataset: str, architecture: str) -> pd.DataFrame:
    """Return what the BiP paper reports of rewinding for a data set and network.

    Args:
        dataset: its name, as ours or the paper's.
        architecture: its name, as ours or the paper's.

    Returns:
        Columns density, start, accuracy; empty where the paper has no such panel.
    """
    curve = reported_curve(dataset, architecture, artefact="rewinding figure")
    start = curve["method"].str.removeprefix(_REWIND).str.removesuffix(" %")
    start = start.where(curve["method"].str.startswith(_REWIND), AS_FOUND)
    return pd.DataFrame({"density": curve["density"], "start": start, "accuracy": curve["value"]})


@styled
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
    papers = look_of("BiP", colour=FAINT, fill="none")
    starts = [AS_FOUND, *sorted(set(table["start"]) - {AS_FOUND}, key=float)]
    published = published[published["start"].isin(starts)]
    densities = list(dict.fromkeys(table["density"]))
    fig, axes = grid(
        table, 0.9 + 2.3 * len(densities), 3.0, lambda density: f"{in_percent(density)} density",
        col="density", col_order=densities,
    )  # fmt: skip
    drawn = [dense, table["accuracy"]]
    for density, ax in axes.items():
        level(ax, dense)
        ax.axvline(0.5, color=FAINT, linewidth=0.8)
        rows = table[table["density"] == density]
        axis: dict[str, Any] = {"data": rows, "x": "start", "y": "accuracy", "order": starts}
        axis |= {"ax": ax, "color": look.colour}
        sns.stripplot(**axis, jitter=False, size=3, alpha=0.35)
        mark: dict[str, Any] = {"marker": look.marker, "markersize": 5, "linestyle": "none"}
        mark |= {"err_kws": {"linewidth": 1.2, "alpha": 0.55}, "gid": "mean"}
        sns.pointplot(**axis, errorbar=lambda seeds: interval(seeds, 2), **mark)
        as_found = rows.loc[rows["start"] == AS_FOUND, "accuracy"]
        if len(as_found):
            ax.axhline(as_found.mean(), color=look.colour, linewidth=0.9, alpha=0.6, gid="as found")
        near = published[(published["density"] / density - 1).abs() < _NEAR]
        columns = near["start"].map(starts.index)
        ax.plot(columns, near["accuracy"], **papers.line | {"linestyle": ""}, gid="reported")
        drawn.append(near["accuracy"])
        ax.set_xticks(range(len(starts)), ["as\nfound", *starts[1:]], fontsize=8)
        ax.set(xlabel="", ylabel="", xlim=(-0.5, len(starts) - 0.5))
    first = axes[densities[0]]
    scaled(first, "y", "error", pd.concat(drawn))
    first.set_ylabel("test accuracy (%)")
    if any(map(len, drawn[2:])):
        key(fig, {"as the paper reports": papers}, 1, linestyle="")
    start = means["start"].where(means["start"] == AS_FOUND, "from " + means["start"] + " %")
    form, head = "{accuracy:.1f} % {start}", "{density!p} density: "
    lead = "Test accuracy of BiP's masks"
    text = described_panels(lead, means.assign(start=start), form, "density", head)
    return labelled(fig, text, "retrained from (% of dense training)")


def _share(config: Mapping[str, Any]) -> float:
    """The rewind point of a run's own, as a percentage of dense training; NaN for none."""
    point, whole = config["settings"].get("rewind"), config["training"]["length"]
    if config["method"] != "retrain" or not point:
        return float("nan")
    lengths = [LENGTH.fullmatch(str(text)) for text in (point, whole)]
    steps = [float(length[length.lastindex or 0]) for length in lengths if length]
    units = {length and length.lastindex for length in lengths}
    if len(steps) < 2 or len(units) > 1 or not steps[1]:
        raise ConfigError(
            f"a rewind point of {point!r} cannot be compared with a training of {whole!r}; "
            "expected two lengths of one unit, such as '15it' and '300it'"
        )
    return round(100 * steps[0] / steps[1], 1)
