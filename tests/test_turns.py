"""Runs in threads of one process find it as they left it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lthlib import turns
from lthlib.turns import turn

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)


def together(*work: Callable[[], object]) -> None:
    """Do all of it in threads that begin at once."""
    begin = threading.Barrier(len(work))
    failed: list[BaseException] = []

    def guarded(one: Callable[[], object]) -> None:
        begin.wait()
        try:
            one()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_one_at_a_time_has_its_turn_and_all_get_theirs() -> None:
    having: set[int] = set()
    here: list[int] = []
    order: list[int] = []

    def take_turns() -> None:
        me = threading.get_ident()
        with turn(CPU) as pause:
            here.append(me)
            while len(here) < 3:
                time.sleep(0.001)
                pause()
            for _ in range(50):
                having.add(me)
                assert having == {me}
                order.append(me)
                having.remove(me)
                pause()

    together(take_turns, take_turns, take_turns)
    assert order == order[:3] * 50
    assert set(order) == set(here)


def test_each_draws_what_it_draws_alone_and_keeps_its_settings() -> None:
    drawn: dict[int, list[float]] = {}

    def draw(seed: int) -> None:
        with turn(CPU) as pause:
            torch.manual_seed(seed)
            torch.set_num_threads(seed)
            drawn[seed] = []
            for _ in range(20):
                drawn[seed].append(float(torch.rand(())))
                pause()
                assert torch.get_num_threads() == seed

    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    together(lambda: draw(1), lambda: draw(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    for seed in (1, 2):
        alone = torch.Generator().manual_seed(seed)
        assert drawn[seed] == [float(torch.rand((), generator=alone)) for _ in range(20)]


def test_an_error_and_a_turn_within_a_turn_let_others_go_on() -> None:
    went_on = []

    def fail() -> None:
        with contextlib.suppress(ValueError), turn(CPU) as pause, turn(CPU) as inner:
            inner()
            pause()
            raise ValueError

    def work() -> None:
        with turn(CPU) as pause:
            pause()
            went_on.append(True)

    together(fail, work, fail, work)
    assert went_on == [True, True]


class Generator:
    """As torch's of a GPU: its state is an object, which recordings hold."""

    device = torch.device("cuda", 0)

    def __init__(self) -> None:
        self.state: list[int] = [0]

    def graphsafe_get_state(self) -> Any:
        return State(self.state)

    def graphsafe_set_state(self, state: Any) -> None:
        self.state = state.of


class State:
    def __init__(self, of: list[int]) -> None:
        self.of = of

    def clone_state(self) -> State:
        return State(list(self.of))


class Stream:
    now = threading.local()

    def __init__(self, device: torch.device) -> None:
        self.waits: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waits.append(other)


def test_on_a_gpu_each_has_a_stream_and_a_state_of_the_generator_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator, device = Generator(), torch.device("cuda", 0)
    usual, outer, own = generator.state, Stream(device), {}

    @contextlib.contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        Stream.now.one = chosen
        yield
        Stream.now.one = outer

    for name, value in {
        "init": lambda: None,
        "default_generators": (generator,),
        "Stream": Stream,
        "device": lambda device: contextlib.nullcontext(),
        "current_stream": lambda device: outer,
        "stream": stream,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)

    def work(name: str) -> None:
        with turn(device) as pause:
            own[name] = (generator.state, Stream.now.one)
            torch.backends.cudnn.benchmark = name == "a"
            for step in range(10):
                generator.state.append(step)
                pause()
                assert generator.state is own[name][0]
                assert torch.backends.cudnn.benchmark == (name == "a")

    def work_again() -> None:
        work("a")
        first = own["a"]
        work("a")
        assert own["a"][0] is not first[0] and own["a"][1] is first[1]  # memory is kept for it

    turns._stream.cache_clear()
    together(work_again, lambda: work("b"))
    assert generator.state is usual == [0]
    assert not torch.backends.cudnn.benchmark
    (state, stream_of_a), (other, stream_of_b) = own["a"], own["b"]
    assert state == other == [0, *range(10)]
    assert state is not other and stream_of_a is not stream_of_b
    # What one did before its turn is computed before, and what others do after it after.
    assert {*stream_of_a.waits, *stream_of_b.waits} == {outer}
    assert {*outer.waits} == {stream_of_a, stream_of_b}
    work("alone")
    assert own["alone"][1] is not outer
    turns._stream.cache_clear()
