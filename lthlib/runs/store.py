"""The local store: one directory a run, each complete, resumable or absent.

STORE/runs/ID/run.json    written last: the run is complete. Records, history, checksums of the
                          other files
              tickets/POINT.safetensors, rewind.safetensors
              judged/POINT.json, progress.json
                          only while the run is unfinished
              checkpoint.safetensors
                          while the run is unfinished, and the last good one of a run that failed
      locks/ID/           while somebody computes the run
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lthlib.errors import RunDamaged, StoreError
from lthlib.files import write_atomically
from lthlib.leases import Lease, Watch, abandoned, hold
from lthlib.runs.config import RunConfig
from lthlib.source import fingerprint
from lthlib.tickets import Ticket

SCHEMA = 1
log = logging.getLogger("lthlib")


@dataclass(frozen=True)
class RunResult:
    """A complete run: its configuration as plain values, its records (one per judged ticket,
    without study), its history, and which archive it was imported from, if it was not computed
    here."""

    values: dict[str, Any]
    records: list[dict[str, Any]]
    history: list[dict[str, float]]
    failure: str | None
    imported: dict[str, Any] | None = None

    @cached_property  # of the 10,000 runs of a store, few are asked
    def config(self) -> RunConfig:
        """The run's configuration."""
        return RunConfig.from_json(self.values)


class Store:
    """Runs on disk, by the id of their configuration."""

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root or os.environ.get("LTHLIB_STORE") or "store")

    def folder(self, config: RunConfig) -> Path:
        """Where a run lives."""
        return self.root / "runs" / config.id

    def prepare(self) -> None:
        """Make the store's folder, and clear up after processes of this host that were killed.
        Raises StoreError when it cannot be written."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
            (self.root / ".writable").write_bytes(b"")
        except OSError as error:
            raise StoreError(
                f"cannot write the run store {self.root} ({error.strerror}); "
                "name another with --store or LTHLIB_STORE"
            ) from None
        for run_id in abandoned(self.root / "locks"):
            with self._lock(run_id):
                pass

    def lock(
        self, config: RunConfig, stop: Callable[[], bool] = lambda: False
    ) -> contextlib.AbstractContextManager[Lease]:
        """Wait for the right to write a run and keep it while the body runs; see `leases.hold`."""
        return self._lock(config.id, stop)

    def watch(self, config: RunConfig) -> Watch:
        """Whether another process computes a run; see `leases.Watch`."""
        return Watch(self.root / "locks" / config.id)

    @contextlib.contextmanager
    def _lock(self, run_id: str, stop: Callable[[], bool] = lambda: False) -> Iterator[Lease]:
        folder = self.root / "runs" / run_id
        with hold(self.root / "locks" / run_id, stop) as lease:
            # What a killed owner was writing. Also a fence: an owner that was taken over between
            # its last check and its rename finds nothing left to rename.
            for left in folder.rglob(".*"):
                left.unlink(missing_ok=True)
            stored = self._read(folder / "run.json")
            if stored is not None:
                _tidy(folder, stored)
            yield lease

    def write(self, path: Path, content: bytes, lease: Lease) -> None:
        """Write a file of a run atomically, as the run's owner. Raises LeaseLost for one that is
        not, StoreError when the file cannot be written."""
        try:
            write_atomically(path, content, lease.check)
        except OSError as error:
            lease.check()
            raise StoreError(
                f"cannot write {path} ({error.strerror}); what was stored before is kept: make "
                "room or give permission, and the same command goes on from there"
            ) from None

    def load(self, config: RunConfig) -> RunResult | None:
        """A complete run computed by the present source, or None."""
        stored = self._read(self.folder(config) / "run.json")
        if stored is None or stored["source"] != source(config):
            return None
        if config.parent is not None and self.load(config.parent.config) is None:
            return None
        return _result(stored)

    def load_all(self) -> list[RunResult]:
        """Every complete run, whatever source computed it."""
        collecting = gc.isenabled()
        gc.disable()  # it would look through all that was read, again and again
        try:
            return list(self.load_each())
        finally:
            if collecting:
                gc.enable()

    def load_each(self) -> Iterator[RunResult]:
        """As `load_all`, one after another, so that no more than one is held."""
        runs = str(self.root / "runs")
        for name in sorted(os.listdir(runs)) if os.path.isdir(runs) else []:
            stored = self._read(os.path.join(runs, name, "run.json"))
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

    def _read(self, path: str | Path) -> dict[str, Any] | None:
        try:
            with open(path, "rb", buffering=0) as file:
                content = file.read()
            stored = json.loads(content)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError):
            stored = None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from None
        if (
            not isinstance(stored, dict)
            or stored.get("schema") != SCHEMA
            or not (_is_sealed(content) or stored.get("digest") == digest_of(stored))
        ):
            self.set_aside(Path(path).parent, "run.json is damaged or of another version")
            return None
        return dict(stored)

    def ticket(self, config: RunConfig, point: str) -> Ticket:
        """A ticket of a complete run. Its rewind point, kept once by the run that trained it, is
        attached. Raises StoreError when the run lacks that ticket."""
        folder = self.folder(config)
        stored = self._read(folder / "run.json")
        files = stored["files"] if stored else {}
        name = f"tickets/{point}.safetensors"
        if stored is None or name not in files:
            points = [Path(n).stem for n in files if n.startswith("tickets/")]
            raise StoreError(
                f"run {config.id} has no ticket {point!r}; it has {', '.join(points) or 'none'}"
            )
        ticket = self._checked(folder, name, stored)
        if ticket.rewind is None and "rewind.safetensors" in files:
            ticket.rewind = self._checked(folder, "rewind.safetensors", stored).rewind
        if ticket.rewind is None and config.parent is not None:
            ancestor = self.ticket(config.parent.config, config.parent.point)
            ticket.rewind, ticket.rewind_step = ancestor.rewind, ancestor.rewind_step
        return ticket

    def _checked(self, folder: Path, name: str, stored: dict[str, Any]) -> Ticket:
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            content = b""
        except OSError as error:
            raise StoreError(f"cannot read {folder / name}: {error.strerror}") from None
        if hashlib.sha256(content).hexdigest() != stored["files"][name]:
            self.set_aside(folder, f"{name} does not match its checksum")
            raise RunDamaged(
                f"{folder / name} does not match its checksum; the run was set aside, run it again"
            )
        return Ticket.from_bytes(content)

    def set_aside(self, folder: Path, why: str, lease: Lease | None = None) -> None:
        """Move a damaged run out of the way, keeping it for inspection. One that somebody is
        computing is left to its owner, who holds the lease."""
        own = lease or Lease(self.root / "locks" / folder.name)
        try:
            if lease or own.take():
                self._move_aside(folder, why)
        except OSError as error:
            raise StoreError(f"{folder}: {why}, and cannot be moved: {error.strerror}") from None
        finally:
            if lease is None:
                own.release()

    def _move_aside(self, folder: Path, why: str) -> None:
        for number in range(1000):
            target = self.root / "damaged" / f"{folder.name}.{number}"
            if target.exists() or not folder.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, target)
            write_atomically(target / "why.txt", why.encode())
            log.warning("run %s: %s; it was moved to %s", folder.name, why, target)
            return

    def discard(self, config: RunConfig) -> None:
        """Remove a run's directory: its results are stale."""
        # First what makes it complete, so that a run is never half-true.
        (self.folder(config) / "run.json").unlink(missing_ok=True)
        shutil.rmtree(self.folder(config), ignore_errors=True)

    def save_ticket(self, config: RunConfig, ticket: Ticket, lease: Lease) -> bytes:
        """Write a ticket of a run that is under way; its rewind point is stored once for all
        tickets of the run."""
        folder = self.folder(config)
        rewind, ticket.rewind = ticket.rewind, None
        content = ticket.to_bytes()
        self.write(folder / "tickets" / f"{ticket.point}.safetensors", content, lease)
        ticket.rewind = rewind
        if rewind is not None and not (folder / "rewind.safetensors").exists():
            start = Ticket(ticket.mask, rewind=rewind).to_bytes()
            self.write(folder / "rewind.safetensors", start, lease)
        return content

    def finish(self, config: RunConfig, lease: Lease, **parts: Any) -> RunResult:
        """Make a run complete: checksums, then run.json, then its checkpoint goes, unless the run
        failed. Raises StoreError when a ticket is not the one that was judged."""
        folder = self.folder(config)
        names = sorted([*folder.glob("tickets/*.safetensors"), *folder.glob("rewind.safetensors")])
        files = {
            str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in names
        }
        for record in parts["records"]:
            ticket, ok = record["ticket"], record["status"] == "ok"
            if ok and files.get(f"tickets/{ticket['point']}.safetensors") != ticket["sha256"]:
                raise StoreError(
                    f"ticket {ticket['point']!r} in {folder} is not the one that was judged; "
                    "something else writes there. Remove the folder and run it again"
                )
        stored = {
            "schema": SCHEMA,
            "id": config.id,
            "config": config.to_json(),
            "source": source(config),
            "files": files,
            **parts,
        }
        self.write(folder / "run.json", sealed(stored), lease)
        _tidy(folder, stored)
        return _result(stored)


