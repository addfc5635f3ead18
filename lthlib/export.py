"""What a ticket becomes where it is used: a smaller network, a file for another runtime, and how
long each takes."""

from __future__ import annotations

import copy
import importlib.util
import io
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from pathlib import Path
from statistics import median
from timeit import timeit
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from lthlib.errors import ConfigError, TicketError, check_choice, refusal, shown
from lthlib.files import write_atomically
from lthlib.modules import call, copied, unwrapped
from lthlib.shrinking import agree, cut

if TYPE_CHECKING:
    from lthlib.tickets import Ticket

_RUNTIME_TOLERANCE = 1e-4  # other kernels sum in another order
_TURN = 0.02  # seconds that a turn of a benchmark takes at least

Run = Callable[[Any], Any]


def shrink(ticket: Ticket, model: nn.Module, example: Any, progress: bool = True) -> nn.Module:
    """`Ticket.shrink`, which says what it takes and gives."""
    _check_installed("torch_pruning")
    example = _batch(example)
    masked = ticket.apply(copied(unwrapped(model)).cpu()).eval()
    small, uncut = cut(masked, example)
    if progress:
        sizes = _sizes(masked, example), _sizes(small, example)
        print(_summary(ticket, *sizes, uncut), file=sys.stderr)
    return small


def _sizes(network: nn.Module, example: Any) -> tuple[int, float, float]:
    """Parameters, millions of floating-point operations of an image, and megabytes."""
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        call(network, example)
    flops = counter.get_total_flops() / len(tree_leaves(example)[0])
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    return sum(p.numel() for p in network.parameters()), flops / 1e6, size / 1e6


def _summary(
    ticket: Ticket, before: Sequence[float], after: Sequence[float], uncut: Sequence[str]
) -> str:
    if before == after:
        sparsity = f"{ticket.mask.sparsity:.1%} of the weights are pruned"
        text = f"nothing can be cut: {sparsity}, but too few filters or channels as a whole"
    else:
        pairs = [f"{_short(old)} -> {_short(new)}" for old, new in zip(before, after, strict=True)]
        text = f"{pairs[0]} parameters, {pairs[1]} MFLOPs an image, {pairs[2]} MB"
    return text + (f"; cannot be cut: {', '.join(uncut)}" if uncut else "")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _check_installed(*packages: str) -> None:
    if missing := [name for name in packages if not importlib.util.find_spec(name)]:
        install = (
            "pip install 'lthlib[export]', or in a checkout pip install --editable '.[export]'"
        )
        raise ConfigError(f"{', '.join(missing)} is not installed: {install}")


def _batch(example: Any) -> Any:
    """A batch of inputs as tensors on the CPU; ConfigError for what is none."""
    kinds = (Tensor, np.ndarray)
    example = tree_map_only(kinds, lambda x: torch.as_tensor(x).detach().cpu(), example)
    tensors = [x for x in tree_leaves(example) if isinstance(x, Tensor)]
    if not tensors or not all(x.dim() and len(x) for x in tensors):
        raise ConfigError(f"example is {shown(example)}; expected a batch [b, ...] of tensors")
    return example


def export(network: nn.Module, example: Any, path: str | Path) -> None:
    """Write any network to a file, atomically, once what the file gives for the example was
    compared with what the network gives.

    Args:
        network: on the CPU; in evaluation mode from then on.
        example: a batch of its inputs [b, ...]: a tensor or an array, or a tuple or mapping of
            them. Batches of all sizes fit the file.
        path: where to write: `.onnx`, `.pt2` (torch.export) or `.pt` (TorchScript).

    Raises:
        ConfigError: the suffix is another one, the example is no batch, or the extra `export` is
            not installed.
        TicketError: the network cannot be converted, the file would give something else, or it
            cannot be written.
    """
    path = checked_path(path)
    example = _batch(example)
    content, run = _converted(network, example, path.suffix)
    with torch.no_grad():
        expected, actual = _tensors(call(network, example)), _tensors(run(example))
    if not agree(expected, actual, _RUNTIME_TOLERANCE):
        raise TicketError(f"{path.name} would not give what the network gives; nothing is written")
    with refusal(TicketError, f"cannot write {str(path)!r}"):
        write_atomically(path, content)


def checked_path(path: str | Path) -> Path:
    """The path of a file to write.

    Raises:
        ConfigError: it is no path, or no format is known for its suffix.
    """
    if not isinstance(path, (str, Path)):
        raise ConfigError(f"path is {shown(path)}; expected the name of a file")
    check_choice("the suffix", Path(path).suffix, tuple(_FORMATS))
    return Path(path)


def _tensors(outputs: Any) -> list[Tensor]:
    return [torch.as_tensor(output) for output in tree_leaves(outputs)]


def _converted(network: nn.Module, example: Any, suffix: str) -> tuple[bytes, Run]:
    """A network's file, and what runs it."""
    convert, packages = _FORMATS[suffix]
    _check_installed(*packages)
    # A batch of one would be taken to be the only size there is.
    example = tree_map_only(Tensor, lambda x: x if len(x) > 1 else torch.cat([x, x]), example)
    with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of what torch will once give up
        with refusal(TicketError, f"the network cannot be written as {suffix}", Exception):
            return convert(network.eval(), *_arguments(example))


def _arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return example if isinstance(example, tuple) else (example,), {}


def _traced(network: nn.Module, args: Any, kwargs: Any) -> torch.export.ExportedProgram:
    sizes = tree_map_only(Tensor, lambda x: {0: torch.export.Dim.AUTO}, kwargs or args)
    return torch.export.export(network, args, kwargs, dynamic_shapes=sizes)


