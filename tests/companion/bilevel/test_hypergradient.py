"""The exact hypergradient: closed forms, autodiff, a lower level solved again, dense systems."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from companion.bilevel.hypergradient import (
    NetworkLoss,
    Point,
    Quadratic,
    conjugate_gradients,
    cosine,
    identity_error,
    relative_error,
    solve_lower,
)
from lthlib.errors import Unsolved
from tests.training.toys import images, tiny, tiny_trainer

DOUBLE = torch.float64
GAMMAS = (0.05, 1.0, 50.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def binary(size: int, seed: int = 9) -> Tensor:
    return (random(size, seed=seed) > 0).double()


def relaxed(size: int, seed: int = 9) -> Tensor:
    return random(size, seed=seed)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-8) -> None:
    assert relative_error(found, expected) < tolerance


# On quadratics.


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("mask_of", [binary, relaxed])
@pytest.mark.parametrize("size", [3, 20])
def test_derivatives_are_the_closed_forms_and_what_conjugate_gradients_find(
    gamma: float, mask_of: type, size: int
) -> None:
    problem, mask = Quadratic.random(size, seed=2), mask_of(size)
    theta = problem.weights(mask, gamma)
    gradient = problem.matrix @ (mask * theta - problem.target)
    bent = torch.diag(mask) @ problem.matrix
    lower = bent @ torch.diag(mask) + gamma * torch.eye(size, dtype=DOUBLE)
    mixed = torch.diag(gradient) + bent @ torch.diag(theta)
    jacobian = -torch.linalg.inv(lower) @ mixed
    close(problem.jacobian(mask, gamma), jacobian)
    expected = theta * gradient + jacobian.T @ (mask * gradient)
    close(problem.hypergradient(mask, gamma), expected)
    point = Point(problem.loss, mask, theta)
    close(point.exact(gamma, tolerance=1e-12), expected)


def test_weights_are_where_the_lower_level_is_flat() -> None:
    problem, mask, gamma = Quadratic.random(12, seed=3), relaxed(12), 0.7
    theta = problem.weights(mask, gamma).requires_grad_()
    objective = problem.loss(mask * theta) + gamma / 2 * theta @ theta
    (slope,) = torch.autograd.grad(objective, theta)
    assert slope.abs().max() < 1e-12
    assert Point(problem.loss, mask, theta).distance(gamma) < 1e-12


def test_curvatures_are_on_average_one() -> None:
    levels = torch.linalg.eigvalsh(Quadratic.random(300, seed=0).matrix)
    assert float(levels.mean()) == pytest.approx(1, abs=0.02)
    assert float(levels.min()) > -1e-12
    assert 3.5 < float(levels.max()) < 4.2


def estimate_of_jacobian(problem: Quadratic, mask: Tensor, gamma: float) -> Tensor:
    point = Point(problem.loss, mask, problem.weights(mask, gamma))
    return torch.diag(-point.gradient / gamma)


@pytest.mark.parametrize("mask_of", [binary, relaxed])
def test_errors_fall_as_one_over_gamma(mask_of: type) -> None:
    problem, mask = Quadratic.random(12, seed=4), mask_of(12)
    rows = mask != 0
    errors: list[tuple[float, ...]] = []
    for gamma in (1e2, 1e3, 1e4, 1e5):
        point = Point(problem.loss, mask, problem.weights(mask, gamma))
        exact, estimate = problem.hypergradient(mask, gamma), point.estimate(gamma)
        jacobians = estimate_of_jacobian(problem, mask, gamma), problem.jacobian(mask, gamma)
        errors.append(
            (
                relative_error(estimate, exact),
                relative_error(estimate - point.direct, exact - point.direct),
                relative_error(*(one[rows] for one in jacobians)),
            )
        )
    for kind in zip(*errors, strict=True):
        slopes = [math.log10(b / a) for a, b in itertools.pairwise(kind)]
        assert slopes == pytest.approx([-1, -1, -1], abs=0.05)


def test_the_sign_of_a_weights_derivative_flips_where_curvature_passes_gamma() -> None:
    """Diagonal A: estimate / exact = (gamma + m^2 h) / (gamma - m^2 h)."""
    mask = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=DOUBLE)
    curvature = torch.tensor([0.5, 0.99, 1.01, 0.3], dtype=DOUBLE)
    problem = Quadratic(torch.diag(curvature), random(4, seed=5))
    estimate = estimate_of_jacobian(problem, mask, 1.0).diagonal()
    ratio = estimate / problem.jacobian(mask, 1.0).diagonal()
    bend = mask**2 * curvature
    close(ratio, (1 + bend) / (1 - bend))
    assert ratio.sign().tolist() == [1, 1, -1, -1]


@pytest.mark.parametrize("gamma", GAMMAS)
def test_at_the_lower_optimum_the_implicit_estimate_is_the_direct_term_once_more(
    gamma: float,
) -> None:
    problem, mask = Quadratic.random(20, seed=6), binary(20)
    theta = problem.weights(mask, gamma)
    point = Point(problem.loss, mask, theta)
    close(point.direct, -gamma * theta**2)
    close(point.estimate(gamma), 2 * point.direct)
    lower = torch.diag(mask) @ problem.matrix @ torch.diag(mask) + gamma * torch.eye(20)
    exact = -2 * gamma**2 * theta * torch.linalg.solve(lower, theta)
    close(problem.hypergradient(mask, gamma), exact)


def test_away_from_the_optimum_no_gamma_makes_the_implicit_term_right() -> None:
    problem, mask, theta = Quadratic.random(20, seed=7), binary(20), random(20, seed=8)
    point = Point(problem.loss, mask, theta)
    pull = mask * point.gradient
    limit = -(pull * point.gradient + theta * (problem.matrix @ (mask * pull)))
    errors = []
    for gamma in (1e4, 1e6, 1e8):
        exact, estimate = (
            gamma * (found - point.direct)
            for found in (point.exact(gamma, tolerance=1e-14), point.estimate(gamma))
        )
        close(exact, limit, tolerance=10 / gamma + 1e-5)
        errors.append(relative_error(estimate, exact))
    assert errors == pytest.approx([errors[-1]] * 3, rel=1e-3)
    assert errors[-1] > 0.5


def test_a_linear_loss_has_no_hessian_and_the_estimate_is_exact() -> None:
    slope, mask, theta = random(7, seed=2), binary(7), random(7, seed=3)
    point = Point(lambda z: z @ slope, mask, theta)
    close(point.exact(3.0), point.estimate(3.0))
    assert point.hessian_times(theta).abs().max() == 0


# The solver.


def test_a_system_known_by_its_products() -> None:
    root, right = random(15, 15, seed=1), random(15, seed=2)
    matrix = root @ root.T + 0.1 * torch.eye(15)
    found = conjugate_gradients(lambda v: matrix @ v, right, tolerance=1e-12)
    close(found, torch.linalg.solve(matrix, right))
    nothing = conjugate_gradients(lambda v: matrix @ v, torch.zeros(15, dtype=DOUBLE))
    assert nothing.abs().max() == 0


def test_negative_curvature_is_refused_with_its_size() -> None:
    """A loss with curvature -2 in one direction: a minimum from gamma = 2 on, none below."""
    curvatures = torch.tensor([1.0, 3.0, -2.0], dtype=DOUBLE)
    mask = theta = torch.ones(3, dtype=DOUBLE)
    point = Point(lambda z: z.square() @ curvatures / 2, mask, theta)
    with pytest.raises(Unsolved, match="curvature -"):
        point.exact(gamma=1.5)
    lower = curvatures + 2.5
    v = curvatures / lower
    close(point.exact(gamma=2.5), curvatures - (curvatures * v + curvatures * v))


def test_a_direction_without_curvature_is_refused_too() -> None:
    with pytest.raises(Unsolved, match=r"curvature 0 along the direction of iteration 0"):
        conjugate_gradients(lambda v: 0 * v, random(3))


def test_a_curvature_that_is_no_number_is_refused() -> None:
    with pytest.raises(Unsolved, match="curvature nan"):
        conjugate_gradients(lambda v: v * math.nan, random(3))


def test_too_few_iterations_are_said() -> None:
    matrix = torch.diag(torch.linspace(1, 9, 9, dtype=DOUBLE))
    with pytest.raises(Unsolved, match="no solution to 1e-08 in 5 iterations"):
        conjugate_gradients(lambda v: matrix @ v, random(9), limit=5)


# On networks.


class Smooth:
    """A tanh network of 5 - 4 - 3 on 30 points, without BatchNorm; 32 weights, no biases."""

    def __init__(self) -> None:
        self.x, self.y = random(30, 5, seed=1), torch.arange(30) % 3

    def __call__(self, z: Tensor) -> Tensor:
        first, second = z[:20].view(5, 4), z[20:].view(4, 3)
        return nn.functional.cross_entropy((self.x @ first).tanh() @ second, self.y)


def solved(loss: Smooth, mask: Tensor, theta: Tensor, gamma: float) -> Tensor:
    """The lower optimum by Newton's method, to the last digits."""

    def objective(weights: Tensor) -> Tensor:
        return loss(mask * weights) + gamma / 2 * weights @ weights

    for _ in range(30):
        slope = torch.autograd.functional.jacobian(objective, theta)
        if slope.norm() < 1e-13:
            return theta
        bend = torch.autograd.functional.hessian(objective, theta)
        theta = theta - torch.linalg.solve(bend, slope)
    raise AssertionError("Newton's method did not converge")


