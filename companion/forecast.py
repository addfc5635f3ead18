"""What runs will cost, from a few real steps of each kind before they start."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lthlib.files import from_yaml
from lthlib.masks import Mask
from lthlib.runs.config import RunConfig
from lthlib.runs.execute import Machine, build_trainer
from lthlib.runs.many import default_jobs, work
from lthlib.runs.process import set_up
from lthlib.training import steps_of
from lthlib.workers import Workers

# A GPU's measured speeds; the file says what they are.
GPU: dict[str, Any] = from_yaml(Path(__file__).with_name("speeds.yaml").read_bytes())
MANY = 8  # runs at once, where nobody says how many
_MEASURE = 1.0  # seconds of training
_START = 4.0  # seconds until a process has imported torch


@dataclass
class Speed:
    """Measured of a kind of run, in seconds: for an image sent forward and backward, for judging a
    ticket, for beginning and ending; and steps in an epoch, operations of an image forward."""

    image: float
    ticket: float
    run: float
    steps_per_epoch: int
    flops: int


@dataclass
class Forecast:
    """The cost of some runs.

    passes: images sent backward. jobs: runs at once on this machine. busy: seconds of all of them
    here, each alone on a GPU. seconds: until all are done here, nobody waiting for a parent. gpu:
    the same on one GPU of `GPU`, training alone, by how many are at once.
    """

    passes: int
    jobs: int
    gpu: dict[int, float]
    busy: float = 0.0
    seconds: float = 0.0


def estimate(
    configs: Sequence[RunConfig],
    machine: Machine,
    jobs: int | None = None,
    per_device: int | None = None,
) -> Forecast:
    """Predict the cost of runs.

    Each kind of data, network and training is measured for a second: on a CPU by all processes at
    the same time, since they slow each other down; on a GPU by one. Raises what the data raise.

    Args:
        configs: the runs.
        machine: where they are to run.
        jobs: at once here, by default as many as a sweep has. Processes gain nothing on a GPU.
        per_device: at once on each GPU, in one process; what that gains is in `GPU`.
    """
    on_gpu = machine.torch_device().type == "cuda"
    shared = (per_device or 1) if on_gpu else 1
    wanted = default_jobs(machine) if on_gpu else jobs or per_device or default_jobs(machine)
    places = max(1, min(wanted, len(configs)))  # GPUs, or processes
    side_by_side, count = (1, jobs or places * shared) if on_gpu else (places, places)
    sizes = work(configs, machine)
    found = Forecast(sum(sizes.values()), count, dict.fromkeys((1, per_device or MANY), 0.0))
    speeds: dict[str, Speed] = {}
    with Workers([""] * side_by_side) as pool, _in_vain():
        for config in configs:
            kind = repr((config.data, config.model, config.training, config.threads))
            if kind not in speeds:
                alike = [config] * side_by_side
                measured = pool.map(measure, alike, [machine] * side_by_side)
                speeds[kind] = max(measured, key=lambda speed: speed.image)
            speed, passes = speeds[kind], sizes[config.id]
            training = steps_of(config.training.length, speed.steps_per_epoch)
            tickets = max(1, math.ceil(passes / (training * config.training.batch_size) - 0.1))
            own = passes * speed.image + tickets * speed.ticket + speed.run
            found.busy += own
            found.seconds += own * together(config, speed.flops, shared)
            for several in found.gpu:
                found.gpu[several] += gpu_seconds(config, speed.flops, passes, several)
    found.seconds = found.seconds / places + (_START if configs else 0.0)
    return found


@contextlib.contextmanager
def _in_vain() -> Iterator[None]:
    """Nobody waits for measurements after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.kill()
        raise


def gpu_seconds(config: RunConfig, flops: int, passes: int, count: int = 1) -> float:
    """Seconds that a run keeps the GPU of `GPU` busy, when so many like it are at once.

    A step takes what one of as many operations was measured to take, at a precision; fewer take as
    long as the least, more longer in proportion.

    Args:
        config: the run.
        flops: of an image forward.
        passes: images that it sends backward.
        count: runs at once.
    """
    precision, batch, steps = config.training.precision, GPU["batch"], GPU["steps"]
    known = [(net["gflop"], net[precision]) for net in GPU["networks"] if precision in net]
    operations, epochs = zip(*known, strict=True)
    own = 3e-9 * flops * config.training.batch_size / batch
    epoch = float(np.interp(own, operations, epochs)) * max(1.0, own / operations[-1])
    method = GPU["methods"].get(config.method, {})
    if precision in method:
        epoch *= method[precision] / (method["passes"] * epochs[0])
    return passes / config.training.batch_size * epoch / steps * together(config, flops, count)


def together(config: RunConfig, flops: int, count: int) -> float:
    """The share of its time alone that a run takes when so many like it are at once on a GPU, each
    taking its part. Larger networks than the measured one are not assumed to gain."""
    pairs = GPU["together"].get(config.training.precision, [[1, 1.0]])
    if 3e-9 * flops > 2 * GPU["networks"][0]["gflop"]:
        return 1.0
    counts, epochs = zip(*pairs, strict=True)
    return float(np.interp(count, counts, epochs)) / float(epochs[0])


def measure(config: RunConfig, machine: Machine) -> Speed:
    """Train and judge for about a second as a run of this kind does."""
    set_up(config.threads, machine.deterministic)
    build_trainer(config, machine)  # decodes the data, where nobody has
    begun = time.perf_counter()
    trainer = build_trainer(config, machine)
    flops = trainer.flops_per_image()
    run = time.perf_counter() - begun
    weights, buffers = trainer.group("weights"), trainer.group("buffers")
    step = trainer.masked_step(Mask.full(weights, trainer.names), trainer.steps())
    trainer.fit(step, stop=5)
    before, images = trainer.cost.seconds, trainer.cost.images
    while trainer.cost.seconds - before < _MEASURE:
        trainer.fit(step, stop=trainer.step + 10)
    image = (trainer.cost.seconds - before) / (trainer.cost.images - images)
    judged = [part for part in (trainer.dataset.validation, trainer.dataset.test) if len(part)]
    few = next(iter(trainer.in_order(judged[0])), None) if judged else None
    if few is None:
        return Speed(image, 0.0, run, trainer.steps_per_epoch, flops)
    begun = time.perf_counter()
    trainer.network.accuracy(weights, buffers, [few])
    ticket = (time.perf_counter() - begun) * sum(map(len, judged)) / len(few[1])
    return Speed(image, ticket, run, trainer.steps_per_epoch, flops)
