"""The loop: schedules, SGD, masks, the rewind point, cost, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from lthlib.errors import ConfigError, Diverged, MaskError, Paused
from lthlib.masks import Mask, random_mask
from lthlib.methods import get_method
from lthlib.training import (
    Hooks,
    Network,
    Outcome,
    Trainer,
    TrainingSettings,
    learning_rate,
    network,
    sgd_step,
    steps_of,
)
from tests.training.toys import STEPS_PER_EPOCH, Tiny, batches_of, images, tiny, tiny_trainer


@pytest.mark.parametrize(
    ("length", "steps_per_epoch", "steps"),
    [
        ("85ep", 352, 29_920),
        ("500it", 352, 500),
        ("0it", 352, 0),
        ("0.5ep", 10, 5),
        ("2ep", 1, 2),
    ],
)
def test_a_length_has_a_unit(length: str, steps_per_epoch: int, steps: int) -> None:
    assert steps_of(length, steps_per_epoch) == steps


@pytest.mark.parametrize("length", ["", "85", "1e3it", "2.5it", "-1ep", "3 ep", "ep", "5it\n"])
def test_any_other_length_is_refused(length: str) -> None:
    with pytest.raises(ConfigError, match="expected epochs such as '85ep'"):
        steps_of(length, 10)


def rates(steps: int, steps_per_epoch: int, **settings: object) -> list[float]:
    chosen = TrainingSettings(**settings)  # type: ignore[arg-type]
    return [learning_rate(chosen, t, steps, steps_per_epoch) for t in range(steps)]


def test_the_cosine_falls_over_half_a_period() -> None:
    expected = [0.1, 0.0853553390593, 0.05, 0.0146446609407]
    assert rates(4, 2) == pytest.approx(expected, rel=1e-10)


def test_the_step_schedule_divides_by_ten_at_each_milestone() -> None:
    found = rates(8, 2, schedule="step", milestones=("2ep", "7it"))
    assert found == pytest.approx([0.1] * 4 + [0.01] * 3 + [0.001])


def test_the_constant_schedule_is_constant() -> None:
    assert rates(3, 2, schedule="constant", learning_rate=0.2) == [0.2, 0.2, 0.2]


def test_warm_up_rises_linearly_and_multiplies_the_schedule() -> None:
    found = rates(6, 4, schedule="constant", warmup="1ep")
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    found = rates(4, 2, warmup="2it")
    assert found == pytest.approx([0.05, 0.0853553390593, 0.05, 0.0146446609407], rel=1e-10)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "linear"}, "cosine, step, constant"),
        ({"precision": "fp16"}, "fp32, tf32, bf16"),
        ({"schedule": "step"}, "needs milestones"),
        ({"batch_size": 0}, "at least 1"),
        ({"learning_rate": 0.0}, "a positive number"),
        ({"learning_rate": math.nan}, "a positive number"),
        ({"length": "forever"}, r"training\.length is 'forever'; expected epochs"),
        ({"warmup": "5"}, r"training\.warmup is '5'"),
    ],
)
def test_training_settings_that_make_no_sense_are_refused(
    settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        TrainingSettings(**settings)  # type: ignore[arg-type]


class Layouts(nn.Module):
    """images [b, 1, 5, 5] -> logits [b, 3], through layers whose gradients come in other layouts
    than their weights on some device: depthwise, 1x1, one input channel, one that lies across."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.pointwise = nn.Conv2d(4, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.line = nn.Conv1d(8, 3, 1)
        self.last = nn.Linear(3, 3)
        self.last.weight = nn.Parameter(torch.randn(3, 3).T)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.pointwise(self.depthwise(self.first(x).relu())))
        logits: Tensor = self.last(self.line(x.flatten(2)).squeeze(2)) * self.scale
        return logits


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("dense", {}),
        ("imp", {"rounds": 1}),
        ("cs", {"rewind": "1it", "temperature_per": "step"}),
        ("bip", {"density": 0.5}),
        ("bip", {"density": 0.5, "variant": "release"}),
        ("hydra", {"density": 0.5}),
    ],
)
def test_an_optimiser_is_given_tensors_of_one_layout(
    method: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which torch's fused kernel on a GPU asks of a weight, its gradient and its momentum."""
    plain, seen = network.sgd, []

    def fused(weights: list[Tensor], gradients: list[Tensor], momenta: list[Tensor], **more: Any):
        for tensors in zip(weights, gradients, momenta, strict=True):
            assert len({(tensor.shape, tensor.stride()) for tensor in tensors}) == 1
        seen.append(len(weights))
        plain(weights, gradients, momenta, **more)

    monkeypatch.setattr(network, "sgd", fused)
    chosen = get_method(method)
    training = TrainingSettings("4it", 8)
    model, data = Layouts(), images(torch.float32)
    parent = None
    if chosen.parent == "dense":
        dense = get_method("dense")
        (parent,) = dense.search(Trainer(model, data, training), dense.settings(), None)
    list(chosen.search(Trainer(model, data, training), chosen.settings(**settings), parent))
    assert seen


@given(
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.5, 0.9]),
    st.booleans(),
    st.sampled_from([0.0, 1e-4, 0.1]),
)
def test_sgd_is_torch_s_over_several_steps(
    seed: int, momentum: float, nesterov: bool, weight_decay: float
) -> None:
    nesterov = nesterov and momentum > 0
    draw = torch.Generator().manual_seed(seed)

    def random(count: int) -> list[Tensor]:
        shapes = [(3, 2), (4,)]
        return [
            torch.randn(shape, generator=draw, dtype=torch.float64)
            for _ in range(count)
            for shape in shapes
        ]

    own = random(1)
    reference = [nn.Parameter(tensor.clone()) for tensor in own]
    optimiser = torch.optim.SGD(
        reference,
        lr=0.1,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        foreach=False,
    )
    momenta = [torch.zeros_like(tensor) for tensor in own]
    for rate in (0.1, 0.05, 0.2, 0.01):
        gradients = random(1)
        for parameter, gradient in zip(reference, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        sgd_step(
            *(dict(enumerate(tensors)) for tensors in (own, gradients, momenta)),
            rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
        )
        for tensor, parameter in zip(own, reference, strict=True):
            torch.testing.assert_close(tensor, parameter.detach(), rtol=1e-12, atol=1e-14)


def full_step(trainer: Trainer) -> Callable[..., Outcome]:
    mask = Mask.full(trainer.group("weights"), trainer.names)
    return trainer.masked_step(mask, trainer.steps())


def test_dense_training_is_that_of_an_ordinary_module() -> None:
    """Same data, torch.optim.SGD on the module's own parameters: the same weights, in float64."""
    trainer = tiny_trainer(nesterov=True)
    trainer.fit(full_step(trainer), stop=7)

    model = tiny().train()
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, foreach=False
    )
    for t, (x, y) in enumerate(batches_of(trainer, "train", 7)):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * t / 7))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    expected = model.state_dict()
    found = trainer.group("weights") | trainer.group("buffers")
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)


