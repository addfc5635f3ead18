"""Nothing in a store follows a link out of it, and nothing is removed that lthlib did not name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from companion.archive import export_runs, import_runs
from lthlib.errors import LthlibError, StoreError
from lthlib.runs import Machine, Store, execute, upkeep
from lthlib.runs import store as store_module
from lthlib.runs.upkeep import collect, repair, verify
from tests.runs.toys import child, config

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes of POSIX")
DENSE = config()
OMP = child("omp", DENSE, settings={"density": 0.5})
CPU = Machine(device="cpu")
TOKEN = "0123" * 8
# What the user has elsewhere, named as files of a store are.
MINE = (
    *(".bashrc", f".run.json.{TOKEN}", TOKEN, "run.json", "rewind.safetensors"),
    *("checkpoint.safetensors", "progress.json", "why.txt", "tickets/dense.safetensors"),
    *(f"tickets/.x.{TOKEN}", "sub/.hidden"),
)
LINKED = (
    *("runs", "locks", "damaged", "imported", ".import", ".writable", "runs/ID", "runs/ID/tickets"),
    *("runs/ID/run.json", "runs/ID/checkpoint.safetensors", "runs/ID/.git"),
    *("runs/ID/rewind.safetensors", f"runs/ID/.run.json.{TOKEN}", "locks/ID", "locks/import"),
    *(f"locks/.ID.{TOKEN}", "damaged/ID.0", "runs/ID/tickets/dense.safetensors"),
)


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("links")
    store = Store(folder / "store")
    execute(OMP, store, CPU)
    export_runs(store, "toy", [OMP], folder / "toy.tar")
    return folder


@pytest.fixture
def store(computed: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(computed / "store", tmp_path / "store"))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for name in MINE:
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_text(f"my own {name}")
    return tmp_path / "mine"


def held(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def replaced(store: Store, name: str) -> Path:
    """A place of the store with nothing there."""
    path = store.root / name.replace("ID", DENSE.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    return path


@pytest.mark.parametrize("name", LINKED)
def test_no_command_touches_what_a_link_names(
    store: Store, mine: Path, computed: Path, name: str
) -> None:
    path = replaced(store, name)
    is_file = path.suffix in (".json", ".safetensors", ".writable")
    path.symlink_to(mine / (path.name if path.name in MINE else ".bashrc") if is_file else mine)
    commands: list[Callable[[], object]] = [
        lambda: list(store.load_each()),
        lambda: list(verify(store)),
        lambda: execute(OMP, store, CPU),
        lambda: store.set_aside(store.folder(DENSE), "a test"),
        lambda: repair(store, {DENSE.id, OMP.id}),
        lambda: import_runs(store, computed / "toy.tar"),
        lambda: collect(store, remove=True),
    ]
    before = held(mine)
    for command in commands:
        try:
            command()
        except LthlibError as error:
            assert str(error)
        assert held(mine) == before


@pytest.mark.parametrize("name", ["runs/ID", "runs/ID/tickets", "runs/ID/run.json"])
def test_a_run_that_is_a_link_or_holds_one_is_found_and_computed_again(
    store: Store, tmp_path: Path, name: str
) -> None:
    path = store.root / name.replace("ID", DENSE.id)
    (tmp_path / "elsewhere").mkdir()
    path.rename(tmp_path / "elsewhere" / path.name)
    path.symlink_to(tmp_path / "elsewhere" / path.name)
    ((run_id, why),) = verify(store)
    assert run_id == DENSE.id
    assert "symbolic link" in why or "not a regular file" in why
    with store.lock(DENSE):
        assert not store.folder(DENSE).exists()
    assert execute(OMP, store, CPU).failure is None
    assert list(verify(store)) == []


@pytest.mark.parametrize("name", ["runs", "locks", "damaged", "imported"])
def test_a_folder_of_the_store_that_is_a_link_is_refused(
    store: Store, mine: Path, name: str
) -> None:
    replaced(store, name).symlink_to(mine)
    with pytest.raises(StoreError, match=rf"{name} is no folder, or a symbolic link"):
        store.place(name)


def test_the_store_itself_may_be_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(store.root)
    linked = Store(tmp_path / "link")
    assert execute(config(seed=1), linked, CPU).failure is None
    assert len(list(store.load_each())) == 3


PIPES = ("runs/ID", "runs/ID/tickets", "runs/ID/run.json", "runs/ID/rewind.safetensors", "locks/ID")


@pytest.mark.parametrize("name", [*PIPES, "runs", "locks", ".writable"])
def test_a_pipe_in_a_store_keeps_nobody_waiting(store: Store, name: str) -> None:
    os.mkfifo(replaced(store, name))
    commands: list[Callable[[], object]] = [
        lambda: list(store.load_each()),
        lambda: list(verify(store)),
        lambda: execute(OMP, store, CPU),
        lambda: repair(store, {DENSE.id}),
        lambda: collect(store, remove=True),
    ]
    for command in commands:
        try:
            command()
        except LthlibError as error:
            assert str(error)


KEPT = (
    ".ipynb_checkpoints/x.json",
    ".git/config",
    "notes.txt",
    ".run.json.swp",
    "tickets/.DS_Store",
)


@pytest.mark.parametrize("state", ["complete", "stale", "absent"])
def test_what_lthlib_did_not_name_stays(
    store: Store, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.folder(DENSE)
    if state == "absent":
        shutil.rmtree(folder)
    if state == "stale":
        before = store_module.fingerprint
        for module in (store_module, upkeep):
            monkeypatch.setattr(module, "fingerprint", lambda method: before(method)[::-1])
    for name in KEPT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    (folder / f".run.json.{TOKEN}").write_text("a killed owner's")
    collect(store, remove=True)
    assert execute(OMP, store, CPU).failure is None
    collect(store, remove=True)
    assert not (folder / f".run.json.{TOKEN}").exists()
    assert {name for name in KEPT if (folder / name).exists()} == set(KEPT)
    assert list(verify(store)) == []


@pytest.mark.parametrize("content", [b'{"host": "\xff"}', b"", b"[]", b"\x00" * 5000])
def test_a_lock_may_hold_any_bytes(store: Store, content: bytes) -> None:
    lock = store.root / "locks" / DENSE.id
    lock.mkdir(parents=True)
    (lock / TOKEN).write_bytes(content)
    store.prepare()
    assert list(verify(store)) == []
    assert collect(store, remove=True) == []
    assert repair(store, {DENSE.id}) == []
    assert execute(config(seed=1), store, CPU).failure is None
