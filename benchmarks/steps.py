"""Training steps: the reference's, ours, and many of ours at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks import reference
from benchmarks.timing import Contestant, Elsewhere, Row, Work, compared, row, take_turns
from lthlib.data import Dataset, DataSettings, Images, load_dataset
from lthlib.errors import DataError
from lthlib.masks import Mask, random_mask
from lthlib.methods import bip, cs
from lthlib.methods.gates import gated_step
from lthlib.models import ModelSettings, build_model
from lthlib.runs.process import set_up
from lthlib.training import Trainer, TrainingSettings, sgd_step
from lthlib.turns import turn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
COUNT, LENGTH, EPOCH = 10_000, 10_000, 50_000
PAPER_EPOCH = 45_000  # images that either paper trains on, without those of validation
DATA = DataSettings("cifar10", COUNT, 0, padding=4, flip=True, mean=MEAN, std=STD)
LOSS_STEPS = 20  # fewer are all in the first, wild ones
STREAMS = {"bip": ("lower-0", "upper")}


@cache
def images() -> tuple[Dataset, str]:
    """CIFAR-10 where LTHLIB_DATA has it, else generated images of its shape; and which it is."""
    try:
        return load_dataset("cifar10", settings=DATA), f"CIFAR-10, first {COUNT} training images"
    except DataError as error:
        return _generated(), f"{COUNT} generated 32x32 colour images ({error})"


def _generated() -> Dataset:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (COUNT,), generator=draw)
    patterns = torch.randint(64, 192, (10, 4, 4, 3), generator=draw)
    noise = torch.randint(-64, 64, (COUNT, 32, 32, 3), generator=draw)
    pictures = patterns.repeat_interleave(8, 1).repeat_interleave(8, 2)[labels] + noise
    part = Images(pictures.to(torch.uint8), labels)
    nothing = part.select(torch.arange(0))
    return Dataset("generated", tuple("0123456789"), part, nothing, nothing)


@dataclass(frozen=True)
class Case:
    """What a step is of: network, batch size, device, intra-op threads."""

    model: ModelSettings
    batch_size: int
    device: str
    threads: int

    @property
    def settings(self) -> TrainingSettings:
        """Of the training whose steps are taken."""
        return TrainingSettings(f"{LENGTH}it", self.batch_size, schedule="constant")

    def title(self, method: str, precision: str) -> str:
        """Name of a row."""
        name = {"dense": "dense", "imp": "IMP", "cs": "CS", "bip": "BiP"}[method]
        where = f", {self.threads} thread(s)" if self.device == "cpu" else ""
        return f"{self.model.architecture} {name} step, {precision}, batch {self.batch_size}{where}"


def theirs(case: Case, method: str) -> Work:
    """The reference's worker."""
    torch.set_num_threads(case.threads)
    dataset, _ = images()
    assert isinstance(dataset.train, Images)
    device = torch.device(case.device)
    source = reference.batches(
        reference.DecodedImages(dataset.train, DATA), case.batch_size, device
    )
    model = build_model(case.model, 10, 3, seed=0).to(device).train()
    return reference.METHODS[method](model, source, case.settings)


def ours(case: Case, method: str, precision: str, replays: bool | None = None) -> Work:
    """Our worker; replays: see `Trainer`."""
    set_up(case.threads, deterministic=False)
    trainer, step = prepared(case, method, precision)
    trainer.replays = replays

    return fitting(trainer, step, STREAMS.get(method, ("train",)))


def fitting(
    trainer: Trainer, step: Callable[..., Any], streams: tuple[str, ...], size: int = 1
) -> Work:
    """Units of `size` steps of a training, which goes on."""

    def run(n: int) -> float:
        if not n:
            return 0.0
        trainer.fit(step, stop=trainer.step + n * size, streams=streams)
        return float(trainer.history[-1]["loss"])

    return run


