"""Steps that are recorded and replayed. A CPU records nothing: there, the recording is the step
itself, run with the memory and the dials that a CUDA graph would have."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lthlib.graphs import WARM_UP, Replayed
from lthlib.methods import get_method
from lthlib.methods.bip import DEPARTURES
from lthlib.tickets import Ticket
from lthlib.training import Trainer
from tests.training.toys import dense_parent, tiny_trainer

CPU = torch.device("cpu")
LENGTH = {"length": "12it", "schedule": "cosine", "warmup": "2it"}
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


def searched(name: str, settings: dict[str, Any], replays: bool) -> tuple[list[Ticket], Trainer]:
    method = get_method(name)
    trainer = tiny_trainer(**LENGTH)
    trainer.replays, trainer.recorder = replays, Recorder(trainer.state)
    parent = dense_parent(tiny_trainer()) if method.parent == "dense" else None
    chosen = method.settings(**{k: tuple(v) if k == "switched" else v for k, v in settings.items()})
    return list(method.search(trainer, chosen, parent)), trainer


class Recorder:
    """Counts what is recorded and replayed; its recording is the work itself. While recording, work
    leaves the state as it was, as on a GPU, where nothing is computed then."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state
        self.recorded = self.replayed = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        before = {name: tensor.clone() for name, tensor in self.state.items()}
        with torch.random.fork_rng(devices=[]):
            work()
        for name, tensor in before.items():
            self.state[name].copy_(tensor)

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


@pytest.mark.parametrize(("name", "settings"), SEARCHES, ids=str)
def test_replayed_steps_find_what_steps_find(name: str, settings: dict[str, Any]) -> None:
    theirs, reference = searched(name, settings, replays=False)
    ours, trainer = searched(name, settings, replays=True)
    recorder = trainer.recorder

    assert reference.recorder.recorded == 0
    assert (recorder.replayed > 4) == (recorder.recorded > 0) == (name != "gmp")
    assert [ticket.mask for ticket in ours] == [ticket.mask for ticket in theirs]
    for group in ("weights", "buffers", "momentum"):
        for tensor, known in zip(
            trainer.group(group).values(), reference.group(group).values(), strict=True
        ):  # a dial holds single precision
            torch.testing.assert_close(tensor, known, rtol=1e-5, atol=1e-6)
    for line, known_line in zip(trainer.history, reference.history, strict=True):
        assert line["loss"] == pytest.approx(known_line["loss"], rel=1e-4)


def batch(size: int, value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((size, 2), value), torch.zeros(size, dtype=torch.int64)


def test_a_recording_sees_each_batch_and_dial_and_other_sizes_run_as_they_are() -> None:
    recorder, seen = Recorder({}), []

    def step(t: int, given: tuple[Tensor, Tensor]) -> tuple[float, float, bool]:
        rate = replayed.dial(lambda t: t / 4, t)
        seen.append((float(rate), float(given[0].sum()), isinstance(rate, Tensor)))
        return seen[-1]

    replayed = Replayed(step, CPU, recorder)
    for t in range(WARM_UP):
        replayed(t, batch(4))
    replayed(3, batch(4, value=2))
    replayed(4, batch(1, value=5))
    replayed(5, batch(4, value=3))

    assert recorder.recorded == 1
    assert seen[WARM_UP:] == [(0.0, 16, True), (0.75, 16, True), (1.0, 10, False), (1.25, 24, True)]


def test_a_short_batch_is_not_what_is_recorded() -> None:
    recorder = Recorder({})
    replayed = Replayed(lambda t, given: None, CPU, recorder)
    for size in (4, 4, 4, 1, 4, 4, 1, 4):
        replayed(0, batch(size))

    assert (recorder.recorded, recorder.replayed) == (1, 3)


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_says_so_once() -> None:
    calls = []

    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    replayed = Replayed(lambda t, given: calls.append(t), CPU, refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for t in range(6):
            replayed(t, batch(2))

    assert calls == [0, 1, 2, 3, 4, 5]
    (warning,) = caught
    assert "slower: operation not permitted when stream is capturing" in str(warning.message)
