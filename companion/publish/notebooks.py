"""Check a parameterised notebook without running it; run it, completely or not at all."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess
from types import GenericAlias, UnionType
from typing import Any, get_args, get_origin

import yaml

from companion.publish.parameters import decoded, nearest
from lthlib.errors import PublishError
from lthlib.files import from_json, load

_KINDS: dict[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "list": list,
    "tuple": tuple,
    "dict": dict,
    "None": None,
}
_LIMIT = 1 << 26
_QUIET = ["--log-level=40"]  # errors: it warns of TCP without encryption, on this one machine


@dataclass(frozen=True)
class Parameter:
    """One assignment of the cell tagged `parameters`: default value, and the type it may have."""

    default: Any
    kind: Any


def check_notebook(path: Path) -> dict[str, Parameter]:
    """Check a notebook's source and return its parameters.

    Its code is plain Python; its first code cell, alone, is tagged `parameters` and holds literals;
    later cells read each parameter, by name or as attribute of what `declare` or `declare_study`
    returned, or hand them on together; outputs are stripped.

    Raises:
        PublishError: naming the notebook, the code cell and what is wrong with it.
    """
    cells = _code_cells(read_notebook(path))
    for position, cell in enumerate(cells, 1):
        if cell.get("outputs") or cell.get("execution_count"):
            raise PublishError(f"{path}, code cell {position}: holds outputs; strip them")
    tagged = [n for n, cell in enumerate(cells, 1) if "parameters" in _tags(cell)]
    if tagged != [1]:
        raise PublishError(
            f"{path}: the first code cell, and no other, must be tagged 'parameters'; "
            f"tagged are: {tagged or 'none'}"
        )
    trees = [_parsed(path, position, _source(cell)) for position, cell in enumerate(cells, 1)]
    parameters = dict(_assigned(path, statement) for statement in trees[0].body)
    read = _names_read(trees[1:], parameters.keys())
    if unread := sorted(parameters.keys() - read):
        raise PublishError(f"{path}: no cell reads parameter {unread[0]!r}: use it or remove it")
    return parameters


def check_parameters(path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters, JSON lists decoded, each known to the notebook and of its type.

    Raises:
        PublishError: an unknown name or another type; the message lists what the notebook takes.
    """
    parameters = check_notebook(path)
    takes = "; ".join(f"{name}: {_kind_name(known.kind)}" for name, known in parameters.items())
    checked = {}
    for name, value in given.items():
        if name not in parameters:
            raise PublishError(
                f"{path}: unknown parameter {name!r}{nearest(name, parameters)}; it takes: {takes}"
            )
        checked[name] = _decoded(value, parameters[name].kind)
        if not fits(checked[name], parameters[name].kind):
            expected = _kind_name(parameters[name].kind)
            raise PublishError(f"{path}: parameter {name!r} is {value!r}; expected {expected}")
    return checked


def run_notebook(
    path: Path,
    output: Path,
    parameters: Mapping[str, Any],
    cwd: Path,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a notebook in a fresh kernel of this interpreter; `output` is complete or not there.

    Args:
        path: the notebook.
        output: the executed notebook; a good one from before stays when this run fails.
        parameters: values for some of its parameters, as `check_parameters` returned them; it is
            not called here, since parsing Python is not safe in several threads on 3.11.
        cwd: the folder the notebook works in.
        environment: variables set for the notebook on top of this process's.

    Raises:
        PublishError: naming the notebook, the code cell and the error that stopped it.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}-") as folder:
        unfinished = Path(folder, output.name)
        command = [sys.executable, "-m", "papermill", str(path), str(unfinished)]
        # YAML, not JSON: YAML 1.1 reads JSON's 1e-05 as text.
        command += ["--kernel", "python3", "--cwd", str(cwd), "--parameters_yaml"]
        command += [yaml.safe_dump(dict(parameters)), "--no-progress-bar", "--log-level", "ERROR"]
        variables = {**os.environ, **_kernel_environment(Path(folder)), **(environment or {})}
        done = subprocess.run(
            command, env=variables, stdout=PIPE, stderr=STDOUT, text=True, check=False
        )
        _require_complete(path, unfinished, done)
        os.replace(unfinished, output)


