"""Bi-level pruning: the hypergradient, the alternation, and the released program."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lthlib.errors import ConfigError
from lthlib.flat import Flat
from lthlib.masks import Mask, kept_groups, top_k_global
from lthlib.methods.bip import (
    DEPARTURES,
    Alternation,
    BiPSettings,
    clip_norm,
    search,
    upper_gradient,
)
from lthlib.tickets import Ticket
from lthlib.training import Trainer
from tests.training.toys import batches_of, dense_parent, tiny, tiny_trainer

DOUBLE = torch.float64


def magnitude_mask(weights: Mapping[str, Tensor], names: tuple[str, ...], kept: int) -> Mask:
    return top_k_global({name: weights[name].abs() for name in names}, kept)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def test_bilinearity() -> None:
    """With z = m * theta: theta * dl/dtheta = m * dl/dm, and the mixed second derivative."""
    mask, theta = random(6, seed=1).requires_grad_(), random(6, seed=2).requires_grad_()
    mixing = random(6, 6, seed=3)

    def loss(z: Tensor) -> Tensor:
        return (mixing @ z).tanh().square().sum()

    by_mask, by_theta = torch.autograd.grad(loss(mask * theta), (mask, theta), create_graph=True)
    torch.testing.assert_close(theta * by_theta, mask * by_mask, rtol=1e-12, atol=1e-13)
    z = (mask * theta).detach()
    gradient = torch.autograd.functional.jacobian(loss, z)
    hessian = torch.autograd.functional.hessian(loss, z)
    mixed = torch.stack([torch.autograd.grad(g, theta, retain_graph=True)[0] for g in by_mask])
    expected = torch.diag(gradient) + torch.diag(theta.detach()) @ hessian @ torch.diag(
        mask.detach()
    )
    torch.testing.assert_close(mixed, expected, rtol=1e-10, atol=1e-12)


class Quadratic:
    """Lower level l = 0.5 (z - a)' A (z - a) + gamma/2 |theta|^2, solved exactly."""

    def __init__(self, gamma: float, mask: Tensor, matrix: Tensor | None = None) -> None:
        n = len(mask)
        root = random(n, n, seed=4)
        self.matrix = root @ root.T / n if matrix is None else matrix
        self.target, self.gamma, self.mask = random(n, seed=5), gamma, mask

    def theta(self, mask: Tensor) -> Tensor:
        d = torch.diag(mask)
        ridge = self.gamma * torch.eye(len(mask), dtype=DOUBLE)
        return torch.linalg.solve(d @ self.matrix @ d + ridge, d @ self.matrix @ self.target)

    def gradient(self) -> Tensor:
        return self.matrix @ (self.mask * self.theta(self.mask) - self.target)

    def jacobian(self) -> Tensor:
        found: Tensor = torch.autograd.functional.jacobian(self.theta, self.mask)
        return found

    def hypergradient(self) -> Tensor:
        mask = self.mask.clone().requires_grad_()
        z = mask * self.theta(mask)
        loss = 0.5 * (z - self.target) @ self.matrix @ (z - self.target)
        return torch.autograd.grad(loss, mask)[0]


def test_the_implicit_function_theorem_on_a_quadratic() -> None:
    problem = Quadratic(2.0, random(12, seed=6))
    d, theta = torch.diag(problem.mask), problem.theta(problem.mask)
    hessian = d @ problem.matrix @ d + 2.0 * torch.eye(12, dtype=DOUBLE)
    mixed = torch.diag(problem.gradient()) + torch.diag(theta) @ problem.matrix @ d
    expected = -torch.linalg.solve(hessian, mixed.T)
    torch.testing.assert_close(problem.jacobian(), expected, rtol=1e-10, atol=1e-12)


def test_the_error_of_the_hessian_free_gradient_falls_as_one_over_gamma() -> None:
    errors = []
    for gamma in (1e2, 1e3, 1e4, 1e5):
        problem = Quadratic(gamma, random(12, seed=6))
        estimate = upper_gradient(
            problem.theta(problem.mask), problem.gradient(), problem.mask, 1 / gamma
        )
        exact = problem.hypergradient()
        errors.append(float((estimate - exact).norm() / exact.norm()))
    slopes = [math.log10(b / a) for a, b in itertools.pairwise(errors)]
    assert slopes == pytest.approx([-1, -1, -1], abs=0.05)


