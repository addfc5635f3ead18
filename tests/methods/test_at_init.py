"""SNIP, GraSP and SynFlow: what they score, draw, keep, leave alone and cost."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from lthlib.checkpoints import load_checkpoint
from lthlib.data import Dataset, DataSettings, Images, Part, StreamingPart
from lthlib.errors import ConfigError, MaskError, Paused
from lthlib.masks import Mask, random_mask, select
from lthlib.methods import get_method, grasp, retrain, snip, synflow
from lthlib.methods.at_init import pieces, scoring_images
from lthlib.methods.grasp import GraSPSettings
from lthlib.methods.retrain import RetrainSettings
from lthlib.methods.snip import SNIPSettings
from lthlib.methods.synflow import SynFlowSettings
from lthlib.tickets import Ticket
from lthlib.training import Trainer, TrainingSettings
from tests.training.test_resuming import digest, stop_at_question
from tests.training.toys import IMAGES, Tiny, images, tiny, tiny_trainer

METHODS = ("snip", "grasp", "synflow")
TEMPERATURE = 200.0
Scores = dict[str, Tensor]

FIRST = torch.tensor([[3.0, -5.0], [4.0, 5.0]], dtype=torch.float64)
SECOND = torch.tensor([[-5.0, 5.0], [4.0, -1.0]], dtype=torch.float64)
INPUTS = torch.tensor([[0.1, -0.3], [0.4, 0.2], [-0.2, 0.1], [0.3, 0.5], [-0.1, 0.2]]).double()
LABELS = torch.tensor([0, 1, 1, 0, 1])


def linear_trainer(batch_size: int = 8) -> Trainer:
    """x -> SECOND FIRST x, on five inputs of two classes."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(FIRST)
        model[1].weight.copy_(SECOND)
    data = Dataset.from_tensors(INPUTS, LABELS, validation_fraction=0)
    return Trainer(model, data, TrainingSettings("2it", batch_size))


def gradient_by_hand(temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """With z = B A x / T and d = (softmax(z) - y) / T, dL/dA is the mean of B' d x' and dL/dB that
    of d (A x)'."""
    first, second = torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    for x, y in zip(INPUTS, F.one_hot(LABELS), strict=True):
        d = ((SECOND @ FIRST @ x / temperature).softmax(0) - y) / temperature
        first += (SECOND.T @ d).outer(x) / len(INPUTS)
        second += d.outer(FIRST @ x) / len(INPUTS)
    return first, second


def curvature_by_hand(temperature: float) -> tuple[Tensor, Tensor]:
    """The derivative of `gradient_by_hand` along itself, term by term."""
    along_first, along_second = gradient_by_hand(temperature)
    first, second = torch.zeros(2, 2).double(), torch.zeros(2, 2).double()
    for x, y in zip(INPUTS, F.one_hot(LABELS), strict=True):
        hidden, moved = FIRST @ x, along_first @ x
        p = (SECOND @ hidden / temperature).softmax(0)
        d = (p - y) / temperature
        logits = (along_second @ hidden + SECOND @ moved) / temperature
        turned = (p.diag() - p.outer(p)) @ logits / temperature
        first += (along_second.T @ d + SECOND.T @ turned).outer(x) / len(INPUTS)
        second += (turned.outer(hidden) + d.outer(moved)) / len(INPUTS)
    return first, second


def assert_close(found: Scores, expected: tuple[Tensor, ...] | list[Tensor]) -> None:
    for tensor, wanted in zip(found.values(), expected, strict=True):
        # Sums of a few terms in another order, in double precision.
        torch.testing.assert_close(tensor, wanted, rtol=1e-10, atol=1e-18)


@pytest.mark.parametrize("batch_size", [8, 3, 2])
def test_snip_scores_a_linear_network_as_by_hand(batch_size: int) -> None:
    trainer = linear_trainer(batch_size)
    first, second = gradient_by_hand()
    found = snip.scores(trainer, scoring_images(trainer, 10))
    assert_close(found, ((FIRST * first).abs(), (SECOND * second).abs()))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 200.0])
