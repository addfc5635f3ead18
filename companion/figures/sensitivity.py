"""What a method is sensitive to: one setting changed at a time."""

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from companion.analysis.points import ticket_table
from companion.analysis.words import described_panels, in_percent
from companion.evidence.records import search_config
from companion.evidence.statistics import estimates
from companion.figures.charts import curves, dots, grid, key, labelled, level
from companion.figures.style import FAINT, VARIANTS, Look, look_of, scaled, styled
from companion.markdown import in_words
from lthlib.errors import ConfigError
from lthlib.settings import LENGTH

_COLUMNS = ["setting", "value", "is_base", "line", "seed", "density", "accuracy"]


def sensitivity_table(
    records: Iterable[Mapping[str, Any]], base: Mapping[str, Any], method: str = "cs"
) -> pd.DataFrame:
    """Return the judged tickets of searches that differ from a base in at most one setting.

    Runs are chosen by their configuration: one with the base's settings stands in every panel. The
    tickets of a method that finds its density (CS) count retrained, a line a round; those of one
    that is given it (BiP) as found, a line a density. BiP without the implicit term is BiP with an
    infinite gamma.

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
    takes_density = "density" in base
    usual = _comparable(base)
    records = [record for record in records if _plainly_judged(record, method, takes_density)]
    table = ticket_table(records)
    table["order"] = -table["target_density"] if takes_density else table["round"] + 1
    rows = []
    for record, row in zip(records, table.to_dict("records"), strict=True):
        settings = usual | _comparable(search_config(record["config"])["settings"])
        changed = [name for name in usual if settings[name] != usual[name]]
        order = row["order"]
        line = f"{in_percent(-order)} density" if takes_density else f"round {order:.0f}"
        judged = (line, row["seed"], row["density"], row["test_accuracy"], order)
        if len(changed) < 2:
            rows += [(name, settings[name], not changed, *judged) for name in changed or usual]
    tickets = pd.DataFrame(rows, columns=[*_COLUMNS, "order"]).astype({"value": object})
    tickets = tickets[tickets.groupby("setting")["value"].transform("nunique") > 1]
    if tickets.empty:
        raise ConfigError(f"no setting of {method} has two values: nothing to compare")
    keys = {
        "setting_order": tickets["setting"].map([*usual].index),
        "size": tickets["value"].map(_size),
        "text": tickets["value"].map(str),
    }
    tickets = tickets.assign(**keys).sort_values([*keys, "order", "seed"], ignore_index=True)
    return tickets[_COLUMNS]


def sensitivity_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return means over seeds.

    Args:
        table: from `sensitivity_table`.

    Returns:
        Columns setting, value (as text), line, is_base, n, density, accuracy, low, high.
    """
    text = table.assign(value=table["value"].map(_text))
    keys = ["setting", "value", "line", "is_base"]
    means = estimates(text, keys, "accuracy", ["density"]).rename(columns={"mean": "accuracy"})
    return means[[*keys, "n", "density", "accuracy", "low", "high"]]


@styled
def sensitivity_figure(table: pd.DataFrame, dense: pd.Series, method: str = "CS") -> Figure:
    """Draw accuracy against the values of each setting, a panel a setting.

    Of a method that finds its own density, the density stands in a second panel beside it. Lines
    join means, small dots are seeds; the base's value is shaded.

    Args:
        table: from `sensitivity_table`.
        dense: the dense networks' test accuracies in percent.
        method: the title of the method, whose colour is used.
    """
    colour = look_of(method).colour
    lines = zip(dict.fromkeys(table["line"]), itertools.cycle(VARIANTS), strict=False)
    line_looks = {line: Look(colour, "s", *variant) for line, variant in lines}
    tickets = table.assign(kept=100 * table["density"], text=table["value"].map(_text))
    finds = str(table["line"].iloc[0]).startswith("round")
    kinds = {"accuracy": "test (%)", **({"kept": "kept (%)"} if finds else {})}
    panels = [f"{kind} {setting}" for setting in dict.fromkeys(table["setting"]) for kind in kinds]
    columns = 2 * len(kinds)
    size = 1.2 + 1.9 * columns, 0.5 + 1.9 * -(-len(panels) // columns)
    fig, axes = grid(
        pd.DataFrame({"panel": panels}), *size,
        lambda panel: panel.partition("accuracy ")[2].replace("_", " "),
        col="panel", col_wrap=columns, sharex=False, sharey=False,
    )  # fmt: skip
    for panel, ax in axes.items():
        kind, setting = panel.split()
        rows = tickets[tickets["setting"] == setting]
        names = list(dict.fromkeys(rows["text"]))
        rows = rows.assign(at=rows["text"].map(names.index))
        for base in set(rows.loc[rows["is_base"], "at"]):
            ax.axvspan(base - 0.3, base + 0.3, color=FAINT, alpha=0.15, linewidth=0, gid="base")
        dots(ax, rows["at"], rows[kind], colour)
        curves(ax, rows, "at", kind, line_looks, "line", markersize=4.5, gid="mean")
        if kind == "accuracy":
            level(ax, dense)
            scaled(ax, "y", "error", [*table["accuracy"], *dense])
        else:
            scaled(ax, "y", "log", tickets["kept"])
        ax.set(xlim=(-0.5, len(names) - 0.5), ylabel=kinds[kind])
        ax.set_xticks(range(len(names)), names, fontsize=8)
    key(fig, line_looks, 4)
    last = sensitivity_means(table).groupby(["setting", "value"], sort=False).tail(1)
    last = last.assign(setting=last["setting"].str.replace("_", " "))
    form = "{value} {accuracy:.1f} % at {density!p} density"
    lead = "Accuracy of the sparsest line's tickets by setting"
    return labelled(fig, described_panels(lead, last, form, "setting", "{setting}: "))


def _text(value: Any) -> str:
    """A setting's value for readers: `0.0001`, `yes`, `15it`."""
    return {"inf": "∞", "": "none"}.get(text := in_words(value), text)


def _plainly_judged(record: Mapping[str, Any], method: str, takes_density: bool) -> bool:
    if record["status"] != "ok":
        return False
    if takes_density:
        return bool(record["method"] == method and record["density"] < 1)
    settings, plain = record["config"]["settings"], {"start": "rewind", "mask": "found"}
    return (
        record["method"] == "retrain"
        and search_config(record["config"])["method"] == method
        and all(settings.get(name, value) == value for name, value in plain.items())
    )


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings to ask about: not the density; and no implicit term is 1/gamma = 0."""
    plain = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings.items()
        if name not in ("density", "implicit")
    }
    return plain if settings.get("implicit", True) else plain | {"gamma": math.inf}


def _size(value: Any) -> float:
    """Numbers, also in lengths such as `15it`, and lists by size; words as they come."""
    if isinstance(value, tuple):
        return float(len(value))
    if isinstance(value, bool | int | float):
        return float(value)
    length = LENGTH.fullmatch(str(value))
    return float(length[length.lastindex or 0]) if length else 0.0
