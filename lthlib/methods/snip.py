"""SNIP (Lee et al., 2019): prune the untrained weights to which the loss is least sensitive."""

from collections.abc import Iterator
from dataclasses import dataclass

from lthlib.data import Part
from lthlib.masks import Mask
from lthlib.methods import at_init
from lthlib.methods.base import Method
from lthlib.settings import Density, Images, Settings
from lthlib.tickets import Ticket
from lthlib.training import Cost, Tensors, Trainer


@dataclass(frozen=True)
class SNIPSettings(Settings):
    """Settings of SNIP.

    Attributes:
        density: kept fraction in (0, 1].
        images_per_class: training images of each class that the sensitivity is measured on.
    """

    density: Density = 0.1
    images_per_class: Images = 10


def scores(trainer: Trainer, images: Part) -> Tensors:
    """The scores |weight * dL/dweight|, of which the largest are kept.

    The release's connection sensitivity without the division by its sum, which changes no rank.
    BatchNorm normalises by the batch here; the release scores with is_train False, by BatchNorm's
    initial statistics, and draws other weights to score than to train.

    Args:
        trainer: of the untrained network.
        images: of which L is the mean loss.

    Returns:
        Scores by name, in the weights' shapes, on the CPU.

    Source:
        The release, snip/model.py.
    """
    with at_init.untrained(trainer, batch_statistics=True) as (model, weights):
        gradient = at_init.gradient_of_sum(
            at_init.losses(trainer, model, at_init.pieces(trainer, images)), weights
        )
        return {name: (w * gradient[name]).detach().abs().cpu() for name, w in weights.items()}


def search(trainer: Trainer, settings: SNIPSettings, parent: Ticket | None) -> Iterator[Ticket]:
    """Yield one ticket, trained from initialisation under its mask."""
    images = at_init.scoring_images(trainer, settings.images_per_class)
    cost = Cost(images=len(images), forward_passes=len(images), backward_passes=len(images))

    def prune() -> Mask:
        return trainer.select(scores(trainer, images), settings.density)

    return at_init.train_pruned(trainer, settings.density, prune, cost)


METHOD = Method("snip", "SNIP", SNIPSettings, search)