@pytest.mark.parametrize("batch_size", [8, 2])
def test_grasp_scores_a_linear_network_as_by_hand(temperature: float, batch_size: int) -> None:
    trainer = linear_trainer(batch_size)
    first, second = curvature_by_hand(temperature)
    found = grasp.scores(trainer, scoring_images(trainer, 10), temperature)
    assert_close(found, (FIRST * first, SECOND * second))


def full(trainer: Trainer) -> Mask:
    return Mask.full(trainer.prunable_weights(), trainer.names)


def test_synflow_scores_a_linear_network_as_by_hand() -> None:
    """|A| times the column sums of |B|, 9 and 6; |B| times the row sums of |A|, 8 and 9."""
    trainer = linear_trainer()
    found = synflow.scores(trainer, full(trainer), torch.ones(1, 2).double())
    assert [tensor.tolist() for tensor in found.values()] == [
        [[27, 45], [24, 30]],
        [[40, 45], [32, 9]],
    ]


def test_synflow_scores_again_what_each_pruning_left() -> None:
    """Of 45, 45, 40 and 32, the first half kept, the network left has scores 45, 0, 25 and 20."""
    trainer = linear_trainer()
    once = synflow.prune(trainer, SynFlowSettings(density=0.25, iterations=1))
    assert [kept.int().tolist() for kept in once.values()] == [[[0, 1], [0, 0]], [[0, 1], [0, 0]]]
    twice = synflow.prune(trainer, SynFlowSettings(density=0.25, iterations=2))
    assert [kept.int().tolist() for kept in twice.values()] == [[[0, 1], [0, 0]], [[1, 0], [0, 0]]]


def scored(trainer: Trainer, method: str, images_per_class: int = 10) -> Scores:
    if method == "snip":
        return snip.scores(trainer, scoring_images(trainer, images_per_class))
    if method == "grasp":
        return grasp.scores(trainer, scoring_images(trainer, images_per_class), TEMPERATURE)
    return synflow.scores(trainer, full(trainer), synflow.ones(trainer))


def uneven_trainer(**settings: object) -> Trainer:
    """A tiny network whose BatchNorms have learnt and stored something, also below zero."""
    trainer = tiny_trainer(**settings)  # type: ignore[arg-type]
    draw = torch.Generator().manual_seed(3)
    for group in ("weights", "buffers"):
        for name, tensor in trainer.group(group).items():
            if "bn" in name and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    trainer.state["weights/bn1.weight"][0] *= -1
    trainer.state["weights/bn2.bias"][1] *= -1
    trainer.state["buffers/bn1.running_mean"].mul_(-1)
    return trainer


def module_of(trainer: Trainer) -> nn.Module:
    model = tiny()
    model.load_state_dict(trainer.group("weights") | trainer.group("buffers"))
    return model


def rates(
    trainer: Trainer, model: nn.Module, value: Callable[[nn.Module], Tensor], step: float
) -> list[Tensor]:
    """d value / d log(weight) of every prunable weight, by central differences."""
    found = []
    for name in trainer.names:
        weight = model.get_parameter(name)
        rate = torch.zeros(weight.numel(), dtype=weight.dtype)
        flat = weight.data.view(-1)
        for i, before in enumerate(flat.tolist()):
            ends = []
            for sign in (1, -1):
                flat[i] = before * (1 + sign * step)
                ends.append(float(value(model).detach()))
            flat[i] = before
            rate[i] = (ends[0] - ends[1]) / (2 * step)
        found.append(rate.view_as(weight))
    return found


def batch_of(trainer: Trainer, images: Part) -> tuple[Tensor, Tensor]:
    (batch,) = trainer.in_order(images)
    return batch


def test_snip_is_the_change_of_the_loss_under_batch_statistics() -> None:
    trainer = uneven_trainer()
    few = scoring_images(trainer, 2)
    x, y = batch_of(trainer, few)

    def loss(model: nn.Module) -> Tensor:
        return F.cross_entropy(copy.deepcopy(model).train()(x), y)

    expected = rates(trainer, module_of(trainer), loss, 1e-5)
    for tensor, wanted in zip(snip.scores(trainer, few).values(), expected, strict=True):
        torch.testing.assert_close(tensor, wanted.abs(), rtol=1e-5, atol=1e-9)


