"""The `lth` command. Thin: it parses, calls and prints; torch is imported only by commands that
compute.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import yaml

from lthlib.errors import ConfigError, DataError, LthlibError, Paused

if TYPE_CHECKING:
    from lthlib.recipes import Study
    from lthlib.runs import Machine, RunConfig, Store

COME_AGAIN = (
    75  # sysexits.h EX_TEMPFAIL: stopped with its state saved; the same command goes on from there
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find, judge and compare winning lottery tickets: IMP, CS, BiP and their baselines.",
    epilog="Data are looked for in --data or LTHLIB_DATA; "
    "runs are kept in --store or LTHLIB_STORE (./store).",
)
ticket_app = typer.Typer(no_args_is_help=True, help="Look at ticket files.")
app.add_typer(ticket_app, name="ticket")

StoreOption = Annotated[
    Path,
    typer.Option(
        "--store", envvar="LTHLIB_STORE", help="Folder that keeps runs.", show_default="store"
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data", envvar="LTHLIB_DATA", help="Folder with the data sets; digits need none."
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="cpu, cuda, or auto: cuda if there is one.")
]
JobsOption = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Runs at once.", show_default="one a core, or one on a GPU"),
]
StudyArgument = Annotated[
    str,
    typer.Argument(help="A study that comes with lthlib (see `lth studies`), or a recipe.yaml."),
]
MethodsOption = Annotated[
    str | None, typer.Option("--methods", help="Only these contestants, e.g. imp,cs,bip.")
]
DensitiesOption = Annotated[
    str | None, typer.Option("--densities", help="Kept fractions, e.g. 0.2,0.05.")
]
SeedsOption = Annotated[
    int | None, typer.Option("--seeds", min=1, help="Replicates of each contestant.")
]
DenseOption = Annotated[
    int | None, typer.Option("--dense-seeds", min=1, help="Replicates of the dense network.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a recipe value, e.g. --set training.length=8ep or "
        "--set methods.cs.initial_gate=[0,-0.1]; may be repeated.",
    ),
]


@app.command()
def studies() -> None:
    """List the studies that come with lthlib."""
    from lthlib.recipes import load_recipe, recipe_names

    for name in recipe_names():
        recipe = load_recipe(name)
        typer.echo(f"{name:20} {recipe.scale:10} {recipe.about}")


@app.command()
def run(
    method: Annotated[
        str, typer.Argument(help="dense, imp, cs, l0, iss, gmp, bip, omp or random.")
    ] = "",
    recipe: Annotated[
        str, typer.Option(help="The recipe that gives data, network and training.")
    ] = "digits",
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    set_: SetOption = None,
    config: Annotated[
        Path | None, typer.Option(help="A run's configuration as JSON, instead of all these.")
    ] = None,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run one configuration, its parents first, and print what it found. A complete run is only
    shown.

    Example: lth run bip --recipe digits --set settings.density=0.05 --set training.length=100it
    """
    from lthlib.runs import Store, bar, execute_many, with_ancestors

    wanted = _from_file(config) if config else _from_recipe(method, recipe, seed, set_ or [])
    runs = Store(store)
    missing = sum(runs.load(c) is None for c in with_ancestors([wanted]))
    if missing:
        typer.echo(f"{wanted.id}: {wanted.describe()}", err=True)
        with bar(wanted.method) as report:
            swept = execute_many([wanted], runs, _machine(data, device), jobs=1, report=report)
        _finish(swept, f"lth run --config or the same command goes on from there (store {store})")
    _print_run(runs, wanted)