def prepared(case: Case, method: str, precision: str) -> tuple[Trainer, Callable[..., Any]]:
    """A trainer and the step of a method."""
    dataset, _ = images()
    settings = replace(case.settings, precision=precision)
    model = build_model(case.model, 10, 3, seed=0)
    trainer = Trainer(model, dataset, settings, DATA, device=case.device)
    weights = trainer.prunable_weights()
    if method == "cs":
        for group in ("gates", "gate_momentum"):
            trainer.keep(group, {n: torch.zeros_like(w) for n, w in weights.items()})
        chosen = cs.CSSettings(temperature_per="step")
        gate = cs.gate_of(chosen, LENGTH, trainer.steps_per_epoch)
        return trainer, gated_step(trainer, chosen, LENGTH, gate)
    if method == "bip":
        bip_settings = bip.BiPSettings(density=reference.DENSITY)
        return trainer, bip.Alternation(trainer, bip_settings, LENGTH)
    mask = Mask.full(weights, trainer.names)
    if method == "imp":
        shapes = {name: weight.shape for name, weight in weights.items()}
        kept = round(reference.DENSITY * mask.total)
        mask = random_mask(shapes, kept, torch.Generator().manual_seed(0))
    return trainer, trainer.masked_step(mask, LENGTH)


def against_reference(
    case: Case, aims: dict[tuple[str, str], float], peaks: dict[str, float], rounds: int, units: int
) -> Iterator[Row]:
    """Our steps against the reference's of the same method.

    aims: method and precision -> how many times faster ours is to be, 0 for no target. peaks:
    precision -> measured operations a second of matrix products.
    """
    methods = list(dict.fromkeys(method for method, _ in aims))
    with ExitStack() as stack:
        apart = {m: stack.enter_context(Elsewhere(theirs, [(case, m)])) for m in methods}
        for worker in apart.values():
            worker(0)
        slow = {m: Contestant(work, units, case.threads) for m, work in apart.items()}
        fast = {key: Contestant(ours(case, *key), units, case.threads) for key in aims}
        take_turns([*slow.values(), *fast.values()], rounds)
    flops = prepared(case, "dense", "fp32")[0].flops_per_image()
    for (method, precision), aim in aims.items():
        found = fast[method, precision]
        line = compared(case.title(method, precision), slow[method], found, aim)
        passes = 2 if method == "bip" else 1
        rate = 3 * passes * flops * case.batch_size / (found.typical / 1000)
        epoch = EPOCH / case.batch_size * found.typical / 1000
        share = f"{100 * rate / peaks[precision]:.0f} % of a matrix product's rate"
        dense = fast.get(("dense", precision))
        times = f", {found.typical / dense.typical:.2f} dense steps" if dense else ""
        yield line | {"note": f"{epoch:.2g} s for 50,000 images, {share}{times}"}
    if rounds * units < LOSS_STEPS:
        return
    for precision in dict.fromkeys(p for m, p in aims if m == "dense"):
        yield _losses(
            case, precision, slow["dense"], fast["dense", precision], rounds * (units + 1)
        )


def _losses(case: Case, precision: str, slow: Contestant, fast: Contestant, steps: int) -> Row:
    # No target: one draw of so few steps cannot tell 10 %. Tests hold our steps against torch's.
    name = f"{case.model.architecture} training loss, {precision}"
    note = f"later half of {steps} steps from the same weights, one draw"
    return row(name, fast.late_loss, "nats", slow.late_loss, note=note)


def alternation_rows(case: Case, dense: float, times: float, rounds: int) -> Iterator[Row]:
    """BiP's alternation in bf16 in dense steps, at most so many, and against the reference's, at
    least so many times faster; what it keeps beside the dense state."""
    with Elsewhere(theirs, [(case, "bip")]) as apart:
        apart(0)
        slow = Contestant(apart, 1, case.threads)
        fast = {m: Contestant(ours(case, m, "bf16"), 1, case.threads) for m in ("dense", "bip")}
        take_turns([slow, *fast.values()], rounds)
    yield compared(case.title("bip", "bf16"), slow, fast["bip"], times)
    share = fast["bip"].typical / fast["dense"].typical
    aim = {"target": f"<= {dense:g}", "met": share <= dense}
    title = f"{case.model.architecture} BiP step, batch {case.batch_size}, in dense steps"
    yield row(title, share, "") | aim
    yield state_row(case)


