"""Quote on a page what lies in files: code, tests, recipe values, values that papers report."""

from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from companion.evidence.reported import quoted, reported, reported_speed_up
from companion.markdown import Markdown, code, in_words, table
from companion.publish.bench import Benchmarks
from lthlib.errors import PublishError


def quoting(root: Path) -> dict[str, Callable[..., Any]]:
    """Return the functions with which pages of a repository quote, by name.

    Args:
        root: the repository: the folder that holds `results`.
    """
    functions = (
        *(source, test_source, recipes, about, setting, setting_source, recipe_table, departures),
        method_settings,
        *(reported_tickets, reported_minutes, reported_epochs, reported_faster),
        *(reported_rewinding, quoted_table, price_table),
    )
    benchmarks = Benchmarks(root / "results")
    names = [name for name in dir(benchmarks) if "bench" in name and not name.startswith("_")]
    return {
        **{function.__name__: function for function in functions},
        **{name: getattr(benchmarks, name) for name in names},
    }


def source(module: str, name: str) -> Markdown:
    """Return a definition as a code block: `source("lthlib.methods.bip.paper", "upper_gradient")`.

    Its file is the caption. Sphinx reads the file, and refuses one that does not define the name.

    Args:
        module: its full name.
        name: of the function or class; a method is `Class.name`.
    """
    return _quoted(f"{module.replace('.', '/')}.py", name)


def test_source(node: str) -> Markdown:
    """Return a test as `source` does: `test_source("tests/methods/test_bip.py::test_signs")`."""
    path, _, name = node.partition("::")
    return _quoted(path, name.replace("::", "."))


def recipes() -> dict[str, Any]:
    """Return all recipes that come with lthlib, by name: `recipes()["digits"].scale`."""
    from lthlib.recipes import recipe_names

    return {name: _recipe(name) for name in recipe_names()}


def about(recipe: str) -> str:
    """Return a recipe in one sentence: `about("cifar10-bip")`."""
    return str(_recipe(recipe).about)


def setting(recipe: str, name: str) -> Any:
    """Return a value of a recipe: `setting("digits", "methods.bip.clip")`.

    Raises:
        PublishError: the recipe has no such value; the message lists those it has.
    """
    loaded = _recipe(recipe)
    if name not in loaded.sources:
        raise PublishError(
            f"recipe {recipe!r} has no value {name!r}; known: {', '.join(loaded.sources)}"
        )
    return reduce(getitem, name.split("."), loaded.values)


def setting_source(recipe: str, name: str) -> str:
    """Return where a value of a recipe comes from: `setting_source("digits", "methods.bip.clip")`.

    Raises:
        PublishError: as `setting` does.
    """
    setting(recipe, name)
    return str(_recipe(recipe).sources[name])


def recipe_table(recipe: str) -> Markdown:
    """Return a recipe as a table: field, value, source: `recipe_table("digits")`."""
    sources = _recipe(recipe).sources.items()
    rows = [[code(name), in_words(setting(recipe, name)), origin] for name, origin in sources]
    return table(["field", "value", "source"], rows)


def price_table(*recipes: str) -> Markdown:
    """Return what the studies of recipes cost, all they rest on counted: `price_table("gate")`."""
    from companion.forecast import GPU, MANY, bill  # they import torch
    from companion.studies import ticket_study
    from lthlib.runs import with_ancestors

    lines = []
    for name in recipes:
        runs = with_ancestors(ticket_study(_recipe(name)).configs)
        cost, precision = bill(runs), setting(name, "training.precision")
        minutes = (f"{cost.gpu[count] / 60:,.0f}" for count in (1, MANY))
        count, epochs = f"{len(runs):,}", f"{cost.epochs:,.0f}"
        lines.append([code(name), about(name), count, precision, epochs, *minutes])
    head = ["study", "what it is", "runs", "precision", "epochs", f"minutes on {GPU['device']}"]
    return table([*head, f"{MANY} runs at once"], lines, range(4, 7))


def departures() -> Markdown:
    """Return what the release of BiP does otherwise than its paper, by the names of `switched`."""
    from lthlib.methods.bip import DEPARTURES  # it imports torch

    rows = [[code(name), Markdown(description)] for name, description in DEPARTURES.items()]
    return table(["name", "what the release does"], rows)


