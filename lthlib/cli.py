"""The `lth` command. Thin: it parses, calls and prints; torch is imported only by commands that
compute.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
import yaml

from lthlib.errors import ConfigError, DataError, LthlibError, Paused, StoreError

if TYPE_CHECKING:
    from lthlib.distributed import Ranks
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
DeterministicOption = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="On a GPU, use only kernels that give the same bits each time; slower.",
    ),
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
    ctx: typer.Context,
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
    deterministic: DeterministicOption = False,
) -> None:
    """Run one configuration, its parents first, and print what it found. A complete run is only
    shown.

    Example: lth run bip --recipe digits --set settings.density=0.05 --set training.length=100it
    """
    signal.signal(signal.SIGTERM, _stop)
    from lthlib.runs import Store, bar, execute_many, with_ancestors

    ranks = ctx.with_resource(_joined(device))
    machine = _machine(data, device, deterministic)
    wanted = _from_file(config) if config else _from_recipe(method, recipe, seed, set_ or [])
    runs = Store(store)
    missing = ranks.first(lambda: sum(runs.load(c) is None for c in with_ancestors([wanted])))
    if missing:
        typer.echo(f"{wanted.id}: {wanted.describe()}", err=True)
        with bar(wanted.method) as report:
            swept = execute_many([wanted], runs, machine, jobs=1, report=report)
        _finish(swept, f"lth run --config or the same command goes on from there (store {store})")
    if ranks.rank == 0:
        _print_run(runs, wanted)


@app.command()
def sweep(
    ctx: typer.Context,
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
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "--workers", min=1, help="Runs at once.", show_default="one a core or GPU"
        ),
    ] = None,
    per_device: Annotated[
        int | None, typer.Option("--jobs-per-device", min=1, help="Runs at once on each GPU.")
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(help="local: processes; dask: a Dask cluster.", show_default="local"),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Join the Dask cluster at this address, tcp://HOST:PORT.")
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(help="A YAML file: start workers by Slurm, PBS or LSF; see the book."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the job script of --cluster and stop.")
    ] = False,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
    deterministic: DeterministicOption = False,
) -> None:
    """Run all of a study that the store lacks, several runs at once.

    Exit status: 0 all complete; 1 some runs failed (they are listed and recorded); 75 stopped, call
    again to go on.
    """
    signal.signal(signal.SIGTERM, _stop)
    from lthlib.runs import Store, bar, execute_many, gpus

    ranks = ctx.with_resource(_joined(device))
    options = _dask_options(executor, scheduler, cluster, jobs, dry_run)
    if dry_run and options:
        from lthlib.runs.cluster import job_script

        typer.echo(job_script(options["settings"]))
        return
    if ranks.world > 1 and (options or jobs or per_device):
        raise ConfigError(
            "torchrun's ranks share each run, one after another; leave out the options that run "
            "several at once"
        )
    if jobs and per_device:
        raise ConfigError("--jobs and --jobs-per-device are given; name one of them")
    chosen = _study(study, methods, densities, seeds, dense_seeds, set_)
    machine = _machine(data, device, deterministic)
    if per_device:
        jobs = per_device * max(1, len(gpus(machine)))
    if budget:
        machine.deadline = time.time() + _seconds(budget)
    with contextlib.ExitStack() as stack:
        places: dict[str, Any] = {"jobs": jobs}
        if options is not None:
            from lthlib.runs.cluster import dask_executor

            pool = stack.enter_context(dask_executor(machine, **{"workers": jobs} | options))
            typer.echo(f"Dask's dashboard: {pool.dashboard}", err=True)
            places = {"executor": pool, "room": pool.room}
        report = stack.enter_context(bar(chosen.name))
        swept = execute_many(chosen.configs, Store(store), machine, report=report, **places)
    _finish(swept, f"`lth sweep {study}` goes on from there")
    typer.echo(f"{chosen.name}: all {len(chosen.entries)} runs are in {store}")


def _dask_options(
    executor: str | None, scheduler: str | None, cluster: Path | None, jobs: int | None, dry: bool
) -> dict[str, Any] | None:
    """What `dask_executor` is to be given; None for processes of this machine."""
    if executor not in (None, "local", "dask"):
        raise ConfigError(f"--executor is {executor!r}; expected local or dask")
    if executor == "local" and (scheduler or cluster):
        raise ConfigError("--scheduler and --cluster are Dask's; leave out --executor local")
    if scheduler and cluster:
        raise ConfigError("--scheduler joins a cluster and --cluster starts one; name one of them")
    if jobs and (scheduler or cluster):
        raise ConfigError("the cluster says how many workers there are; leave out --jobs")
    if dry and not cluster:
        raise ConfigError("--dry-run prints the job script of a cluster; name its --cluster file")
    if cluster:
        from lthlib.runs.cluster import load_cluster

        return {"settings": load_cluster(cluster)}
    return {"scheduler": scheduler} if scheduler or executor == "dask" else None


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
    from lthlib.runs import Store, default_jobs, with_ancestors
    from lthlib.runs import estimate as predict

    runs = Store(store)
    missing = [c for c in with_ancestors(study.configs) if runs.load(c) is None]
    jobs = jobs or default_jobs(machine)
    cost = predict(missing, machine, jobs)
    return (
        f"{study.name}: {len(study.configs)} runs, {len(missing)} to compute with their parents; "
        f"{cost['passes'] / 1e6:.2f} million images forward and backward; "
        f"about {_duration(cost['seconds'])} with {jobs} at once, "
        f"{_duration(cost['busy_seconds'])} of their time together; "
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


@app.command("check-results")
def check_results(
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="Published studies; if left out, digits, and of cifar10-bip, if the data are at "
            "hand, one seed of the dense network and of BiP.",
        ),
    ] = None,
    methods: MethodsOption = None,
    densities: DensitiesOption = None,
    seeds: SeedsOption = None,
    dense_seeds: DenseOption = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Stop cleanly after this time (540s, 30m, 2h); needs --store."),
    ] = None,
    results: Annotated[Path, typer.Option(help="Folder of the published record.")] = Path(
        "results"
    ),
    report: Annotated[Path, typer.Option(help="Folder for the reports.")] = Path(
        "build/check-results"
    ),
    jobs: JobsOption = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Keep the runs here, and go on from there.", show_default="a new one"),
    ] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Compute published studies again, from nothing, and compare them with the record.

    Exit status: 0 all agree; 1 some number drifted (it is named, with candidates for the cause); 75
    stopped, call again with the same --store to go on.
    """
    from lthlib.publish.checks import DEFAULT

    options: dict[str, Any] = {"methods": methods, "densities": densities}
    options |= {"seeds": seeds, "dense_seeds": dense_seeds}
    given = {name: value for name, value in options.items() if value is not None}
    if budget and not store:
        raise ConfigError("--budget stops and goes on from a store; name one with --store")
    if given and not studies:
        raise ConfigError(f"--{next(iter(given)).replace('_', '-')} is about a study; name one")
    machine = _machine(data, device)
    if budget:
        machine.deadline = time.time() + _seconds(budget)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    passed = True
    for name, parts in (dict.fromkeys(studies, given) if studies else DEFAULT).items():
        chosen = _study(name, **dict.fromkeys(options) | parts, changes=None)
        if not studies and (why := _not_at_hand(chosen, machine)):
            typer.echo(f"{name} is left out: {why}")
            continue
        recorded = _published(chosen, results)
        with tempfile.TemporaryDirectory(prefix="lth-check-") as new:
            again = _computed_again(chosen, store or Path(new), machine, jobs)
        passed &= _compared(chosen, recorded, again, parts, report)
    if not passed:
        raise typer.Exit(1)


