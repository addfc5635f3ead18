"""Commands that compute studies, or say what they would cost."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from companion.cli.options import (
    BudgetOption,
    DenseOption,
    DensitiesOption,
    JobsOption,
    MethodsOption,
    SeedsOption,
    StudyArgument,
    deadline,
    study_of,
)
from lthlib.cli.computing import joined
from lthlib.cli.options import (
    DataOption,
    DeterministicOption,
    DeviceOption,
    SetOption,
    StoreOption,
    finish_sweep,
    machine_of,
    nested,
)
from lthlib.cli.terminal import say
from lthlib.errors import ConfigError, DataError

if TYPE_CHECKING:
    from companion.studies import Study
    from lthlib.runs import Machine


def sweep(
    ctx: typer.Context,
    study: StudyArgument,
    methods: MethodsOption = None,
    densities: DensitiesOption = None,
    seeds: SeedsOption = None,
    dense_seeds: DenseOption = None,
    set_: SetOption = None,
    budget: BudgetOption = None,
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
    from lthlib.runs import Store, bar, execute_many, gpus

    ranks = ctx.with_resource(joined(device))
    options = _dask_options(executor, scheduler, cluster, jobs, dry_run)
    if dry_run and options:
        from companion.cluster import job_script

        say(job_script(options["settings"]))
        return
    if ranks.world > 1 and (options or jobs or per_device):
        raise ConfigError(
            "torchrun's ranks share each run, one after another; leave out the options that run "
            "several at once"
        )
    if jobs and per_device:
        raise ConfigError("--jobs and --jobs-per-device are given; name one of them")
    chosen = study_of(study, methods, densities, seeds, dense_seeds, set_)
    machine = machine_of(data, device, deterministic)
    if per_device:
        jobs = per_device * max(1, len(gpus(machine)))
    machine.deadline = deadline(budget)
    with contextlib.ExitStack() as stack:
        places: dict[str, Any] = {"jobs": jobs}
        if options is not None:
            from companion.cluster import dask_executor

            pool = stack.enter_context(dask_executor(machine, **{"workers": jobs} | options))
            say(f"Dask's scheduler: {pool.address}", err=True)
            say(f"Dask's dashboard: {pool.dashboard}", err=True)
            places = {"executor": pool, "room": pool.room}
        report = stack.enter_context(bar(chosen.name))
        swept = execute_many(chosen.configs, Store(store), machine, report=report, **places)
    finish_sweep(swept)
    say(f"{chosen.name}: all {len(chosen.entries)} runs are in {store}")


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
        from companion.cluster import load_cluster

        return {"settings": load_cluster(cluster)}
    return {"scheduler": scheduler} if scheduler or executor == "dask" else None


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
        chosen = study_of(name, methods, densities, seeds, dense_seeds, set_)
        try:
            say(_estimated(chosen, store, machine_of(data, device), jobs))
        except DataError as error:
            if studies:
                raise
            say(f"{chosen.name}: {len(chosen.entries)} runs; {error}")


def _estimated(study: Study, store: Path, machine: Machine, jobs: int | None) -> str:
    from companion.forecast import estimate as predict
    from lthlib.runs import Store, default_jobs, with_ancestors

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

    chosen = load_recipe(recipe).with_(**nested(set_ or []))
    settings = {"rewind": chosen.rewind, **chosen.method("cs")}
    if several := [n for n, v in settings.items() if isinstance(v, list) and n != "initial_gate"]:
        raise ConfigError(
            f"recipe {recipe} gives several values of cs.{several[0]}; choose one with "
            f"--set methods.cs.{several[0]}=VALUE"
        )

    def density_of(gate: float) -> float:
        config = chosen.config("cs", seed, **settings | {"initial_gate": gate})
        result = execute(config, Store(store), machine_of(data, device))
        reached = 0.0 if result.failure else float(result.records[-1]["density"])
        say(f"s0 {gate:+.6f}: {result.failure or f'density {reached:.4f}'} ({config.id})")
        return reached

    made = bisect_initial_gate(
        density_of, density, low=low, high=high, tolerance=tolerance, trials=trials
    )
    gate, reached = made[-1]
    if abs(reached / density - 1) > tolerance:
        say(f"no trial came within {100 * tolerance:g} % of density {density}", err=True)
        raise typer.Exit(1)
    say(f"--set methods.cs.initial_gate={gate:g} gives density {reached:.4f}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 3 * 86400 else f"{seconds / 86400:.0f} days"
