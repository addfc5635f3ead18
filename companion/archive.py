"""Runs as one file: a tar that another store takes in after checking all of it.

manifest.json comes first: the study, and name, size and SHA-256 of every other member. The rest are
the runs' own files under `runs/ID/`. Equal runs give equal bytes.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lthlib.errors import RecordError, StoreError, TicketError
from lthlib.files import (
    TICKET_LIMIT,
    from_json,
    open_regular,
    replacing,
    sealed,
    write_atomically,
)
from lthlib.leases import Lease
from lthlib.records import FILE_NAME, TEXT, Field, check
from lthlib.runs.config import RunConfig
from lthlib.runs.many import with_ancestors
from lthlib.runs.store import (
    RUN_ID,
    RUN_LIMIT,
    Store,
    source,
)
from lthlib.runs.upkeep import check_ticket, faults_of, read_checked
from lthlib.texts import visible

FORMAT = 1
_TAR = tarfile.USTAR_FORMAT
MANIFEST = "manifest.json"
_MANIFEST_LIMIT = 64 << 20
_CHUNK = 1 << 20
_MEMBER = re.compile(rf"runs/{RUN_ID.pattern}/(?:run\.json|{FILE_NAME.pattern})", re.ASCII)
_ABOUT = {
    "bytes": Field(
        f"a size up to {TICKET_LIMIT}", lambda v: type(v) is int and 0 < v <= TICKET_LIMIT
    ),
    "sha256": Field("64 hexadecimal digits", lambda v: bool(re.fullmatch("[0-9a-f]{64}", str(v)))),
}
_CONTENTS = {
    "format": Field(str(FORMAT), lambda value: value == FORMAT),
    "study": TEXT,
    "tickets": Field("true or false", lambda value: isinstance(value, bool)),
    "members": Field("an object", lambda value: isinstance(value, dict)),
}
# What a result is: not where, when and how fast it was computed.
_RESULT = ("judged", "status", "failure", "density", "kept", "total", "layers", "accuracy")


@dataclass(frozen=True)
class Taken:
    """What an import did with a run. outcome: `new`, `same` (the store had it), `kept` (for
    looking at: this source cannot use it), `busy` (somebody computes it), or `conflict`. why: for
    people, empty for `new` and `same`."""

    config: RunConfig
    outcome: str
    why: str = ""


def export_runs(
    store: Store, name: str, configs: Iterable[RunConfig], path: Path, tickets: bool = True
) -> int:
    """Write runs and all they rest on to a tar, atomically.

    name: of the study. tickets: with the tickets, without which the runs can be looked at and
    compared where they are imported, but nothing can start from them. Returns the number of runs.
    Raises StoreError when a run is not complete or does not match its checksums.
    """
    runs = with_ancestors(configs)
    members: dict[str, Path] = {}
    for config in sorted(runs, key=lambda config: config.id):
        folder = store.folder(config)
        if store.load(config) is None:
            raise StoreError(f"run {config.id} is not complete; `lth sweep` first")
        if faults := list(faults_of(folder)):
            raise StoreError(
                f"run {config.id}: {faults[0]}; `lth verify --repair` and `lth sweep` compute it "
                "again"
            )
        names = sorted(read_checked(folder)["files"]) if tickets else []
        members |= {f"runs/{config.id}/{name}": folder / name for name in ("run.json", *names)}
    contents = {"format": FORMAT, "study": name, "tickets": tickets}
    about = {member: _about(file) for member, file in members.items()}
    manifest = json.dumps({**contents, "members": about}, indent=1).encode()
    try:
        with replacing(path) as out, tarfile.open(fileobj=out, mode="w", format=_TAR) as tar:
            _add(tar, MANIFEST, len(manifest), io.BytesIO(manifest))
            for member, file in members.items():
                with file.open("rb") as opened:
                    _add(tar, member, about[member]["bytes"], opened)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from None
    return len(runs)


def _about(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(opened, "sha256").hexdigest(),
        }


def _add(tar: tarfile.TarFile, name: str, size: int, opened: BinaryIO) -> None:
    member = tarfile.TarInfo(name)  # its other fields, times and owners, are zero
    member.size = size
    tar.addfile(member, opened)


def import_runs(store: Store, path: Path) -> list[Taken]:
    """Take in the runs of an archive, each marked as imported; all of it is checked first.

    A run that the present source computed goes where it can be used, any other to `imported`, where
    it can be looked at. What the store has already is left as it is.

    Raises StoreError when the archive is not as `export_runs` writes it: then nothing is imported.
    """
    store.prepare()
    staging = store.place(".import")
    with store.alone("import") as lease:
        if lease is None:
            raise StoreError(f"another import into {store.root} is under way; wait for its end")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            configs = _unpack(path, staging)
            return _place_all(store, staging, configs.values())
        except (OSError, RecordError, StoreError, TicketError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"cannot import {path}: {why}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _unpack(path: Path, staging: Path) -> dict[str, RunConfig]:
    """Write the archive's files below `staging` as they are to be in the store; the runs, by id."""
    with open_regular(path) as archive:
        text = archive.read(_next(archive, MANIFEST, _MANIFEST_LIMIT))
        _skip_padding(archive, len(text))
        contents = _manifest(text)
        members = contents["members"]
        total = sum(own["bytes"] for own in members.values())
        if total > os.fstat(archive.fileno()).st_size:
            raise StoreError(f"{MANIFEST} names more bytes than the file has")
        if total > (free := shutil.disk_usage(staging.parent).free):
            raise StoreError(f"it needs {total:,} bytes, of which {free:,} are free")
        mark = {
            "archive": visible(path.name),
            "manifest": hashlib.sha256(text).hexdigest(),
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "tickets": contents["tickets"],
        }
        configs: dict[str, RunConfig] = {}
        stored: dict[str, Any] = {"id": None}
        for name, about in members.items():
            _, run_id, own = name.split("/", 2)
            _copy(archive, name, about, staging / name)
            if own == "run.json":
                stored = read_checked((staging / name).parent)
                configs[run_id] = RunConfig.from_json(stored["config"])
                wanted = [f"runs/{run_id}/{file}" for file in stored["files"]]
                if mark["tickets"] and (missing := set(wanted) - members.keys()):
                    raise StoreError(f"lacks {min(missing)}")
                write_atomically(staging / name, sealed({**stored, "imported": mark}))
            elif run_id != stored["id"]:
                raise StoreError(f"{name} comes before its run.json")
            else:
                check_ticket(staging / "runs" / run_id, own, stored)
        if archive.read(1024).strip(b"\0"):
            raise StoreError(f"holds more than its {MANIFEST} names")
    for run_id, config in configs.items():
        if config.parent is not None and config.parent.config.id not in configs:
            raise StoreError(f"lacks run {config.parent.config.id}, the parent of {run_id}")
    return configs


