"""The device that computes: which it is, what it is called, and what happens when its memory does
not hold a run."""

import gc
import logging
import os
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from lthlib.distributed import current
from lthlib.errors import ConfigError, OutOfMemory

log = logging.getLogger(__name__)
DRIVER = Path("/proc/driver/nvidia/version")
_FULL = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "size calculation overflowed")


def chosen(name: str) -> torch.device:
    """The device that computes; of several ranks on a host, each has a GPU of its own.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for cuda if there is one.

    Raises:
        ConfigError: no device has that name, this machine has none such, or ranks cannot share it.
    """
    cuda = torch.cuda.is_available()
    ranks = current()
    if name == "auto":
        name = "cuda" if cuda else "cpu"
        _warn_of_unused_gpu()
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError
    except (RuntimeError, TypeError):
        raise ConfigError(f"device is {name!r}; expected auto, cuda, cuda:0, mps or cpu") from None
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"device is {name!r}, but torch finds no Apple GPU; use cpu or auto")
    if device.type == "mps" and ranks.world > 1:
        raise ConfigError(f"device is {name!r}, which ranks cannot share; use cpu")
    count = torch.cuda.device_count() if cuda else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        reason = unused_gpu() or f"torch finds {count or 'no'} GPU"
        raise ConfigError(f"device is {name!r}, but {reason}; use cpu or auto")
    if device.type == "cuda" and ranks.world > 1:
        return torch.device("cuda", ranks.local)
    return device


def named(device: torch.device) -> str:
    """A device as users know it, such as `NVIDIA H200 (cuda:0)`."""
    if device.type != "cuda":
        return "the Apple GPU (mps)" if device.type == "mps" else "the CPU"
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"{torch.cuda.get_device_name(index)} (cuda:{index})"


def with_float64(device: torch.device) -> torch.device:
    """Where to compute in float64 for a device: there, or on the CPU where Apple's GPU has none."""
    return torch.device("cpu") if device.type == "mps" else device


def unused_gpu() -> str | None:
    """Why `auto` does not take the GPU of this machine; None where it does, where there is none,
    and where CUDA_VISIBLE_DEVICES hides it."""
    if torch.backends.mps.is_available():
        return "the Apple GPU is left alone, as nobody has measured it: device mps takes it"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    has_nvidia = DRIVER.exists() or shutil.which("nvidia-smi") is not None
    if hidden or not has_nvidia or torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
        reason = "it finds none"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
    return f"torch {torch.__version__} cannot use the NVIDIA GPU of this machine ({reason})"


@cache
def _warn_of_unused_gpu() -> None:
    if reason := unused_gpu():
        log.warning("%s; computing on the CPU", reason)


def memory_ended(error: BaseException) -> bool:
    """Whether an error of Python's or torch's says that memory did not suffice."""
    return isinstance(error, MemoryError) or any(phrase in str(error) for phrase in _FULL)


@contextmanager
def explained() -> Iterator[None]:
    """Turn torch's errors about what a device cannot do into ours, which say what to do.

    Raises:
        OutOfMemory: memory does not suffice; what the body used is given back.
        ConfigError: a kernel is not deterministic, or there is no float64.
    """
    try:
        yield
    except (RuntimeError, MemoryError, TypeError) as error:
        text = str(error).partition("\n")[0] or type(error).__name__
        if "not have a deterministic implementation" in text:
            raise ConfigError(f"{text.partition(',')[0]}; leave out --deterministic") from None
        if "support float64" in text:
            raise ConfigError("mps has no float64; use .float(), or device cpu") from None
        if not memory_ended(error):
            raise
        traceback.clear_frames(error.__traceback__)  # their tensors
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        raise OutOfMemory(
            f"memory does not hold it ({text}); run fewer at once, or set a smaller "
            "training.batch_size, or training.precision=bf16"
        ) from None
