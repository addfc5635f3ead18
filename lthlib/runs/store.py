"""The local store: one directory a run, each complete, resumable or absent.

STORE/runs/ID/run.json    written last: the run is complete. Records, history, checksums of the
                          other files
              tickets/POINT.safetensors, rewind.safetensors
              progress.json
                          only while the run is unfinished
              checkpoint.safetensors
                          while the run is unfinished, and the last good one of a run that failed.
                          Records and checksums of what was written by then
      locks/ID/           while somebody computes the run

Nothing below STORE is followed where it is a symbolic link, and nothing is removed that has no name
of the above.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import itertools
import json
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lthlib.errors import (
    ConfigError,
    MethodMissing,
    RecordError,
    RunDamaged,
    StoreError,
    TicketError,
    refusal,
    shown,
)
from lthlib.files import (
    TEMPORARY,
    TICKET_LIMIT,
    is_sealed,
    patiently,
    read_within,
    sealed,
    write_atomically,
)
from lthlib.leases import Lease, Watch, abandoned, hold, hold_if_free
from lthlib.records import FILES, ID, METHODS, OBJECT, REWIND, TEXT, TRUTH, check_fields
from lthlib.runs.identity import identify
from lthlib.settings import POINT, Field
from lthlib.source import fingerprint

if TYPE_CHECKING:  # they import torch, and who lists runs is not to wait for it
    from lthlib.runs.config import RunConfig
    from lthlib.tickets import Ticket

SCHEMA = 1
RUN_LIMIT = 64 << 20
ID_LENGTH = 16
RUN_ID = re.compile(r"[0-9a-f]{16}")
_FOLDER = re.compile(rf"{RUN_ID.pattern}(-[0-9a-f]{{8}})?")
CHECKPOINT, PROGRESS = "checkpoint.safetensors", "progress.json"
_NAMES = {
    "": re.compile("|".join(map(re.escape, ("run.json", REWIND, CHECKPOINT, PROGRESS)))),
    "tickets": re.compile(rf"{POINT.pattern}\.safetensors", re.ASCII),
}
_ABSENT = (FileNotFoundError, NotADirectoryError)
# Of a file that can be looked at, but is none.
_NO_FILE = {errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.EISDIR, errno.ENXIO}
log = logging.getLogger("lthlib")


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(map(OBJECT.check, value))


_RUN_FIELDS = {
    "schema": Field(str(SCHEMA), lambda value: value == SCHEMA),
    "id": ID,
    "config": OBJECT,
    "source": TEXT,
    "files": FILES,
    "records": Field("a list of objects, one at least", lambda v: _are_objects(v) and v != []),
    "history": Field("a list of objects", _are_objects),
    "failure": TEXT.or_null(),
    "digest": TEXT,
}
# Added by an import: the archive's name and the checksum of its list, when it was read, and whether
# it brought tickets.
_IMPORT_FIELDS = {**dict.fromkeys(("archive", "manifest", "at"), TEXT), "tickets": TRUTH}


@dataclass(frozen=True)
class RunResult:
    """A complete run.

    Attributes:
        values: its configuration, as plain values.
        records: one per judged ticket, without study.
        history: what was measured while it trained.
        failure: why it failed, or None.
        imported: which archive it was imported from; None where it was computed here.
    """

    values: dict[str, Any]
    records: list[dict[str, Any]]
    history: list[dict[str, float]]
    failure: str | None
    imported: dict[str, Any] | None = None

    @cached_property  # of the 10,000 runs of a store, few are asked
    def config(self) -> RunConfig:
        """The run's configuration."""
        from lthlib.runs.config import RunConfig

        return RunConfig.from_json(self.values)


