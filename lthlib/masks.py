"""Masks: which weights of a network are kept.

A mask maps parameter names to boolean tensors, so it fits any `nn.Module` and changes none.
Selection is exact: `top_k` keeps exactly k entries, ties going to the lower index, and is far
cheaper than a sort.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lthlib.errors import MaskError, check_choice, shown
from lthlib.settings import PRUNABLE, one_of

STRUCTURES = ("unstructured", "filter", "channel")
NORMS = ("l2", "sum")
Structure = Annotated[str, one_of(STRUCTURES)]
# Parameters that are weight matrices, in the modules that have them.
_MATRICES = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def prunable_names(
    model: nn.Module, which: str | tuple[str, ...] = "conv+linear"
) -> tuple[str, ...]:
    """Names of the parameters that a mask may cover, in the order of the network.

    Args:
        model: any network.
        which: `"conv+linear"` (weights of convolutions, transposed ones among them, linear layers
            and attention projections, the density base of every cross-method figure), `"conv"`
            (convolutions alone), `"conv>1x1"` (convolutions whose kernel is larger than 1x1, as
            the CS release masks them), or the names themselves, of any parameters that are trained.

    Returns:
        Names as `model.named_parameters()` has them, each once.

    Raises:
        MaskError: the network lacks a name or does not train it, or nothing is prunable.
    """
    if isinstance(which, str):
        check_choice("prunable", which, (*PRUNABLE, "a tuple of names"), MaskError)
        names = tuple(_weights(model, which))
        if not names:
            raise MaskError(
                f"the network has no {which} weights to prune that are trained; name "
                "others with prunable=(...)"
            )
        return names
    if not isinstance(which, (tuple, list)):
        raise MaskError(f"prunable is {shown(which)}; expected a tuple of names, or a word")
    parameters = dict(model.named_parameters())
    for name in which:
        parameter = parameters.get(name) if isinstance(name, str) else None
        if parameter is None:
            raise MaskError(
                f"the model has no parameter {shown(name)}; it has {', '.join(parameters)}"
            )
        if not (is_trained(parameter) and parameter.numel() and parameter.dim()):
            raise MaskError(
                f"prunable names {name!r}, whose weights are frozen (requires_grad=False) or none; "
                "leave it out"
            )
    if not which:
        raise MaskError("prunable names no parameter; name at least one")
    return tuple(dict.fromkeys(which))


def is_trained(parameter: Tensor) -> bool:
    """Whether a training moves a parameter: real numbers with `requires_grad`."""
    return parameter.requires_grad and parameter.is_floating_point()


def left_out(model: nn.Module, names: Collection[str]) -> dict[str, int]:
    """Trained matrices that a mask does not cover, such as recurrent layers and embeddings.

    Layers that `prunable_names` knows are left out on purpose: they do not count.

    Args:
        model: any network.
        names: of the parameters that the mask covers.

    Returns:
        Name of a parameter -> its number of weights.
    """
    covered = {*names, *_weights(model, "conv+linear")}
    trained = {n: p for n, p in model.named_parameters() if is_trained(p) and n not in covered}
    return {n: p.numel() for n, p in trained.items() if sum(side > 1 for side in p.shape) > 1}


def group_axes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Where filters and channels lie in the weights of convolutions.

    Args:
        model: any network.

    Returns:
        Name of a convolution's weight -> the dim of its output filters and that of its input
        channels.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(module._parameters["weight"])]: (1, 0) if module.transposed else (0, 1)
        for module in model.modules()
        if isinstance(module, _ConvNd) and id(module._parameters.get("weight")) in names
    }


def _weights(model: nn.Module, which: str) -> Iterator[str]:
    # A weight shared by two modules goes by its first name, as in `named_parameters`.
    names = {id(p): name for name, p in model.named_parameters() if is_trained(p) and p.numel()}
    for module in model.modules():
        for key in _MATRICES if _is_prunable(module, which) else ():
            parameter = module._parameters.get(key)
            if id(parameter) in names:
                yield names.pop(id(parameter))


def _is_prunable(module: nn.Module, which: str) -> bool:
    if isinstance(module, _ConvNd):
        return which != "conv>1x1" or max(module.kernel_size) > 1
    return which == "conv+linear" and isinstance(module, (nn.Linear, nn.MultiheadAttention))


class Mask(Mapping[str, Tensor]):
    """An immutable mapping from parameter name to a boolean tensor of its shape; True is kept.

    Args:
        tensors: name -> boolean tensor.

    Attributes:
        total: how many weights the mask covers.

    Raises:
        MaskError: a tensor is not boolean.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        for name, tensor in tensors.items():
            dtype = getattr(tensor, "dtype", type(tensor).__name__)
            if dtype != torch.bool:
                raise MaskError(f"mask of {name!r} has dtype {dtype}; expected torch.bool")
        self._tensors = dict(tensors)
        self.total = sum(tensor.numel() for tensor in self._tensors.values())

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return list(self) == list(other) and all(torch.equal(self[n], other[n]) for n in self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Mask({self.kept:,} of {self.total:,} weights kept, density {self.density:.4f}, "
            f"{len(self)} tensors)"
        )

    @cached_property
    def kept(self) -> int:
        """How many weights are kept, counted when first asked for, which a GPU waits for."""
        return sum(int(tensor.sum()) for tensor in self._tensors.values())

    @property
    def density(self) -> float:
        """Kept fraction of the weights that the mask covers, in [0, 1]; 1 if it covers none."""
        return self.kept / self.total if self.total else 1.0

    @property
    def sparsity(self) -> float:
        """1 - density."""
        return 1 - self.density

    def layers(self) -> dict[str, tuple[int, int]]:
        """Kept and total weights of each covered parameter."""
        return {name: (int(tensor.sum()), tensor.numel()) for name, tensor in self.items()}

    def overlap(self, other: Mask) -> float:
        """Intersection over union of the kept weights of two masks.

        Args:
            other: a mask over the same parameters.

        Returns:
            From 0 to 1; 1 also where neither keeps any.

        Raises:
            MaskError: their parameters differ, by name or shape.
        """
        self.check(other)
        other.check(self)
        intersection = sum(int((self[name] & other[name]).sum()) for name in self)
        union = self.kept + other.kept - intersection
        return intersection / union if union else 1.0

    def extended(self, shapes: Mapping[str, torch.Size]) -> Mask:
        """The same mask over a wider base, on the CPU.

        Args:
            shapes: name -> shape of each parameter of that base; those that the mask does not cover
                are kept whole.

        Returns:
            A mask over them all.
        """
        base = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
        return Mask(base | {name: tensor.cpu() for name, tensor in self.items()})

    def shuffled(self, generator: torch.Generator) -> Mask:
        """A control: as many weights kept in each layer, but which, `generator` draws."""
        shapes = {name: tensor.shape for name, tensor in self.items()}
        counts = {name: kept for name, (kept, _) in self.layers().items()}
        return random_mask(shapes, counts, generator)

    def to(self, device: torch.device | str) -> Mask:
        """The mask on another device."""
        return Mask({name: tensor.to(device) for name, tensor in self.items()})

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise MaskError unless each covered parameter is in `tensors` with the mask's shape."""
        for name, tensor in self.items():
            if name not in tensors:
                raise MaskError(
                    f"the mask covers {name!r}, which the network lacks; is it another "
                    "architecture?"
                )
            if tensors[name].shape != tensor.shape:
                raise MaskError(
                    f"the mask of {name!r} has shape {tuple(tensor.shape)}, the network's is "
                    f"{tuple(tensors[name].shape)}; is it another width or number of classes?"
                )

    @classmethod
    def full(cls, tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> Mask:
        """The dense mask over `names`."""
        return cls({name: torch.ones_like(tensors[name], dtype=torch.bool) for name in names})


def already_pruned(weights: Mapping[str, Tensor]) -> Mask | None:
    """The mask of weights that somebody pruned before.

    Args:
        weights: name -> weight.

    Returns:
        Where they are not 0, if 1 % or more of them are, which only pruning gives; else None.
        Tensors that are 0 as a whole do not count: they start so.
    """
    nonzero = {name: weight.detach().cpu() != 0 for name, weight in weights.items()}
    mask = Mask({name: kept | ~kept.any() for name, kept in nonzero.items()})
    return mask if mask.density <= 0.99 else None


def check_density(density: float) -> None:
    """Raise MaskError unless a density is in (0, 1]."""
    if not 0 < density <= 1:
        raise MaskError(f"density is {density}; expected a kept fraction in (0, 1]")


def kept_count(total: int, density: float) -> int:
    """How many weights a density keeps: the nearest integer.

    Args:
        total: how many there are.
        density: in (0, 1].

    Returns:
        From 1 to `total`.

    Raises:
        MaskError: the density is out of range, or keeps none.
    """
    check_density(density)
    count = round(density * total)
    if count < 1:
        raise MaskError(
            f"density {density} keeps none of {total:,} weights; the smallest is "
            f"{1 / max(total, 1):.2g}"
        )
    return count


def top_k(scores: Tensor, k: int, positions: Callable[[], np.ndarray] | None = None) -> Tensor:
    """Mark the k largest scores: the Euclidean projection of scores onto binary masks with k ones.

    On a GPU, where looking for NaN would stop the queue, nothing is kept where there is one, and
    only the flat index decides among equal scores.

    Args:
        scores: floating-point tensor of any shape, without NaN.
        k: how many to keep, 0 <= k <= scores.numel().
        positions: gives int64 [n], which decides among equal scores in place of their flat index;
            called only if it comes to that.

    Returns:
        A boolean tensor of the shape of `scores` with exactly k True; among equal scores the lower
        flat index wins, or the lower position.

    Raises:
        MaskError: k is out of range, or a score is NaN.
    """
    n = scores.numel()
    if not 0 <= k <= n:
        raise MaskError(f"cannot keep {k} of {n} scores")
    if k in (0, n):
        _refuse_nan(scores)
        return torch.full_like(scores, k == n, dtype=torch.bool)
    flat = scores.detach().reshape(-1)
    if flat.device.type != "cpu":
        return _top_k_queued(flat, k).view(scores.shape)
    _refuse_nan(flat)
    if flat.dtype not in (torch.float32, torch.float64):
        flat = flat.float()
    return torch.from_numpy(_top_k_numpy(flat.numpy(), k, positions)).view(scores.shape)


def _refuse_nan(scores: Tensor) -> None:
    if scores.device.type == "cpu" and scores.numel() and bool(scores.amin().isnan()):
        raise MaskError("cannot rank scores that hold NaN")


def _top_k_queued(flat: Tensor, k: int) -> Tensor:
    # Nothing here reads a result back, so that a CUDA graph can hold it. NaN ranks highest in
    # topk, and a threshold of NaN keeps nothing.
    highest = torch.topk(flat, k, sorted=False).values
    threshold = torch.where(highest.isnan().any(), torch.nan, highest.amin())
    above, tied = flat > threshold, flat == threshold
    return above | (tied & (tied.cumsum(0, dtype=torch.int32) <= k - above.sum()))


def _top_k_numpy(
    flat: np.ndarray, k: int, positions: Callable[[], np.ndarray] | None
) -> np.ndarray:
    threshold = np.partition(flat, len(flat) - k)[len(flat) - k]
    chosen: np.ndarray = flat > threshold
    missing = k - int(np.count_nonzero(chosen))
    tied = np.flatnonzero(flat == threshold)
    if positions is not None and len(tied) > missing:
        tied = tied[np.argsort(positions()[tied])]
    chosen[tied[:missing]] = True
    return chosen


def top_k_global(scores: Mapping[str, Tensor], k: int) -> Mask:
    """Keep the k highest scores over all parameters together.

    Args:
        scores: name -> floating-point tensor, without NaN.
        k: how many to keep, from 0 to all of them.

    Returns:
        A mask of the shapes of `scores`; among equal scores the earlier parameter wins, then the
        lower index.

    Raises:
        MaskError: as `top_k` raises it.
    """
    flat = torch.cat([score.reshape(-1) for score in scores.values()])
    pieces = top_k(flat, k).split([score.numel() for score in scores.values()])
    masks = zip(scores.items(), pieces, strict=True)
    return Mask({name: piece.view(score.shape) for (name, score), piece in masks})


def select(
    scores: Mapping[str, Tensor],
    density: float,
    structure: str = "unstructured",
    norm: str = "l2",
    within: Mapping[str, Tensor] | None = None,
    axes: Mapping[str, tuple[int, int]] | None = None,
) -> Mask:
    """The mask of a density from scores.

    Args:
        scores: name -> tensor with a score for each weight; of any sign for `unstructured` and norm
            `sum`.
        density: kept fraction, in (0, 1].
        structure: `unstructured` keeps the highest scores over all parameters together. `filter`
            and `channel` keep whole output filters or input channels of every convolution, the
            same share of each layer, and all of what is no convolution; see `kept_groups`.
        norm: score of a group: `l2` of its weights' scores, or their `sum`.
        within: a mask outside which nothing is kept, for pruning step by step.
        axes: of convolutions, the dims of filters and channels, see `group_axes`.

    Returns:
        A mask of the shapes of `scores`.

    Raises:
        MaskError: structure or norm is unknown, no parameter is a convolution's where the structure
            needs one, the density keeps nothing, or a score is NaN.
    """
    check_choice("structure", structure, STRUCTURES, MaskError)
    check_choice("norm", norm, NORMS, MaskError)
    if structure == "unstructured":
        if within is not None:
            lowest = float("-inf")
            scores = {n: torch.where(within[n], score, lowest) for n, score in scores.items()}
        return top_k_global(scores, kept_count(sum(s.numel() for s in scores.values()), density))
    axes = axes or {}
    if axes.keys().isdisjoint(scores):
        raise MaskError(
            f"structure is {structure!r}, but no prunable parameter is a convolution's; use "
            "'unstructured'"
        )
    masks = {}
    for name, score in scores.items():
        masks[name] = torch.ones_like(score, dtype=torch.bool)
        if name in axes:
            dim = axes[name][STRUCTURES.index(structure) - 1]
            inside = None if within is None else within[name]
            masks[name] &= _top_groups(score, dim, density, norm, inside)
    return Mask(masks)


def _top_groups(
    scores: Tensor, dim: int, density: float, norm: str, within: Tensor | None
) -> Tensor:
    dims = [d for d in range(scores.dim()) if d != dim]
    groups = scores.sum(dims) if norm == "sum" else torch.linalg.vector_norm(scores, dim=dims)
    if within is not None:
        groups = torch.where(within.any(dims), groups, float("-inf"))
    mask = top_k(groups, kept_groups(len(groups), density))
    return mask.view([-1 if d == dim else 1 for d in range(scores.dim())])


def kept_groups(groups: int, density: float) -> int:
    """How many of a layer's groups a density keeps.

    Args:
        groups: how many there are.
        density: in (0, 1].

    Returns:
        All but the whole number of (1 - density) groups, so at least one.

    Raises:
        MaskError: the density is out of range.

    Source:
        The BiP release counts so.
    """
    check_density(density)
    return groups - int((1 - density) * groups)


def random_mask(
    shapes: Mapping[str, torch.Size], kept: int | Mapping[str, int], generator: torch.Generator
) -> Mask:
    """Keep weights drawn uniformly.

    Args:
        shapes: name -> shape of each parameter.
        kept: how many weights over all parameters together; or name -> how many of that parameter.
        generator: what is drawn from.

    Returns:
        A mask over these parameters.

    Raises:
        MaskError: more are to be kept than there are.
    """
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    if isinstance(kept, int):
        return top_k_global(scores, kept)
    return Mask({name: top_k(score, kept[name]) for name, score in scores.items()})


def pack(tensor: Tensor) -> Tensor:
    """Pack a boolean tensor of n entries into bits: uint8 [ceil(n / 8)], highest bit first."""
    return torch.from_numpy(np.packbits(tensor.cpu().numpy().reshape(-1)))


def unpack(packed: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Unpack what `pack` made.

    Args:
        packed: uint8 [ceil(n / 8)].
        shape: of the tensor, n entries in all.

    Returns:
        A boolean tensor of that shape.

    Raises:
        MaskError: the bytes do not match the shape.
    """
    count = int(np.prod(shape, dtype=np.int64))
    size = (count + 7) // 8
    if packed.dtype != torch.uint8 or packed.numel() != size:
        raise MaskError(
            f"a packed mask of shape {shape} needs {size} bytes; found {packed.numel()}"
        )
    bits = np.unpackbits(packed.numpy(), count=count)
    return torch.from_numpy(bits.astype(bool)).view(shape)
