"""Looking after a store: a run's file read without trusting it, all damage found, room made."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lthlib.data import needless_entries
from lthlib.errors import ConfigError, RecordError, StoreError, TicketError
from lthlib.files import from_json, read_bounded, shallow
from lthlib.leases import Lease, hold_if_free
from lthlib.methods import METHODS
from lthlib.records import TEXT, Field, check, validate_unpublished
from lthlib.runs.config import RunConfig
from lthlib.runs.store import SCHEMA, Store, digest_of, source
from lthlib.source import fingerprint
from lthlib.tickets import FILE_LIMIT, POINT, Ticket, unseal

RUN_LIMIT = 64 << 20
ID_LENGTH = 16
RUN_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")
FILE_NAME = re.compile(rf"rewind\.safetensors|tickets/{POINT.pattern}\.safetensors", re.ASCII)
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
        # A history may hold numbers that are not finite, so `from_json` would refuse too much.
        stored = json.loads(shallow(content))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"run.json is not JSON ({error})") from None
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA:
        found = stored.get("schema") if isinstance(stored, dict) else None
        raise StoreError(f"run.json has schema {found!r}; this lthlib reads {SCHEMA}")
    if stored.get("digest") != digest_of(stored):
        raise StoreError("run.json does not match its digest")
    try:
        imported = {"imported": _IMPORTED} if "imported" in stored else {}
        check(stored, _RUN | imported, "run.json")
        config = RunConfig.from_json(stored["config"])
        for number, record in enumerate(stored["records"]):
            validate_unpublished(record, f"run.json, record {number}")
    except (RecordError, ConfigError) as error:
        raise StoreError(str(error)) from None
    if not stored["id"] == config.id == run_id:
        raise StoreError(f"run.json belongs to {config.id}, not to {run_id}")
    for record in stored["records"]:
        if (record["run"], record["config"]) != (run_id, stored["config"]):
            raise StoreError("a record in run.json belongs to another run")
        if record["status"] == "ok" and ticket_file(record["ticket"]) not in stored["files"]:
            raise StoreError(f"run.json names no ticket {record['ticket']['point']!r}")
    return stored


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


def ticket_file(about: Mapping[str, Any]) -> str:
    """Name of a ticket's file in its run's folder. about: what a record says of the ticket."""
    return f"tickets/{about['point']}.safetensors"


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
        with alone(store, folder.name[:ID_LENGTH]) as lease:
            if lease and (found := list(faults_of(folder))):
                store.set_aside(folder, "; ".join(found), lease)
                moved.append(folder.name)
    return moved


def alone(store: Store, run_id: str) -> contextlib.AbstractContextManager[Lease | None]:
    """Keep others from writing a run while the body runs; None when one is doing so already."""
    return hold_if_free(store.root / "locks" / run_id)


def _folders(store: Store) -> list[Path]:
    found = [*store.root.glob("runs/*/"), *store.root.glob("imported/*/")]
    return sorted(folder for folder in found if RUN_ID.match(folder.name))


def faults_of(folder: Path) -> Iterator[str]:
    """What is wrong with a run's folder, complete or not."""
    return _complete(folder) if (folder / "run.json").exists() else _unfinished(folder)


def _complete(folder: Path) -> Iterator[str]:
    try:
        stored = read_run(read_bounded(folder / "run.json", RUN_LIMIT), folder.name[:ID_LENGTH])
    except (StoreError, OSError) as error:
        yield _said(error)
        return
    if not stored.get("imported", {"tickets": True})["tickets"]:
        return
    for name in stored["files"]:
        try:
            check_file(read_bounded(folder / name, FILE_LIMIT), name, stored)
        except TicketError as error:
            yield f"{name}: {error}"
        except (StoreError, OSError) as error:
            yield _said(error)


def _unfinished(folder: Path) -> Iterator[str]:
    checks = {
        "checkpoint.safetensors": lambda content: _check_checkpoint(content, folder.name),
        "judged/*.json": lambda content: validate_unpublished(
            from_json(content), "a judged ticket"
        ),
        "tickets/*.safetensors": Ticket.from_bytes,
        "rewind.safetensors": Ticket.from_bytes,
    }
    for pattern, inspect in checks.items():
        for path in sorted(folder.glob(pattern)):
            try:
                inspect(read_bounded(path, FILE_LIMIT))
            except FileNotFoundError:
                continue  # whoever computes the run has just replaced it
            except (StoreError, TicketError, RecordError, ValueError, OSError) as error:
                yield f"{path.relative_to(folder)}: {_said(error)}"


def _check_checkpoint(content: bytes, run_id: str) -> None:
    _, text = unseal(content, "checkpoint")
    place = json.loads(shallow(text.encode()))
    owner = str(place.get("owner")) if isinstance(place, dict) else ""
    run, _, rest = owner.partition("/")
    if run != run_id:
        raise StoreError(f"belongs to run {run!r}")
    # Fingerprints of the run's method and of its ancestors', in a chain.
    if not set(rest.partition("/")[0].split("-")) <= set(map(fingerprint, METHODS)):
        raise StoreError("was written by another version of the source")


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
    found = [_sized("damaged, moved aside", path) for path in store.root.glob("damaged/*")]
    found += [_sized("lock of an earlier version", path) for path in store.root.glob("runs/*.lock")]
    with alone(store, "import") as lease:
        found += [_sized("unfinished import", p) for p in store.root.glob(".import") if lease]
        if remove:
            _remove(found)
    for path in store.root.glob("locks/*"):
        with alone(store, path.name):
            pass  # takes over from an owner that is dead, and gives back
    for folder in store.root.glob("runs/*/"):
        # Asked again when nobody can start the run in between.
        if not (RUN_ID.fullmatch(folder.name) and _needless(folder)):
            continue
        with alone(store, folder.name) as lease:
            here = _needless(folder) if lease else []
            if remove:
                _remove(here)
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


def _needless(folder: Path) -> list[Needless]:
    if not (folder / "run.json").exists():
        resumable = (folder / "checkpoint.safetensors").exists() and not [*_unfinished(folder)]
        left = [] if resumable else [_sized("unfinished, cannot go on", folder)]
        return left or [_sized("temporary file", path) for path in folder.rglob(".*")]
    try:
        stored = read_run(read_bounded(folder / "run.json", RUN_LIMIT), folder.name)
    except (StoreError, OSError):
        return []  # `verify` is about those
    if stored["source"] != source(RunConfig.from_json(stored["config"])):
        return [_sized("computed by another version of the source", folder)]
    # A failed run keeps its last good checkpoint.
    names = ("checkpoint.safetensors",) if stored["failure"] is None else ()
    over = [folder / name for name in (*names, "progress.json", "judged")]
    return [
        *(_sized("checkpoint of a complete run", path) for path in over if path.exists()),
        *(_sized("temporary file", path) for path in folder.rglob(".*")),
    ]


def _sized(kind: str, path: Path) -> Needless:
    files = path.rglob("*") if path.is_dir() else [path]
    return Needless(kind, path, sum(p.lstat().st_size for p in files if not p.is_dir()))


def _remove(found: Iterable[Needless]) -> None:
    for one in found:
        # First what makes a run complete, so that none is half-true.
        for path in (one.path / "run.json", one.path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    path.unlink()
