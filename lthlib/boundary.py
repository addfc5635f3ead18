"""What stands between a user's call and a search: the arguments are held against their types, and
the network is tried with its data before anything is trained."""

import typing
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from lthlib.devices import memory_ended
from lthlib.errors import ConfigError, LthlibError, refusal
from lthlib.masks import left_out
from lthlib.settings import coerce
from lthlib.tickets import seal
from lthlib.training import Trainer

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function's arguments what their annotations say, as settings are.

    Numbers of numpy, and mappings for settings, are taken too. The function runs outside of
    torch.inference_mode, whose tensors cannot be trained.

    Args:
        function: with annotations that `lthlib.settings.coerce` knows.

    Returns:
        A function of the same arguments.

    Raises:
        ConfigError: at a call, where an argument does not fit; the error names it.
    """
    taken = signature(function)
    kinds = typing.get_type_hints(function, include_extras=True)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = taken.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            if taken.parameters[name].kind is not taken.parameters[name].VAR_KEYWORD:
                bound.arguments[name] = coerce(value, kinds[name], name)
        with torch.inference_mode(False):
            return function(*bound.args, **bound.kwargs)

    return call


def try_out(trainer: Trainer) -> None:
    """Send two training inputs forward and backward, and forward in evaluation mode.

    The trainer's state stays as it is. A warning names the matrices that the mask leaves out.

    Args:
        trainer: of the network and the data.

    Raises:
        ConfigError: that fails, the outputs do not suit the labels, or there is what a ticket
            could not hold; in words of this library.
    """
    network = trainer.network
    weights, buffers = network.weights(), network.buffers()
    _check_types(weights | buffers)
    x, y = trainer.first_two()
    failure = "the network fails"
    try:
        with network.drawing(trainer.seed), network.arithmetic():
            output = network.forward(weights, buffers, x)
            if trainer.objective.loss is None:
                _check_outputs(output, trainer)
            else:
                failure = "the loss or its gradient fails"
            _, _, gradients = network.gradients(weights, buffers, x, y)
            if trainer.objective.metric is None:
                network.judge(weights, buffers, [(x, y)])
    except LthlibError:
        raise
    except Exception as error:
        if memory_ended(error) or "deterministic" in str(error):
            raise
        if "does not require grad" in str(error):
            raise ConfigError(
                "no weight that is trained reaches the output; is it detached, or under no_grad?"
            ) from None
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{failure} on two training inputs ({_kind_of(x)}): {type(error).__name__}: {reason}"
        ) from error
    if added := network.model.state_dict().keys() - trainer.model.state_dict().keys():
        raise ConfigError(
            f"a forward pass adds {min(added)!r} to the network; run it on a batch once before"
        )
    for name, gradient in gradients.items():
        if gradient.layout != torch.strided:
            raise ConfigError(f"the gradient of {name!r} is sparse; make it dense (sparse=False)")
    _warn_of_left_out(trainer)


def _check_types(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        message = f"{name!r} holds {tensor.dtype}, which a ticket cannot hold"
        with refusal(ConfigError, message, Exception, "give it another type"):
            seal({"value": tensor.reshape(-1)[:1]}, "ticket", "")


def _check_outputs(logits: Any, trainer: Trainer) -> None:
    classes = trainer.dataset.num_classes
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ConfigError(f"the network gives {_kind_of(logits)}; expected logits, real numbers")
    if logits.ndim < 2 or len(logits) != 2 or logits.shape[1] < classes:
        raise ConfigError(
            f"the network gives {_kind_of(logits)} for two inputs, but the labels go from "
            f"{int(trainer.dataset.train.labels.min())} to {classes - 1}: expected shape "
            f"[2, {classes}] or more; labels count from 0"
        )
    if bool(logits.isnan().any()):
        raise ConfigError("the network gives NaN before it is trained; look for NaN in its weights")


def _kind_of(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"


def _warn_of_left_out(trainer: Trainer) -> None:
    sizes = left_out(trainer.model, trainer.names)
    if isinstance(trainer.prunable, str) and sizes:
        names = list(sizes)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        warnings.warn(
            f"prunable {trainer.prunable!r} leaves out {sum(sizes.values()):,} weights in "
            f"{', '.join(names[:3])}{more}: density refers to the other "
            f"{len(trainer.prunable_weights().data):,}; to prune them too, name all that is to be "
            "pruned: prunable=(...)",
            stacklevel=7,  # where find_tickets was called, within `explained` and `checked`
        )
