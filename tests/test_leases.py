"""A lease has one owner at a time; the dead are replaced, and who was replaced writes no more."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lthlib import leases
from lthlib.errors import LeaseLost, NoRoom, Paused, StoreError
from lthlib.leases import Lease, hold, hold_if_free

SHORT = 0.6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "run"


def held_by(path: Path, **owner: Any) -> Lease:
    """A lease as another owner left it: nobody beats for it."""
    lease = Lease(path)
    assert lease.take()
    text = json.loads((path / lease.token).read_text())
    (path / lease.token).write_text(json.dumps(text | owner))
    return lease


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def left(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def test_a_lease_is_a_folder_with_its_owner_and_goes_with_it(path: Path) -> None:
    with hold(path) as lease:
        (own,) = path.iterdir()
        assert own.name == lease.token
        assert json.loads(own.read_text())["pid"] == os.getpid()
        lease.check()
    assert left(path) == []


def test_one_of_two_gets_it(path: Path) -> None:
    first, second = Lease(path), Lease(path)
    assert (first.take(), second.take()) == (True, False)
    first.check()
    with pytest.raises(LeaseLost):
        second.check()
    second.release()
    first.check()
    first.release()
    assert second.take()


def test_an_empty_folder_is_nobody_s(path: Path) -> None:
    path.mkdir(parents=True)
    with hold(path) as lease:
        lease.check()


def test_a_dead_process_of_this_host_is_replaced_at_once(path: Path) -> None:
    held_by(path, pid=dead_pid())
    with hold(path, duration=1e9) as lease:
        lease.check()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_dead_process_that_nobody_asked_after_is_replaced_at_once(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    held_by(path, pid=child.pid)
    with hold(path, duration=1e9) as lease:
        lease.check()
    child.wait()


@pytest.mark.parametrize("owner", [{"host": "elsewhere", "pid": 1}, {"pid": "x"}, {}])
def test_any_other_is_replaced_when_its_heartbeat_stands_still(
    path: Path, owner: dict[str, Any]
) -> None:
    gone = held_by(path, **owner)
    begun = time.monotonic()
    with hold(path, duration=SHORT) as lease:
        assert time.monotonic() - begun > SHORT
        lease.check()
        with pytest.raises(LeaseLost, match="another process took over run"):
            gone.check()
        gone.release()
        lease.check()


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_other_clocks_do_not_matter(path: Path, skew: float) -> None:
    """Only whether the heartbeat moves is looked at, not what time it claims."""
    other = held_by(path, host="elsewhere")
    own = path / other.token
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        now = time.time() + skew + asked
        os.utime(own, (now, now))
        return asked > 3 * SHORT / leases._POLL

    with pytest.raises(Paused, match="while another process computes run"), hold(path, stop, SHORT):
        pass
    assert own.exists()


def test_a_heartbeat_keeps_the_lease(path: Path) -> None:
    deadline = time.monotonic() + 3 * SHORT
    with (
        hold(path, duration=SHORT),
        pytest.raises(Paused),
        hold(path, lambda: time.monotonic() > deadline, SHORT),
    ):
        pass


def test_the_heartbeat_notices_a_loss(path: Path) -> None:
    with hold(path, duration=SHORT) as lease:
        (path / lease.token).unlink()
        limit = time.monotonic() + 60
        while not lease.lost and time.monotonic() < limit:
            time.sleep(0.01)
        assert lease.lost


def test_leftovers_of_contenders_that_died_are_removed(path: Path) -> None:
    ours, foreign = (path.with_name(f".run.{token}") for token in ("0123" * 8, "notes"))
    for folder in (ours, foreign):
        folder.mkdir(parents=True)
        (folder / "something").write_text("{}")
    with hold(path):
        assert left(path) == [".run.notes", "run"]


def test_a_contender_whose_folder_was_cleaned_away_tries_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def first_cleaned(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        leases.shutil.rmtree(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", first_cleaned)
    with hold(path) as lease:
        lease.check()


def test_a_reply_that_got_lost_is_no_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may carry out a rename and, asked again, say that there is nothing to rename."""
    rename = os.rename

    def answered_late(source: Path, target: Path) -> None:
        rename(source, target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", answered_late)
    with hold(path) as lease:
        lease.check()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="cannot lock"), hold(path):
            pass
    finally:
        path.parent.chmod(0o700)


def test_what_the_dead_left_is_found(path: Path) -> None:
    assert leases.abandoned(path.parent) == []
    gone = held_by(path, pid=dead_pid())
    held_by(path.with_name("busy"))
    path.with_name("empty").mkdir()
    lives, died = (f".busy.{digit * 32}" for digit in "12")
    for aside, owner in ((lives, {}), (died, {"pid": dead_pid()})):
        held_by(path.with_name("aside"), **owner)
        os.rename(path.with_name("aside"), path.with_name(aside))
    assert leases.abandoned(path.parent) == ["run"]
    assert left(path) == [lives, "busy", "run"]
    assert (path / gone.token).exists()


def count(path: Path, counter: Path, times: int) -> None:
    for _ in range(times):
        with hold(path):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_contenders_take_turns(path: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    threads = [threading.Thread(target=count, args=(path, counter, 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert counter.read_text() == str(4 * 5)
    assert left(path) == []


def test_one_that_is_held_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "run"
    for _ in range(2):  # what the first gave back, the second has
        with hold_if_free(path) as lease:
            assert lease is not None
            with hold_if_free(path) as other:
                assert other is None


def test_what_no_owner_left_in_a_lock_stays_and_is_named(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("mine")
    with (
        pytest.raises(StoreError, match="holds what no owner left there"),
        hold(path, duration=SHORT),
    ):
        pass
    assert (path / "notes.txt").exists()
    linked = path.with_name("linked")
    linked.symlink_to(path)
    with pytest.raises(StoreError, match="is a symbolic link"), hold(linked):
        pass


def test_a_full_disk_has_no_room_for_a_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_bytes(self: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(NoRoom, match="No space left on device"), hold(path):
        pass
    assert left(path) == []