def test_adamw_is_torch_s_on_an_ordinary_module() -> None:
    options: dict[str, Any] = {"betas": (0.8, 0.99), "weight_decay": 0.1}
    trainer = tiny_trainer(
        optimiser="adamw", learning_rate=0.01, schedule="constant", epsilon=1e-6, **options
    )
    trainer.fit(full_step(trainer), stop=7)

    model = tiny().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-6, foreach=False, **options)
    for x, y in batches_of(trainer, "train", 7):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    found = trainer.group("weights") | trainer.group("buffers")
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


def test_adamw_keeps_pruned_weights_at_zero_and_forgets_what_it_knew_after_a_rewind() -> None:
    trainer = tiny_trainer(optimiser="adamw", learning_rate=0.01)
    trainer.fit(full_step(trainer), stop=2, snapshot_at=1)
    kept = {name: torch.zeros(w.shape) > 0 for name, w in trainer.prunable_weights().items()}
    kept["linear.weight"][0] = True
    trainer.rewind()
    assert trainer.flat("momentum").data.count_nonzero() == 0
    trainer.step = 1
    trainer.fit(trainer.masked_step(Mask(kept), 7), start=1, stop=3)
    assert trainer.state["momentum/step/count"].item() == 2
    for name, mask in kept.items():
        weight = trainer.group("weights")[name]
        assert weight[~mask].count_nonzero() == 0
        assert weight[mask].count_nonzero() == mask.sum()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimiser": "adam"}, "training.optimiser is 'adam'; expected one of sgd, adamw"),
        (
            {"optimiser": "adamw"},
            "training.learning_rate is 0.1, as SGD takes it; expected at most",
        ),
        ({"betas": [0.9]}, "training.betas is .* expected two"),
        ({"epsilon": 0}, "training.epsilon is 0.0; expected a positive number"),
    ],
)
def test_optimisers_that_make_no_sense_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingSettings(**wrong)