def gradient_flow(trainer: Trainer, x: Tensor, y: Tensor) -> Callable[[nn.Module], Tensor]:
    """Squared norm of the gradient over the prunable weights, at the temperature."""

    def flow(model: nn.Module) -> Tensor:
        model = copy.deepcopy(model).train()
        loss = F.cross_entropy(model(x) / TEMPERATURE, y)
        weights = [model.get_parameter(name) for name in trainer.names]
        return sum((g**2).sum() for g in torch.autograd.grad(loss, weights))  # type: ignore[return-value]

    return flow


def test_grasp_is_half_the_change_of_the_gradient_flow() -> None:
    """(1 + e) weight changes g.g by 2 e weight (H g), so taking a weight away changes it by
    -2 score, to first order."""
    trainer = uneven_trainer()
    few = scoring_images(trainer, 2)
    flow = gradient_flow(trainer, *batch_of(trainer, few))
    expected = rates(trainer, module_of(trainer), flow, 1e-4)
    found = list(grasp.scores(trainer, few, TEMPERATURE).values())
    scale = max(float(tensor.abs().max()) for tensor in found)
    for tensor, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(tensor, wanted / 2, rtol=1e-5, atol=1e-7 * scale)
    assert {bool(s) for tensor in found for s in (tensor > 0).flatten().tolist()} == {True, False}


def test_grasp_keeps_the_weights_that_carry_the_gradient_flow() -> None:
    """Fading what it prunes leaves more gradient flow than fading as many of what it keeps."""
    trainer = uneven_trainer()
    few = scoring_images(trainer, 2)
    flow = gradient_flow(trainer, *batch_of(trainer, few))
    (ticket,) = grasp.search(trainer, GraSPSettings(0.5, images_per_class=2), None)

    def faded(part: str) -> float:
        model = module_of(uneven_trainer())
        with torch.no_grad():
            for name, kept in ticket.mask.items():
                model.get_parameter(name)[kept if part == "kept" else ~kept] *= 0.999
        return float(flow(model))

    before = float(flow(module_of(uneven_trainer())))
    assert faded("kept") < before
    assert faded("pruned") > faded("kept")


def test_synflow_is_the_flow_of_ones_through_absolute_values_and_stored_statistics() -> None:
    trainer = uneven_trainer()
    model = module_of(trainer).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.abs_()
    x = torch.ones(1, 1, 5, 5, dtype=torch.float64)
    expected = rates(trainer, model, lambda model: model(x).sum(), 1e-5)
    found = synflow.scores(trainer, full(trainer), synflow.ones(trainer))
    for tensor, wanted in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(tensor, wanted, rtol=1e-6, atol=1e-9)