def test_the_hessian_free_derivative_of_a_weight_has_the_wrong_sign_when_gamma_is_small() -> None:
    """Diagonal A: estimate / exact = (gamma + m^2 h) / (gamma - m^2 h)."""
    mask, curvature = random(5, seed=7), random(5, seed=8).abs()
    for gamma, signs in ((50.0, {1.0}), (0.05, {1.0, -1.0})):
        problem = Quadratic(gamma, mask, torch.diag(curvature))
        gradient = problem.gradient()
        # What the estimate adds for the change of a weight, over the gradient it is weighed with.
        estimate = upper_gradient(0 * mask, gradient, mask, 1 / gamma) / (mask * gradient)
        bend = mask**2 * curvature
        ratio = estimate / problem.jacobian().diagonal()
        torch.testing.assert_close(ratio, (gamma + bend) / (gamma - bend), rtol=1e-8, atol=1e-10)
        assert set(ratio.sign().tolist()) == signs


def test_the_hessian_free_hypergradient_keeps_its_sign_but_is_too_large() -> None:
    """Diagonal A: estimate / exact = (gamma + m^2 h) / gamma."""
    mask, curvature, gamma = random(5, seed=7), random(5, seed=8).abs(), 0.05
    problem = Quadratic(gamma, mask, torch.diag(curvature))
    estimate = upper_gradient(problem.theta(mask), problem.gradient(), mask, 1 / gamma)
    ratio = estimate / problem.hypergradient()
    torch.testing.assert_close(ratio, (gamma + mask**2 * curvature) / gamma)


def test_on_a_linear_loss_the_hessian_free_gradient_is_exact() -> None:
    mask, slope, gamma = random(7, seed=1), random(7, seed=2), 3.0
    theta = -mask * slope / gamma
    expected = -2 / gamma * mask * slope**2
    torch.testing.assert_close(upper_gradient(theta, slope, mask, 1 / gamma), expected)


def test_one_backward_pass_is_enough() -> None:
    """grad_m - (1/gamma) grad_z * grad_theta, each by its own backward pass."""
    mask = (random(8, seed=1) > 0).double().requires_grad_()
    theta, mixing = random(8, seed=2).requires_grad_(), random(8, 8, seed=3)
    z = mask * theta
    loss = (mixing @ z).sin().sum()
    by_mask, by_theta, by_z = torch.autograd.grad(loss, (mask, theta, z))
    for inverse_gamma in (0.0, 0.01, 1.0):
        expected = by_mask - inverse_gamma * by_z * by_theta
        found = upper_gradient(theta.detach(), by_z, mask.detach(), inverse_gamma)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_at_the_exact_lower_optimum_kept_weights_rank_by_magnitude_and_pruned_ones_rest() -> None:
    mask = (random(12, seed=9) > 0).double()
    problem = Quadratic(0.7, mask)
    theta = problem.theta(mask)
    found = upper_gradient(theta, problem.gradient(), mask, 1 / 0.7)
    torch.testing.assert_close(found, -2 * 0.7 * theta**2 * mask, rtol=1e-10, atol=1e-12)
    pruned = mask == 0
    assert theta[pruned].abs().max() == 0
    assert found[pruned].abs().max() == 0
    assert problem.hypergradient()[pruned].abs().max() < 1e-12


