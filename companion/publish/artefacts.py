"""A notebook's figures and tables: each with its data, its provenance, a ready block for a page."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from companion.analysis.words import duration
from companion.markdown import Markdown, in_words
from companion.markdown import table as markdown_table
from lthlib.errors import PublishError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series

TAG = "lthlib_artefact"  # in the metadata of a displayed output: the page shows the block instead
_WIDE = 7  # inches; on a phone, a figure that is wider scrolls sideways
_NEEDED = ("scale", "seed", "device", "finished", "commit", "dirty", "own_seconds", "run", "status")


def rerun_command(page: str, parameters: Mapping[str, Any]) -> str:
    """Return the command that runs a page's notebook again, from any folder.

    Args:
        page: the page, or its notebook.
        parameters: those to set. None is left out: it is what a parameter that may be None is
            without a value.

    Returns:
        The command, quoted for a shell, such as `lth rerun tickets --set seeds=3`.
    """
    words = ["lth", "rerun", page]
    for name, value in parameters.items():
        if value is not None:
            plain = [list(value) if isinstance(value, tuple) else value]
            line = yaml.safe_dump(plain, default_flow_style=True, width=math.inf)
            words += ["--set", f"{name}={line.strip()[1:-1]}"]
    return shlex.join(words)


@dataclass(frozen=True)
class Artefacts:
    """Where a notebook puts what it shows: NAME.svg, .csv and .md for each figure or table.

    Attributes:
        notebook: its name, without folder and suffix; on a page of the book, `$LTHLIB_PAGE` is.
        command: the command that makes everything in it again.
        folder: default `$LTHLIB_ARTEFACTS` (set while the book is built), else
            `build/artefacts/NOTEBOOK`.
    """

    notebook: str
    command: str
    folder: str | Path | None = None

    @classmethod
    def of(cls, notebook: str, parameters: Any) -> Artefacts:
        """Return those of a notebook by its parameters, one of which is `artefacts`, the folder.

        Whoever runs it for a page sets `$LTHLIB_COMMAND`, which is shorter than all parameters.

        Args:
            notebook: its name.
            parameters: what `declare` returned.
        """
        changes = {**parameters._asdict(), "artefacts": None}
        command = os.getenv("LTHLIB_COMMAND") or rerun_command(notebook, changes)
        return cls(notebook, command, parameters.artefacts)

    def figure(
        self,
        fig: Figure,
        name: str,
        data: DataFrame,
        *,
        title: str,
        alt: str = "",
        note: str = "",
        rows: DataFrame | None = None,
        source: str = "",
    ) -> None:
        """Write a figure as SVG, equal bytes for equal figures, and show it with its provenance.

        Args:
            fig: a matplotlib figure; it is closed.
            name: of the files: lower-case letters, digits and hyphens.
            data: what the figure shows, written as CSV.
            title: the caption, one sentence of Markdown.
            alt: what the figure shows, in words, for those who cannot see it; default its label.
            note: how to read it, below the caption, in Markdown.
            rows: the rows of the tidy table that the data was made from; default `data` itself.
            source: where the data comes from, if no run of ours made it: text, or Markdown.

        Raises:
            PublishError: an argument is empty or malformed, or the rows lack provenance.
        """
        from IPython.display import display
        from matplotlib import pyplot, rc_context
        from matplotlib.text import Text

        alt = alt or str(fig.get_label())
        if not alt.strip():
            raise PublishError(f"figure {name!r}: alt text is empty; say what the figure shows")
        notes = self._notes(name, data, note, rows, source)
        svg = self._path(name, ".svg")
        for text in fig.findobj(Text):
            text.set_parse_math(False)
        # Some ticks are made as they are drawn: their labels too are text and no mathematics.
        with rc_context({"svg.hashsalt": "lthlib", "text.parse_math": False}):
            fig.savefig(svg, format="svg", bbox_inches="tight", metadata={"Date": None})
        pyplot.close(fig)
        # The option is read as YAML, of which JSON is a part but for escaped surrogate pairs.
        quoted = json.dumps(_one_line(alt), ensure_ascii=False)
        head = f":::{{figure}} {self._address(name)}.svg\n:alt: {quoted}"
        if fig.get_figwidth() > _WIDE:
            head += "\n:class: wide"
        block = f"{head}\n\n{_one_line(title)}\n\n{self._with_downloads(name, notes, 'svg')}:::\n"
        picture = {"image/svg+xml": svg.read_text(encoding="utf-8"), "text/plain": alt}
        display(picture, raw=True, metadata={TAG: name})
        self._write_and_show(name, data, block, f"**{title}**\n\n{notes}")

    def table(
        self,
        data: DataFrame,
        name: str,
        *,
        title: str,
        note: str = "",
        formats: Mapping[str, str] | None = None,
        rows: DataFrame | None = None,
        source: str = "",
    ) -> None:
        """Write a table, without its index, as Markdown and CSV and show it with its provenance.

        Args:
            data: the table; names of columns and cells are text.
            name: of the files: lower-case letters, digits and hyphens.
            title: the caption, one sentence of Markdown.
            note: how to read it, below the table, in Markdown.
            formats: column -> format of its numbers, default `.4g`; a missing value is a dash.
            rows: the rows of the tidy table that the data was made from; default `data` itself.
            source: where the data comes from, if no run of ours made it: text, or Markdown.

        Raises:
            PublishError: an argument is empty or malformed, or the rows lack provenance.
        """
        notes = self._notes(name, data, note, rows, source)
        body = _markdown(name, data, formats or {})
        block = f":::{{table}} {_one_line(title)}\n\n{body}\n:::\n\n"
        block += f":::{{div}} provenance\n{self._with_downloads(name, notes)}:::\n"
        self._write_and_show(name, data, block, f"**{title}**\n\n{body}\n\n{notes}")

    def _notes(
        self, name: str, data: DataFrame, note: str, rows: DataFrame | None, source: str
    ) -> str:
        """Return how to read the data, and what made it."""
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise PublishError(f"{name!r} names files: use lower-case letters, digits, hyphens")
        if data.empty or any(not str(column).strip() for column in data.columns):
            raise PublishError(f"{name!r}: the data is empty or a column has no name")
        if source:
            origin = Markdown("Source: {}").format(source)
        else:
            origin = Markdown("{}").format(provenance(data if rows is None else rows, name))
        return "\n\n".join(filter(None, [_one_line(note), origin]))

    def _with_downloads(self, name: str, notes: str, *more: str) -> str:
        """Return what stands below an artefact on a page: its files, and how to make it again."""
        links = [
            f"{{download}}`{suffix.upper()} <{self._address(name)}.{suffix}>`"
            for suffix in (*more, "csv")
        ]
        return f"{notes}\n\nDownload: {' · '.join(links)}\n\n{self._command_block()}"

    def _command_block(self) -> str:
        return f"```bash\n{self.command}\n```\n"

    def _address(self, name: str) -> str:
        return f"/artefacts/{os.getenv('LTHLIB_PAGE') or self.notebook}/{name}"

    def _write_and_show(self, name: str, data: DataFrame, block: str, text: str) -> None:
        """Write data and block; show text, since MyST's roles mean nothing in a notebook."""
        from IPython.display import display

        path = self._path(name, ".csv")
        data.to_csv(path, index=False, lineterminator="\n")
        self._path(name, ".md").write_text(block, encoding="utf-8")
        output = {"text/markdown": f"{text}\n\nData: `{path}`\n\n{self._command_block()}"}
        display(output, raw=True, metadata={TAG: name})

    def _path(self, name: str, suffix: str) -> Path:
        folder = self.folder or os.getenv("LTHLIB_ARTEFACTS") or f"build/artefacts/{self.notebook}"
        Path(folder).mkdir(parents=True, exist_ok=True)
        return Path(folder, name + suffix)


