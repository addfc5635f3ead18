"""Looking after a store: a run's file read without trusting it, all damage found, room made."""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, starmap
from pathlib import Path
from typing import Any

from lthlib.checkpoints import read_checkpoint
from lthlib.data import needless_entries
from lthlib.errors import ConfigError, MethodMissing, RecordError, StoreError, refusal
from lthlib.files import TEMPORARY, TICKET_LIMIT, remove_all
from lthlib.leases import abandoned, making_room
from lthlib.methods import METHODS
from lthlib.records import check_texts, validate_unpublished
from lthlib.runs import store as disk
from lthlib.runs.config import RunConfig
from lthlib.runs.store import Store
from lthlib.source import fingerprint


def read_checked(folder: Path) -> dict[str, Any]:
    """What the run.json in a run's folder says, every field of it checked.

    Nothing is assumed of who wrote it.

    Args:
        folder: the run's.

    Returns:
        The content.

    Raises:
        FileNotFoundError: there is none.
        StoreError: something is wrong, and the message says what: no JSON, another schema, a digest
            that does not match, a configuration that belongs to another id, a record that could
            not be published.
    """
    stored = disk.read_identified(folder)
    with refusal(StoreError, errors=(RecordError, ConfigError, RecursionError)):
        check_texts(stored, "run.json")
        RunConfig.from_json(stored["config"])
        for number, record in enumerate(stored["records"]):
            validate_unpublished(record, f"run.json, record {number}")
    failures = [record["failure"] for record in stored["records"] if record["failure"]]
    if failures != [stored["failure"]] * (stored["failure"] is not None):
        raise StoreError("run.json and its records disagree on a failure")
    return stored


def check_ticket(folder: Path, name: str, stored: dict[str, Any]) -> None:
    """Check a ticket's file, or a rewind point, by its checksum and by what is recorded of it.

    Args:
        folder: the run's.
        name: of the file.
        stored: what the run.json says.

    Raises:
        StoreError: something is wrong, and the message says what.
    """
    digest = stored["files"].get(name, "")
    ticket = disk.read_ticket(folder, name, digest)
    for record in stored["records"]:
        entry = record["ticket"]
        if record["status"] != "ok" or disk.ticket_file(entry["point"]) != name:
            continue
        if (entry["sha256"], entry["index"]) != (digest, ticket.index):
            raise StoreError(f"{name} is not the ticket that was judged")


def verify(store: Store) -> Iterator[tuple[str, str]]:
    """Check all that is stored, complete runs, unfinished ones and imported ones; change nothing.

    Args:
        store: where the runs are.

    Yields:
        For each fault the id of the run, and what is wrong in words.
    """
    for folder in _run_folders(store):
        for fault in faults_of(folder):
            yield folder.name, fault


def repair(store: Store, run_ids: Collection[str]) -> list[str]:
    """Move runs that have faults aside, so that the next sweep computes them again.

    One that a process is computing is left to it.

    Args:
        store: where the runs are.
        run_ids: of the runs to look at.

    Returns:
        The ids of those that were moved.

    Raises:
        StoreError: one cannot be moved.
    """
    moved = []
    for folder in _run_folders(store):
        if folder.name not in run_ids:
            continue
        with making_room(store.place("locks") / folder.name[: disk.ID_LENGTH]) as lease:
            if lease and (faults := list(faults_of(folder))):
                store.set_aside(folder, "; ".join(faults), lease)
                moved.append(folder.name)
    return moved


def _run_folders(store: Store) -> list[Path]:
    return [Path(path) for name in ("imported", "runs") for path in store.folders(name)]


def faults_of(folder: Path) -> Iterator[str]:
    """What is wrong with a run's folder, complete or not.

    Of an unfinished run, what its checkpoint rests on counts. A run of a method that is not here
    cannot be checked: a warning says so.

    Args:
        folder: the run's.

    Yields:
        Each fault, in words.
    """
    if fault := disk.strange(folder):
        yield fault
        return
    stored: dict[str, Any] | None = None
    try:
        with suppress(FileNotFoundError):
            stored = read_checked(folder)
        files = _checkpoint_files(folder) if stored is None else stored["files"]
    except MethodMissing as error:  # another branch's: no fault, and nothing to repair
        disk.log.warning("run %s: %s; it is not checked", folder.name, error)
        return
    except StoreError as error:
        yield str(error)
        return
    if stored and not stored.get("imported", {"tickets": True})["tickets"]:
        return
    for name, digest in files.items():
        try:
            if stored:
                check_ticket(folder, name, stored)
            else:
                disk.read_file(folder, name, digest)
        except StoreError as error:
            yield str(error)


