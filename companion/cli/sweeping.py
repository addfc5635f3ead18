"""Commands that compute studies, or say what they would cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from companion.cli.options import (
    BudgetOption,
    JobsOption,
    PerDeviceOption,
    Selection,
    StudyArgument,
    deadline,
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
    from companion.forecast import Bill
    from lthlib.runs import Machine, RunConfig


@dataclass(frozen=True)
class AtOnce:
    """How many runs are computed at once."""

    jobs: JobsOption = None
    jobs_per_device: PerDeviceOption = None

    def check(self) -> None:
        """Raise ConfigError for options that exclude each other."""
        if self.jobs and self.jobs_per_device:
            raise ConfigError("--jobs and --jobs-per-device are given; name one of them")


@dataclass(frozen=True)
class Placement(AtOnce):
    """Where the runs of a sweep run.

    Attributes:
        executor: local: processes; dask: a Dask cluster.
        scheduler: Join the Dask cluster at this address, tcp://HOST:PORT.
        cluster: A YAML file: start workers by Slurm, PBS or LSF; see the book.
        dry_run: Print the job script of --cluster and stop.
    """

    executor: Annotated[str | None, typer.Option(show_default="local")] = None
    scheduler: str | None = None
    cluster: Path | None = None
    dry_run: bool = False

    @property
    def on_dask(self) -> bool:
        """Whether Dask's workers run them, not processes of this machine."""
        return bool(self.executor == "dask" or self.scheduler or self.cluster)

    def check(self, ranks: int = 1) -> None:
        """Raise ConfigError for options that exclude each other.

        Args:
            ranks: how many torchrun started.
        """
        super().check()
        elsewhere = self.scheduler or self.cluster
        many = self.jobs or self.jobs_per_device
        if self.executor not in (None, "local", "dask"):
            raise ConfigError(f"--executor is {self.executor!r}; expected local or dask")
        if self.executor == "local" and elsewhere:
            raise ConfigError("--scheduler and --cluster are Dask's; leave out --executor local")
        if self.scheduler and self.cluster:
            raise ConfigError("--scheduler joins a cluster, --cluster starts one; name one of them")
        if many and elsewhere:
            raise ConfigError("a cluster has its own workers; leave out --jobs, --jobs-per-device")
        if self.dry_run and not self.cluster:
            raise ConfigError("--dry-run prints a cluster's job script; name its --cluster file")
        if ranks > 1 and (many or self.on_dask):
            raise ConfigError(
                "torchrun's ranks share each run, one after another; leave out the options that "
                "run several at once"
            )

    @contextlib.contextmanager
    def workers(self, machine: Machine) -> Iterator[dict[str, Any]]:
        """Start what computes the runs, or join it.

        Args:
            machine: where each run is executed.

        Yields:
            What `execute_many` is to be given beside the runs, by argument.
        """
        if not self.on_dask:
            yield {"jobs": self.jobs, "per_device": self.jobs_per_device}
            return
        from companion.cluster import dask_executor, load_cluster
        from lthlib.runs.many import gpus

        shared = (self.jobs_per_device or 0) * max(1, len(gpus(machine)))
        jobs = self.jobs or shared or None
        settings = load_cluster(self.cluster) if self.cluster else None
        with dask_executor(machine, self.scheduler, settings, jobs) as pool:
            say(f"Dask's scheduler: {pool.address}", err=True)
            say(f"Dask's dashboard: {pool.dashboard}", err=True)
            yield {"executor": pool, "room": pool.room}


def sweep(
    ctx: typer.Context,
    study: StudyArgument,
    selection: Selection,
    placement: Placement,
    budget: BudgetOption = None,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
    deterministic: DeterministicOption = False,
) -> None:
    """Run all of a study that the store lacks, several runs at once.

    Exit status: 0 all complete; 1 some runs failed (they are listed and recorded); 75 stopped, call
    again to go on.
    """
    from lthlib.runs import Store, bar, execute_many

    placement.check(ctx.with_resource(joined(device)).world)
    if placement.dry_run and placement.cluster:
        from companion.cluster import job_script, load_cluster

        say(job_script(load_cluster(placement.cluster)))
        return
    chosen = selection.study(study)
    machine = machine_of(data, device, deterministic)
    machine.deadline = deadline(budget)
    with placement.workers(machine) as workers, bar(chosen.name) as report:
        swept = execute_many(chosen.configs, Store(store), machine, report=report, **workers)
    finish_sweep(swept)
    say(f"{chosen.name}: all {len(chosen.entries)} runs are in {store}")


