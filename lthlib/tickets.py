"""Tickets: a mask, the weights it was found with, the point to retrain from, and where all that
comes from.

A ticket is one safetensors file. The mask is packed to one bit a weight; a digest over every tensor
and all metadata is checked on reading, so that a truncated or tampered file is refused. Reading a
ticket runs no code.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

from lthlib.errors import ConfigError, MaskError, RecordError, TicketError, refusal
from lthlib.files import TICKET_LIMIT, read_bounded, shallow, write_atomically
from lthlib.masks import Mask, pack, unpack
from lthlib.modules import unwrapped
from lthlib.records import COUNT, DENSITY, OBJECT, check_fields
from lthlib.settings import POINT, Field, matching, one_of

FORMAT = 1
_HEADER_LIMIT = 16 << 20
_DIGEST_LENGTH = 32
_WEIGHTS_LIMIT = 1 << 30
# What json, safetensors and torch raise for a header that makes no sense.
_NO_SAFETENSORS = (
    *(SafetensorError, ValueError, KeyError, TypeError, AttributeError, AssertionError),
    *(RecursionError, OverflowError, RuntimeError),
)


@dataclass(repr=False)
class Ticket:
    """A sparse subnetwork.

    Arguments:
        mask: which weights are kept.
        weights: the ticket's own effective parameters and buffers by name (pruned entries are 0),
            or None.
        rewind: the dense parameters, buffers included, to retrain from, or None.
        rewind_step: how many optimiser steps they had been trained.
        point: name of the ticket within its search.
        index: number of the ticket within its search, from 0.
        judged: `found` if `weights` come from the search itself, `retrained` if they were trained
            under the fixed mask.
        target_density: kept fraction that was asked for, or None.
        info: provenance, plain JSON values.
        model, objective: the network, and what it is judged by, of a ticket just found; not saved.
    """

    mask: Mask
    weights: dict[str, Tensor] | None = None
    rewind: dict[str, Tensor] | None = None
    rewind_step: int = 0
    point: str = "ticket"
    index: int = 0
    judged: str = "found"
    target_density: float | None = None
    info: dict[str, Any] = field(default_factory=dict)
    model: nn.Module | None = field(default=None, compare=False)
    objective: Any = field(default=None, compare=False)

    @property
    def density(self) -> float:
        """Kept fraction of the weights the mask covers."""
        return self.mask.density

    def check(self, model: nn.Module) -> None:
        """Raise TicketError unless the ticket fits `model`: same parameters, same shapes, and none
        that the ticket holds no value of."""
        model = unwrapped(model)
        own, saved = _tensors(model), model.state_dict().keys()
        where = f"ticket {self.point!r} does not fit this network"
        with refusal(TicketError, where, MaskError):
            self.mask.check(own)
        for kind in ("weights", "rewind"):
            held = getattr(self, kind)
            for name, tensor in (held or {}).items():
                if name not in own or own[name].shape != tensor.shape:
                    expected = tuple(own[name].shape) if name in own else "nothing of that name"
                    raise TicketError(
                        f"{where}: its {kind} hold {name!r} of shape {tuple(tensor.shape)}, the "
                        f"network has {expected}"
                    )
            lacking = [name for name in own if name in saved and name not in held] if held else ()
            if lacking:
                raise TicketError(
                    f"{where}: the network has {lacking[0]!r}, of which its {kind} hold nothing"
                )

    def apply(self, model: nn.Module) -> nn.Module:
        """Put the ticket into `model`, in place: its own weights if it has any, else zeros where it
        prunes."""
        self.check(model)
        own = _tensors(unwrapped(model))
        with torch.no_grad():
            for name, tensor in (self.weights or {}).items():
                own[name].copy_(tensor)
            for name, kept in self.mask.items():
                own[name].mul_(kept.to(own[name].device))
        return model

    def enforced(self, model: nn.Module, optimiser: Optimizer | None = None) -> RemovableHandle:
        """Keep what the ticket prunes at exactly 0 in a training loop of one's own: from now on,
        after every step of an optimiser, until the handle that is returned is removed.

            with ticket.enforced(model, optimiser):
                ...  # any loop

        optimiser: whose steps; by default those of every optimiser of the process, for loops that
        make their own, as Lightning's and Transformers' trainers do. Its momenta and decay, copies
        on other devices and mixed precision are no matter. Raises TicketError when the ticket does
        not fit the network, ConfigError for what is no optimiser, or steps other weights.
        """
        self.check(model)
        own = _tensors(unwrapped(model))
        pruned = {name: ~kept for name, kept in self.mask.items()}

        def enforce(*_: Any) -> None:
            with torch.no_grad():
                for name in pruned:
                    pruned[name] = pruned[name].to(own[name].device)  # the model may have moved
                    own[name].masked_fill_(pruned[name], 0)

        enforce()
        if optimiser is None:
            return register_optimizer_step_post_hook(enforce)
        optimiser = getattr(optimiser, "optimizer", optimiser)  # Lightning and Accelerate wrap it
        if not isinstance(optimiser, Optimizer):
            kind = type(optimiser).__name__
            raise ConfigError(f"optimiser is a {kind}; expected one of torch.optim, or none")
        stepped = {id(weight) for group in optimiser.param_groups for weight in group["params"]}
        if stepped.isdisjoint(id(own[name]) for name in pruned):
            raise ConfigError("the optimiser steps none of the weights that the mask covers")
        return optimiser.register_step_post_hook(enforce)

    def with_weights(self, model: nn.Module) -> Ticket:
        """This ticket with a network's present weights as its own, judged as retrained: what a
        training loop of one's own has made of it."""
        tensors = _tensors(unwrapped(model))
        own = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        for name, kept in self.mask.items():
            own[name].mul_(kept)
        made = replace(self, weights=own, judged="retrained")
        made.check(model)
        return made

    def shrink(self, model: nn.Module, example: Any, *, progress: bool = True) -> nn.Module:
        """A smaller network that gives what the ticket's does, in evaluation mode, to 1e-5: whole
        filters and channels that the ticket prunes are cut out. On the CPU; an ordinary module.

        model: a network of the ticket's architecture, left as it is; where the ticket has no
        weights of its own, the model's count. example: a batch of its inputs [b, ...], a tensor, or
        a tuple or mapping of tensors. progress: say on stderr what became of parameters, FLOPs and
        size, or why nothing can be cut.
        Raises TicketError when the ticket does not fit the network, ConfigError when the network
        does not take the example, or without the extra `export`.
        """
        from lthlib.export import shrink

        return shrink(self, model, example, progress)

    def export(
        self, model: nn.Module, example: Any, path: str | Path, *, progress: bool = True
    ) -> None:
        """Write the shrunk network to a file, atomically: `.onnx`, `.pt2` (torch.export) or `.pt`
        (TorchScript). What the file gives for the example, `.onnx` in onnxruntime, is compared with
        the network first. Batches of all sizes fit it.

        model, example, progress: as `shrink` takes them. Raises as it does, ConfigError for another
        suffix, TicketError when the network cannot be converted or the file not be written.
        """
        from lthlib.export import checked_path, export

        target = checked_path(path)
        export(self.shrink(model, example, progress=progress), example, target)

    def save(self, path: str | Path) -> None:
        """Write the ticket to one file, atomically. Raises TicketError when that cannot be."""
        content = self.to_bytes()
        with refusal(TicketError, f"cannot write ticket {str(path)!r}", (OSError, ValueError)):
            write_atomically(Path(path), content)

    def to_bytes(self) -> bytes:
        """The ticket as a safetensors file's content; `sha256` of it names the ticket."""
        tensors = {f"mask/{name}": pack(kept) for name, kept in self.mask.items()}
        for kind in ("weights", "rewind"):
            for name, tensor in (getattr(self, kind) or {}).items():
                tensors[f"{kind}/{name}"] = tensor
        header = {
            "format": FORMAT,
            "shapes": {name: list(kept.shape) for name, kept in self.mask.items()},
            **{name: getattr(self, name) for name in _FIELDS},
        }
        _check_header(header)
        return seal(tensors, "ticket", json.dumps(header))

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket. Raises TicketError, naming the file, when it is missing, damaged or not a
        ticket."""
        path = Path(path)
        with refusal(TicketError, f"cannot read ticket {path}"):
            content = read_bounded(path, TICKET_LIMIT)
        with refusal(TicketError, str(path), TicketError):
            return cls.from_bytes(content)

    @classmethod
    def from_bytes(cls, content: bytes) -> Ticket:
        """Inverse of `to_bytes`. Raises TicketError when anything is not as it was written."""
        tensors, text = unseal(content, "ticket")
        with refusal(TicketError, "not a ticket", (ValueError, RecursionError)):
            header = json.loads(shallow(text.encode()))
        _check_header(header)
        return _assemble(header, tensors)

    def sha256(self) -> str:
        """Digest of the ticket's file, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        own = f"weights as {self.judged}" if self.weights else "no weights of its own"
        start = f"rewind point after {self.rewind_step} steps" if self.rewind else "no rewind point"
        return f"ticket {self.point!r}: {self.mask!r}; {own}; {start}"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(side) is int and side > 0 for side in value)


