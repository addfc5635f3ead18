"""Commands that show, check, tidy and carry what was computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lthlib.cli.options import (
    COME_AGAIN,
    DenseOption,
    DensitiesOption,
    MethodsOption,
    ResultsOption,
    SeedsOption,
    SetOption,
    StoreOption,
    StudyArgument,
    study_of,
)
from lthlib.errors import StoreError


def list_(store: StoreOption = Path("store")) -> None:
    """List the complete runs in the store, imported ones too."""
    from itertools import chain

    from lthlib.evidence.records import emptied
    from lthlib.runs import Store
    from lthlib.runs.archive import kept
    from lthlib.runs.config import describe

    runs = Store(store)
    row = "{:16}  {:>7}  {:>7}  {:>6}  {:>7}  {}"
    lines = [row.format("id", "tickets", "density", "test %", "seconds", "run")]
    usable = ((result, "imported") for result in runs.load_each())
    others = ((result, "imported, only to look at") for result in kept(runs))
    for result, origin in chain(usable, others):
        last, about = result.records[-1], [describe(result.values)]
        density, test = "", "failed"
        if result.failure is None:
            density, test = f"{last['density']:.4f}", f"{last['accuracy']['test']:.2f}"
        about += [result.failure] if result.failure else []
        if layers := emptied(last):
            about.append(f"no weight left in {', '.join(layers)}")
        about += [origin] if result.imported else []
        seconds = f"{last['cost']['own']['seconds']:.0f}"
        count = sum(record["status"] == "ok" for record in result.records)
        lines.append(row.format(last["run"], count, density, test, seconds, "; ".join(about)))
    typer.echo("\n".join(lines))


def show(
    run_id: Annotated[
        str, typer.Argument(metavar="ID", help="A run's id, or the beginning of it.")
    ],
    store: StoreOption = Path("store"),
) -> None:
    """Show a run: its configuration, judged tickets, cost and provenance, as JSON."""
    from lthlib.runs import Store
    from lthlib.runs.archive import kept

    runs = Store(store)
    try:
        result = runs.find(run_id)
    except StoreError:
        found = [result for result in kept(runs) if result.config.id.startswith(run_id)]
        if len(found) != 1:
            raise
        result = found[0]
    about = {"id": result.config.id, "imported": result.imported}
    typer.echo(
        json.dumps({**about, "records": result.records, "history": result.history}, indent=1)
    )


def verify(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move damaged runs aside; the next sweep recomputes them."),
    ] = False,
    store: StoreOption = Path("store"),
    results: ResultsOption = Path("results"),
) -> None:
    """Check the checksums of all that is stored and the form of all that is published. Exit status
    1 if any is wrong, also where it was repaired.
    """
    from lthlib.evidence import load_facts, load_results
    from lthlib.runs import Store, upkeep

    runs = Store(store)
    faults = list(upkeep.verify(runs))
    for run_id, why in faults:
        typer.echo(f"{run_id}: {why}", err=True)
    for run_id in upkeep.repair(runs, {one for one, _ in faults}) if repair else []:
        typer.echo(f"{run_id}: moved to {store / 'damaged'}; the next sweep computes it again")
    count = sum(1 for _ in store.glob("runs/*/run.json"))
    published = len(load_results(results)) if results.exists() else 0
    measured = len(load_facts(results))
    typer.echo(
        f"{count} runs in {store}, {len(faults)} faults; "
        f"{published} published records and {measured} facts are well formed"
    )
    if faults and not repair:
        typer.echo("`lth verify --repair` moves what is damaged aside", err=True)
    if faults:
        raise typer.Exit(1)


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Free it; without, it is only shown.")] = False,
    store: StoreOption = Path("store"),
) -> None:
    """Show what nothing in the store needs, and with --yes free it. Runs that are under way, and
    those that the present source can use, stay.
    """
    from collections import Counter

    from lthlib.runs import Store, upkeep

    found = upkeep.collect(Store(store), remove=yes)
    sizes = Counter[str]()
    for one in found:
        sizes[one.kind] += one.size
        typer.echo(f"{one.path}: {one.kind}", err=True)
    for kind, size in sizes.items():
        typer.echo(f"{size:>15,} bytes  {kind}")
    done = "freed" if yes else "would be freed; `lth gc --yes` does it"
    typer.echo(f"{sum(sizes.values()):>15,} bytes  in {len(found)} places {done}")


def export(
    study: StudyArgument,
    archive: Annotated[Path, typer.Argument(help="The file to write, e.g. results.tar.")],
    tickets: Annotated[
        bool, typer.Option(help="With the tickets; without, the runs can only be looked at.")
    ] = True,
    methods: MethodsOption = None,
    densities: DensitiesOption = None,
    seeds: SeedsOption = None,
    dense_seeds: DenseOption = None,
    set_: SetOption = None,
    store: StoreOption = Path("store"),
) -> None:
    """Write a study's runs, and all they rest on, to one file for `lth import` elsewhere."""
    from lthlib.runs import Store
    from lthlib.runs.archive import export_runs

    chosen = study_of(study, methods, densities, seeds, dense_seeds, set_)
    count = export_runs(Store(store), chosen.name, chosen.configs, archive, tickets)
    typer.echo(f"{archive}: {count} runs, {archive.stat().st_size:,} bytes")


def import_(
    archive: Annotated[Path, typer.Argument(help="A file that `lth export` wrote.")],
    store: StoreOption = Path("store"),
) -> None:
    """Take in the runs of an archive: all of it is checked, each run is marked as imported, and
    nothing that the store has is overwritten.

    Exit status: 0 all taken, or there already; 1 the store has other results for some runs (they
    are listed); 75 some runs are being computed, call again; 2 the archive is damaged, and nothing
    was taken.
    """
    from collections import Counter

    from lthlib.runs import Store
    from lthlib.runs.archive import import_runs

    taken = import_runs(Store(store), archive)
    for one in taken:
        if one.why:
            typer.echo(f"{one.config.id}: {one.outcome}: {one.why}", err=True)
    counts = Counter(one.outcome for one in taken)
    typer.echo(f"{archive}: {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}")
    if counts["conflict"]:
        raise typer.Exit(1)
    if counts["busy"]:
        raise typer.Exit(COME_AGAIN)


def ticket_show(file: Annotated[Path, typer.Argument(help="A ticket, *.safetensors.")]) -> None:
    """Show what a ticket file holds: its mask layer by layer, its weights and where it comes
    from.
    """
    from rich.console import Console
    from rich.table import Table

    from lthlib.tickets import Ticket

    ticket = Ticket.load(file)
    typer.echo(ticket)
    table = Table("layer", "kept", "of", "density %")
    for name, (kept, total) in ticket.mask.layers().items():
        table.add_row(name, f"{kept:,}", f"{total:,}", f"{100 * kept / total:.2f}")
    Console().print(table)
    typer.echo(json.dumps(ticket.info, indent=1))
