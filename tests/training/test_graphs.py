"""Steps that are recorded and replayed. A CPU records nothing: there, the recording is the step
itself, run with the memory, the plan and the tables that a CUDA graph would have."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lthlib.data import Dataset, DataSettings, Images
from lthlib.errors import Paused
from lthlib.masks import Mask
from lthlib.methods import get_method
from lthlib.methods.bip import DEPARTURES, Alternation, BiPSettings
from lthlib.methods.cs import CSSettings, gate_of
from lthlib.methods.gates import gated_step
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Trainer, TrainingSettings
from lthlib.training.graphs import WARM_UP
from tests.training.toys import STEPS_PER_EPOCH, dense_parent, tiny_trainer

LENGTH = {"length": "17it", "schedule": "cosine", "warmup": "2it"}
SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("dense", {}),
    ("imp", {"rounds": 2, "rewind": "2it"}),
    ("imp", {"rounds": 1, "structure": "filter"}),
    ("gmp", {"density": 0.3, "every": "2it"}),
    ("cs", {"rounds": 2, "rewind": "1it", "temperature_per": "step"}),
    ("cs", {"scaled": True, "rewind": "1it"}),
    ("l0", {"rewind": "1it"}),
    ("iss", {"rewind": "1it"}),
    ("bip", {"density": 0.3}),
    ("bip", {"density": 0.3, "clip": 1.0, "lower_steps": 2, "upper_at": "scores"}),
    ("bip", {"density": 0.3, "variant": "release"}),
    *(("bip", {"density": 0.3, "switched": [name]}) for name in DEPARTURES),
    ("hydra", {"density": 0.3}),
]


class Launches(TorchDispatchMode):
    """Counts the operations that are launched from Python, but for those within `aside`."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.apart = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not self.apart
        return func(*args, **(kwargs or {}))

    @contextmanager
    def aside(self) -> Iterator[None]:
        before, self.apart = self.apart, True
        yield
        self.apart = before


class Recorder:
    """Counts what is recorded and replayed; its recording is the work itself. While recording, work
    leaves the state as it was, as on a GPU, where nothing is computed then."""

    def __init__(self, trainer: Trainer, launches: Launches | None = None) -> None:
        self.trainer, self.launches = trainer, launches or Launches()
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        before = {name: tensor.clone() for name, tensor in self.trainer.state.items()}
        with torch.random.fork_rng(devices=[]), self.launches.aside():
            work()
        for name, tensor in before.items():
            self.trainer.state[name].copy_(tensor)

        def replay() -> None:
            self.replayed += 1
            with self.launches.aside():
                work()

        return replay


def searched(
    name: str, settings: dict[str, Any], replays: bool, **toy: Any
) -> tuple[list[Ticket], Trainer]:
    method = get_method(name)
    trainer = tiny_trainer(**LENGTH, **toy)
    trainer.replays, trainer.recorder = replays, Recorder(trainer)
    parent = dense_parent(tiny_trainer(**toy)) if method.parent == "dense" else None
    chosen = method.settings(**{k: tuple(v) if k == "switched" else v for k, v in settings.items()})
    return list(method.search(trainer, chosen, parent)), trainer


def assert_same(ours: Trainer, theirs: Trainer) -> None:
    """In double precision, up to the order of a product and a rounded dial."""
    for name, known in theirs.state.items():
        torch.testing.assert_close(ours.state[name], known, rtol=1e-12, atol=1e-13)
    for line, known_line in zip(ours.history, theirs.history, strict=True):
        assert line["loss"] == pytest.approx(known_line["loss"], rel=1e-12)
        assert line["train_accuracy"] == known_line["train_accuracy"]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize(("name", "settings"), SEARCHES, ids=str)
def test_replayed_steps_find_what_steps_find(
    name: str, settings: dict[str, Any], dropout: float
) -> None:
    theirs, reference = searched(name, settings, replays=False, dropout=dropout)
    ours, trainer = searched(name, settings, replays=True, dropout=dropout)
    recorder = trainer.recorder

    assert reference.recorder.recorded == 0
    # Whole batches, and the short one that ends each epoch.
    assert (recorder.recorded >= 2) == (recorder.replayed > 7) == (name != "gmp")
    assert [ticket.mask for ticket in ours] == [ticket.mask for ticket in theirs]
    assert_same(trainer, reference)


def test_a_run_that_stops_within_an_epoch_goes_on_with_replays_as_without() -> None:
    settings = {"rounds": 2, "rewind": "1it", "temperature_per": "step"}
    _, reference = searched("cs", settings, replays=False, dropout=0.4)
    trainer = tiny_trainer(**LENGTH, dropout=0.4)
    trainer.replays, trainer.recorder = True, Recorder(trainer)
    stops = iter([False] * (3 * STEPS_PER_EPOCH + 2) + [True] + [False] * 99)
    trainer.hooks.should_stop = lambda trainer: next(stops)
    method = get_method("cs")
    with pytest.raises(Paused, match="before step 11"):
        list(method.search(trainer, method.settings(**settings), None))
    assert trainer.recorder.replayed > 3

    trainer.recorder = Recorder(trainer)
    list(method.search(trainer, method.settings(**settings), None))
    for name, known in reference.state.items():
        torch.testing.assert_close(trainer.state[name], known, rtol=1e-12, atol=1e-13)


