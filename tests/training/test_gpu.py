"""What a GPU computes, against what the CPU does; `make test-gpu` runs these where there is one."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lthlib.errors import MaskError, Paused
from lthlib.masks import top_k
from lthlib.methods import get_method
from lthlib.runs import Machine, RunConfig, Store, execute
from lthlib.training import Network, Trainer, TrainingSettings, sgd_step
from tests.conftest import NEEDS_GPU
from tests.training.test_graphs import LENGTH, SEARCHES
from tests.training.toys import Tiny, dense_parent, images, tiny, tiny_trainer

pytestmark = NEEDS_GPU


def searched(
    name: str, settings: dict[str, Any], device: str, replays: bool
) -> tuple[Any, Trainer]:
    method = get_method(name)
    at_home = tiny_trainer(**LENGTH)
    trainer = Trainer(tiny(), images(), at_home.settings, at_home.data, device=device)
    trainer.replays = replays
    parent = dense_parent(tiny_trainer()) if method.parent == "dense" else None
    chosen = method.settings(**{k: tuple(v) if k == "switched" else v for k, v in settings.items()})
    return list(method.search(trainer, chosen, parent)), trainer


def close(ours: Trainer, theirs: Trainer) -> None:
    for name, tensor in theirs.group("weights").items():
        mine = ours.group("weights")[name].cpu()
        torch.testing.assert_close(mine, tensor.cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "settings"), SEARCHES, ids=str)
@pytest.mark.parametrize("replays", [False, True])
def test_a_gpu_finds_what_the_cpu_finds(name: str, settings: dict[str, Any], replays: bool) -> None:
    """In double precision; gates that are drawn are drawn by another generator there."""
    ours, trainer = searched(name, settings, "cuda", replays)
    if name in ("l0", "iss"):
        _, theirs = searched(name, settings, "cuda", False)
    else:
        tickets, theirs = searched(name, settings, "cpu", False)
        assert [ticket.mask for ticket in ours] == [ticket.mask for ticket in tickets]
    close(trainer, theirs)


class Reading(Tiny):
    """Reads a number back from the device, or draws one on the CPU, in every step."""

    def __init__(self, draws: bool) -> None:
        super().__init__(dropout=0.4)
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        read = float(torch.rand(()) if self.draws else x.mean())
        return super().forward(x * (1 + read))


@pytest.mark.parametrize("draws", [False, True])
def test_what_cannot_be_recorded_is_trained_as_it_is_and_others_are_recorded_after_it(
    draws: bool,
) -> None:
    found = []
    for replays in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Reading(draws).double()
        training = tiny_trainer(**LENGTH).settings
        trainer = Trainer(model, images(), training, device="cuda")
        trainer.replays = replays
        method = get_method("dense")
        told = pytest.warns(UserWarning, match="steps are not recorded, which is slower")
        with told if replays else contextlib.nullcontext():
            list(method.search(trainer, method.settings("1it"), None))
        found.append(trainer)
    close(*found)
    torch.cuda.empty_cache()
    searched("dense", {}, "cuda", True)  # a warning would be an error


@pytest.mark.parametrize("size", [1, 7, 1000, 300_000])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("levels", [3, 1 << 20])
def test_the_same_scores_are_kept_on_a_gpu_ties_included(
    size: int, share: float, levels: int
) -> None:
    draw = torch.Generator().manual_seed(size)
    scores = torch.randint(levels, (size,), generator=draw).float() / levels - 0.3
    kept = round(share * size)
    assert torch.equal(top_k(scores.cuda(), kept).cpu(), top_k(scores, kept))


def test_nan_among_the_scores_keeps_nothing_on_a_gpu() -> None:
    scores = torch.tensor([1.0, float("nan"), 2.0])
    assert not top_k(scores.cuda(), 2).any()
    with pytest.raises(MaskError, match="NaN"):
        top_k(scores, 2)


def test_sgd_is_the_same_step_with_a_number_and_with_a_tensor_for_its_rate() -> None:
    def stepped(device: str, rate: float | Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        weight, gradient, momentum = (
            torch.randn(5, 3, generator=draw).to(device) for _ in range(3)
        )
        options = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2}
        sgd_step({"w": weight}, {"w": gradient}, {"w": momentum}, rate, **options)
        return torch.cat([weight, momentum]).cpu()

    known = stepped("cpu", 0.3)
    torch.testing.assert_close(stepped("cuda", 0.3), known)
    torch.testing.assert_close(stepped("cuda", torch.tensor(0.3, device="cuda")), known)


def test_precisions_differ_and_torchs_own_settings_come_back() -> None:
    cudnn: Any = torch.backends.cudnn
    before = (torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 512, generator=draw).cuda()
    model = torch.nn.Linear(512, 64)
    exact = model.double()(x.cpu().double())
    errors = {}
    for precision in ("fp32", "tf32", "bf16"):
        network = Network(model.float(), "cuda", precision)
        with network.arithmetic():
            found = network.forward(network.weights(), {}, x)
        errors[precision] = float((found.cpu().double() - exact).detach().abs().max())
    assert errors["fp32"] < 1e-5 < errors["tf32"] < errors["bf16"] < 0.1
    assert before == (torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision)


CONFIG = RunConfig(
    training=TrainingSettings(length="40it", batch_size=64), method="cs",
    settings={"rounds": 2, "rewind": "5it", "temperature_per": "step", "gate_learning_rate": 1.0},
)  # fmt: skip


def accuracies(store: Store, config: RunConfig = CONFIG, **how: Any) -> list[tuple[float, Any]]:
    result = execute(config, store, Machine("cuda", **how))
    return [(one["density"], one["accuracy"]["test"]) for one in result.records]


def test_a_run_on_a_gpu_is_recorded_as_such_and_repeats_to_the_bit_when_asked(
    tmp_path: Path,
) -> None:
    first = accuracies(Store(tmp_path / "one"), deterministic=True)
    assert first == accuracies(Store(tmp_path / "two"), deterministic=True)
    (stored,) = (tmp_path / "one" / "runs").glob("*/run.json")
    assert {r["provenance"]["device"] for r in json.loads(stored.read_bytes())["records"]} == {
        "cuda"
    }


def test_a_run_that_was_stopped_goes_on_on_a_gpu(tmp_path: Path) -> None:
    whole = accuracies(Store(tmp_path / "whole"), deterministic=True)
    store, marker = Store(tmp_path / "stopped"), tmp_path / "stop"
    marker.touch()
    with pytest.raises(Paused):
        execute(CONFIG, store, Machine("cuda", stop_file=str(marker), deterministic=True))
    marker.unlink()
    assert accuracies(store, deterministic=True) == whole


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_learn_as_well(tmp_path: Path, precision: str) -> None:
    training = TrainingSettings(length="8ep", batch_size=64)
    found = [
        accuracies(Store(tmp_path), RunConfig(training=replace(training, precision=p)))[0][1]
        for p in ("fp32", precision)
    ]
    assert min(found) > 85 and abs(found[0] - found[1]) < 5