@app.command()
def sweep(
    study: StudyArgument,
    methods: MethodsOption = None,
    densities: DensitiesOption = None,
    seeds: SeedsOption = None,
    dense_seeds: DenseOption = None,
    set_: SetOption = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Stop cleanly after this time (540s, 30m, 2h); the next call goes on."),
    ] = None,
    jobs: JobsOption = None,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run all of a study that the store lacks, several runs at once.

    Exit status: 0 all complete; 1 some runs failed (they are listed and recorded); 75 stopped, call
    again to go on.
    """
    from lthlib.runs import Store, bar, execute_many

    chosen = _study(study, methods, densities, seeds, dense_seeds, set_)
    machine = _machine(data, device)
    if budget:
        machine.deadline = time.time() + _seconds(budget)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with bar(chosen.name) as report:
        swept = execute_many(chosen.configs, Store(store), machine, jobs=jobs, report=report)
    _finish(swept, f"`lth sweep {study}` goes on from there")
    typer.echo(f"{chosen.name}: all {len(chosen.entries)} runs are in {store}")


@app.command()
def estimate(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="Studies by name, or recipe.yaml files; all that come with lthlib if left out.",
        ),
    ] = None,
    methods: MethodsOption = None,
    densities: DensitiesOption = None,
    seeds: SeedsOption = None,
    dense_seeds: DenseOption = None,
    set_: SetOption = None,
    jobs: JobsOption = None,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say what studies would cost before they start: on this machine, from a few real training
    steps, and on an H100, from assumed speeds.
    """
    from lthlib.recipes import recipe_names

    for name in studies or recipe_names():
        chosen = _study(name, methods, densities, seeds, dense_seeds, set_)
        try:
            typer.echo(_estimated(chosen, store, _machine(data, device), jobs))
        except DataError as error:
            if studies:
                raise
            typer.echo(f"{chosen.name}: {len(chosen.entries)} runs; {error}")


def _estimated(study: Study, store: Path, machine: Machine, jobs: int | None) -> str:
    from lthlib.runs import Store, with_ancestors
    from lthlib.runs import estimate as predict

    runs = Store(store)
    missing = [c for c in with_ancestors(study.configs) if runs.load(c) is None]
    jobs = jobs or machine.default_jobs()
    cost = predict(missing, machine, jobs)
    return (
        f"{study.name}: {len(study.configs)} runs, {len(missing)} to compute with their parents; "
        f"{cost['passes'] / 1e6:.2f} million images forward and backward; "
        f"about {_duration(cost['core_seconds'])} one run at a time, "
        f"{_duration(cost['seconds'])} with {jobs} at once; "
        f"on an H100 {_duration(cost['h100_seconds'])}, assumed and not measured"
    )