def _are_shapes(value: Any) -> bool:
    # Without weights there is no density.
    return OBJECT.check(value) and value != {} and all(map(_is_shape, value.values()))


_HEADER = {
    "format": Field(str(FORMAT), lambda value: value == FORMAT),
    "shapes": Field("sides of 1 or more by parameter", _are_shapes),
    "rewind_step": COUNT,
    "point": matching(POINT.pattern, "a ticket's name"),
    "index": COUNT,
    "judged": one_of(("found", "retrained")),
    "target_density": DENSITY.or_null(),
    "info": OBJECT,
}
_FIELDS = tuple(_HEADER)[2:]  # which a ticket has under the same names


def _check_header(header: Any) -> None:
    with refusal(TicketError, errors=RecordError):
        check_fields(header, _HEADER, "not a ticket")


def _assemble(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Ticket:
    shapes = header["shapes"]
    if sum(math.prod(shape) for shape in shapes.values()) > _WEIGHTS_LIMIT:
        raise TicketError(f"the mask covers more than {_WEIGHTS_LIMIT} weights")
    kinds: dict[str, dict[str, Tensor]] = {"mask": {}, "weights": {}, "rewind": {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        if kind not in kinds:
            raise TicketError(f"unknown tensor {key!r} in a ticket")
        kinds[kind][name] = tensor
    if kinds["mask"].keys() != shapes.keys():
        raise TicketError("the mask's tensors and its table of shapes disagree")
    with refusal(TicketError, errors=MaskError):
        mask = Mask({name: unpack(kinds["mask"][name], tuple(shapes[name])) for name in shapes})
    own = {name: header[name] for name in _FIELDS}
    return Ticket(mask, kinds["weights"] or None, kinds["rewind"] or None, **own)


def seal(tensors: Mapping[str, Tensor], kind: str, text: str) -> bytes:
    """Content of a safetensors file with tensors, a text and a digest over both; equal arguments
    give equal bytes. kind: name of the one metadata entry, which holds digest and text."""
    # One entry, because safetensors writes several in random order; copies, because it refuses
    # tensors that share memory.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return save(copies, metadata={kind: digest(copies, text) + text})


def unseal(content: bytes, kind: str) -> tuple[dict[str, Tensor], str]:
    """Inverse of `seal`. Raises TicketError when the content is not of that kind, or was altered
    after it was written."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, _HEADER_LIMIT):
        raise TicketError("the file is shorter than its header says")
    with refusal(TicketError, "not a safetensors file, or damaged", _NO_SAFETENSORS):
        header = json.loads(shallow(content[8 : 8 + length]))
        # Compares every tensor's place and size with the file's before it makes one.
        tensors = load(content)
        metadata = header.get("__metadata__") or {}
        if kind not in metadata:
            raise TicketError(f"a safetensors file, but not a {kind}")
        found, text = metadata[kind][:_DIGEST_LENGTH], metadata[kind][_DIGEST_LENGTH:]
        if found != digest(tensors, text):
            raise TicketError("the digest does not match: the file was altered since")
    return tensors, text


def digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """BLAKE2b of named tensors and a text, in hexadecimal, whatever the order of the names."""
    digest = hashlib.blake2b(text.encode(), digest_size=_DIGEST_LENGTH // 2)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
