"""How fast the networks of tickets are on this CPU: dense, with zeros, and with what is pruned cut
out; and what formats that skip zeros would need.

`python -m benchmarks.tickets` writes results/bench/DATE-tickets.json. The tickets are cut by
magnitude from networks that nobody trained: what a weight is changes no time, where the zeros are
does.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.report import report
from benchmarks.timing import Row, row
from lthlib.export import Latency, latencies, onnx_run, shrink
from lthlib.masks import group_axes, prunable_names, select, top_k
from lthlib.models import ModelSettings, build_model
from lthlib.modules import call
from lthlib.tickets import Ticket

NETWORKS = {"ResNet-20": ModelSettings("resnet20", 16), "VGG-16": ModelSettings("vgg16", 64)}
BATCHES = (1, 128)
DENSITIES = (0.2, 0.1, 0.05, 0.01)


def ticket_of(model: nn.Module, structure: str, density: float) -> Ticket:
    """The largest weights of a network, or the filters or channels of largest norm."""
    own = dict(model.named_parameters())
    scores = {name: own[name].detach().abs() for name in prunable_names(model)}
    return Ticket(select(scores, density, structure, axes=group_axes(model)))


def network_rows(name: str, model: nn.Module, turns: int) -> Iterator[Row]:
    """Times of a network in its forms, and how many times as fast as the dense one each is."""
    example = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scattered = ticket_of(model, "unstructured", 0.1).apply(copy.deepcopy(model)).eval()
    filters = ticket_of(model, "filter", 0.5)
    channels = ticket_of(model, "channel", 0.5)
    forms = {
        "dense": model.eval(),
        "90 % of weights zero": scattered,
        "half of the filters cut out": shrink(filters, model, example),
        "half of the channels cut out": shrink(channels, model, example),
    }
    runs = {form: partial(call, network) for form, network in forms.items()}
    runs |= {f"{form}, ONNX": onnx_run(network, example) for form, network in forms.items()}
    found = latencies(runs, example, BATCHES, turns)
    dense = {one.batch: one.median for one in found if one.network == "dense"}
    for one in found:
        yield latency_row(f"{name}, {one.network}", one, dense[one.batch])


def latency_row(name: str, one: Latency, dense: float) -> Row:
    """Median and interval of a form, and its ratio to the dense network in PyTorch."""
    images = "1 image" if one.batch == 1 else f"{one.batch} images"
    interval = f"{float(f'{one.low:.3g}'):,g} to {float(f'{one.high:.3g}'):,g}"
    return row(f"{name}: {images}", one.median, "ms", dense, note=interval)


def layer_rows(turns: int) -> Iterator[Row]:
    """A convolution of ResNet-20's last stage: as PyTorch does it, and as a product of its unfolded
    inputs with weights in a format that skips zeros, at several densities."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(64, 64 * 9, generator=draw)
    images = torch.randn(2, 64, 8, 8, generator=draw)
    kernels = weights.view(64, 64, 3, 3)
    runs = {"dense": partial(F.conv2d, weight=kernels, padding=1)}
    runs["inputs unfolded, nothing multiplied"] = columns_of
    for density in DENSITIES:
        kept = top_k(weights.abs(), round(density * weights.numel()))
        sparse = (weights * kept).to_sparse_csr()
        runs[f"{density:.0%} kept, zeros skipped"] = partial(unfolded, sparse)
    found = latencies(runs, images, BATCHES, turns)
    dense = {one.batch: one.median for one in found if one.network == "dense"}
    for one in found:
        yield latency_row(f"layer, {one.network}", one, dense[one.batch])


def columns_of(images: Tensor) -> Tensor:
    """[b, c, h, w] -> [9 c, b h w]: for each pixel those around it."""
    return F.unfold(images, 3, padding=1).transpose(0, 1).flatten(1)


def unfolded(weights: Tensor, images: Tensor) -> Tensor:
    """3x3 convolution of [b, c, h, w] by a matrix [filters, 9 c]."""
    product = torch.matmul(weights, columns_of(images)).view(
        len(weights), len(images), *images.shape[2:]
    )
    return product.transpose(0, 1)


def main() -> None:
    """Measure and write results/bench/DATE-tickets.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tickets")
    parser.add_argument("--tiny", action="store_true", help="a small network, to see it runs")
    parser.add_argument("--output", type=Path, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # torch calls its sparse formats unfinished
    turns, networks = 11, NETWORKS
    if options.tiny:
        turns, networks = 6, {"ResNet-8": ModelSettings("resnet8", 2)}
    models = {name: build_model(one, 10, 3, seed=0) for name, one in networks.items()}
    rows = (network_rows(name, model, turns) for name, model in models.items())
    report(chain(layer_rows(turns), *rows), "tickets", options.output)


if __name__ == "__main__":
    main()
