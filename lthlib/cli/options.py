"""What several commands take, and what becomes of it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lthlib.cli.terminal import say
from lthlib.errors import ConfigError, refusal, shown
from lthlib.files import from_yaml

if TYPE_CHECKING:
    from lthlib.runs import Machine

# Stopped with its state saved; the same command goes on from there. sysexits.h: EX_TEMPFAIL.
COME_AGAIN = 75

StoreOption = Annotated[
    Path,
    typer.Option("--store", envvar="LTHLIB_STORE", help="Folder of runs.", show_default="store"),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", envvar="LTHLIB_DATA", help="Folder of data sets; digits need none."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, mps; auto: cuda or cpu.")]
DeterministicOption = Annotated[
    bool, typer.Option("--deterministic", help="On a GPU, only deterministic kernels; slower.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Change a recipe value, e.g. --set training.length=8ep or "
        "--set methods.cs.initial_gate=[0,-0.1]; may be repeated.",
    ),
]


def machine_of(data: Path | None, device: str, deterministic: bool = False) -> Machine:
    """Where runs are executed.

    Args:
        data: folder of data sets; None: the digits need none.
        device: cpu, cuda, mps or auto.
        deterministic: only deterministic kernels.

    Returns:
        The machine.

    Raises:
        ConfigError: the device is not there; this comes before a bar is drawn.
    """
    from lthlib.runs import Machine

    machine = Machine(device, str(data) if data else None, deterministic=deterministic)
    machine.torch_device()
    return machine


def nested(changes: Sequence[str]) -> dict[str, Any]:
    """What --set asks for, as `Recipe.with_` takes it; how many ranks there are belongs to it.

    Args:
        changes: each PART.NAME=VALUE.

    Returns:
        The values, as dicts in dicts.

    Raises:
        ConfigError: a change is not PART.NAME=VALUE.
    """
    values: dict[str, Any] = {}
    for change in changes:
        match = re.fullmatch(
            r"((?:data|model|training|settings)\.\w+|methods\.[\w-]+\.\w+|rewind"
            r"|study\.(?:precisions|first_seed))=(.*)",
            change,
        )
        if not match:
            raise ConfigError(
                f"--set {shown(change)}; expected PART.NAME=VALUE with PART one of data, model, "
                "training, settings, or methods.METHOD.NAME=VALUE, or rewind=LENGTH, or "
                "study.precisions=[NAME, ...], or study.first_seed=SEED"
            )
        *path, name = match[1].split(".")
        inner = values
        for key in path:
            inner = inner.setdefault(key, {})
        with refusal(ConfigError, f"--set {shown(change)}", ValueError):
            inner[name] = from_yaml(match[2])
    if "RANK" in os.environ:
        from lthlib.distributed import launched

        if launched() > 1:
            values.setdefault("training", {}).setdefault("ranks", launched())
    return values


def again() -> str:
    """How to go on: by the very command that was given."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "the same torchrun command goes on from there"
    return f"`{shlex.join(['lth', *sys.argv[1:]])}` goes on from there"


def finish_sweep(swept: Any) -> None:
    """Tell of the runs that failed, and end the command where some are unfinished or failed.

    Args:
        swept: what `execute_many` returned.

    Raises:
        typer.Exit: status 75 where runs are unfinished, else 1 where runs failed.
    """
    for run_id, reason in swept.failed.items():
        say(f"run {run_id} failed: {reason}", err=True)
    if swept.unfinished:
        say(f"stopped with {swept.unfinished} runs to go, their state saved; {again()}", err=True)
        raise typer.Exit(COME_AGAIN)
    if swept.failed:
        raise typer.Exit(1)