def test_it_is_the_slope_of_the_loss_after_solving_the_lower_level_again() -> None:
    loss, gamma = Smooth(), 0.02
    mask = torch.rand(32, generator=torch.Generator().manual_seed(4), dtype=DOUBLE) + 0.2
    start = solve_lower(loss, mask, random(32, seed=5), gamma, steps=500)
    theta = solved(loss, mask, start, gamma)
    assert float(loss(mask * theta)) < 0.9 * math.log(3)  # not the network that says nothing

    slopes = []
    for place in range(32):
        step = torch.zeros(32, dtype=DOUBLE)
        step[place] = 1e-5
        ends = [mask + step, mask - step]
        up, down = (loss(end * solved(loss, end, theta, gamma)) for end in ends)
        slopes.append((up - down) / 2e-5)
    exact = Point(loss, mask, theta).exact(gamma, tolerance=1e-12)
    close(exact, torch.stack(slopes), tolerance=1e-6)
    assert relative_error(Point(loss, mask, theta).estimate(gamma), exact) > 0.1


def network() -> tuple[NetworkLoss, Tensor, Tensor]:
    """A convolutional network with BatchNorm on 20 images; mask and weights [147]."""
    model, data = tiny(), images()
    names = ("conv1.weight", "conv2.weight", "linear.weight")
    tensors = {n: t.detach().clone() for n, t in model.state_dict().items()}
    x, y = data.train.inputs, data.train.labels
    loss = NetworkLoss(model.train(), names, tensors, x, y)
    return loss, binary(147), loss.flat(tensors)


