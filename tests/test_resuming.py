"""A search in a folder goes on where it was stopped, to the same tickets."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lthlib
from lthlib.errors import ConfigError, Paused, RunDamaged, StoreError
from tests.conftest import needs

SETTINGS: dict[str, dict[str, Any]] = {
    "imp": {"rounds": 2, "rewind": "1it"},
    "cs": {"temperature_per": "step", "rewind": "1it", "gate_learning_rate": 1.0, "rounds": 2},
    "bip": {"density": 0.5},
    "snip": {"density": 0.5},
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


DATA = torch.randn(24, 4, generator=torch.Generator().manual_seed(1)), torch.arange(24) % 3


def find(method: str, store: Path | None, **more: Any) -> list[lthlib.Ticket]:
    training = lthlib.TrainingSettings(length="8it", batch_size=8, learning_rate=0.05)
    options = {"training": training, "progress": False, "store": store} | SETTINGS[method] | more
    return lthlib.find_tickets(**{"model": network(), "data": DATA, "method": method} | options)


def loss_with_a_list_in_itself() -> Callable[..., torch.Tensor]:
    calls: list[Any] = []
    calls.append(calls)

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target) * len(calls)

    return loss


def stop_at(count: int) -> Callable[[dict[str, Any]], bool]:
    """The end of the count-th epoch that is watched."""
    seen: list[Any] = []

    def watch(now: dict[str, Any]) -> bool:
        seen.append(now)
        return len(seen) == count

    return watch


def same(found: list[lthlib.Ticket], expected: list[lthlib.Ticket]) -> bool:
    return [ticket.point for ticket in found] == [ticket.point for ticket in expected] and all(
        a.mask == b.mask
        and a.info == b.info
        and all(torch.equal(a.weights[n], b.weights[n]) for n in b.weights)
        and all(torch.equal(a.rewind[n], b.rewind[n]) for n in b.rewind)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("method", SETTINGS)
@pytest.mark.parametrize("epochs", [1, 3])
def test_it_goes_on_where_it_was_stopped(method: str, epochs: int, tmp_path: Path) -> None:
    expected = find(method, None)
    try:
        stopped = find(method, tmp_path, watch=stop_at(epochs))
        assert len(stopped) <= len(expected)
    except Paused as paused:
        assert "the same call goes on from there; there is no ticket yet" in str(paused)
    seen: list[Any] = []
    assert same(find(method, tmp_path, watch=seen.append), expected)
    assert len(seen) < (2 if method in ("bip", "snip") else 6)  # epochs; less than all
    again: list[Any] = []
    assert same(find(method, tmp_path, watch=again.append), expected)
    assert again == []  # nothing was trained


LEFT = {"batches": 0}  # until Ctrl-C


def interrupting(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    LEFT["batches"] -= 1
    if LEFT["batches"] == 0:
        signal.raise_signal(signal.SIGINT)
    return nn.functional.cross_entropy(output, target)


def again(ticket: lthlib.Ticket, store: Path | None, **more: Any) -> lthlib.Ticket:
    training = lthlib.TrainingSettings(length="8it", batch_size=8, learning_rate=0.05)
    options = {"training": training, "progress": False, "store": store, "loss": interrupting}
    return lthlib.retrain(ticket, **{"data": DATA, "model": network()} | options | more)


@needs(signal.SIGINT)
@pytest.mark.parametrize(
    "settings",
    [{}, {"start": "own"}, {"start": "fresh"}, {"rewind": "3it", "schedule": "restart"}],
    ids=["rewind", "own", "fresh", "dense first"],
)
def test_a_retraining_goes_on_where_it_was_stopped(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    ticket = find("imp", None)[-1]
    ticket.save(tmp_path / "ticket.safetensors")
    LEFT["batches"] = 0
    expected = again(ticket, None, **settings)
    whole = -LEFT["batches"]
    LEFT["batches"] = 5  # one is tried before
    with pytest.raises(Paused, match="holds its state: the same call goes on from there"):
        again(ticket, tmp_path / "store", **settings)
    LEFT["batches"] = 0
    reopened = lthlib.Ticket.load(tmp_path / "ticket.safetensors")
    assert same([again(reopened, tmp_path / "store", **settings)], [expected])
    assert -LEFT["batches"] == whole - 4
    LEFT["batches"] = 0
    assert same([again(ticket, tmp_path / "store", **settings)], [expected])
    assert LEFT["batches"] == -1  # tried, not trained


def test_another_retraining_begins_anew(tmp_path: Path) -> None:
    ticket, earlier = find("imp", None)[-1:-3:-1]
    first = again(ticket, tmp_path)
    smooth = [partial(nn.functional.cross_entropy, label_smoothing=x) for x in (0.1, 0.9)]
    results = [first, *(again(ticket, tmp_path, loss=loss) for loss in smooth)]
    results += [again(ticket, tmp_path, seed=1), again(earlier, tmp_path)]
    results += [again(ticket, tmp_path, start=start) for start in ("own", "fresh")]
    results += [again(ticket, tmp_path, data=(DATA[0] + 1, DATA[1]))]
    results += [again(ticket, tmp_path, mask="shuffled")]
    bias = [result.weights["3.bias"].tolist() for result in results]
    assert all(bias.count(values) == 1 for values in bias)
    assert same([again(ticket, tmp_path)], [first])


def test_what_the_model_held_counts_where_it_is_trained_from(tmp_path: Path) -> None:
    ticket, model = find("imp", None)[-1], network()
    with torch.no_grad():
        model[0].weight.add_(1)
    first, fresh = again(ticket, tmp_path), again(ticket, tmp_path, start="fresh")
    LEFT["batches"] = 0
    assert same([again(ticket, tmp_path, model=model)], [first])
    assert LEFT["batches"] == -1  # tried, not trained
    assert not same([again(ticket, tmp_path, model=model, start="fresh")], [fresh])


def test_another_search_begins_anew(tmp_path: Path) -> None:
    first = find("snip", tmp_path)
    for other in ({"seed": 1}, {"density": 0.3}, {"data": (DATA[0] + 1, DATA[1])}):
        assert not same(find("snip", tmp_path, **other), first)
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] += 1
    assert not same(find("snip", tmp_path, model=model), first)
    weight = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 9.0]))
    assert not same(find("snip", tmp_path, loss=weight), first)
    smooth = nn.CrossEntropyLoss(label_smoothing=0.9)  # which its repr does not show
    assert not same(find("snip", tmp_path, loss=smooth), first)
    assert same(find("snip", tmp_path), first)


def test_without_a_store_nobody_claims_that_anything_is_saved() -> None:
    with pytest.raises(Paused, match=r"nothing is saved; there is no ticket yet$"):
        find("imp", None, watch=stop_at(1))


def test_what_is_no_folder_or_was_altered_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot .* checkpoint"):
        find("snip", tmp_path / "file")
    with pytest.raises(ConfigError, match="store is 5; expected the path of a folder"):
        find("snip", 5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"hold a list in itself.*; call it without store"):
        find("snip", tmp_path, loss=loss_with_a_list_in_itself())
    find("snip", tmp_path / "good")
    (checkpoint,) = (tmp_path / "good").glob("snip-*/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1] + b"x")
    with pytest.raises(RunDamaged, match="is damaged"):
        find("snip", tmp_path / "good")


def test_a_bar_reaches_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    inputs = DATA[0][:21], DATA[1][:21]  # 8, 8 and 5 images an epoch, fewer than batches hold
    data = lthlib.Dataset.from_tensors(*inputs, validation_fraction=0)
    find("bip", None, data=data, progress=True)
    bars = capsys.readouterr().err.split("\n")
    ends = [bar.split("\r")[-1] for bar in bars if "img" in bar]
    assert len(ends) == 2
    assert all("100%" in end for end in ends)
