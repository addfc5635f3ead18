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
from lthlib.errors import ConfigError, RecordError, StoreError, refusal
from lthlib.files import TEMPORARY, TICKET_LIMIT, remove_all
from lthlib.leases import abandoned, making_room
from lthlib.methods import METHODS
from lthlib.records import check_texts, validate_unpublished
from lthlib.runs import store as disk
from lthlib.runs.config import RunConfig
from lthlib.runs.store import Store
from lthlib.source import fingerprint


def read_checked(folder: Path) -> dict[str, Any]:
    """What the run.json in a run's folder says, every field of it checked: nothing is assumed of
    who wrote it.

    Raises FileNotFoundError without one, StoreError saying what is wrong: no JSON, another schema,
    a digest that does not match, a configuration that belongs to another id, a record that could
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
    """Check a file of a run by its checksum in the run.json, and a ticket also by what is recorded
    of it. Raises StoreError saying what is wrong."""
    digest = stored["files"].get(name, "")
    ticket = disk.read_ticket(folder, name, digest)
    judged = [record["ticket"] for record in stored["records"] if record["status"] == "ok"]
    for about in judged:
        judged_so = about["sha256"], about["index"]
        if disk.ticket_file(about["point"]) == name and judged_so != (digest, ticket.index):
            raise StoreError(f"{name} is not the ticket that was judged")


def verify(store: Store) -> Iterator[tuple[str, str]]:
    """Check all that is stored, complete runs, unfinished ones and imported ones; yields (run id,
    what is wrong) for each fault, and changes nothing."""
    for folder in _folders(store):
        for why in faults_of(folder):
            yield folder.name, why


def repair(store: Store, run_ids: Collection[str]) -> list[str]:
    """Move runs that have faults aside, so that the next sweep computes them again; returns their
    ids. One that a process is computing is left to it."""
    moved = []
    for folder in _folders(store):
        if folder.name not in run_ids:
            continue
        with making_room(store.place("locks") / folder.name[: disk.ID_LENGTH]) as lease:
            if lease and (found := list(faults_of(folder))):
                store.set_aside(folder, "; ".join(found), lease)
                moved.append(folder.name)
    return moved


def _folders(store: Store) -> list[Path]:
    return [Path(path) for name in ("imported", "runs") for path in store.folders(name)]


def faults_of(folder: Path) -> Iterator[str]:
    """What is wrong with a run's folder, complete or not. Of an unfinished run, what its checkpoint
    rests on counts."""
    if why := disk.strange(folder):
        yield why
        return
    stored: dict[str, Any] | None = None
    try:
        with suppress(FileNotFoundError):
            stored = read_checked(folder)
        files = _checkpoint(folder) if stored is None else stored["files"]
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


def _checkpoint(folder: Path) -> dict[str, str]:
    """The checksums of the files that a run's checkpoint rests on; none without one."""
    try:
        content = disk.read_own(folder, disk.CHECKPOINT, TICKET_LIMIT)
    except FileNotFoundError:
        return {}
    with refusal(StoreError, disk.CHECKPOINT, StoreError):
        place, _ = read_checkpoint(content)
        run, _, rest = place["owner"].partition("/")
        if run != folder.name:
            raise StoreError(f"belongs to run {run!r}")
        # Fingerprints of the run's method and of its ancestors', in a chain.
        if not set(rest.partition("/")[0].split("-")) <= set(map(fingerprint, METHODS)):
            raise StoreError("was written by another version of the source")
    return dict(place["files"])


@dataclass(frozen=True)
class Needless:
    """Something in a store that nothing needs. kind: why, in words. size: bytes."""

    kind: str
    path: Path
    size: int


def collect(store: Store, remove: bool) -> list[Needless]:
    """What nothing needs in a store and in the cache of decoded images, and free it when `remove`:
    damaged runs that were moved aside, runs that would be computed again anyway, checkpoints and
    temporary files that a kill left, the locks of dead owners, and what no reader of images asks
    for any more.

    What a process is computing is left alone, and so is every run that the present source can
    use, and every imported one.
    """
    found = []
    for one in chain(_needless(store, remove), starmap(_sized, needless_entries())):
        if remove:
            _remove(one)
        found.append(one)
    return found


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
        here = _needless_in(folder)
        if here and remove:
            with making_room(locks / folder.name) as lease:
                # Asked again, now that nobody can start the run.
                yield from _needless_in(folder) if lease else ()
        elif not os.path.lexists(locks / folder.name):
            yield from here


def _needless_in(folder: Path) -> list[Needless]:
    if disk.strange(folder):
        return []  # `verify` is about those, and about damaged ones
    own, stored = disk.own_files(folder), None
    if (folder / "run.json").exists():
        try:
            stored = disk.read_identified(folder)
        except (StoreError, OSError):
            return []
        if stored["source"] != disk.source(stored["config"]):
            return [_sized("computed by another version of the source", folder, own)]
    elif not (folder / disk.CHECKPOINT).exists() or [*faults_of(folder)]:
        foreign = not own and os.listdir(folder)
        return [] if foreign else [_sized("unfinished, cannot go on", folder, own)]
    kinds = {True: "temporary file", False: "checkpoint of a complete run"}
    left = disk.left_over(folder, stored)
    return [_sized(kinds[bool(TEMPORARY.fullmatch(path.name))], path) for path in left]


def _sized(kind: str, path: Path, files: Iterable[Path] | None = None) -> Needless:
    if files is None:
        files = [path] if path.is_symlink() else [path, *path.rglob("*")]
    return Needless(kind, path, sum(p.lstat().st_size for p in files if not p.is_dir()))


def _remove(one: Needless) -> None:
    with refusal(StoreError, f"cannot free {one.path}"):
        if disk.RUN_ID.fullmatch(one.path.name) and not one.path.is_symlink():
            disk.erase(one.path)
        else:
            remove_all(one.path)
