"""Commands that show, check, tidy and carry what was computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lthlib.cli.options import StoreOption
from lthlib.cli.terminal import say
from lthlib.errors import ConfigError
from lthlib.texts import visible

if TYPE_CHECKING:
    from lthlib.runs import RunResult


def list_(store: StoreOption = Path("store")) -> None:
    """List the complete runs in the store, imported ones too.

    Of each it says how long it trains, and in which values runs of one method, data set and
    architecture differ.
    """
    from lthlib.runs import Store
    from lthlib.runs.identity import differences

    runs = Store(store)
    rows: list[str] = []
    configs: list[Any] = []
    for folder, origin in (("runs", "imported"), ("imported", "imported, only to look at")):
        for result in runs.load_each(folder):
            try:
                row = _table_row(result, origin)
                differences([result.values])
            except (LookupError, TypeError, ValueError, AttributeError, ConfigError):
                # To check all of each would take too long: whoever sealed it wrote what no run
                # says.
                run_id = result.records[0]["run"]
                say(f"{run_id}: its run.json is malformed; `lth verify` says where", err=True)
                continue
            rows.append(row)
            configs.append(result.values)
    head = _ROW.format("id", "tickets", "density", "test %", "seconds", "run")
    pairs = zip(rows, differences(configs), strict=True)
    say("\n".join([head, *(f"{row}; {visible(values)}" for row, values in pairs)]))


_ROW = "{:16}  {:>7}  {:>7}  {:>6}  {:>7}  {}"


def _table_row(result: RunResult, origin: str) -> str:
    from lthlib.records import emptied
    from lthlib.runs.identity import describe

    last = result.records[-1]
    details = [describe(result.values)]
    density, test = "", "failed"
    if result.failure is None:
        density, accuracy = f"{last['density']:.4f}", last["accuracy"]["test"]
        test = "" if accuracy is None else f"{accuracy:.2f}"
    if result.failure:
        details.append(result.failure)
    if layers := emptied(last):
        details.append(f"no weight left in {', '.join(layers)}")
    if result.imported:
        details.append(origin)
    seconds = f"{last['cost']['own']['seconds']:.0f}"
    count = sum(record["status"] == "ok" for record in result.records)
    return visible(_ROW.format(last["run"], count, density, test, seconds, "; ".join(details)))


def show(
    run_id: Annotated[str, typer.Argument(metavar="ID")], store: StoreOption = Path("store")
) -> None:
    """Show a run: its configuration, judged tickets, cost and provenance, as JSON.

    Args:
        run_id: A run's id, or how it begins.
    """
    from lthlib.runs import Store

    result = Store(store).find(run_id)
    content = {
        "id": result.records[0]["run"],
        "imported": result.imported,
        "records": result.records,
        "history": result.history,
    }
    say(json.dumps(content, indent=1))


def gc(yes: bool = False, store: StoreOption = Path("store")) -> None:
    """Show what nothing in the store and in the cache of decoded images needs, or free it.

    Runs that are under way, and those that the present source can use, stay.

    Args:
        yes: Free it; without, it is only shown.
    """
    from collections import Counter

    from lthlib.runs import Store, upkeep

    leftovers = upkeep.collect(Store(store), remove=yes)
    sizes = Counter[str]()
    for leftover in leftovers:
        sizes[leftover.kind] += leftover.size
        say(f"{leftover.path}: {leftover.kind}", err=True)
    for kind, size in sizes.items():
        say(f"{size:>15,} bytes  {kind}")
    done = "freed" if yes else "would be freed; `lth gc --yes` does it"
    say(f"{sum(sizes.values()):>15,} bytes  in {len(leftovers)} places {done}")


def ticket_show(file: Path) -> None:
    """Show what a ticket file holds: its mask layer by layer, its weights, where it comes from.

    Args:
        file: A ticket, *.safetensors.
    """
    from rich.console import Console
    from rich.table import Table

    from lthlib.tickets import Ticket

    ticket = Ticket.load(file)
    say(ticket)
    table = Table("layer", "kept", "of", "density %")
    for name, (kept, total) in ticket.mask.layers().items():
        table.add_row(visible(name), f"{kept:,}", f"{total:,}", f"{100 * kept / total:.2f}")
    Console(markup=False, emoji=False, highlight=False).print(table)
    say(json.dumps(ticket.info, indent=1))
