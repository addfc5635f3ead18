"""Smaller networks: what a ticket prunes as a whole, filters and channels, is cut out.

There are two cuts. Where all layers that share a channel can do without it, it goes from each of
them; Torch-Pruning finds those layers. What then is left of a filter's zeros, as where a residual
connection keeps its channel alive, is cut out of the one layer that has them, and the channels that
this one still computes are put where the network looks for them. Each cut is tried: the network
computes what it did before, or the cut is taken back.
"""

import contextlib
import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves, tree_map_only

from lthlib.errors import ConfigError, refusal
from lthlib.modules import call

# How far outputs may lie apart, in units of the largest one where that is above 1.
TOLERANCE = 1e-5
# A layer that would keep more of its weights is left as it is: what the cut saves, gathering and
# placing channels would cost.
_WORTH = 0.8
_SMALL = 1e-4  # what no constant is divided by
_LAYERS = (_ConvNd, nn.Linear)
# Of Torch-Pruning's kinds: what treats each channel by itself, or is one of the layers.
_KNOWN = ("CONV", "LINEAR", "DEPTHWISE_CONV", "BN", "PRELU", "ELEMENTWISE", "CONCAT", "RESHAPE")


class Trial:
    """Inputs to try networks on, an example and noise like it, and what the first network gave."""

    def __init__(self, network: nn.Module, example: Any):
        self.example = example
        draw = torch.Generator().manual_seed(0)
        self.inputs = [self.example, tree_map_only(Tensor, lambda x: _like(x, draw), self.example)]
        what, advice = "the network does not take the example", "give a batch of its inputs"
        with refusal(ConfigError, what, Exception, advice):  # whatever its own code raises
            self.expected = self.outputs(network)
        if not all(bool(given.isfinite().all()) for given in self.expected):
            raise ConfigError("the network gives NaN or infinity for the example, or for noise")

    @torch.no_grad()
    def outputs(self, network: nn.Module) -> list[Tensor]:
        """All tensors that a network gives for the inputs."""
        given = [call(network, inputs) for inputs in self.inputs]
        return [tensor for tensor in tree_leaves(given) if isinstance(tensor, Tensor)]

    def passes(self, network: nn.Module) -> bool:
        """Whether a network gives what the first one gave."""
        try:
            return agree(self.expected, self.outputs(network))
        except Exception:  # somebody else reads the weights that were cut
            return False


def _like(x: Tensor, draw: torch.Generator) -> Tensor:
    if not x.is_floating_point():
        return x
    noise = torch.randn(x.shape, generator=draw, dtype=x.dtype)
    return noise * (x.std(correction=0) or 1) + x.mean()


def agree(expected: list[Tensor], found: list[Tensor], tolerance: float = TOLERANCE) -> bool:
    """Whether two lists of tensors are equal but for rounding."""
    return len(expected) == len(found) and all(
        a.shape == b.shape
        and bool(((a - b).abs() <= tolerance * a.abs().amax().clamp(min=1)).all())
        for a, b in zip(expected, found, strict=True)
    )


