"""Steps that are recorded and replayed. A CPU records nothing: there, the recording is the step
itself, run with the memory, the plan and the tables that a CUDA graph would have."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lthlib.data import Dataset, DataSettings, Images
from lthlib.devices import explained
from lthlib.errors import OutOfMemory, Paused
from lthlib.masks import Mask
from lthlib.methods import get_method
from lthlib.methods.bip import DEPARTURES, Alternation, BiPSettings
from lthlib.methods.cs import CSSettings, gate_of
from lthlib.methods.gates import gated_step
from lthlib.tickets import Ticket
from lthlib.training import Outcome, Trainer, TrainingSettings
from lthlib.training.graphs import WARM_UP, record_graph
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


class Refusals(TorchDispatchMode):
    """Refuses what a GPU waits for, were it deterministic: no recording holds it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("index_put_", "_index_put_impl_", "nonzero", "masked_select"):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        return func(*args, **(kwargs or {}))


class Recorder:
    """Counts what is recorded and replayed; its recording is the work itself. While recording, work
    leaves the state as it was, as on a GPU, where nothing is computed then."""

    def __init__(self, trainer: Trainer, launches: Launches | None = None) -> None:
        self.trainer, self.launches = trainer, launches or Launches()
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        before = {name: tensor.clone() for name, tensor in self.trainer.state.items()}
        with torch.random.fork_rng(devices=[]), self.launches.aside(), Refusals():
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


@pytest.mark.parametrize("name", ["imp", "cs"])
def test_steps_of_adamw_are_replayed(name: str) -> None:
    settings = {"rounds": 1} | (
        {"temperature_per": "step", "rewind": "1it"} if name == "cs" else {}
    )
    how = {"optimiser": "adamw", "learning_rate": 0.01, "dropout": 0.4}
    theirs, reference = searched(name, settings, replays=False, **how)
    ours, trainer = searched(name, settings, replays=True, **how)
    assert trainer.recorder.replayed > 7
    assert_same(trainer, reference)
    assert [ticket.mask for ticket in ours] == [ticket.mask for ticket in theirs]


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
            source.batch = batches(name).batch
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


def test_where_steps_of_one_size_cannot_be_recorded_those_of_others_are_not_replayed() -> None:
    trainers = [tiny_trainer(length="17it"), tiny_trainer(length="17it")]
    for trainer, replays in zip(trainers, (True, False), strict=True):
        recorder = Recorder(trainer)

        def once(work: Callable[[], None], recorder: Any = recorder) -> Callable[[], None]:
            if recorder.recorded:
                raise RuntimeError("no more")
            return recorder(work)

        trainer.replays, trainer.recorder = replays, once
        step, streams = step_of(trainer, "imp")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            trainer.fit(step, stop=17, streams=streams)
        assert (recorder.replayed > 2) == replays
    assert_same(*trainers)


def test_memory_that_ends_while_a_step_is_recorded_ends_the_run_as_elsewhere() -> None:
    trainer = tiny_trainer()
    trainer.replays, trainer.recorder = True, Recorder(trainer)
    step, streams = step_of(trainer, "imp")

    def full(t: int, *batches: Any) -> Outcome:
        if trainer.maker.recording:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return step(t, *batches)

    why = r"hold it \(CUDA out of memory.*2.00 GiB.\); run fewer"
    with pytest.raises(OutOfMemory, match=why), explained():
        trainer.fit(full, stop=7, streams=streams)


def test_batches_lie_alike_before_and_while_steps_are_recorded() -> None:
    trainer, places = pictures(40, 1), []
    step, streams = step_of(trainer, "imp")
    trainer.replays, trainer.recorder = True, Recorder(trainer)

    def watched(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        places.append((batch[0].storage_offset(), batch[0].stride()))
        return step(t, batch)

    trainer.fit(watched, stop=9, streams=streams)
    assert len(places) == 9 + 1 and len(set(places)) == 1


def test_losses_of_another_type_than_the_first_weights_are_recorded() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.second(self.first(x).double())
            return logits

    data = Dataset.from_tensors(torch.randn(16, 5), torch.arange(16) % 3)
    trainer = Trainer(Mixed(), data, TrainingSettings("9it", 4), DataSettings())
    trainer.replays, trainer.recorder = True, Recorder(trainer)
    step, streams = step_of(trainer, "imp")
    trainer.fit(step, stop=9, streams=streams)
    assert trainer.recorder.replayed > 3


class Device:
    """A stand-in for torch.cuda: it refuses to record on the default stream, and where recording
    breaks off, generator and allocator stay as they are while recording."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.usual, self.now, self.breaks = object(), object(), False
        self.allocating: set[object] = set()
        self.replayed = 0
        self.default_generators = [SimpleNamespace(state=SimpleNamespace(recording=False))]
        numbers = self.default_generators[0]
        numbers.graphsafe_get_state = lambda: SimpleNamespace(
            clone_state=lambda: SimpleNamespace(**vars(numbers.state))
        )
        numbers.graphsafe_set_state = lambda state: setattr(numbers, "state", state)
        for name in ("graph_pool_handle", "current_device", "current_stream", "default_stream",
                     "default_generators", "Stream", "stream", "empty_cache"):  # fmt: skip
            patch.setattr(torch.cuda, name, getattr(self, name))
        patch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        patch.setattr(torch._C, "_cuda_endAllocateToPool", self.end)
        patch.setattr(torch._C, "_cuda_releasePool", lambda device, pool: None)

    def end(self, device: int, pool: object) -> None:
        if pool not in self.allocating:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.allocating.remove(pool)

    def empty_cache(self) -> None:
        assert not self.allocating, "INTERNAL ASSERT captures_underway.empty()"

    def replay(self) -> None:
        self.replayed += 1

    def graph_pool_handle(self) -> object:
        return (0, 7)

    def current_device(self) -> int:
        return 0

    def current_stream(self) -> object:
        return self.now

    def default_stream(self) -> object:
        return self.usual

    def Stream(self) -> object:
        return object()

    @contextmanager
    def stream(self, chosen: object) -> Iterator[None]:
        before, self.now = self.now, chosen
        try:
            yield
        finally:
            self.now = before

    def capture_begin(self, pool: object, mode: str) -> None:
        assert self.now is not self.usual and mode == "thread_local"
        self.recorded_on, self.ended = self.now, False
        self.allocating.add(pool)
        self.default_generators[0].state.recording = True

    def capture_end(self) -> None:
        if self.breaks or self.ended:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.ended = True
        self.allocating.clear()
        self.default_generators[0].state.recording = False


def test_a_graph_is_recorded_on_the_stream_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    replay = record_graph(lambda: None)
    assert device.recorded_on is device.now is not device.usual
    replay()
    assert device.replayed == 1
    device.now = device.usual
    record_graph(lambda: None)
    assert device.recorded_on is not device.usual is device.now


@pytest.mark.parametrize("breaks", [True, False])
def test_after_a_recording_that_failed_a_gpu_goes_on_as_before(
    monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    device = Device(monkeypatch)
    device.breaks = breaks
    stream, drawn = device.now, torch.random.get_rng_state()

    with pytest.raises(RuntimeError, match="it draws numbers on the CPU"):
        record_graph(lambda: torch.rand(()))
    assert not device.default_generators[0].state.recording
    assert device.allocating == set()
    assert device.now is stream
    torch.cuda.empty_cache()
    assert torch.equal(torch.random.get_rng_state(), drawn)
