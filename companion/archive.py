"""Runs as one file: a tar that another store takes in after checking all of it.

manifest.json comes first: the study, name, size and SHA-256 of every other member, and the
configurations of unfinished runs. The rest are the runs' own files under `runs/ID/`, each of which
holds, or is named with, its checksum. Equal runs give equal bytes.
"""

import contextlib
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
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from lthlib.checkpoints import read_checkpoint
from lthlib.errors import LthlibError, StoreError
from lthlib.files import (
    TICKET_LIMIT,
    from_json,
    load,
    open_regular,
    patiently,
    read_within,
    replacing,
    sealed,
    write_atomically,
)
from lthlib.leases import Lease
from lthlib.records import FILE_NAME, OBJECT, TEXT, TRUTH, check, validate_unpublished
from lthlib.runs.config import RunConfig
from lthlib.runs.many import with_ancestors
from lthlib.runs.store import (
    CHECKPOINT,
    RUN_ID,
    RUN_LIMIT,
    Store,
    check_identity,
    owner_parts,
    source,
)
from lthlib.runs.upkeep import check_ticket, faults_of, read_checked
from lthlib.settings import Field
from lthlib.texts import visible

FORMAT = 1
MANIFEST = "manifest.json"
_LIMITS = {MANIFEST: 64 << 20, "run.json": RUN_LIMIT}  # of all others, a ticket's
_CHUNK = 1 << 20
_OWN = rf"run\.json|{re.escape(CHECKPOINT)}|{FILE_NAME.pattern}"
_MEMBER = re.compile(rf"runs/{RUN_ID.pattern}/(?:{_OWN})", re.ASCII)
_CONTENTS = {
    "format": Field(str(FORMAT), lambda value: value == FORMAT),
    "study": TEXT,
    "tickets": TRUTH,
    "members": OBJECT,
    "unfinished": OBJECT,
}
# What a result is: not where, when and how fast it was computed.
_RESULT = ("judged", "status", "failure", "density", "kept", "total", "layers", "accuracy")


@dataclass(frozen=True)
class Taken:
    """What an import did with a run.

    Attributes:
        config: the run's.
        outcome: `new`, `begun` (it goes on from its checkpoint), `same` (the store had it, or had
            come further), `kept` (for looking at: this source cannot use it), `anew` (unfinished,
            and this source cannot go on from it), `busy` (somebody computes it), or `conflict`.
        why: for people, empty for the first three.
    """

    config: RunConfig
    outcome: str
    why: str = ""


def export_runs(
    store: Store,
    name: str,
    configs: Iterable[RunConfig],
    path: Path,
    tickets: bool = True,
    unfinished: bool = False,
) -> int:
    """Write runs and all they rest on to a tar, atomically.

    Args:
        store: that holds them.
        name: of the study.
        configs: the runs.
        path: of the tar.
        tickets: with the tickets, without which the runs can be looked at and compared where they
            are imported, but nothing can start from them.
        unfinished: take the checkpoints of runs that are not complete; those that have none are
            left out.

    Returns:
        The number of runs in it.

    Raises:
        StoreError: a run is not complete, does not match its checksums, or is being computed.
    """
    if unfinished and not tickets:
        raise StoreError("an unfinished run goes on from its tickets; export with them")
    members: dict[str, Path] = {}
    contents: dict[str, Any] = {"format": FORMAT, "study": name, "tickets": tickets}
    with contextlib.ExitStack() as stack:
        for config in sorted(with_ancestors(configs), key=lambda config: config.id):
            folder = store.folder(config)
            begun = store.load(config) is None
            if begun:
                if not unfinished:
                    raise StoreError(
                        f"run {config.id} is not complete; `lth sweep` first, or export it with "
                        "--unfinished"
                    )
                if (folder / "run.json").exists() or not (folder / CHECKPOINT).exists():
                    continue
                if stack.enter_context(store.alone(config.id)) is None:
                    raise StoreError(f"run {config.id} is being computed; stop it first")
                contents.setdefault("unfinished", {})[config.id] = config.to_json()
            if faults := list(faults_of(folder)):
                raise StoreError(
                    f"run {config.id}: {faults[0]}; `lth verify --repair` and `lth sweep` compute "
                    "it again"
                )
            stored = _read_begun(folder) if begun else read_checked(folder)
            for file in (CHECKPOINT if begun else "run.json", *sorted(stored["files"])):
                if tickets or file == "run.json":
                    members[f"runs/{config.id}/{file}"] = folder / file
        try:
            _write_tar(path, contents, members)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from None
    return len({member.split("/")[1] for member in members})