def _manifest(text: bytes) -> dict[str, Any]:
    try:
        contents: dict[str, Any] = from_json(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{MANIFEST} is not JSON ({error})") from None
    check(contents, _CONTENTS, MANIFEST)
    for name, about in contents["members"].items():
        if not _MEMBER.fullmatch(name):
            raise StoreError(f"{MANIFEST} names {name[:80]!r}, which is no file of a run")
        check(about, _ABOUT, MANIFEST, name)
        if name.endswith("/run.json") and about["bytes"] > RUN_LIMIT:
            raise StoreError(f"{name}: has {about['bytes']:,} bytes, more than {RUN_LIMIT:,}")
    return contents


def _next(archive: BinaryIO, name: str, limit: int) -> int:
    """The size of the archive's next member, which is to be the regular file `name`. Its header
    alone is left to tarfile: names, links, sizes and extensions of an archive are not to be
    trusted."""
    try:
        header = tarfile.TarInfo.frombuf(archive.read(tarfile.BLOCKSIZE), "ascii", "strict")
    except (tarfile.TarError, ValueError) as error:
        raise StoreError(f"{name}: no member of a tar where it was expected ({error})") from None
    if header.name != name or header.type != tarfile.REGTYPE:
        raise StoreError(f"found {header.name[:80]!r} where the file {name} was expected")
    if not 0 < header.size <= limit:
        raise StoreError(f"{name}: has {header.size} bytes, which is not what was expected")
    return header.size


def _copy(archive: BinaryIO, name: str, about: Mapping[str, Any], target: Path) -> None:
    """Write the archive's next member to a file, and compare it with what the list says of it."""
    left = size = _next(archive, name, about["bytes"])
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while left and (chunk := archive.read(min(left, _CHUNK))):
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != about["sha256"]:
        raise StoreError(f"{name}: does not match its checksum")
    _skip_padding(archive, size)


def _skip_padding(archive: BinaryIO, size: int) -> None:
    archive.read(-size % tarfile.BLOCKSIZE)


def _place_all(store: Store, staging: Path, configs: Iterable[RunConfig]) -> list[Taken]:
    taken: dict[str, Taken] = {}
    for config in with_ancestors(configs):
        parent = config.parent and taken[config.parent.config.id]
        if parent and parent.outcome in ("conflict", "busy"):
            why = f"its parent {parent.config.id} was not taken"
            taken[config.id] = Taken(config, parent.outcome, why)
            continue
        with store.alone(config.id) as lease:
            taken[config.id] = (
                _place(store, lease, staging / "runs" / config.id, config)
                if lease
                else Taken(config, "busy", "a process is computing it")
            )
    return list(taken.values())


def _place(store: Store, lease: Lease, folder: Path, config: RunConfig) -> Taken:
    stored = read_checked(folder)
    mark = stored["imported"]
    usable = mark["tickets"] and stored["source"] == source(stored["config"])
    other = hashlib.sha256(stored["source"].encode()).hexdigest()[:8]
    aside = store.place("imported") / f"{config.id}-{other}"
    for place in (store.folder(config), aside):
        there = _there(store, lease, place)
        if there is None or there["source"] != stored["source"]:
            continue
        if difference := _difference(there, stored):
            return Taken(config, "conflict", difference)
        if place != aside or not usable:
            return Taken(config, "same")
    target = store.folder(config) if usable else aside
    if os.path.lexists(target):
        store.set_aside(target, f"replaced by an import of {mark['archive']}", lease)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder, target)
    if usable:
        shutil.rmtree(aside, ignore_errors=True)
        return Taken(config, "new")
    without = "another version of the source computed it" if mark["tickets"] else "without tickets"
    return Taken(config, "kept", without)


def _there(store: Store, lease: Lease, folder: Path) -> dict[str, Any] | None:
    try:
        return read_checked(folder)
    except FileNotFoundError:
        return None
    except (StoreError, OSError) as error:
        store.set_aside(folder, str(error), lease)
        return None


def _difference(there: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    """How the results of two computations of a run differ, in words; empty if they do not."""
    if len(there["records"]) != len(stored["records"]):
        return f"{len(there['records'])} records here, {len(stored['records'])} in the archive"
    for here, new in zip(there["records"], stored["records"], strict=True):
        for name in _RESULT:
            if here[name] != new[name]:
                point = (here["ticket"] or {}).get("point")
                return f"{point}: {name} is {here[name]} here, {new[name]} in the archive"
    return ""
