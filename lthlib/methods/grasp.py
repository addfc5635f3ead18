"""GraSP (Wang et al., 2020): prune the untrained network so that as much gradient flows as can."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lthlib.data import Part
from lthlib.masks import Mask, Structure
from lthlib.methods import at_init
from lthlib.methods.at_init import gradient_of_sum
from lthlib.methods.base import Method
from lthlib.settings import Density, Images, Positive, Settings
from lthlib.tickets import Ticket
from lthlib.training import Cost, Tensors, Trainer

# So begins what torch says of an operator without a second derivative, such as hard sigmoid. It is
# a plain RuntimeError, told from others by its text alone.
_NO_SECOND = "derivative for "


@dataclass(frozen=True)
class GraSPSettings(Settings):
    """Settings of GraSP.

    Attributes:
        density: kept fraction in (0, 1].
        images_per_class: training images of each class that the gradient is measured on.
        temperature: what logits are divided by meanwhile; the release's pruner/GraSP.py.
        structure: `unstructured`, or each whole `filter` or `channel` by the sum of their weights'
            scores, see `lthlib.masks.select`.
    """

    density: Density = 0.1
    images_per_class: Images = 10
    temperature: Positive = 200.0
    structure: Structure = "unstructured"


def scores(trainer: Trainer, images: Part, temperature: float) -> Tensors:
    """The scores weight * (H g), of which the largest are kept.

    With g and H the gradient and Hessian, over all prunable weights, of the mean loss. To first
    order, removing a weight changes the gradient flow g.g by -2 weight * (H g). So what is kept is
    what would take most flow with it, and what goes is what holds flow back. BatchNorm normalises
    by the batch, as in the release, which sums over two halves of the images, sorted by class, and
    draws linear layers anew to score them; here the loss is one mean, and the scored weights are
    those trained.

    Args:
        trainer: of the untrained network.
        images: that the loss is taken of.
        temperature: what logits are divided by.

    Returns:
        Scores by name, in the weights' shapes, on the CPU.

    Source:
        The release's pruner/GraSP.py ranks -weight * (H g) and removes the largest, which is the
        same; the SynFlow authors' Pruners/pruners.py ranks its negative and removes the smallest.
    """
    # The fused operators of attention have no second derivative.
    scored = at_init.untrained(trainer, batch_statistics=True)
    with scored as (model, weights), sdpa_kernel(SDPBackend.MATH):
        batches = at_init.pieces(trainer, images)

        def terms() -> Iterator[Tensor]:
            return at_init.losses(trainer, model, batches, temperature)

        gradient = gradient_of_sum(terms(), weights)
        try:
            curved = gradient_of_sum((_dot_product(gradient, t, weights) for t in terms()), weights)
        except RuntimeError as error:
            if not str(error).startswith(_NO_SECOND):
                raise
            reason = str(error).partition("\n")[0]
            warnings.warn(f"grasp takes finite differences: {reason}", stacklevel=2)
            curved = _hessian_by_differences(
                gradient, lambda: gradient_of_sum(terms(), weights), weights
            )
        return {name: (w * curved[name]).detach().cpu() for name, w in weights.items()}


def _hessian_by_differences(
    direction: Tensors, gradient: Callable[[], Tensors], weights: Tensors
) -> Tensors:
    """The Hessian times a direction, from the gradients a little to either side along it."""
    size, length = (
        torch.stack([torch.linalg.vector_norm(t.detach()) for t in tensors.values()]).norm()
        for tensors in (weights, direction)
    )
    step = float(1e-3 * size / length.clamp_min(1e-30))
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    sides = []
    for signed in (step, -step):
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name] + signed * direction[name])
        sides.append(gradient())
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(before[name])
    return {name: (sides[0][name] - sides[1][name]) / (2 * step) for name in weights}


def _dot_product(gradient: Tensors, loss: Tensor, weights: Tensors) -> Tensor:
    """<gradient, d loss / d weights>, whose gradient is the Hessian of `loss` times `gradient`."""
    leaves = list(weights.values())
    slopes = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
    products = [(g * slope).sum() for g, slope in zip(gradient.values(), slopes, strict=True)]
    return torch.stack(products).sum()


def search(trainer: Trainer, settings: GraSPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, trained from initialisation under its mask."""
    images = at_init.scoring_images(trainer, settings.images_per_class)
    n = len(images)
    # g, g once more, and back through the latter's graph: six forward passes' operations.
    cost = Cost(images=n, forward_passes=2 * n, backward_passes=5 * n)

    def prune() -> Mask:
        flow = scores(trainer, images, settings.temperature)
        return trainer.select(flow, settings.density, settings.structure, norm="sum")

    return at_init.train_pruned(trainer, settings.density, prune, cost)


METHOD = Method("grasp", "GraSP", GraSPSettings, search)
