"""Upkeep of a store: every kind of damage is found, moved aside, and computed again."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lthlib.checkpoints import save_checkpoint
from lthlib.files import sealed
from lthlib.leases import _host, hold
from lthlib.runs import Machine, RunConfig, Store, execute, upkeep
from lthlib.runs import store as store_module
from lthlib.runs.execution import build_trainer
from lthlib.runs.identity import identify
from lthlib.runs.store import source
from lthlib.runs.upkeep import collect, repair, verify
from tests.runs.toys import child, config

DENSE = config()
IMP = config("imp", settings={"rounds": 2, "fraction": 0.5, "rewind": "2it"})
OMP = child("omp", DENSE, settings={"density": 0.5})
CPU = Machine(device="cpu")


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a complete run, and one that stands at its checkpoint with a ticket judged."""
    store = Store(tmp_path_factory.mktemp("upkeep") / "store")
    execute(DENSE, store, CPU)
    execute(IMP, store, CPU)
    folder = store.folder(IMP)
    stored = json.loads((folder / "run.json").read_bytes())
    (folder / "run.json").unlink()
    trainer = build_trainer(IMP, CPU)
    trainer.records = {"round-0": stored["records"][0]}
    names = ("rewind.safetensors", "tickets/round-0.safetensors")
    trainer.files = {name: stored["files"][name] for name in names}
    owner = f"{IMP.id}/{source(IMP.to_json())}/cpu"
    save_checkpoint(trainer, folder / "checkpoint.safetensors", owner)
    return store.root


@pytest.fixture
def store(computed: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(computed, tmp_path / "a störe"))


def save(store: Store, run: RunConfig, owner: str) -> None:
    save_checkpoint(build_trainer(run, CPU), store.folder(run) / "checkpoint.safetensors", owner)


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(content) // 2] ^= 4
    return bytes(changed)


TOKEN = "0123" * 8
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a flipped bit": flipped,
    "a truncation": lambda content: content[: len(content) // 2],
    "a lost byte": lambda content: content[:-1],
    "an empty file": lambda content: b"",
    "another file": lambda content: b'{"schema": 1}',
    "deep nesting": lambda content: b"[" * 100_000,
}
COMPLETE = ("run.json", "rewind.safetensors", "tickets/dense.safetensors")
UNFINISHED = (
    "checkpoint.safetensors",
    "rewind.safetensors",
    "tickets/round-0.safetensors",
)


def test_a_sound_store_has_no_faults(store: Store) -> None:
    assert list(verify(store)) == []
    assert list(verify(Store(store.root / "nowhere"))) == []


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("run", "name"), [*((DENSE, n) for n in COMPLETE), *((IMP, n) for n in UNFINISHED)]
)
def test_damage_is_found_and_moved_aside(
    store: Store, run: RunConfig, name: str, damage: str
) -> None:
    path = store.folder(run) / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    found = list(verify(store))
    assert [run_id for run_id, _ in found] == [run.id]
    assert Path(name).name in found[0][1]
    assert repair(store, [run.id]) == [run.id]
    assert list(verify(store)) == []
    (kept,) = (store.root / "damaged").iterdir()
    assert (kept / "why.txt").read_text() == found[0][1]
    assert (kept / name).exists()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", COMPLETE)
def test_the_next_sweep_computes_what_was_moved_aside(store: Store, name: str, damage: str) -> None:
    before = store.load(DENSE)
    path = store.folder(DENSE) / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    repair(store, [DENSE.id])
    again = execute(DENSE, store, CPU)
    assert before is not None
    assert again.records[0]["ticket"] == before.records[0]["ticket"]
    assert list(verify(store)) == []


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("damaged", "name", "started"),
    [(IMP, name, IMP) for name in UNFINISHED] + [(DENSE, name, OMP) for name in COMPLETE],
)
def test_a_start_computes_again_what_is_damaged_its_own_or_its_parent_s(
    store: Store, damaged: RunConfig, name: str, started: RunConfig, damage: str
) -> None:
    path = store.folder(damaged) / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    assert execute(started, store, CPU).failure is None
    assert list(verify(store)) == []


