"""Named tensors that lie in one piece of memory, so that an operation on all of them is one
operation, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Named = Mapping[str, Tensor]  # tensors by name
# Vectorised loops take up to so many entries at a time; some functions (sigmoid) round the few that
# are left over otherwise.
_VECTOR = 64


class Flat(dict[str, Tensor]):
    """Tensors by name that are views of `data`, each in a layout of its own.

    Args:
        views: name -> tensor that is a view of `data`.
        data: all entries, [n], tensor after tensor; bytes where types differ, which can be copied
            only.
        order: names as they lie in memory.

    Attributes:
        data: those entries.
        order: those names, as a tuple.
    """

    def __init__(self, views: Named, data: Tensor, order: Iterable[str]) -> None:
        super().__init__(views)
        self.data, self.order = data, tuple(order)

    @classmethod
    def of(cls, tensors: Named, order: Iterable[str] = (), like: Named | None = None) -> Flat:
        """Copy tensors into one piece of memory.

        Args:
            tensors: name -> tensor, all on one device.
            order: names that may be among them, as they shall lie; by default as they come.
            like: name -> tensor whose layout is taken where the shapes are equal; by default each
                has its own.

        Returns:
            The copies, named in the order of `tensors`.
        """
        names = [name for name in order or tensors if name in tensors]
        if len({tensor.dtype for tensor in tensors.values()}) > 1:
            return cls._of_bytes(tensors, names)
        first = next(iter(tensors.values()), torch.empty(0))
        data = first.new_empty(sum(tensor.numel() for tensor in tensors.values()))
        layouts = {
            name: layout
            for name, layout in (like or {}).items()
            if name in tensors and layout.shape == tensors[name].shape
        }
        flat = cls(_views({**tensors, **layouts}, data, names), data, names)
        for name, tensor in tensors.items():
            flat[name].copy_(tensor.detach())
        return flat

    @classmethod
    def _of_bytes(cls, tensors: Named, names: list[str]) -> Flat:
        names.sort(key=lambda name: -tensors[name].element_size())  # each is aligned to its size
        sizes = [tensors[name].numel() * tensors[name].element_size() for name in names]
        device = next(iter(tensors.values())).device
        data = torch.empty(-(-sum(sizes) // 16) * 16, dtype=torch.uint8, device=device)
        views = {}
        for name, piece in zip(names, data.split([*sizes, len(data) - sum(sizes)]), strict=False):
            views[name] = _laid_out(piece.view(tensors[name].dtype), tensors[name])
            views[name].copy_(tensors[name].detach())
        return cls({name: views[name] for name in tensors}, data, names)

    def like(self, data: Tensor) -> Flat:
        """The same layout over other entries, [n]."""
        return Flat(_views(self, data, self.order), data, self.order)

    def head(self, names: Iterable[str]) -> Flat:
        """The tensors of these names, which lie first, in the same memory."""
        views = {name: self[name] for name in names}
        count = sum(view.numel() for view in views.values())
        return Flat(views, self.data[:count], self.order[: len(views)])

    def uniform(self) -> Tensor:
        """Draw from [0, 1), [n], tensor after tensor as they are named, on the device of `data`."""
        noise = torch.rand_like(self.data)
        if self.order == tuple(self):
            return noise
        pieces = noise.split([view.numel() for view in self.values()])
        noise_of = dict(zip(self, pieces, strict=True))
        return torch.cat([noise_of[name] for name in self.order])

    @cached_property
    def positions(self) -> np.ndarray:
        """Where each entry stood if the tensors stood as they are named, row by row; int64 [n]."""
        positions = self.like(torch.empty(len(self.data), dtype=torch.int64))
        start = 0
        for view in positions.values():
            view.copy_(torch.arange(start, start + view.numel()).view(view.shape))
            start += view.numel()
        array: np.ndarray = positions.data.numpy()
        return array


def memory_order(tensors: Named, first: Iterable[str]) -> tuple[str, ...]:
    """How tensors shall lie, so that loops over all of them round as loops over each.

    Of either group, those with entries left over by vectorised loops come last.

    Args:
        tensors: name -> tensor.
        first: names of those that come before all others.

    Returns:
        All names, in the order in which they shall lie.
    """
    leading = list(first)
    following = [name for name in tensors if name not in set(leading)]
    uneven = {name: tensor.numel() % _VECTOR > 0 for name, tensor in tensors.items()}
    return (*sorted(leading, key=uneven.__getitem__), *sorted(following, key=uneven.__getitem__))


def _views(like: Named, data: Tensor, order: Iterable[str]) -> dict[str, Tensor]:
    names = list(order)
    pieces = dict(zip(names, data.split([like[name].numel() for name in names]), strict=True))
    return {name: _laid_out(pieces[name], tensor) for name, tensor in like.items()}


def _laid_out(piece: Tensor, like: Tensor) -> Tensor:
    strides = torch.empty_like(like, device="meta").stride()  # dense, in the same order
    return piece.as_strided(like.shape, strides)