def estimate(
    selection: Selection,
    at_once: AtOnce,
    studies: Annotated[list[str] | None, typer.Argument(metavar="STUDY")] = None,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say what studies would cost before they start, on this machine and on a large GPU.

    Here that is told from a few real training steps, there from steps that were measured on one.

    Args:
        studies: Studies by name, or recipe.yaml files; all that come with lthlib if left out.
    """
    from companion.analysis.words import duration
    from companion.forecast import GPU
    from lthlib.recipes import recipe_names
    from lthlib.runs import Store, with_ancestors

    at_once.check()
    machine = machine_of(data, device)
    runs = Store(store)
    for name in studies or recipe_names():
        chosen = selection.study(name)
        missing = [c for c in with_ancestors(chosen.configs) if runs.load(c) is None]
        try:
            cost, time_here = _price(missing, machine, at_once)
        except DataError as error:
            if studies:
                raise
            say(f"{chosen.name}: {len(chosen.configs)} runs; {error}")
            continue
        shared = [f", {duration(cost.gpu[n])} with {n} at once" for n in cost.gpu if n > 1]
        say(
            f"{chosen.name}: {len(chosen.configs)} runs, {len(missing)} to compute with their "
            f"parents, {cost.epochs:,.0f} epochs or {cost.passes / 1e6:.2f} million images forward "
            f"and backward\n  here: {time_here}\n"
            f"  {GPU['device']}: training takes at most {duration(cost.gpu[1])}"
            f"{''.join(shared)}, by steps measured on {GPU['measured']}"
        )


def _price(missing: Sequence[RunConfig], machine: Machine, at_once: AtOnce) -> tuple[Bill, str]:
    """What runs cost, and in words what they cost here, or why that is not known."""
    from companion.analysis.words import duration
    from companion.forecast import MANY, SETS, bill
    from companion.forecast import estimate as predict

    try:
        cost = predict(missing, machine, at_once.jobs, at_once.jobs_per_device)
    except DataError as error:
        if not {config.data.dataset for config in missing} <= SETS.keys():
            raise
        return bill(missing, at_once.jobs_per_device or MANY), str(error)
    return cost, (
        f"about {duration(cost.seconds)} with {cost.jobs} at once, {duration(cost.busy)} of "
        "their time together, timed now"
    )


def bisect(
    recipe: StudyArgument,
    density: Annotated[float, typer.Option()],
    seed: int = 0,
    low: float = -1.0,
    high: float = 0.25,
    tolerance: float = 0.1,
    trials: Annotated[int, typer.Option(min=1)] = 8,
    set_: SetOption = None,
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Look for the initial gate s0 with which CS ends at a density.

    Each trial is one whole search, kept in the store. Exit status 1 when no trial came near enough.

    Example: lth bisect digits --density 0.05 --set methods.cs.penalty=0

    Args:
        density: Kept fraction that CS is to end at.
        seed: Seed of initialisation and data order.
        low: Lowest initial gate to try.
        high: Highest initial gate to try.
        tolerance: How far from the density a trial may end, as a fraction of it.
        trials: Searches to make at most.
    """
    from lthlib.methods.gates import bisect_initial_gate
    from lthlib.recipes import load_recipe
    from lthlib.runs import Store, execute

    chosen = load_recipe(recipe).with_(**nested(set_ or []))
    settings = {"rewind": chosen.rewind, **chosen.method("cs")}
    for name, value in settings.items():
        if isinstance(value, list) and len(value) == 1:
            settings[name] = value[0]
        elif isinstance(value, list) and name != "initial_gate":
            raise ConfigError(
                f"recipe {recipe} gives several values of cs.{name}; "
                f"choose one with --set methods.cs.{name}=VALUE"
            )

    def density_of(gate: float) -> float:
        config = chosen.config("cs", seed, **settings | {"initial_gate": gate})
        result = execute(config, Store(store), machine_of(data, device))
        reached = 0.0 if result.failure else float(result.records[-1]["density"])
        say(f"s0 {gate:+.6f}: {result.failure or f'density {reached:.4f}'} ({config.id})")
        return reached

    searches = bisect_initial_gate(
        density_of, density, low=low, high=high, tolerance=tolerance, trials=trials
    )
    gate, reached = searches[-1]
    if abs(reached / density - 1) > tolerance:
        say(f"no trial came within {100 * tolerance:g} % of density {density}", err=True)
        raise typer.Exit(1)
    say(f"--set methods.cs.initial_gate={gate:g} gives density {reached:.4f}")
