"""What runs will cost, from a few real steps of each kind before they start."""

import contextlib
import math
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lthlib.errors import DataError
from lthlib.files import from_yaml
from lthlib.masks import Mask
from lthlib.models import ModelSettings, build_model
from lthlib.runs.config import RunConfig
from lthlib.runs.execution import Machine, build_trainer, expected_passes
from lthlib.runs.many import default_jobs
from lthlib.runs.process import set_up
from lthlib.training import steps_of
from lthlib.training.network import Network
from lthlib.workers import Workers

# A GPU's measured speeds; the file says what they are.
GPU: dict[str, Any] = from_yaml(Path(__file__).with_name("speeds.yaml").read_bytes())
MANY = 8  # runs at once, where nobody says how many
_MEASURE = 1.0  # seconds of training
_START = 4.0  # seconds until a process has imported torch
# Training images before the split, classes, and pixels a side: from each data set's own page.
SETS = {
    "cifar10": (50_000, 10, 32),
    "cifar100": (50_000, 100, 32),
    "tiny-imagenet": (100_000, 200, 64),
    "imagenet": (1_281_167, 1000, 224),
}


@dataclass
class Speed:
    """Measured of a kind of run.

    Attributes:
        image: seconds for an image sent forward and backward.
        ticket: seconds for judging one.
        run: seconds for beginning and ending.
        steps_per_epoch: as the run has them.
        flops: operations of an image forward.
    """

    image: float
    ticket: float
    run: float
    steps_per_epoch: int
    flops: int


@dataclass
class Bill:
    """The cost of some runs, wherever they run.

    Attributes:
        gpu: seconds until all are done on one GPU of `GPU`, training alone, by how many at once.
        passes: images sent backward.
        epochs: the same in epochs of each run's training images; one of BiP, which sends each batch
            of both its levels backward, counts two.
    """

    gpu: dict[int, float]
    passes: int = 0
    epochs: float = 0.0

    def add(self, config: RunConfig, steps: int, flops: int) -> int:
        """Add a run.

        Args:
            config: its configuration.
            steps: in an epoch.
            flops: operations of an image forward.

        Returns:
            The images that it sends backward.
        """
        passes = expected_passes(config, steps)
        self.passes += passes
        self.epochs += passes / steps / config.training.batch_size
        for count in self.gpu:
            self.gpu[count] += gpu_seconds(config, flops, passes, count)
        return passes


@dataclass
class Forecast(Bill):
    """The cost of some runs on this machine too.

    Attributes:
        jobs: runs at once here.
        busy: seconds of all of them, each alone on a GPU.
        seconds: until all are done, nobody waiting for a parent.
    """

    jobs: int = 1
    busy: float = 0.0
    seconds: float = 0.0


def bill(configs: Iterable[RunConfig], several: int = MANY) -> Bill:
    """Return what runs cost, by counting alone: without data, and without computing anything.

    Args:
        configs: the runs.
        several: as many at once on a GPU, beside one.

    Raises:
        DataError: as `size_of`.
    """
    total = Bill(dict.fromkeys((1, several), 0.0))
    for config in configs:
        total.add(config, *size_of(config))
    return total


def size_of(config: RunConfig) -> tuple[int, int]:
    """Return the steps in an epoch of a run, and the operations of an image forward.

    Raises:
        DataError: the size of its data set is not in `SETS`.
    """
    data = config.data
    if data.dataset not in SETS:
        raise DataError(f"the size of {data.dataset} is not known; expected {', '.join(SETS)}")
    images, classes, side = SETS[data.dataset]
    images = min(images, data.train_images or images) - data.validation_images
    flops = _operations(config.model, classes, data.image_size or side)
    return math.ceil(images / config.training.batch_size), flops


@cache
def _operations(model: ModelSettings, classes: int, side: int) -> int:
    network = Network(build_model(model, classes, 3, 0))
    return network.flops_per_image(torch.zeros(1, 3, side, side))


def estimate(
    configs: Sequence[RunConfig],
    machine: Machine,
    jobs: int | None = None,
    per_device: int | None = None,
) -> Forecast:
    """Predict the cost of runs.

    Each kind of data, network and training is measured for a second: on a CPU by all processes at
    the same time, since they slow each other down; on a GPU by one.

    Args:
        configs: the runs.
        machine: where they are to run.
        jobs: at once here, by default as many as a sweep has. Processes gain nothing on a GPU.
        per_device: at once on each GPU, in one process; what that gains is in `GPU`.

    Raises:
        DataError: as loading the data does.
    """
    on_gpu = machine.torch_device().type == "cuda"
    shared = (per_device or 1) if on_gpu else 1
    jobs_here = default_jobs(machine) if on_gpu else jobs or per_device or default_jobs(machine)
    slots = max(1, min(jobs_here, len(configs)))  # GPUs, or processes
    side_by_side, count = (1, jobs or slots * shared) if on_gpu else (slots, slots)
    total = Forecast(dict.fromkeys((1, per_device or MANY), 0.0), jobs=count)
    speeds: dict[str, Speed] = {}
    with Workers([""] * side_by_side) as pool, _workers_killed_on_interrupt():
        for config in configs:
            kind = repr((config.data, config.model, config.training, config.threads))
            if kind not in speeds:
                alike = [config] * side_by_side
                measured = pool.map(measure, alike, [machine] * side_by_side)
                speeds[kind] = max(measured, key=lambda speed: speed.image)
            speed = speeds[kind]
            passes = total.add(config, speed.steps_per_epoch, speed.flops)
            training = steps_of(config.training.length, speed.steps_per_epoch)
            tickets = max(1, math.ceil(passes / (training * config.training.batch_size) - 0.1))
            seconds = passes * speed.image + tickets * speed.ticket + speed.run
            total.busy += seconds
            total.seconds += seconds * together(config, speed.flops, shared)
    total.seconds = total.seconds / slots + (_START if configs else 0.0)
    return total


@contextlib.contextmanager
def _workers_killed_on_interrupt() -> Iterator[None]:
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
    speeds = [(net["gflop"], net[precision]) for net in GPU["networks"] if precision in net]
    operations, epochs = zip(*speeds, strict=True)
    gflop = 3e-9 * flops * config.training.batch_size / batch
    epoch = float(np.interp(gflop, operations, epochs)) * max(1.0, gflop / operations[-1])
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
    judged = [split for split in (trainer.dataset.validation, trainer.dataset.test) if len(split)]
    few = next(iter(trainer.in_order(judged[0])), None) if judged else None
    if few is None:
        return Speed(image, 0.0, run, trainer.steps_per_epoch, flops)
    begun = time.perf_counter()
    trainer.network.judge(weights, buffers, [few])
    ticket = (time.perf_counter() - begun) * sum(map(len, judged)) / len(few[1])
    return Speed(image, ticket, run, trainer.steps_per_epoch, flops)