def state_row(case: Case) -> Row:
    """What BiP keeps beside the weights, in copies of the prunable ones."""
    before, _ = prepared(case, "dense", "fp32")
    after, _ = prepared(case, "bip", "fp32")
    copies = (_bytes(after) - _bytes(before)) / sum(
        w.numel() * w.element_size() for w in after.prunable_weights().values()
    )
    aim = {"target": "<= 2", "met": copies <= 2}
    note = "scores, their momentum, masks; in copies of the prunable weights"
    return row(f"{case.model.architecture} state BiP adds", copies, "", note=note) | aim


def _bytes(trainer: Trainer) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in trainer.state.values())


def epoch_rows(case: Case, rounds: int, steps: int) -> Iterator[Row]:
    """Whole epochs of dense training, CS and BiP in bf16, as a run makes them: what is drawn, put
    on the device and read once an epoch is in it. steps: of an epoch, at most so many."""
    contestants = {}
    for method in ("dense", "cs", "bip"):
        trainer, step = prepared(case, method, "bf16")
        steps = min(steps, trainer.steps_per_epoch)
        run = fitting(trainer, step, STREAMS.get(method, ("train",)), steps)
        contestants[method] = Contestant(run, 2, case.threads)
    take_turns(contestants.values(), rounds)
    dense = contestants["dense"].typical
    for method, found in contestants.items():
        images = steps * case.batch_size
        seconds = PAPER_EPOCH / images * found.typical / 1000
        title = case.title(method, "bf16").replace("step", f"epoch of {PAPER_EPOCH:,} images")
        times = {"cs": 1.08, "bip": 2.15}.get(method)
        share = found.typical / dense
        if case.device == "cpu":
            aim = {}
        elif times:
            aim = {"target": f"<= {times:g} dense epochs", "met": share <= times}
        else:
            aim = {"target": "<= 0.65 s", "met": seconds <= 0.65}
        note = f"from {images:,} images; {share:.2f} dense epochs"
        yield row(title, seconds, "s", note=note) | aim


def many_rows(case: Case, counts: tuple[int, ...], rounds: int, units: int) -> Iterator[Row]:
    """Several dense trainings at once, against one after another: on a GPU in threads of one
    process, as a sweep puts them there, and for the largest number in processes; on a CPU in
    processes and under `torch.func.vmap`, the one having all cores. On a CPU in single precision,
    since under vmap BatchNorm takes no other."""
    on_gpu = case.device != "cpu"
    precision = "bf16" if on_gpu else "fp32"
    cores = 1 if on_gpu else os.cpu_count() or 1
    alone = replace(case, threads=cores)
    runs: dict[tuple[str, int], Contestant] = {}
    with ExitStack() as stack:

        def enter(name: str, count: int, how: Case) -> None:
            apart = stack.enter_context(Elsewhere(ours, [(how, "dense", precision)] * count))
            runs[name, count] = Contestant(apart, units)

        enter("one after another", 1, alone)
        for count in counts:
            if on_gpu:
                runs["threads", count] = Contestant(_threads(case, count, precision), units)
            if not on_gpu or count == max(counts):
                enter("processes", count, replace(case, threads=1))
            if count > 1 and not on_gpu:
                runs["vmap", count] = Contestant(stacked(case, count, precision), units, cores)
        for found in runs.values():
            found.run(0)
        take_turns(runs.values(), rounds)
    single = runs.pop(("one after another", 1)).typical
    for (how, count), found in runs.items():
        # Images a second over those of one run after another, all with the same batch.
        ratio = count * single / found.typical
        rate = 1000 * count * case.batch_size / found.typical
        aim: dict[str, Any] = {}
        if how == "processes" and not on_gpu and count == 2:
            aim = {"target": ">= 1.2 x", "met": ratio >= 1.2}
        if how == "threads" and count == 8:
            seconds = PAPER_EPOCH / rate
            aim = {"target": "<= 0.35 s an epoch", "met": seconds <= 0.35}
            aim["note"] = f"{seconds:.2f} s an epoch of {PAPER_EPOCH:,} images, all runs together"
        title = f"{case.model.architecture} runs at once, {how}, K = {count}"
        yield row(title, rate, "im/s", 1000 * case.batch_size / single) | {"ratio": ratio} | aim