def _not_at_hand(study: Study, machine: Machine) -> str:
    from lthlib.data import load_dataset

    settings = study.configs[0].data
    try:
        load_dataset(settings.dataset, machine.data_root, settings=settings)
    except DataError as error:
        return str(error)
    return ""


def _computed_again(
    study: Study, store: Path, machine: Machine, jobs: int | None
) -> list[dict[str, Any]]:
    from lthlib.runs import Store, bar, execute_many

    runs = Store(store)
    with bar(study.name) as shown:
        swept = execute_many(study.configs, runs, machine, jobs=jobs, report=shown)
    if swept.unfinished:
        _finish(swept, "the same command goes on from there if it names a --store")
    found = [runs.load(config) for config in study.configs]
    if imported := sum(result is not None and result.imported is not None for result in found):
        raise ConfigError(f"{imported} runs in {store} were imported, not computed; name another")
    return study.records(runs)


def _published(study: Study, results: Path) -> list[dict[str, Any]]:
    from lthlib.evidence import load_results

    recorded = [record for record in load_results(results) if record["study"] == study.name]
    if not recorded:
        raise ConfigError(f"{results} has no record of {study.name}; `lth record` writes one")
    return recorded


def _compared(
    study: Study,
    recorded: list[dict[str, Any]],
    again: list[dict[str, Any]],
    parts: dict[str, Any],
    folder: Path,
) -> bool:
    """Write and print the report; returns whether nothing drifted."""
    from lthlib.publish.checks import markdown, report, write_report

    options = [f"--{name.replace('_', '-')} {value}" for name, value in parts.items()]
    command = " ".join(["lth check-results", study.name, *options])
    runs = {config.id for config in study.configs} if parts else None
    content = report(study.name, recorded, again, runs, command=command)
    typer.echo(markdown(content))
    typer.echo(f"the report: {write_report(content, folder)}")
    return bool(content["passed"])


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
    """List the complete runs in the store, imported ones too."""
    from lthlib.evidence.records import emptied
    from lthlib.runs import Store
    from lthlib.runs.archive import kept
    from lthlib.runs.config import describe

    runs = Store(store)
    row = "{:16}  {:>7}  {:>7}  {:>6}  {:>7}  {}"
    lines = [row.format("id", "tickets", "density", "test %", "seconds", "run")]
    origins = [(result, "imported") for result in runs.load_all()]
    origins += [(result, "imported, only to look at") for result in kept(runs)]
    for result, origin in origins:
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


