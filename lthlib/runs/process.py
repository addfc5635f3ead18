"""What a process that executes runs sets for itself."""

import contextlib
import ctypes
import os
from functools import cache
from typing import Any

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def set_up(threads: int, deterministic: bool) -> None:
    """Prepare this process for a run.

    Args:
        threads: of torch's operations.
        deterministic: GPU kernels that give the same bits each time, where torch has them; on the
            CPU all are.
    """
    torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        memory: Any = torch.utils.deterministic
        memory.fill_uninitialized_memory = False
    _keep_freed_memory()


@cache
def _keep_freed_memory() -> None:
    # Activations of megabytes come and go in every step. glibc gives each back to the system, and
    # takes it anew as pages of zeros: a tenth of a training step on a CPU.
    with contextlib.suppress(AttributeError, OSError, TypeError):  # the last on Windows
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
