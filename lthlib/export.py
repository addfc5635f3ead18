"""What a ticket becomes where it is used: a smaller network, a file for another runtime, and how
long each takes."""

from __future__ import annotations

import copy
import importlib.util
import io
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
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

# Other kernels sum in another order.
_RUNTIME_TOLERANCE = 1e-4
_TURN = 0.02  # seconds that a turn of a benchmark takes at least

Run = Callable[[Any], Any]


def shrink(ticket: Ticket, model: nn.Module, example: Any, progress: bool = True) -> nn.Module:
    """`Ticket.shrink`, which says what it takes and gives."""
    _check_installed("torch_pruning")
    example = _batch(example)
    masked = ticket.apply(copied(unwrapped(model)).cpu()).eval()
    small, left = cut(masked, example)
    if progress:
        before, after = (_sizes(network, example) for network in (masked, small))
        print(_summary(ticket, before, after, left), file=sys.stderr)
    return small


def _sizes(network: nn.Module, example: Any) -> tuple[int, float, float]:
    """Parameters, millions of floating-point operations of an image, and megabytes."""
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        call(network, example)
    flops = counter.get_total_flops() / len(tree_leaves(example)[0])
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    return sum(p.numel() for p in network.parameters()), flops / 1e6, size / 1e6


def _summary(
    ticket: Ticket, before: Sequence[float], after: Sequence[float], left: Sequence[str]
) -> str:
    if before == after:
        sparsity = f"{ticket.mask.sparsity:.1%} of the weights are pruned"
        text = f"nothing can be cut: {sparsity}, but too few filters or channels as a whole"
    else:
        pairs = [f"{_short(old)} -> {_short(new)}" for old, new in zip(before, after, strict=True)]
        text = f"{pairs[0]} parameters, {pairs[1]} MFLOPs an image, {pairs[2]} MB"
    return text + (f"; cannot be cut: {', '.join(left)}" if left else "")


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _check_installed(*packages: str) -> None:
    if missing := [name for name in packages if not importlib.util.find_spec(name)]:
        how = "pip install 'lthlib[export]', or in a checkout pip install --editable '.[export]'"
        raise ConfigError(f"{', '.join(missing)} is not installed: {how}")


def _batch(example: Any) -> Any:
    """A batch of inputs as tensors on the CPU. Raises ConfigError for what is none."""
    kinds = (Tensor, np.ndarray)
    example = tree_map_only(kinds, lambda x: torch.as_tensor(x).detach().cpu(), example)
    tensors = [x for x in tree_leaves(example) if isinstance(x, Tensor)]
    if not tensors or not all(x.dim() and len(x) for x in tensors):
        raise ConfigError(f"example is {shown(example)}; expected a batch [b, ...] of tensors")
    return example


def export(network: nn.Module, example: Any, path: str | Path) -> None:
    """Write any network to a file, once what the file gives for the example was compared.

    network: in evaluation mode from then on. example, path: as `Ticket.export` takes them, which
    says what is raised.
    """
    path, example = checked_path(path), _batch(example)
    content, run = _converted(network, example, path.suffix)
    with torch.no_grad():
        expected, found = (_tensors(one(example)) for one in (partial(call, network), run))
    if not agree(expected, found, _RUNTIME_TOLERANCE):
        raise TicketError(f"{path.name} would not give what the network gives; nothing is written")
    with refusal(TicketError, f"cannot write {str(path)!r}"):
        write_atomically(path, content)


def checked_path(path: str | Path) -> Path:
    """Where to write. Raises ConfigError for a suffix of which no format is known."""
    if not isinstance(path, (str, Path)):
        raise ConfigError(f"path is {shown(path)}; expected the name of a file")
    check_choice("the suffix", Path(path).suffix, tuple(_FORMATS))
    return Path(path)


def _tensors(given: Any) -> list[Tensor]:
    return [torch.as_tensor(one) for one in tree_leaves(given)]


def _converted(network: nn.Module, example: Any, suffix: str) -> tuple[bytes, Run]:
    """A network's file, and what runs it."""
    convert, packages = _FORMATS[suffix]
    _check_installed(*packages)
    # A batch of one would be taken to be the only size there is.
    several = tree_map_only(Tensor, lambda x: x if len(x) > 1 else torch.cat([x, x]), example)
    with warnings.catch_warnings(), torch.no_grad(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of what torch will once give up
        with refusal(TicketError, f"the network cannot be written as {suffix}", Exception):
            return convert(network.eval(), *_arguments(several))


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
    names = [one.name for one in session.get_inputs()]

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
    """Milliseconds that a network takes for a batch of `batch` images: the median over turns, and
    its 95 % interval, which assumes nothing of how they are spread."""

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

    ticket, model, example: as `Ticket.shrink` takes them. batches: images at once. turns: of each
    network, at least 6.
    Returns a line for each network and size of batch. Where nothing can be cut, there is no shrunk
    network. Raises as `Ticket.shrink` and `Ticket.export`.
    """
    example = _batch(example)
    for name, value, least in (("turns", turns, 6), *(("batches", one, 1) for one in batches)):
        if value < least:
            raise ConfigError(f"{name} is {value}; expected {least} at least")
    dense = copied(unwrapped(model)).cpu().eval()
    masked = ticket.apply(copy.deepcopy(dense))
    small = shrink(ticket, model, example)
    networks = {"dense": dense, "masked": masked}
    if _sizes(small, example) != _sizes(masked, example):
        networks["shrunk"] = small
    runs: dict[str, Run] = {name: partial(call, one) for name, one in networks.items()}
    for name in ("dense", [*networks][-1]):
        runs[f"{name}, ONNX"] = onnx_run(networks[name], example)
    return latencies(runs, example, batches, turns)


def onnx_run(network: nn.Module, example: Any) -> Run:
    """What runs a network's ONNX file, in onnxruntime on the CPU, with torch's number of threads.
    Raises as `Ticket.export`."""
    return _converted(network, example, ".onnx")[1]


def latencies(
    runs: Mapping[str, Run], example: Any, batches: Sequence[int], turns: int
) -> list[Latency]:
    """Measure in turns what takes a batch of inputs. runs: by name. The others as `bench`."""
    found = []
    for batch in batches:
        inputs = tree_map_only(Tensor, partial(_resized, batch), _batch(example))
        times = _taken(runs, inputs, turns)
        found += [Latency(name, batch, *_interval(times[name])) for name in runs]
    return found


def _resized(batch: int, x: Tensor) -> Tensor:
    return x.repeat(math.ceil(batch / len(x)), *[1] * (x.dim() - 1))[:batch].contiguous()


@torch.inference_mode()
def _taken(runs: Mapping[str, Run], inputs: Any, turns: int) -> dict[str, list[float]]:
    """Milliseconds of a call in each turn. A turn has as many calls as its first, untimed one
    suggests for a fiftieth of a second."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    calls = dict.fromkeys(runs, 1)
    order = list(runs)
    for _ in range(turns + 1):
        for name in order:
            start = time.perf_counter()
            for _ in range(calls[name]):
                runs[name](inputs)
            seconds = (time.perf_counter() - start) / calls[name]
            times[name].append(1000 * seconds)
            calls[name] = max(calls[name], math.ceil(_TURN / seconds))
        order.reverse()
    return {name: taken[1:] for name, taken in times.items()}


def _interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the two values in order that enclose it in 95 % of all samples: a binomial
    distribution, here by its normal approximation."""
    ranked, n = sorted(values), len(values)
    rank = max(1, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    return median(ranked), ranked[rank - 1], ranked[n - rank]
