"""How fast the network of a ticket is here."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lthlib.cli.terminal import say
from lthlib.errors import ConfigError, TicketError, refusal, shown

if TYPE_CHECKING:
    from torch import nn

    from lthlib.runs import RunConfig
    from lthlib.tickets import Ticket

# Pixels a side, where the configuration of a run does not say.
_SIDES = {"digits": 8, "cifar10": 32, "cifar100": 32, "tiny-imagenet": 64}
_WHY = (
    "Masked is no faster than dense: zeros are multiplied like any other number, and nothing that "
    "runs here skips single ones. Only what is cut out, whole filters and channels, saves time."
)


def bench_ticket(
    file: Path,
    network: str = "",
    example: str = "",
    batch: Annotated[list[int] | None, typer.Option(min=1)] = None,
    turns: Annotated[int, typer.Option(min=6)] = 21,
) -> None:
    """Measure on this CPU how long a ticket's network takes: dense, masked, shrunk, and as ONNX.

    Example: lth bench ticket ticket.safetensors --network mynet:build --example 3x32x32

    Args:
        file: A ticket, *.safetensors.
        network: MODULE:FUNCTION that returns your network; of this folder too.
        example: Input shape, as 3x32x32; else the run's.
        batch: Images at once, 1 and 128 if left out; may be repeated.
        turns: Times that each network is measured.
    """
    import torch
    from rich.console import Console
    from rich.table import Table

    from lthlib.export import bench
    from lthlib.tickets import Ticket

    ticket = Ticket.load(file)
    model = _from_function(network) if network else _from_run(ticket)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, *_shape(example, ticket), generator=generator)
    timings = bench(ticket, model, inputs, tuple(batch or (1, 128)), turns)
    dense = {timing.batch: timing.median for timing in timings if timing.network == "dense"}
    table = Table("network", "images at once", "ms", "95 % interval", "times as fast as dense")
    for timing in timings:
        interval = f"{timing.low:.3g} to {timing.high:.3g}"
        ratio = f"{dense[timing.batch] / timing.median:.2f}"
        table.add_row(timing.network, str(timing.batch), f"{timing.median:.3g}", interval, ratio)
    Console(markup=False, emoji=False, highlight=False).print(table)
    say(f"{torch.get_num_threads()} threads of {os.cpu_count()} cores; median of {turns} turns")
    say(_WHY)


def _run_of(ticket: Ticket) -> RunConfig:
    from lthlib.runs import RunConfig

    if "config" not in ticket.info:
        raise ConfigError(
            "the ticket comes from no run of lth; say what its network is, such as "
            "--network mynet:build --example 3x32x32"
        )
    return RunConfig.from_json(ticket.info["config"])


def _from_run(ticket: Ticket) -> nn.Module:
    from lthlib.models import build_model

    linear = [tensor for tensor in (ticket.weights or ticket.mask).values() if tensor.dim() == 2]
    if not linear:
        raise TicketError("the ticket does not hold the shape of its last layer; give --network")
    classes = len(linear[-1])
    return build_model(_run_of(ticket).model, classes, _channels(ticket), seed=0)


def _from_function(network: str) -> nn.Module:
    from torch import nn

    name, _, function = network.partition(":")
    sys.path.insert(0, os.getcwd())
    expected = "expected MODULE:FUNCTION, a function without arguments that returns an nn.Module"
    with refusal(ConfigError, f"--network {shown(network)}", Exception, expected):
        model = getattr(importlib.import_module(name), function)()
        if not isinstance(model, nn.Module):
            raise TypeError(f"it returns {shown(model)}")
    return model


def _shape(example: str, ticket: Ticket) -> list[int]:
    if example:
        if not re.fullmatch(r"[1-9]\d{0,5}(x[1-9]\d{0,5})*", example, re.ASCII):
            raise ConfigError(f"--example {shown(example)}; expected a shape such as 3x32x32")
        return [int(side) for side in example.split("x")]
    data = _run_of(ticket).data
    side = data.image_size or _SIDES.get(data.dataset)
    if side is None:
        raise ConfigError(f"images of {data.dataset} have no size of their own; give --example")
    return [_channels(ticket), side, side]


def _channels(ticket: Ticket) -> int:
    # A mask names layers in the order of the network.
    return next((kept.shape[1] for kept in ticket.mask.values() if kept.dim() == 4), 1)
