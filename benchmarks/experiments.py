"""What is to be tried on a GPU before it becomes the default: `python -m benchmarks.experiments`.

Prints, for recorded dense steps of ResNet-20, what a variant does to the time that launching the
recording takes the processor and to the time of a step. Nothing here is on by default.

tf32. Launching a recording of 38 cuDNN BatchNorm kernels (`batchnorm_*_semiPersist`), 47 memsets
and 36 conversions took 2 ms where bf16 took half. Read from the kernels' counts, and not measured:
each semi-persistent BatchNorm brings a memset of its own (38 of the 47), and torch takes these
kernels for single precision alone, so bf16 has none of them. The conversions are six for each of
the six layers of 16 channels, whose fastest kernels want operands rounded to tf32 beforehand. If
so, `native-batchnorm` takes the memsets away and `no-search`, cuDNN's own choice of kernels,
perhaps the conversions; the first reads activations once more and may be slower alone and faster
for several at once.

compile. BatchNorm, ReLU and the addition move as many bytes as the convolutions; `compiled` fuses
them by torch.compile, within the same recording.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.steps import Case, prepared
from lthlib.models import ModelSettings
from lthlib.training import Trainer
from lthlib.training.graphs import WARM_UP


def as_it_is(trainer: Trainer) -> None:
    """Leave the network alone."""


def native_batchnorm(trainer: Trainer) -> None:
    """Take torch's own BatchNorm instead of cuDNN's."""
    for module in trainer.network.model.modules():
        if isinstance(module, _BatchNorm):
            module.forward = _without_cudnn(module.forward)  # type: ignore[method-assign]


def _without_cudnn(forward: Callable[..., Any]) -> Callable[..., Any]:
    cudnn: Any = torch.backends.cudnn

    def apart(x: torch.Tensor) -> Any:
        enabled, cudnn.enabled = cudnn.enabled, False
        try:
            return forward(x)
        finally:
            cudnn.enabled = enabled

    return apart


def no_search(trainer: Trainer) -> None:
    """Take the kernels that cuDNN proposes, without measuring any."""
    cudnn: Any = torch.backends.cudnn
    arithmetic = trainer.network.arithmetic

    @contextmanager
    def unsearched() -> Any:
        with arithmetic():
            cudnn.benchmark = False
            yield

    trainer.network.arithmetic = unsearched  # type: ignore[method-assign]


def compiled(trainer: Trainer) -> None:
    """Compile the network's forward and backward pass."""
    trainer.network.model = torch.compile(trainer.network.model)  # type: ignore[assignment]


VARIANTS = {
    "as-it-is": as_it_is,
    "native-batchnorm": native_batchnorm,
    "no-search": no_search,
    "compiled": compiled,
}


def measured(case: Case, precision: str, change: Callable[[Trainer], None]) -> tuple[float, float]:
    """Milliseconds of the processor to launch a step's recording, and of a step; of 200."""
    trainer, step = prepared(case, "dense", precision)
    change(trainer)
    trainer.fit(step, stop=WARM_UP + 2)
    assert trainer.maker is not None
    ((replay, _),) = trainer.maker.recordings.values()
    times = []
    for pause in (torch.cuda.synchronize, lambda: None):  # each launch alone, then all at once
        torch.cuda.synchronize()
        spent = 0.0
        begun = time.perf_counter()
        for _ in range(200):
            launched = time.perf_counter()
            replay()
            spent += time.perf_counter() - launched
            pause()
        torch.cuda.synchronize()
        times.append((spent, time.perf_counter() - begun))
    return 1000 * times[0][0] / 200, 1000 * times[1][1] / 200


def main() -> None:
    """Measure the variants that are asked for, in turn, twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.experiments")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--precision", nargs="+", default=["tf32", "bf16"])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("these are questions to a GPU, and torch finds none")
    case = Case(ModelSettings("resnet20", 16), 128, "cuda", 1)
    for _ in range(2):
        for precision in options.precision:
            for name in options.only:
                launch, step = measured(case, precision, VARIANTS[name])
                print(f"{precision} {name:<17} launch {launch:.2f} ms, step {step:.2f} ms")


if __name__ == "__main__":
    main()
