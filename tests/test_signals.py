"""Ctrl-C, SIGTERM and SIGHUP ask to stop, unless whoever started the process had them ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lthlib.signals import as_ctrl_c, heeded, interruptions, shielded

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def all_heeded() -> Iterator[None]:
    """As in a process that was started from a terminal."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in ALL}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ALL)
def test_a_signal_that_nobody_asked_about_is_raised_again_and_another_is_not(
    number: signal.Signals,
) -> None:
    with interruptions() as asked:
        assert not asked()
        signal.raise_signal(number)
        assert asked()
    with pytest.raises(KeyboardInterrupt), interruptions():
        signal.raise_signal(number)


def test_each_becomes_ctrl_c() -> None:
    for number in ALL:
        signal.signal(number, signal.SIG_DFL)
    as_ctrl_c()
    for number in ALL:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


@pytest.mark.parametrize("number", ALL)
def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    assert heeded() == [other for other in ALL if other != number]
    as_ctrl_c()
    with interruptions() as asked:
        signal.raise_signal(number)
        assert not asked()
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_process_that_starts_shielded_does_not_see_ctrl_c() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('alive')"
    with shielded():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("alive\n", "")
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
