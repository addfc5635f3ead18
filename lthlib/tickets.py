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
_HEADER_ERRORS = (
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    RuntimeError,
)


@dataclass(repr=False)
class Ticket:
    """A sparse subnetwork.

    Attributes:
        mask: which weights are kept.
        weights: the ticket's own effective parameters and buffers by name (pruned entries are 0),
            or None.
        rewind: the dense parameters, buffers included, to retrain from, or None.
        rewind_step: how many optimiser steps they had been trained.
        point: name of the ticket within its search.
        index: number of the ticket within its search, from 0.
        judged: `found` if `weights` come from the search itself, `retrained` if they were trained
            under the fixed mask.
        target_density: kept fraction that was asked for, in (0, 1], or None.
        info: provenance, plain JSON values.
        model: the network of a ticket just found; not saved.
        objective: what a ticket just found is judged by; not saved.
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
        """Check that the ticket fits a network: same parameters, same shapes, and none that the
        ticket holds no value of.

        Raises:
            TicketError: it does not; the message names the parameter.
        """
        model = unwrapped(model)
        tensors, saved = _tensors(model), model.state_dict().keys()
        misfit = f"ticket {self.point!r} does not fit this network"
        with refusal(TicketError, misfit, MaskError):
            self.mask.check(tensors)
        for kind in ("weights", "rewind"):
            values = getattr(self, kind) or {}
            for name, value in values.items():
                shape = tuple(tensors[name].shape) if name in tensors else "nothing of that name"
                if shape != tuple(value.shape):
                    raise TicketError(
                        f"{misfit}: its {kind} hold {name!r} of shape {tuple(value.shape)}, the "
                        f"network has {shape}"
                    )
            missing = [name for name in tensors if name in saved and name not in values]
            if values and missing:
                raise TicketError(
                    f"{misfit}: the network has {missing[0]!r}, of which its {kind} hold nothing"
                )

    def apply(self, model: nn.Module) -> nn.Module:
        """Put the ticket into a network, in place: its own weights if it has any, else zeros where
        it prunes.

        Args:
            model: a network of the ticket's architecture.

        Returns:
            The same network.

        Raises:
            TicketError: the ticket does not fit the network.
        """
        self.check(model)
        tensors = _tensors(unwrapped(model))
        with torch.no_grad():
            for name, weights in (self.weights or {}).items():
                tensors[name].copy_(weights)
            for name, kept in self.mask.items():
                tensors[name].mul_(kept.to(tensors[name].device))
        return model

    def enforced(self, model: nn.Module, optimiser: Optimizer | None = None) -> RemovableHandle:
        """Keep what the ticket prunes at exactly 0 in a training loop of one's own: from now on,
        after every step of an optimiser, until the handle that is returned is removed::

            with ticket.enforced(model, optimiser):
                ...  # any loop

        The optimiser's momenta and decay, copies on other devices and mixed precision are no
        matter.

        Args:
            model: the network that is trained, of the ticket's architecture.
            optimiser: whose steps; by default those of every optimiser of the process, for loops
                that make their own, as Lightning's and Transformers' trainers do.

        Returns:
            A handle whose `remove`, or the end of a `with` block over it, ends that.

        Raises:
            TicketError: the ticket does not fit the network.
            ConfigError: the optimiser is none, or steps other weights.
        """
        self.check(model)
        tensors = _tensors(unwrapped(model))
        pruned = {name: ~kept for name, kept in self.mask.items()}

        def enforce(*_: Any) -> None:
            with torch.no_grad():
                for name in pruned:  # each on its weights' device, as the model may have moved
                    pruned[name] = pruned[name].to(tensors[name].device)
                    tensors[name].masked_fill_(pruned[name], 0)

        enforce()
        if optimiser is None:
            return register_optimizer_step_post_hook(enforce)
        optimiser = getattr(optimiser, "optimizer", optimiser)  # Lightning and Accelerate wrap it
        if not isinstance(optimiser, Optimizer):
            kind = type(optimiser).__name__
            raise ConfigError(f"optimiser is a {kind}; expected one of torch.optim, or none")
        stepped = {id(weight) for group in optimiser.param_groups for weight in group["params"]}
        if stepped.isdisjoint(id(tensors[name]) for name in pruned):
            raise ConfigError("the optimiser steps none of the weights that the mask covers")
        return optimiser.register_step_post_hook(enforce)

    def with_weights(self, model: nn.Module) -> Ticket:
        """This ticket with a network's present weights as its own, judged as retrained: what a
        training loop of one's own has made of it.

        Args:
            model: a network of the ticket's architecture, left as it is; what the ticket prunes is
                0 in the copy.

        Raises:
            TicketError: the ticket does not fit the network.
        """
        replace(self, weights=None).check(model)
        tensors = _tensors(unwrapped(model))
        weights = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        for name, kept in self.mask.items():
            weights[name].mul_(kept)
        return replace(self, weights=weights, judged="retrained")

    def shrink(self, model: nn.Module, example: Any, *, progress: bool = True) -> nn.Module:
        """A smaller network that gives what the ticket's does, in evaluation mode, to 1e-5: whole
        filters and channels that the ticket prunes are cut out.

        Args:
            model: a network of the ticket's architecture, left as it is; where the ticket has no
                weights of its own, the model's count.
            example: a batch of its inputs [b, ...]: a tensor or an array, or a tuple or mapping of
                them.
            progress: say on stderr what became of parameters, FLOPs and size, or why nothing can be
                cut.

        Returns:
            An ordinary module, on the CPU.

        Raises:
            TicketError: the ticket does not fit the network.
            ConfigError: the network does not take the example, or the extra `export` is not
                installed.
        """
        from lthlib.export import shrink

        return shrink(self, model, example, progress)

    def export(
        self, model: nn.Module, example: Any, path: str | Path, *, progress: bool = True
    ) -> None:
        """Write the shrunk network to a file, atomically.

        What the file gives for the example, `.onnx` in onnxruntime, is compared with the network
        first. Batches of all sizes fit it.

        Args:
            model: as `shrink` takes it.
            example: as `shrink` takes it.
            path: where to write: `.onnx`, `.pt2` (torch.export) or `.pt` (TorchScript).
            progress: as `shrink` takes it.

        Raises:
            TicketError: the ticket does not fit the network, or the network cannot be converted, or
                the file would give something else, or it cannot be written.
            ConfigError: the suffix is another one, the network does not take the example, or the
                extra `export` is not installed.
        """
        from lthlib.export import checked_path, export

        checked_path(path)
        export(self.shrink(model, example, progress=progress), example, path)

    def save(self, path: str | Path) -> None:
        """Write the ticket to one file, atomically.

        Raises:
            TicketError: the file cannot be written, or it is no path.
        """
        content = self.to_bytes()
        errors = (OSError, ValueError, TypeError)
        with refusal(TicketError, f"cannot write ticket {str(path)!r}", errors):
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
        """Read a ticket from its file.

        Raises:
            TicketError: the file is missing, damaged, no ticket, or no path; the message names it.
        """
        with refusal(TicketError, f"cannot read ticket {path}", (OSError, ValueError, TypeError)):
            content = read_bounded(Path(path), TICKET_LIMIT)
        with refusal(TicketError, str(path), TicketError):
            return cls.from_bytes(content)

    @classmethod
    def from_bytes(cls, content: bytes) -> Ticket:
        """Inverse of `to_bytes`.

        Raises:
            TicketError: anything is not as it was written.
        """
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
        weights = f"weights as {self.judged}" if self.weights else "no weights of its own"
        start = f"rewind point after {self.rewind_step} steps" if self.rewind else "no rewind point"
        return f"ticket {self.point!r}: {self.mask!r}; {weights}; {start}"


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
    fields = {name: header[name] for name in _FIELDS}
    return Ticket(mask, kinds["weights"] or None, kinds["rewind"] or None, **fields)


def seal(tensors: Mapping[str, Tensor], kind: str, text: str) -> bytes:
    """Content of a safetensors file with tensors, a text and a digest over both; equal arguments
    give equal bytes.

    Args:
        tensors: of any shapes and dtypes, by name.
        kind: what the file holds, such as `ticket`: the name of its one metadata entry, which has
            digest and text.
        text: whatever else there is to say, as JSON.
    """
    # One entry, because safetensors writes several in random order; copies, because it refuses
    # tensors that share memory.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return save(copies, metadata={kind: digest(copies, text) + text})


def unseal(content: bytes, kind: str) -> tuple[dict[str, Tensor], str]:
    """Inverse of `seal`.

    Args:
        content: of the file.
        kind: what it is expected to hold, such as `ticket`.

    Returns:
        The tensors by name, and the text.

    Raises:
        TicketError: the content is not of that kind, or was altered after it was written.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > min(len(content) - 8, _HEADER_LIMIT):
        raise TicketError("the file is shorter than its header says")
    with refusal(TicketError, "not a safetensors file, or damaged", _HEADER_ERRORS):
        header = json.loads(shallow(content[8 : 8 + length]))
        # Compares every tensor's place and size with the file's before it makes one.
        tensors = load(content)
        metadata = header.get("__metadata__") or {}
        if kind not in metadata:
            raise TicketError(f"a safetensors file, but not a {kind}")
        sealed, text = metadata[kind][:_DIGEST_LENGTH], metadata[kind][_DIGEST_LENGTH:]
        if sealed != digest(tensors, text):
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