def _threads(case: Case, count: int, precision: str) -> Work:
    """Trainings in threads that take turns, as `lth sweep --jobs-per-device` has them."""
    trainings = [prepared(case, "dense", precision) for _ in range(count)]
    pool = ThreadPoolExecutor(count)

    def run(n: int) -> float:
        def one(training: tuple[Trainer, Callable[..., Any]]) -> None:
            trainer, step = training
            with turn(trainer.network.device) as pause:
                trainer.hooks.should_stop = lambda trainer: pause() is not None
                trainer.fit(step, stop=trainer.step + n)

        if n:
            list(pool.map(one, trainings))
        return 0.0

    return run


def stacked(case: Case, count: int, precision: str) -> Work:
    """`count` networks whose parameters are stacked, stepped together by `torch.func.vmap`."""
    dataset, _ = images()
    device = torch.device(case.device)
    models = [build_model(case.model, 10, 3, seed).to(device).train() for seed in range(count)]
    weights, buffers = stack_module_state(models)  # type: ignore[arg-type]
    momenta = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    settings = replace(case.settings, precision=precision)
    trainer = Trainer(models[0], dataset, settings, DATA, device=device)
    source = trainer.batches("train").stream()

    def loss(own: Any, statistics: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(functional_call(models[0], (own, statistics), (x,)), y)

    gradients = vmap(grad(loss), in_dims=(0, 0, 0, 0), randomness="different")

    def run(n: int) -> float:
        for _ in range(n):
            drawn = [next(source) for _ in range(count)]
            x, y = (torch.stack(parts) for parts in zip(*drawn, strict=True))
            with trainer.network.arithmetic():
                found = gradients(weights, buffers, x, y)
            sgd_step(
                weights, found, momenta, 0.1,
                momentum=0.9, nesterov=True, weight_decay=1e-4,
            )  # fmt: skip
        return float(next(iter(weights.values())).detach().sum())

    return run


def memory_on_device(case: Case) -> Row:
    """Peak memory of a dense training on a GPU, one run."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    ours(case, "dense", "bf16")(30)
    gib = torch.cuda.max_memory_reserved() / 2**30
    aim = {"target": "<= 4 GiB", "met": gib <= 4}
    return row(f"{case.model.architecture} device memory, K = 1", gib, "GiB") | aim


def agreement_rows(case: Case) -> Iterator[Row]:
    """On a GPU: replayed steps against eager ones from the same state, in single precision."""
    for method in ("dense", "imp", "cs", "bip"):
        states = []
        for replays in (False, True):
            trainer, step = prepared(case, method, "fp32")
            trainer.replays = replays
            trainer.fit(step, stop=12, streams=STREAMS.get(method, ("train",)))
            states.append(trainer)
        eager, replayed = (t.group("weights") for t in states)
        apart = max(
            float((replayed[n] - eager[n]).norm() / eager[n].norm().clamp_min(1e-12)) for n in eager
        )
        aim = {"target": "<= 1e-2", "met": apart <= 1e-2}
        note = "largest relative distance of a weight tensor after 12 steps"
        yield row(f"{method}: replayed to eager", apart, "", note=note) | aim