def test_clipping_bounds_the_joint_norm_and_keeps_the_direction() -> None:
    gradients = Flat.of({"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])})
    clip_norm(gradients, 1.0)
    assert gradients["a"].tolist() == pytest.approx([0.6, 0.0])
    assert gradients["b"].tolist() == [pytest.approx([0.8])]
    clip_norm(gradients, 10.0)
    assert gradients["b"].item() == pytest.approx(0.8)


def prepared(settings: BiPSettings) -> Trainer:
    """A trainer as `search` leaves it before the first step."""
    parent = dense_parent(tiny_trainer())
    trainer = tiny_trainer()
    trainer.hooks.should_stop = lambda trainer: True
    with pytest.raises(Exception, match="before step 0"):
        list(search(trainer, settings, parent))
    trainer.hooks.should_stop = lambda trainer: False
    return trainer


def test_scores_begin_as_a_copy_of_the_magnitudes() -> None:
    trainer = prepared(BiPSettings(0.3))
    weights, scores, masks = (trainer.group(g) for g in ("weights", "scores", "masks"))
    assert list(scores) == list(trainer.names)
    for name, score in scores.items():
        assert score.equal(weights[name].abs())
        assert score.untyped_storage().data_ptr() != weights[name].untyped_storage().data_ptr()
    flat = torch.cat([weights[name].abs().flatten() for name in scores])
    smallest = flat.sort(descending=True).values[43]
    assert sum(int(mask.sum()) for mask in masks.values()) == 44  # 0.3 of 147
    for name, mask in masks.items():
        assert mask.equal(weights[name].abs() >= smallest)


def test_the_lower_step_moves_no_score_and_the_upper_step_nothing_else() -> None:
    """Seen from inside: the network is asked for gradients once in each level."""
    trainer = prepared(BiPSettings(0.3, clip=0.0))
    before = {name: tensor.clone() for name, tensor in trainer.state.items()}
    seen = []
    gradients = trainer.network.gradients

    def watched(*arguments: object) -> object:
        seen.append({name: tensor.clone() for name, tensor in trainer.state.items()})
        return gradients(*arguments)  # type: ignore[arg-type]

    trainer.network.gradients = watched  # type: ignore[assignment,method-assign]
    trainer.fit(Alternation(trainer, BiPSettings(0.3), 7), stop=1, streams=("lower-0", "upper"))
    start, middle = seen
    after = trainer.state
    upper = ("scores/", "score_momentum/", "masks/")
    for name in after:
        assert start[name].equal(before[name])
        if name.startswith(upper):
            assert middle[name].equal(before[name]), name
        else:
            assert after[name].equal(middle[name]), name
    assert not middle["weights/conv1.weight"].equal(before["weights/conv1.weight"])
    assert not middle["weights/bn1.weight"].equal(before["weights/bn1.weight"])
    assert not middle["buffers/bn1.running_mean"].equal(before["buffers/bn1.running_mean"])
    assert int(after["buffers/bn1.num_batches_tracked"]) == 8  # 7 of the dense run
    assert not after["scores/conv1.weight"].equal(before["scores/conv1.weight"])


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("lower_steps", [1, 2])
def test_alternations_are_those_of_autograd(implicit: bool, lower_steps: int) -> None:
    """Both levels by torch.optim.SGD and separate backward passes through a mask variable."""
    settings = BiPSettings(
        0.4, gamma=2.0, implicit=implicit, lower_learning_rate=0.05, upper_learning_rate=0.2,
        upper_momentum=0.8, lower_steps=lower_steps,
    )  # fmt: skip
    parent = dense_parent(tiny_trainer())
    trainer = tiny_trainer()
    (ticket,) = search(trainer, settings, parent)

    model = parent.apply(tiny()).train()
    parameters = dict(model.named_parameters())
    names = trainer.names
    scores = {n: nn.Parameter(parameters[n].detach().abs()) for n in names}
    lower = torch.optim.SGD(
        model.parameters(), lr=1, momentum=0.9, nesterov=True, weight_decay=1e-2, foreach=False
    )
    upper = torch.optim.SGD(scores.values(), lr=1, momentum=0.8, foreach=False)

    def top(count: int) -> dict[str, Tensor]:
        flat = torch.cat([score.detach().flatten() for score in scores.values()])
        chosen = torch.zeros_like(flat)
        chosen[flat.argsort(descending=True, stable=True)[:count]] = 1
        parts = chosen.split([score.numel() for score in scores.values()])
        return {n: part.view_as(scores[n]) for n, part in zip(scores, parts, strict=True)}

    masks = top(59)  # 0.4 of 147 is 58.8
    streams = [batches_of(trainer, f"lower-{i}", 7) for i in range(lower_steps)]
    for t, (x_up, y_up) in enumerate(batches_of(trainer, "upper", 7)):
        shape = 0.5 * (1 + math.cos(math.pi * t / 7))
        lower.param_groups[0]["lr"] = 0.05 * shape
        upper.param_groups[0]["lr"] = 0.2 * shape
        for stream in streams:
            x, y = stream[t]
            lower.zero_grad()
            thin = parameters | {n: parameters[n] * masks[n] for n in names}
            nn.functional.cross_entropy(functional_call(model, thin, (x,)), y).backward()
            lower.step()
        statistics = {n: b.clone() for n, b in model.named_buffers()}
        variables = {n: mask.clone().requires_grad_() for n, mask in masks.items()}
        products = {n: parameters[n] * variables[n] for n in names}
        logits = functional_call(model, parameters | products | statistics, (x_up,))
        loss = nn.functional.cross_entropy(logits, y_up)
        chain = [*variables.values(), *products.values(), *(parameters[n] for n in names)]
        found = torch.autograd.grad(loss, chain)
        k = len(names)
        for i, name in enumerate(names):
            by_mask, by_product, by_theta = found[i], found[k + i], found[2 * k + i]
            implicit_term = by_product * by_theta / 2.0 if implicit else 0.0
            scores[name].grad = by_mask - implicit_term
        upper.step()
        masks = top(59)
    for name, parameter in parameters.items():
        stored = trainer.group("weights")[name]
        torch.testing.assert_close(stored, parameter.detach(), rtol=1e-9, atol=1e-12)
    for name, score in scores.items():
        torch.testing.assert_close(
            trainer.group("scores")[name], score.detach(), rtol=1e-9, atol=1e-12
        )
        assert ticket.mask[name].equal(masks[name].bool())
    torch.testing.assert_close(
        trainer.group("buffers")["bn1.running_var"], model.bn1.running_var, rtol=1e-9, atol=1e-12
    )


def test_a_search_keeps_exactly_the_density_and_changes_the_mask() -> None:
    parent = dense_parent(tiny_trainer())
    trainer = tiny_trainer()
    # The upper level alone decides: a large rate, so that the mask moves in 7 steps.
    (ticket,) = search(trainer, BiPSettings(0.2, upper_learning_rate=5.0), parent)
    assert ticket.mask.kept == 29
    assert ticket.target_density == 0.2
    assert (ticket.judged, ticket.point) == ("found", "ticket")
    assert parent.weights is not None
    first = magnitude_mask(parent.weights, trainer.names, 29)
    assert 0 < ticket.mask.overlap(first) < 1
    effective = trainer.group("weights") | {
        n: trainer.group("weights")[n] * kept for n, kept in ticket.mask.items()
    }
    for name, tensor in effective.items():
        assert ticket.weights is not None
        assert ticket.weights[name].equal(tensor)


def test_a_frozen_upper_level_keeps_the_magnitude_mask() -> None:
    parent = dense_parent(tiny_trainer())
    trainer = tiny_trainer()
    (ticket,) = search(trainer, BiPSettings(0.2, upper_learning_rate=0.0), parent)
    assert parent.weights is not None
    assert ticket.mask == magnitude_mask(parent.weights, trainer.names, 29)


def test_the_base_is_what_this_run_may_prune_not_what_its_parent_could() -> None:
    parent = dense_parent(tiny_trainer())
    trainer = tiny_trainer()
    narrow = Trainer(trainer.model, trainer.dataset, trainer.settings, prunable=("conv2.weight",))
    (ticket,) = search(narrow, BiPSettings(0.25), parent)
    assert ticket.mask.layers() == {"conv2.weight": (27, 108)}


def test_the_two_levels_draw_different_batches() -> None:
    trainer = tiny_trainer()
    lower, upper = batches_of(trainer, "lower-0", 3), batches_of(trainer, "upper", 3)
    assert not any(
        a.shape == b.shape and a.equal(b) for (a, _), (b, _) in zip(lower, upper, strict=True)
    )


def test_cost_counts_both_levels() -> None:
    for settings, forward, backward in (
        (BiPSettings(0.3), 2, 2),
        (BiPSettings(0.3, lower_steps=2), 3, 3),
        (BiPSettings(0.3, variant="release"), 4, 3),
    ):
        trainer = tiny_trainer(length="6it")
        list(search(trainer, settings, dense_parent(tiny_trainer())))
        drawn = 3 if settings.lower_steps == 2 else 2
        assert trainer.cost.images == 40 * drawn
        assert trainer.cost.forward_passes == 40 * forward
        assert trainer.cost.backward_passes == 40 * backward
        assert trainer.cost.epochs == 2.0


def test_a_search_that_diverges_says_so() -> None:
    parent = dense_parent(tiny_trainer(torch.float32))
    trainer = tiny_trainer(torch.float32, schedule="constant")
    settings = BiPSettings(0.3, lower_learning_rate=1e38, upper_learning_rate=1e38)
    with pytest.raises(Exception, match="step 0: cannot rank scores that hold NaN"):
        list(search(trainer, settings, parent))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gamma": 0.0}, r"bip\.gamma is 0\.0; expected a positive number"),
        ({"lower_learning_rate": 0.0}, r"lower_learning_rate is 0\.0; expected a positive"),
        ({"upper_learning_rate": -0.1}, r"upper_learning_rate is -0\.1; expected 0 or more"),
        ({"clip": -1.0}, r"clip is -1\.0; expected 0 or more"),
        ({"lower_steps": 0}, "lower_steps is 0; expected at least 1"),
        ({"variant": "fast"}, "paper, release"),
        ({"weight_decay": -1.0}, "0 or more"),
        ({"structure": "row"}, "unstructured, filter, channel"),
        ({"upper_at": "weights"}, "mask, scores"),
        ({"switched": ("aliasing",)}, "expected one of aliased, signed"),
        ({"switched": ("signed",), "variant": "release"}, "undo both"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        BiPSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("density", [0.0, 1.5, -1.0])
def test_a_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(ConfigError, match=r"\(0, 1\]"):
        BiPSettings(density)


class StraightThrough(torch.autograd.Function):
    """For the released program: |s| -> the mask of the largest; the gradient passes unchanged."""

    @staticmethod
    def forward(context: object, magnitude: Tensor, threshold: Tensor) -> Tensor:
        return (magnitude >= threshold).to(magnitude.dtype)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient, None


class Released:
    """The released program with real parameters: scores that alias weights, two optimisers."""

    def __init__(
        self, weights: dict[str, Tensor], names: tuple[str, ...], kept: int, dtype: torch.dtype
    ) -> None:
        self.model, self.names, self.kept = tiny(dtype), names, kept
        self.model.load_state_dict(weights)
        self.model.train()
        self.parameters = dict(self.model.named_parameters())
        self.scores = {n: nn.Parameter(self.parameters[n].detach()) for n in names}
        both: list[nn.Parameter] = []
        for name, parameter in self.parameters.items():
            both.append(parameter)
            if name in names:
                self.scores[name].data = parameter.data  # one storage, as in the release
                both.append(self.scores[name])
        options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "foreach": False}
        self.lower = torch.optim.SGD(both, **options)  # type: ignore[arg-type]
        self.upper = torch.optim.SGD(both, **options)  # type: ignore[arg-type]
        self.both = both

    def freeze(self, *, scores: bool, weights: bool) -> None:
        for score in self.scores.values():
            score.requires_grad_(not scores)
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(not weights or name.startswith("bn"))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        flat = torch.cat([score.detach().abs().flatten() for score in self.scores.values()])
        threshold = flat.sort(descending=True).values[self.kept - 1]
        thin = {
            n: self.parameters[n] * StraightThrough.apply(self.scores[n].abs(), threshold)
            for n in self.names
        }
        logits = functional_call(self.model, {**self.parameters, **thin}, (x,))
        return nn.functional.cross_entropy(logits, y)

    def gradients(self) -> list[Tensor]:
        return [p.grad.clone() for p in self.both if p.grad is not None]

    def alternate(self, low: tuple[Tensor, Tensor], up: tuple[Tensor, Tensor]) -> None:
        self.freeze(scores=True, weights=False)
        self.lower.zero_grad(set_to_none=False)
        self.loss(*low).backward()
        self.lower.step()

        self.freeze(scores=False, weights=False)
        self.lower.zero_grad(set_to_none=False)
        self.loss(*up).backward()
        first = self.gradients()
        self.freeze(scores=False, weights=True)
        self.upper.zero_grad(set_to_none=False)
        self.loss(*up).backward()
        for parameter, a, b in zip(self.both, first, self.gradients(), strict=True):
            assert parameter.grad is not None
            parameter.grad.add_(-0.05 * a * b)
        self.upper.step()
        with torch.no_grad():
            self.loss(*up)


@pytest.mark.parametrize(
    ("dtype", "steps", "close"), [(DOUBLE, 20, 1e-9), (torch.float32, 3, 1e-5)]
)
def test_the_release_variant_is_the_released_program(
    dtype: torch.dtype, steps: int, close: float
) -> None:
    """Twenty alternations over seven epochs against the program above, in float64; and the first
    three in float32."""
    settings = BiPSettings(0.3, variant="release", implicit_rate=0.05, upper_learning_rate=7.0)
    parent = dense_parent(tiny_trainer(dtype))
    trainer = tiny_trainer(dtype, length=f"{steps}it")
    (ticket,) = search(trainer, settings, parent)

    assert parent.weights is not None
    released = Released(parent.weights, trainer.names, 45, dtype)  # 147 - int(0.7 * 147)
    lows, ups = (batches_of(trainer, stream, steps) for stream in ("lower-0", "upper"))
    epochs = math.ceil(steps / 3)
    for t, (low, up) in enumerate(zip(lows, ups, strict=True)):
        epoch = t // 3
        cosine = 0.1 * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / epochs))
        released.lower.param_groups[0]["lr"] = cosine
        drops = (epoch >= epochs / 2) + (epoch >= 3 * epochs / 4)
        released.upper.param_groups[0]["lr"] = 0.1 * 0.1**drops
        released.alternate(low, up)
    options = {"rtol": close, "atol": close / 1000}
    for name, parameter in released.parameters.items():
        found = trainer.group("weights")[name]
        torch.testing.assert_close(found, parameter.detach(), **options)
    for name, buffer in released.model.named_buffers():
        torch.testing.assert_close(trainer.group("buffers")[name], buffer, **options)
    assert int(trainer.group("buffers")["bn1.num_batches_tracked"]) == 7 + 4 * steps
    assert ticket.mask.kept == 45
    assert ticket.mask == magnitude_mask(trainer.group("weights"), trainer.names, 45)


