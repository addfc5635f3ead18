"""The loss and the metric that a network is trained and judged by."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lthlib.distributed import Ranks
from lthlib.errors import ConfigError, refusal, shown
from lthlib.settings import Settings

Measure = Callable[[Any, Tensor], Any]


@dataclass(frozen=True)
class Objective(Settings, where=""):
    """loss: a function of (output, target) of a batch that gives one number to make small, a mean;
    by default the cross-entropy. metric: a function of (outputs, targets) of a whole part, on the
    CPU, that gives one number; by default the percentage of correct predictions or, where targets
    are no classes, the mean loss.

    An output is what `lthlib.modules.logits_of` finds, in single precision at least.
    """

    loss: Measure | None = None
    metric: Measure | None = None

    def check(self, targets: Tensor, ranks: int) -> None:
        """Raise ConfigError where there is no loss for such targets, or not over ranks."""
        if self.loss is None and targets.dtype != torch.int64:
            raise ConfigError(
                f"targets are {targets.dtype} of shape {list(targets.shape)}, but cross-entropy "
                "takes an integer class for each; give loss=, such as torch.nn.MSELoss()"
            )
        if ranks > 1 and (self.loss or self.metric):
            raise ConfigError("loss= and metric= go with training.ranks of 1")

    def on(self, device: torch.device) -> Objective:
        """The same where it computes: a loss that is a module may hold class weights."""
        if not isinstance(self.loss, nn.Module):
            return self
        return replace(self, loss=copy.deepcopy(self.loss).to(device))

    def of(self, output: Any, target: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of a batch."""
        if self.loss is None:
            return F.cross_entropy(output, target, reduction=reduction)
        loss = self.loss(output, target)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            what = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(f"loss gives {what}; expected one number, such as a batch's mean")
        return loss.squeeze()

    def correct(self, output: Any, target: Tensor) -> Tensor:
        """How many inputs of a batch are predicted correctly; of their pixels, their share."""
        right = _right(output, target)
        if right is None:
            return target.new_zeros((), dtype=torch.int64)
        hits = right.sum()
        return hits if target.ndim == 1 else hits * len(target) // target.numel()

    def judge(self, found: Iterable[tuple[Any, Tensor]], ranks: Ranks) -> float:
        """The metric of the outputs and targets of all batches of a part."""
        if self.metric is not None:
            return self._measured(*zip(*found, strict=True))
        correct: Any = 0
        lost, total, classes = 0.0, 0, True
        for output, target in found:
            right = _right(output, target)
            classes = right is not None
            if right is not None:
                correct += right.sum()
            else:
                lost += float(self.of(output, target)) * target.numel()
            total += target.numel()
        correct, total = ranks.total(int(correct), total)
        return 100 * correct / total if classes else lost / total

    def _measured(self, outputs: Any, targets: Any) -> float:
        assert self.metric is not None
        together = tree_map(lambda *parts: torch.cat([part.cpu() for part in parts]), *outputs)
        value = self.metric(together, torch.cat([target.cpu() for target in targets]))
        unfit = (TypeError, ValueError, RuntimeError)
        with refusal(ConfigError, f"metric gives {shown(value)}; expected one number", unfit):
            return float(value)


def _right(output: Any, target: Tensor) -> Tensor | None:
    """Which predictions are correct, of the targets' shape; None where these are no classes."""
    fits = isinstance(output, Tensor) and output.ndim == target.ndim + 1 and output.shape[1] > 1
    if target.dtype != torch.int64 or not fits:
        return None
    found: Tensor = output.argmax(1) == target
    return found
