"""What runs will cost, from a few real steps of each kind before they start."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lthlib.masks import Mask
from lthlib.runs.config import RunConfig
from lthlib.runs.execute import Machine, build_trainer
from lthlib.runs.many import work
from lthlib.runs.process import set_up
from lthlib.training import steps_of
from lthlib.workers import Workers

# Assumed of an H100 and not measured here: what one training step of a small network takes, and
# the rate of floating-point operations that larger ones sustain.
H100_STEP = 2e-3
H100_RATE = {"fp32": 3e13, "tf32": 1e14, "bf16": 1.5e14}
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


def estimate(configs: Sequence[RunConfig], machine: Machine, jobs: int) -> dict[str, float]:
    """Predict the cost of runs on this machine, and on an H100 from assumed speeds.

    Each kind of data, network and training is measured for a second, by `jobs` processes at the
    same time, since they slow each other down. Nobody waiting for a parent is assumed.

    Returns `runs`, `passes` (images sent backward), `seconds` with `jobs` runs at once,
    `busy_seconds` of all of them together, and `h100_seconds`, one run at a time. Raises what the
    data raise.
    """
    sizes = work(configs, machine)
    jobs = max(1, min(jobs, len(configs)))
    speeds: dict[str, Speed] = {}
    busy = assumed = 0.0
    with Workers(jobs) as pool, _in_vain():
        for config in configs:
            kind = repr((config.data, config.model, config.training, config.threads))
            if kind not in speeds:
                found = list(pool.map(measure, [config] * jobs, [machine] * jobs))
                speeds[kind] = max(found, key=lambda speed: speed.image)
            speed, passes = speeds[kind], sizes[config.id]
            training = steps_of(config.training.length, speed.steps_per_epoch)
            tickets = max(1, math.ceil(passes / (training * config.training.batch_size) - 0.1))
            busy += passes * speed.image + tickets * speed.ticket + speed.run
            computing = 3 * speed.flops / H100_RATE[config.training.precision]
            assumed += passes * max(H100_STEP / config.training.batch_size, computing)
    return {
        "runs": len(configs),
        "passes": sum(sizes.values()),
        "busy_seconds": busy,
        "seconds": busy / jobs + (_START if configs else 0.0),
        "h100_seconds": assumed,
    }


@contextlib.contextmanager
def _in_vain() -> Iterator[None]:
    """Nobody waits for measurements after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
        raise


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
