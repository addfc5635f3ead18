"""What a method is sensitive to: one setting changed at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from companion.evidence import mean_interval
from companion.evidence.records import search_config
from companion.figures.points import round_numbers, ticket_table
from companion.figures.style import FAINT, accuracy_axis, dense_level, in_percent, looks, styled
from lthlib.errors import ConfigError

_TITLES = {"cs": "CS", "l0": "l0", "iss": "ISS", "bip": "BiP"}
_GIVEN = ("bip",)  # methods that are given their density, and are judged as found
_LINES: tuple[tuple[Any, Any], ...] = (
    ("-", "full"),
    ((0, (5, 2)), "none"),
    ((0, (1.5, 1.5)), "left"),
    ((0, (6, 2, 1, 2)), "top"),
)
_DENSITIES = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)


def sensitivity_table(
    records: Iterable[Mapping[str, Any]], base: Mapping[str, Any], method: str = "cs"
) -> pd.DataFrame:
    """Return the judged tickets of searches that differ from a base in at most one setting.

    Runs are chosen by their configuration: one with the base's settings stands in every panel. CS's
    tickets count retrained, a line a round; BiP's as found, a line a density. BiP without the
    implicit term is BiP with an infinite gamma.

    Args:
        records: of one study; controls (other masks or starts) are left out.
        base: all settings of the base's search, as its configuration holds them.
        method: of the searches.

    Returns:
        Columns setting, value, is_base, line (`round 1`, `5 % density`), seed, density, accuracy
        (test, percent), settings in the order of `base`, values in rising order.

    Raises:
        ConfigError: no setting has two values.
    """
    kept = [record for record in records if _plainly_judged(record, method)]
    table = ticket_table(kept)
    table["place"] = -table["target_density"] if method in _GIVEN else round_numbers(table)
    usual = _comparable(base)
    rows = []
    for record, row in zip(kept, table.to_dict("records"), strict=True):
        own = _comparable(search_config(record["config"])["settings"])
        changed = [name for name in usual if own.get(name, usual[name]) != usual[name]]
        if len(changed) > 1:
            continue
        judged = {"place": row["place"], "seed": row["seed"], "density": row["density"]}
        judged["line"] = _line(row, method)
        judged["accuracy"] = row["test_accuracy"]
        rows += [
            {"setting": name, "value": own.get(name, usual[name]), "is_base": not changed, **judged}
            for name in changed or usual
        ]
    names = ["setting", "value", "is_base", "line", "seed", "density", "accuracy", "place"]
    found = pd.DataFrame(rows, columns=names).astype({"value": object})
    several = found.groupby("setting")["value"].nunique()
    found = found[found["setting"].isin(several.index[several > 1])]
    if found.empty:
        raise ConfigError(f"no setting of {method} has two values: nothing to compare")
    places = {name: place for place, name in enumerate(usual)}
    keys = {
        "setting_place": found["setting"].map(places),
        "size": found["value"].map(_in_order),
        "text": found["value"].map(str),
    }
    found = found.assign(**keys).sort_values([*keys, "place", "seed"], ignore_index=True)
    return found[names[:-1]]


def sensitivity_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return setting, value, line, is_base, n, density, accuracy, low, high: means over seeds."""
    rows = []
    keys = ["setting", "value", "line"]
    text = table.assign(value=table["value"].map(setting_text))
    for key, own in text.groupby(keys, sort=False):
        level = mean_interval(own["accuracy"])
        numbers = (own["density"].mean(), level.mean, level.low, level.high)
        rows.append((*key, bool(own["is_base"].all()), level.n, *numbers))
    names = [*keys, "is_base", "n", "density", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def sensitivity_figure(table: pd.DataFrame, dense: pd.Series, method: str = "cs") -> Figure:
    """Draw accuracy against the values of each setting, a panel a setting; of a method that finds
    its own density, the density too, in a second panel below.

    Lines join means, small dots are seeds; the base's value is shaded.

    Args:
        table: from `sensitivity_table`.
        dense: the dense networks' test accuracies in percent.
        method: of the searches.
    """
    settings = list(dict.fromkeys(table["setting"]))
    columns = _columns(len(settings))
    title = _TITLES[method]
    colour = looks([title])[title].colour
    lines = list(dict.fromkeys(table["line"]))
    with styled():
        fig, accuracies, densities = _grid(len(settings), twofold=method not in _GIVEN)
        values = pd.concat([table["accuracy"], dense])
        accuracy_axis(accuracies[0], float(values.min()), float(values.max()))
        for place, setting in enumerate(settings):
            rows = table[table["setting"] == setting]
            accuracies[place].set_title(setting.replace("_", " "))
            dense_level(accuracies[place], dense)
            _panel(accuracies[place], rows, lines, "accuracy", 1, colour)
            if place % columns == 0:
                accuracies[place].set_ylabel("test (%)")
        for place, ax in enumerate(densities):
            rows = table[table["setting"] == settings[place]]
            _panel(ax, rows, lines, "density", 100, colour)
            accuracies[place].tick_params(labelbottom=False)
            if place % columns == 0:
                ax.set_ylabel("kept (%)")
        if densities:
            _percent_axis(densities[0], 100 * table["density"])
        looked = [_LINES[place % len(_LINES)] for place in range(len(lines))]
        handles = [
            Line2D([], [], color=colour, marker="s", linestyle=dash, fillstyle=fill)
            for dash, fill in looked
        ]
        fig.legend(handles, lines, loc="outside upper left", ncols=4, frameon=False, fontsize=9)
    return fig


def describe_sensitivity(means: pd.DataFrame) -> str:
    """Say in words what `sensitivity_figure` shows, from the table of `sensitivity_means`."""
    last = means.groupby(["setting", "value"], sort=False).tail(1)
    parts = []
    for setting, rows in last.groupby("setting", sort=False):
        words = [
            f"{row['value']} {row['accuracy']:.1f} % at {in_percent(row['density'])} density"
            for row in rows.to_dict("records")
        ]
        parts.append(f"{str(setting).replace('_', ' ')}: {', '.join(words)}")
    return f"Accuracy of the sparsest line's tickets by setting: {'; '.join(parts)}."


def setting_text(value: Any) -> str:
    """Return a setting's value for readers: `0.0001`, `yes`, `15it`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == math.inf:
        return "∞"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _plainly_judged(record: Mapping[str, Any], method: str) -> bool:
    if record["status"] != "ok":
        return False
    if method in _GIVEN:
        return bool(record["method"] == method and record["density"] < 1)
    settings = record["config"]["settings"]
    return (
        record["method"] == "retrain"
        and search_config(record["config"])["method"] == method
        and settings.get("start", "rewind") == "rewind"
        and settings.get("mask", "found") == "found"
    )


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that one asks about: the density is given, and no implicit term is 1/gamma = 0."""
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings.items()
        if name not in ("density", "implicit")
    }
    return plain if settings.get("implicit", True) else plain | {"gamma": math.inf}


