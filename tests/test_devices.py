"""Which device computes, what it is called, and what happens where its memory ends."""

from __future__ import annotations

import logging
import shutil
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lthlib import Dataset, TrainingSettings, devices, find_tickets
from lthlib.devices import chosen, explained, named, unused_gpu, with_float64
from lthlib.distributed import Ranks
from lthlib.errors import ConfigError, OutOfMemory
from lthlib.methods.at_init import untrained
from lthlib.records import METHODS
from lthlib.runs import Machine
from lthlib.runs.many import default_jobs, places
from lthlib.training import Network, Trainer

OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update it"


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that torch does not find."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def refuse() -> None:
        raise RuntimeError(f"{OLD}.\nmore")

    monkeypatch.setattr(torch.cuda, "init", refuse)


def test_the_cpu_is_chosen_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen("auto") == chosen("cpu") == torch.device("cpu")
    assert named(torch.device("cpu")) == "the CPU"


def test_a_gpu_is_chosen_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU No. {index + 7}")
    assert named(chosen("auto")) == named(chosen("cuda")) == "GPU No. 7 (cuda:0)"
    assert named(chosen("cuda:1")) == "GPU No. 8 (cuda:1)"
    with pytest.raises(ConfigError, match="device is 'cuda:2', but torch finds 2 GPU"):
        chosen("cuda:2")


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch is on Apple silicon."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.mark.usefixtures("apple")
def test_apples_gpu_is_taken_where_it_is_asked_for_and_told_of_otherwise(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices._warn_of_unused_gpu.cache_clear()
    assert chosen("auto") == torch.device("cpu")
    assert "device mps takes it; computing on the CPU" in caplog.text
    assert named(chosen("mps")) == "the Apple GPU (mps)"
    assert default_jobs(Machine("mps")) == 1
    assert places(Machine("mps"), runs=4) == ([""], 1)
    monkeypatch.setattr(devices, "current", lambda: Ranks(0, 2))
    with pytest.raises(ConfigError, match="which ranks cannot share"):
        chosen("mps")


def test_apples_gpu_is_missed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch finds no Apple GPU; use cpu or auto"):
        chosen("mps")


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the generator of Apple's GPU is seeded with; -1 where its state is brought back."""
    seeds: list[int] = []
    monkeypatch.setattr(torch.mps, "manual_seed", seeds.append)
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: None)
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: seeds.append(-1))
    return seeds


def test_numbers_are_drawn_from_the_gpu_s_own_generator_and_given_back(seeds: list[int]) -> None:
    network = Network(nn.Linear(1, 1))
    network.device = torch.device("mps")
    before = torch.get_rng_state()
    with network.drawing(3), network.arithmetic():
        network.draw_from(4)
    assert seeds == [3, 4, -1]
    assert torch.equal(before, torch.get_rng_state())


class NoFloat64(TorchDispatchMode):
    """What Apple's GPU says to float64."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **kwargs or {})
        for one in tree_leaves(found):
            if isinstance(one, Tensor) and one.dtype == torch.float64:
                raise TypeError(
                    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't "
                    "support float64. Please use float32 instead."
                )
        return found


@pytest.mark.filterwarnings("ignore:.* pruned nothing")  # four steps are few
@pytest.mark.parametrize("method", [name for name in METHODS if name != "retrain"])
def test_no_method_computes_in_float64_on_a_gpu_without_it(method: str) -> None:
    images = torch.rand(24, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    data = Dataset.from_tensors(images, torch.arange(24) % 3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))
    settings: dict[str, Any] = {"every": "1it"} if method == "gmp" else {}
    with NoFloat64() if method != "synflow" else nullcontext():  # scores there on the CPU
        tickets = find_tickets(
            model, data, method, training=TrainingSettings("4it", 8), progress=False, **settings
        )
    assert tickets


def test_synflow_scores_in_float64_on_the_cpu_where_the_gpu_has_none(seeds: list[int]) -> None:
    assert with_float64(torch.device("cuda", 1)) == torch.device("cuda", 1)
    data = Dataset.from_tensors(torch.rand(8, 2), torch.arange(8) % 2)
    trainer = Trainer(nn.Linear(2, 2), data, seed=5)
    trainer.network.device = torch.device("mps")
    with untrained(trainer, torch.float64) as (model, _):
        weight = next(model.parameters())
    assert (weight.device, weight.dtype) == (torch.device("cpu"), torch.float64)
    assert seeds == [5, -1]


def test_a_network_in_float64_is_refused_in_words() -> None:
    refused = pytest.raises(ConfigError, match=r"mps has no float64; use .float\(\), or device cpu")
    with refused, explained(), NoFloat64():
        nn.Linear(1, 1).double()


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:x", "", None])
def test_what_names_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cuda, cuda:0, mps or cpu"):
        chosen(name)


@pytest.mark.usefixtures("hidden")
def test_a_gpu_that_torch_cannot_use_is_told_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ConfigError, match=r"device is 'cuda', but torch .* \(The NVIDIA"):
        chosen("cuda")
    devices._warn_of_unused_gpu.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert chosen("auto") == chosen("auto") == torch.device("cpu")
    assert caplog.messages == [f"{unused_gpu()}; computing on the CPU"]
    assert f"cannot use the NVIDIA GPU of this machine ({OLD})" in caplog.text


@pytest.mark.usefixtures("hidden")
@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_gpu_that_was_hidden_on_purpose_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert unused_gpu() is None


@pytest.mark.usefixtures("hidden")
def test_no_gpu_is_missed_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "version")
    assert unused_gpu() is None
    (tmp_path / "version").touch()
    assert unused_gpu() is not None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_the_end_of_memory_is_told_with_what_to_do(error: Exception) -> None:
    wanted = r"run fewer at once, or .* smaller training\.batch_size"
    with pytest.raises(OutOfMemory, match=wanted), explained():
        raise error


@pytest.mark.parametrize("shape", [(1 << 60,), (1 << 62, 4)])
def test_what_no_memory_can_hold_is_told_too(shape: tuple[int, ...]) -> None:
    with pytest.raises(OutOfMemory, match="memory does not hold it"), explained():
        torch.empty(shape)


def test_what_has_no_deterministic_kernel_is_told_with_what_to_do() -> None:
    with (
        pytest.raises(ConfigError, match=r"pool_cuda does not .*; leave out --deterministic"),
        explained(),
    ):
        raise RuntimeError(
            "pool_cuda does not have a deterministic implementation, but you set ..."
        )


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^a bug$"), explained():
        raise RuntimeError("a bug")


def test_memory_is_given_back_also_while_the_error_is_kept() -> None:
    seen: list[weakref.ref[torch.Tensor]] = []

    def fill() -> None:
        large = torch.zeros(3)
        seen.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory) as kept, explained():
        fill()
    assert kept.value.__traceback__ is not None
    assert seen[0]() is None
