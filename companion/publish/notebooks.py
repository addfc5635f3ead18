"""Read a parameterised notebook; run it, completely or not at all."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import PIPE
from typing import Any

import yaml
from nbformat.validator import get_validator

from lthlib.errors import PublishError, shown
from lthlib.files import from_json, load

_LIMIT = 1 << 26


def run_notebook(
    path: Path,
    output: Path,
    parameters: Mapping[str, Any],
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    *,
    progress: bool = False,
) -> None:
    """Run a notebook in a fresh kernel of this interpreter; `output` is complete or not there.

    Args:
        path: the notebook.
        output: the executed notebook; a good one from before stays when this run fails.
        parameters: values for some of its parameters, by names that it has.
        cwd: the folder the notebook works in.
        environment: variables set for the notebook on top of this process's.
        progress: show what it writes to standard error while it runs.

    Raises:
        PublishError: naming the notebook, the code cell and the error that stopped it.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    package = str(Path(__file__).parents[2])
    variables = {
        **os.environ,
        # The kernel of this interpreter, whatever its user has beside it, with this lthlib.
        "JUPYTER_PREFER_ENV_PATH": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.getenv("PYTHONPATH")])),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONUTF8": "1",
        "LTHLIB_UNSEEN": "" if progress else "1",
        "PYTHONWARNINGS": "ignore:IProgress",  # tqdm's, who would rather draw a widget
        **(environment or {}),
    }
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-") as folder:
        unfinished = Path(folder, output.name)
        command = [sys.executable, "-m", "papermill", str(path), str(unfinished)]
        # YAML, not JSON: YAML 1.1 reads JSON's 1e-05 as text.
        command += ["--kernel", "python3", "--cwd", str(cwd), "--parameters_yaml"]
        command += [yaml.safe_dump(dict(parameters)), "--no-progress-bar", "--log-level", "ERROR"]
        done = subprocess.run(
            [*command, "--stderr-file", "-"] if progress else command,  # to papermill's stdout
            env=variables,
            encoding="utf-8",
            errors="replace",
            stdout=2 if progress else PIPE,
            stderr=PIPE,
            check=False,
        )
        if done.returncode:
            raise PublishError(f"{path}{_failure(unfinished, done.stderr)}")
        os.replace(unfinished, output)


def read_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook's JSON.

    Raises:
        PublishError: the file is missing or no notebook of format 4.5.
    """
    notebook = load(path, from_json, "notebook", PublishError, _LIMIT)
    for error in get_validator(4, 5).iter_errors(notebook):
        raise PublishError(f"{path}: is no notebook of format 4.5: {shown(error.message)}")
    return dict(notebook)


def code_cells(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a notebook's cells of code."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags(cell: Mapping[str, Any]) -> list[str]:
    """Return a cell's tags."""
    return list(cell["metadata"].get("tags", []))


def source(cell: Mapping[str, Any]) -> str:
    """Return the text of a cell."""
    return "".join(cell["source"])


def _failure(executed: Path, printed: str) -> str:
    if not executed.exists():
        return f": papermill stopped before any cell ran\n{printed}"
    cells = code_cells(read_notebook(executed))
    written = [cell for cell in cells if "injected-parameters" not in tags(cell)]
    for position, cell in enumerate(written, 1):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f", code cell {position}: {output['ename']}: {output['evalue']}"
    return ": was interrupted before its last cell"