class Store:
    """Runs on disk, by the id of their configuration."""

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root or os.environ.get("LTHLIB_STORE") or "store")

    def folder(self, config: RunConfig) -> Path:
        """Where a run lives."""
        return self.place("runs") / config.id

    def place(self, name: str) -> Path:
        """A folder of the store, which need not be there.

        Args:
            name: the folder's.

        Returns:
            Its path.

        Raises:
            StoreError: it, or the store, is something else than a folder, or it leads out of the
                store.
        """
        path = self.root / name
        for folder, is_right in ((self.root, True), (path, not os.path.islink(path))):
            if os.path.lexists(folder) and not (is_right and os.path.isdir(folder)):
                raise StoreError(
                    f"cannot use the run store {self.root}: {folder} is no folder, or a symbolic "
                    "link out of the store; name another with --store or LTHLIB_STORE"
                )
        return path

    def folders(self, name: str = "runs", prefix: str = "") -> list[str]:
        """The paths of all runs' folders, whatever they hold, in order.

        Args:
            name: `runs`, or `imported` for runs that can only be looked at.
            prefix: how their ids begin.

        Returns:
            Paths; none where the store has no such folder.

        Raises:
            StoreError: the folder cannot be read.
        """
        parent = self.place(name)
        with refusal(StoreError, f"cannot read {parent}"), contextlib.suppress(FileNotFoundError):
            with os.scandir(parent) as entries:
                runs = [entry for entry in entries if _FOLDER.fullmatch(entry.name)]
            return sorted(entry.path for entry in runs if entry.name.startswith(prefix))
        return []

    def prepare(self) -> None:
        """Make the store's folder, and clear up after processes of this host that were killed.

        Raises:
            StoreError: it cannot be written.
        """
        runs, locks = self.place("runs"), self.place("locks")
        with refusal(
            StoreError,
            f"cannot write the run store {self.root}",
            OSError,
            "name another with --store or LTHLIB_STORE",
        ):
            runs.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            os.close(os.open(self.root / ".writable", flags | getattr(os, "O_NONBLOCK", 0)))
            run_ids = abandoned(locks)
        for run_id in run_ids:
            with self.alone(run_id) as lease:
                if lease:
                    self._clear_leftovers(run_id, lease)

    @contextlib.contextmanager
    def lock(self, config: RunConfig, stop: Callable[[], bool] = lambda: False) -> Iterator[Lease]:
        """Wait for the right to write a run and keep it while the body runs; see `leases.hold`.

        Args:
            config: the run's.
            stop: asked while waiting; once it is true, waiting ends as `leases.hold` says.

        Yields:
            The lease.
        """
        with hold(self.place("locks") / config.id, stop) as lease:
            self._clear_leftovers(config.id, lease)
            yield lease

    def alone(self, run_id: str) -> contextlib.AbstractContextManager[Lease | None]:
        """As `lock`, by a run's id and without waiting; None when somebody has it."""
        return hold_if_free(self.place("locks") / run_id)

    def watch(self, config: RunConfig) -> Watch:
        """Whether another process computes a run; see `leases.Watch`."""
        return Watch(self.place("locks") / config.id)

    def _clear_leftovers(self, run_id: str, lease: Lease) -> None:
        folder = self.place("runs") / run_id
        if fault := strange(folder):
            self.set_aside(folder, fault, lease)
        # What a killed owner was writing. Also a fence: an owner that was taken over between its
        # last check and its rename finds nothing left to rename.
        remove(left_over(folder, self._read_run(folder)))

    def write(self, path: Path, content: bytes, lease: Lease) -> None:
        """Write a file of a run atomically, as the run's owner.

        Args:
            path: of the file.
            content: all of it.
            lease: the run's.

        Raises:
            LeaseLost: the lease is another's by now.
            StoreError: the file cannot be written.
        """
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
        stored = self._read_run(self.folder(config))
        if stored is None or stored["source"] != source(stored["config"]):
            return None
        if config.parent is not None and self.load(config.parent.config) is None:
            return None
        return result_of(stored)

    def load_each(self, name: str = "runs", prefix: str = "") -> Iterator[RunResult]:
        """Every complete run, whatever source computed it.

        Args:
            name: as of `folders`.
            prefix: as of `folders`.

        Yields:
            The runs in order; what cannot be read is passed over with a warning.
        """
        collecting = gc.isenabled()
        gc.disable()  # it would look through all that was read, again and again
        try:
            for folder in self.folders(name, prefix):
                try:
                    stored = self._read_run(folder)
                except StoreError as error:
                    log.warning("%s", error)
                    continue
                if stored is not None:
                    yield result_of(stored)
        finally:
            if collecting:
                gc.enable()

    def find(self, prefix: str) -> RunResult:
        """The complete run whose id begins so, or else the one that can only be looked at.

        Args:
            prefix: how its id begins.

        Returns:
            The run.

        Raises:
            StoreError: there is none, or several.
        """
        runs = [*self.load_each(prefix=prefix)] or [*self.load_each("imported", prefix)]
        if len(runs) != 1:
            count = f"{len(runs)} runs' ids begin" if runs else "no complete run's id begins"
            raise StoreError(f"{count} with {prefix!r} in {self.root}; `lth list` shows them")
        return runs[0]

    def _read_run(self, folder: str | Path) -> dict[str, Any] | None:
        """What run.json says; None without one. A damaged run is set aside, if it can be moved."""
        try:
            return read_identified(folder)
        except _ABSENT:
            return None
        except MethodMissing as error:
            log.warning("run %s: %s; it is left as it is", os.path.basename(folder), error)
            return None
        except RunDamaged as damage:
            try:
                self.set_aside(Path(folder), str(damage))
            except StoreError as error:
                log.warning("%s", error)
            return None

    def ticket(self, config: RunConfig, point: str) -> Ticket:
        """A ticket of a complete run, with its rewind point, which the run that trained it keeps.

        Args:
            config: the run's.
            point: the ticket's name.

        Returns:
            The ticket.

        Raises:
            StoreError: the run lacks that ticket.
            RunDamaged: a file of the run is not as it was written; the run is set aside.
        """
        folder = self.folder(config)
        stored = self._read_run(folder)
        files = stored["files"] if stored else {}
        name = ticket_file(point)
        if name not in files:
            points = ", ".join(Path(n).stem for n in files if n.startswith("tickets/"))
            raise StoreError(f"run {config.id} has no ticket {point!r}; it has {points or 'none'}")
        try:
            ticket = read_ticket(folder, name, files[name])
            if ticket.rewind is None and REWIND in files:
                ticket.rewind = read_ticket(folder, REWIND, files[REWIND]).rewind
        except RunDamaged as error:
            self.set_aside(folder, str(error))
            raise RunDamaged(f"in {folder}, {error}; the run was set aside, run it again") from None
        if ticket.rewind is None and config.parent is not None:
            ancestor = self.ticket(config.parent.config, config.parent.point)
            ticket.rewind, ticket.rewind_step = ancestor.rewind, ancestor.rewind_step
        return ticket

    def check_files(self, folder: Path, files: Mapping[str, str]) -> None:
        """Compare files of a run with their SHA-256.

        Args:
            folder: the run's.
            files: SHA-256, in hexadecimal, by the file's name.

        Raises:
            RunDamaged: one differs, which is named.
        """
        for name, digest in files.items():
            read_file(folder, name, digest)

    def set_aside(self, folder: Path, why: str, lease: Lease | None = None) -> None:
        """Move a damaged run out of the way, keeping it for inspection.

        Args:
            folder: the run's.
            why: what is wrong with it.
            lease: the run's, where the caller holds it. Else a run that somebody is computing is
                left to that owner.

        Raises:
            StoreError: it cannot be moved.
        """
        leasing = contextlib.nullcontext(lease) if lease else self.alone(folder.name[:ID_LENGTH])
        trouble = f"{folder}: {why}, and cannot be moved"
        with refusal(StoreError, trouble, (OSError, StoreError)), leasing as held:
            if held:
                self._move_aside(folder, why)

    def _move_aside(self, folder: Path, why: str) -> None:
        damaged = self.place("damaged")
        if not os.path.lexists(folder):
            return
        damaged.mkdir(parents=True, exist_ok=True)
        targets = (damaged / f"{folder.name}.{number}" for number in itertools.count())
        target = next(path for path in targets if not os.path.lexists(path))
        patiently(os.replace, folder, target)
        log.warning("run %s: %s; it was moved to %s", folder.name, why, target)
        # Not through a link, nor where there is no room.
        if not target.is_symlink():
            with contextlib.suppress(OSError):
                write_atomically(target / "why.txt", why.encode())

    def discard(self, config: RunConfig) -> None:
        """Remove what lthlib wrote of a run: it is stale."""
        erase(self.folder(config))

    def save_ticket(
        self, config: RunConfig, ticket: Ticket, lease: Lease, files: dict[str, str]
    ) -> str:
        """Write a ticket of a run that is under way; its rewind point only with the first of a run.

        Args:
            config: the run's.
            ticket: the ticket.
            lease: the run's.
            files: checksums of what the run has written, which are added to.

        Returns:
            The SHA-256 of the ticket's file, in hexadecimal.

        Raises:
            LeaseLost: the lease is another's by now.
            StoreError: a file cannot be written.
        """
        from lthlib.tickets import Ticket

        name = ticket_file(ticket.point)
        tickets = {name: replace(ticket, rewind=None)}
        if ticket.rewind is not None and REWIND not in files:
            tickets[REWIND] = Ticket(ticket.mask, rewind=ticket.rewind)
        for file_name, written in tickets.items():
            content = written.to_bytes()
            self.write(self.folder(config) / file_name, content, lease)
            files[file_name] = hashlib.sha256(content).hexdigest()
        return files[name]

    def finish(
        self, config: RunConfig, lease: Lease, files: dict[str, str], **content: Any
    ) -> RunResult:
        """Make a run complete: run.json, then its checkpoint goes, unless the run failed.

        Args:
            config: the run's.
            lease: the run's.
            files: checksums of what the run has written, from `save_ticket`.
            content: `records`, `history` and `failure`, as run.json holds them.

        Returns:
            The complete run.

        Raises:
            RunDamaged: a file is not as it was written; the run is set aside.
            LeaseLost: the lease is another's by now.
            StoreError: run.json cannot be written.
        """
        folder = self.folder(config)
        try:
            self.check_files(folder, files)
        except RunDamaged as error:
            self.set_aside(folder, str(error), lease)
            raise
        values = config.to_json()
        stored = {
            "schema": SCHEMA,
            "id": config.id,
            "config": values,
            "source": source(values),
            "files": dict(sorted(files.items())),
            **content,
        }
        self.write(folder / "run.json", sealed(stored), lease)
        remove(left_over(folder, stored))
        return result_of(stored)