def _tidy(folder: Path, stored: dict[str, Any]) -> None:
    """Remove what a run needs only until it is complete."""
    if stored["failure"] is None:
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    (folder / "progress.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "judged", ignore_errors=True)


def _result(stored: dict[str, Any]) -> RunResult:
    records, history, failure = (stored[name] for name in ("records", "history", "failure"))
    return RunResult(stored["config"], records, history, failure, stored.get("imported"))


def sealed(stored: dict[str, Any]) -> bytes:
    """Content of a run.json, its digest last: it can be checked without writing the rest again."""
    content = json.dumps({name: value for name, value in stored.items() if name != "digest"})
    return f'{content[:-1]}, "digest": "{digest_of(stored)}"}}'.encode()


def _is_sealed(content: bytes) -> bool:
    rest, _, end = content.rpartition(b', "digest": "')
    return hashlib.sha256(rest + b"}").hexdigest().encode() + b'"}' == end


def digest_of(stored: dict[str, Any]) -> str:
    """Checksum of what a run.json says, itself left out."""
    rest = {key: value for key, value in stored.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest).encode()).hexdigest()


def source(config: RunConfig) -> str:
    """Fingerprints of a run's method and of those of its ancestors: a child is stale when its
    parent is."""
    own = fingerprint(config.method)
    return f"{own}-{source(config.parent.config)}" if config.parent else own
