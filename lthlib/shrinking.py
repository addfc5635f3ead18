"""Smaller networks: what a ticket prunes as a whole, filters and channels, is cut out.

A filter writes one channel of a layer's output; layers behind it read that channel. The steps:

1. An example and noise like it are kept with what the masked network gives for them (`Trial`).
2. Torch-Pruning finds the groups of layers that share channels: those that write them, those that
   pass each of them on, as BatchNorm and depthwise convolutions do, and those that read them.
3. Of each group, a channel is removable that no layer reads, or that is constant: no filter with
   weights left can change it. Zeros go as they are. Of other constants one channel stays, and the
   weights that read the others are folded into those that read it (`_removable`).
4. Filters can be pruned whose channel is not removable, as where a residual connection adds to it.
   These are cut out of their own layer alone, and the channels that it still computes are put where
   the network looks for them (`Narrow`).

After each cut the trial is repeated: the network gives what it gave before, or the cut is taken
back.
"""

import contextlib
import copy
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

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
_SUPPORTED = ("CONV", "LINEAR", "DEPTHWISE_CONV", "BN", "PRELU", "ELEMENTWISE", "CONCAT", "RESHAPE")


class Trial:
    """Inputs to try networks on, an example and noise like it, and what the first network gave.

    Args:
        network: whose outputs are to be given again, in evaluation mode.
        example: a batch of its inputs [b, ...]: a tensor, or a tuple or mapping of tensors.

    Raises:
        ConfigError: the network does not take the example, or gives NaN or infinity for it.
    """

    def __init__(self, network: nn.Module, example: Any):
        self.example = example
        generator = torch.Generator().manual_seed(0)
        noise = tree_map_only(Tensor, lambda x: _noise_like(x, generator), example)
        self.inputs = [example, noise]
        with refusal(
            ConfigError,
            "the network does not take the example",
            errors=Exception,  # whatever its own code raises
            advice="give a batch of its inputs",
        ):
            self.expected = self.outputs(network)
        if not all(bool(tensor.isfinite().all()) for tensor in self.expected):
            raise ConfigError("the network gives NaN or infinity for the example, or for noise")

    @torch.no_grad()
    def outputs(self, network: nn.Module) -> list[Tensor]:
        """All tensors that a network gives for the inputs."""
        outputs = [call(network, inputs) for inputs in self.inputs]
        return [tensor for tensor in tree_leaves(outputs) if isinstance(tensor, Tensor)]

    def passes(self, network: nn.Module) -> bool:
        """Whether a network gives what the first one gave."""
        try:
            return agree(self.expected, self.outputs(network))
        except Exception:  # somebody else reads the weights that were cut
            return False


def _noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    if not x.is_floating_point():
        return x
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return noise * (x.std(correction=0) or 1) + x.mean()


def agree(expected: list[Tensor], actual: list[Tensor], tolerance: float = TOLERANCE) -> bool:
    """Whether two lists of tensors are equal but for rounding.

    Args:
        expected: tensors of any shapes.
        actual: what is compared with them, in the same order.
        tolerance: how far two numbers may lie apart, in units of the largest one of the expected
            tensor where that is above 1.
    """
    return len(expected) == len(actual) and all(
        a.shape == b.shape
        and bool(((a - b).abs() <= tolerance * a.abs().amax().clamp(min=1)).all())
        for a, b in zip(expected, actual, strict=True)
    )


