"""Processes that compute for another leave Ctrl-C to it, and end when it has to."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from lthlib.workers import Workers, asked_to_stop


def test_what_asks_to_stop(tmp_path: Path) -> None:
    file = tmp_path / "stop"
    assert not asked_to_stop(None, None)
    assert not asked_to_stop(time.time() + 60, str(file))
    assert asked_to_stop(time.time() - 1, None)
    file.touch()
    assert asked_to_stop(None, str(file))


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_does_not_reach_a_process_that_is_only_starting() -> None:
    with Workers() as pool:
        future = pool.submit(os.getpid)
        while not multiprocessing.active_children():
            time.sleep(0.001)
        (child,) = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGINT)
        assert future.result() == child.pid


def test_a_process_that_has_not_begun_ends_at_the_deadline() -> None:
    with Workers(deadline=time.time()) as pool, pytest.raises(BrokenExecutor):
        pool.submit(time.sleep, 600).result()


def test_a_process_sees_its_gpu() -> None:
    with Workers(["7"]) as pool:
        assert pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == "7"


def test_a_process_can_start_without_torch() -> None:
    code = "import lthlib.workers, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def meet(folder: Path, me: str) -> int:
    """Wait until all four are here."""
    (folder / me).touch()
    while len(list(folder.iterdir())) < 4:
        time.sleep(0.001)
    return os.getpid()


def test_a_process_does_several_things_at_once_and_a_place_keeps_its_process(
    tmp_path: Path,
) -> None:
    with Workers(["", ""], threads=2) as pool:
        pids = list(pool.map(meet, [tmp_path] * 4, "abcd"))
        assert sorted(map(pids.count, set(pids))) == [2, 2]
        assert os.getpid() not in pids
        assert {pool.submit(os.getpid).result() for _ in range(8)} <= set(pids)


def test_an_error_comes_back_and_a_process_that_died_is_replaced() -> None:
    with Workers() as pool:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            pool.submit(os.stat, "nowhere").result()
        pid = pool.submit(os.getpid).result()
        with pytest.raises(BrokenExecutor, match="died"):
            pool.submit(os._exit, 3).result()
        assert pool.submit(os.getpid).result() != pid
