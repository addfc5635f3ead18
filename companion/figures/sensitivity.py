"""What a method is sensitive to: one setting changed at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.analysis.points import round_numbers, ticket_table
from companion.analysis.words import described_panels, in_percent
from companion.evidence.records import search_config
from companion.evidence.statistics import mean_interval
from companion.figures.charts import curves, key, labelled, seeds
from companion.figures.style import (
    DASHES,
    FAINT,
    FILLS,
    Look,
    accuracy_axis,
    dense_level,
    kept_axis,
    look_of,
    styled,
)
from lthlib.errors import ConfigError

_TITLES = {"cs": "CS", "l0": "l0", "iss": "ISS", "bip": "BiP"}
_GIVEN = ("bip",)  # methods that are given their density, and are judged as found


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
    for values, own in text.groupby(keys, sort=False):
        level = mean_interval(own["accuracy"])
        numbers = (own["density"].mean(), level.mean, level.low, level.high)
        rows.append((*values, bool(own["is_base"].all()), level.n, *numbers))
    names = [*keys, "is_base", "n", "density", "accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=names)


@styled()
def sensitivity_figure(table: pd.DataFrame, dense: pd.Series, method: str = "cs") -> Figure:
    """Draw accuracy against the values of each setting, a panel a setting; of a method that finds
    its own density, the density too, in a second panel below.

    Lines join means, small dots are seeds; the base's value is shaded.

    Args:
        table: from `sensitivity_table`.
        dense: the dense networks' test accuracies in percent.
        method: of the searches.
    """
    settings, lines = (list(dict.fromkeys(table[one])) for one in ("setting", "line"))
    kinds = {"accuracy": "test (%)", "kept": "kept (%)"}
    if method in _GIVEN:
        kinds.pop("kept")
    columns = 2 if len(settings) == 4 else min(len(settings), 3)
    rows = -(-len(settings) // columns)
    width = (3.2 if columns == 2 else 2.5) * columns + 0.4
    height = 0.5 + (2.6 if len(kinds) > 1 else 2.1) * rows
    fig, grid = plt.subplots(
        len(kinds) * rows, columns, figsize=(width, height),
        squeeze=False, layout="constrained", height_ratios=[1.25, 1][: len(kinds)] * rows,
    )  # fmt: skip
    styles = zip(itertools.cycle(DASHES), itertools.cycle(FILLS), strict=False)
    colour = look_of(_TITLES[method]).colour
    known = {line: Look(colour, "s", *style) for line, style in zip(lines, styles, strict=False)}
    shown = table.assign(kept=100 * table["density"], text=table["value"].map(setting_text))
    for place, setting in enumerate(settings):
        row, column = divmod(place, columns)
        for offset, (kind, label) in enumerate(kinds.items()):
            ax = grid[len(kinds) * row + offset, column]
            _panel(ax, shown[shown["setting"] == setting], kind, known)
            if kind == "accuracy":
                ax.set_title(setting.replace("_", " "))
                dense_level(ax, dense)
                accuracy_axis(ax, pd.concat([table["accuracy"], dense]))
            else:
                kept_axis(ax, shown["kept"])
            ax.set(xlabel="", ylabel="" if column else label)
            ax.tick_params(labelleft=not column, labelbottom=offset == len(kinds) - 1)
    for ax in [ax for ax in grid.flat if not ax.has_data()]:
        ax.remove()
    key(fig, known, 4)
    return labelled(fig, _in_words(table))


def _in_words(table: pd.DataFrame) -> str:
    means = sensitivity_means(table)
    last = means.groupby(["setting", "value"], sort=False).tail(1)
    last = last.assign(setting=last["setting"].str.replace("_", " "))
    form = "{value} {accuracy:.1f} % at {density!p} density"
    lead = "Accuracy of the sparsest line's tickets by setting"
    return described_panels(lead, last, form, "setting", "{setting}: ")


def _panel(ax: Axes, rows: pd.DataFrame, kind: str, known: Mapping[str, Look]) -> None:
    names = list(dict.fromkeys(rows["text"]))
    rows = rows.assign(at=rows["text"].map(names.index))
    for place in set(rows.loc[rows["is_base"], "at"]):
        ax.axvspan(place - 0.3, place + 0.3, color=FAINT, alpha=0.15, linewidth=0, gid="base")
    seeds(ax, rows["at"], rows[kind], next(iter(known.values())).colour)
    curves(ax, rows, "at", kind, known, "line", markersize=4.5, gid="mean")
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_xticks(range(len(names)), names, fontsize=8)


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