def _line(row: Mapping[Any, Any], method: str) -> str:
    if method in _GIVEN:
        return f"{in_percent(row['target_density'])} density"
    return f"round {row['place']:.0f}"


def _in_order(value: Any) -> float:
    """Numbers, also in lengths such as `15it`, and lists by size; words as they come."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, tuple):
        return float(len(value))
    digits = str(value)[:-2]
    return float(digits) if digits.replace(".", "", 1).isdigit() else 0.0


def _columns(count: int) -> int:
    return 2 if count == 4 else min(count, 3)


def _grid(count: int, *, twofold: bool) -> tuple[Figure, list[Axes], list[Axes]]:
    """Rows of accuracy panels, each above the density panel of the same setting if twofold."""
    from matplotlib import pyplot as plt

    columns = _columns(count)
    rows = -(-count // columns)
    heights = [1.25, 1] if twofold else [1]
    size = ((3.2 if columns == 2 else 2.5) * columns + 0.4, 0.5 + (2.6 if twofold else 2.1) * rows)
    fig = plt.figure(figsize=size, layout="constrained")
    cells = fig.add_gridspec(len(heights) * rows, columns, height_ratios=heights * rows)
    kinds: list[list[Axes]] = [[] for _ in heights]
    for place in range(count):
        row, column = divmod(place, columns)
        for offset, axes in enumerate(kinds):
            shared = axes[0] if axes else None
            ax = fig.add_subplot(cells[len(heights) * row + offset, column], sharey=shared)
            ax.tick_params(labelleft=column == 0)
            axes.append(ax)
    return fig, kinds[0], kinds[1] if twofold else []


def _percent_axis(ax: Axes, values: pd.Series) -> None:
    ax.set_yscale("log")
    low, high = 0.85 * float(values.min()), 1.18 * float(values.max())
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(FixedLocator([one for one in _DENSITIES if low <= one <= high]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _panel(
    ax: Axes, rows: pd.DataFrame, lines: list[str], value: str, unit: float, colour: str
) -> None:
    names = list(dict.fromkeys(rows["value"].map(setting_text)))
    at = rows["value"].map(setting_text).map(names.index)
    for place in set(at[rows["is_base"]]):
        ax.axvspan(place - 0.3, place + 0.3, color=FAINT, alpha=0.15, linewidth=0, gid="base")
    ax.plot(at, unit * rows[value], "o", color=colour, markersize=3, alpha=0.3, mew=0, gid="seeds")
    for line, own in rows.groupby("line", sort=False):
        dash, fill = _LINES[lines.index(str(line)) % len(_LINES)]
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
