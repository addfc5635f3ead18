"""When a notebook must run again: its source, parameters, inputs or part of lthlib changed."""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from companion.publish.notebooks import read_notebook
from lthlib.source import digest_of, imported

_SHAPING = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "statsmodels", "torch")
_DATA = {".csv", ".yaml", ".json", ".mplstyle"}


def key(
    notebook: Path,
    parameters: Mapping[str, Any],
    packages: Sequence[Path],
    inputs: Mapping[str, str],
) -> dict[str, str]:
    """Return what a notebook's result depends on, a digest a part: it is fresh while all are equal.

    Args:
        notebook: its source.
        parameters: the values given to it.
        packages: folders side by side, lthlib's and the companion's; only modules that the
            notebook imports, directly or not, count.
        inputs: name -> digest of what it reads: results files, records of the local store.
    """
    source = read_notebook(notebook)
    cells = source["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return {
        "notebook": digest(json.dumps(cells, sort_keys=True)),
        "parameters": digest(json.dumps(parameters, sort_keys=True)),
        "lthlib": fingerprint(packages[0].parent, imported(packages, ast.parse(code))),
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


def fingerprint(root: Path, modules: Iterable[Path]) -> str:
    """Return a digest of modules, without comments and docstrings, and of the data beside them."""
    files = sorted(modules)
    beside = {
        str(data.relative_to(root)): digest(data.read_bytes())
        for folder in sorted({module.parent for module in files})
        for data in sorted(folder.iterdir())
        if data.suffix in _DATA
    }
    return digest(json.dumps([digest_of(files, root), beside]))


def _versions() -> dict[str, str]:
    versions = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for name in _SHAPING:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