@app.command()
def bisect(
    recipe: Annotated[
        str, typer.Argument(help="A study that comes with lthlib, or a recipe.yaml.")
    ],
    density: Annotated[float, typer.Option(help="Kept fraction that CS is to end at.")],
    seed: Annotated[int, typer.Option(help="Seed of initialisation and data order.")] = 0,
    low: Annotated[float, typer.Option(help="Lowest initial gate to try.")] = -1.0,
    high: Annotated[float, typer.Option(help="Highest initial gate to try.")] = 0.25,
    tolerance: Annotated[float, typer.Option(help="Relative.")] = 0.1,
    trials: Annotated[int, typer.Option(min=1, help="Searches to make at most.")] = 8,
    set_: SetOption = None,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Look for the initial gate s0 with which CS ends at a density: one whole search a trial, kept
    in the store.

    Exit status 1 when no trial came near enough. Example: lth bisect digits --density 0.05 --set
    methods.cs.penalty=0
    """
    from lthlib.methods.gates import bisect_initial_gate
    from lthlib.recipes import load_recipe
    from lthlib.runs import Store, execute

    chosen = load_recipe(recipe).with_(**_nested(set_ or []))
    settings = {"rewind": chosen.rewind, **chosen.method("cs")}
    if several := [n for n, v in settings.items() if isinstance(v, list) and n != "initial_gate"]:
        raise ConfigError(
            f"recipe {recipe} gives several values of cs.{several[0]}; choose one with "
            f"--set methods.cs.{several[0]}=VALUE"
        )

    def density_of(gate: float) -> float:
        config = chosen.config("cs", seed, **settings | {"initial_gate": gate})
        result = execute(config, Store(store), _machine(data, device))
        reached = 0.0 if result.failure else float(result.records[-1]["density"])
        typer.echo(f"s0 {gate:+.6f}: {result.failure or f'density {reached:.4f}'} ({config.id})")
        return reached

    made = bisect_initial_gate(
        density_of, density, low=low, high=high, tolerance=tolerance, trials=trials
    )
    gate, reached = made[-1]
    if abs(reached / density - 1) > tolerance:
        typer.echo(f"no trial came within {100 * tolerance:g} % of density {density}", err=True)
        raise typer.Exit(1)
    typer.echo(f"--set methods.cs.initial_gate={gate:g} gives density {reached:.4f}")


@app.command()
def record(
    study: StudyArgument,
    methods: MethodsOption = None,
    densities: DensitiesOption = None,
    seeds: SeedsOption = None,
    dense_seeds: DenseOption = None,
    set_: SetOption = None,
    results: Annotated[Path, typer.Option(help="Folder of the published record.")] = Path(
        "results"
    ),
    partial: Annotated[
        bool, typer.Option("--partial", help="Record what is complete of an unfinished study.")
    ] = False,
    store: StoreOption = Path("store"),
) -> None:
    """Promote a study's complete runs into results/STUDY.jsonl, one line per judged ticket."""
    from lthlib.evidence import validate
    from lthlib.files import write_atomically
    from lthlib.runs import Store

    chosen = _study(study, methods, densities, seeds, dense_seeds, set_)
    runs = Store(store)
    missing = chosen.missing(runs)
    if missing and not partial:
        raise ConfigError(
            f"{len(missing)} of {len(chosen.configs)} runs are not complete; "
            f"`lth sweep {study}` first"
        )
    records = chosen.records(runs)
    for entry in records:
        validate(entry)
    lines = "".join(json.dumps(entry) + "\n" for entry in records)
    path = results / f"{chosen.name}.jsonl"
    write_atomically(path, lines.encode())
    typer.echo(f"{path}: {len(records)} judged tickets")


@app.command()
def facts(
    results: Annotated[Path, typer.Option(help="Folder of the published record.")] = Path(
        "results"
    ),
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure what no run records, for the claims that need it, and write results/facts.json: how
    BiP's hypergradient lies to the exact one. A minute or two.
    """
    from lthlib.evidence import FACTS, facts_json
    from lthlib.facts import measure
    from lthlib.files import write_atomically
    from lthlib.runs import Store

    found = measure(Store(store), _machine(data, device))
    write_atomically(results / "facts.json", facts_json(found).encode())
    for name, fact in found.items():
        typer.echo(f"{name} = {fact.value:.4g}: {fact.definition}")
    typer.echo(f"{results / 'facts.json'}: {len(found)} facts")
    wanted = [name for name, about in FACTS.items() if about.startswith("B4")]
    if missing := [name for name in wanted if name not in found]:
        reason = "the lower level has no minimum for some seed"
        typer.echo(f"not measured, since {reason}: {', '.join(missing)}", err=True)


@app.command("list")
def list_(store: StoreOption = Path("store")) -> None:
    """List the complete runs in the store."""
    from rich.console import Console
    from rich.table import Table

    from lthlib.runs import Store

    table = Table("id", "run", "tickets", "density", "test %", "seconds")
    for result in Store(store).load_all():
        last = result.records[-1]
        table.add_row(
            result.config.id,
            result.config.describe(),
            str(len(result.records)),
            "failed" if result.failure else f"{last['density']:.4f}",
            result.failure or f"{last['accuracy']['test']:.2f}",
            f"{last['cost']['own']['seconds']:.0f}",
        )
    Console().print(table)


@app.command()
def show(
    run_id: Annotated[
        str, typer.Argument(metavar="ID", help="A run's id, or the beginning of it.")
    ],
    store: StoreOption = Path("store"),
) -> None:
    """Show a run: its configuration, judged tickets, cost and provenance, as JSON."""
    from lthlib.runs import Store

    result = Store(store).find(run_id)
    typer.echo(
        json.dumps(
            {"id": result.config.id, "records": result.records, "history": result.history}, indent=1
        )
    )


@app.command()
def verify(
    store: StoreOption = Path("store"),
    results: Annotated[Path, typer.Option(help="Folder of the published record.")] = Path(
        "results"
    ),
) -> None:
    """Check the checksums of all that is stored and the form of all that is published. Exit status
    1 if any is wrong.
    """
    from lthlib.evidence import load_facts, load_results
    from lthlib.runs import Store

    faults = list(Store(store).verify())
    for run_id, why in faults:
        typer.echo(f"{run_id}: {why}", err=True)
    count = sum(1 for _ in Path(store).glob("runs/*/run.json"))
    published = len(load_results(results)) if results.exists() else 0
    measured = len(load_facts(results))
    typer.echo(
        f"{count} runs in {store}, {len(faults)} faults; "
        f"{published} published records and {measured} facts are well formed"
    )
    if faults:
        raise typer.Exit(1)


@ticket_app.command("show")
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


@app.command()
def book(
    store: StoreOption = Path("store"),
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run the embedded study, execute the notebooks that are not fresh, and build the book; prints
    the page to open.
    """
    from lthlib.publish.site import build_site

    page = build_site(Path.cwd(), store, jobs=jobs, device=device, say=typer.echo)
    typer.echo(f"The book: {page}")


def _machine(data: Path | None, device: str) -> Machine:
    from lthlib.runs import Machine

    return Machine(device=device, data_root=str(data) if data else None)


def _study(
    name: str,
    methods: str | None,
    densities: str | None,
    seeds: int | None,
    dense_seeds: int | None,
    changes: Sequence[str] | None,
) -> Study:
    from lthlib.recipes import load_recipe, ticket_study

    recipe = load_recipe(name)
    parts = _nested(changes or [])
    if parts:
        recipe = recipe.with_(**parts)
    return ticket_study(
        recipe,
        methods=methods.split(",") if methods else None,
        densities=[_number(d) for d in densities.split(",")] if densities else None,
        seeds=seeds,
        dense_seeds=dense_seeds,
    )


def _from_recipe(method: str, recipe_name: str, seed: int, changes: Sequence[str]) -> RunConfig:
    from lthlib.methods import get_method
    from lthlib.recipes import load_recipe
    from lthlib.recipes.studies import dense_run
    from lthlib.runs import Parent

    chosen = get_method(method)
    if method == "retrain":
        raise ConfigError(
            "retrain needs a parent ticket; give the whole configuration with --config"
        )
    parts = _nested(changes)
    settings = parts.pop("settings", {})
    recipe = load_recipe(recipe_name).with_(**parts)
    parent = Parent(dense_run(recipe, seed), "dense") if chosen.parent != "none" else None
    if hasattr(chosen.settings, "rewind"):
        settings = {"rewind": recipe.rewind, **settings}
    known = {
        name: value for name, value in recipe.method(method).items() if not isinstance(value, list)
    }
    return recipe.config(method, seed, parent, **{**known, **settings})


def _from_file(path: Path) -> RunConfig:
    from lthlib.runs import RunConfig

    try:
        return RunConfig.from_json(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read configuration {path}: {error}") from None


def _nested(changes: Sequence[str]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for change in changes:
        match = re.fullmatch(
            r"((?:data|model|training|settings)\.\w+|methods\.[\w-]+\.\w+|rewind)=(.*)", change
        )
        if not match:
            raise ConfigError(
                f"--set {change!r}; expected PART.NAME=VALUE with PART one of data, model, "
                "training, settings, or methods.METHOD.NAME=VALUE, or rewind=LENGTH"
            )
        *path, name = match[1].split(".")
        inner = parts
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = yaml.safe_load(match[2])
    return parts


def _print_run(store: Store, config: RunConfig) -> None:
    result = store.load(config)
    assert result is not None
    for entry in result.records:
        accuracy = entry["accuracy"]["test"]
        found = (
            result.failure
            or f"density {entry['density']:.4f}, test {accuracy:.2f} % ({entry['judged']})"
        )
        typer.echo(f"{config.id} {entry['ticket']['point']}: {found}")
    if result.failure:
        raise typer.Exit(1)


def _finish(swept: Any, hint: str) -> None:
    for run_id, why in swept.failed.items():
        typer.echo(f"run {run_id} failed: {why}", err=True)
    if swept.unfinished:
        typer.echo(
            f"stopped with {swept.unfinished} runs to go, their state saved; {hint}", err=True
        )
        raise typer.Exit(COME_AGAIN)
    if swept.failed:
        raise typer.Exit(1)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise ConfigError(
            f"budget is {text!r}; expected seconds, minutes or hours such as 540s, 30m or 2h"
        )
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{text!r} is not a number") from None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 3 * 86400 else f"{seconds / 86400:.0f} days"


def main() -> NoReturn:
    """Entry point: errors that lthlib raises on purpose become one line and exit status 2."""
    try:
        app(standalone_mode=True)
    except Paused as stop:
        typer.echo(f"{stop}; the same command goes on from there", err=True)
        sys.exit(COME_AGAIN)
    except LthlibError as error:
        typer.echo(f"lth: {error}", err=True)
        sys.exit(2)
    sys.exit(0)