def cut(masked: nn.Module, example: Any) -> tuple[nn.Module, list[str]]:
    """Cut out of a copy of a network the filters and channels that are pruned as a whole.

    A filter that is pruned as a whole still emits what its BatchNorm makes of zero. Where that is
    not zero after the activation, one channel stays and stands for all such ones of its layer,
    which is exact also at borders that are padded with zeros.

    Args:
        masked: a network whose pruned weights are 0, in evaluation mode, on the CPU.
        example: a batch of its inputs [b, ...]: a tensor, or a tuple or mapping of tensors.

    Returns:
        The smaller network, which gives what the masked one does in evaluation mode, and the names
        of the layers that hold pruned filters or channels that could not be cut.

    Raises:
        ConfigError: the network does not take the example, or gives NaN or infinity for it.
    """
    trial = Trial(masked, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracing
        small = _cut_groups(masked, trial)
    return small, _narrow_layers(small, trial)


def _cut_groups(masked: nn.Module, trial: Trial) -> nn.Module:
    """A copy of a network without the channels that whole groups of layers can do without."""
    import torch_pruning as tp

    refused: list[str] = []
    while True:  # what a cut changed cannot be put back: each that fails begins with a new copy
        small = copy.deepcopy(masked)
        for parameter in small.parameters():  # frozen ones leave no trace
            parameter.requires_grad_(parameter.is_floating_point())
        ignored = [small.get_submodule(name) for name in refused]
        graph = tp.DependencyGraph()
        try:
            with torch.enable_grad():  # it follows the gradients
                graph.build_dependency(small, trial.example, call, verbose=False)
            groups = list(graph.get_all_groups(ignored))
        except Exception:  # it raises all sorts for what it cannot follow
            return small
        names = {module: name for name, module in small.named_modules()}
        roots = [(group[0].dep.target.module, group[0].dep.handler) for group in groups]
        failed = (names[root] for root, prune in roots if not _cut_group(graph, root, prune, trial))
        name = next(failed, None)
        if name is None:
            return small
        refused.append(name)


def _cut_group(graph: Any, root: nn.Module, prune: Any, trial: Trial) -> bool:
    """Cut what one group can do without, in place; whether the network still gives the same."""
    try:
        channels = range(graph.get_out_channels(root))
        group = graph.get_pruning_group(root, prune, channels)
        removable = _removable(group, _input_ranges(graph.model, trial))
        if removable:
            graph.get_pruning_group(root, prune, removable).prune()
    except Exception:  # as above
        return False
    return not removable or trial.passes(graph.model)


def _filters(layer: Any) -> Tensor:
    """View of a layer's weights, [channels that it writes, ...]."""
    weight: Tensor = layer.weight.data
    return weight.transpose(0, 1) if isinstance(layer, _ConvTransposeNd) else weight


def _columns(layer: Any) -> Tensor:
    """View of a layer's weights, [channels that it reads, ...]."""
    return _filters(layer).transpose(0, 1)


def _alive(weights: Tensor) -> Tensor:
    """Which filters or columns have a weight left, bool [channels]."""
    return weights.flatten(1).any(1)


def _channel_dim(layer: nn.Module) -> int:
    """Where an input or output has its channels."""
    return -1 - (len(layer.kernel_size) if isinstance(layer, _ConvNd) else 0)


def _input_ranges(network: nn.Module, trial: Trial) -> dict[nn.Module, Tensor]:
    """The least and the greatest value that each layer reads in the trial, [channels, 2]."""
    ranges: dict[nn.Module, Tensor] = {}

    def widen(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        values = inputs[0].movedim(_channel_dim(layer), 0).flatten(1)
        if layer in ranges:
            values = torch.cat([ranges[layer], values], 1)
        ranges[layer] = torch.stack(values.aminmax(dim=1), 1)

    layers = [layer for layer in network.modules() if isinstance(layer, _LAYERS)]
    hooks = [layer.register_forward_pre_hook(widen) for layer in layers]
    try:
        trial.outputs(network)
    finally:
        for hook in hooks:
            hook.remove()
    return ranges


class _Roles(NamedTuple):
    """What the layers of a group, by their nodes in the graph, do with its channels."""

    passes: dict[Any, Tensor]  # bool [channels]: in which a depthwise convolution is alive
    writes: dict[Any, Tensor]  # bool [channels]: of which the filter is alive
    reads: dict[Any, Tensor]  # [channels, n]: which inputs each is, several behind a flattening


def _roles(group: Any) -> _Roles | None:
    """The roles of a group's layers; None where one is of a kind that cannot be judged."""
    roles = _Roles({}, {}, {})
    for member in group:
        node, layer = member.dep.target, member.dep.target.module
        indices = _channel_indices(member, len(group[0].idxs))
        if node.type.name not in _SUPPORTED or indices is None:
            return None
        if node.type.name == "DEPTHWISE_CONV":
            roles.passes[node] = _alive(_filters(layer))[indices[:, 0]]
        elif getattr(layer, "groups", 1) > 1:
            return None
        elif isinstance(layer, _LAYERS) and member.dep.handler.__name__ == "prune_out_channels":
            roles.writes[node] = _alive(_filters(layer))[indices[:, 0]]
        elif isinstance(layer, _LAYERS):
            roles.reads[node] = indices
    return roles


def _channel_indices(member: Any, channels: int) -> Tensor | None:
    """A layer's own indices of its group's channels, [channels, n]; None where it lacks some."""
    roots, indices = torch.tensor(member.root_idxs), torch.tensor(member.idxs)
    order = roots.argsort(stable=True)
    n = len(roots) // channels
    if not roots[order].equal(torch.arange(channels).repeat_interleave(n)):
        return None
    return indices[order].view(channels, n)


def _removable(group: Any, ranges: Mapping[nn.Module, Tensor]) -> list[int]:
    """The channels of a group that can go, once constants are folded into one of them, in place."""
    roles = _roles(group)
    if roles is None or not roles.reads:  # what no layer reads is the network's output
        return []
    reads = roles.reads.items()
    read = torch.cat([_alive(_columns(node.module))[indices] for node, indices in reads], 1).any(1)
    low, high = torch.cat([ranges[node.module][indices] for node, indices in reads], 1).unbind(-1)
    constant = (high - low <= 1e-6 * high.abs().clamp(min=1)).all(1)
    changeable = _changeable(roles, {member.dep.target for member in group})
    for node in roles.reads.keys() & changeable.keys():
        constant &= ~changeable[node]
    removable = ~read | (constant & (high == 0).all(1))
    removable |= _fold_constants(roles.reads, ranges, constant & ~removable)
    if removable.all():
        removable[0] = False  # a layer has one filter at least
    return list(map(int, removable.nonzero()))


def _changeable(roles: _Roles, members: set[Any]) -> dict[Any, Tensor]:
    """By node, the channels that a filter with weights left can change, bool [channels]."""
    changeable: dict[Any, Tensor] = {}
    arriving = [(after, live) for node, live in roles.writes.items() for after in node.outputs]
    while arriving:
        node, live = arriving.pop()
        before = changeable.get(node, torch.zeros_like(live))
        changeable[node] = before | live
        ends = isinstance(node.module, _LAYERS) and node not in roles.passes
        if node in members and not ends and (live & ~before).any():
            passed = live & roles.passes[node] if node in roles.passes else live
            arriving += [(after, passed) for after in node.outputs]
    return changeable


def _fold_constants(
    reads: Mapping[Any, Tensor], ranges: Mapping[nn.Module, Tensor], constant: Tensor
) -> Tensor:
    """Let one constant channel stand for all, in place; which can go then, bool [channels]."""
    folded = torch.zeros_like(constant)
    channels = constant.nonzero()[:, 0]
    if len(channels) < 2:
        return folded
    values = {node: ranges[node.module][indices, 1] for node, indices in reads.items()}
    sizes = torch.cat([*values.values()], 1).abs().amin(1)
    stays = channels[sizes[channels].argmax()]
    if sizes[stays] <= _SMALL:
        return folded
    folded[channels] = True
    folded[stays] = False
    for node, indices in reads.items():
        columns = _columns(node.module)
        ratio = values[node][folded] / values[node][stays]
        ratio = ratio.view(*ratio.shape, *[1] * (columns.dim() - 1))
        columns[indices[stays]] += (columns[indices[folded]] * ratio).sum(0)
    return folded


class Narrow(nn.Module):
    """A convolution or linear layer that has some of its filters and reads some of its channels.

    The other channels of its output hold what the layer's bias gives them.

    Args:
        layer: the whole layer, left as it is.
        reads: bool [channels of its input], those it needs.
        writes: bool [channels of its output], those it computes.
    """

    def __init__(self, layer: Any, reads: Tensor, writes: Tensor):
        import torch_pruning as tp

        super().__init__()
        self.dim = _channel_dim(layer)
        self.layer = copy.deepcopy(layer)
        linear, grouped = isinstance(layer, nn.Linear), getattr(layer, "groups", 1) > 1
        kind = "linear" if linear else "depthwise_conv" if grouped else "conv"
        sides = {"out": writes} if grouped else {"in": reads, "out": writes}
        for side, needed in sides.items():
            pruned = (~needed).nonzero()[:, 0].tolist()
            getattr(tp, f"prune_{kind}_{side}_channels")(self.layer, pruned)
        # A channel of zeros is put behind those of the layer, and taken wherever there is none.
        sources = torch.where(writes, writes.cumsum(0) - 1, int(writes.sum()))
        bias = None if layer.bias is None else layer.bias.data.masked_fill(writes, 0)
        bias = bias.view(-1, *[1] * (-1 - self.dim)) if bias is not None and bias.any() else None
        self.reads: Tensor | None
        self.sources: Tensor | None
        self.bias: Tensor | None
        self.register_buffer("reads", None if reads.all() else reads.nonzero()[:, 0])
        self.register_buffer("sources", None if writes.all() else sources)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.reads is None else x.index_select(self.dim, self.reads)
        y: Tensor = self.layer(x)
        if self.sources is not None:
            padding = [0, 0] * (-1 - self.dim) + [0, 1]
            y = F.pad(y, padding).index_select(self.dim, self.sources)
        return y if self.bias is None else y + self.bias


def _narrow_layers(small: nn.Module, trial: Trial) -> list[str]:
    """Narrow the layers that still have pruned channels, in place; the names of those that fail."""
    failed = []
    for name, layer in list(small.named_modules()):
        if not (name and isinstance(layer, _LAYERS)):  # a network that is one layer has no parent
            continue
        groups = getattr(layer, "groups", 1)
        depthwise = groups > 1 and groups == layer.in_channels == layer.out_channels
        writes = _alive(_filters(layer))
        reads = writes if depthwise else _alive(_columns(layer))
        share = float(reads.float().mean() * writes.float().mean())
        unused = int((~reads).sum() + (~writes).sum())
        if share > _WORTH or unused < 2:  # one may stand for constants
            continue
        for needed in (reads, writes):
            needed[0] |= not needed.any()  # a layer has one filter at least
        parent_name, _, attribute = name.rpartition(".")
        parent = small.get_submodule(parent_name)
        with contextlib.suppress(Exception):  # a layer of another kind under the name of these
            if groups == 1 or depthwise:
                setattr(parent, attribute, Narrow(layer, reads, writes))
                if trial.passes(small):
                    continue
        setattr(parent, attribute, layer)
        failed.append(name)
    return failed
