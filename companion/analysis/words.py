"""Numbers and tables in words: for labels, for tables, and for those who cannot see a figure."""

import math
from collections.abc import Iterable, Sequence
from string import Formatter
from typing import Any

import pandas as pd


def in_percent(density: float) -> str:
    """Return a density as a text in percent, two digits: `100 %`, `5.2 %`."""
    value = 100 * density
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.2g} %"


def duration(seconds: float) -> str:
    """Return seconds as `8.2 s`, `2 min 31 s`, `3 h 05 min` or, from three days on, `12.5 days`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, over = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {over:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 72 else f"{seconds / 86400:.1f} days"


def short(cost: float) -> str:
    """Return an amount with three digits and a prefix: `12.5 M`, `830`."""
    for size, name in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if cost >= size:
            return f"{cost / size:.3g} {name}"
    return f"{cost:.3g}"


def in_brackets(value: float, low: float, high: float, form: str) -> str:
    """Return a value with its interval, if both are known: `+0.3 [0.1, 0.5]`; a dash for none.

    Args:
        value: NaN for none.
        low: the lower end of its interval, or NaN.
        high: the upper end.
        form: of all three; a plus sign in front counts for the value alone.
    """
    if math.isnan(value):
        return "–"
    plain = form.lstrip("+")
    interval = "" if math.isnan(low) else f" [{low:{plain}}, {high:{plain}}]"
    return f"{value:{form}}{interval}"


def column_in_brackets(rows: pd.DataFrame, names: Sequence[str], form: str) -> list[str]:
    """Return `in_brackets` of each row.

    Args:
        rows: a table.
        names: the columns of the value and of its interval's two ends.
        form: as for `in_brackets`.
    """
    value, low, high = (rows[name].astype(float) for name in names)
    return [in_brackets(*numbers, form) for numbers in zip(value, low, high, strict=True)]


class _Form(Formatter):
    """A format of a row's columns, in which `{density!p}` is in percent and `{cost!k}` short."""

    def convert_field(self, value: Any, conversion: Any) -> Any:
        conversions = {"p": in_percent, "k": short}
        if conversion in conversions:
            return conversions[conversion](value)
        return super().convert_field(value, conversion)


def described_rows(lead: str, table: pd.DataFrame, form: str) -> str:
    """Describe a table row by row.

    Args:
        lead: what is described, before the colon.
        table: its rows, in order.
        form: what to say of a row, by its columns: `{curve} {difference:+.1f} at {density!p}`.
    """
    return _sentence(lead, _texts(table, form))


def described_curves(lead: str, table: pd.DataFrame, form: str, by: str = "curve") -> str:
    """Describe the two ends of each curve: `dense 98.1 %; IMP 98.0 % at 80 % to 92.1 % at 5 %`.

    Args:
        lead: what is described, before the colon.
        table: rows in the order of their curve.
        form: what to say of a row, by its columns, as for `described_rows`.
        by: the column that names a row's curve.
    """
    curves = table.groupby(by, sort=False)
    ends = {str(name): dict.fromkeys(_texts(rows.iloc[[0, -1]], form)) for name, rows in curves}
    return _sentence(lead, (f"{name} {' to '.join(texts)}" for name, texts in ends.items()))


def described_panels(
    lead: str, table: pd.DataFrame, form: str, by: str | list[str], head: str, link: str = ", "
) -> str:
    """Describe panels, or groups of rows, each with all of its rows.

    Args:
        lead: what is described, before the colon.
        table: its rows, in order.
        form: what to say of a row, by its columns, as for `described_rows`.
        by: the columns that say which panel a row belongs to.
        head: what to say of a panel before its rows, by the columns of its first.
        link: what stands between two rows of a panel.
    """
    panels = (rows for _, rows in table.groupby(by, sort=False))
    texts = (_texts(rows.head(1), head)[0] + link.join(_texts(rows, form)) for rows in panels)
    return _sentence(lead, texts)


def _texts(table: pd.DataFrame, form: str) -> list[str]:
    rows: list[Any] = table.to_dict("records")
    return [_Form().vformat(form, (), row) for row in rows]


def _sentence(lead: str, texts: Iterable[str]) -> str:
    return f"{lead}: {'; '.join(texts)}."
