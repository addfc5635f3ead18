"""Clusters: their settings, the scripts that batch systems get, and what a worker must be."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from companion.cluster import (
    ClusterSettings,
    _pass_on_result,
    dask_executor,
    job_script,
    load_cluster,
)
from lthlib.errors import ClusterError, ConfigError
from lthlib.runs import Machine, Store, execute_many
from tests.runs.toys import config

GPU_NODE: dict[str, Any] = {
    "cores": 16,
    "memory": "64GiB",
    "gpus": 4,
    "walltime": "12:30:00",
    "queue": "gpu",
    "account": "lottery",
    "interface": "ib0",
    "job_script_prologue": ("module load cuda", "source .venv/bin/activate"),
}
WORKER = (
    f"{sys.executable} -m distributed.cli.dask_worker tcp://SCHEDULER:PORT --name lth-0 "
    "--nthreads 1 --memory-limit 16.00GiB --nworkers 4 --nanny --death-timeout 60 "
    "--memory-limit 0 --interface ib0"
)
SCRIPTS = {
    "slurm": [
        "#SBATCH -J lth",
        "#SBATCH -p gpu",
        "#SBATCH -A lottery",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=16",
        "#SBATCH --mem=64G",
        "#SBATCH -t 12:30:00",
        "#SBATCH -x node7",
        "#SBATCH --gres=gpu:4",
    ],
    "pbs": [
        "#PBS -N lth",
        "#PBS -q gpu",
        "#PBS -A lottery",
        "#PBS -l select=1:ncpus=16:mem=64GB:ngpus=4",
        "#PBS -l walltime=12:30:00",
        "#PBS -x node7",
    ],
    "lsf": [
        "#BSUB -J lth",
        "#BSUB -q gpu",
        '#BSUB -P "lottery"',
        "#BSUB -n 16",
        '#BSUB -R "span[hosts=1]"',
        "#BSUB -M 68719477",
        "#BSUB -W 12:30",
        "#BSUB -x node7",
        "#BSUB -gpu num=4",
    ],
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_the_job_script(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LSF_ENVDIR", "LSF_CONFDIR"):
        monkeypatch.delenv(name, raising=False)
    settings = ClusterSettings(kind=kind, job_extra_directives=("-x node7",), **GPU_NODE)
    lines = job_script(settings).splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[2:] == [*SCRIPTS[kind], *GPU_NODE["job_script_prologue"], WORKER]


@pytest.mark.parametrize(
    ("values", "processes"),
    [({}, 1), ({"cores": 8}, 8), ({"cores": 8, "gpus": 2}, 2), ({"gpus": 2, "workers": 6}, 6)],
)
def test_one_worker_a_gpu_or_a_core_or_as_many_as_are_asked_for(
    values: dict[str, int], processes: int
) -> None:
    script = job_script(ClusterSettings(**values))  # type: ignore[arg-type]
    assert "--nthreads 1 " in script
    assert (f"--nworkers {processes} " in script) == (processes > 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: sge", "kind is 'sge'; expected one of slurm, pbs, lsf"),
        ("kind: slurm\nnodes: 3", "unknown name 'nodes'; expected one of kind, jobs, cores"),
        ("jobs: many", "jobs is 'many'"),
        ("jobs: 0", "jobs is 0; expected at least 1"),
        ("gpus: -1", "gpus is -1; expected at least 0"),
        ("memory: lots", "memory is 'lots'; expected a size such as 16GB"),
        ("walltime: 4h", "walltime is '4h'; expected hours:minutes:seconds"),
        ("job_extra_directives: -x", "job_extra_directives is '-x'; expected a list of str"),
        ("- slurm", "expected names with values"),
        ("kind: [", "cannot read cluster file"),
        (r'queue: "lo\ntouch x"', "queue is 'lo\\ntouch x'; expected letters, digits and"),
        ("account: $(id)", "account is '$(id)'"),
        ("account: a;b", "account is 'a;b'"),
        ("interface: lo --x", "interface is 'lo --x'"),
        ("queue: -N9", "queue is '-N9'"),
        ("memory: 8GB`id`", "memory is '8GB`id`'"),
        (r'walltime: "01:00:00\n"', "walltime is '01:00:00\\n'"),
        (r'job_script_prologue: ["module load cuda\nid"]', "expected one line of text"),
        (r'job_extra_directives: ["--exclusive\Lid"]', "expected one line of text"),
    ],
)
def test_a_cluster_file_that_makes_no_sense_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"cluster\.yaml") as caught:
        load_cluster(path)
    assert message in str(caught.value)


def test_without_dask_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigError, match=r"pip install 'lthlib\[cluster\]'"):
        job_script(ClusterSettings())


def test_ctrl_c_works_as_before_once_dask_jobqueue_is_imported() -> None:
    code = (
        "import signal; from companion.cluster import ClusterSettings, job_script; "
        "job_script(ClusterSettings()); "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    default = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    subprocess.run([sys.executable, "-c", code], check=True, preexec_fn=default)


def test_an_address_where_nothing_answers() -> None:
    import dask
    import distributed  # noqa: F401  # first, or the end of the block would take its defaults along

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ClusterError, match="no Dask scheduler answers at tcp"),
        dask_executor(Machine(), scheduler="tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize(("interface", "open_"), [("lo", False), ("", True)])
def test_a_scheduler_listens_where_it_is_told_to(
    interface: str, open_: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask_jobqueue.local
    import psutil

    def stand_in(**options: Any) -> Any:
        for name in ("job_cpu", "queue", "account"):
            options.pop(name, None)
        cluster = dask_jobqueue.local.LocalCluster(**options)
        cluster.adapt = lambda **kwargs: None
        return cluster

    monkeypatch.setattr("dask_jobqueue.SLURMCluster", stand_in)
    before = {one.laddr for one in psutil.Process().net_connections() if one.status == "LISTEN"}
    with dask_executor(Machine(), settings=ClusterSettings(interface=interface)) as pool:
        sockets = psutil.Process().net_connections()
        hosts = {one.laddr for one in sockets if one.status == "LISTEN"} - before
        assert ("0.0.0.0" in {host.ip for host in hosts}) == open_
        assert ("every network" in pool.address) == open_
        assert pool.dashboard.startswith("http://127.0.0.1:")


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A cluster within this process, whose one worker has two threads."""
    from distributed import LocalCluster

    options = {"processes": False, "n_workers": 1, "dashboard_address": None}
    with LocalCluster(threads_per_worker=2, protocol="tcp://", **options) as cluster:
        yield cluster.scheduler_address


