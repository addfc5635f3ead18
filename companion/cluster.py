"""Sweeps on Dask: on this machine, on a cluster that runs, or on one that Slurm, PBS or LSF starts.

Needs the extra `cluster`; Dask is imported by the functions that use it.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from lthlib.errors import ClusterError, ConfigError, refusal
from lthlib.files import from_yaml, load
from lthlib.runs.config import RunConfig
from lthlib.runs.execution import Machine
from lthlib.runs.many import default_jobs, gpus
from lthlib.runs.store import source
from lthlib.settings import Count, Line, Settings, between, build, matching, one_of
from lthlib.signals import heeded, shielded

_KINDS = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
_MEMORY = matching(r"\d{1,9}(\.\d{1,9})? ?[kMGT]i?B", "a size such as 16GB")
_WALLTIME = matching(r"\d{1,5}:[0-5]\d:[0-5]\d", "hours:minutes:seconds")
_WORD = matching(
    r"([A-Za-z0-9_][\w.,:@/+-]{0,199})?",
    "letters, digits and . , : @ / + - _, beginning with a letter or digit",
)
_PLUGIN = "lthlib"
_LOCALHOST = "127.0.0.1"
_SCHEDULER_GONE = "the Dask scheduler is gone; the same command goes on from the last checkpoints"


@dataclass(frozen=True)
class ClusterSettings(Settings, where=""):
    """What to ask a batch system for; the names are those of a cluster's YAML file.

    The job script is a shell's: only what its prologue and the directives hold is shell, an entry a
    line.

    Attributes:
        kind: slurm, pbs or lsf.
        jobs: to keep queued or running.
        cores: of one job.
        memory: of one job, with its unit.
        gpus: of one job.
        workers: processes of one job, each with one run at a time; 0 for one a GPU, or one a core.
        walltime: hours:minutes:seconds.
        queue: as the batch system names it.
        account: as the batch system names it.
        interface: the network by which nodes reach each other, such as ib0.
        job_script_prologue: shell lines before the workers start.
        job_extra_directives: further lines for the batch system, without its prefix.
    """

    kind: Annotated[str, one_of(_KINDS)] = "slurm"
    jobs: Count = 1
    cores: Count = 1
    memory: Annotated[str, _MEMORY] = "8GB"
    gpus: Annotated[int, between(0, 10_000)] = 0
    workers: Annotated[int, between(0, 10_000)] = 0
    walltime: Annotated[str, _WALLTIME] = "01:00:00"
    queue: Annotated[str, _WORD] = ""
    account: Annotated[str, _WORD] = ""
    interface: Annotated[str, _WORD] = ""
    job_script_prologue: tuple[Line, ...] = ()
    job_extra_directives: tuple[Line, ...] = ()

    @property
    def processes(self) -> int:
        """Workers of one job."""
        return self.workers or self.gpus or self.cores


def load_cluster(path: Path) -> ClusterSettings:
    """Read a cluster's YAML file.

    Args:
        path: of the file.

    Returns:
        The settings.

    Raises:
        ConfigError: it cannot be read, or an entry makes no sense; the message names both.
    """
    values = load(path, from_yaml, "cluster file")
    with refusal(ConfigError, f"cluster file {path}", ConfigError):
        settings: ClusterSettings = build(ClusterSettings, values, "")
    return settings


def job_script(settings: ClusterSettings) -> str:
    """The script of one job, as `dask-jobqueue` hands it to the batch system."""
    jobqueue = _import("dask_jobqueue")
    job = getattr(jobqueue, _KINDS[settings.kind]).job_cls
    return str(job("tcp://SCHEDULER:PORT", "lth-0", **_job_options(settings)).job_script())


def _job_options(settings: ClusterSettings) -> dict[str, Any]:
    # Dask gives each process cores / processes threads; a run must have its process to itself.
    options: dict[str, Any] = {
        "cores": settings.processes,
        "processes": settings.processes,
        "memory": settings.memory,
        "job_name": "lth",
        "walltime": settings.walltime,
        "queue": settings.queue or None,
        "interface": settings.interface or None,
        "job_script_prologue": list(settings.job_script_prologue),
        # The batch system limits memory; a worker that Dask pauses would never take another run.
        "worker_extra_args": ["--memory-limit", "0"],
    }
    directives = list(settings.job_extra_directives)
    if settings.kind == "slurm":
        options |= {"job_cpu": settings.cores, "account": settings.account or None}
        directives += [f"--gres=gpu:{settings.gpus}"] if settings.gpus else []
    elif settings.kind == "pbs":
        memory = _import("dask_jobqueue.pbs").pbs_format_bytes_ceil(
            _import("dask.utils").parse_bytes(settings.memory)
        )
        accelerators = f":ngpus={settings.gpus}" if settings.gpus else ""
        options["resource_spec"] = f"select=1:ncpus={settings.cores}:mem={memory}{accelerators}"
        options["account"] = settings.account or None
    else:
        # LSF writes hours:minutes.
        options["walltime"] = settings.walltime.rpartition(":")[0]
        options |= {"ncpus": settings.cores, "project": settings.account or None}
        directives += [f"-gpu num={settings.gpus}"] if settings.gpus else []
    return options | {"job_extra_directives": directives}


@contextlib.contextmanager
def dask_executor(
    machine: Machine,
    scheduler: str | None = None,
    settings: ClusterSettings | None = None,
    workers: int | None = None,
) -> Iterator[DaskExecutor]:
    """An executor for `execute_many` whose workers are Dask's, one run a worker process.

    What was started ends with the context. Without `scheduler` and `settings`, processes are
    started on this machine.

    Args:
        machine: where runs are executed.
        scheduler: address of a running cluster, such as tcp://node7:8786, whose workers have one
            thread each and one GPU, if any.
        settings: a cluster to start by a batch system.
        workers: processes on this machine; by default one a GPU, or one a core.

    Yields:
        The executor.

    Raises:
        ConfigError: Dask is not installed.
        ClusterError: no scheduler answers.
    """
    distributed = _import("distributed")
    options: dict[str, Any] = {"dashboard_address": f"{_LOCALHOST}:0"}  # for this machine
    with contextlib.ExitStack() as stack:
        address: Any = scheduler
        if settings is not None:
            kind = getattr(_import("dask_jobqueue"), _KINDS[settings.kind])
            # Whoever reaches the scheduler runs code: Dask binds it to the interface, if there is
            # one.
            address = stack.enter_context(kind(scheduler_options=options, **_job_options(settings)))
            # Jobs whose time is up are queued again.
            address.adapt(minimum_jobs=settings.jobs, maximum_jobs=settings.jobs)
        elif scheduler is None:
            options |= {"n_workers": 0, "threads_per_worker": 1, "memory_limit": 0}
            with shielded():  # workers are started by a thread that starts here
                address = distributed.LocalCluster(silence_logs="ERROR", **options)
            stack.enter_context(address)
            address.scale(workers or default_jobs(machine))
        try:
            client = stack.enter_context(distributed.Client(address, set_as_default=False))
        except (OSError, ValueError) as error:
            raise ClusterError(f"no Dask scheduler answers at {scheduler}: {error}") from None
        if scheduler is None:
            client.register_plugin(_worker_plugin(machine), name=_PLUGIN)
        yield DaskExecutor(client, settings)


def _worker_plugin(machine: Machine) -> Any:
    class Settled(_import("distributed").WorkerPlugin):  # type: ignore[misc]
        """What workers that we started do first and last."""

        running: Machine | None = None

        def setup(self, worker: Any) -> None:
            # Ctrl-C and SIGHUP are left to the sweep, and SIGTERM, which a batch system may send to
            # every process, to the nanny: it closes the worker.
            for number in heeded():
                signal.signal(number, signal.SIG_IGN)
            devices = gpus(machine)
            number_in_name = re.search(r"\d+$", str(worker.name))
            if devices and number_in_name:
                device = devices[int(number_in_name[0]) % len(devices)]
                os.environ["CUDA_VISIBLE_DEVICES"] = device

        def teardown(self, worker: Any) -> None:
            # A worker that closes waits a few seconds for its thread: enough to save the run.
            if self.running:
                self.running.deadline = 0.0

    return Settled()


class DaskExecutor(Executor):
    """Hands runs to the workers of a Dask client."""

    def __init__(self, client: Any, started: ClusterSettings | None = None):
        self.client = client
        self._started = started
        self._inner = client.get_executor(pure=False)
        self._workers = 0
        self._counted = -math.inf

    @property
    def dashboard(self) -> str:
        """Address of Dask's dashboard."""
        link = str(self.client.dashboard_link)
        # Dask names it by the scheduler's address, wherever it listens.
        return re.sub(r"//.*:", f"//{_LOCALHOST}:", link) if self._started else link

    @property
    def address(self) -> str:
        """Address of Dask's scheduler, and who reaches it."""
        address = str(self.client.scheduler.address)
        if self._started and not self._started.interface:
            address += (
                " (open to every network of this machine, and it runs what it is sent; name the "
                "nodes' interface in the cluster file)"
            )
        return address

    def room(self) -> int:
        """Runs to have handed over: twice the workers there are, so that none waits for one."""
        if time.monotonic() - self._counted > 1:
            try:
                self._workers = len(self.client.nthreads())
            except OSError:
                raise ClusterError(_SCHEDULER_GONE) from None
            self._counted = time.monotonic()
        return 2 * max(1, self._workers)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn(config, root, machine)` on some worker; one that dies is replaced by another.

        Args:
            fn: to be called there.
            args: `config`, `root` and `machine`.
            kwargs: for Dask's `submit`.

        Returns:
            A future of the result, which raises BrokenExecutor when several workers died.
        """
        config, root, machine = args
        key = f"{config.method}-{config.id}-{uuid.uuid4().hex[:8]}"
        inner = self._inner.submit(
            _on_worker, fn, source(config.to_json()), config, root, machine, key=key, **kwargs
        )
        outer: Future[Any] = Future()
        inner.add_done_callback(partial(_pass_on_result, outer))
        return outer


def _pass_on_result(outer: Future[Any], inner: Future[Any]) -> None:
    killed = _import("distributed").KilledWorker
    try:
        outer.set_result(inner.result())
    except CancelledError:
        outer.set_exception(ClusterError(_SCHEDULER_GONE))
    except killed as error:
        outer.set_exception(BrokenExecutor(str(error)))
    except BaseException as error:
        outer.set_exception(error)


def _on_worker(
    fn: Callable[..., Any], computed_by: str, config: RunConfig, root: str, machine: Machine
) -> Any:
    worker = _import("distributed").get_worker()
    where = f"Dask worker {worker.address}"
    if worker.state.nthreads != 1:
        raise ClusterError(
            f"{where} has {worker.state.nthreads} threads, and a run needs a process of its own; "
            "start Dask workers with --nthreads 1 --nworkers N"
        )
    if source(config.to_json()) != computed_by:
        raise ClusterError(f"{where} has another version of lthlib than this sweep; install one")
    if not (Path(root) / "runs").is_dir():
        raise ClusterError(
            f"{where} does not see the store {root}; name a folder that all machines share with "
            "--store or LTHLIB_STORE"
        )
    if _PLUGIN in worker.plugins:
        worker.plugins[_PLUGIN].running = machine
    return fn(config, root, machine)


def _import(name: str) -> Any:
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"Dask is not installed here ({error}); pip install 'lthlib[cluster]', "
            "or pip install --editable '.[cluster]' in a checkout"
        ) from None
    finally:
        # dask_jobqueue makes Ctrl-C end the process at once, for all that imports it.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupt)
