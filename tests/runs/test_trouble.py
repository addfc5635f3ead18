"""Disks that are full, stores that cannot be written, and runs that another process takes over."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lthlib.errors import LeaseLost, StoreError
from lthlib.leases import Lease
from lthlib.runs import Machine, Store, execute
from lthlib.runs.execution import _Execution
from lthlib.runs.upkeep import verify
from lthlib.tickets import Ticket
from lthlib.training import Trainer
from tests.runs.test_store import without_times
from tests.runs.toys import child, config

OFTEN = Machine("cpu", checkpoint_every=0)
IMP = config(
    "imp", training={"length": "12it"}, settings={"rounds": 2, "fraction": 0.5, "rewind": "2it"}
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "a störe")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which nothing went wrong."""
    store = Store(tmp_path_factory.mktemp("whole"))
    execute(IMP, store, OFTEN)
    return store


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def before(
    monkeypatch: pytest.MonkeyPatch, place: tuple[int, int], act: Callable[[Any], None]
) -> None:
    """Let something happen, once, before a step (round, step) of a run."""
    original: Callable[..., Any] = _Execution._hooks

    def hooks(self: Any, trainer: Trainer) -> Any:
        found = original(self, trainer)
        ask = found.should_stop

        def should_stop(trainer: Trainer) -> bool:
            if (trainer.round, trainer.step) == place:
                monkeypatch.setattr(_Execution, "_hooks", original)
                act(self)
            return bool(ask(trainer))

        found.should_stop = should_stop
        return found

    monkeypatch.setattr(_Execution, "_hooks", hooks)


@pytest.fixture
def full(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A disk that is full from some write of a run on."""
    left = request.param
    flush = os.fsync

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield patch


@pytest.mark.parametrize("full", [1, 3, 8, 16], indirect=True)
def test_a_full_disk_stops_a_run_and_room_lets_it_go_on(
    store: Store, whole: Store, full: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        StoreError, match=r"cannot write .*a störe.*No space left on device.*make room"
    ):
        execute(IMP, store, OFTEN)
    assert store.load(IMP) is None
    assert not [name for name in names(store.root) if Path(name).name.startswith(".run")]
    assert list(verify(store)) == []
    full.undo()
    found, expected = execute(IMP, store, OFTEN), whole.load(IMP)
    assert expected is not None
    assert without_times(found.records) == without_times(expected.records)
    assert names(store.root) == names(whole.root)


def test_who_lost_the_lease_writes_nothing_and_gets_the_winner_s_result(
    store: Store, whole: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a suspension: another process took over and is done before this one notices."""
    winner = whole.folder(IMP) / "run.json"
    written: list[Path] = []
    threads = []

    def taken_over(run: Any) -> None:
        (own,) = run.lease.path.iterdir()
        own.unlink()
        other = Lease(run.lease.path)
        assert other.take()

        def finish() -> None:
            store.discard(IMP)
            for name in names(winner.parent):
                (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(winner.parent / name, run.folder / name)
            other.release()

        threads.append(threading.Timer(0.5, finish))
        threads[0].start()
        replace = os.replace
        monkeypatch.setattr(os, "replace", lambda a, b: (written.append(b), replace(a, b)))

    before(monkeypatch, (1, 7), taken_over)
    result = execute(IMP, store, OFTEN)
    expected = whole.load(IMP)
    assert expected is not None
    assert result.records == expected.records
    assert written == []
    assert os.path.samefile(store.folder(IMP) / "run.json", winner)


def test_an_owner_taken_over_before_its_rename_finds_nothing_to_rename(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.folder(IMP) / "run.json"
    with store.lock(IMP) as lease:
        store.write(path.with_name("before"), b"", lease)
        check = lease.check

        def suspended() -> None:
            check()
            (own,) = lease.path.iterdir()
            own.unlink()
            with store.lock(IMP):
                pass
            monkeypatch.undo()

        monkeypatch.setattr(lease, "check", suspended)
        with pytest.raises(LeaseLost, match="nothing more was written"):
            store.write(path, b"a loser's", lease)
    assert names(store.folder(IMP)) == ["before"]


@pytest.mark.parametrize("name", ["tickets/round-0.safetensors", "rewind.safetensors"])
@pytest.mark.parametrize("place", [(1, 7), (2, 11)])
def test_what_was_changed_after_it_was_written_is_computed_again(
    store: Store, whole: Store, monkeypatch: pytest.MonkeyPatch, name: str, place: tuple[int, int]
) -> None:
    before(monkeypatch, place, lambda run: (run.folder / name).write_bytes(b"another's"))
    found, expected = execute(IMP, store, OFTEN), whole.load(IMP)
    assert expected is not None
    assert without_times(found.records) == without_times(expected.records)
    (damaged,) = (store.root / "damaged").iterdir()
    assert (damaged / "why.txt").read_text() == f"{name} does not match its checksum"
    assert list(verify(store)) == []


def test_the_rewind_point_is_stored_once(store: Store, whole: Store) -> None:
    retrained = child("retrain", IMP, "round-1", training={"length": "12it"})
    execute(retrained, store, OFTEN)
    for run in (IMP, retrained):
        for path in store.folder(run).glob("tickets/*"):
            assert Ticket.load(path).rewind is None
    assert names(store.folder(retrained)) == ["run.json", "tickets/round-1.safetensors"]
    assert "rewind.safetensors" in names(store.folder(IMP))
    again = store.ticket(retrained, "round-1").rewind
    first = store.ticket(IMP, "round-0").rewind
    assert again is not None
    assert first is not None
    assert all(bool((again[name] == first[name]).all()) for name in first)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_can_be_read(store: Store) -> None:
    dense = config()
    stored = execute(dense, store, OFTEN)
    folders = [store.root, *(p for p in store.root.rglob("*") if p.is_dir())]
    for folder in folders:
        folder.chmod(0o500)
    try:
        assert execute(dense, store, OFTEN).records == stored.records
        assert [result.config for result in list(store.load_each())] == [dense]
        assert store.ticket(dense, "dense").rewind is not None
        with pytest.raises(StoreError, match="Permission denied"):
            execute(config(seed=1), store, OFTEN)
    finally:
        for folder in folders:
            folder.chmod(0o700)


def test_files_in_the_way_of_a_listing_are_passed_over(store: Store, whole: Store) -> None:
    store.prepare()
    (store.root / "runs" / "0123.lock").touch()
    (store.root / "runs" / "empty").mkdir()
    assert list(store.load_each()) == []