def test_a_worker_takes_one_run_at_a_time(scheduler: str, tmp_path: Path) -> None:
    message = "has 2 threads, and a run needs a process of its own"
    with (
        dask_executor(Machine(), scheduler=scheduler) as pool,
        pytest.raises(ClusterError, match=message),
    ):
        execute_many([config()], Store(tmp_path), executor=pool, room=pool.room)


def test_a_worker_must_see_the_store_and_run_the_same_code(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import distributed

    worker = distributed.get_worker

    def alone() -> Any:
        found = worker()
        monkeypatch.setattr(found.state, "nthreads", 1)
        return found

    monkeypatch.setattr(distributed, "get_worker", alone)
    with dask_executor(Machine(), scheduler=scheduler) as pool:
        elsewhere = pool.submit(print, config(), str(tmp_path), Machine())
        with pytest.raises(ClusterError, match="does not see the store"):
            elsewhere.result(timeout=60)
        versions = iter(["this", "that"])
        monkeypatch.setattr("companion.cluster.source", lambda config: next(versions))
        other = pool.submit(print, config(), str(tmp_path), Machine())
        with pytest.raises(ClusterError, match="another version of lthlib"):
            other.result(timeout=60)


def test_what_dask_says_becomes_what_a_sweep_understands() -> None:
    from distributed import KilledWorker

    def told(inner: Future[Any]) -> Future[Any]:
        outer: Future[Any] = Future()
        _pass_on_result(outer, inner)
        return outer

    fine, killed, gone, wrong = (Future[Any]() for _ in range(4))
    fine.set_result(3)
    killed.set_exception(KilledWorker("imp", SimpleNamespace(address="tcp://node7:1"), 3))
    gone.cancel()
    wrong.set_exception(ConfigError("no such device"))
    assert told(fine).result() == 3
    assert isinstance(told(killed).exception(), BrokenExecutor)
    with pytest.raises(ClusterError, match="scheduler is gone"):
        told(gone).result()
    assert isinstance(told(wrong).exception(), ConfigError)