@app.command()
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


@app.command()
def verify(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move damaged runs aside; the next sweep recomputes them."),
    ] = False,
    store: StoreOption = Path("store"),
    results: Annotated[Path, typer.Option(help="Folder of the published record.")] = Path(
        "results"
    ),
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


@app.command()
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


@app.command()
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

    chosen = _study(study, methods, densities, seeds, dense_seeds, set_)
    count = export_runs(Store(store), chosen.name, chosen.configs, archive, tickets)
    typer.echo(f"{archive}: {count} runs, {archive.stat().st_size:,} bytes")


@app.command("import")
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


@contextlib.contextmanager
def _joined(device: str) -> Iterator[Ranks]:
    """Be one of the ranks that torchrun started, if it did; of them only the first speaks."""
    from lthlib.distributed import started

    with started(device) as ranks, contextlib.ExitStack() as stack:
        if ranks.rank:
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
            stack.enter_context(contextlib.redirect_stderr(silence))
        yield ranks


def _stop(number: int, frame: object) -> NoReturn:
    """What SIGTERM does, which batch systems send before they kill; from wherever it comes, so also
    while nothing runs yet."""
    typer.echo(
        "asked to stop: saving what is under way; the same command goes on from there", err=True
    )
    sys.exit(COME_AGAIN)


def _machine(data: Path | None, device: str, deterministic: bool = False) -> Machine:
    from lthlib.runs import Machine

    return Machine(device, str(data) if data else None, deterministic=deterministic)


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
    from lthlib.files import read_bounded, shallow
    from lthlib.runs import RunConfig

    try:
        return RunConfig.from_json(json.loads(shallow(read_bounded(path, 1 << 20))))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read configuration {path}: {error}") from None


def _nested(changes: Sequence[str]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for change in changes:
        match = re.fullmatch(
            r"((?:data|model|training|settings)\.\w+|methods\.[\w-]+\.\w+|rewind|study\.precisions)"
            r"=(.*)",
            change,
        )
        if not match:
            raise ConfigError(
                f"--set {change!r}; expected PART.NAME=VALUE with PART one of data, model, "
                "training, settings, or methods.METHOD.NAME=VALUE, or rewind=LENGTH, or "
                "study.precisions=[NAME, ...]"
            )
        *path, name = match[1].split(".")
        inner = parts
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = yaml.safe_load(match[2])
    if "RANK" in os.environ:
        from lthlib.distributed import launched

        if launched() > 1:
            parts.setdefault("training", {}).setdefault("ranks", launched())
    return parts


def _print_run(store: Store, config: RunConfig) -> None:
    from lthlib.evidence.records import emptied

    result = store.load(config)
    assert result is not None
    for entry in result.records:
        accuracy = entry["accuracy"]["test"]
        found = (
            entry["failure"]
            or f"density {entry['density']:.4f}, test {accuracy:.2f} % ({entry['judged']})"
        )
        typer.echo(f"{config.id} {entry['ticket']['point']}: {found}")
        if layers := emptied(entry):
            typer.echo(f"{config.id}: no weight is left in {', '.join(layers)}", err=True)
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
