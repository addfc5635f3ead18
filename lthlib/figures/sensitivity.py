"""What a method is sensitive to: one setting changed at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lthlib.errors import ConfigError
from lthlib.evidence import mean_interval
from lthlib.evidence.records import search_config
from lthlib.figures.points import round_numbers, ticket_table
from lthlib.figures.style import FAINT, INK, accuracy_axis, in_percent, looks, styled

_COLUMNS = 3
_ROUNDS: tuple[tuple[Any, Any], ...] = (
    ("-", "full"),
    ((0, (5, 2)), "none"),
    ((0, (1.5, 1.5)), "left"),
    ((0, (6, 2, 1, 2)), "top"),
)
_DENSITIES = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)


def sensitivity_table(
    records: Iterable[Mapping[str, Any]], base: Mapping[str, Any], method: str = "cs"
) -> pd.DataFrame:
    """Return the retrained tickets of searches that differ from a base in at most one setting.

    Runs are chosen by their configuration: one with the base's settings stands in every panel.

    Args:
        records: of one study; controls (other masks or starts) are left out.
        base: all settings of the base's search, as its configuration holds them.
        method: of the searches.

    Returns:
        Columns setting, value, is_base, round (from 1), seed, density, accuracy (test, percent),
        settings in the order of `base`, values in rising order.

    Raises:
        ConfigError: no setting has two values.
    """
    kept = [record for record in records if _plainly_retrained(record, method)]
    table = ticket_table(kept)
    table["round"] = round_numbers(table)
    rows = []
    for record, row in zip(kept, table.to_dict("records"), strict=True):
        own = search_config(record["config"])["settings"]
        changed = [name for name in base if own.get(name, base[name]) != base[name]]
        if len(changed) > 1:
            continue
        judged = {"round": row["round"], "seed": row["seed"], "density": row["density"]}
        judged["accuracy"] = row["test_accuracy"]
        rows += [
            {"setting": name, "value": own.get(name, base[name]), "is_base": not changed, **judged}
            for name in changed or base
        ]
    names = ["setting", "value", "is_base", "round", "seed", "density", "accuracy"]
    found = pd.DataFrame(rows, columns=names).astype({"value": object})
    several = found.groupby("setting")["value"].nunique()
    found = found[found["setting"].isin(several.index[several > 1])]
    if found.empty:
        raise ConfigError(f"no setting of {method} has two values: nothing to compare")
    places = {name: place for place, name in enumerate(base)}
    keys = {
        "place": found["setting"].map(places),
        "size": found["value"].map(_in_order),
        "text": found["value"].map(str),
    }
    order = [*keys, "round", "seed"]
    return found.assign(**keys).sort_values(order, ignore_index=True).drop(columns=[*keys])


def sensitivity_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return setting, value, is_base, round, n, density, accuracy, low, high: means over seeds."""
    rows = []
    keys = ["setting", "value", "round"]
    text = table.assign(value=table["value"].map(setting_text))
    for key, own in text.groupby(keys, sort=False):
        level = mean_interval(own["accuracy"])
        numbers = (own["density"].mean(), level.mean, level.low, level.high)
        rows.append((*key, bool(own["is_base"].all()), level.n, *numbers))
    names = [*keys, "is_base", "n", "density", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def sensitivity_figure(table: pd.DataFrame, dense: pd.Series) -> Figure:
    """Draw accuracy and density against the values of each setting, two small panels a setting.

    Lines join the means of a round, small dots are seeds; the base's value is shaded.

    Args:
        table: from `sensitivity_table`.
        dense: the dense networks' test accuracies in percent.
    """
    settings = list(dict.fromkeys(table["setting"]))
    colour = looks(["CS"])["CS"].colour
    with styled():
        fig, accuracies, densities = _grid(len(settings))
        values = pd.concat([table["accuracy"], dense])
        accuracy_axis(accuracies[0], float(values.min()), float(values.max()))
        _percent_axis(densities[0], 100 * table["density"])
        for place, setting in enumerate(settings):
            rows = table[table["setting"] == setting]
            accuracies[place].set_title(setting.replace("_", " "))
            _dense(accuracies[place], dense)
            _panel(accuracies[place], rows, "accuracy", 1, colour)
            _panel(densities[place], rows, "density", 100, colour)
            if place % _COLUMNS == 0:
                accuracies[place].set_ylabel("test (%)")
                densities[place].set_ylabel("kept (%)")
        rounds = range(1, 1 + int(table["round"].max()))
        handles = [
            Line2D([], [], color=colour, marker="s", linestyle=dash, fillstyle=fill)
            for dash, fill in (_ROUNDS[(one - 1) % len(_ROUNDS)] for one in rounds)
        ]
        names = [f"round {one}" for one in rounds]
        fig.legend(handles, names, loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    return fig


def describe_sensitivity(means: pd.DataFrame) -> str:
    """Say in words what `sensitivity_figure` shows, from the table of `sensitivity_means`."""
    last = means[means["round"] == means.groupby(["setting", "value"])["round"].transform("max")]
    parts = []
    for setting, rows in last.groupby("setting", sort=False):
        words = [
            f"{row['value']} {row['accuracy']:.1f} % at {in_percent(row['density'])} density"
            for row in rows.to_dict("records")
        ]
        parts.append(f"{str(setting).replace('_', ' ')}: {', '.join(words)}")
    return f"Accuracy of the last round's retrained ticket by setting: {'; '.join(parts)}."


def setting_text(value: Any) -> str:
    """Return a setting's value for readers: `0.0001`, `yes`, `15it`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _plainly_retrained(record: Mapping[str, Any], method: str) -> bool:
    settings = record["config"]["settings"]
    return (
        record["status"] == "ok"
        and record["method"] == "retrain"
        and search_config(record["config"])["method"] == method
        and settings.get("start", "rewind") == "rewind"
        and settings.get("mask", "found") == "found"
    )


def _in_order(value: Any) -> float:
    """Numbers, also in lengths such as `15it`, by size; words as they come."""
    if isinstance(value, bool | int | float):
        return float(value)
    digits = str(value)[:-2]
    return float(digits) if digits.replace(".", "", 1).isdigit() else 0.0


def _grid(count: int) -> tuple[Figure, list[Axes], list[Axes]]:
    """Rows of accuracy panels, each above the density panel of the same setting."""
    from matplotlib import pyplot as plt

    rows, columns = -(-count // _COLUMNS), min(count, _COLUMNS)
    fig = plt.figure(figsize=(2.5 * columns + 0.4, 0.5 + 2.6 * rows), layout="constrained")
    cells = fig.add_gridspec(2 * rows, columns, height_ratios=[1.25, 1] * rows)
    tops: list[Axes] = []
    feet: list[Axes] = []
    for place in range(count):
        row, column = divmod(place, _COLUMNS)
        for axes, offset in ((tops, 0), (feet, 1)):
            shared = axes[0] if axes else None
            ax = fig.add_subplot(cells[2 * row + offset, column], sharey=shared)
            ax.tick_params(labelleft=column == 0)
            axes.append(ax)
    return fig, tops, feet


def _percent_axis(ax: Axes, values: pd.Series) -> None:
    ax.set_yscale("log")
    low, high = 0.85 * float(values.min()), 1.18 * float(values.max())
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(FixedLocator([one for one in _DENSITIES if low <= one <= high]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _dense(ax: Axes, dense: pd.Series) -> None:
    level = mean_interval(dense)
    if level.n:
        ax.axhline(level.mean, color=INK, linewidth=1, linestyle=(0, (4, 3)), gid="dense")
    if level.n >= 3:
        ax.axhspan(level.low, min(level.high, 99.9), color=INK, alpha=0.10, linewidth=0)


def _panel(ax: Axes, rows: pd.DataFrame, value: str, unit: float, colour: str) -> None:
    names = list(dict.fromkeys(rows["value"].map(setting_text)))
    at = rows["value"].map(setting_text).map(names.index)
    for place in set(at[rows["is_base"]]):
        ax.axvspan(place - 0.3, place + 0.3, color=FAINT, alpha=0.15, linewidth=0, gid="base")
    ax.plot(at, unit * rows[value], "o", color=colour, markersize=3, alpha=0.3, mew=0, gid="seeds")
    for number in sorted(set(rows["round"])):
        own = rows[rows["round"] == number]
        dash, fill = _ROUNDS[(int(number) - 1) % len(_ROUNDS)]
        means = unit * own.groupby(at[own.index])[value].mean()
        ax.plot(
            means.index,
            means,
            color=colour,
            linestyle=dash,
            marker="s",
            markersize=4.5,
            fillstyle=fill,
            markerfacecoloralt="white",
            gid="mean",
        )
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_xticks(range(len(names)), names, fontsize=8)
    if value == "accuracy":
        ax.tick_params(labelbottom=False)
