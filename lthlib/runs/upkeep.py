"""Looking after a store: a run's file read without trusting it, all damage found, room made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lthlib.data import needless_entries
from lthlib.errors import ConfigError, NoRoom, RecordError, StoreError, TicketError
from lthlib.files import TEMPORARY, TICKET_LIMIT, read_within, shallow
from lthlib.leases import Lease, abandoned
from lthlib.methods import METHODS
from lthlib.records import TEXT, Field, check, validate_unpublished
from lthlib.runs.config import RunConfig
from lthlib.runs.store import (
    CHECKPOINT,
    FILE_NAME,
    ID_LENGTH,
    RUN_ID,
    RUN_LIMIT,
    SCHEMA,
    Store,
    check_identity,
    erase,
    left_over,
    own_files,
    read_identified,
    strange,
    ticket_file,
    unsealed,
)
from lthlib.source import fingerprint
from lthlib.tickets import Ticket, unseal

log = logging.getLogger("lthlib")
_OLD_LOCK = re.compile(rf"{RUN_ID.pattern}\.lock")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _checksums(value: Any) -> bool:
    return isinstance(value, dict) and all(
        FILE_NAME.fullmatch(name) and isinstance(digest, str) and _SHA256.fullmatch(digest)
        for name, digest in value.items()
    )


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


_RUN = {
    "schema": Field(str(SCHEMA), lambda value: value == SCHEMA),
    "id": Field("16 hexadecimal digits", lambda value: RUN_ID.fullmatch(str(value)) is not None),
    "config": Field("an object", lambda value: isinstance(value, dict)),
    "source": TEXT,
    "files": Field("the SHA-256 of tickets and rewind.safetensors", _checksums),
    "records": Field("a list of objects, one at least", lambda v: _objects(v) and v != []),
    "history": Field("a list of objects", _objects),
    "failure": TEXT.or_null(),
    "digest": TEXT,
}
# Added by an import: the archive's name and the checksum of its list, when it was read, and whether
# it brought tickets.
_IMPORTED = {
    **dict.fromkeys(("archive", "manifest", "at"), TEXT),
    "tickets": Field("true or false", lambda value: isinstance(value, bool)),
}


def read_run(content: bytes, run_id: str) -> dict[str, Any]:
    """What a run.json says, every field of it checked: nothing is assumed of who wrote it.

    Raises StoreError saying what is wrong: no JSON, another schema, a digest that does not match, a
    configuration that belongs to another id, a record that could not be published.
    """
    try:
        shallow(content)
        stored = unsealed(content)
        imported = {"imported": _IMPORTED} if "imported" in stored else {}
        check(stored, _RUN | imported, "run.json")
        RunConfig.from_json(stored["config"])
        for number, record in enumerate(stored["records"]):
            validate_unpublished(record, f"run.json, record {number}")
    except ValueError as error:
        raise StoreError(f"run.json is not JSON ({error})") from None
    except (RecordError, ConfigError) as error:
        raise StoreError(str(error)) from None
    failures = [record["failure"] for record in stored["records"] if record["failure"]]
    if failures != [stored["failure"]] * (stored["failure"] is not None):
        raise StoreError("run.json and its records disagree on a failure")
    check_identity(stored, run_id)
    return stored


def read_checked(folder: Path) -> dict[str, Any]:
    """As `read_run`, of the run in a folder. Raises OSError where it cannot be read."""
    return read_run(read_within(folder, "run.json", RUN_LIMIT), folder.name[:ID_LENGTH])


def check_file(content: bytes, name: str, stored: dict[str, Any]) -> None:
    """Check a ticket of a run by the checksums in its run.json. Raises StoreError or
    TicketError."""
    if hashlib.sha256(content).hexdigest() != stored["files"].get(name):
        raise StoreError(f"{name} does not match its checksum")
    ticket = Ticket.from_bytes(content)
    judged = [r["ticket"] for r in stored["records"] if r["status"] == "ok"]
    for about in judged:
        if ticket_file(about) == name and (
            about["sha256"] != stored["files"][name] or about["index"] != ticket.index
        ):
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
        with _making_room(store, folder.name[:ID_LENGTH]) as lease:
            if lease and (found := list(faults_of(folder))):
                store.set_aside(folder, "; ".join(found), lease)
                moved.append(folder.name)
    return moved


@contextlib.contextmanager
def _making_room(store: Store, run_id: str) -> Iterator[Lease | None]:
    """As `Store.alone`, but None also where the lock is not to be had, and a lease that nobody
    granted where there is no room for one: then nobody else gets one either, and what is taken from
    a run in spite of that is missed when it ends, and computed again."""
    with contextlib.ExitStack() as stack:
        lease: Lease | None = None
        try:
            lease = stack.enter_context(store.alone(run_id))
        except NoRoom:
            lease = Lease(store.place("locks") / run_id)
        except StoreError as error:
            log.warning("%s", error)
        yield lease


def _folders(store: Store) -> list[Path]:
    return [Path(path) for name in ("imported", "runs") for path in store.folders(name)]


def faults_of(folder: Path) -> Iterator[str]:
    """What is wrong with a run's folder, complete or not."""
    if why := strange(folder):
        return iter([why])
    return _complete(folder) if (folder / "run.json").exists() else _unfinished(folder)


def _complete(folder: Path) -> Iterator[str]:
    try:
        stored = read_checked(folder)
    except (StoreError, OSError) as error:
        yield _said(error)
        return
    if not stored.get("imported", {"tickets": True})["tickets"]:
        return
    for name in stored["files"]:
        try:
            check_file(read_within(folder, name, TICKET_LIMIT), name, stored)
        except TicketError as error:
            yield f"{name}: {error}"
        except (StoreError, OSError) as error:
            yield _said(error)