def read_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook's JSON.

    Raises:
        PublishError: the file is missing or no notebook of format 4.
    """
    notebook = load(path, from_json, "notebook", PublishError, _LIMIT)
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4:
        raise PublishError(f"{path}: expected a notebook of format 4")
    cells = notebook.get("cells")
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise PublishError(f"{path}: its cells are not those of a notebook of format 4")
    return notebook


def _is_cell(cell: Any) -> bool:
    texts = list[str]
    return (
        isinstance(cell, dict)
        and isinstance(cell.get("cell_type"), str)
        and fits(cell.get("source"), str | texts)
        and fits(cell.get("metadata", {}), dict)
        and fits(cell.get("metadata", {}).get("tags", []), texts)
    )


def fits(value: Any, kind: Any) -> bool:
    """Return whether a value has a type such as `list[str]` or `float | None`; a bool is no int."""
    if isinstance(kind, UnionType):
        return any(fits(value, one) for one in get_args(kind))
    if kind is None or kind is type(None):
        return value is None
    if get_origin(kind) is not None:
        return isinstance(value, get_origin(kind)) and all(
            fits(item, get_args(kind)[0]) for item in value
        )
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _code_cells(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _tags(cell: Mapping[str, Any]) -> list[str]:
    return list(cell.get("metadata", {}).get("tags", []))


def _source(cell: Mapping[str, Any]) -> str:
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def _parsed(path: Path, position: int, source: str) -> ast.Module:
    try:
        return ast.parse(source)
    # ValueError for a null character, the others for what is nested too deep.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise PublishError(
            f"{path}, code cell {position}{line}: not plain Python: {error}"
        ) from error


def _assigned(path: Path, statement: ast.stmt) -> tuple[str, Parameter]:
    where = f"{path}, parameters cell, line {statement.lineno}"
    annotation: ast.expr | None = None
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            pass
        case ast.AnnAssign(
            target=ast.Name(id=name), annotation=annotation, value=ast.expr() as value
        ):
            pass
        case _:
            raise PublishError(f"{where}: expected `name = literal`, one name a line, nothing else")
    try:
        default = ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise PublishError(f"{where}: {name!r} is not given a literal value") from error
    kind = _kind_of(default) if annotation is None else _annotated(where, annotation)
    if kind is None:
        raise PublishError(f"{where}: {name!r} is None, so it needs an annotation: `int | None`")
    if not fits(default, kind):
        raise PublishError(f"{where}: {name!r} is {default!r}, not {_kind_name(kind)}")
    return name, Parameter(default, kind)


def _kind_of(default: Any) -> Any:
    if default is None:
        return None
    kinds = {type(item) for item in default} if isinstance(default, list) else set()
    return GenericAlias(list, (kinds.pop(),)) if len(kinds) == 1 else type(default)


def _annotated(where: str, node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name) and node.id in _KINDS:
        return _KINDS[node.id]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _annotated(where, node.left) | _annotated(where, node.right)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "list":
        return GenericAlias(list, (_annotated(where, node.slice),))
    raise PublishError(f"{where}: cannot read the annotation {ast.unparse(node)!r}")


def _kind_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)


def _decoded(value: Any, kind: Any) -> Any:
    if isinstance(value, str) and not fits(value, kind) and fits([], kind):
        try:
            return decoded(value)
        except ValueError:
            return value
    return list(value) if isinstance(value, tuple) and fits([], kind) else value


def _names_read(trees: list[ast.Module], known: Collection[str]) -> set[str]:
    nodes = [node for tree in trees for node in ast.walk(tree)]
    namespaces = set(_results_of_declare(nodes))
    read: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) != "papermill_command":
            whole = {one.id for one in node.args if isinstance(one, ast.Name)} & namespaces
            read |= set(known) if whole else set()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            read.add(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read |= {node.attr} if node.value.id in namespaces else set()
    return read


def _results_of_declare(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            function = node.value.func
            if isinstance(function, ast.Name) and function.id in ("declare", "declare_study"):
                yield from (one.id for one in node.targets if isinstance(one, ast.Name))


def _kernel_environment(folder: Path) -> dict[str, str]:
    """A `python3` kernel found before any other, and the lthlib of this process inside it."""
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", *_QUIET, "-f", "{connection_file}"],
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
    }
    kernel = folder / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    kernel.write_text(json.dumps(spec), encoding="utf-8")
    package = str(Path(__file__).parents[2])
    return {
        "JUPYTER_PATH": os.pathsep.join(filter(None, [str(folder), os.getenv("JUPYTER_PATH")])),
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.getenv("PYTHONPATH")])),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def _require_complete(path: Path, executed: Path, done: CompletedProcess[str]) -> None:
    if not executed.exists():
        raise PublishError(
            f"{path}: papermill stopped with exit status {done.returncode} before any cell ran\n"
            f"{done.stdout}"
        )
    notebook = read_notebook(executed)
    state = notebook["metadata"].get("papermill", {})
    ran = [
        cell["metadata"]["papermill"].get("exception") is False for cell in _code_cells(notebook)
    ]
    if done.returncode == 0 and state.get("end_time") and not state.get("exception") and all(ran):
        return
    raise PublishError(f"{path}{_failure(notebook)}")


def _failure(notebook: Mapping[str, Any]) -> str:
    cells = [cell for cell in _code_cells(notebook) if "injected-parameters" not in _tags(cell)]
    for position, cell in enumerate(cells, 1):
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                return f", code cell {position}: {output['ename']}: {output['evalue']}"
    return ": was interrupted before its last cell"
