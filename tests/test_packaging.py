"""The files around the library agree with each other, and its parts import only what they may."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A part may import what stands before its own line, and nothing beside it.
LAYERS = {
    "lthlib": [
        ["description", "errors", "flat", "signals", "source", "texts", "_torchvision", "_version"],
        ["bars", "files", "turns", "workers"],
        ["distributed", "leases", "settings"],
        ["data", "devices", "models", "masks", "records"],
        ["modules"],
        ["shrinking"],
        ["export", "training"],
        ["tickets"],
        ["checkpoints"],
        ["methods"],
        ["resuming"],
        ["runs"],
        ["boundary", "recipes"],
        ["api"],
        ["cli"],
        ["__main__"],
    ],
    "companion": [
        ["archive", "cluster", "forecast", "generated", "markdown", "published"],
        ["evidence", "tickets"],
        ["analysis", "studies"],
        ["counting"],
        ["figures"],
        ["bilevel"],
        ["publish"],
        ["cli"],
    ],
}


def test_plugins_that_are_merely_installed_may_warn_but_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "plugin.py").write_text(
        "import pytest, warnings\ndef pytest_configure(config):\n"
        "    warnings.warn('disabled', type('Own', (pytest.PytestWarning,), {}), stacklevel=1)\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import pytest, warnings\ndef test_ours():\n"
        "    with pytest.raises(FutureWarning):\n"
        "        warnings.warn('ours', FutureWarning, stacklevel=1)\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", "-p", "plugin"]
    subprocess.run(
        [*command, "-p", "no:cacheprovider", "-q", tmp_path / "test_it.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, check=True,
    )  # fmt: skip


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required() -> list[str]:
    extras = PROJECT["optional-dependencies"].values()
    return [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pins}


def test_every_requirement_is_pinned() -> None:
    names = [normal(re.split(r"[<>=!~;\[ ]", one)[0]) for one in required()]
    assert len(names) == len(set(names))
    assert not [name for name in names if name not in pinned()]


def test_pins_are_neither_local_nor_of_one_platform() -> None:
    assert not [
        pin for pin in pinned().items() if not re.fullmatch(r"\d+(\.\d+)*(\.?post\d+)?", pin[1])
    ]


def test_pins_install_on_every_python_from_the_first_release_on() -> None:
    installed = {normal(one.metadata["Name"]): one for one in metadata.distributions()}
    for name in pinned().keys() & installed.keys():
        # .get: with the importlib_metadata backport loaded, [] raises where nothing is stated
        supported = SpecifierSet(installed[name].metadata.get("Requires-Python") or "")
        if installed[name].version.split("+")[0] == pinned()[name]:
            assert all(f"3.{minor}.0" in supported for minor in (11, 12, 13, 14)), name


def test_environment_yml_installs_what_pyproject_asks_for() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert f"python{PROJECT['requires-python']}" in conda
    assert pip == {"pip": ["--constraint constraints.txt", "--editable .[book,cluster,parquet]"]}


def test_the_book_and_the_tests_install_what_they_need_and_readers_no_more() -> None:
    extras = {
        target: set(re.findall(r"\.\[([\w,]+)\]", rules()[target][-1])[0].split(","))
        for target in (".venv/.installed", ".venv/.tested")
    }
    assert extras[".venv/.installed"] == {"book", "cluster", "parquet"}
    assert set.union(*extras.values()) == PROJECT["optional-dependencies"].keys()


def test_links_of_the_readme_work_wherever_it_is_shown() -> None:
    here = PROJECT["urls"]["Homepage"]
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text("utf-8"))
    own = [re.fullmatch(rf"{here}/(?:blob|raw)/main/(.+)", link) for link in links]
    assert [link for link in links if not link.startswith("https://")] == []
    assert [match[1] for match in own if match and not (ROOT / match[1]).exists()] == []
    assert len([match for match in own if match]) > 4
    for name, field in {"CITATION.cff": "repository-code", "_config.yml": "repository"}.items():
        told = yaml.safe_load((ROOT / name).read_text("utf-8"))[field]
        assert (told["url"] if isinstance(told, dict) else told) == here


def test_lthlib_computes_without_its_extras(tmp_path: Path) -> None:
    extras = PROJECT["optional-dependencies"].values()
    names = {normal(re.split(r"[<>=!~;\[ ]", one)[0]) for extra in extras for one in extra}
    names -= {"jinja2", "markupsafe", "filelock"}  # torch brings them
    modules = [name.replace("-", "_") for name in names | {"sklearn", "joblib"}]
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys; sys.modules.update(dict.fromkeys({modules}))"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    def lth(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lthlib", *words]
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert (
        "density 0.1000"
        in lth("run", "omp", "--set", "training.length=3it", "--set", "rewind=0it").stdout
    )
    assert "0 faults" in lth("verify").stdout
    refused = lth("record", "digits")
    assert refused.returncode == 2
    assert re.fullmatch(r"lth: .*pandas.*; pip install 'lthlib\[book\]'.*\n", refused.stderr)


def rules() -> dict[str, list[str]]:
    """Makefile target -> its recipe lines."""
    found: dict[str, list[str]] = {}
    target = ""
    for line in (ROOT / "Makefile").read_text().splitlines():
        if line.startswith("\t"):
            found[target].append(line)
        elif match := re.match(r"([.\w/-]+):(?!=)", line):
            target = match[1]
            found.setdefault(target, [])
    return found


def test_makefile_targets_are_thin_and_described() -> None:
    targets = rules()
    assert {"help", "setup", "book", "test", "sweep", "bench", "clean"} <= targets.keys()
    assert all(len(lines) <= 2 for lines in targets.values())
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    public = {name for name in targets if not name.startswith(".")}
    assert set(re.findall(r"make ([\w-]+) ", told.stdout)) == public


def test_make_setup_says_when_there_is_no_python(tmp_path: Path) -> None:
    for tool in ("make", "sh"):
        tool_path = subprocess.run(["which", tool], capture_output=True, text=True, check=True)
        (tmp_path / tool).symlink_to(tool_path.stdout.strip())
    command = [str(tmp_path / "make"), "--always-make", "--dry-run", "setup"]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no usable Python 3.11 or newer with venv" in done.stderr


def test_ci_runs_the_test_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"
    assert "make test" in (ROOT / "README.md").read_text()
    assert "make book" in (ROOT / "README.md").read_text()


def test_citation_names_this_version_and_both_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    titles = [one["title"] for one in citation["references"]]
    assert any("Bi-level" in title for title in titles)
    assert any("Continuous Sparsification" in title for title in titles)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "README.md",
            "CONTRIBUTING.md",
            "LICENSE",
            "CITATION.cff",
            "_config.yml",
            "book/_toc.yml",
        ),
        *("notebooks", "results", "lthlib", "companion", "tests", "benchmarks"),
    ],
)
def test_the_top_level_holds(name: str) -> None:
    assert (ROOT / name).exists()


def test_package_data_exists() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]
    for package, patterns in data.items():
        folder = ROOT.joinpath(*package.split("."))
        assert all(list(folder.glob(pattern)) for pattern in patterns), package


def test_the_configuration_of_the_book() -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["execute"]["execute_notebooks"] == "off"
    assert config["sphinx"]["recursive_update"] is True


def parts(package: str) -> list[str]:
    found = {
        path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        for path in (ROOT / package).rglob("*.py")
    }
    return sorted(found - {"__init__"})


def executed(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from executed(child)


def imports(package: str, part: str = "") -> set[str]:
    """What a package or a part of it imports, anywhere in its code but for the names of types."""
    folder = ROOT / package / part
    files = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    names: set[str] = set()
    for node in (node for file in files for node in executed(ast.parse(file.read_bytes()))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(package: str, part: str) -> set[str]:
    split = [name.split(".") for name in imports(package, part)]
    return {one[1] for one in split if one[0] == package and len(one) > 1} & {*parts(package)}


@pytest.mark.parametrize(
    ("package", "part"), [(package, part) for package in LAYERS for part in parts(package)]
)
def test_arrows_run_one_way(package: str, part: str) -> None:
    below: set[str] = set()
    for layer in LAYERS[package]:
        if part in layer:
            break
        below |= set(layer)
    else:
        pytest.fail(f"{package}.{part} has no place: give it one in LAYERS")
    assert parts_imported(package, part) - {part} <= below


def test_lthlib_never_imports_the_companion() -> None:
    assert "torch" in imports("lthlib")
    assert [name for name in imports("lthlib") if name.split(".")[0] == "companion"] == []


def test_pruning_neither_needs_nor_loads_what_the_book_is_made_with() -> None:
    extras = PROJECT["optional-dependencies"]
    names = [normal(re.split(r"[<>=!~;\[ ]", one)[0]).replace("-", "_") for one in extras["book"]]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({['pandas', 'companion', *names]}))\n"
        "import lthlib.api, lthlib.runs, lthlib.recipes, lthlib.cli.computing, lthlib.cli.keeping"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_lowest_parts_know_nobody_beside_them() -> None:
    for part in ("data", "models", "masks"):
        assert not (parts_imported("lthlib", part) - {part}) & {"data", "models", "masks"}


@pytest.mark.parametrize(
    "module",
    [
        "lthlib",
        "lthlib.records",
        "lthlib.runs.store",
        "companion.evidence",
        "companion.figures",
        "companion.publish",
    ],
)
def test_no_torch_is_imported_by(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_either_half_of_the_command_may_be_imported_first() -> None:
    for first in ("companion.cli", "lthlib.cli.command"):
        code = f"import {first}; from lthlib.cli.command import app; assert app.registered_commands"
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