def test_a_trainer_leaves_the_model_it_was_given_alone() -> None:
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = Trainer(model, images(), TrainingSettings(batch_size=8))
    trainer.fit(full_step(trainer), stop=2)
    after = model.state_dict()
    assert all(after[name].equal(before[name]) for name in before)
    assert not trainer.group("weights")["conv1.weight"].equal(before["conv1.weight"])


@pytest.mark.parametrize("nesterov", [True, False])
def test_pruned_weights_and_their_momenta_are_exactly_zero_after_every_step(nesterov: bool) -> None:
    trainer = tiny_trainer(nesterov=nesterov)
    trainer.fit(full_step(trainer), stop=2)
    assert trainer.group("momentum")["conv1.weight"].count_nonzero() == 27
    shapes = {name: tensor.shape for name, tensor in trainer.prunable_weights().items()}
    mask = random_mask(shapes, 60, torch.Generator().manual_seed(0))
    step = trainer.masked_step(mask, 7)
    seen = []

    def watched(t: int, *batches: tuple[Tensor, Tensor]) -> Outcome:
        outcome = step(t, *batches)
        for name, kept in mask.items():
            assert trainer.group("weights")[name][~kept].count_nonzero() == 0
            assert trainer.group("momentum")[name][~kept].count_nonzero() == 0
            assert trainer.group("weights")[name][kept].count_nonzero() == kept.sum()
        seen.append(t)
        return outcome

    trainer.fit(watched, start=2, stop=7)
    assert seen == [2, 3, 4, 5, 6]


def test_training_under_a_mask_is_that_of_a_network_without_those_weights() -> None:
    """Gradients through the product with the mask, by autograd, give the same weights."""
    trainer = tiny_trainer()
    shapes = {name: tensor.shape for name, tensor in trainer.prunable_weights().items()}
    mask = random_mask(shapes, 70, torch.Generator().manual_seed(0))
    trainer.fit(trainer.masked_step(mask, 7), stop=4)

    model = tiny().train()
    parameters = dict(model.named_parameters())
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2, foreach=False
    )
    for t, (x, y) in enumerate(batches_of(trainer, "train", 4)):
        optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * t / 7))
        optimiser.zero_grad()
        masked = {n: p * mask[n] if n in mask else p for n, p in parameters.items()}
        nn.functional.cross_entropy(functional_call(model, masked, (x,)), y).backward()
        optimiser.step()
    for name, parameter in parameters.items():
        expected = parameter.detach() * mask[name] if name in mask else parameter.detach()
        found = trainer.group("weights")[name]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def state_of(trainer: Trainer, *groups: str) -> dict[str, Tensor]:
    return {
        f"{group}/{name}": tensor.clone()
        for group in groups
        for name, tensor in trainer.group(group).items()
    }


def identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


