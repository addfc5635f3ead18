"""The errors lthlib raises on purpose: each says what was wrong, what was expected and what to
do."""

import reprlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

_Errors = type[Exception] | tuple[type[Exception], ...]


class LthlibError(Exception):
    """Base of every error that lthlib raises on purpose; the command line prints it without a
    traceback."""


class DataError(LthlibError):
    """A data set is missing, malformed or unsuitable."""


class ConfigError(LthlibError):
    """A configuration, a recipe or an argument holds a value that makes no sense."""


class MaskError(LthlibError):
    """A mask does not fit a network, or a density cannot be met."""


class TicketError(LthlibError):
    """A ticket file is damaged, or does not fit the network it is used with."""


class StoreError(LthlibError):
    """The run store cannot be read or written."""


class LeaseLost(StoreError):
    """Another process took over a run that this one was computing; nothing more was written."""


class NoRoom(StoreError):
    """The disk has no room for a lock."""


class RunDamaged(StoreError):
    """A file of a run is not as it was written, or another's."""


class ClusterError(LthlibError):
    """The processes or machines that runs were handed to are gone, or do not suit."""


class RecordError(LthlibError):
    """A published record is malformed."""


class PublishError(LthlibError):
    """A page or a notebook of the book cannot be built."""


class Diverged(LthlibError):
    """Training produced a loss that is not finite."""


class OutOfMemory(LthlibError):
    """The memory of the device, or of the machine, does not hold a run. Nothing is recorded: who
    else uses it may be why."""


class Paused(LthlibError):
    """A run stopped on request, with its state saved; starting it again goes on from there."""


class Busy(LthlibError):
    """Another process computes a run that was not to be waited for."""


class RanksDiffer(LthlibError):
    """Processes that share a run hold different states; what they would find is not to be
    trusted."""


class Unsolved(LthlibError):
    """A system of equations has no solution of the kind asked for, or none was found."""


@contextmanager
def refusal(
    kind: type[LthlibError], what: str = "", errors: _Errors = OSError, advice: str = ""
) -> Iterator[None]:
    """Make errors of the body, by default what the system refuses, an error of ours. what: what
    could not be done, or is wrong. advice: what to do."""
    try:
        yield
    except errors as error:
        why = str(error).strip().partition("\n")[0]
        if isinstance(error, OSError):
            why = error.strerror or why
        elif not isinstance(error, (LthlibError, ValueError)):  # says little without its name
            why = f"{type(error).__name__}: {why}"
        why = f"{what}: {why}" if what else why
        raise kind(f"{why}; {advice}" if advice else why) from None


class _Short(reprlib.Repr):
    def repr_int(self, value: int, level: int) -> str:
        # Python may refuse to write a longer one.
        return "a number of more than 300 digits" if abs(value) >> 1024 else repr(value)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """A value of the user's as an error quotes it: short, however large or nested it is."""
    text = " ".join(_SHORT.repr(value).splitlines())
    return text if len(text) <= 160 else f"{text[:157]}..."


def check_choice(
    name: str, value: object, choices: Collection[str], error: type[LthlibError] = ConfigError
) -> None:
    """Raise `error` when a value is none of its choices. name: how the user knows it."""
    if not (isinstance(value, str) and value in choices):
        raise error(f"{name} is {shown(value)}; expected one of {', '.join(choices)}")
