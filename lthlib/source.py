"""Which source a result depends on, by following imports, and the fingerprint of it."""

import ast
import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).parent
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Where a run's files go, when it stops, how records are read and which methods there are changes
# nothing that is computed.
_PASSED_OVER = frozenset(
    _PACKAGE / name
    for name in (
        *("errors.py", "files.py", "leases.py", "records.py", "signals.py", "source.py"),
        *("texts.py", "workers.py", "methods/__init__.py", "runs/__init__.py", "runs/store.py"),
    )
)


@cache
def fingerprint(method: str) -> str:
    """Hash of the source that a run of a method depends on, comments and docstrings left out.

    Args:
        method: its name.

    Returns:
        16 hexadecimal digits.
    """
    return digest_of(source_files(method), _PACKAGE)[:16]


def source_files(method: str) -> list[Path]:
    """The files a run of `method` depends on: what its module and the execution of runs import."""
    candidates = (_module_file(_PACKAGE / name) for name in ("runs/execution", f"methods/{method}"))
    starts = {path for path in candidates if path is not None}
    imports = (imported([_PACKAGE], parsed(path.read_bytes()), _PASSED_OVER) for path in starts)
    return sorted(starts.union(*imports))


def digest_of(files: Iterable[Path], folder: Path) -> str:
    """SHA-256 of Python files and their paths below `folder`, without comments and docstrings."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(_code(path.read_bytes()).encode())
    return digest.hexdigest()


def imported(
    packages: Sequence[Path], tree: ast.AST, passed_over: Collection[Path] = ()
) -> set[Path]:
    """The modules of some packages that code imports, directly or not.

    A name taken from a package itself may come from any module of it (names load lazily): all
    count.

    Args:
        packages: folders of the packages, whose modules import each other by their whole names.
        tree: the code.
        passed_over: modules that do not count, nor what they import.

    Returns:
        Paths of the modules.
    """
    modules: set[Path] = set()
    waiting = [tree]
    while waiting:
        for module in _imports(packages, waiting.pop()):
            if module not in modules and module not in passed_over:
                modules.add(module)
                waiting.append(parsed(module.read_bytes()))
    return modules


def _imports(packages: Sequence[Path], tree: ast.AST) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(packages, alias.name.split("."), None)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield from _modules(packages, node.module.split("."), alias.name)


def _modules(packages: Sequence[Path], steps: list[str], name: str | None) -> Iterator[Path]:
    package = next((folder for folder in packages if folder.name == steps[0]), None)
    if package is None:
        return
    target = package.joinpath(*steps[1:])
    submodule = None if name is None else _module_file(target / name)
    if target == package and submodule is None:
        yield from package.rglob("*.py")
        return
    while target != package:
        if module := _module_file(target):
            yield module
        target = target.parent
    if submodule is not None:
        yield submodule


def _module_file(target: Path) -> Path | None:
    for candidate in (target / "__init__.py", target.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@lru_cache(maxsize=1024)
def parsed(source: bytes) -> ast.Module:
    """The syntax tree of a module, read once: many imports lead to the same ones."""
    return ast.parse(source)


@lru_cache(maxsize=1024)
def _code(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return repr(_plain(tree))


def _plain(node: Any) -> Any:
    # As ast.dump, whose text differs between versions of Python by fields that are empty.
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    return type(node).__name__, {name: _plain(value) for name, value in fields.items()}
