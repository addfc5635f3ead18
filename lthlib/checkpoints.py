"""Checkpoints: the state of a trainer in one safetensors file, with a digest and the name of the run it belongs to."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from lthlib.errors import StoreError, TicketError
from lthlib.files import write_atomically
from lthlib.tickets import read_metadata, tensors_digest
from lthlib.training import Cost, Trainer, channels_last


def save_checkpoint(trainer: Trainer, path: Path, owner: str) -> None:
    """Write the trainer's state, place, cost and history to `path`, atomically. owner: names run and source."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in trainer.state.items()}
    place = {
        "owner": owner,
        "round": trainer.round,
        "step": trainer.step,
        "cost": asdict(trainer.cost),
        "history": trainer.history,
    }
    text = json.dumps(place)
    write_atomically(path, save(tensors, metadata={"checkpoint": text, "digest": tensors_digest(tensors, text)}))


def load_checkpoint(trainer: Trainer, path: Path, owner: str) -> bool:
    """Bring a trainer to the saved place; False when there is no checkpoint.

    Raises StoreError when the file is damaged or belongs to another run or another version of the source.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    try:
        metadata = read_metadata(content, "checkpoint")
        tensors = load(content)
        place = json.loads(metadata["checkpoint"])
        if metadata["digest"] != tensors_digest(tensors, metadata["checkpoint"]):
            raise StoreError(f"checkpoint {path} does not match its digest")
    except (SafetensorError, TicketError, KeyError, ValueError) as error:
        raise StoreError(f"checkpoint {path} is damaged ({error})") from None
    if place["owner"] != owner:
        raise StoreError(f"checkpoint {path} belongs to {place['owner']}, not to {owner}")
    for name, tensor in tensors.items():
        if name in trainer.state:
            trainer.state[name].copy_(tensor)
        else:
            trainer.state[name] = channels_last(tensor.to(trainer.network.device))
    trainer.round, trainer.step = place["round"], place["step"]
    trainer.cost = Cost(**place["cost"])
    trainer.history = place["history"]
    return True
