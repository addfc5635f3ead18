"""What a command says: text that cannot steer the terminal, and that may outlive it."""

import errno
import io
import signal
import sys
from typing import Any

import typer

from lthlib.errors import LthlibError
from lthlib.texts import visible


class _Terminal(io.FileIO):
    """What is written to a terminal that is gone is lost, and that is all."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return len(data)


def outlive_terminal() -> None:
    """Let messages to a terminal that was closed go nowhere, so that they end no command.

    What an encoding such as cp1252 lacks is spelled out.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")
        # Windows's consoles are written to by characters, and never hang up.
        if stream is not None and stream.isatty() and hasattr(signal, "SIGHUP"):
            raw = _Terminal(stream.fileno(), "w", closefd=False)
            lasting = io.TextIOWrapper(
                io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=True
            )
            setattr(sys, name, lasting)


def say(text: object, err: bool = False) -> None:
    """Print lines of text; whatever came into them from files cannot steer the terminal.

    Args:
        text: its line breaks are kept, all else that is not seen is spelled out.
        err: to stderr, not stdout.

    Raises:
        LthlibError: that cannot be written, such as to a file on a full disk.
    """
    try:
        typer.echo("\n".join(map(visible, str(text).split("\n"))), err=err)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # nobody reads on, as with `| head`: click ends the command quietly
        sys.stdout = None  # or the exit would try again
        raise LthlibError(f"cannot print what was found: {error.strerror}") from None
