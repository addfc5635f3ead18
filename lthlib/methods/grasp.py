"""GraSP (Wang et al., 2020): prune the untrained network so that as much gradient flows as can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lthlib.data import Part
from lthlib.masks import Structure
from lthlib.methods.at_init import (
    gradient_of_sum,
    losses,
    pieces,
    scoring_images,
    train_pruned,
    untrained,
)
from lthlib.methods.base import Method
from lthlib.settings import Density, Images, Positive, Settings
from lthlib.tickets import Ticket
from lthlib.training import Cost, Tensors, Trainer


@dataclass(frozen=True)
class GraSPSettings(Settings):
    """density: kept fraction in (0, 1]. images_per_class: training images of each class that the
    gradient is measured on. temperature: what logits are divided by meanwhile. structure:
    `unstructured`, or whole `filter`s or `channel`s by the sum of their weights' scores, see
    `lthlib.masks.select`.
    """

    density: Density = 0.1
    images_per_class: Images = 10
    temperature: Positive = 200.0
    structure: Structure = "unstructured"


def scores(trainer: Trainer, images: Part, temperature: float) -> Tensors:
    """weight * (H g) by name, with g and H the gradient and Hessian, over all prunable weights, of
    the mean loss of `images`; the largest are kept.

    To first order, removing a weight changes the gradient flow g.g by -2 weight * (H g). So what is
    kept is what would take most flow with it, and what goes is what holds flow back. This is the
    release's sign: pruner/GraSP.py ranks -weight * (H g) and removes the largest; the SynFlow
    authors' Pruners/pruners.py ranks its negative and removes the smallest. BatchNorm normalises by
    the batch, as there. The release sums over two halves of the images, sorted by class, and draws
    linear layers anew to score them; here L is one mean, and the scored weights are those trained.
    """
    # The fused operators of attention have no second derivative.
    with (
        untrained(trainer, batch_statistics=True) as (model, weights),
        sdpa_kernel(SDPBackend.MATH),
    ):
        batches = pieces(trainer, images)
        gradient = gradient_of_sum(losses(trainer, model, batches, temperature), weights)
        again = losses(trainer, model, batches, temperature)
        flow = (_product(gradient, loss, weights) for loss in again)
        curved = gradient_of_sum(flow, weights)
        return {name: (w * curved[name]).detach().cpu() for name, w in weights.items()}


def _product(gradient: Tensors, loss: Tensor, weights: Tensors) -> Tensor:
    """<gradient, d loss / d weights>, whose own gradient is the Hessian of `loss` times
    `gradient`."""
    own = torch.autograd.grad(
        loss, list(weights.values()), create_graph=True, materialize_grads=True
    )
    products = [(g * d).sum() for g, d in zip(gradient.values(), own, strict=True)]
    return torch.stack(products).sum()


def search(trainer: Trainer, settings: GraSPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, trained from initialisation under its mask."""
    images = scoring_images(trainer, settings.images_per_class)
    n = len(images)
    return train_pruned(
        trainer,
        settings.density,
        lambda: trainer.select(
            scores(trainer, images, settings.temperature),
            settings.density,
            settings.structure,
            norm="sum",
        ),
        # g, g once more, and back through the latter's graph: six forward passes' operations.
        Cost(images=n, forward_passes=2 * n, backward_passes=5 * n),
    )


METHOD = Method("grasp", "GraSP", GraSPSettings, search)