@pytest.mark.parametrize("k", [0, 2, 3, 7])
def test_rewinding_brings_back_every_bit(k: int) -> None:
    trainer = tiny_trainer()
    step = full_step(trainer)
    trainer.fit(step, stop=k)
    at_k = state_of(trainer, "weights", "buffers", "momentum")
    if k < 7:
        trainer.fit(step, start=k, stop=7, snapshot_at=k)
    else:
        trainer.step = 0
        trainer = tiny_trainer()
        trainer.fit(full_step(trainer), stop=7, snapshot_at=7)
    trainer.rewind("restored")
    assert identical(state_of(trainer, "weights", "buffers", "momentum"), at_k)
    assert "buffers/bn1.num_batches_tracked" in at_k
    assert int(trainer.group("buffers")["bn1.num_batches_tracked"]) == k


def test_after_a_rewind_training_takes_the_same_path_again() -> None:
    trainer = tiny_trainer()
    step = full_step(trainer)
    trainer.fit(step, stop=7, snapshot_at=2)
    first = state_of(trainer, "weights", "buffers", "momentum")
    trainer.rewind("restored")
    trainer.round, trainer.step = 1, 0
    trainer.fit(step, start=2, stop=7)
    assert identical(state_of(trainer, "weights", "buffers", "momentum"), first)


def test_a_fresh_optimiser_begins_with_zero_momenta_and_takes_another_path() -> None:
    trainer = tiny_trainer()
    step = full_step(trainer)
    trainer.fit(step, stop=7, snapshot_at=2)
    first = state_of(trainer, "weights")
    trainer.rewind("fresh")
    assert all(tensor.count_nonzero() == 0 for tensor in trainer.group("momentum").values())
    trainer.step = 0
    trainer.fit(step, start=2, stop=7)
    assert not identical(state_of(trainer, "weights"), first)