def stack_trainer(*layers: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    for layer in layers:
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    inputs, labels = torch.randn(60, *shape), torch.arange(60) % 3
    data = Dataset.from_tensors(inputs, labels)
    return Trainer(nn.Sequential(*layers), data, TrainingSettings("2it", 16))


def convolutions() -> Trainer:
    return stack_trainer(
        nn.Conv2d(2, 5, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 4, 2, bias=False),
        nn.ReLU(), nn.Flatten(), nn.Linear(16, 6, bias=False), nn.Linear(6, 3, bias=False),
        shape=(2, 8, 8),
    )  # fmt: skip


def test_every_layer_carries_the_same_synaptic_flow() -> None:
    """Tanaka et al. (2020), conservation by layers, also of what random pruning leaves."""
    trainer = convolutions()
    shapes = {name: tensor.shape for name, tensor in trainer.prunable_weights().items()}
    for kept in (sum(shape.numel() for shape in shapes.values()), 150):
        mask = random_mask(shapes, kept, torch.Generator().manual_seed(1))
        found = synflow.scores(trainer, mask, synflow.ones(trainer))
        flows = [float(tensor.sum()) for tensor in found.values()]
        assert flows[0] > 0
        assert flows == pytest.approx([flows[0]] * 4, rel=1e-12)
        for name, tensor in found.items():
            assert tensor[~mask[name]].count_nonzero() == 0


def deep_and_wide(seed: int) -> Trainer:
    widths = (10, 50, 50, 50, 3)
    layers = [(nn.Linear(a, b, bias=False), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return stack_trainer(*itertools.chain(*layers), shape=(10,), seed=seed)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_synflow_keeps_a_path_where_the_others_empty_a_layer(seed: int) -> None:
    """Four weights for four layers, the fewest through which anything can flow."""
    trainer = deep_and_wide(seed)
    density = 4 / full(trainer).total
    mask = synflow.prune(trainer, SynFlowSettings(density))
    assert [kept for kept, _ in mask.layers().values()] == [1, 1, 1, 1]
    hidden = torch.ones(10)
    for kept in mask.values():
        hidden = kept.float() @ hidden
    assert hidden.sum() == 1
    magnitudes = {name: tensor.abs() for name, tensor in trainer.prunable_weights().items()}
    once = synflow.scores(trainer, full(trainer), synflow.ones(trainer))
    for scores in (magnitudes, once, scored(trainer, "snip"), scored(trainer, "grasp")):
        assert min(kept for kept, _ in select(scores, density).layers().values()) == 0


def test_synflow_computes_in_double_precision() -> None:
    trainer = stack_trainer(*[nn.Linear(3, 3, bias=False) for _ in range(40)], shape=(3,))
    for tensor in trainer.prunable_weights().values():
        tensor.mul_(20)
    found = scored(trainer, "synflow")
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}
    assert all(bool(tensor.isfinite().all()) for tensor in found.values())
    assert found["0.weight"].max() > torch.finfo(torch.float32).max


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 1 / 147])
@pytest.mark.parametrize("method", METHODS)
def test_exactly_the_largest_scores_are_kept(method: str, density: float) -> None:
    settings = {"density": density} | ({"iterations": 1} if method == "synflow" else {})
    ticket, _ = found_by(method, **settings)
    assert ticket.mask.kept == round(density * 147)
    expected = scored(tiny_trainer(), method)
    flat = torch.cat([tensor.flatten() for tensor in expected.values()])
    least = flat.sort(descending=True).values[ticket.mask.kept - 1]
    for name, kept in ticket.mask.items():
        assert kept.equal(expected[name] >= least)


def test_synflow_never_brings_back_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though kept ones that nothing flows through any more score 0 as well."""
    scores, masks = synflow.scores, []

    def seen(trainer: Trainer, mask: Mask, x: Tensor) -> Scores:
        masks.append(mask)
        return scores(trainer, mask, x)

    monkeypatch.setattr("lthlib.methods.synflow.scores", seen)
    masks.append(synflow.prune(linear_trainer(), SynFlowSettings(density=0.5, iterations=30)))
    assert masks[0].kept == 8
    assert masks[-1].kept == 4
    for before, after in itertools.pairwise(masks):
        assert not any((after[name] & ~before[name]).any() for name in after)


@pytest.mark.parametrize(("structure", "counts"), [("filter", (2, 2)), ("channel", (1, 2))])
def test_grasp_prunes_groups_by_the_sum_of_their_scores(
    structure: str, counts: tuple[int, int]
) -> None:
    """Of 3 and 4 filters, or 1 and 3 channels, all but the whole number of half of them stay."""
    ticket, _ = found_by("grasp", density=0.5, structure=structure)
    scores = scored(tiny_trainer(), "grasp")
    others = (1, 2, 3) if structure == "filter" else (0, 2, 3)
    assert ticket.mask["linear.weight"].all()
    for name, count in zip(("conv1.weight", "conv2.weight"), counts, strict=True):
        sums = scores[name].sum(others)
        least = sums.sort(descending=True).values[count - 1]
        for kept in (ticket.mask[name].any(others), ticket.mask[name].all(others)):
            assert kept.equal(sums >= least)


def found_by(
    method: str, trainer: Trainer | None = None, **settings: Any
) -> tuple[Ticket, Trainer]:
    chosen, trainer = get_method(method), trainer or tiny_trainer()
    (ticket,) = chosen.search(trainer, chosen.settings(**settings), None)
    return ticket, trainer


def snapshot(trainer: Trainer) -> list[Any]:
    """Everything scoring might move, in values that compare."""
    models = (trainer.model, trainer.network.model)
    tensors = {f"{i}/{n}": t for i, m in enumerate(models) for n, t in m.state_dict().items()}
    tensors |= trainer.state
    ways = [
        [module.training for model in models for module in model.modules()],
        [(p.requires_grad, p.grad is None) for model in models for p in model.parameters()],
        [getattr(m, "momentum", None) for model in models for m in model.modules()],
    ]
    place = (trainer.round, trainer.step, trainer.cost, list(trainer.history))
    random = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()]  # type: ignore[union-attr]
    return [{n: t.clone().numpy().tobytes() for n, t in tensors.items()}, ways, place, random]


@pytest.mark.parametrize("method", METHODS)
def test_scoring_leaves_no_trace(method: str) -> None:
    trainer = tiny_trainer(torch.float32, dropout=0.5)
    trainer.network.model.eval()
    torch.manual_seed(11)
    before = copy.deepcopy(snapshot(trainer))
    first = scored(trainer, method)
    assert snapshot(trainer) == before
    second = scored(trainer, method)
    assert all(first[name].equal(second[name]) for name in trainer.names)
    assert all(
        tensor.device.type == "cpu" and not tensor.requires_grad for tensor in first.values()
    )


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_of_the_weights_in_the_state(method: str) -> None:
    moved = tiny_trainer()
    moved.load("weights", {name: tensor * 2 for name, tensor in moved.prunable_weights().items()})
    other = tiny()
    with torch.no_grad():
        for name in moved.names:
            other.get_parameter(name).mul_(2)
    expected = Trainer(other, images(), TrainingSettings("7it", 8))
    found, wanted = scored(moved, method), scored(expected, method)
    assert all(found[name].equal(wanted[name]) for name in found)


class Noisy(nn.Module):
    """Logits with noise in every mode, as a forgotten F.dropout has it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(F.dropout(x))
        return logits


