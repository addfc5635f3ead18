"""SynFlow (Tanaka et al., 2020): prune untrained and without data, so that no layer collapses."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from lthlib.devices import with_float64
from lthlib.masks import Mask
from lthlib.methods.at_init import gradient_of_sum, pieces, train_pruned, untrained
from lthlib.methods.base import Method
from lthlib.modules import call, logits_of
from lthlib.settings import Count, Density, Settings
from lthlib.tickets import Ticket
from lthlib.training import Cost, Tensors, Trainer


@dataclass(frozen=True)
class SynFlowSettings(Settings):
    """Settings of SynFlow.

    Attributes:
        density: kept fraction in (0, 1].
        iterations: prunings in which it is reached, each by the same factor; 1 scores once.
    """

    density: Density = 0.1
    iterations: Count = 100


def scores(trainer: Trainer, mask: Mask, x: Any) -> Tensors:
    """The scores |weight * dR/dweight| under a mask, of which the largest are kept.

    R is the sum of the outputs for `x` of the network whose parameters and buffers are replaced by
    their absolute values. BatchNorm is in evaluation mode.

    Args:
        trainer: of the untrained network.
        mask: what is pruned by now.
        x: ones, [1, ...]; float64, as everything here is: R grows with every layer.

    Returns:
        Scores by name, in the weights' shapes, on the CPU.

    Source:
        The release, Pruners/pruners.py (SynFlow) and prune.py.
    """
    with untrained(trainer, torch.float64) as (model, weights):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point():
                    tensor.abs_()
            for name, kept in mask.items():
                weights[name].mul_(kept.to(weights[name].device))
        outputs = tree_leaves(logits_of(call(model, x)))
        total = torch.stack([output.sum() for output in outputs]).sum()
        gradient = gradient_of_sum([total], weights)
        return {name: (w * gradient[name]).detach().abs().cpu() for name, w in weights.items()}


def ones(trainer: Trainer) -> Any:
    """Ones in the shape of one training input, [1, ...]: float64, or whole numbers like it."""
    first = trainer.dataset.train.select(torch.tensor([0]))
    x, _ = next(iter(pieces(trainer, first)))
    return tree_map_only(Tensor, _ones_like, x)


def _ones_like(x: Tensor) -> Tensor:
    wide = torch.float64 if x.is_floating_point() else None
    return torch.ones_like(x, dtype=wide, device=with_float64(x.device))


def prune(trainer: Trainer, settings: SynFlowSettings) -> Mask:
    """Score and prune again and again, to density^(i / iterations) at iteration i.

    What was pruned stays pruned.

    Args:
        trainer: of the untrained network.
        settings: with the density and the iterations.

    Returns:
        The mask, on the CPU.

    Source:
        The release, prune.py.
    """
    mask = Mask.full(trainer.prunable_weights(), trainer.names).to("cpu")
    x = ones(trainer)
    for i in range(1, settings.iterations + 1):
        density = settings.density ** (i / settings.iterations)
        mask = trainer.select(scores(trainer, mask, x), density, within=mask)
    return mask


def search(trainer: Trainer, settings: SynFlowSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, trained from initialisation under its mask."""
    cost = Cost(forward_passes=settings.iterations, backward_passes=settings.iterations)
    return train_pruned(trainer, settings.density, lambda: prune(trainer, settings), cost)


METHOD = Method("synflow", "SynFlow", SynFlowSettings, search)
