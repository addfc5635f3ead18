"""What tells one network or loss from another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from enum import Enum
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthlib.description import Description

FACTOR = 2.0
READ: Any = None


def described(value: Any) -> tuple[str, list[list[float]]]:
    description = Description()
    text = repr(description.of(value))
    return text, [tensor.flatten().tolist() for tensor in description.tensors]


class Weighted:
    """A loss as an object that is called."""

    def __init__(self, weight: Any):
        self.weight = weight

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return self.weight * F.cross_entropy(output, target)


class Slotted:
    """An object without a dictionary, which nobody calls."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value


class Level(Enum):
    LOW = 0.25
    HIGH = 0.5


class Scaled(nn.Linear):
    """A network with a number of its own, which its repr does not show."""

    def __init__(self, factor: float):
        super().__init__(2, 3)
        self.factor = factor
        nn.init.ones_(self.weight)
        nn.init.ones_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


class Negated(Scaled):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def closure(weight: Any) -> Callable[..., Tensor]:
    return lambda output, target: weight * F.cross_entropy(output, target)


def by_default(weight: float) -> Callable[..., Tensor]:
    def loss(output: Tensor, target: Tensor, weight: float = weight) -> Tensor:
        return weight * F.cross_entropy(output, target)

    return loss


def reads(output: Tensor, target: Tensor) -> Any:
    return READ(output, target)


def reads_within(output: Tensor, target: Tensor) -> Any:
    return [READ for _ in output]


def of_level(output: Tensor, target: Tensor) -> Tensor:
    return Level.LOW.value * F.cross_entropy(output, target)


def hooked(factor: float) -> nn.Module:
    network = Scaled(1.0)
    network.register_forward_hook(lambda module, inputs, output: factor * output)
    return network


@pytest.mark.parametrize(
    "make",
    [
        lambda x: partial(F.cross_entropy, label_smoothing=x),
        lambda x: nn.CrossEntropyLoss(label_smoothing=x),
        lambda x: nn.CrossEntropyLoss(weight=torch.tensor([1.0, x])),
        lambda x: nn.Sequential(nn.Flatten(), nn.CrossEntropyLoss(label_smoothing=x)),
        lambda x: closure(x),
        lambda x: closure(torch.tensor(x)),
        lambda x: by_default(x),
        lambda x: Weighted(x),
        lambda x: Weighted([{"a": torch.tensor(x).numpy()}]),
        lambda x: Weighted(x).__call__,
        lambda x: closure(Slotted(x)),
        lambda x: Weighted(Slotted([torch.tensor(x)])),
        lambda x: closure(Level(x)),
        lambda x: Scaled(x),
        lambda x: hooked(x),
    ],
)
def test_a_value_within_tells_them_apart(make: Callable[[float], Any]) -> None:
    assert described(make(0.25)) != described(make(0.5))
    assert described(make(0.25)) == described(make(0.25))


def test_code_tells_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    first: Any = lambda output, target: F.cross_entropy(output, target)  # noqa: E731
    second: Any = lambda output, target: F.nll_loss(output, target)  # noqa: E731
    assert described(first) != described(second)
    assert described(Scaled(1.0)) != described(Negated(1.0))
    read: Any = lambda output, target: FACTOR * F.cross_entropy(output, target)  # noqa: E731
    before = described(read)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert described(read) != before


@pytest.mark.parametrize("reader", [reads, reads_within])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
        (Scaled(1.0), Scaled(2.0)),  # a network to learn from
        ((1.0, 2.0), (1.0, 3.0)),
        (Weighted(1.0), Weighted(2.0)),
        (Scaled, Negated),
        (torch.sum, torch.mean),
    ],
)
def test_what_a_function_reads_outside_tells_them_apart(
    monkeypatch: pytest.MonkeyPatch, reader: Any, first: Any, second: Any
) -> None:
    monkeypatch.setitem(globals(), "READ", first)
    before = described(reader)
    assert described(reader) == before
    monkeypatch.setitem(globals(), "READ", second)
    assert described(reader) != before


def test_what_a_function_notes_outside_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "READ", {"calls": 1})
    before = described(reads)
    monkeypatch.setitem(globals(), "READ", {"calls": 2})
    assert described(reads) == before


@pytest.mark.parametrize(
    ("first", "second"),
    [(torch.sum, torch.mean), (np.sum, np.mean), (cache(closure), cache(by_default))],
)
def test_a_function_of_a_library_that_is_held_tells_them_apart(first: Any, second: Any) -> None:
    assert described(Weighted(first)) != described(Weighted(second))


def test_what_holds_itself_ends() -> None:
    loss = Weighted(1.0)
    loss.weight = [loss]
    assert "again" in described(loss)[0]


def test_which_of_two_is_held_again_tells_them_apart() -> None:
    first, second = Slotted(1.0), Slotted(2.0)
    assert described([first, second, first]) != described([first, second, second])


def test_it_is_the_same_in_every_process() -> None:
    names = (
        "closure(0.5)",
        "Weighted({'b', 'a'})",
        "Slotted(object())",
        "Scaled(2.0)",
        "hooked(2.0)",
        "object()",
        "Weighted({closure(0.5): torch.sum})",
        "of_level",
    )
    code = "from tests.test_description import *\nprint(" + "".join(
        f"described({name}), " for name in names
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", f"{code})"], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(printed) == 1
    assert "Scaled" in printed.pop()
