"""The local store: one directory a run, each complete, resumable or absent.

STORE/runs/ID/run.json    written last: the run is complete. Records, history, checksums of the
                          other files
              tickets/POINT.safetensors, rewind.safetensors
              checkpoint.safetensors, judged/POINT.json, progress.json
                          only while the run is unfinished
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from lthlib.errors import StoreError, TicketError
from lthlib.files import write_atomically
from lthlib.runs.config import RunConfig
from lthlib.tickets import Ticket

SCHEMA = 1
_SHARED = (
    "data",
    "models",
    "masks.py",
    "training.py",
    "tickets.py",
    "checkpoints.py",
    "runs",
    "methods/base.py",
)


@dataclass(frozen=True)
class RunResult:
    """A complete run: its configuration, its records (one per judged ticket, without study), and
    its history."""

    config: RunConfig
    records: list[dict[str, Any]]
    history: list[dict[str, float]]
    failure: str | None


class Store:
    """Runs on disk, by the id of their configuration."""

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root or os.environ.get("LTHLIB_STORE") or "store")

    def folder(self, config: RunConfig) -> Path:
        """Where a run lives."""
        return self.root / "runs" / config.id

    def prepare(self) -> None:
        """Make the store's folder. Raises StoreError when it cannot be written."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            write_atomically(self.root / ".writable", b"")
        except OSError as error:
            raise StoreError(
                f"cannot write the run store {self.root} ({error.strerror}); "
                "name another with --store or LTHLIB_STORE"
            ) from None

    def lock(self, config: RunConfig) -> FileLock:
        """The lock that makes each run be computed once; released by the system when its holder
        dies."""
        return FileLock(self.root / "runs" / f"{config.id}.lock")

    def load(self, config: RunConfig) -> RunResult | None:
        """A complete run computed by the present source, or None."""
        stored = self._read(self.folder(config) / "run.json")
        if stored is None or stored["source"] != source(config):
            return None
        if config.parent is not None and self.load(config.parent.config) is None:
            return None
        return _result(stored)

    def load_all(self) -> Iterator[RunResult]:
        """Every complete run, whatever source computed it."""
        for path in sorted(self.root.glob("runs/*/run.json")):
            stored = self._read(path)
            if stored is not None:
                yield _result(stored)

    def find(self, prefix: str) -> RunResult:
        """The complete run whose id begins so. Raises StoreError for none or several."""
        found = [path.parent.name for path in self.root.glob(f"runs/{prefix}*/run.json")]
        if len(found) != 1:
            several = f"{len(found)} runs' ids begin" if found else "no complete run's id begins"
            raise StoreError(f"{several} with {prefix!r} in {self.root}; `lth list` shows them")
        stored = self._read(self.root / "runs" / found[0] / "run.json")
        if stored is None:
            raise StoreError(f"run {found[0]} was damaged and set aside; run it again")
        return _result(stored)

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            stored = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            self.set_aside(path.parent, "run.json is not JSON")
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from None
        if (
            not isinstance(stored, dict)
            or stored.get("schema") != SCHEMA
            or stored.get("digest") != _digest(stored)
        ):
            self.set_aside(path.parent, "run.json is damaged or of another version")
            return None
        return dict(stored)

    def ticket(self, config: RunConfig, point: str) -> Ticket:
        """A ticket of a complete run. Its rewind point, kept once by the run that trained it, is
        attached. Raises StoreError when the run lacks that ticket."""
        folder = self.folder(config)
        stored = self._read(folder / "run.json")
        path = folder / "tickets" / f"{point}.safetensors"
        if stored is None or not path.exists():
            points = sorted(p.stem for p in folder.glob("tickets/*.safetensors"))
            raise StoreError(
                f"run {config.id} has no ticket {point!r}; it has {', '.join(points) or 'none'}"
            )
        ticket = self._checked(folder, f"tickets/{point}.safetensors", stored)
        if ticket.rewind is None and (folder / "rewind.safetensors").exists():
            ticket.rewind = self._checked(folder, "rewind.safetensors", stored).rewind
        if ticket.rewind is None and config.parent is not None:
            ancestor = self.ticket(config.parent.config, config.parent.point)
            ticket.rewind, ticket.rewind_step = ancestor.rewind, ancestor.rewind_step
        return ticket

    def _checked(self, folder: Path, name: str, stored: dict[str, Any]) -> Ticket:
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != stored["files"].get(name):
            self.set_aside(folder, f"{name} does not match its checksum")
            raise StoreError(
                f"{folder / name} does not match its checksum; the run was set aside, run it again"
            )
        return Ticket.from_bytes(content)

    def set_aside(self, folder: Path, why: str) -> None:
        """Move a damaged run out of the way, keeping it for inspection."""
        for number in range(1000):
            target = self.root / "damaged" / f"{folder.name}.{number}"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    os.replace(folder, target)
                    write_atomically(target / "why.txt", why.encode())
                return

    def discard(self, config: RunConfig) -> None:
        """Remove a run's directory: its results are stale."""
        shutil.rmtree(self.folder(config), ignore_errors=True)

    def save_ticket(self, config: RunConfig, ticket: Ticket) -> bytes:
        """Write a ticket of a run that is under way; its rewind point is stored once for all
        tickets of the run."""
        folder = self.folder(config)
        rewind, ticket.rewind = ticket.rewind, None
        content = ticket.to_bytes()
        write_atomically(folder / "tickets" / f"{ticket.point}.safetensors", content)
        ticket.rewind = rewind
        if rewind is not None and not (folder / "rewind.safetensors").exists():
            write_atomically(
                folder / "rewind.safetensors", Ticket(ticket.mask, rewind=rewind).to_bytes()
            )
        return content

    def finish(self, config: RunConfig, **parts: Any) -> RunResult:
        """Make a run complete: checksums, then run.json, then its checkpoint goes."""
        folder = self.folder(config)
        files = sorted([*folder.glob("tickets/*.safetensors"), *folder.glob("rewind.safetensors")])
        stored = {
            "schema": SCHEMA,
            "id": config.id,
            "config": config.to_json(),
            "source": source(config),
            "files": {
                str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
                for p in files
            },
            **parts,
        }
        stored["digest"] = _digest(stored)
        write_atomically(folder / "run.json", json.dumps(stored, indent=1).encode())
        for name in ("checkpoint.safetensors", "progress.json"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "judged", ignore_errors=True)
        return _result(stored)

    def verify(self) -> Iterator[tuple[str, str]]:
        """Check all that is stored; yields (run id, what is wrong) for each fault, and sets nothing
        aside."""
        for folder in sorted(p for p in self.root.glob("runs/*") if p.is_dir()):
            path = folder / "run.json"
            if not path.exists():
                continue
            try:
                stored = json.loads(path.read_bytes())
                if stored["digest"] != _digest(stored):
                    yield folder.name, "run.json does not match its digest"
                if RunConfig.from_json(stored["config"]).id != folder.name:
                    yield folder.name, "the configuration inside belongs to another id"
                for name, expected in stored["files"].items():
                    content = (folder / name).read_bytes()
                    if hashlib.sha256(content).hexdigest() != expected:
                        yield folder.name, f"{name} does not match its checksum"
                    else:
                        Ticket.from_bytes(content)
            except (ValueError, KeyError, TypeError, OSError, TicketError) as error:
                yield folder.name, f"unreadable ({type(error).__name__}: {error})"


