"""Which device computes, what it is called, and what happens where its memory ends."""

from __future__ import annotations

import logging
import shutil
import weakref
from pathlib import Path

import pytest
import torch

from lthlib import devices
from lthlib.devices import chosen, explained, named, unused_gpu
from lthlib.errors import ConfigError, OutOfMemory

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


@pytest.mark.parametrize("name", ["tpu", "meta", "cuda:x", "", None])
def test_what_names_no_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="expected auto, cuda, cuda:0 or cpu"):
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
