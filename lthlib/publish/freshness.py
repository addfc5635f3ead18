"""When a notebook must run again: its source, parameters, inputs or part of lthlib changed."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lthlib.publish.notebooks import read_notebook

_SHAPING = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "statsmodels", "torch")
_DATA = {".csv", ".yaml", ".json", ".mplstyle"}


def key(
    notebook: Path, parameters: Mapping[str, Any], package: Path, inputs: Mapping[str, str]
) -> dict[str, str]:
    """Return what a notebook's result depends on, a digest a part: it is fresh while all are equal.

    Args:
        notebook: its source.
        parameters: the values given to it.
        package: the folder of lthlib; only modules the notebook imports, directly or not, count.
        inputs: name -> digest of what it reads: results files, records of the local store.
    """
    source = read_notebook(notebook)
    cells = source["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return {
        "notebook": digest(json.dumps(cells, sort_keys=True)),
        "parameters": digest(json.dumps(parameters, sort_keys=True)),
        "lthlib": fingerprint(package, imported(package, ast.parse(code))),
        "installed packages": digest(json.dumps(_versions())),
        "inputs": digest(json.dumps(dict(inputs), sort_keys=True)),
    }


def digest(content: str | bytes) -> str:
    """Return the SHA-256 of text or bytes, in hexadecimal."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return file name -> digest: the usual `inputs` of a notebook that reads results."""
    return {path.name: digest(path.read_bytes()) for path in sorted(paths)}


def fingerprint(package: Path, modules: Iterable[Path]) -> str:
    """Return a digest of modules, without comments and docstrings, and of the data beside them."""
    parts = {}
    for module in modules:
        parts[str(module.relative_to(package))] = _code_digest(module.read_bytes())
        for data in module.parent.iterdir():
            if data.suffix in _DATA:
                parts[str(data.relative_to(package))] = digest(data.read_bytes())
    return digest(json.dumps(parts, sort_keys=True))


def imported(package: Path, tree: ast.AST) -> set[Path]:
    """Return the modules of a package that some code imports, directly or not.

    A name taken from the package itself may come from any module (names load lazily): all count.
    """
    found: set[Path] = set()
    waiting = list(_imports(package, tree, package))
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imports(package, _parsed(module.read_bytes()), module.parent)
    return found


def _imports(package: Path, tree: ast.AST, here: Path) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(package, alias.name.split("."), None)
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                folder = here.parents[node.level - 2] if node.level > 1 else here
                base = [package.name, *folder.relative_to(package).parts, *base]
            for alias in node.names:
                yield from _modules(package, base, alias.name)


def _modules(package: Path, parts: list[str], name: str | None) -> Iterator[Path]:
    if not parts or parts[0] != package.name:
        return
    target = package.joinpath(*parts[1:])
    submodule = None if name is None else _file(target / name)
    if target == package and submodule is None:
        yield from package.rglob("*.py")
        return
    while target != package:
        if module := _file(target):
            yield module
        target = target.parent
    if submodule is not None:
        yield submodule


def _file(target: Path) -> Path | None:
    for candidate in (target / "__init__.py", target.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


# The notebooks of a book import much the same modules.
@lru_cache(maxsize=1024)
def _parsed(source: bytes) -> ast.Module:
    return ast.parse(source)


@lru_cache(maxsize=1024)
def _code_digest(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            del body[0]
    return digest(ast.dump(tree))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(
        getattr(statement.value, "value", None), str
    )


def _versions() -> dict[str, str]:
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in _SHAPING:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
