"""One run over several processes, as torchrun starts them.

    torchrun --nproc-per-node 8 -m lthlib run bip --recipe bip-imagenet

executes one run over eight ranks, each with a GPU of its own (NCCL), or on the CPU (gloo). The
batch size of a recipe is that of all ranks together: each takes its share of the same permutation
with the same augmentation, so that a network without BatchNorm gets the gradient of one process, up
to the order of sums. Their number changes the result where there is BatchNorm, so it is part of a
run's configuration (`training.ranks`, filled in from torchrun's), and a start with another number
is refused.

Gradients are reduced explicitly, with torch.distributed, and not by DistributedDataParallel's
hooks: those wait for `.grad` of a module's parameters, but effective weights are functions of the
state here, and BiP multiplies two gradients before any optimiser sees them. One reduction where all
gradients are made, `Network.gradients`, serves every method; it follows the backward pass and does
not overlap with it.

BatchNorm normalises by each rank's own images, as DistributedDataParallel has it, and the running
statistics are those of rank 0; `training.sync_batchnorm` normalises over all ranks (CUDA only). All
else that a run holds is the same on every rank bit for bit, which is asserted once an epoch. Ranks
draw the same random numbers, gates and dropout among them.

Only rank 0 touches the store. A stop (Ctrl-C, SIGTERM, a budget) on any rank stops all at the same
step, after rank 0 has saved. When a rank dies, torchrun ends the others; the same command goes on
from the last checkpoint, and with `--max-restarts N` torchrun itself starts all ranks again up to N
times. That needs `--standalone` or `--rdzv-backend c10d`, and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
in its environment: ranks that start again would look for each other at the addresses of those that
died (pytorch/pytorch#135712). torchrun has an exit status of its own: where `lth` ends with 75
(stopped, come again), torchrun lists that and exits with 1, and with restarts left it goes on at
once.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lthlib.errors import ConfigError, RanksDiffer

T = TypeVar("T")
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Rank 0 may wait for another job's lock, and the others for rank 0, longer than any collective.
_PATIENCE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Ranks:
    """The processes that share a run; by default a single one, for which nothing is exchanged.

    Every method is called by all ranks at the same place.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
        local: this one's number on its host, from 0.
        control: the group over which flags and objects go, on the CPU.
    """

    rank: int = 0
    world: int = 1
    local: int = 0
    control: dist.ProcessGroup | None = None

    @property
    def share(self) -> tuple[int, int]:
        """(rank, world): which rows of a batch are this rank's."""
        return self.rank, self.world

    def first(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises on rank 0, on every rank; no other rank calls it."""
        if self.world == 1:
            return function()
        outcome: list[object] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = function()
            except Exception as error:
                outcome[1] = error
        dist.broadcast_object_list(outcome, src=0, group=self.control, device=torch.device("cpu"))
        if isinstance(outcome[1], Exception):
            raise outcome[1]
        return outcome[0]  # type: ignore[return-value]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.world == 1 else self.total(int(flag))[0] > 0

    def total(self, *counts: int) -> list[int]:
        """Each count summed over ranks."""
        if self.world == 1:
            return list(counts)
        summed = torch.tensor(counts, dtype=torch.int64)
        dist.all_reduce(summed, group=self.control)
        return [int(count) for count in summed.tolist()]

    def mean(
        self, loss: Tensor, correct: Tensor, gradients: Tensor, images: int
    ) -> tuple[Tensor, Tensor]:
        """Sums over this rank's images become means over all images of the batch.

        Each image weighs the same, however many a rank has. A single process has nothing to reduce
        and does not call this.

        Args:
            loss: [], sum over this rank's images.
            correct: [], how many of them are predicted correctly.
            gradients: [n], of `loss`; they become those of the mean loss, in place.
            images: how many this rank has.

        Returns:
            The mean loss, and the number of correct predictions, over all ranks, both [].
        """
        counts = torch.stack([loss, correct.to(loss.dtype), loss.new_tensor(images)])
        flat = torch.cat([counts, gradients])
        dist.all_reduce(flat)
        torch.div(flat[3:], flat[2], out=gradients)
        return flat[0] / flat[2], flat[1].to(correct.dtype)

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Give tensors the values that they have on rank 0, in place."""
        if self.world == 1:
            return
        for tensor in tensors:
            values = tensor.contiguous()
            dist.broadcast(values, src=0, group=self._group(tensor))
            tensor.copy_(values)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over ranks, in place."""
        if self.world == 1:
            return
        for tensor in tensors:
            values = tensor.clone()
            dist.all_reduce(values, group=self._group(tensor))
            tensor.copy_(values / self.world)

    def check_same(self, tensors: Mapping[str, Tensor], when: str) -> None:
        """Check that all ranks hold the same bits.

        Args:
            tensors: of any shapes and dtypes, by name.
            when: how the error calls the present moment.

        Raises:
            RanksDiffer: they do not; the message names a tensor, masks first.
        """
        if self.world == 1:
            return
        lowest = torch.stack([_checksum(tensor).cpu() for tensor in tensors.values()])
        highest = lowest.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN, group=self.control)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.control)
        same = (lowest == highest).tolist()
        different = [name for name, equal in zip(tensors, same, strict=True) if not equal]
        if different:
            different.sort(key=lambda name: not name.startswith("mask"))
            raise RanksDiffer(
                f"{when}: {len(different)} tensors differ between ranks ({different[0]} first); "
                "expected the same state; start again from the last checkpoint"
            )

    def _group(self, tensor: Tensor) -> dist.ProcessGroup | None:
        # NCCL, the default group on CUDA, takes no tensor of the CPU, as masks may be.
        return None if tensor.is_cuda else self.control


def _checksum(tensor: Tensor) -> Tensor:
    """An int64 [] of all bits and their places; sums of integers have no order."""
    bits = tensor.detach().reshape(-1).view(_BITS[tensor.element_size()]).long()
    return (bits * torch.arange(1, len(bits) + 1, device=bits.device)).sum()


_current = Ranks()


def current() -> Ranks:
    """The ranks of this process: a single one outside of `started`."""
    return _current


def launched() -> int:
    """How many ranks torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


@contextmanager
def started(device: str = "auto") -> Iterator[Ranks]:
    """Join the ranks that torchrun started, for the length of the block; alone without torchrun.

    Args:
        device: `cpu`, `cuda` or `auto`; on CUDA each rank takes the GPU of its number on the host.

    Yields:
        The ranks, which `current` returns within the block.

    Raises:
        ConfigError: a host has fewer GPUs than ranks, or torchrun could not restart them.
    """
    global _current
    world = launched()
    if world == 1:
        yield _current
        return
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise ConfigError(
            f"torchrun --max-restarts {restarts} would hang at the first restart: set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment, with --standalone or "
            "--rdzv-backend c10d, or leave the option out"
        )
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    on_cuda = device != "cpu" and torch.cuda.is_available()
    if on_cuda:
        if local >= (count := torch.cuda.device_count()):
            raise ConfigError(f"rank {rank} wants GPU {local} of {count}; start fewer on this host")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        _current = Ranks(rank, world, local, dist.new_group(timeout=_PATIENCE, backend="gloo"))
        yield _current
    finally:
        _current = Ranks()
        dist.destroy_process_group()


def check_ranks(world: int, sync_batchnorm: bool, device: torch.device) -> None:
    """Check that this process can take part in a run as its configuration asks.

    Args:
        world: how many processes are to share the run.
        sync_batchnorm: whether BatchNorm normalises over all of them.
        device: that computes.

    Raises:
        ConfigError: another number of processes is there, or the device has no such BatchNorm.
    """
    if sync_batchnorm and device.type != "cuda":
        raise ConfigError("training.sync_batchnorm needs CUDA; leave it out on the CPU")
    if world != _current.world:
        raise ConfigError(
            f"training.ranks is {world}, but {_current.world} process(es) share this run; start "
            f"it with `torchrun --nproc-per-node {world} -m lthlib run`"
        )
