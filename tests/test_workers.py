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