def _onnx(network: nn.Module, args: Any, kwargs: Any) -> tuple[bytes, Run]:
    import onnxruntime

    program = torch.onnx.export(_traced(network, args, kwargs), dynamo=True, verbose=False)
    assert program is not None
    content = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(inputs: Any) -> Any:
        arrays = [x.numpy() for x in tree_leaves(inputs)]
        return session.run(None, dict(zip(names, arrays, strict=True)))

    return content, run


def _program(network: nn.Module, args: Any, kwargs: Any) -> tuple[bytes, Run]:
    file = io.BytesIO()
    torch.export.save(_traced(network, args, kwargs), file)
    file.seek(0)
    return file.getvalue(), partial(call, torch.export.load(file).module())


def _script(network: nn.Module, args: Any, kwargs: Any) -> tuple[bytes, Run]:
    file = io.BytesIO()
    traced = torch.jit.trace(network, args or None, example_kwarg_inputs=kwargs or None)
    torch.jit.save(traced, file)
    file.seek(0)
    return file.getvalue(), partial(call, torch.jit.load(file))


# By suffix: what converts, and the packages that it needs.
_FORMATS: dict[str, tuple[Callable[..., tuple[bytes, Run]], tuple[str, ...]]] = {
    ".onnx": (_onnx, ("onnx", "onnxscript", "onnxruntime")),
    ".pt2": (_program, ()),
    ".pt": (_script, ()),
}


@dataclass(frozen=True)
class Latency:
    """How long a network takes for a batch: the median over turns, and its 95 % interval, which
    assumes nothing of how they are spread.

    Attributes:
        network: its name, such as `masked`.
        batch: images at once.
        median: milliseconds.
        low: lower end of the interval, in milliseconds.
        high: upper end of the interval, in milliseconds.
    """

    network: str
    batch: int
    median: float
    low: float
    high: float


def bench(
    ticket: Ticket,
    model: nn.Module,
    example: Any,
    batches: Sequence[int] = (1, 128),
    turns: int = 21,
) -> list[Latency]:
    """Measure on this CPU how long the dense network, the masked one, the shrunk one and their
    ONNX files take. They take turns, so that a busy neighbour slows all alike.

    Args:
        ticket: whose mask, and weights if it has any, are put into copies of the model.
        model: a network of the ticket's architecture, left as it is.
        example: a batch of its inputs [b, ...]: a tensor or an array, or a tuple or mapping of
            them.
        batches: how many images at once, 1 or more.
        turns: how often each network is measured, 6 or more.

    Returns:
        A line for each network and size of batch. Where nothing can be cut, there is no shrunk
        network.

    Raises:
        ConfigError: batches or turns are too few, the network does not take the example, or the
            extra `export` is not installed.
        TicketError: the ticket does not fit the network, or it cannot be written as ONNX.
    """
    example = _batch(example)
    _check_count("turns", turns, 6)
    for batch in batches:
        _check_count("batches", batch, 1)
    dense = copied(unwrapped(model)).cpu().eval()
    masked = ticket.apply(copy.deepcopy(dense))
    small = shrink(ticket, model, example)
    networks = {"dense": dense, "masked": masked}
    if _sizes(small, example) != _sizes(masked, example):
        networks["shrunk"] = small
    runs: dict[str, Run] = {name: partial(call, network) for name, network in networks.items()}
    for name in ("dense", [*networks][-1]):
        runs[f"{name}, ONNX"] = onnx_run(networks[name], example)
    return latencies(runs, example, batches, turns)


def _check_count(name: str, count: Any, minimum: int) -> None:
    if not isinstance(count, Integral) or count < minimum:
        raise ConfigError(f"{name} is {shown(count)}; expected a whole number, {minimum} at least")


def onnx_run(network: nn.Module, example: Any) -> Run:
    """What runs a network's ONNX file, in onnxruntime on the CPU, with torch's number of threads.

    Raises:
        ConfigError: the extra `export` is not installed.
        TicketError: the network cannot be converted.
    """
    return _converted(network, example, ".onnx")[1]


def latencies(
    runs: Mapping[str, Run], example: Any, batches: Sequence[int], turns: int
) -> list[Latency]:
    """Measure in turns how long functions of a batch of inputs take.

    Args:
        runs: the functions, by name.
        example: a batch of inputs [b, ...], repeated or cut to each size.
        batches: how many images at once.
        turns: how often each function is measured.

    Returns:
        A line for each function and size of batch.

    Raises:
        ConfigError: the example is no batch.
    """
    rows = []
    for batch in batches:
        inputs = tree_map_only(Tensor, partial(_resized, batch), _batch(example))
        times = _times(runs, inputs, turns)
        rows += [Latency(name, batch, *median_interval(times[name])) for name in runs]
    return rows


def _resized(batch: int, x: Tensor) -> Tensor:
    return x.repeat(math.ceil(batch / len(x)), *[1] * (x.dim() - 1))[:batch].contiguous()


@torch.inference_mode()
def _times(runs: Mapping[str, Run], inputs: Any, turns: int) -> dict[str, list[float]]:
    """Milliseconds of a call in each turn, which lasts `_TURN`; the first turn only warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    calls = dict.fromkeys(runs, 1)
    order = list(runs)
    for _ in range(turns + 1):
        for name in order:
            seconds = timeit(partial(runs[name], inputs), number=calls[name]) / calls[name]
            times[name].append(1000 * seconds)
            calls[name] = max(calls[name], math.ceil(_TURN / seconds))
        order.reverse()
    return {name: milliseconds[1:] for name, milliseconds in times.items()}


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, and the two of the values that enclose it in 95 % of all samples.

    Their ranks follow a binomial distribution, here by its normal approximation: six values are
    the fewest that can enclose it.
    """
    ranked, n = sorted(values), len(values)
    rank = max(1, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    return median(ranked), ranked[rank - 1], ranked[n - rank]
