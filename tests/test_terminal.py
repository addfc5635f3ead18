"""A command outlives its terminal."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from lthlib.cli.terminal import outlive_terminal


def test_messages_reach_a_terminal_and_go_nowhere_once_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="ascii", errors="backslashreplace") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        outlive_terminal()
        assert sys.stderr.isatty()
        print("here is \u2713", file=sys.stderr)
        assert os.read(ours, 100) == b"here is \\u2713\r\n"
        os.close(ours)
        for _ in range(3):
            print("nobody reads this", end="", file=sys.stderr, flush=True)
        with pytest.raises(OSError, match="Input/output error"):
            stream.write("and without it there is an error")
            stream.flush()
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), theirs)


def test_a_file_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    outlive_terminal()
    assert (sys.stdout, sys.stderr) == before
