"""Commands that compute runs, or say what they would cost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lthlib.cli import options
from lthlib.cli.terminal import say
from lthlib.errors import ConfigError
from lthlib.records import METHODS

if TYPE_CHECKING:
    from lthlib.distributed import Ranks
    from lthlib.runs import RunConfig, Store

_SEARCHES = ", ".join(name for name in METHODS if name != "retrain")


def run(
    ctx: typer.Context,
    method: Annotated[str, typer.Argument(help=f"One of {_SEARCHES}.")] = "",
    recipe: str = "digits",
    seed: int = 0,
    set_: options.SetOption = None,
    config: Path | None = None,
    store: options.StoreOption = Path("store"),
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    deterministic: options.DeterministicOption = False,
) -> None:
    """Run one configuration, its parents first, and print what it found.

    A complete run is only shown.

    Example: lth run bip --recipe digits --set settings.density=0.05 --set training.length=100it

    Args:
        recipe: What gives data, network and training.
        seed: Seed of initialisation and data order.
        config: A run's configuration as JSON, instead of all these.
    """
    from lthlib.runs import Store, bar, execute_many, with_ancestors

    ranks = ctx.with_resource(joined(device))
    machine = options.machine_of(data, device, deterministic)
    target = _from_file(config) if config else _from_recipe(method, recipe, seed, set_ or [])
    runs = Store(store)
    missing = ranks.first(lambda: sum(runs.load(c) is None for c in with_ancestors([target])))
    if missing:
        say(f"{target.id}: {target.describe()}", err=True)
        with bar(target.method) as report:
            swept = execute_many([target], runs, machine, jobs=1, report=report)
        options.finish_sweep(swept)
    if ranks.rank == 0:
        _print_run(runs, target)


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Be one of the ranks that torchrun started, if it did; of them only the first speaks.

    Args:
        device: cpu, cuda, mps or auto.

    Yields:
        The ranks; without torchrun, one.
    """
    from lthlib.distributed import started

    with started(device) as ranks, contextlib.ExitStack() as stack:
        if ranks.rank:
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
            stack.enter_context(contextlib.redirect_stderr(silence))
        yield ranks


def _from_recipe(method: str, recipe_name: str, seed: int, changes: Sequence[str]) -> RunConfig:
    from lthlib.methods import get_method
    from lthlib.recipes import dense_run, load_recipe
    from lthlib.runs import Parent

    traits = get_method(method)
    if method == "retrain":
        raise ConfigError("retrain needs a parent; give the whole configuration with --config")
    values = options.nested(changes)
    settings = values.pop("settings", {})
    recipe = load_recipe(recipe_name).with_(**values)
    parent = Parent(dense_run(recipe, seed), "dense") if traits.parent != "none" else None
    if traits.takes("rewind"):
        settings = {"rewind": recipe.rewind, **settings}
    defaults = {n: v for n, v in recipe.method(method).items() if not isinstance(v, list)}
    return recipe.config(method, seed, parent, **{**defaults, **settings})


def _from_file(path: Path) -> RunConfig:
    from lthlib.files import from_json, load
    from lthlib.runs import RunConfig

    return RunConfig.from_json(load(path, from_json, "configuration"))


def _print_run(store: Store, config: RunConfig) -> None:
    from lthlib.records import emptied

    result = store.load(config)
    assert result is not None
    for entry in result.records:
        outcome = entry["failure"]
        if outcome is None:
            accuracy = entry["accuracy"]["test"]
            test = "not tested" if accuracy is None else f"test {accuracy:.2f} %"
            outcome = f"density {entry['density']:.4f}, {test} ({entry['judged']})"
        say(f"{config.id} {entry['ticket']['point']}: {outcome}")
        if layers := emptied(entry):
            say(f"{config.id}: no weight is left in {', '.join(layers)}", err=True)
    if result.failure:
        raise typer.Exit(1)
