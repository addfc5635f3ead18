"""Checkpoints: the state of a trainer in one safetensors file, with a digest and the name of the
run it belongs to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lthlib.errors import StoreError, TicketError
from lthlib.files import write_atomically
from lthlib.tickets import seal, unseal
from lthlib.training import Cost, Trainer, channels_last


def save_checkpoint(trainer: Trainer, path: Path, owner: str) -> None:
    """Write the trainer's state, place, cost and history to `path`, atomically. owner: names run
    and source."""
    place = {
        "owner": owner,
        "round": trainer.round,
        "step": trainer.step,
        "cost": asdict(trainer.cost),
        "history": trainer.history,
        # A file has no order, but the tensors of a group are stepped and ranked in theirs.
        "names": list(trainer.state),
    }
    write_atomically(path, seal(trainer.state, "checkpoint", json.dumps(place)))


def load_checkpoint(trainer: Trainer, path: Path, owner: str) -> bool:
    """Bring a trainer to the saved place; False when there is no checkpoint.

    Raises StoreError when the file is damaged or belongs to another run or another version of the
    source.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    try:
        tensors, text = unseal(content, "checkpoint")
    except TicketError as error:
        raise StoreError(f"checkpoint {path} is damaged ({error})") from None
    place = json.loads(text)
    if place["owner"] != owner:
        raise StoreError(f"checkpoint {path} belongs to {place['owner']}, not to {owner}")
    for name in place["names"]:
        if name in trainer.state:
            trainer.state[name].copy_(tensors[name])
        else:
            trainer.state[name] = channels_last(tensors[name].to(trainer.network.device))
    trainer.round, trainer.step = place["round"], place["step"]
    trainer.cost = Cost(**place["cost"])
    trainer.history = place["history"]
    return True
