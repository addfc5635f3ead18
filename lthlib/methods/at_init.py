"""What pruning at initialisation shares: score the untrained network, prune it once, train what is
left."""

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
    """Prune the untrained network, train it under the mask for the full schedule, and yield one
    ticket, which can be retrained from the initial weights.

    prune: finds the mask; not called again when a run resumes. cost: passes that this takes, whose
    operations and seconds are added here.
    """
    stop = trainer.steps()
    if not trainer.group("masks"):
        begun = time.perf_counter()
        found = prune()
        trainer.ranks.follow(found.values())  # on a GPU two scorings need not agree to the last bit
        # Before the mask sets weights to 0: a control may keep others than the ticket does.
        trainer.snapshot()
        trainer.keep("masks", found)
        trainer.cost += trainer.priced(cost, begun)
    mask = Mask(trainer.group("masks"))
    for _ in trainer.rounds(1):
        trainer.fit(trainer.masked_step(mask, stop), stop=stop)
        yield make_ticket(trainer, mask, judged="retrained", target_density=density)


@contextmanager
def untrained(
    trainer: Trainer, dtype: torch.dtype | None = None, batch_statistics: bool = False
) -> Iterator[tuple[nn.Module, Tensors]]:
    """A copy of the network to score, with its prunable weights, which alone take gradients.

    dtype: to compute in, by default the network's and at least fp32, whatever the run's precision.
    batch_statistics: BatchNorm normalises by the batch; otherwise by what it has stored. All else
    is in evaluation mode. Neither the trainer nor torch's generators see what happens to the copy.
    """
    network = trainer.network
    dtype = dtype or network.wide
    place = with_float64(network.device) if dtype == torch.float64 else network.device
    model = copied(trainer.model).to(place)
    model.eval().requires_grad_(False)
    for module, training in zip(model.modules(), network.modes, strict=True):
        module.training = training and batch_statistics and isinstance(module, _BatchNorm)
    state = trainer.group("weights") | trainer.group("buffers")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.to(dtype)
        tensor.copy_(state[name])
    named = dict(model.named_parameters())
    # A network that draws numbers even in evaluation mode draws the same in every process.
    with network.drawing(trainer.seed), network.arithmetic("fp32"), torch.enable_grad():
        yield model, {name: named[name].requires_grad_() for name in trainer.names}


def scoring_images(trainer: Trainer, images_per_class: int) -> Part:
    """Training images drawn with the run's seed, as many of each class, or all that a class has;
    ordered so that every stretch of them is balanced."""
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
    """What each batch adds to the mean loss of all images, outputs divided by `temperature`."""
    for x, y in batches:
        output = tree_map(lambda part: part / temperature, logits_of(call(model, x)))
        yield trainer.network.objective.of(output, y) * (len(y) / batches.images)


def gradient_of_sum(terms: Iterable[Tensor], weights: Tensors) -> Tensors:
    """Gradient of a sum of scalars with respect to weights, holding one term's graph at a time."""
    total = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    for term in terms:
        parts = torch.autograd.grad(term, list(weights.values()), materialize_grads=True)
        for name, part in zip(total, parts, strict=True):
            total[name] += part
    return total