def own_files(folder: Path) -> list[Path]:
    """What lthlib wrote in a run's folder, by its names.

    Nothing else that lies there, and nothing through a link.

    Args:
        folder: the run's.

    Returns:
        Paths; what makes the run complete comes first.

    Raises:
        StoreError: the folder cannot be read.
    """
    paths = []
    for subfolder, pattern in _NAMES.items():
        path = folder / subfolder
        names: list[str] = []
        with refusal(StoreError, f"cannot read {path}"), contextlib.suppress(*_ABSENT):
            names = [] if path.is_symlink() else os.listdir(path)
        paths += [path / n for n in names if pattern.fullmatch(n) or TEMPORARY.fullmatch(n)]
    return sorted(paths, key=lambda path: path.name != "run.json")


def strange(folder: Path) -> str:
    """Say which part of a run's folder is not of the kind that lthlib writes, such as a link.

    Args:
        folder: the run's.

    Returns:
        What is wrong, in words; empty when nothing is.

    Raises:
        StoreError: the folder cannot be read.
    """
    for path in (folder / subfolder for subfolder in _NAMES):
        if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
            return f"{path.name} is no folder, or a symbolic link"
    for path in own_files(folder):
        with contextlib.suppress(FileNotFoundError):  # its owner has just replaced it
            if not stat.S_ISREG(path.lstat().st_mode):
                return f"{path.relative_to(folder).as_posix()} is not a regular file"
    return ""