def provenance(rows: DataFrame, name: str = "data") -> str:
    """Return one line on the runs behind some rows of the tidy table.

    Args:
        rows: of the tidy table.
        name: of what they were made into, for messages.

    Raises:
        PublishError: a column of the tidy table is missing, or there are no rows.
    """
    missing = [column for column in _NEEDED if column not in rows.columns]
    if missing or rows.empty:
        lacks = f"lack {', '.join(missing)}" if missing else "are empty"
        raise PublishError(
            f"{name!r}: the rows {lacks}: pass rows= (of the tidy table) or, without runs, source="
        )
    facts = made_by(rows)
    scale = facts.pop("scale")
    return f"Scale: {scale} · " + " · ".join(f"{name}: {text}" for name, text in facts.items())


def made_by(rows: DataFrame) -> dict[str, str]:
    """Return what made some rows of the tidy table.

    Seconds are each run's own, ancestors left out; of a run's tickets the dearest counts.

    Returns:
        Scale, seeds, device, date, commit, runs and duration, in words.
    """
    runs = rows.groupby("run")
    failed = int((rows["status"] == "failed").groupby(rows["run"]).any().sum())
    days = sorted(rows["finished"].astype(str).str[:10])
    commits = _listed(rows["commit"].dropna().astype(str).str[:7]) or "none"
    return {
        "scale": _listed(rows["scale"]),
        "seeds": _spans(rows["seed"]),
        "device": _listed(rows["device_name"] if "device_name" in rows else rows["device"]),
        "date": " to ".join(dict.fromkeys((days[0], days[-1]))),
        "commit": commits + (", with changes not committed" if rows["dirty"].any() else ""),
        "runs": f"{runs.ngroups}" + (f" ({failed} failed)" if failed else ""),
        "duration": duration(float(runs["own_seconds"].max().sum())),
    }


def _listed(values: Series) -> str:
    words = sorted(set(values.dropna().astype(str)))
    more = f" and {len(words) - 3} more" if len(words) > 3 else ""
    return ", ".join(words[:3]) + more


def _spans(values: Series) -> str:
    """Whole numbers as spans: 0, 1, 2, 5 -> `0–2, 5`."""
    numbers = enumerate(sorted({int(value) for value in values}))
    groups = groupby(numbers, lambda pair: pair[1] - pair[0])  # the same inside a span
    spans = ([number for _, number in pairs] for _, pairs in groups)
    return ", ".join("–".join(map(str, dict.fromkeys((span[0], span[-1])))) for span in spans)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _markdown(name: str, data: DataFrame, formats: Mapping[str, str]) -> Markdown:
    if unknown := sorted(formats.keys() - set(data.columns)):
        raise PublishError(f"{name!r}: formats names column {unknown[0]!r}, which does not exist")
    from pandas.api.types import is_numeric_dtype

    columns = [
        [in_words(value, formats.get(str(name), ".4g")) for value in values]
        for name, values in data.items()
    ]
    numeric = [column for column, kind in enumerate(data.dtypes) if is_numeric_dtype(kind)]
    return markdown_table(data.columns, zip(*columns, strict=True), numeric)