def test_randomness_inside_the_network_depends_on_the_step_alone() -> None:
    def trained(disturb: bool) -> dict[str, Tensor]:
        trainer = tiny_trainer(dropout=0.5)
        step = full_step(trainer)

        def disturbed(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
            outcome = step(t, batch)
            torch.rand(3)
            return outcome

        trainer.fit(disturbed if disturb else step, stop=5)
        return state_of(trainer, "weights")

    before = torch.get_rng_state()
    assert identical(trained(False), trained(True))
    assert torch.get_rng_state().equal(before)


def test_dropout_draws_anew_at_every_step() -> None:
    trainer = tiny_trainer(dropout=0.5)
    drawn = []

    def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        drawn.append(torch.rand(4).tolist())
        return Outcome(torch.tensor(0.0), torch.tensor(0), 8, 8, 8)

    trainer.fit(step, stop=3)
    assert len({tuple(values) for values in drawn}) == 3


def losing(losses: dict[int, float], seen: list[int]) -> Callable[..., Outcome]:
    def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        seen.append(t)
        loss = torch.tensor(losses.get(t, 1.0))
        return Outcome(loss, torch.tensor(0), 8, 8, 8)

    return step


@pytest.mark.parametrize(
    ("losses", "first"),
    [
        ({1: math.nan, 2: math.inf}, 1),
        ({4: math.inf, 5: math.nan}, 4),
        ({6: math.nan}, 6),
        ({0: -math.inf}, 0),
    ],
)
def test_a_loss_that_is_not_finite_is_named_by_its_first_step(
    losses: dict[int, float], first: int
) -> None:
    trainer = tiny_trainer()
    seen: list[int] = []
    with pytest.raises(Diverged, match=rf"NaN or infinite at step {first};"):
        trainer.fit(losing(losses, seen), stop=7)
    # Read once an epoch: the epoch is finished first.
    assert seen[-1] == min(6, (first // STEPS_PER_EPOCH + 1) * STEPS_PER_EPOCH - 1)


def test_a_real_divergence_is_found_at_the_step_where_it_happens() -> None:
    trainer = tiny_trainer(torch.float32, learning_rate=1e30, schedule="constant")
    step = full_step(trainer)
    losses = []

    def watched(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        outcome = step(t, batch)
        losses.append(float(outcome.loss))
        return outcome

    with pytest.raises(Diverged) as raised:
        trainer.fit(watched, stop=7)
    first = next(t for t, loss in enumerate(losses) if not math.isfinite(loss))
    assert f"at step {first};" in str(raised.value)


def test_scores_that_cannot_be_ranked_are_a_divergence() -> None:
    def step(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        if t == 2:
            raise MaskError("cannot rank scores that hold NaN")
        return Outcome(torch.tensor(1.0), torch.tensor(0), 8, 8, 8)

    with pytest.raises(Diverged, match="step 2: cannot rank scores that hold NaN"):
        tiny_trainer().fit(step, stop=7)


@pytest.mark.parametrize(
    ("as_a_whole", "bn1", "moves"), [(True, True, 2), (False, False, 2), (True, False, 0)]
)
def test_a_part_in_evaluation_mode_stays_there_in_a_network_that_is_not(
    as_a_whole: bool, bn1: bool, moves: int
) -> None:
    model = tiny().train(as_a_whole)
    model.bn1.train(bn1)
    trainer = Trainer(model, images(), TrainingSettings("7it", 8))
    trainer.fit(full_step(trainer), stop=1)
    trainer.evaluate("test", trainer.group("weights"), trainer.group("buffers"))
    trainer.fit(full_step(trainer), start=1, stop=2)
    buffers = trainer.group("buffers")
    assert int(buffers["bn1.num_batches_tracked"]) == moves
    assert int(buffers["bn2.num_batches_tracked"]) == 2
    gathered = trainer.gather_statistics(trainer.group("weights"))
    assert gathered["bn1.running_mean"].equal(buffers["bn1.running_mean"]) == (moves == 0)
    assert not gathered["bn2.running_mean"].equal(buffers["bn2.running_mean"])


def test_evaluation_is_in_evaluation_mode() -> None:
    trainer = tiny_trainer(dropout=0.9)
    trainer.fit(full_step(trainer), stop=4)
    weights, buffers = trainer.group("weights"), trainer.group("buffers")
    statistics = {name: tensor.clone() for name, tensor in buffers.items()}
    model = Tiny(0.9).double()
    model.load_state_dict(weights | buffers)
    model.eval()
    for part in ("validation", "test"):
        held_out = getattr(trainer.dataset, part)
        with torch.no_grad():
            right = (model(held_out.inputs).argmax(1) == held_out.labels).sum()
        assert trainer.evaluate(part, weights, buffers) == pytest.approx(100 * int(right) / 6)
    assert all(buffers[name].equal(statistics[name]) for name in buffers)


def test_an_empty_part_has_no_accuracy() -> None:
    data = images()
    trainer = tiny_trainer()
    trainer.dataset = type(data)(
        data.name, data.classes, data.train, data.train.select(torch.arange(0)), data.test
    )
    assert (
        trainer.evaluate("validation", trainer.group("weights"), trainer.group("buffers")) is None
    )
    assert trainer.evaluate("test", trainer.group("weights"), trainer.group("buffers")) is not None


TINY_FLOPS = 2 * (3 * 9 * 25 + 4 * 27 * 9 + 4 * 3)


def test_operations_are_two_for_each_multiply_add() -> None:
    assert tiny_trainer().flops_per_image() == TINY_FLOPS


def test_operations_of_a_transformer_are_counted_in_full() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Linear(4, 8), layer, nn.Flatten(1), nn.Linear(40, 3))
    projections = 5 * (8 * 24 + 8 * 8 + 2 * 8 * 16)
    counted = Network(model).flops_per_image(torch.zeros(2, 5, 4))
    # The products inside attention may or may not be counted, by backend.
    assert counted >= 2 * (5 * 4 * 8 + projections + 40 * 3)


def test_cost_counts_what_was_drawn_and_passed() -> None:
    trainer = tiny_trainer()
    trainer.fit(full_step(trainer), stop=7)
    cost = trainer.cost
    images_drawn = 8 + 8 + 4 + 8 + 8 + 4 + 8
    assert cost.images == cost.forward_passes == cost.backward_passes == images_drawn
    assert cost.epochs == 7 / 3
    assert cost.flops == TINY_FLOPS * 3 * images_drawn
    assert cost.seconds > 0
    assert trainer.passes == images_drawn


def test_the_history_has_a_line_an_epoch() -> None:
    trainer = tiny_trainer()
    reported = []
    step = full_step(trainer)

    def watched(t: int, batch: tuple[Tensor, Tensor]) -> Outcome:
        outcome = step(t, batch)
        reported.append((float(outcome.loss), int(outcome.correct)))
        return outcome

    trainer.fit(watched, stop=7)
    assert [(line["round"], line["step"]) for line in trainer.history] == [(0, 3), (0, 6), (0, 7)]
    first = trainer.history[0]
    assert first["loss"] == pytest.approx(sum(loss for loss, _ in reported[:3]) / 3, rel=1e-6)
    assert first["train_accuracy"] == 100 * sum(right for _, right in reported[:3]) / 20


@pytest.mark.parametrize("stops", [(1,), (1, 2), (4, 5, 6), (0, 3)])
def test_interruptions_change_neither_weights_nor_cost(stops: tuple[int, ...]) -> None:
    whole = tiny_trainer(dropout=0.5)
    whole.fit(full_step(whole), stop=7)

    trainer = tiny_trainer(dropout=0.5)
    saved = []
    for stop in stops:
        trainer.hooks = Hooks(
            should_stop=lambda t, stop=stop: t.step == stop,  # type: ignore[misc]
            save=lambda t: saved.append(t.step),
        )
        with pytest.raises(Paused, match=f"before step {stop} of round 0"):
            trainer.fit(full_step(trainer), stop=7)
    trainer.hooks = Hooks()
    trainer.fit(full_step(trainer), stop=7)
    assert saved == list(stops)
    assert identical(trainer.state, whole.state)
    whole.cost.seconds = trainer.cost.seconds = 0.0
    assert trainer.cost == whole.cost


def test_checkpoints_are_saved_when_they_are_due() -> None:
    trainer = tiny_trainer()
    saved: list[tuple[int, int]] = []
    trainer.hooks = Hooks(due=lambda: True, save=lambda t: saved.append((t.round, t.step)))
    for _ in trainer.rounds(2):
        trainer.fit(full_step(trainer), stop=7)
    assert saved == [(0, 3), (0, 6), (1, 0), (1, 3), (1, 6), (2, 0)]


def test_data_keep_the_precision_of_the_network() -> None:
    for dtype in (torch.float32, torch.float64):
        trainer = tiny_trainer(dtype)
        assert next(trainer.batches("train").stream())[0].dtype == dtype
        assert next(iter(trainer.in_order(trainer.dataset.test)))[0].dtype == dtype


def test_half_precision_arithmetic_keeps_weights_in_single() -> None:
    trainer = tiny_trainer(torch.float32, precision="bf16")
    trainer.fit(full_step(trainer), stop=3)
    assert {tensor.dtype for tensor in trainer.group("weights").values()} == {torch.float32}
    exact = tiny_trainer(torch.float32)
    exact.fit(full_step(exact), stop=3)
    a, b = trainer.group("weights")["conv1.weight"], exact.group("weights")["conv1.weight"]
    assert not a.equal(b)
    torch.testing.assert_close(a, b, rtol=0.2, atol=0.05)


def test_a_mask_for_another_network_is_refused_before_training() -> None:
    trainer = tiny_trainer()
    with pytest.raises(MaskError, match=r"covers 'head\.weight'"):
        trainer.masked_step(Mask({"head.weight": torch.ones(3, dtype=torch.bool)}), 7)
