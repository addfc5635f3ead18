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
    recipe: Annotated[str, typer.Option(help="What gives data, network and training.")] = "digits",
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    set_: options.SetOption = None,
    config: Annotated[
        Path | None, typer.Option(help="A run's configuration as JSON, instead of all these.")
    ] = None,
    store: options.StoreOption = Path("store"),
    data: options.DataOption = None,
    device: options.DeviceOption = "auto",
    deterministic: options.DeterministicOption = False,
) -> None:
    """Run one configuration, its parents first, and print what it found. A complete run is only
    shown.

    Example: lth run bip --recipe digits --set settings.density=0.05 --set training.length=100it
    """
    from lthlib.runs import Store, bar, execute_many, with_ancestors

    ranks = ctx.with_resource(joined(device))
    machine = options.machine_of(data, device, deterministic)
    wanted = _from_file(config) if config else _from_recipe(method, recipe, seed, set_ or [])
    runs = Store(store)
    missing = ranks.first(lambda: sum(runs.load(c) is None for c in with_ancestors([wanted])))
    if missing:
        say(f"{wanted.id}: {wanted.describe()}", err=True)
        with bar(wanted.method) as report:
            swept = execute_many([wanted], runs, machine, jobs=1, report=report)
        options.finish_sweep(swept)
    if ranks.rank == 0:
        _print_run(runs, wanted)


@contextlib.contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Be one of the ranks that torchrun started, if it did; of them only the first speaks."""
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

    chosen = get_method(method)
    if method == "retrain":
        raise ConfigError("retrain needs a parent; give the whole configuration with --config")
    parts = options.nested(changes)
    settings = parts.pop("settings", {})
    recipe = load_recipe(recipe_name).with_(**parts)
    parent = Parent(dense_run(recipe, seed), "dense") if chosen.parent != "none" else None
    if chosen.takes("rewind"):
        settings = {"rewind": recipe.rewind, **settings}
    known = {n: v for n, v in recipe.method(method).items() if not isinstance(v, list)}
    return recipe.config(method, seed, parent, **{**known, **settings})


def _from_file(path: Path) -> RunConfig:
    from lthlib.files import from_json, load
    from lthlib.runs import RunConfig

    return RunConfig.from_json(load(path, from_json, "configuration"))


def _print_run(store: Store, config: RunConfig) -> None:
    from lthlib.records import emptied

    result = store.load(config)
    assert result is not None
    for entry in result.records:
        found = entry["failure"]
        if found is None:
            accuracy = entry["accuracy"]["test"]
            test = "not tested" if accuracy is None else f"test {accuracy:.2f} %"
            found = f"density {entry['density']:.4f}, {test} ({entry['judged']})"
        say(f"{config.id} {entry['ticket']['point']}: {found}")
        if layers := emptied(entry):
            say(f"{config.id}: no weight is left in {', '.join(layers)}", err=True)
    if result.failure:
        raise typer.Exit(1)
