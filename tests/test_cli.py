"""Journeys: what a user does with the `lth` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from companion.studies import ticket_study
from lthlib._version import __version__
from lthlib.cli.command import app
from lthlib.data.cache import Decoded, cached
from lthlib.leases import hold
from lthlib.methods import METHODS
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, Store, execute
from tests.conftest import needs

LTH = [sys.executable, "-c", "from lthlib.cli import main; main()"]


@pytest.fixture(autouse=True)
def no_images_but_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here looks into the user's cache."""
    monkeypatch.setenv("LTHLIB_CACHE", str(tmp_path / "cache"))


def lth(*arguments: object, cwd: Path, status: int = 0) -> str:
    """Run the command in a folder of its own; returns what it printed."""
    done = subprocess.run(
        [*LTH, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_help_names_every_command_and_does_not_import_torch(tmp_path: Path) -> None:
    text = lth("--help", cwd=tmp_path)
    for command in (
        "run",
        "sweep",
        "estimate",
        "bench",
        "bisect",
        "facts",
        "check-results",
        "compare",
        "record",
        "list",
        "show",
        "verify",
        "gc",
        "export",
        "import",
        "ticket",
        "tickets",
        "book",
        "studies",
    ):
        assert f" {command} " in text
    assert lth("--version", cwd=tmp_path) == f"lth {__version__}\n"
    text = lth("run", "--help", cwd=tmp_path)
    assert [name for name in METHODS if name != "retrain" and name not in text] == []
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom lthlib.cli.command import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_study_from_nothing_to_a_published_record(tmp_path: Path, tiny_recipe: Path) -> None:
    estimate = lth("estimate", tiny_recipe, cwd=tmp_path)
    assert "9 runs" in estimate and "with 8 at once, by steps measured on 2026-" in estimate
    lth("record", tiny_recipe, cwd=tmp_path, status=2)  # nothing is complete yet
    swept = lth("sweep", tiny_recipe, "--jobs", 2, "--device", "cpu", cwd=tmp_path)
    assert "all 9 runs" in swept and "on the CPU, 2 at once" in swept
    text = lth("record", tiny_recipe, cwd=tmp_path)
    assert "results/tiny.jsonl" in text
    path = tmp_path / "results/tiny.jsonl"
    lines = path.read_text()
    for change in (["--set", "training.length=19it", "--partial"], ["--methods", "omp", "--add"]):
        assert "another name" in lth("record", tiny_recipe, *change, cwd=tmp_path, status=2)
    path.write_text("".join(lines.splitlines(keepends=True)[2:]))
    lth("record", tiny_recipe, "--add", cwd=tmp_path)
    assert path.read_text() == lines
    records = [json.loads(line) for line in lines.splitlines()]
    assert {record["label"] for record in records} == {
        "dense",
        "IMP",
        "CS",
        "CS, as found",
        "BiP",
        "OMP",
    }
    network = ["stem.weight", "stage1.0.conv1.weight"]
    assert all(list(record["layers"])[:2] == network for record in records)
    assert "0 faults" in lth("verify", cwd=tmp_path)

    run_id = records[-1]["run"]
    assert run_id in lth("list", cwd=tmp_path)
    assert json.loads(lth("show", run_id[:8], cwd=tmp_path))["id"] == run_id
    ticket = next((tmp_path / "store/runs" / run_id / "tickets").glob("*.safetensors"))
    text = lth("ticket", "show", ticket, cwd=tmp_path)
    assert "stage3.0.conv2.weight" in text and run_id in text

    content = bytearray(ticket.read_bytes())
    content[-1] ^= 1
    ticket.write_bytes(content)
    assert "checksum" in lth("verify", cwd=tmp_path, status=1)
    assert "altered" in lth("ticket", "show", ticket, cwd=tmp_path, status=2)


def test_runs_travel_and_are_looked_after(tmp_path: Path, tiny_recipe: Path) -> None:
    def lth_here(*arguments: object, store: str, status: int = 0) -> str:
        # In this process: ten commands would import torch ten times.
        words = [*map(str, arguments), "--store", str(tmp_path / store)]
        done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
        assert done.exit_code == status, done.output
        return done.output

    only = ("--methods", "omp", "--densities", 0.5, "--dense-seeds", 1)
    recipe = load_recipe(tiny_recipe)
    for run in ticket_study(recipe, methods=["omp"], densities=[0.5], dense_seeds=1).configs:
        execute(run, Store(tmp_path / "there"), Machine(device="cpu"))
    archive = tmp_path / "results.tar"
    assert "2 runs" in lth_here("export", tiny_recipe, archive, *only, store="there")
    assert "2 new" in lth_here("import", archive, store="here")
    assert "2 same" in lth_here("import", archive, store="here")
    assert "0 faults" in lth_here("verify", store="here")
    table = lth_here("list", store="here")
    assert table.count("imported") == table.count("; training.length=20it\n") == 2
    folder = next((tmp_path / "here" / "runs").iterdir())
    run = json.loads(lth_here("show", folder.name, store="here"))
    assert run["imported"]["archive"] == "results.tar"

    (folder / "run.json").write_bytes(b"")
    assert "--repair" in lth_here("verify", store="here", status=1)
    assert f"{folder.name}: moved to" in lth_here("verify", "--repair", store="here", status=1)
    assert "0 faults" in lth_here("verify", store="here")
    assert "1 places would be freed" in lth_here("gc", store="here")
    assert "1 places freed" in lth_here("gc", "--yes", store="here")
    assert "0 places" in lth_here("gc", store="here")
    again = lth_here("import", archive, store="here")
    assert "1 new" in again and "1 same" in again


def test_decoded_images_are_looked_after_with_the_store(tmp_path: Path) -> None:
    def here(*words: str, status: int = 0) -> str:
        options = ["--store", str(tmp_path / "store"), *words[1:]]
        done = CliRunner().invoke(app, [words[0], *options], env={"COLUMNS": "200"})
        assert done.exit_code == status, done.output
        return done.output

    results = ("--results", str(tmp_path / "none"))
    images = Decoded(np.zeros((2, 2, 2, 3), np.uint8), np.array([0, 1]), ("ant", "bee"))
    cached("set-train", [], lambda: images, None)
    (entry,) = (tmp_path / "cache" / "decoded").iterdir()
    assert "0 faults" in here("verify", *results)
    entry.write_bytes(entry.read_bytes()[:-1])
    assert f"{entry}: its checksum" in here("verify", *results, status=1)
    assert "1 faults" in here("verify", "--repair", *results, status=1)
    assert "0 faults" in here("verify", *results)

    half_written = entry.with_name(f".{entry.name}.{32 * 'a'}")
    half_written.write_bytes(bytes(1234))
    with hold(tmp_path / "cache" / "locks" / entry.stem):
        assert "0 places freed" in here("gc", "--yes")
    assert "1,234 bytes  half-written decoded images" in here("gc")
    assert "1 places freed" in here("gc", "--yes")
    assert not half_written.exists()


def test_a_dry_run_prints_the_job_script_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text("kind: pbs\ncores: 4\nmemory: 8GiB\ngpus: 1\n")
    script = lth("sweep", "digits", "--cluster", "cluster.yaml", "--dry-run", cwd=tmp_path)
    assert "#PBS -l select=1:ncpus=4:mem=8192MB:ngpus=1" in script
    assert "distributed.cli.dask_worker" in script
    assert not (tmp_path / "store").exists()


def test_one_run_is_computed_once_and_then_shown(tmp_path: Path, tiny_recipe: Path) -> None:
    first = lth(
        "run", "omp", "--recipe", tiny_recipe, "--set", "settings.density=0.5", cwd=tmp_path
    )
    again = lth(
        "run", "omp", "--recipe", tiny_recipe, "--set", "settings.density=0.5", cwd=tmp_path
    )
    assert "density 0.5" in again
    assert "img" in first and "img" not in again  # no bar the second time


def test_a_layer_emptied_by_pruning_is_named(tmp_path: Path, tiny_recipe: Path) -> None:
    few = ["run", "random", "--recipe", tiny_recipe, "--set", "settings.density=0.002"]
    assert "no weight is left in stem.weight" in lth(*few, cwd=tmp_path)
    assert "no weight left in stem.weight" in lth("list", cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "bop"], "method is 'bop'; expected one of dense, imp, cs, bip"),
        (["run", "bip", "--set", "settings.density=2"], r"density is 2.0"),
        (
            ["run", "bip", "--set", "settings.dense=2"],
            "unknown name 'settings.dense'; expected one of density",
        ),
        (["run", "bip", "--set", "density=2"], "expected PART.NAME=VALUE"),
        (["sweep", "digits", "--set", "study.precisions=bf16"], "'bf16'; expected a list of str"),
        (["sweep", "digits", "--set", "study.first_seed=x"], "first_seed is 'x'; expected int"),
        (["sweep", "digits", "--set", "study.precisions=[fp16]"], "training.precision is 'fp16'"),
        (
            ["run", "bip", "--set", "model.architecture=vgg"],
            "model.architecture is 'vgg'; expected one of resnet8",
        ),
        (["run", "bip", "--set", "data.dataset=mnist"], "mnist"),
        (["sweep", "digits", "--methods", "imp,bop"], "method is 'bop'"),
        (["sweep", "digits", "--densities", "half"], "'half' is not a number"),
        (["sweep", "digits", "--budget", "soon"], "budget is 'soon'; expected seconds"),
        (
            ["sweep", "digits", "--set", "methods.cs.rounds=0"],
            "cs.rounds is 0; expected at least 1",
        ),
        (
            ["sweep", "digits", "--set", "methods.cs.final_temperature=1"],
            "cs.final_temperature is 1.0; expected more than 1",
        ),
        (
            ["sweep", "digits", "--methods", "cs", "--set", "methods.cs.initial_gate=[]"],
            "cs.initial_gate is an empty list",
        ),
        (["bisect", "digits", "--density", "0.1"], "gives several values of cs.penalty"),
        (
            ["bisect", "cifar10-cs", "--density", "1.5"],
            "cannot look for density 1.5",
        ),
        (["sweep", "nothing"], "recipe is 'nothing'; expected one of"),
        (["sweep", "digits", "--executor", "ray"], "--executor is 'ray'; expected local or dask"),
        (["sweep", "digits", "--dry-run"], "name its --cluster file"),
        (["sweep", "digits", "--cluster", "no.yaml"], "cannot read cluster file no.yaml"),
        (
            ["sweep", "digits", "--scheduler", "tcp://a:1", "--cluster", "no.yaml"],
            "name one of them",
        ),
        (["sweep", "digits", "--scheduler", "tcp://a:1", "--workers", "2"], "leave out --jobs"),
        (
            ["sweep", "digits", "--executor", "local", "--scheduler", "tcp://a:1"],
            "leave out --executor local",
        ),
        (["sweep", "digits", "--jobs", "2", "--jobs-per-device", "2"], "name one of them"),
        (["show", "abc"], "no complete run's id begins with 'abc'"),
        (["ticket", "show", "nowhere.safetensors"], "cannot read ticket nowhere.safetensors"),
        (["run", "--config", "nowhere.json"], "cannot read configuration nowhere.json"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    text = lth(*arguments, cwd=tmp_path, status=2)
    assert message in text
    assert "Traceback" not in text


def test_missing_data_name_the_folders_and_what_to_do(tmp_path: Path) -> None:
    text = lth(
        "run",
        "dense",
        "--recipe",
        "cifar10-cs",
        "--data",
        tmp_path / "nowhere",
        cwd=tmp_path,
        status=2,
    )
    assert "nowhere" in text and "--data" in text


def test_without_data_an_estimate_says_what_can_be_counted(tmp_path: Path) -> None:
    where = ["--data", tmp_path / "nowhere"]
    text = lth("estimate", "gate", "--jobs-per-device", 4, *where, cwd=tmp_path)
    assert "15 runs" in text and "5,010 epochs" in text and "h 4 at once" in text
    assert "here: data root" in text and "nowhere does not exist" in text
    # Of a folder of images nobody knows how many there are.
    assert "nowhere" in lth("estimate", "imagenet-path", *where, cwd=tmp_path, status=2)


def test_a_diverging_run_is_recorded_the_sweep_goes_on_and_the_exit_status_says_so(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    change = ["--set", "training.learning_rate=1e9", "--set", "training.weight_decay=1.0"]
    text = lth("sweep", tiny_recipe, "--methods", "bip", *change, cwd=tmp_path, status=1)
    assert "the loss became NaN or infinite at step" in text
    assert "its parent" in text
    assert (
        "failed"
        in lth("record", tiny_recipe, "--methods", "bip", *change, cwd=tmp_path)
        + (tmp_path / "results/tiny.jsonl").read_text()
    )


def test_a_budget_stops_cleanly_and_the_next_call_goes_on(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    few = ["sweep", tiny_recipe, "--methods", "omp", "--densities", "0.5", "--dense-seeds", 1]
    text = lth(*few, "--budget", "0s", cwd=tmp_path, status=75)
    words = f"{tiny_recipe} --methods omp --densities 0.5 --dense-seeds 1 --budget 0s"
    assert f"stopped with 2 runs to go, their state saved; `lth sweep {words}` goes on" in text
    assert "all 2 runs" in lth(*few, cwd=tmp_path)


@needs(signal.SIGINT)
def test_ctrl_c_saves_the_state_and_says_how_to_go_on(tmp_path: Path, tiny_recipe: Path) -> None:
    command = [
        *LTH,
        "sweep",
        str(tiny_recipe),
        "--set",
        "training.length=100000it",
        "--methods",
        "imp",
        "--jobs",
        "1",
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    deadline = time.time() + 120
    while not list(tmp_path.glob("store/runs/*/progress.json")) and time.time() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 75, text
    assert "stopped with" in text.splitlines()[-1]
    assert "goes on from there" in text.splitlines()[-1]
    assert "Traceback" not in text
    assert list(tmp_path.glob("store/runs/*/checkpoint.safetensors"))
    assert not list(tmp_path.glob("store/.stop-*"))


def test_values_of_methods_and_the_rewind_point_can_be_set(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    text = lth(
        "estimate", tiny_recipe, "--methods", "cs", "--dense-seeds", 1,
        "--set", "methods.cs.initial_gate=[0.0, -0.1]", "--set", "methods.cs.rounds=2",
        "--set", "rewind=3it", cwd=tmp_path,
    )  # fmt: skip
    # One dense net, two searches of two rounds, four tickets to retrain.
    assert "7 runs" in text


def test_bisection_finds_the_initial_gate_of_a_density(tmp_path: Path, tiny_recipe: Path) -> None:
    change = ["--set", "methods.cs.penalty=0", "--tolerance", 0.3]
    text = lth("bisect", tiny_recipe, "--density", 0.3, *change, cwd=tmp_path)
    trials = [line for line in text.splitlines() if line.startswith("s0 ")]
    density = float(text.splitlines()[-1].rpartition(" ")[2])
    assert 1 <= len(trials) <= 8
    assert abs(density / 0.3 - 1) <= 0.3
    assert f"density {density:.4f}" in trials[-1]
    change[1] = "methods.cs.penalty=[0]"  # a list of one value is that value
    again = lth("bisect", tiny_recipe, "--density", 0.3, *change, cwd=tmp_path)
    assert again == text  # its searches are in the store


def test_bisection_that_does_not_arrive_says_so(tmp_path: Path, tiny_recipe: Path) -> None:
    text = lth(
        "bisect", tiny_recipe, "--density", 0.3, "--low", 0.2, "--high", 0.25, "--trials", 1,
        "--set", "methods.cs.penalty=0", cwd=tmp_path, status=1,
    )  # fmt: skip
    assert "no trial came within 10 % of density 0.3" in text