def _result(stored: dict[str, Any]) -> RunResult:
    config = RunConfig.from_json(stored["config"])
    return RunResult(config, stored["records"], stored["history"], stored["failure"])


def _digest(stored: dict[str, Any]) -> str:
    rest = {key: value for key, value in stored.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def source(config: RunConfig) -> str:
    """Fingerprints of a run's method and of those of its ancestors: a child is stale when its
    parent is."""
    own = fingerprint(config.method)
    return f"{own}-{source(config.parent.config)}" if config.parent else own


@cache
def fingerprint(method: str) -> str:
    """Hash of the source a run of `method` depends on, comments and docstrings left out."""
    package = Path(__file__).parents[1]
    files: list[Path] = []
    for name in (*_SHARED, *_method_files(package, method)):
        path = package / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(_code(path).encode())
    return digest.hexdigest()[:16]


def _method_files(package: Path, method: str) -> list[str]:
    """The method's own file and those of the methods it imports."""
    found: list[str] = []
    waiting = [method]
    while waiting:
        name = f"methods/{waiting.pop()}.py"
        if name in found or not (package / name).exists():
            continue
        found.append(name)
        for node in ast.walk(ast.parse((package / name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "lthlib.methods."
            ):
                waiting.append((node.module or "").rpartition(".")[2])
    return sorted(found)


def _code(path: Path) -> str:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value = ast.Constant("")
    return ast.dump(tree)