def path(**settings: Any) -> tuple[list[Tensor], Ticket]:
    """Where a search from one dense network ends: weights, statistics, momenta, and the ticket."""
    trainer = tiny_trainer()
    chosen = {"density": 0.3, "upper_learning_rate": 0.5, "implicit_rate": 0.05} | settings
    (ticket,) = search(trainer, BiPSettings(**chosen), dense_parent(tiny_trainer()))
    groups = [trainer.group(name) for name in ("weights", "buffers", "momentum")]
    return [tensor for group in groups for tensor in group.values()], ticket


def same(one: tuple[list[Tensor], Ticket], other: tuple[list[Tensor], Ticket]) -> bool:
    equal = all(a.equal(b) for a, b in zip(one[0], other[0], strict=True))
    return equal and one[1].mask == other[1].mask


def test_all_departures_together_are_the_release_and_without_them_it_is_the_paper() -> None:
    every = tuple(DEPARTURES)
    assert same(path(switched=every), path(variant="release"))
    assert same(path(variant="release", switched=every), path())


@pytest.mark.parametrize("variant", ["paper", "release"])
@pytest.mark.parametrize("departure", DEPARTURES)
def test_each_departure_changes_the_path_from_either_end(variant: str, departure: str) -> None:
    base, rate = (), 0.5
    if departure == "signed":
        # It shows once a score passes 0, which takes large steps; and `aliased` brings it back.
        base, rate = ("aliased", "mask-rate") if variant == "release" else (), 5.0
    before = path(variant=variant, switched=base, upper_learning_rate=rate)
    after = path(variant=variant, switched=(*base, departure), upper_learning_rate=rate)
    assert not same(before, after)


