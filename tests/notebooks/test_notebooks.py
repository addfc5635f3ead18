"""Journeys through the notebooks, by papermill, with a study of a few seconds."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from papermill import inspect_notebook

from companion.publish.notebooks import (
    code_cells,
    read_notebook,
    run_notebook,
    source,
    tags,
)
from companion.publish.study import shared_parameters
from companion.studies import ticket_study
from lthlib.recipes import load_recipe
from tests.companion.publish.records import published, write
from tests.companion.publish.toys import REPOSITORY
from tests.conftest import with_sources, write_tiny

FOLDER = REPOSITORY / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def execute(name: str, output: Path, given: dict[str, Any]) -> None:
    path = FOLDER / name
    run_notebook(path, output, given, REPOSITORY)


def papermill(name: str, output: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run the command as a person types it, in the folder of its output."""
    command = [sys.executable, "-m", "papermill", str(FOLDER / f"{name}.ipynb"), str(output)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "LTHLIB_DATA": "", **variables}
    del environment["PYTEST_CURRENT_TEST"]  # a kernel that sees it leaves standard error alone
    done = subprocess.run(
        [*command, *arguments, "--kernel", "python3"],
        cwd=output.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def outputs(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text())["cells"]
    return [output for cell in cells for output in cell.get("outputs", [])]


def words(notebook: Path) -> str:
    return "\n".join(
        "".join(one.get("data", {}).get("text/markdown", "")) for one in outputs(notebook)
    )


def test_they_are_found() -> None:
    assert {"cost", "inside", "panels", "pruning", "sensitivity"} < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_sources_are_stripped(name: str) -> None:
    for cell in code_cells(read_notebook(FOLDER / f"{name}.ipynb")):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_literal_value_of_its_type_and_is_read(name: str) -> None:
    cells = code_cells(read_notebook(FOLDER / f"{name}.ipynb"))
    # Papermill puts what is given behind the first cell of this tag, or before all cells.
    assert ["parameters" in tags(cell) for cell in cells] == [True] + [False] * (len(cells) - 1)
    first, *rest = map(source, cells)
    code = "\n".join(rest)
    opened = {*shared_parameters(), "precisions", "recipes"} if "begin(" in code else {"artefacts"}
    for statement in ast.parse(first).body:
        assert isinstance(statement, ast.AnnAssign) and statement.value is not None
        parameter, kind = ast.unparse(statement.target), ast.unparse(statement.annotation)
        default = ast.literal_eval(statement.value)
        assert default is None or type(default).__name__ == kind.partition("[")[0]
        assert f"P.{parameter}" in code or parameter in opened, parameter


@pytest.mark.parametrize("name", NAMES)
def test_papermill_explains_every_parameter(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    first = source(code_cells(read_notebook(path))[0])
    known = inspect_notebook(str(path))
    assert list(known) == re.findall(r"^\w+", first, re.MULTILINE)
    for parameter in known.values():
        assert parameter["inferred_type_name"] != "None" and parameter["help"], parameter


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_thin(name: str) -> None:
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    assert all(len(cell["source"]) <= 30 for cell in cells)
    assert cells[0]["source"][0].startswith("# ")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize(
    ("name", "given", "made"),
    [
        ("tickets", {"dense_seeds": 1}, ["accuracy", "points", "variants"]),
        (
            *("cost", {"pretraining": False}),
            ["as-published", "dilemma", "faster", "units", "whole-curve"],
        ),
        ("masks", {"density": 0.5}, ["layers", "overlap"]),
    ],
)
def test_a_study_from_the_local_store(
    name: str,
    given: dict[str, Any],
    made: list[str],
    store: Path,
    tiny_recipe: Path,
    tmp_path: Path,
) -> None:
    common = {"recipe": str(tiny_recipe), "source": "local", "store": str(store), "jobs": 1}
    common |= {"device": "cpu", "artefacts": str(tmp_path / "made")}
    output = tmp_path / "out.ipynb"
    execute(f"{name}.ipynb", output, {**common, **given})
    assert sorted(path.stem for path in (tmp_path / "made").glob("*.csv")) == made
    assert "Runs: " in words(output)


def test_ours_beside_the_papers_panels(store: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    given = {"recipes": [str(tiny_recipe)], "source": "local", "store": str(store), "jobs": 1}
    given |= {"device": "cpu", "artefacts": str(tmp_path / "made"), "methods": ["bip", "imp"]}
    output = tmp_path / "out.ipynb"
    execute("panels.ipynb", output, given)
    made = sorted(path.stem for path in (tmp_path / "made").glob("*.csv"))
    assert made == ["bip-minus-imp", "panels"]
    assert "`tiny` (embedded scale): a few steps on digits" in words(output)


def test_without_a_run_the_papers_curves_stand_alone(tmp_path: Path) -> None:
    given = {"results": str(tmp_path / "none"), "artefacts": str(tmp_path / "made")}
    execute("panels.ipynb", tmp_path / "out.ipynb", given)
    table = pd.read_csv(tmp_path / "made" / "panels.csv")
    assert set(table["whose"]) == {"paper"}
    assert table["panel"].nunique() == 8


def rewritten(folder: Path, methods: dict[str, Any], study: dict[str, Any]) -> Path:
    """The recipe of a few seconds with other methods and another study."""
    path = write_tiny(folder)
    content = yaml.safe_load(path.read_text())
    content["methods"] |= with_sources(methods)
    content["study"] |= with_sources({"dense_seeds": 1, **study})
    path.write_text(yaml.safe_dump(content))
    return path


GATES = {"penalty": 1e-4, "gate_learning_rate": 1.0, "temperature_per": "step"}
TWO_TRIALS = {"cs": {**GATES, "gate_learning_rate": [0.3, 1.0]}}
VARIANTS = {"cs": GATES, "cs-variants": {"penalty": [1e-4, 1e-3], "rewind": ["2it", "5it"]}}


@pytest.mark.parametrize(
    ("name", "methods", "contestants", "made"),
    [
        ("pruning", TWO_TRIALS, ["cs", "cs-fine-tuned"], ["accuracy", "points", "tuning"]),
        ("sensitivity", VARIANTS, ["cs-variants"], ["sensitivity", "table"]),
        (
            *("head-to-head", {"imp": {"fraction": 0.5, "rounds": 1}}),
            *(
                ["imp", "bip-retrained", "omp", "dense-search"],
                ["budgets", "differences", "reached"],
            ),
        ),
    ],
)
def test_a_study_with_a_notebook_of_its_own(
    name: str, methods: dict[str, Any], contestants: list[str], made: list[str], tmp_path: Path
) -> None:
    recipe = str(rewritten(tmp_path, methods, {"methods": contestants, "densities": [0.5]}))
    given = {"recipe": recipe, "source": "local", "store": str(tmp_path / "store"), "jobs": 1}
    given |= {"device": "cpu", "artefacts": str(tmp_path / "made")}
    tuning = {"pruning": recipe, "head-to-head": None}
    given |= {"tuning": tuning[name]} if name in tuning else {}
    execute(f"{name}.ipynb", tmp_path / "out.ipynb", given)
    assert sorted(path.stem for path in (tmp_path / "made").glob("*.csv")) == made


@pytest.mark.parametrize(
    ("name", "methods", "contestants", "more", "made"),
    [
        (
            *("sensitivity", {"bip-variants": {"lower_steps": [2]}}, ["bip-variants", "bip"]),
            *({"method": "bip"}, ["sensitivity", "table"]),
        ),
        (
            *("controls", {"bip-rewound": {"rewind": ["2it", "20it"]}}),
            *(["bip", "bip-rewound", "bip-frozen"], {}),
            ["controls", "rewinding", "rewinding-means", "table"],
        ),
        (
            *("release", {"bip-departures": {"switched": ["aliased"]}}),
            *(["bip", "bip-release", "bip-departures"], {"density": 0.5}),
            ["effects", "masks", "table"],
        ),
    ],
)
def test_other_studies_from_the_local_store(
    name: str,
    methods: dict[str, Any],
    contestants: list[str],
    more: dict[str, Any],
    made: list[str],
    tmp_path: Path,
) -> None:
    recipe = str(rewritten(tmp_path, methods, {"methods": contestants, "densities": [0.5]}))
    given = {"recipe": recipe, "store": str(tmp_path / "store"), "jobs": 1, "device": "cpu", **more}
    given |= {"artefacts": str(tmp_path / "made"), "source": "local"}
    execute(f"{name}.ipynb", tmp_path / "out.ipynb", given)
    assert sorted(path.stem for path in (tmp_path / "made").glob("*.csv")) == made


def test_a_published_release_without_tickets_shows_no_masks(tmp_path: Path) -> None:
    study = ticket_study(load_recipe("digits-release"), seeds=1, dense_seeds=1, densities=[0.05])
    write(tmp_path / "results", study, published(study))
    given = {"source": "results", "results": str(tmp_path / "results")}
    given |= {"artefacts": str(tmp_path / "made"), "store": str(tmp_path / "store")}
    output = tmp_path / "out.ipynb"
    execute("release.ipynb", output, given)
    assert sorted(path.stem for path in (tmp_path / "made").glob("*.csv")) == ["effects", "table"]
    assert "masks are not published" in words(output)
    assert not (tmp_path / "store").exists()


def test_a_layer_is_looked_at_while_its_masks_are_found(
    tiny_recipe: Path, store: Path, tmp_path: Path
) -> None:
    given = {"recipe": str(tiny_recipe), "device": "cpu", "store": str(store), "jobs": 1}
    given |= {"artefacts": str(tmp_path / "made"), "methods": ["imp", "cs", "bip"], "seeds": 2}
    given |= {"density": 0.5}
    execute("inside.ipynb", tmp_path / "out.ipynb", given)
    made = sorted(path.stem for path in (tmp_path / "made").glob("*.svg"))
    assert made == ["bip", "cs", "gates", "imp", "overlap", "sigmoid", "two-seeds"]


def test_the_hypergradient_is_looked_at_on_quadratics_and_on_a_network(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    given = {"recipe": str(tiny_recipe), "device": "cpu", "artefacts": str(tmp_path / "made")}
    given |= {"gammas": [0.1, 1.0, 100.0], "sizes": [6, 12], "quadratics": 2, "images": 64}
    given |= {"network_gammas": [1.0, 1000.0], "seeds": 1, "solver_steps": 10}
    given |= {"points": ["start", "trained"], "store": str(tmp_path / "store")}
    output = tmp_path / "out.ipynb"
    execute("bilevel.ipynb", output, given)
    made = tmp_path / "made"
    assert sorted(path.stem for path in made.glob("*.csv")) == [
        *("distances", "hypergradient", "table")
    ]
    table = pd.read_csv(made / "table.csv")
    assert table["problem"].value_counts().to_dict() == {"quadratic": 6, "network": 4}
    assert set(table["point"]) == {"solved", "start", "trained"}
    assert table.loc[table["gamma"] >= 100, "cosine"].min() > 0.99
    assert "Scale: embedded · seeds: 0 · device: " in words(output)


def test_quickstart(tmp_path: Path) -> None:
    given = {"length": "20it", "density": 0.5, "device": "cpu", "artefacts": str(tmp_path / "made")}
    execute("quickstart.ipynb", tmp_path / "out.ipynb", given)
    lines = (tmp_path / "made" / "tickets.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == ["imp", "cs", "bip", "omp", "random"]


def test_published_records_are_shown_without_data_or_training(tmp_path: Path) -> None:
    study = ticket_study(load_recipe("cifar10-cs"), methods=["imp", "cs"], seeds=1, dense_seeds=1)
    write(tmp_path / "results", study, published(study))
    arguments = ["-p", "recipe", "cifar10-cs"]
    arguments += ["-y", "methods: [imp, cs]", "-p", "results", str(tmp_path / "results")]
    arguments += ["-p", "seeds", "1", "-p", "dense_seeds", "1"]
    arguments += ["-p", "artefacts", str(tmp_path / "made")]
    output = tmp_path / "out.ipynb"
    code, told = papermill("tickets", output, *arguments, LTHLIB_STORE=str(tmp_path / "store"))
    assert code == 0, told
    assert "Runs: 14 read from the published record." in words(output)
    assert not (tmp_path / "store").exists()
    points = pd.read_csv(tmp_path / "made" / "points.csv")
    assert set(points["curve"]) == {
        *("CS", "CS, as found", "IMP", "dense"),
    }
    split = set(pd.read_csv(tmp_path / "made" / "accuracy.csv")["curve"])
    assert split >= {"CS, s0 = 0.02", "CS, s0 = 0", "CS, s0 = -0.1"}
    assert (tmp_path / "made" / "gate.csv").exists()


def test_papermill_shows_what_is_computed_and_for_how_long(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    arguments = ["-p", "recipe", str(tiny_recipe), "-p", "source", "local", "-p", "seeds", "1"]
    arguments += ["-y", "methods: [omp]", "-y", "densities: [0.5]", "-p", "device", "cpu"]
    store = tmp_path / "store"
    code, told = papermill("tickets", tmp_path / "out.ipynb", *arguments, LTHLIB_STORE=str(store))
    assert code == 0, told
    runs = len(list(store.glob("runs/*/run.json")))
    assert re.search(
        rf"tiny: {runs} runs are not in {store}; computing them takes about [\d.]+ s here", told
    )
    assert f"{runs}/{runs} runs" in told  # of the bar, when it is done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "methdos", "imp"], "unknown parameter 'methdos' (did you mean 'methods'?)"),
        (["-p", "length", "8eps"], "'length' is '8eps'; expected epochs such as '85ep'"),
        (["-y", "seeds: many"], "parameter 'seeds' is 'many'; expected int"),
        (["-y", "methods: [imp, magic]"], "parameter 'methods' is 'magic'; expected one of imp, "),
        (["-y", "methods: [imp, imp]"], "expected distinct values, one at least"),
        (
            ["-p", "architecture", "resnet20"],
            "no recipe trains resnet20 on digits; there are: cifar10 with resnet18; cifar10 with",
        ),
        (["-y", "{recipe: cifar10-cs, source: local}"], "by --data (a notebook: -p data)"),
    ],
)
def test_papermill_refuses_what_makes_no_sense(arguments, message: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    code, told = papermill("tickets", tmp_path / "out.ipynb", *arguments, LTHLIB_STORE=str(store))
    assert code == 1
    assert message in told
    assert not store.exists()