def method_settings() -> list[str]:
    """Return the classes of all methods' settings by their full names, in the order of methods."""
    from lthlib.methods import METHODS  # it imports torch

    kinds = [method.settings for method in METHODS.values()]
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds]


def reported_tickets() -> Markdown:
    """Return the sparsest winning tickets of BiP's Table 1: pruned percentage and accuracy."""
    rows = _reported("sparsest_winning_ticket_accuracy_pct", "Table 1")
    pairs = list(dict.fromkeys(zip(rows["dataset"], rows["architecture"], strict=True)))
    lines = []
    for method, cells in rows.groupby("method", sort=False):
        by_pair = cells.set_index(["dataset", "architecture"])
        lines.append([method, *(_ticket(by_pair.loc[pair]) for pair in pairs)])
    return table(["method", *(f"{data}, {net}" for data, net in pairs)], lines)


def reported_minutes() -> Markdown:
    """Return BiP's runtime figure, CIFAR-10 and ResNet-18: minutes by pruned percentage."""
    rows = _reported("minutes_on_A6000", "runtime figure")
    ratios = (
        rows["pruning_ratio_pct"].astype(object).where(rows["pruning_ratio_pct"].notna(), "any")
    )
    lines = zip(rows["method"], ratios, (f"{value:g}" for value in rows["value"]), strict=True)
    return table(["method", "pruned, %", "minutes"], lines)


def reported_faster(percent: float, pretraining: bool = False) -> str:
    """Return IMP's minutes over BiP's by BiP's runtime figure: `reported_faster(89.3)` -> `8.0`.

    Args:
        percent: pruned.
        pretraining: count everybody's dense training, or nobody's.

    Raises:
        PublishError: no value is known there; the message lists where there are.
    """
    table = reported_speed_up().set_index("pruning_ratio_pct")
    if percent not in table.index:
        ratios = ", ".join(f"{ratio:g}" for ratio in table.index)
        raise PublishError(f"no minutes are known at {percent} % pruned; there are: {ratios}")
    return f"{table['both' if pretraining else 'neither'][percent]:.1f}"


def reported_epochs(method: str) -> str:
    """Return the epochs in sequence that CS's summary gives: `reported_epochs("CS")` -> `425`."""
    rows = _reported("epochs_in_sequence_for_the_tickets").set_index("method")
    return f"{rows['value'][method]:,.0f}"


def reported_rewinding() -> Markdown:
    """Return BiP's rewinding figure: accuracy by what is pruned and where retraining starts."""
    rows = _reported("test_accuracy_pct", "rewinding figure")
    starts = [name.removeprefix("BiP, ") for name in dict.fromkeys(rows["method"])]
    names = ["network", "pruned", *(name.removeprefix("rewind ") for name in starts)]
    lines = []
    for key, group in rows.groupby(["dataset", "architecture", "pruning_ratio_pct"], sort=False):
        data, net, ratio = key
        values = (f"{value:.2f}" for value in group["value"])
        lines.append([f"{data}, {net}", f"{ratio:g} %", *values])
    return table(names, lines)


def quoted_table() -> Markdown:
    """Return what others published of pruning methods that are not run here, as a table."""
    names = ["method", "data", "network", "removed, %", "of", "accuracy, %", "dense, %", "source"]
    return table(names, (map(in_words, row) for row in quoted().itertuples(index=False)))


def _quoted(path: str, name: str) -> Markdown:
    return Markdown(
        f"```{{literalinclude}} /{path}\n:pyobject: {name}\n:language: python\n:dedent:\n"
        f":caption: {path}\n```"
    )


def _recipe(name: str) -> Any:
    from lthlib.recipes import load_recipe  # it imports torch

    return load_recipe(name)


def _reported(quantity: str, artefact: str | None = None) -> Any:
    rows = reported()
    rows = rows[rows["quantity"] == quantity]
    return rows if artefact is None else rows[rows["artefact"] == artefact]


def _ticket(row: Any) -> str:
    if row["value"] != row["value"]:
        return "none"
    return f"{row['pruning_ratio_pct']:g} % ({row['value']:.2f} ± {row['std']:.2f})"