def _checkpoint_files(folder: Path) -> dict[str, str]:
    """The checksums of the files that a run's checkpoint rests on; none without one."""
    try:
        content = disk.read_own(folder, disk.CHECKPOINT, TICKET_LIMIT)
    except FileNotFoundError:
        return {}
    with refusal(StoreError, disk.CHECKPOINT, StoreError):
        state, _ = read_checkpoint(content)
        run_id, written_by, _ = disk.owner_parts(state["owner"])
        if run_id != folder.name:
            raise StoreError(f"belongs to run {run_id!r}")
        # Fingerprints of the run's method and of its ancestors', in a chain.
        if not set(written_by.split("-")) <= set(map(fingerprint, METHODS)):
            raise StoreError("was written by another version of the source")
    return dict(state["files"])


@dataclass(frozen=True)
class Needless:
    """Something in a store that nothing needs.

    Attributes:
        kind: what it is, in words.
        path: a file or a folder.
        size: bytes.
    """

    kind: str
    path: Path
    size: int


def collect(store: Store, remove: bool) -> list[Needless]:
    """Find what nothing needs in a store and in the cache of decoded images.

    That is: damaged runs that were moved aside, runs that would be computed again anyway,
    checkpoints and temporary files that a kill left, the locks of dead owners, and what no reader
    of images asks for any more. What a process is computing is left alone, and so is every run that
    the present source can use, and every imported one.

    Args:
        store: where the runs are.
        remove: free it, too.

    Returns:
        What was found.

    Raises:
        StoreError: something cannot be freed.
    """
    leftovers = []
    for leftover in chain(_needless(store, remove), starmap(_sized, needless_entries())):
        if remove:
            _free(leftover)
        leftovers.append(leftover)
    return leftovers


def _needless(store: Store, remove: bool) -> Iterator[Needless]:
    """Until the next one is asked for, nobody writes there."""
    damaged, staging, locks = map(store.place, ("damaged", ".import", "locks"))
    # First, so that there is room for locks.
    for path in sorted(damaged.iterdir()) if damaged.exists() else ():
        yield _sized("damaged, moved aside", path)
    if staging.exists():
        with making_room(locks / "import") as lease:
            if lease:
                yield _sized("unfinished import", staging)
    for run_id in abandoned(locks):
        with making_room(locks / run_id):
            pass  # takes over from an owner that is dead, and gives back
    for folder in map(Path, store.folders()):
        leftovers = _needless_in(folder)
        if leftovers and remove:
            with making_room(locks / folder.name) as lease:
                # Asked again, now that nobody can start the run.
                yield from _needless_in(folder) if lease else ()
        elif not os.path.lexists(locks / folder.name):
            yield from leftovers


def _needless_in(folder: Path) -> list[Needless]:
    if disk.strange(folder):
        return []  # `verify` is about those, and about damaged ones
    files = disk.own_files(folder)
    stored = None
    if (folder / "run.json").exists():
        try:
            stored = disk.read_identified(folder)
        except (StoreError, OSError):
            return []
        if stored["source"] != disk.source(stored["config"]):
            return [_sized("computed by another version of the source", folder, files)]
    elif not (folder / disk.CHECKPOINT).exists() or [*faults_of(folder)]:
        foreign = not files and os.listdir(folder)
        return [] if foreign else [_sized("unfinished, cannot go on", folder, files)]
    kinds = {True: "temporary file", False: "checkpoint of a complete run"}
    paths = disk.left_over(folder, stored)
    return [_sized(kinds[bool(TEMPORARY.fullmatch(path.name))], path) for path in paths]


def _sized(kind: str, path: Path, files: Iterable[Path] | None = None) -> Needless:
    if files is None:
        files = [path] if path.is_symlink() else [path, *path.rglob("*")]
    return Needless(kind, path, sum(p.lstat().st_size for p in files if not p.is_dir()))


def _free(leftover: Needless) -> None:
    path = leftover.path
    with refusal(StoreError, f"cannot free {path}"):
        if disk.RUN_ID.fullmatch(path.name) and not path.is_symlink():
            disk.erase(path)
        else:
            remove_all(path)
