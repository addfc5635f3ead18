"""`lth bench ticket`: which network is measured, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import nn
from typer.testing import CliRunner

from lthlib.cli.command import app
from lthlib.errors import LthlibError
from lthlib.masks import group_axes, prunable_names, select
from lthlib.models import ModelSettings, build_model
from lthlib.runs import RunConfig
from lthlib.tickets import Ticket

OWN = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))

def words():
    return "no network"
"""


def bench(ticket: Ticket, folder: Path, *words: str) -> Result:
    ticket.save(folder / "t.safetensors")
    command = ["bench", "ticket", str(folder / "t.safetensors"), *words]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


def of(model: nn.Module, structure: str, **info: Any) -> Ticket:
    own = dict(model.named_parameters())
    scores = {name: own[name].detach().abs() for name in prunable_names(model, "conv")}
    return Ticket(
        select(scores, 0.5, structure, axes=group_axes(model)),
        weights=model.state_dict(),
        info=info,
    )


def of_a_run() -> Ticket:
    config = RunConfig(model=ModelSettings("resnet8", 2))
    model = build_model(config.model, classes=7, channels=1, seed=0)
    return of(model, "filter", run=config.id, config=config.to_json())


def of_own() -> Ticket:
    names: dict[str, Any] = {}
    exec(OWN, names)
    return of(names["build"](), "unstructured")


def test_a_ticket_of_a_run_knows_its_network(tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    pytest.importorskip("onnxruntime")
    done = bench(of_a_run(), tmp_path, "--batch", "2", "--turns", "6")
    assert done.exit_code == 0, done.output
    for text in ("dense", "masked", "shrunk", "shrunk, ONNX", " to ", "1.00", "median of 6 turns"):
        assert text in done.output
    assert "zeros are multiplied like any other number" in done.output


def test_a_network_of_your_own_is_named_and_scattered_zeros_leave_nothing_to_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_pruning")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net_of_mine.py").write_text(OWN)
    own = ("--network", "net_of_mine:build", "--example", "3x6x6", "--batch", "1", "--turns", "6")
    done = bench(of_own(), tmp_path, *own)
    assert done.exit_code == 0, done.output
    assert "nothing can be cut" in done.output
    assert "masked, ONNX" in done.output and "shrunk" not in done.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the ticket comes from no run of lth; say what its network is"),
        (("--network", "net_of_mine:build"), "say what its network is"),
        (("--network", "net_of_mine:build", "--example", "3x0"), "expected a shape"),
        (("--network", "net_of_mine:build", "--example", "3x7x7"), "does not take the example"),
        (("--network", "nowhere.to.be:found", "--example", "3"), "expected MODULE:FUNCTION"),
        (("--network", "net_of_mine", "--example", "3"), "expected MODULE:FUNCTION"),
        (("--network", "net_of_mine:words", "--example", "3"), "it returns "),
        (("--network", "torch.nn:Identity", "--example", "3"), "does not fit this network"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    pytest.importorskip("torch_pruning")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net_of_mine.py").write_text(OWN)
    done = bench(of_own(), tmp_path, *words)
    assert isinstance(done.exception, LthlibError)
    assert message in str(done.exception)


def test_a_mask_alone_may_not_say_how_many_classes_there_are(tmp_path: Path) -> None:
    ticket = of_a_run()
    ticket.mask = type(ticket.mask)({"stem.weight": torch.ones(2, 1, 3, 3, dtype=torch.bool)})
    ticket.weights = None
    done = bench(ticket, tmp_path)
    assert isinstance(done.exception, LthlibError)
    assert "give --network" in str(done.exception)
