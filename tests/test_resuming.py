"""A search in a folder goes on where it was stopped, to the same tickets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lthlib
from lthlib.errors import ConfigError, Paused, RunDamaged, StoreError

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