@pytest.mark.parametrize("fixed", [False, True])
def test_on_a_network_it_is_what_dense_matrices_give(fixed: bool) -> None:
    loss, mask, theta = network()
    if fixed:
        loss = loss.with_fixed_statistics(mask * theta)
    gamma, z = 5.0, mask * theta
    gradient = torch.autograd.functional.jacobian(loss, z)
    hessian = torch.autograd.functional.hessian(loss, z)
    m, t, g = (torch.diag(one) for one in (mask, theta, gradient))
    lower, mixed = m @ hessian @ m + gamma * torch.eye(147), g + t @ hessian @ m
    expected = theta * gradient - mixed @ torch.linalg.solve(lower, mask * gradient)
    point = Point(loss, mask, theta)
    close(point.exact(gamma, tolerance=1e-12), expected)
    close(point.estimate(gamma), (theta - mask * gradient / gamma) * gradient)
    assert relative_error(point.estimate(gamma), expected) > 1e-3


def test_the_gradient_is_that_of_bips_steps_and_moves_no_statistics() -> None:
    trainer = tiny_trainer()
    weights, buffers = trainer.group("weights"), trainer.group("buffers")
    x, y = images().train.inputs, images().train.labels
    loss = NetworkLoss(trainer.network.model, trainer.names, trainer_tensors(trainer), x, y)
    theta = loss.flat(weights)
    mask = binary(len(theta))
    thin = weights | {n: loss.named(mask)[n] * weights[n] for n in trainer.names}
    before = {name: buffer.clone() for name, buffer in buffers.items()}
    point = Point(loss, mask, theta)
    assert all(buffer.equal(before[name]) for name, buffer in buffers.items())
    value, _, gradients = trainer.network.gradients(thin, buffers, x, y)
    close(point.gradient, loss.flat(gradients), tolerance=1e-12)
    assert point.loss == pytest.approx(float(value), rel=1e-12)