@pytest.mark.parametrize("method", METHODS)
def test_scores_depend_on_no_global_generator(method: str) -> None:
    trainer = stack_trainer(Noisy(), shape=(4,))
    torch.manual_seed(1)
    first = scored(trainer, method)
    torch.manual_seed(2)
    assert scored(trainer, method)["0.linear.weight"].equal(first["0.linear.weight"])


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_computed_in_full_precision_whatever_the_run_s(method: str) -> None:
    full_precision = scored(tiny_trainer(torch.float32), method)
    found = scored(tiny_trainer(torch.float32, precision="bf16"), method)
    assert all(found[name].equal(full_precision[name]) for name in found)


@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_scores_with_exact_products(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its precision is torch's, of all products of the process: exact where a network is called."""
    trainer, seen = tiny_trainer(torch.float32, precision="tf32"), []
    network, kept, forward = trainer.network, torch.backends.cuda.matmul, Tiny.forward
    arithmetic, before = network.arithmetic, kept.fp32_precision

    @contextmanager
    def on_a_gpu(*precision: str) -> Iterator[None]:
        with ExitStack() as stack:
            network.device = torch.device("cuda")
            stack.enter_context(arithmetic(*precision))
            network.device = torch.device("cpu")
            yield

    def watched(model: Tiny, x: Tensor) -> Tensor:
        seen.append(kept.fp32_precision)
        return forward(model, x)

    monkeypatch.setattr(network, "arithmetic", on_a_gpu)
    monkeypatch.setattr(Tiny, "forward", watched)
    scored(trainer, method)
    assert set(seen) == {"ieee"} and kept.fp32_precision == before != "ieee"


@pytest.mark.parametrize("method", METHODS)
def test_scores_need_gradients_wherever_they_are_asked_for(method: str) -> None:
    wanted = scored(tiny_trainer(), method)
    with torch.no_grad():
        found = scored(tiny_trainer(), method)
    assert all(found[name].equal(wanted[name]) for name in wanted)


@pytest.mark.parametrize("method", METHODS)
def test_only_prunable_weights_are_scored(method: str) -> None:
    trainer = Trainer(tiny(), images(), TrainingSettings("7it", 8), prunable=("conv2.weight",))
    found, everything = scored(trainer, method), scored(tiny_trainer(), method)
    assert list(found) == ["conv2.weight"]
    # GraSP's gradient is over the prunable weights alone.
    same = found["conv2.weight"].equal(everything["conv2.weight"])
    assert same == (method != "grasp")


@pytest.mark.parametrize(
    ("method", "alike"), [("snip", False), ("grasp", False), ("synflow", True)]
)
def test_another_seed_draws_other_images_and_another_mask(method: str, alike: bool) -> None:
    """With the same initial weights; SynFlow needs no images."""
    more = {} if method == "synflow" else {"images_per_class": 2}
    first, again, other = (
        found_by(method, tiny_trainer(seed=seed), density=0.3, **more)[0].mask for seed in (0, 0, 1)
    )
    assert first == again
    assert (first == other) == alike


def labelled(counts: tuple[int, ...], seed: int = 0) -> Trainer:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    inputs = torch.arange(len(labels))[:, None].float()
    data = Dataset.from_tensors(inputs, labels, validation_fraction=0)
    return Trainer(nn.Linear(1, len(counts)), data, TrainingSettings("2it", 8), seed=seed)


def rows_of(part: Part) -> list[int]:
    assert not isinstance(part, StreamingPart)
    return part.inputs.flatten().int().tolist()


def test_as_many_images_of_each_class_are_drawn_or_all_there_are() -> None:
    drawn = scoring_images(labelled((30, 3, 8)), 5)
    assert torch.bincount(drawn.labels).tolist() == [5, 3, 5]
    rows = rows_of(drawn)
    assert len(set(rows)) == 13
    assert [0 if r < 30 else 1 if r < 33 else 2 for r in rows] == drawn.labels.tolist()
    assert drawn.labels.tolist() == [0, 1, 2] * 3 + [0, 2] * 2
    assert rows_of(scoring_images(labelled((30, 3, 8)), 5)) == rows
    assert rows_of(scoring_images(labelled((30, 3, 8), seed=1), 5)) != rows
    assert sorted(rows_of(scoring_images(labelled((30, 3, 8)), 99))) == list(range(41))


def test_a_class_without_training_images_is_passed_over() -> None:
    assert torch.bincount(scoring_images(labelled((4, 0, 4)), 2).labels).tolist() == [2, 0, 2]


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(100, [20]), (20, [20]), (19, [10, 10]), (8, [7, 7, 6])]
)
def test_images_are_scored_in_even_batches_none_larger_than_in_training(
    batch_size: int, sizes: list[int]
) -> None:
    trainer = tiny_trainer(batch_size=batch_size)
    assert [len(y) for _, y in pieces(trainer, scoring_images(trainer, 10))] == sizes


