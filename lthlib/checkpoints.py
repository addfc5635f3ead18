"""Checkpoints: a trainer's state in one safetensors file, with a digest and its run's name."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from lthlib.errors import RecordError, RunDamaged, StoreError, TicketError, refusal
from lthlib.files import TICKET_LIMIT, read_bounded, shallow, write_atomically
from lthlib.records import COST, COUNT, FILES, OBJECT, TEXT, check_fields
from lthlib.settings import Field
from lthlib.tickets import seal, unseal
from lthlib.training import Cost, Trainer, channels_last

Write = Callable[[Path, bytes], object]
_LIST = Field("a list", lambda value: isinstance(value, list))
# What a trainer holds beside its state, plain values.
_PLAIN = {"history": _LIST, "records": OBJECT, "files": FILES}
_HEADER = {"owner": TEXT, "round": COUNT, "step": COUNT, "cost": COST, **_PLAIN, "names": _LIST}


def save_checkpoint(
    trainer: Trainer, path: Path, owner: str, write: Write = write_atomically
) -> None:
    """Write a trainer's state, cost and history, and how far it is.

    Args:
        trainer: whose state it is.
        path: of the file.
        owner: names run and source.
        write: how a file gets its content.
    """
    header = {
        "owner": owner,
        "round": trainer.round,
        "step": trainer.step,
        "cost": asdict(trainer.cost),
        **{name: getattr(trainer, name) for name in _PLAIN},
        # A file has no order, but the tensors of a group are stepped and ranked in theirs.
        "names": list(trainer.state),
    }
    write(path, seal(trainer.state, "checkpoint", json.dumps(header)))


def load_checkpoint(trainer: Trainer, path: Path, owner: str) -> bool:
    """Bring a trainer to where a checkpoint was written.

    Args:
        trainer: of the same run, before it begins.
        path: of the file.
        owner: names run and source, as when it was saved.

    Returns:
        Whether there is a checkpoint.

    Raises:
        RunDamaged: the file is damaged, does not fit the trainer, or belongs to another run or
            another version of the source.
        StoreError: it cannot be read.
    """
    with refusal(StoreError, f"cannot read checkpoint {path}"):
        try:
            content = trainer.ranks.first(partial(read_bounded, path, TICKET_LIMIT))
        except FileNotFoundError:
            return False
    with refusal(RunDamaged, f"checkpoint {path} is damaged", RunDamaged):
        header, tensors = read_checkpoint(content)
    if header["owner"] != owner:
        raise RunDamaged(f"checkpoint {path} belongs to {header['owner']}, not to {owner}")
    unfit = (KeyError, TypeError, ValueError, RuntimeError)
    with refusal(RunDamaged, f"checkpoint {path} does not fit the run", unfit):
        _restore(trainer, header, tensors)
    return True


def read_checkpoint(content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint.

    Args:
        content: of its file.

    Returns:
        What it says beside its tensors, and these by name.

    Raises:
        RunDamaged: the content is no checkpoint, or was altered after it was written.
    """
    with refusal(RunDamaged, errors=(RecordError, TicketError, ValueError, RecursionError)):
        tensors, text = unseal(content, "checkpoint")
        header = json.loads(shallow(text.encode()))
        check_fields(header, _HEADER, "its header")
    return header, tensors


def _restore(trainer: Trainer, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    for name in header["names"]:
        if name not in trainer.state:
            trainer.state[name] = channels_last(tensors[name].to(trainer.network.device))
        elif trainer.state[name].shape == tensors[name].shape:
            trainer.state[name].copy_(tensors[name])
        else:
            raise ValueError(f"{name!r} has shape {tuple(tensors[name].shape)}")
    trainer.cost = Cost(**header["cost"])
    for name in ("round", "step", *_PLAIN):
        setattr(trainer, name, header[name])