def test_the_alternation_may_decay_its_weights_otherwise_than_the_recipe() -> None:
    assert same(path(weight_decay=1e-2), path())  # the recipe's
    assert not same(path(weight_decay=0.0), path())
    assert not same(path(weight_decay=0.0, variant="release"), path(variant="release"))


def test_scores_as_the_mask_of_the_upper_level() -> None:
    """A4 as printed: one step by autograd, m = s."""
    settings = BiPSettings(0.3, upper_at="scores", gamma=2.0, upper_learning_rate=0.5)
    trainer = prepared(settings)
    weights = {n: w.clone() for n, w in trainer.group("weights").items()}
    trainer.fit(Alternation(trainer, settings, 7), stop=1, streams=("lower-0", "upper"))
    # The lower level has moved; the upper one is looked at from where it left the weights.
    now = trainer.group("weights")
    assert not now["conv1.weight"].equal(weights["conv1.weight"])
    ((x, y),) = batches_of(trainer, "upper", 1)
    model = tiny().train()
    begun = {n: w.abs() for n, w in weights.items() if n in trainer.names}
    m = {n: s.clone().requires_grad_() for n, s in begun.items()}
    theta = {n: now[n].clone().requires_grad_() for n in m}
    z = {n: m[n] * theta[n] for n in m}
    loss = nn.functional.cross_entropy(functional_call(model, {**now, **z}, (x,)), y)
    found = torch.autograd.grad(loss, [*m.values(), *theta.values(), *z.values()])
    k = len(m)
    for i, (name, score) in enumerate(begun.items()):
        by_m, by_theta, by_z = found[i], found[k + i], found[2 * k + i]
        expected = score - 0.5 * (by_m - by_z * by_theta / 2.0)
        torch.testing.assert_close(trainer.group("scores")[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("structure", ["filter", "channel"])
def test_structured_masks_keep_whole_groups_of_every_convolution(structure: str) -> None:
    trainer = tiny_trainer()
    settings = BiPSettings(0.4, structure=structure, upper_learning_rate=5.0)
    (ticket,) = search(trainer, settings, dense_parent(tiny_trainer()))
    for name, mask in ticket.mask.items():
        if mask.dim() == 4:
            groups = mask if structure == "filter" else mask.transpose(0, 1)
            alive = groups.flatten(1)
            assert (alive.all(1) | ~alive.any(1)).all()
            assert int(alive.all(1).sum()) == kept_groups(len(alive), 0.4)
        else:
            assert mask.all(), name


def test_the_history_follows_the_mask() -> None:
    trainer = tiny_trainer()
    list(search(trainer, BiPSettings(0.2, upper_learning_rate=5.0), dense_parent(tiny_trainer())))
    overlaps = [entry["overlap"] for entry in trainer.history]
    assert len(overlaps) == 3
    assert 0 < min(overlaps) < 1
    trainer = tiny_trainer()
    list(search(trainer, BiPSettings(0.2, upper_learning_rate=0.0), dense_parent(tiny_trainer())))
    assert [entry["overlap"] for entry in trainer.history] == [1.0, 1.0, 1.0]


def test_the_paper_s_implicit_term_is_not_the_release_s() -> None:
    theta, gradient = random(6, seed=1), random(6, seed=2)
    mask = (random(6, seed=3) > 0).double()
    term = upper_gradient(theta, gradient, mask, 1.0) - upper_gradient(theta, gradient, mask, 0.0)
    by_score = theta.abs() * gradient
    ratio = term / by_score**2
    # No constant c makes the term -c (score gradient)^2: it is 0 for pruned weights, and elsewhere
    # depends on the weight.
    assert term[mask == 0].abs().max() == 0
    assert by_score[mask == 0].abs().min() > 0
    assert float(ratio[mask == 1].std()) > 0.1


def test_paper_and_release_part_ways() -> None:
    parent = dense_parent(tiny_trainer())

    def found(variant: str) -> Ticket:
        (ticket,) = search(tiny_trainer(), BiPSettings(0.3, variant=variant), parent)
        return ticket

    assert found("paper").mask != found("release").mask