def left_over(folder: Path, stored: Mapping[str, Any] | None) -> list[Path]:
    """The files of a run that nothing needs: temporary ones, and those of a complete run's past.

    Args:
        folder: the run's.
        stored: its run.json; None without one.

    Returns:
        Paths.

    Raises:
        StoreError: the folder cannot be read.
    """
    needless = set()
    if stored is not None:
        needless = {PROGRESS} if stored["failure"] else {PROGRESS, CHECKPOINT}
    paths = own_files(folder)
    return [path for path in paths if TEMPORARY.fullmatch(path.name) or path.name in needless]


def erase(folder: Path) -> None:
    """Remove a run, and its folder unless it holds what is not lthlib's.

    Args:
        folder: the run's.

    Raises:
        StoreError: a file cannot be removed.
    """
    remove(own_files(folder))
    for subfolder in reversed(_NAMES):
        with contextlib.suppress(OSError):
            (folder / subfolder).rmdir()


def remove(paths: Iterable[Path]) -> None:
    """Remove files, those that are there.

    Args:
        paths: of the files.

    Raises:
        StoreError: one cannot be removed.
    """
    for path in paths:
        with refusal(StoreError, f"cannot remove {path}"):
            patiently(path.unlink, True)


def ticket_file(point: str) -> str:
    """Name of a ticket's file in its run's folder, by the ticket's name."""
    return f"tickets/{point}.safetensors"