def cut(masked: nn.Module, example: Any) -> tuple[nn.Module, list[str]]:
    """A smaller network that gives what a masked one does in evaluation mode, and the names of the
    layers that hold pruned filters or channels that could not be cut.

    A filter that is pruned as a whole still emits what its BatchNorm makes of zero. Where that is
    not zero after the activation, one channel stays and stands for all such ones of its layer,
    which is exact also at borders that are padded with zeros.

    Raises ConfigError when the network does not take the example.
    """
    trial = Trial(masked, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing
        small = _without_channels(masked, trial)
    return small, _narrow_all(small, trial)


def _without_channels(masked: nn.Module, trial: Trial) -> nn.Module:
    import torch_pruning as tp

    refused: list[str] = []
    while True:
        small = copy.deepcopy(masked)
        for parameter in small.parameters():  # frozen ones leave no trace
            parameter.requires_grad_(parameter.is_floating_point())
        kept = [small.get_submodule(name) for name in refused]
        graph = tp.DependencyGraph()
        try:
            with torch.enable_grad():  # it follows the gradients
                graph.build_dependency(small, trial.example, call, verbose=False)
            groups = list(graph.get_all_groups(kept))
        except Exception:  # it raises all sorts for what it cannot follow
            return small
        names = {module: name for name, module in small.named_modules()}
        roots = [(group[0].dep.target.module, group[0].dep.handler) for group in groups]
        wrong = next((root for root, how in roots if not _cut(graph, root, how, trial)), None)
        if wrong is None:
            return small
        refused.append(names[wrong])


def _cut(graph: Any, root: nn.Module, handler: Any, trial: Trial) -> bool:
    """Cut what the layers that share a layer's channels can do without, in place; whether the
    network still gives the same."""
    try:
        every = range(graph.get_out_channels(root))
        spare = _spare(graph.get_pruning_group(root, handler, every), _ranges(graph.model, trial))
        if spare:
            graph.get_pruning_group(root, handler, spare).prune()
    except Exception:  # as above
        return False
    return not spare or trial.passes(graph.model)


def _channels(layer: Any, written: bool) -> Tensor:
    """View of a layer's weights: [channels that it writes, or reads, ...]."""
    weight: Tensor = layer.weight.data
    return weight if written != isinstance(layer, _ConvTransposeNd) else weight.transpose(0, 1)


def _used(layer: nn.Module, written: bool) -> Tensor:
    return _channels(layer, written).flatten(1).any(1)


def _dim(layer: nn.Module) -> int:
    """Where an input or output has its channels."""
    return -1 - (len(layer.kernel_size) if isinstance(layer, _ConvNd) else 0)


def _ranges(network: nn.Module, trial: Trial) -> dict[nn.Module, Tensor]:
    """The least and the greatest value that each layer reads, [channels, 2], over all trials."""
    found: dict[nn.Module, Tensor] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = torch.stack(inputs[0].movedim(_dim(layer), 0).flatten(1).aminmax(dim=1), 1)
        both = torch.cat([found.get(layer, seen), seen], 1)
        found[layer] = torch.stack(both.aminmax(dim=1), 1)

    layers = [layer for layer in network.modules() if isinstance(layer, _LAYERS)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        trial.outputs(network)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _spare(group: Any, ranges: Mapping[nn.Module, Tensor]) -> list[int]:
    """Channels of a group that can go: what no layer reads, and what is the same number in all
    images and pixels because each filter that could change it is pruned. Of such numbers other than
    zero one stays; the weights that read the others are folded into those that read it."""
    passes, writes, reads = {}, {}, {}
    for item in group:
        node, layer = item.dep.target, item.dep.target.module
        places = _places(item, len(group[0].idxs))
        if node.type.name not in _KNOWN or places is None:
            return []
        if node.type.name == "DEPTHWISE_CONV":
            passes[node] = _used(layer, True)[places[:, 0]]
        elif getattr(layer, "groups", 1) > 1:
            return []
        elif isinstance(layer, _LAYERS) and item.dep.handler.__name__ == "prune_out_channels":
            writes[node] = _used(layer, True)[places[:, 0]]
        elif isinstance(layer, _LAYERS):
            reads[node] = places
    if not reads:
        return []  # they are the network's output
    changing = _reached(passes, writes, {item.dep.target for item in group})
    wanted, fixed, values = [], [], []
    for node, places in reads.items():
        low, high = ranges[node.module][places].unbind(-1)
        wanted.append(_used(node.module, False)[places].any(1))
        same = (high - low <= 1e-6 * high.abs().clamp(min=1)).all(1)
        fixed.append(same & ~changing[node] if node in changing else same)
        values.append(high)
    constant, sizes = torch.stack(fixed).all(0), torch.cat(values, 1).abs()
    spare = ~torch.stack(wanted).any(0) | (constant & (sizes == 0).all(1))
    if len(folded := (constant & ~spare).nonzero()[:, 0]) > 1:
        stays = folded[sizes[folded].amin(1).argmax()]
        others = folded[folded != stays]
        if sizes[stays].amin() > _SMALL:
            for (node, places), value in zip(reads.items(), values, strict=True):
                ratio = value[others] / value[stays]
                _fold(_channels(node.module, False), places[others], places[stays], ratio)
            spare[others] = True
    if spare.all():
        spare[0] = False  # a layer has one filter at least
    return spare.nonzero()[:, 0].tolist()


def _fold(columns: Tensor, others: Tensor, stays: Tensor, ratio: Tensor) -> None:
    shape = [*ratio.shape, *[1] * (columns.dim() - 1)]
    columns[stays] += (columns[others] * ratio.view(shape)).sum(0)


def _places(item: Any, width: int) -> Tensor | None:
    """Where a member of a group has the group's channels: [width, n], as behind a flattening each
    channel has n; None where it has not all of them."""
    roots, places = torch.tensor(item.root_idxs), torch.tensor(item.idxs)
    each, rest = divmod(len(roots), width)
    order = roots.argsort(stable=True)
    if rest or not roots[order].equal(torch.arange(width).repeat_interleave(each)):
        return None
    return places[order].view(width, each)


def _reached(
    passes: Mapping[Any, Tensor], writes: Mapping[Any, Tensor], members: set[Any]
) -> dict[Any, Tensor]:
    """Of each node of the graph the channels that a filter with weights left can change."""
    reached: dict[Any, Tensor] = {}
    under_way = [(out, live) for node, live in writes.items() for out in node.outputs]
    while under_way:
        node, live = under_way.pop()
        before = reached.get(node, torch.zeros_like(live))
        reached[node] = before | live
        ends = isinstance(node.module, _LAYERS) and node not in passes
        if node in members and not ends and (live & ~before).any():
            onward = live & passes[node] if node in passes else live
            under_way += [(out, onward) for out in node.outputs]
    return reached


class Narrow(nn.Module):
    """A convolution or linear layer that has some of its filters and reads some of its channels.

    layer: the whole layer. reads, writes: bool, which channels of input and output it needs.
    The other channels of the output hold what the layer's bias gives them.
    """

    def __init__(self, layer: Any, reads: Tensor, writes: Tensor):
        import torch_pruning as tp

        super().__init__()
        self.dim, self.layer = _dim(layer), copy.deepcopy(layer)
        linear, grouped = isinstance(layer, nn.Linear), getattr(layer, "groups", 1) > 1
        kind = "linear" if linear else "depthwise_conv" if grouped else "conv"
        ways = {"out": writes} if grouped else {"in": reads, "out": writes}
        for way, needed in ways.items():
            spare = (~needed).nonzero()[:, 0].tolist()
            getattr(tp, f"prune_{kind}_{way}_channels")(self.layer, spare)
        # A channel of zeros is put behind those of the layer, and taken wherever there is none.
        places = torch.where(writes, writes.cumsum(0) - 1, int(writes.sum()))
        rest = None if layer.bias is None else layer.bias.data.masked_fill(writes, 0)
        rest = rest.view(-1, *[1] * (-1 - self.dim)) if rest is not None and rest.any() else None
        self.reads: Tensor | None
        self.places: Tensor | None
        self.rest: Tensor | None
        self.register_buffer("reads", None if reads.all() else reads.nonzero()[:, 0])
        self.register_buffer("places", None if writes.all() else places)
        self.register_buffer("rest", rest)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.reads is None else x.index_select(self.dim, self.reads)
        found: Tensor = self.layer(x)
        if self.places is not None:
            behind = [0, 0] * (-1 - self.dim) + [0, 1]
            found = F.pad(found, behind).index_select(self.dim, self.places)
        return found if self.rest is None else found + self.rest


def _narrow_all(small: nn.Module, trial: Trial) -> list[str]:
    """Make the layers of a network that still have pruned filters or channels narrow, in place.
    Returns the names of those that cannot be."""
    left = []
    layers = {name: layer for name, layer in small.named_modules() if isinstance(layer, _LAYERS)}
    for name, layer in layers.items():
        groups = getattr(layer, "groups", 1)
        alone = groups > 1 and groups == layer.in_channels == layer.out_channels
        writes = _used(layer, True)
        reads = writes if alone else _used(layer, False)
        share = float(reads.float().mean() * writes.float().mean())
        unused = int((~reads).sum() + (~writes).sum())
        if share > _WORTH or unused < 2:  # one may stand for constants
            continue
        for needed in (reads, writes):
            needed[0] |= not needed.any()  # a layer has one filter at least
        path, _, own = name.rpartition(".")
        home = small.get_submodule(path)
        with contextlib.suppress(Exception):  # a layer of another kind under the name of these
            if groups == 1 or alone:
                setattr(home, own, Narrow(layer, reads, writes))
                if trial.passes(small):
                    continue
        setattr(home, own, layer)
        left.append(name)
    return left
