"""A command outlives its terminal, and what files hold cannot steer it."""

from __future__ import annotations

import errno
import logging
import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lthlib.cli import command
from lthlib.cli.command import app
from lthlib.cli.terminal import outlive_terminal, say
from lthlib.masks import Mask
from lthlib.runs import bar
from lthlib.texts import visible
from lthlib.tickets import Ticket

ROOT = Path(__file__).parents[1]
NAMES = (
    "x[/y]",
    "x[red]y",
    "[link=http://evil.example]w[/link]",
    ":smile:",
    "\x1b]0;pwned\x07\x1b[2Jz",
    "a\rb",
    "a\x9b2Jb",
    "\u202etxt.exe",
    "a\u2028b",
    "\x00",
    "a\ud800b",
)


@given(st.text())
def test_what_is_visible_moves_no_cursor_and_can_be_encoded(text: str) -> None:
    seen = visible(text)
    assert not {unicodedata.category(char) for char in seen} & {"Cc", "Cf", "Cs", "Zl", "Zp", "Cn"}
    assert visible(seen) == seen


def test_ordinary_text_stays() -> None:
    assert visible("θ ≥ 0.5 ± 1 %, Ωδ\u202f日本 [x] \\") == "θ ≥ 0.5 ± 1 %, Ωδ\u202f日本 [x] \\"
    assert visible("a\nb\x1b") == r"a\nb\x1b"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_is_seen(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"first\n{name}", err=True)
    assert capsys.readouterr().err == f"first\n{visible(name)}\n"


@pytest.mark.parametrize("name", NAMES[:-1])  # no file can hold half a surrogate pair
def test_a_stranger_s_ticket_shows_its_names_as_they_are(name: str, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    Ticket(Mask({name: torch.ones(3, 3, dtype=torch.bool)})).save(path)
    shown = CliRunner().invoke(app, ["ticket", "show", str(path)])
    assert shown.exit_code == 0
    assert visible(name) in shown.stdout
    assert all(visible(line) == line for line in shown.stdout.split("\n"))


def test_a_bar_s_description_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("a\x1b[2J"):
        pass
    assert r"a\x1b[2J" in capsys.readouterr().err


def test_commands_print_through_say_alone() -> None:
    """rich's table in `lth ticket show` is the exception, and marks nothing up."""
    for path in (*ROOT.glob("lthlib/cli/*.py"), *ROOT.glob("companion/cli/*.py")):
        text = path.read_text()
        assert path.name == "terminal.py" or "typer.echo" not in text, path
        assert not re.search(r"(?<![\w.])print\(|secho", text), path
        assert text.count("Console(") == text.count("Console(markup=False, emoji=False")


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


def test_what_is_logged_is_seen_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("lthlib").warning("run %s", "a\x1b[2J\nrun b: all is well")
    assert caplog.messages == [r"run a\x1b[2J\nrun b: all is well"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_disk_that_is_full_is_said_in_words(capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "lthlib", "studies"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, stdout=full, check=False).returncode == 2
    assert capfd.readouterr().err == ("lth: cannot print what was found: No space left on device\n")


def test_what_the_system_refuses_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "results/x.jsonl")

    monkeypatch.setattr(command, "app", refused)
    monkeypatch.setattr(command, "as_ctrl_c", lambda: None)
    with pytest.raises(SystemExit, match="2"):
        command.main()
    said = capsys.readouterr().err
    assert said == "lth: [Errno 30] Read-only file system: 'results/x.jsonl'\n"
