"""A search that goes on where it was stopped, from a folder with its checkpoint and tickets."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils._pytree import tree_leaves

from lthlib.checkpoints import load_checkpoint, save_checkpoint
from lthlib.data import StreamingPart
from lthlib.description import Description
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
    """Yield the tickets of a search: from a store those it has found, then what follows them.

    In a store each search has a folder of its own, named by all that it depends on, with its
    tickets and its last checkpoint.

    Args:
        trainer: as it is before the search.
        method: whose search it is.
        settings: of the method.
        parent: the ticket that the search starts from, if it does.
        store: the path of a folder; None to save nothing.

    Yields:
        One ticket after the other, in the order found.

    Raises:
        ConfigError: `store` is no path, or cannot tell the network or the loss from others.
        StoreError: the store cannot be read or written.
        RunDamaged: what it holds was altered.
    """
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
        content = ticket.to_bytes()
        file = f"tickets/{ticket.point}.safetensors"
        _write(folder / file, content)
        trainer.files[file] = hashlib.sha256(content).hexdigest()
        yield ticket
    save(trainer)


def identity(trainer: Trainer, method: Method, settings: Any, parent: Ticket | None) -> str:
    """Return 16 hexadecimal digits that stand for all that a search depends on.

    These are the network and the loss, with their code, the data, all settings, the device's kind,
    the ticket it starts from, and the source of this library.

    Args:
        trainer: as it is before the search.
        method: of the search.
        settings: of the method.
        parent: the ticket that the search starts from, if it does.

    Returns:
        A digest. What a function reads from modules that were installed counts by name only, and
        lists and dictionaries that it reads outside of itself do not count.

    Raises:
        ConfigError: network or loss hold a list in itself, or too much one in another.
    """
    description = Description()
    facts: list[Any] = [method.name, fingerprint(method.name), settings, parent and parent.sha256()]
    facts += [trainer.settings, trainer.data, trainer.seed, trainer.names]
    facts += [trainer.network.device.type, repr(trainer.model)]
    told_apart = [trainer.model, trainer.objective.loss]
    entangled = "network or loss hold a list in itself, or too much one in another"
    with refusal(ConfigError, entangled, RecursionError, "call it without store"):
        facts.append(description.of(told_apart))
    in_state = {id(t) for t in (*trainer.model.parameters(), *trainer.model.buffers())}
    held = [tensor for tensor in description.tensors if id(tensor) not in in_state]
    for name in ("train", "validation"):
        images = getattr(trainer.dataset, name)
        streams = isinstance(images, StreamingPart)
        facts.append(images.files if streams else images.shape)
        held += [images.labels, *([] if streams else tree_leaves(images.inputs))]
    tensors = {f"held/{i}": tensor.detach() for i, tensor in enumerate(held)}
    return digest(dict(trainer.state) | tensors, repr(facts))[:16]


def _write(path: Path, content: bytes) -> None:
    with refusal(StoreError, f"cannot write {path}"):
        write_atomically(path, content)
