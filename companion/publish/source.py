"""Quote on a page what lies in files: code, tests, recipe values, values that papers report."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from companion.evidence.reported import quoted, reported, reported_speed_up
from companion.markdown import Markdown, code, table
from companion.published import read_published
from lthlib.errors import PublishError

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def quoting(root: Path) -> dict[str, Callable[..., Any]]:
    """Return the functions with which pages of a repository quote, by name.

    Args:
        root: the repository: the folder that holds `lthlib` and `tests`.
    """
    return {
        "source": partial(source, root),
        "test_source": partial(quoted_test, root),
        "setting": setting,
        "setting_source": setting_source,
        "reported_tickets": reported_tickets,
        "reported_minutes": reported_minutes,
        "reported_epochs": reported_epochs,
        "reported_faster": reported_faster,
        "reported_rewinding": reported_rewinding,
        "departures": departures,
        "quoted_table": quoted_table,
        "bench": partial(bench, root),
        "bench_table": partial(bench_table, root),
        "bench_made": partial(bench_made, root),
        "bench_targets": partial(bench_targets, root),
        "has_bench": partial(has_bench, root),
    }


def source(root: Path, module: str, name: str) -> Markdown:
    """Return a definition as a code block, its file as the caption.

    `source("lthlib.methods.bip.paper", "upper_gradient")`; a method is `Class.name`, a function
    inside another `outer.inner`.

    Raises:
        PublishError: there is no such file, or no such definition in it.
    """
    return _quoted(root, module.replace(".", "/") + ".py", name)


def quoted_test(root: Path, node: str) -> Markdown:
    """Return a test as a code block: `test_source("tests/methods/test_bip.py::test_signs")`.

    Raises:
        PublishError: there is no such file, or no such test in it.
    """
    path, _, name = node.partition("::")
    return _quoted(root, path, name.replace("::", "."))


def setting(recipe: str, name: str) -> Any:
    """Return a value of a recipe: `setting("digits", "methods.bip.clip")`.

    Raises:
        PublishError: the recipe has no such value; the message lists those it has.
    """
    from lthlib.recipes import load_recipe  # it imports torch

    loaded = load_recipe(recipe)
    if name not in loaded.sources:
        raise PublishError(
            f"recipe {recipe!r} has no value {name!r}; known: {', '.join(loaded.sources)}"
        )
    found: Any = loaded.values
    for part in name.split("."):
        found = found[part]
    return found


def setting_source(recipe: str, name: str) -> str:
    """Return where a value of a recipe comes from; raises as `setting`."""
    from lthlib.recipes import load_recipe

    setting(recipe, name)
    return str(load_recipe(recipe).sources[name])


def bench(root: Path, part: str, name: str, field: str = "ours") -> str:
    """Return what a benchmark measured: `bench("cluster", "efficiency")` -> `98.2`.

    part: the newest `results/bench/DATE-part.json` is read. field: `ours`, or another of a row.

    Raises:
        PublishError: there is no such file or row; the message lists the rows there are.
    """
    rows = {row["name"]: row for row in read_bench(root, part)["rows"]}
    if name not in rows:
        raise PublishError(f"benchmark {part!r} has no row {name!r}; known: {', '.join(rows)}")
    value = rows[name][field]
    if not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def bench_table(root: Path, part: str, *groups: str) -> Markdown:
    """Return rows of a benchmark as a table: of `bip: runs` the group is `bip`, the column `runs`.

    Raises:
        PublishError: as `bench`.
    """
    rows = read_bench(root, part)["rows"]
    columns = {
        row["name"].partition(": ")[2]: row["unit"]
        for row in rows
        if row["name"].startswith(f"{groups[0]}: ")
    }
    head = [f"{name}, {unit}" if unit else name for name, unit in columns.items()]
    lines = [[one, *(bench(root, part, f"{one}: {name}") for name in columns)] for one in groups]
    return table(["", *head], lines)


def bench_made(root: Path, part: str) -> str:
    """Return what measured a benchmark, and when."""
    report = read_bench(root, part)
    machine = report["machine"]
    load = machine.get("load average, before and after")
    busy = f" · load average before and after: {load[0]:g}, {load[1]:g}" if load else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores · device: {machine['device']} · "
        f"date: {report['started'][:10]} · PyTorch {machine['torch']}{busy}"
    )


def bench_targets(root: Path, part: str) -> str:
    """Return how many targets of a benchmark are met, and the names of those that are not; or that
    it was not measured."""
    if not has_bench(root, part):
        return "nothing has been measured"
    aimed = [row for row in read_bench(root, part)["rows"] if row["met"] is not None]
    missed = [row["name"] for row in aimed if not row["met"]]
    words = f"{len(aimed) - len(missed)} of {len(aimed)} targets are met"
    return f"{words}; not met: {'; '.join(missed)}" if missed else words


def has_bench(root: Path, part: str) -> bool:
    """Return whether a benchmark was recorded: `[% if has_bench("cuda") %]`."""
    return bool(bench_files(root / "results", part))


def bench_files(results: Path, part: str) -> list[Path]:
    """Return the recorded files of a benchmark, the newest last."""
    return sorted(results.glob(f"bench/*-{part}.json"))


def load_bench(path: Path) -> dict[str, Any]:
    """Read the file of a benchmark. Raises RecordError when it is not as it was written."""
    return read_published(path, "`python -m benchmarks`")


def read_bench(root: Path, part: str) -> dict[str, Any]:
    """Return the newest file of a benchmark; raises as `bench` and `load_bench`."""
    found = bench_files(root / "results", part)
    if not found:
        raise PublishError(f"there is no results/bench/DATE-{part}.json; `benchmarks` writes it")
    return load_bench(found[-1])


def reported_tickets() -> Markdown:
    """Return the sparsest winning tickets of BiP's Table 1: pruned percentage and accuracy."""
    rows = _reported("sparsest_winning_ticket_accuracy_pct", artefact="Table 1")
    pairs = list(dict.fromkeys(zip(rows["dataset"], rows["architecture"], strict=True)))
    lines = []
    for method, cells in rows.groupby("method", sort=False):
        named = cells.set_index(["dataset", "architecture"])
        lines.append([method, *(_ticket(named.loc[pair]) for pair in pairs)])
    return table(["method", *(f"{data}, {net}" for data, net in pairs)], lines)


