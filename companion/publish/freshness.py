"""When a notebook must run again: its source, parameters, inputs or part of lthlib changed."""

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

_SHAPING = ("matplotlib", "numpy", "pandas", "scipy", "seaborn", "torch")
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

    Returns:
        Part -> its digest, in hexadecimal.
    """
    cells = read_notebook(notebook)["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "notebook": digest(cells),
        "parameters": digest(dict(parameters)),
        "lthlib": fingerprint(packages[0].parent, imported(packages, ast.parse(code))),
        "installed packages": digest([python, *map(metadata.version, _SHAPING)]),
        "inputs": digest(dict(inputs)),
    }


def digest(content: Any) -> str:
    """Return the SHA-256 of bytes, or of a JSON value, in hexadecimal."""
    data = content if isinstance(content, bytes) else json.dumps(content, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return file name -> digest: the usual `inputs` of a notebook that reads results."""
    return {path.name: digest(path.read_bytes()) for path in sorted(paths)}


def fingerprint(root: Path, modules: Iterable[Path]) -> str:
    """Return a digest of modules, without comments and docstrings, and of the data beside them.

    Args:
        root: the folder that their names begin at.
        modules: their files.
    """
    files = sorted(modules)
    beside = {
        data.relative_to(root).as_posix(): digest(data.read_bytes())
        for folder in sorted({module.parent for module in files})
        for data in sorted(folder.iterdir())
        if data.suffix in _DATA
    }
    return digest([digest_of(files, root), beside])