def edited(store: Store, change: Callable[[dict[str, Any]], None], forged: bool = True) -> None:
    """Change run.json; forged: with a digest that fits."""
    path = store.folder(DENSE) / "run.json"
    stored = json.loads(path.read_bytes())
    change(stored)
    path.write_bytes(sealed(stored) if forged else json.dumps(stored).encode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.update(schema=2), "run.json has schema 2; this lthlib reads 1"),
        (lambda run: run.update(extra=1), "run.json: has unknown extra"),
        (lambda run: run.pop("history"), "run.json: lacks history"),
        (lambda run: run.update(records=[]), "records is [], expected a list of objects"),
        (lambda run: run["records"][0].update(density=2.0), "record 0: density is 2.0, expected"),
        (lambda run: run["records"][0].update(run="0" * 16), "a record in run.json belongs to"),
        (lambda run: run["config"].update(seed=1), f"run.json belongs to {config(seed=1).id}, not"),
        (lambda run: run["config"].update(threads="one"), "run.json belongs to "),
        (lambda run: run["files"].update({"../../x": "0" * 64}), "files is {"),
        (
            lambda run: run["files"].update({"tickets/x.safetensors": "0" * 64}),
            "tickets/x.safetensors is missing",
        ),
        (
            lambda run: run["records"][0]["ticket"].update(sha256="0" * 64),
            "tickets/dense.safetensors is not the ticket that was judged",
        ),
        (lambda run: run.update(files={}), "run.json names no ticket 'dense'"),
    ],
)
def test_a_forged_run_is_found(
    store: Store, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    edited(store, change)
    ((run_id, why),) = verify(store)
    assert run_id == DENSE.id
    assert said in why


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": "one"}, "threads is 'one'; expected int"),
        ({"settings": {"rewind": [2]}}, "rewind is [2]; expected epochs such as"),
        ({"unheard": 1}, "unknown name 'unheard'"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_found_under_its_own_id(
    store: Store, change: dict[str, Any], said: str
) -> None:
    stored = json.loads((store.folder(DENSE) / "run.json").read_bytes())
    values = stored["config"] | change
    stored |= {"config": values, "id": identify(values)}
    stored["records"] = [one | {"config": values, "run": stored["id"]} for one in stored["records"]]
    folder = shutil.copytree(store.folder(DENSE), store.root / "runs" / stored["id"])
    (folder / "run.json").write_bytes(sealed(stored))
    ((run_id, why),) = verify(store)
    assert run_id == stored["id"]
    assert said in why


@pytest.mark.parametrize(
    "foreign", [{"method": "lamp"}, {"parent": {"config": DENSE.to_json() | {"method": "lamp"}}}]
)
def test_a_run_of_a_method_that_is_not_here_is_left_as_it_is(
    store: Store, foreign: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is another branch's."""
    stored = json.loads((store.folder(DENSE) / "run.json").read_bytes())
    stored["config"] |= foreign
    stored["records"] = [one | {"config": stored["config"]} for one in stored["records"]]
    folder = shutil.copytree(store.folder(DENSE), store.root / "runs" / ("f" * 16))
    (folder / "run.json").write_bytes(sealed(stored))
    assert [run.config for run in store.load_each()] == [DENSE]
    assert "method is 'lamp', which this lthlib lacks; it has dense, imp" in caplog.text
    caplog.clear()
    assert list(verify(store)) == []
    assert f"run {'f' * 16}: method is 'lamp'" in caplog.text and "not checked" in caplog.text
    assert repair(store, {"f" * 16}) == []
    assert collect(store, remove=True) == []
    assert folder.is_dir() and not (store.root / "damaged").exists()


def test_a_run_in_whose_place_stands_a_method_that_is_not_here_is_computed(store: Store) -> None:
    def change(run: dict[str, Any]) -> None:
        for values in (run, *run["records"]):
            values["config"]["method"] = "lamp"

    edited(store, change)
    assert execute(DENSE, store, CPU).failure is None
    assert list(verify(store)) == []


def test_a_changed_number_does_not_match_the_digest(store: Store) -> None:
    edited(store, lambda run: run["records"][0]["accuracy"].update(test=99.9), forged=False)
    assert list(verify(store)) == [(DENSE.id, "run.json does not match its digest")]


def test_a_checkpoint_of_another_run_is_found(store: Store) -> None:
    save(store, IMP, f"{DENSE.id}/{source(IMP.to_json())}/cpu")
    assert list(verify(store)) == [(IMP.id, f"checkpoint.safetensors: belongs to run '{DENSE.id}'")]


def test_a_checkpoint_of_another_source_is_found(store: Store) -> None:
    save(store, IMP, f"{IMP.id}/{'0' * 16}/cpu")
    assert list(verify(store)) == [
        (IMP.id, "checkpoint.safetensors: was written by another version of the source")
    ]


def test_a_run_under_another_id_is_found(store: Store) -> None:
    other = config(seed=1)
    store.folder(DENSE).rename(store.folder(other))
    assert list(verify(store)) == [(other.id, f"run.json belongs to {DENSE.id}, not to {other.id}")]


def test_a_file_that_never_ends_is_not_read(store: Store) -> None:
    path = store.folder(DENSE) / "tickets" / "dense.safetensors"
    path.unlink()
    path.symlink_to("/dev/zero")
    assert list(verify(store)) == [(DENSE.id, "tickets/dense.safetensors is not a regular file")]


def kinds(store: Store, remove: bool = False) -> dict[str, int]:
    """What there is to free: how many places of each kind."""
    return dict(Counter(one.kind for one in collect(store, remove)))


def everything(store: Store) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in store.root.rglob("*") if p.is_file()}


def litter(store: Store) -> None:
    """One of everything that nothing needs."""
    execute(config(seed=1), store, CPU)
    store.set_aside(store.folder(config(seed=1)), "a test")
    for name in ("checkpoint.safetensors", f".run.json.{TOKEN}"):
        (store.folder(DENSE) / name).write_bytes(b"left over")
    (store.folder(IMP) / "tickets" / f".round-1.safetensors.{TOKEN}").write_bytes(b"left over")
    hopeless = store.folder(config(seed=2))
    hopeless.mkdir()
    (hopeless / "progress.json").write_bytes(b"{}")
    (store.root / ".import" / "runs").mkdir(parents=True)
    dead = store.root / "locks" / DENSE.id
    dead.mkdir(parents=True)
    (dead / TOKEN).write_text(json.dumps({"host": _host(), "pid": 2**22 + 1}))


LITTER = {
    "damaged, moved aside": 1,
    "unfinished import": 1,
    "checkpoint of a complete run": 1,
    "temporary file": 2,
    "unfinished, cannot go on": 1,
}


def test_a_tidy_store_has_nothing_to_free(store: Store) -> None:
    before = everything(store)
    assert kinds(store, remove=True) == {}
    assert everything(store) == before


def test_what_nothing_needs_is_shown_and_then_freed(store: Store) -> None:
    before = everything(store)
    litter(store)
    littered = everything(store)
    assert kinds(store) == LITTER
    assert set(everything(store)) == {p for p in littered if "locks" not in p}
    assert kinds(store, remove=True) == LITTER
    assert kinds(store) == {}
    assert everything(store) == before
    # What was there still serves: the checkpoint too.
    assert list(verify(store)) == []


def test_runs_of_another_source_are_freed_with_all_they_hold(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store_module.fingerprint
    monkeypatch.setattr(store_module, "fingerprint", lambda method: before(method)[::-1])
    monkeypatch.setattr(upkeep, "fingerprint", store_module.fingerprint)
    with monkeypatch.context() as patch:
        patch.setattr("lthlib.leases.Lease.take", lambda lease: pytest.fail("took a lock"))
        shown = {one.kind: one.size for one in collect(store, remove=False)}
    found = {one.kind: one.size for one in collect(store, remove=True)}
    assert shown == found
    assert found.keys() == {
        "computed by another version of the source",
        "unfinished, cannot go on",
    }
    assert all(size > 10_000 for size in found.values())
    assert list(store.root.glob("runs/*")) == []


def test_what_a_process_computes_is_not_freed(store: Store) -> None:
    litter(store)
    shutil.rmtree(store.root / "locks")
    (store.folder(IMP) / "checkpoint.safetensors").unlink()
    with hold(store.root / "locks" / DENSE.id), hold(store.root / "locks" / IMP.id):
        before = everything(store)
        assert (
            kinds(store)
            == kinds(store, remove=True)
            == {
                name: count
                for name, count in LITTER.items()
                if name not in ("checkpoint of a complete run", "temporary file")
            }
        )
        after = everything(store)
    for run in (DENSE, IMP):
        assert {p for p in before if run.id in p and "runs/" in p and "lock" not in p} <= set(after)


@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT])
def test_room_is_made_where_there_is_none_for_a_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    litter(store)
    path = store.folder(DENSE) / "rewind.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    def write_bytes(self: Path, content: bytes) -> None:
        raise OSError(full, "no room")

    def flush(handle: int) -> None:
        raise OSError(full, "no room")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(os, "fsync", flush)
    assert kinds(store, remove=True) == LITTER
    assert kinds(store) == {}
    assert repair(store, [DENSE.id]) == [DENSE.id]
    assert list(verify(store)) == []


def test_a_missing_piece_of_an_unfinished_run_is_found(store: Store) -> None:
    name = "tickets/round-0.safetensors"
    (store.folder(IMP) / name).unlink()
    assert list(verify(store)) == [(IMP.id, f"{name} is missing")]
    assert execute(IMP, store, CPU).failure is None
    assert list(verify(store)) == []


@pytest.mark.parametrize("name", ["rewind.safetensors", "tickets/round-0.safetensors"])
def test_another_run_s_piece_of_an_unfinished_run_is_found(store: Store, name: str) -> None:
    other = config("imp", settings={"rounds": 2, "fraction": 0.5, "rewind": "2it"}, seed=1)
    execute(other, store, CPU)
    shutil.copy(store.folder(other) / name, store.folder(IMP) / name)
    assert list(verify(store)) == [(IMP.id, f"{name} does not match its checksum")]
    execute(IMP, store, CPU)
    again = Store(store.root / "again")
    execute(IMP, again, CPU)
    assert (store.folder(IMP) / name).read_bytes() == (again.folder(IMP) / name).read_bytes()


def test_a_failed_run_keeps_its_last_good_checkpoint(store: Store) -> None:
    wild = config(training={"learning_rate": 1e9, "schedule": "constant", "length": "11it"})
    assert execute(wild, store, CPU).failure is not None
    (store.folder(wild) / "checkpoint.safetensors").write_bytes(b"the last good one")
    assert kinds(store) == {}