def reported_minutes() -> Markdown:
    """Return BiP's runtime figure, CIFAR-10 and ResNet-18: minutes by pruned percentage."""
    rows = _reported("minutes_on_A6000", artefact="runtime figure")
    lines = []
    for row in rows.itertuples():
        ratio = "any" if row.pruning_ratio_pct != row.pruning_ratio_pct else row.pruning_ratio_pct
        lines.append([row.method, ratio, f"{row.value:g}"])
    return table(["method", "pruned, %", "minutes"], lines)


def reported_faster(percent: float, pretraining: bool = False) -> str:
    """Return IMP's minutes over BiP's by BiP's runtime figure: `reported_faster(89.3)` -> `8.0`.

    percent: pruned. pretraining: count everybody's dense training, or nobody's.

    Raises:
        PublishError: no value is known there; the message lists where there are.
    """
    table = reported_speed_up().set_index("pruning_ratio_pct")
    if percent not in table.index:
        known = ", ".join(f"{one:g}" for one in table.index)
        raise PublishError(f"no minutes are known at {percent} % pruned; there are: {known}")
    return f"{table['both' if pretraining else 'neither'][percent]:.1f}"


def reported_epochs(method: str) -> str:
    """Return the epochs in sequence that CS's summary gives: `reported_epochs("CS")` -> `425`.

    Raises:
        PublishError: none is known for the method.
    """
    rows = _reported("epochs_in_sequence_for_the_tickets", method=method)
    return f"{rows['value'].iloc[0]:,.0f}"


def reported_rewinding() -> Markdown:
    """Return BiP's rewinding figure: accuracy by what is pruned and where retraining starts."""
    rows = _reported("test_accuracy_pct", artefact="rewinding figure")
    starts = [name.removeprefix("BiP, ") for name in dict.fromkeys(rows["method"])]
    names = ["network", "pruned", *(name.removeprefix("rewind ") for name in starts)]
    lines = []
    for key, own in rows.groupby(["dataset", "architecture", "pruning_ratio_pct"], sort=False):
        data, net, ratio = key
        values = (f"{value:.2f}" for value in own["value"])
        lines.append([f"{data}, {net}", f"{ratio:g} %", *values])
    return table(names, lines)


def departures() -> Markdown:
    """Return what the release of BiP does otherwise than its paper, by the names of `switched`."""
    from lthlib.methods.bip import DEPARTURES  # it imports torch

    lines = [[code(name), Markdown(what)] for name, what in DEPARTURES.items()]
    return table(["name", "what the release does"], lines)


def quoted_table() -> Markdown:
    """Return what others published of pruning methods that are not run here, as a table."""
    names = ["method", "data", "network", "removed, %", "of", "accuracy, %", "dense, %", "source"]
    rows = quoted().to_dict("records")
    return table(names, [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: Any) -> str:
    if value != value:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _reported(quantity: str, **where: str) -> Any:
    rows = reported()
    rows = rows[rows["quantity"] == quantity]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    if rows.empty:
        raise PublishError(f"no published {quantity} with {where}")
    return rows


def _ticket(row: Any) -> str:
    if row["value"] != row["value"]:
        return "none"
    return f"{row['pruning_ratio_pct']:g} % ({row['value']:.2f} ± {row['std']:.2f})"


def _quoted(root: Path, path: str, name: str) -> Markdown:
    try:
        text = (root / path).read_text(encoding="utf-8")
    except OSError:
        raise PublishError(f"there is no file {path} to quote {name!r} from") from None
    known = dict(_definitions(ast.parse(text)))
    if name not in known:
        raise PublishError(f"{path} defines no {name!r}; it defines: {', '.join(known)}")
    found = known[name]
    first = min([found.lineno, *(one.lineno for one in found.decorator_list)])
    lines = textwrap.dedent("\n".join(text.splitlines()[first - 1 : found.end_lineno]))
    longest = max(map(len, re.findall("`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markdown(f"{fence}{{code-block}} python\n:caption: {path}\n\n{lines}\n{fence}")


def _definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            yield prefix + child.name, child
            yield from _definitions(child, f"{prefix}{child.name}.")
        else:
            yield from _definitions(child, prefix)
