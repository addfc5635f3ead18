"""The errors lthlib raises on purpose: each says what was wrong, what was expected and what to
do."""

import reprlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

_Errors = type[Exception] | tuple[type[Exception], ...]


class LthlibError(Exception):
    """Base of every error that lthlib raises on purpose.

    The command line prints it without a traceback.
    """


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


class MethodMissing(StoreError):
    """A run is of a method that this lthlib lacks: another version's, or another branch's."""


class ClusterError(LthlibError):
    """The processes or machines that runs were handed to are gone, or do not suit."""


class RecordError(LthlibError):
    """A published record is malformed."""


class PublishError(LthlibError):
    """A page or a notebook of the book cannot be built."""


class Diverged(LthlibError):
    """Training produced a loss that is not finite."""


class OutOfMemory(LthlibError):
    """The memory of the device, or of the machine, does not hold a run.

    Nothing is recorded: who else uses it may be why.
    """


class Paused(LthlibError):
    """A run stopped on request, with its state saved; starting it again goes on from there."""


class Busy(LthlibError):
    """Another process computes a run that was not to be waited for."""


class RanksDiffer(LthlibError):
    """Processes that share a run hold different states.

    What they would find is not to be trusted.
    """


class Unsolved(LthlibError):
    """A system of equations has no solution of the kind asked for, or none was found."""


@contextmanager
def refusal(
    kind: type[LthlibError], problem: str = "", errors: _Errors = OSError, advice: str = ""
) -> Iterator[None]:
    """Make errors of the body an error of ours.

    Args:
        kind: which one.
        problem: what could not be done, or is wrong; the error's own text, its first line, follows.
        errors: those that are made so; by default what the system refuses.
        advice: what to do.

    Yields:
        Nothing.

    Raises:
        LthlibError: a `kind`, in place of one of `errors`.
    """
    try:
        yield
    except errors as error:
        message = str(error).strip().partition("\n")[0]
        if isinstance(error, OSError):
            message = error.strerror or message
        elif not isinstance(error, (LthlibError, ValueError)):  # says little without its name
            message = f"{type(error).__name__}: {message}"
        if problem:
            message = f"{problem}: {message}"
        raise kind(f"{message}; {advice}" if advice else message) from None


class _Short(reprlib.Repr):
    def repr_int(self, value: int, level: int) -> str:
        # Python may refuse to write a longer one.
        return "a number of more than 300 digits" if abs(value) >> 1024 else repr(value)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 80


def shown(value: Any) -> str:
    """A value of the user's as an error quotes it, on one line of at most 160 characters."""
    text = " ".join(_SHORT.repr(value).splitlines())
    return text if len(text) <= 160 else f"{text[:157]}..."


def check_choice(
    name: str, value: object, choices: Collection[str], error: type[LthlibError] = ConfigError
) -> None:
    """Refuse a value that is none of its choices.

    Args:
        name: how the user knows the value.
        value: any.
        choices: texts that it may be.
        error: what is raised.

    Raises:
        LthlibError: an `error`; it lists the choices.
    """
    if not (isinstance(value, str) and value in choices):
        raise error(f"{name} is {shown(value)}; expected one of {', '.join(choices)}")