def _write_tar(path: Path, contents: dict[str, Any], members: Mapping[str, Path]) -> None:
    digests: dict[str, dict[str, Any]] = {}
    for name, file in members.items():
        content = file.read_bytes()
        digests[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = json.dumps({**contents, "members": digests}, indent=1).encode()
    # Read again, one at a time: they may be too many for memory.
    files = ((name, file.read_bytes()) for name, file in members.items())
    with (
        replacing(path) as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in chain([(MANIFEST, manifest)], files):
            member = tarfile.TarInfo(name)  # its other fields, times and owners, are zero
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def import_runs(store: Store, path: Path) -> list[Taken]:
    """Take in the runs of an archive, each marked as imported; all of it is checked first.

    A run that the present source computed goes where it can be used, any other to `imported`, where
    it can be looked at; an unfinished one goes on from its checkpoint, if the present source wrote
    it and the store has come no further. What the store has already is left as it is.

    Args:
        store: that takes them in.
        path: of the archive.

    Returns:
        What was done with each run, parents before children.

    Raises:
        StoreError: the archive is not as `export_runs` writes it, or another import is under way;
            then nothing is imported.
    """
    store.prepare()
    staging = store.place(".import")
    with store.alone("import") as lease:
        if lease is None:
            raise StoreError(f"another import into {store.root} is under way; wait for its end")
        shutil.rmtree(staging, ignore_errors=True)
        try:
            with open_regular(path) as archive:
                names = _unpack(archive, staging)
            configs = _checked_configs(staging, names, visible(path.name))
            return _place_all(store, staging, configs.values(), visible(path.name))
        except (OSError, LthlibError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StoreError(f"cannot import {path}: {reason}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _unpack(archive: BinaryIO, staging: Path) -> set[str]:
    """Write the archive's files below `staging`; returns their names."""
    # The headers alone are left to tarfile: names, links, sizes and extensions of an archive are
    # not to be trusted.
    names: set[str] = set()
    length = os.fstat(archive.fileno()).st_size
    if length > (free := shutil.disk_usage(staging.parent).free):
        raise StoreError(f"it needs {length:,} bytes, of which {free:,} are free")
    while any(block := archive.read(tarfile.BLOCKSIZE)) or not names:
        try:
            header = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise StoreError(f"no member of a tar where one was expected ({error})") from None
        name, size = header.name, header.size
        fits = _MEMBER.fullmatch(name) if names else name == MANIFEST
        if header.type != tarfile.REGTYPE or not fits or name in names:
            raise StoreError(f"holds {name[:80]!r} where a file of a run was expected")
        limit = min(_LIMITS.get(name.rpartition("/")[2], TICKET_LIMIT), length - archive.tell())
        if not 0 < size <= limit:
            raise StoreError(f"{name}: has {size:,} bytes, more than {limit:,}")
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        with (staging / name).open("xb") as file:
            for start in range(0, size, _CHUNK):
                file.write(archive.read(min(_CHUNK, size - start)))
            file.flush()
            os.fsync(file.fileno())
        archive.seek(-size % tarfile.BLOCKSIZE, os.SEEK_CUR)
        names.add(name)
    if not block or archive.read(2 * tarfile.BLOCKSIZE).strip(b"\0"):
        raise StoreError("does not end as a tar does")
    return names


def _checked_configs(staging: Path, names: set[str], archive: str) -> dict[str, RunConfig]:
    """Check all that was unpacked, by what the store itself would check; the runs, by id."""
    text = read_within(staging, MANIFEST, _LIMITS[MANIFEST])
    contents = load(staging / MANIFEST, from_json, "the list", StoreError, len(text))
    check(contents, OBJECT, MANIFEST, "what it holds")
    contents = {"unfinished": {}, **contents}
    check(contents, _CONTENTS, MANIFEST)
    if differing := {MANIFEST, *contents["members"]} ^ names:
        raise StoreError(f"{MANIFEST} and the files differ in {min(differing)[:80]!r}")
    mark = {
        "archive": archive,
        "manifest": hashlib.sha256(text).hexdigest(),
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tickets": contents["tickets"],
    }
    configs: dict[str, RunConfig] = {}
    for run_id in sorted({name.split("/")[1] for name in names - {MANIFEST}}):
        folder = staging / "runs" / run_id
        begun = run_id in contents["unfinished"]
        for file, expected in (("run.json", not begun), (CHECKPOINT, begun)):
            if (f"runs/{run_id}/{file}" in names) != expected:
                raise StoreError(f"{'lacks' if expected else 'holds'} runs/{run_id}/{file}")
        if begun:
            configs[run_id] = RunConfig.from_json(contents["unfinished"][run_id])
            _check_begun(folder, configs[run_id])
            continue
        stored = read_checked(folder)
        configs[run_id] = RunConfig.from_json(stored["config"])
        write_atomically(folder / "run.json", sealed({**stored, "imported": mark}))
        for fault in faults_of(folder):
            raise StoreError(f"run {run_id}: {fault}")
    for run_id, config in configs.items():
        if config.parent is not None and config.parent.config.id not in configs:
            raise StoreError(f"lacks run {config.parent.config.id}, the parent of {run_id}")
    return configs


def _check_begun(folder: Path, config: RunConfig) -> None:
    """Check a checkpoint, and what it rests on, as if it were a complete run."""
    state = _read_begun(folder)
    stored = state | {"id": config.id, "config": config.to_json(), "failure": None}
    stored["records"] = list(state["records"].values())
    if config.id != folder.name or state["run"] != folder.name:
        raise StoreError(f"run {folder.name}: {CHECKPOINT} belongs to run {state['run']}")
    for point, record in state["records"].items():
        validate_unpublished(record, f"run {folder.name}, {CHECKPOINT}")
        if record["status"] != "ok" or record["ticket"]["point"] != point:
            raise StoreError(f"run {folder.name}: {CHECKPOINT} holds no ticket {point[:80]!r}")
    if not all(map(OBJECT.check, state["history"])):
        raise StoreError(f"run {folder.name}: the history in {CHECKPOINT} is no list of objects")
    if stored["records"]:
        check_identity(stored, folder.name)
    for name in state["files"]:
        check_ticket(folder, name, stored)


def _read_begun(folder: Path) -> dict[str, Any]:
    """What the checkpoint in a run's folder says, and whose it is."""
    state, _ = read_checkpoint(read_within(folder, CHECKPOINT, TICKET_LIMIT))
    run_id, written_by, device = owner_parts(state["owner"])
    return state | {"run": run_id, "source": written_by, "device": device}


def _place_all(
    store: Store, staging: Path, configs: Iterable[RunConfig], archive: str
) -> list[Taken]:
    taken: dict[str, Taken] = {}
    for config in with_ancestors(configs):
        parent = config.parent and taken[config.parent.config.id]
        with store.alone(config.id) as lease:
            if parent and parent.outcome in ("conflict", "busy"):
                outcome = (parent.outcome, f"its parent {parent.config.id} was not taken")
            elif lease is None:
                outcome = ("busy", "a process is computing it")
            else:
                folder = staging / "runs" / config.id
                take = _take_complete if (folder / "run.json").exists() else _take_begun
                outcome = take(store, lease, folder, config, f"replaced by an import of {archive}")
        taken[config.id] = Taken(config, *outcome)
    return list(taken.values())


def _take_complete(
    store: Store, lease: Lease, folder: Path, config: RunConfig, replaced: str
) -> tuple[str, str]:
    stored = read_checked(folder)
    tickets = stored["imported"]["tickets"]
    usable = tickets and stored["source"] == source(stored["config"])
    origin = hashlib.sha256(stored["source"].encode()).hexdigest()[:8]
    aside = store.place("imported") / f"{config.id}-{origin}"
    for target in (store.folder(config), aside):
        try:
            present = read_checked(target)
        except FileNotFoundError:
            continue
        except (StoreError, OSError) as error:
            store.set_aside(target, str(error), lease)
            continue
        if present["source"] != stored["source"]:
            continue
        if difference := _difference(present, stored):
            return "conflict", difference
        if target != aside or not usable:
            return "same", ""
    _move(store, lease, folder, store.folder(config) if usable else aside, replaced)
    if usable:
        shutil.rmtree(aside, ignore_errors=True)
        return "new", ""
    return "kept", "another version of the source computed it" if tickets else "without tickets"


def _take_begun(
    store: Store, lease: Lease, folder: Path, config: RunConfig, replaced: str
) -> tuple[str, str]:
    new = _read_begun(folder)
    target = store.folder(config)
    if new["source"] != source(config.to_json()):
        return "anew", "another version of the source wrote its checkpoint"
    if store.load(config) is not None:
        return "same", ""
    with contextlib.suppress(OSError, LthlibError):  # there is none, or a damaged one
        old = _read_begun(target)
        further = old["device"] != new["device"] or old["cost"]["images"] >= new["cost"]["images"]
        if old["source"] == new["source"] and further:
            return "same", ""
    _move(store, lease, folder, target, replaced)
    return "begun", ""


def _move(store: Store, lease: Lease, folder: Path, target: Path, replaced: str) -> None:
    if os.path.lexists(target):
        store.set_aside(target, replaced, lease)
    target.parent.mkdir(parents=True, exist_ok=True)
    patiently(os.replace, folder, target)


def _difference(present: Mapping[str, Any], imported: Mapping[str, Any]) -> str:
    """How the results of two computations of a run differ, in words; empty if they do not."""
    if len(present["records"]) != len(imported["records"]):
        return f"{len(present['records'])} records here, {len(imported['records'])} in the archive"
    for old, new in zip(present["records"], imported["records"], strict=True):
        for name in _RESULT:
            if old[name] != new[name]:
                point = (old["ticket"] or {}).get("point")
                return f"{point}: {name} is {old[name]} here, {new[name]} in the archive"
    return ""