def result_of(stored: Mapping[str, Any]) -> RunResult:
    """What a run.json says, as a result."""
    records, history, failure = (stored[name] for name in ("records", "history", "failure"))
    return RunResult(stored["config"], records, history, failure, stored.get("imported"))


def read_identified(folder: str | Path) -> dict[str, Any]:
    """What the run.json in a run's folder says; only its digest and whose it is are checked.

    Args:
        folder: the run's; its name begins with the run's id.

    Returns:
        The content.

    Raises:
        FileNotFoundError, NotADirectoryError: there is none.
        RunDamaged: it is not as it was written.
        StoreError: it cannot be read.
    """
    stored = unsealed(read_own(folder, "run.json", RUN_LIMIT))
    check_identity(stored, os.path.basename(folder)[:ID_LENGTH])
    return stored


def read_ticket(folder: Path, name: str, digest: str) -> Ticket:
    """A ticket in a run's folder.

    Args:
        folder: the run's.
        name: of the file, from `ticket_file`.
        digest: its SHA-256, in hexadecimal.

    Returns:
        The ticket.

    Raises:
        RunDamaged: the file, which is named, is missing or not as it was written.
        StoreError: it cannot be read.
    """
    from lthlib.tickets import Ticket

    with refusal(RunDamaged, name, TicketError):  # sealed when it was damaged already
        return Ticket.from_bytes(read_file(folder, name, digest))


def read_file(folder: Path, name: str, digest: str) -> bytes:
    """The content of a file in a run's folder, checked by its SHA-256 alone.

    Args:
        folder: the run's.
        name: of the file.
        digest: its SHA-256, in hexadecimal.

    Returns:
        The content.

    Raises:
        RunDamaged: the file, which is named, is missing or not as it was written.
        StoreError: it cannot be read.
    """
    try:
        content = read_own(folder, name, TICKET_LIMIT)
    except _ABSENT:
        raise RunDamaged(f"{name} is missing") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise RunDamaged(f"{name} does not match its checksum")
    return content


