"""Networks as users bring them: what is inside their wrappers, and copies that can be trained."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from lthlib.devices import memory_ended
from lthlib.errors import ConfigError, shown

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network without what torch.compile and DataParallel put around it or its parts.

    Args:
        model: a network; such wrappers change the names of its parameters.

    Returns:
        A network with the same tensors, `model` itself where nothing is around anything.

    Raises:
        ConfigError: it is no network.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model is {shown(model)}; expected an nn.Module, made, not its class")
    modules = list(model.modules())
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise ConfigError("the network is TorchScript; give the nn.Module that it was made from")
    if not any(map(_wrapped, modules)):
        return model
    memo: dict[int, Any] = {id(t): t for t in (*model.parameters(), *model.buffers())}
    for module in reversed(modules):  # those within others first
        if (inner := _wrapped(module)) is not None:
            memo[id(module)] = copied(inner, memo)
    return copied(model, memo)


def _wrapped(module: nn.Module) -> nn.Module | None:
    return module._modules.get("module" if isinstance(module, _WRAPPERS) else "_orig_mod")


def copied(model: nn.Module, replacements: Mapping[int, Any] | None = None) -> nn.Module:
    """A copy of a network.

    Args:
        model: to copy.
        replacements: by an object's id, what stands for it in the copy.

    Returns:
        The copy; embeddings give dense gradients there.

    Raises:
        ConfigError: it cannot be copied or trained; the error names what is in the way.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ConfigError(f"{name!r} has no shape yet; run the network on a batch once")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ConfigError(f"{name!r} is sparse or quantised; keep it dense, in real numbers")
        if tensor.is_complex() and tensor.requires_grad and tensor.is_leaf:
            raise ConfigError(
                f"{name!r} holds complex numbers; train two real ones, or freeze it (requires_grad)"
            )
    # What copy.deepcopy refuses: what torch's weight_norm and prune, and forward passes, computed.
    holders = [holder for m in model.modules() for holder in (vars(m), m._buffers)]
    tensors = [t for holder in holders for t in holder.values() if isinstance(t, Tensor)]
    memo = {id(tensor): tensor.detach().clone() for tensor in tensors if not tensor.is_leaf}
    try:
        duplicate: nn.Module = copy.deepcopy(model, memo | dict(replacements or {}))
    except Exception as error:
        if memory_ended(error):
            raise
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"the network cannot be copied ({reason}); remove what deepcopy refuses, such as hooks"
        ) from error
    for module in duplicate.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False  # the same gradient, laid out as weights are
    return duplicate


def call(network: nn.Module, inputs: Any) -> Any:
    """What a network gives for a tensor, a tuple of tensors, or a mapping from names to them."""
    if isinstance(inputs, Mapping):
        return network(**inputs)
    return network(*inputs) if isinstance(inputs, (tuple, list)) else network(inputs)


def logits_of(output: Any) -> Any:
    """The logits in what a network gives.

    Args:
        output: with `logits`, by key or by name, or a tuple with them first, or the logits.

    Returns:
        The logits; where there are none to be found, all of the output.
    """
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        return output[0] if output else output
    return getattr(output, "logits", output)