def _unfinished(folder: Path) -> Iterator[str]:
    sealed: dict[str, str] = {}

    def inspect(name: str, content: bytes) -> None:
        if name == CHECKPOINT:
            sealed.update(_checkpoint(content, folder.name))
        elif hashlib.sha256(content).hexdigest() != sealed.get(name, ""):
            if name in sealed:
                raise StoreError("does not match its checksum")
            Ticket.from_bytes(content)

    def names() -> Iterator[str]:
        yield CHECKPOINT  # first: it says which others there are, and how they should be
        there = {path.relative_to(folder).as_posix() for path in own_files(folder)}
        yield from sorted(sealed.keys() | set(filter(FILE_NAME.fullmatch, there)))

    for name in names():
        try:
            inspect(name, read_within(folder, name, TICKET_LIMIT))
        except FileNotFoundError:
            if name in sealed:
                yield f"{name} is missing"
        except (StoreError, TicketError, ValueError, OSError) as error:
            yield f"{name}: {_said(error)}"


def _checkpoint(content: bytes, run_id: str) -> dict[str, str]:
    """The checksums of the files that a checkpoint rests on."""
    _, text = unseal(content, "checkpoint")
    place = json.loads(shallow(text.encode()))
    owner = str(place.get("owner")) if isinstance(place, dict) else ""
    run, _, rest = owner.partition("/")
    if run != run_id:
        raise StoreError(f"belongs to run {run!r}")
    # Fingerprints of the run's method and of its ancestors', in a chain.
    if not set(rest.partition("/")[0].split("-")) <= set(map(fingerprint, METHODS)):
        raise StoreError("was written by another version of the source")
    if not _checksums(place.get("files")):
        raise StoreError("names no files")
    return dict(place["files"])


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"cannot read {Path(str(error.filename)).name} ({error.strerror})"
    return str(error)


@dataclass(frozen=True)
class Needless:
    """Something in a store that nothing needs. kind: why, in words. size: bytes."""

    kind: str
    path: Path
    size: int


def collect(store: Store, remove: bool) -> list[Needless]:
    """What nothing in a store needs, and free it when `remove`: damaged runs that were moved aside,
    runs that would be computed again anyway, checkpoints and temporary files that a kill left, and
    the locks of dead owners.

    What a process is computing is left alone, and so is every run that the present source can
    use, and every imported one.
    """
    found: list[Needless] = []

    def take(needless: list[Needless]) -> None:
        if remove:
            _remove(needless)
        found.extend(needless)

    # First, so that there is room for locks.
    take([_sized("damaged, moved aside", path) for path in _within(store, "damaged")])
    locks = [path for path in _within(store, "runs") if _OLD_LOCK.fullmatch(path.name)]
    take([_sized("lock of an earlier version", path) for path in locks])
    staging = store.place(".import")
    if staging.exists():
        with _making_room(store, "import") as lease:
            take([_sized("unfinished import", staging)] if lease else [])
    for run_id in abandoned(store.place("locks")):
        with _making_room(store, run_id):
            pass  # takes over from an owner that is dead, and gives back
    for folder in map(Path, store.folders()):
        here = _needless(folder)
        if here and remove:
            with _making_room(store, folder.name) as lease:
                # Asked again, now that nobody can start the run.
                take(_needless(folder) if lease else [])
        elif not os.path.lexists(store.place("locks") / folder.name):
            found += here
    return found


def collect_cache(remove: bool) -> list[Needless]:
    """As `collect`, of the cache of decoded images: what writers left that were killed, and what no
    reader asks for any more."""
    found = []
    for kind, path in needless_entries():
        found.append(_sized(kind, path))
        if remove:
            _remove(found[-1:])
    return found


def _within(store: Store, name: str) -> list[Path]:
    place = store.place(name)
    return sorted(place.iterdir()) if place.exists() else []


def _needless(folder: Path) -> list[Needless]:
    if strange(folder):
        return []  # `verify` is about those, and about damaged ones
    own, stored = own_files(folder), None
    if (folder / "run.json").exists():
        try:
            stored = read_identified(folder)
        except (StoreError, OSError):
            return []
        if stored["source"] != _source(stored["config"]):
            return [_sized("computed by another version of the source", folder, own)]
    elif not (folder / CHECKPOINT).exists() or [*_unfinished(folder)]:
        foreign = not own and os.listdir(folder)
        return [] if foreign else [_sized("unfinished, cannot go on", folder, own)]
    kinds = {True: "temporary file", False: "checkpoint of a complete run"}
    return [
        _sized(kinds[bool(TEMPORARY.fullmatch(path.name))], path)
        for path in left_over(folder, stored)
    ]


def _source(values: Mapping[str, Any]) -> str:
    """As `store.source`, of plain values: 10,000 configurations take seconds to make."""
    own, parent = fingerprint(values["method"]), values["parent"]
    return f"{own}-{_source(parent['config'])}" if parent else own


def _sized(kind: str, path: Path, files: Iterable[Path] | None = None) -> Needless:
    if files is None:
        files = [path] if path.is_symlink() else [path, *path.rglob("*")]
    return Needless(kind, path, sum(p.lstat().st_size for p in files if not p.is_dir()))


def _remove(found: Iterable[Needless]) -> None:
    for one in found:
        try:
            if one.path.is_symlink() or not one.path.is_dir():
                one.path.unlink()
            elif RUN_ID.fullmatch(one.path.name):
                erase(one.path)
            else:
                shutil.rmtree(one.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"cannot free {one.path}: {error.strerror}") from None