def read_own(folder: str | Path, name: str, limit: int) -> bytes:
    """Content of a file in a run's folder, not checked.

    Args:
        folder: the run's.
        name: of the file.
        limit: bytes that it may have.

    Returns:
        The content.

    Raises:
        FileNotFoundError, NotADirectoryError: it is missing.
        RunDamaged: it, which is named, is no file or too long.
        StoreError: it cannot be read.
    """
    try:
        return read_within(folder, name, limit)
    except _ABSENT:
        raise
    except OSError as error:
        if error.errno in _NO_FILE:
            raise RunDamaged(f"{name}: {error.strerror}") from None
        raise StoreError(f"cannot read {folder}/{name}: {error.strerror}") from None


def unsealed(content: bytes) -> dict[str, Any]:
    """Inverse of `sealed`.

    Args:
        content: of a run.json.

    Returns:
        What it says.

    Raises:
        RunDamaged: it was altered, or is of another schema.
    """
    with refusal(RunDamaged, "run.json is not JSON", (ValueError, RecursionError)):
        stored = json.loads(content)
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema != SCHEMA:
        raise RunDamaged(f"run.json has schema {schema!r}; this lthlib reads {SCHEMA}")
    if not is_sealed(content):
        raise RunDamaged("run.json does not match its digest")
    imported = {"imported": _IMPORT_FIELDS} if "imported" in stored else {}
    with refusal(RunDamaged, errors=RecordError):
        check_fields(stored, _RUN_FIELDS | imported, "run.json")
    return stored


def check_identity(stored: Mapping[str, Any], run_id: str) -> None:
    """Check that a run.json, its configuration and all its records are those of a run.

    No more is looked at than that takes.

    Args:
        stored: what the run.json says.
        run_id: the run's.

    Raises:
        RunDamaged: something is another's; the message says what.
        MethodMissing: its method, or that of a run that it starts from, is none of `METHODS`.
    """
    unfit = (ConfigError, LookupError, TypeError, AttributeError, RecursionError)
    with refusal(RunDamaged, "run.json is malformed", unfit):
        config = stored["config"]
        _check_methods(stored)
        if not stored["id"] == (config_id := identify(config)) == run_id:
            raise RunDamaged(f"run.json belongs to {config_id}, not to {run_id}")
        parent = config["parent"] and identify(config["parent"]["config"])
        for record in stored["records"]:
            if (record["run"], record["parent"], record["config"]) != (run_id, parent, config):
                raise RunDamaged("a record in run.json belongs to another run")
            if (
                record["status"] == "ok"
                and ticket_file(record["ticket"]["point"]) not in stored["files"]
            ):
                raise RunDamaged(f"run.json names no ticket {record['ticket']['point']!r}")


def _check_methods(stored: Mapping[str, Any]) -> None:
    """Refuse a method that is not here, unless the run contradicts itself: that is damage."""
    whole = stored["config"]
    config = whole
    while config is not None:
        if (method := config["method"]) not in METHODS:
            if all(record["config"] == whole for record in stored["records"]):
                raise MethodMissing(
                    f"method is {shown(method)}, which this lthlib lacks; it has "
                    f"{', '.join(METHODS)}"
                )
            return
        config = config["parent"] and config["parent"]["config"]


def source(values: Mapping[str, Any]) -> str:
    """Fingerprints of a run's method and of those of its ancestors, joined by dashes.

    A child is stale when its parent is.

    Args:
        values: the run's configuration, as plain values.

    Returns:
        Fingerprints in hexadecimal, the run's own first.
    """
    digest, parent = fingerprint(values["method"]), values["parent"]
    return f"{digest}-{source(parent['config'])}" if parent else digest


def owner_of(config: RunConfig, device: str) -> str:
    """Whose a checkpoint is: a run's id, its source and the type of its device, with slashes."""
    return f"{config.id}/{source(config.to_json())}/{device}"


def owner_parts(owner: str) -> tuple[str, str, str]:
    """Inverse of `owner_of`, for text that may be anything: run, source, device; empty if none."""
    run_id, _, origin = owner.partition("/")
    written_by, _, device = origin.partition("/")
    return run_id, written_by, device
