"""A search that goes on where it was stopped, from a folder that holds its checkpoint and its
tickets."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves

from lthlib.checkpoints import load_checkpoint, save_checkpoint
from lthlib.data import StreamingPart
from lthlib.errors import ConfigError, StoreError, refusal, shown
from lthlib.files import write_atomically
from lthlib.methods import Method
from lthlib.source import fingerprint
from lthlib.tickets import Ticket, digest
from lthlib.training import Trainer

SAVED_EVERY = 60.0  # seconds


def tickets_of(
    trainer: Trainer, method: Method, settings: Any, parent: Ticket | None, store: Any = None
) -> Iterator[Ticket]:
    """The tickets of a search; from a store, a folder, those it has found already, and then what
    follows its last checkpoint. There each search has a folder of its own, named by all that it
    depends on. Raises StoreError where it cannot be written, RunDamaged for what was altered."""
    if store is None:
        trainer.hooks.kept = "nothing is saved"
        yield from method.search(trainer, settings, parent)
        return
    if not isinstance(store, (str, Path)):
        raise ConfigError(f"store is {shown(store)}; expected the path of a folder")
    name = f"{method.name}-{identity(trainer, method, settings, parent)}"
    folder = Path(store) / name
    trainer.hooks.kept = f"{str(store)!r} holds its state: the same call goes on from there"
    saved = time.monotonic()

    def save(trainer: Trainer) -> None:
        nonlocal saved
        save_checkpoint(trainer, folder / "checkpoint.safetensors", name, _write)
        saved = time.monotonic()

    trainer.hooks.save = save
    trainer.hooks.due = lambda: time.monotonic() - saved > SAVED_EVERY
    load_checkpoint(trainer, folder / "checkpoint.safetensors", name)
    yield from map(Ticket.load, [folder / file for file in trainer.files])
    for ticket in method.search(trainer, settings, parent):
        content, file = ticket.to_bytes(), f"tickets/{ticket.point}.safetensors"
        _write(folder / file, content)
        trainer.files[file] = hashlib.sha256(content).hexdigest()
        yield ticket
    save(trainer)


def identity(trainer: Trainer, method: Method, settings: Any, parent: Ticket | None) -> str:
    """16 hexadecimal digits that stand for all that a search depends on: its network, its data, its
    settings, its source."""
    tensors, loss = dict(trainer.state), trainer.objective.loss
    about: list[Any] = [method.name, settings, parent and parent.sha256(), trainer.model]
    about += [fingerprint(method.name), trainer.settings, trainer.data, trainer.seed]
    about += [trainer.names, trainer.network.device.type]
    about.append(loss if isinstance(loss, nn.Module) else getattr(loss, "__qualname__", type(loss)))
    if isinstance(loss, nn.Module):
        tensors |= {f"loss/{name}": tensor for name, tensor in loss.state_dict().items()}
    for name in ("train", "validation"):
        part = getattr(trainer.dataset, name)
        leaves = [] if isinstance(part, StreamingPart) else tree_leaves(part.inputs)
        about.append(part.files if isinstance(part, StreamingPart) else part.shape)
        tensors |= {f"{name}/{i}": tensor for i, tensor in enumerate([part.labels, *leaves])}
    return digest(tensors, repr(about))[:16]


def _write(path: Path, content: bytes) -> None:
    with refusal(StoreError, f"cannot write {path}"):
        write_atomically(path, content)