def pictures(folder: Path, resident: bool, settings: DataSettings) -> Trainer:
    """The same eight images, in memory or as files, for a network of one convolution."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
    labels, files = torch.arange(8) % 2, []
    for i, image in enumerate(pixels):
        files.append(folder / f"{i}.png")
        Image.fromarray(image).save(files[-1])
    decoded = Images(torch.from_numpy(pixels), labels)
    train: Part = decoded if resident else StreamingPart(tuple(files), labels, (6, 6), None)
    data = Dataset("pictures", ("a", "b"), train, decoded, decoded)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2))
    return Trainer(model, data, TrainingSettings("2it", 3), settings)


@pytest.mark.parametrize("method", METHODS)
def test_streamed_images_score_as_resident_ones_and_none_is_augmented(
    method: str, tmp_path: Path
) -> None:
    plain = DataSettings(mean=(0.4,), std=(0.2,))
    augmented = DataSettings(mean=(0.4,), std=(0.2,), padding=2, flip=True)
    trainers = [
        pictures(tmp_path, resident, settings)
        for resident in (True, False)
        for settings in (plain, augmented)
    ]
    expected, *others = (scored(trainer, method, 3) for trainer in trainers)
    for found in others:
        assert all(found[name].equal(expected[name]) for name in found)
    if method != "synflow":
        unlike = scored(pictures(tmp_path, True, DataSettings()), method, 3)
        assert not unlike["0.weight"].equal(expected["0.weight"])


class Tokens(nn.Module):
    """tokens int64 [b, 6] -> logits [b, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embedding(tokens)).mean(1))
        return logits


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_tokens_and_attention_is_scored(method: str) -> None:
    torch.manual_seed(0)
    data = Dataset.from_tensors(torch.randint(0, 11, (30, 6)), torch.arange(30) % 3)
    trainer = Trainer(Tokens(), data, TrainingSettings("2it", 8))
    for tensor in scored(trainer, method).values():
        assert bool(tensor.isfinite().all())
        assert tensor.count_nonzero() > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_ticket_is_the_initial_weights_trained_under_its_mask(method: str) -> None:
    ticket, _ = found_by(method, density=0.3)
    assert (ticket.point, ticket.index, ticket.judged) == ("ticket", 0, "retrained")
    assert (ticket.target_density, ticket.rewind_step) == (0.3, 0)
    plain = tiny_trainer()
    plain.fit(plain.masked_step(ticket.mask, 7), stop=7)
    assert ticket.weights is not None and ticket.rewind is not None
    for name, tensor in (plain.group("weights") | plain.group("buffers")).items():
        assert ticket.weights[name].equal(tensor)
    for name, tensor in tiny().state_dict().items():
        assert ticket.rewind[name].equal(tensor)
    (again,) = retrain.search(tiny_trainer(), RetrainSettings(), ticket)
    assert again.weights is not None
    assert all(again.weights[name].equal(ticket.weights[name]) for name in ticket.weights)


