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
    """What a network is trained and judged by.

    An output is what `lthlib.modules.logits_of` finds, in single precision at least.

    Attributes:
        loss: a function of (output, target) of a batch that gives one number to make small, a mean;
            by default the cross-entropy.
        metric: a function of (outputs, targets) of a whole part, on the CPU, that gives one number;
            by default the percentage of correct predictions or, where targets are no classes, the
            mean loss.
    """

    loss: Measure | None = None
    metric: Measure | None = None

    def check(self, targets: Tensor, ranks: int) -> None:
        """Refuse targets that there is no loss for.

        Args:
            targets: of the training inputs.
            ranks: processes that share the run.

        Raises:
            ConfigError: cross-entropy does not take such targets, or a loss or metric of the
                user's would be taken over ranks.
        """
        if self.loss is None and targets.dtype != torch.int64:
            raise ConfigError(
                f"targets are {targets.dtype} of shape {list(targets.shape)}, but cross-entropy "
                "takes an integer class for each; give loss=, such as torch.nn.MSELoss()"
            )
        if ranks > 1 and (self.loss or self.metric):
            raise ConfigError("loss= and metric= go with training.ranks of 1")

    def on(self, device: torch.device) -> Objective:
        """The same for a device: a loss that is a module may hold class weights."""
        if not isinstance(self.loss, nn.Module):
            return self
        return replace(self, loss=copy.deepcopy(self.loss).to(device))

    def of(self, output: Any, target: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of a batch.

        Args:
            output: of the network, such as logits [b, classes].
            target: such as classes, int64 [b].
            reduction: of the cross-entropy, `mean` or `sum`.

        Returns:
            A scalar.

        Raises:
            ConfigError: a loss of the user's gives no single number.
        """
        if self.loss is None:
            return F.cross_entropy(output, target, reduction=reduction)
        loss = self.loss(output, target)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            kind = f"shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(f"loss gives {kind}; expected one number, such as a batch's mean")
        return loss.squeeze()

    def correct(self, output: Any, target: Tensor) -> Tensor:
        """How many inputs of a batch are predicted correctly.

        Args:
            output: of the network, such as logits [b, classes].
            target: such as classes, int64 [b] or, of pixels, [b, ...].

        Returns:
            A count, int64 []; of pixels their share of b; 0 where targets are no classes.
        """
        hits = _hits(output, target)
        if hits is None:
            return target.new_zeros((), dtype=torch.int64)
        count = hits.sum()
        return count if target.ndim == 1 else count * len(target) // target.numel()

    def judge(self, batches: Iterable[tuple[Any, Tensor]], ranks: Ranks) -> float:
        """The metric of a part.

        Args:
            batches: outputs and targets of each.
            ranks: that share the part.

        Returns:
            What the metric gives; by default percent correct or, where targets are no classes, the
            mean loss.

        Raises:
            ConfigError: a metric of the user's gives no number.
        """
        if self.metric is not None:
            return self._measure(*zip(*batches, strict=True))
        correct: Any = 0
        lost, total, classes = 0.0, 0, True
        for output, target in batches:
            hits = _hits(output, target)
            classes = hits is not None
            if hits is not None:
                correct += hits.sum()
            else:
                lost += float(self.of(output, target)) * target.numel()
            total += target.numel()
        correct, total = ranks.total(int(correct), total)
        return 100 * correct / total if classes else lost / total

    def _measure(self, outputs: Any, targets: Any) -> float:
        assert self.metric is not None
        output = tree_map(lambda *batches: torch.cat([batch.cpu() for batch in batches]), *outputs)
        value = self.metric(output, torch.cat([target.cpu() for target in targets]))
        unfit = (TypeError, ValueError, RuntimeError)
        with refusal(ConfigError, f"metric gives {shown(value)}; expected one number", unfit):
            return float(value)


def _hits(output: Any, target: Tensor) -> Tensor | None:
    """Which predictions are correct, of the targets' shape; None where these are no classes."""
    fits = isinstance(output, Tensor) and output.ndim == target.ndim + 1 and output.shape[1] > 1
    if target.dtype != torch.int64 or not fits:
        return None
    hits: Tensor = output.argmax(1) == target
    return hits