def pictures(images: int, depth: int, **settings: Any) -> Trainer:
    """Eight-bit images that are cropped and flipped, and a network of `depth` convolutions."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 6, 6, 3), generator=draw, dtype=torch.uint8)
    part = Images(pixels, torch.arange(images) % 3)
    few = part.select(torch.arange(6))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1)]
        for _ in range(depth - 1):
            layers += [nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, bias=False)]
        model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 3)).double()
    data = DataSettings(padding=1, flip=True, mean=(0.5,) * 3, std=(0.3,) * 3)
    training = TrainingSettings("40it", 4, **settings)
    return Trainer(model, Dataset("pictures", ("a", "b", "c"), part, few, few), training, data)


def step_of(trainer: Trainer, method: str) -> tuple[Callable[..., Outcome], tuple[str, ...]]:
    weights = trainer.prunable_weights()
    if method == "cs":
        trainer.keep("gates", weights)
        trainer.keep("gate_momentum", weights)
        settings = CSSettings(temperature_per="step")
        return gated_step(trainer, settings, 40, gate_of(settings, 40, 10)), ("train",)
    if method == "bip":
        return Alternation(trainer, BiPSettings(0.3, clip=1.0), 40), ("lower-0", "upper")
    mask = Mask({name: weight > 0 for name, weight in weights.items()})
    return trainer.masked_step(mask, 40), ("train",)


@pytest.mark.parametrize("method", ["imp", "cs", "bip"])
def test_a_replay_is_launched_with_one_number(method: str) -> None:
    """Choosing, cutting, flipping and normalising images, the step and the sums are recorded."""
    launches, counts = Launches(), []
    trainers = [pictures(40, 2), pictures(40, 2)]
    for trainer, replays in zip(trainers, (True, False), strict=True):
        trainer.replays, trainer.recorder = replays, Recorder(trainer, launches)
        if replays:
            trainer.hooks.should_stop = lambda trainer: counts.append(launches.count)
        step, streams = step_of(trainer, method)
        with launches:
            trainer.fit(step, stop=29, streams=streams)
    between = [after - before for before, after in itertools.pairwise(counts)]
    # But for the first step of an epoch, which draws its plan, and the last, which reads its sums.
    assert {*between[WARM_UP + 1 : 9], *between[11:19], *between[21:28]} == {1}
    assert between[0] > 30
    assert_same(*trainers)


@pytest.mark.parametrize("method", ["imp", "cs", "bip"])
def test_more_layers_take_no_more_operations_around_their_gradients(method: str) -> None:
    launches, counts = Launches(), []
    for depth in (2, 9):
        trainer = pictures(8, depth)
        gradients = trainer.network.gradients

        def apart(*arguments: Any, gradients: Any = gradients) -> Any:
            with launches.aside():
                return gradients(*arguments)

        trainer.network.gradients = apart  # type: ignore[method-assign]
        step, streams = step_of(trainer, method)
        batches = [trainer.batches(stream).batch(0) for stream in streams]
        before = launches.count
        with launches:
            step(0, *batches)
        counts.append(launches.count - before)
    assert counts[0] == counts[1] <= {"imp": 6, "cs": 25, "bip": 45}[method]


def test_what_streams_is_copied_to_where_the_recorded_batch_lay() -> None:
    trainers = [pictures(18, 2), pictures(18, 2)]
    for trainer, replays in zip(trainers, (True, False), strict=True):
        trainer.replays, trainer.recorder = replays, Recorder(trainer)
        step, streams = step_of(trainer, "imp")
        batches = trainer.batches

        def streaming(name: str, batches: Any = batches) -> Any:
            source = batches(name)
            source.resident = False
            source._streamed = batches(name).batch
            return source

        trainer.batches = streaming  # type: ignore[method-assign]
        trainer.fit(step, stop=19, streams=streams)
    assert trainers[0].recorder.replayed > 9
    assert_same(*trainers)


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_says_so_once() -> None:
    calls = []

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    trainer = tiny_trainer()
    step, streams = step_of(trainer, "imp")
    trainer.replays, trainer.recorder = True, refuse

    def watched(t: int, *batches: tuple[Tensor, Tensor]) -> Outcome:
        calls.append(t)
        return step(t, *batches)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(watched, stop=7, streams=streams)

    assert calls == list(range(7))
    (warning,) = caught
    assert "slower: operation not permitted when stream is capturing" in str(warning.message)


def test_a_dial_that_is_first_asked_for_while_recording_runs_the_steps_as_they_are() -> None:
    trainers = [tiny_trainer(), tiny_trainer()]
    for trainer, replays in zip(trainers, (True, False), strict=True):
        step, streams = step_of(trainer, "imp")
        trainer.replays, trainer.recorder = replays, Recorder(trainer)

        def late(t: int, *batches: Any, trainer: Any = trainer, step: Any = step) -> Outcome:
            if trainer.maker.recording:
                trainer.dial(float, t)
            return step(t, *batches)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            trainer.fit(late, stop=7, streams=streams)
    assert trainers[0].recorder.replayed == 0
    assert_same(*trainers)
