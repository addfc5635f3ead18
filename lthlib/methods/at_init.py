"""What pruning at initialisation shares: score the untrained network, prune it, train the rest."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from lthlib.data import EvaluationBatches, Part, generator
from lthlib.devices import with_float64
from lthlib.masks import Mask
from lthlib.methods.base import make_ticket
from lthlib.modules import call, copied, logits_of
from lthlib.tickets import Ticket
from lthlib.training import Cost, Tensors, Trainer


def train_pruned(
    trainer: Trainer, density: float, prune: Callable[[], Mask], cost: Cost
) -> Iterator[Ticket]:
    """Prune the untrained network and train it under the mask for the full schedule.

    Args:
        trainer: of the untrained network.
        density: kept fraction that is aimed at, in (0, 1].
        prune: finds the mask; not called again when a run resumes.
        cost: passes that this takes, whose operations and seconds are added here.

    Yields:
        One ticket, which can be retrained from the initial weights.
    """
    stop = trainer.steps()
    if not trainer.group("masks"):
        begun = time.perf_counter()
        mask = prune()
        trainer.ranks.follow(mask.values())  # on a GPU two scorings need not agree to the last bit
        # Before the mask sets weights to 0: a control may keep others than the ticket does.
        trainer.snapshot()
        trainer.keep("masks", mask)
        trainer.cost += trainer.priced(cost, begun)
    mask = Mask(trainer.group("masks"))
    for _ in trainer.rounds(1):
        trainer.fit(trainer.masked_step(mask, stop), stop=stop)
        yield make_ticket(trainer, mask, judged="retrained", target_density=density)


@contextmanager
def untrained(
    trainer: Trainer, dtype: torch.dtype | None = None, batch_statistics: bool = False
) -> Iterator[tuple[nn.Module, Tensors]]:
    """A copy of the network to score; its prunable weights alone take gradients.

    Neither the trainer nor torch's generators see what happens to the copy.

    Args:
        trainer: of the network.
        dtype: to compute in, by default the network's and at least fp32, whatever the run's
            precision.
        batch_statistics: BatchNorm normalises by the batch; otherwise by what it has stored. All
            else is in evaluation mode.

    Yields:
        The copy, and its prunable weights by name.
    """
    network = trainer.network
    dtype = dtype or network.wide
    device = with_float64(network.device) if dtype == torch.float64 else network.device
    model = copied(trainer.model).to(device)
    model.eval().requires_grad_(False)
    for module, training in zip(model.modules(), network.modes, strict=True):
        module.training = training and batch_statistics and isinstance(module, _BatchNorm)
    state = trainer.group("weights") | trainer.group("buffers")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.to(dtype)
        tensor.copy_(state[name])
    parameters = dict(model.named_parameters())
    # A network that draws numbers even in evaluation mode draws the same in every process.
    with network.drawing(trainer.seed), network.arithmetic("fp32"), torch.enable_grad():
        yield model, {name: parameters[name].requires_grad_() for name in trainer.names}


def scoring_images(trainer: Trainer, images_per_class: int) -> Part:
    """Training images drawn with the run's seed, as many of each class.

    Args:
        trainer: with the training images and the seed.
        images_per_class: of each class, or all that it has; without classes ten times as many.

    Returns:
        The images, in such an order that every stretch of them is balanced.
    """
    labels = trainer.dataset.train.labels
    if not trainer.dataset.num_classes:  # then as many as of ten classes (ours)
        images_per_class *= 10
        labels = torch.zeros(len(labels), dtype=torch.int64)
    order = torch.randperm(len(labels), generator=generator(trainer.seed, "scoring images"))
    classes = order[labels[order].argsort(stable=True)].split(torch.bincount(labels).tolist())
    chosen = [rows[:images_per_class] for rows in classes]
    turn = torch.cat([torch.arange(len(rows)) for rows in chosen])
    return trainer.dataset.train.select(torch.cat(chosen)[turn.argsort(stable=True)])


def pieces(trainer: Trainer, images: Part) -> EvaluationBatches:
    """The images, not augmented, in batches as even as can be, none of one image."""
    count = -(-len(images) // trainer.settings.batch_size)
    size = -(-len(images) // count)
    while len(images) % size == 1:  # which BatchNorm could not normalise
        size += 1
    return trainer.in_order(images, size, dtype=trainer.network.wide)


def losses(
    trainer: Trainer, model: nn.Module, batches: EvaluationBatches, temperature: float = 1.0
) -> Iterator[Tensor]:
    """What each batch adds to the mean loss of all images.

    Args:
        trainer: with the loss.
        model: as `untrained` yields it.
        batches: of the images.
        temperature: what outputs are divided by.

    Yields:
        A scalar for each batch.
    """
    for x, y in batches:
        output = tree_map(lambda logits: logits / temperature, logits_of(call(model, x)))
        yield trainer.network.objective.of(output, y) * (len(y) / batches.images)


def gradient_of_sum(terms: Iterable[Tensor], weights: Tensors) -> Tensors:
    """Gradient of a sum of scalars by weights, holding one term's graph at a time.

    Args:
        terms: the scalars.
        weights: by name, with gradients on.

    Returns:
        Gradients by name, in the weights' shapes; zeros where a term does not depend on one.
    """
    total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for term in terms:
        gradients = torch.autograd.grad(term, list(weights.values()), materialize_grads=True)
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient
    return total