def trainer_tensors(trainer: object) -> dict[str, Tensor]:
    groups = (trainer.group(name) for name in ("weights", "buffers"))  # type: ignore[attr-defined]
    return {name: tensor for group in groups for name, tensor in group.items()}


def test_single_precision_networks_are_looked_at_in_double() -> None:
    model = tiny(torch.float32)
    tensors = {n: t.detach() for n, t in model.state_dict().items()}
    x, y = images(torch.float32).train.inputs, images().train.labels
    loss = NetworkLoss(model, ("conv1.weight",), tensors, x, y)
    assert loss(loss.flat(tensors)).dtype == DOUBLE
    assert next(model.parameters()).dtype == torch.float32


def test_fixed_statistics_are_those_of_the_masked_network_on_the_batch() -> None:
    loss, mask, theta = network()
    fixed = loss.with_fixed_statistics(mask * theta)
    kept = fixed.named(mask * theta)["conv1.weight"]
    seen = nn.functional.conv2d(loss.x, kept, padding=1)
    close(fixed.tensors["bn1.running_mean"], seen.mean((0, 2, 3)), tolerance=1e-12)
    assert not loss.tensors["bn1.running_mean"].any()  # those that it came from stay
    # With statistics fixed, an image no longer depends on the others of its batch.
    alone = [
        NetworkLoss(fixed.model, fixed.names, fixed.tensors, fixed.x[i : i + 1], fixed.y[i : i + 1])
        for i in range(20)
    ]
    mean = torch.stack([one(mask * theta) for one in alone]).mean()
    assert float(mean) == pytest.approx(float(fixed(mask * theta)), rel=1e-12)
    assert float(fixed(mask * theta)) == pytest.approx(float(loss(mask * theta)), rel=0.05)


def test_names_and_flat_vectors_are_inverse() -> None:
    loss, _, theta = network()
    named = loss.named(theta)
    assert list(named) == list(loss.names)
    assert all(named[name].equal(loss.tensors[name]) for name in named)
    assert loss.flat(named).equal(theta)


def test_solving_the_lower_level_ends_at_its_optimum_with_pruned_weights_at_zero() -> None:
    problem, mask, gamma = Quadratic.random(20, seed=3), binary(20), 0.3
    found = solve_lower(problem.loss, mask, random(20, seed=4), gamma, steps=200)
    close(found, problem.weights(mask, gamma))
    assert found[mask == 0].abs().max() == 0
    loss, thin = Smooth(), binary(32)
    again = solve_lower(loss, thin, random(32, seed=5), 0.02, steps=300)
    assert Point(loss, thin, again).distance(0.02) < 1e-6
    assert again[thin == 0].abs().max() == 0


def test_the_identities_of_bilinearity_hold_on_a_network() -> None:
    loss, mask, theta = network()
    assert identity_error(loss, mask, theta) < 1e-13
    assert identity_error(loss, relaxed(147), theta) < 1e-13


def test_the_identities_fail_for_a_loss_that_is_none_of_the_product() -> None:
    """What the measurement compares is not the same by construction."""
    calls = itertools.count()

    def drifting(z: Tensor) -> Tensor:
        return z.sin().sum() * (1 + next(calls))

    assert identity_error(drifting, relaxed(9), random(9)) > 0.1


def test_cosine_and_relative_error() -> None:
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    assert cosine(one, other) == pytest.approx(24 / 25)
    assert relative_error(one, other) == pytest.approx(math.sqrt(2) / 5)
    assert math.isnan(cosine(one, torch.zeros(2)))