PASSES = {"snip": (20, 20, 20), "grasp": (20, 40, 100), "synflow": (0, 5, 5)}


@pytest.mark.parametrize("method", METHODS)
def test_scoring_is_part_of_the_cost(method: str) -> None:
    """Beside a training of 48 images: GraSP goes forward twice and back five times, SynFlow once
    each for every iteration and no image."""
    more = {"iterations": 5} if method == "synflow" else {}
    _, trainer = found_by(method, density=0.3, **more)
    cost, (drawn, forward, backward) = trainer.cost, PASSES[method]
    found = (cost.images, cost.forward_passes, cost.backward_passes)
    assert found == (48 + drawn, 48 + forward, 48 + backward)
    assert cost.flops == trainer.flops_per_image() * (found[1] + 2 * found[2])
    assert cost.epochs == 7 / trainer.steps_per_epoch
    assert cost.seconds > sum(epoch["seconds"] for epoch in trainer.history)
    assert get_method(method).work(get_method(method).settings(), trainer.steps, 0) == 7


def never(*_: object) -> Scores:
    raise AssertionError("scored again")


@pytest.mark.parametrize("stop", [0, 1, 4])
@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_does_not_score_again(
    method: str, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket, trainer = found_by(method, tiny_trainer(torch.float32, 0.5), density=0.3)
    whole = digest([ticket], trainer)
    trainer, path = tiny_trainer(torch.float32, 0.5), tmp_path / "checkpoint.safetensors"
    trainer.hooks = stop_at_question(stop, path)
    with pytest.raises(Paused):
        found_by(method, trainer, density=0.3)
    monkeypatch.setattr(f"lthlib.methods.{method}.scores", never)
    trainer = tiny_trainer(torch.float32, 0.5)
    assert load_checkpoint(trainer, path, "owner")
    ticket, _ = found_by(method, trainer, density=0.3)
    assert digest([ticket], trainer) == whole


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (SNIPSettings, {"density": 0.0}, r"density is 0\.0; expected a kept fraction in \(0, 1\]"),
        (GraSPSettings, {"density": 1.5}, r"density is 1\.5"),
        (SynFlowSettings, {"density": -1.0}, r"density is -1\.0"),
        (
            SNIPSettings,
            {"images_per_class": 0},
            r"snip\.images_per_class is 0; expected at least 1",
        ),
        (GraSPSettings, {"images_per_class": -1}, r"grasp\.images_per_class is -1; expected at"),
        (GraSPSettings, {"temperature": 0.0}, r"grasp\.temperature is 0\.0; expected a positive"),
        (GraSPSettings, {"temperature": float("inf")}, r"grasp\.temperature is inf"),
        (GraSPSettings, {"temperature": float("nan")}, r"grasp\.temperature is nan"),
        (
            GraSPSettings,
            {"structure": "row"},
            r"grasp\.structure is 'row'; expected one of .*filte",
        ),
        (SynFlowSettings, {"iterations": 0}, r"synflow\.iterations is 0; expected at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    kind: type, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises((ConfigError, MaskError), match=expected):
        kind(**settings)


@pytest.mark.parametrize("method", METHODS)
def test_a_density_that_keeps_nothing_is_refused(method: str) -> None:
    with pytest.raises(MaskError, match="keeps none of 147 weights"):
        found_by(method, density=0.003)


def test_the_batch_is_of_training_images() -> None:
    assert len(scoring_images(tiny_trainer(), 100)) == IMAGES
