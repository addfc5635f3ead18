"""The exact hypergradient of bi-level pruning, to hold the Hessian-free one against.

With z = m * theta, g and H the gradient and the Hessian of the loss at z, M = diag(m), and theta(m)
the minimiser of l(m * theta) + gamma/2 |theta|^2, the implicit function theorem gives
    d theta / dm = -(M H M + gamma I)^-1 (diag(g) + M H diag(theta)),
so that the gradient of l(m * theta(m)) with respect to m is
    theta g - (g v + theta H (m v))   with   (M H M + gamma I) v = m g.
H = 0 turns v into m g / gamma and the whole into `upper_gradient`. Everything is in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lthlib.errors import Unsolved
from lthlib.methods.bip import upper_gradient
from lthlib.training import Network, Tensors

Loss = Callable[[Tensor], Tensor]
DOUBLE = torch.float64


class Point:
    """A mask and weights, and the first two derivatives of a loss there."""

    def __init__(self, loss: Loss, mask: Tensor, theta: Tensor) -> None:
        """Evaluate the loss and its gradient, once.

        Args:
            loss: of effective weights z [n], twice differentiable.
            mask: [n]; it need not be binary.
            theta: the weights, [n].
        """
        self.mask, self.theta = mask.detach().to(DOUBLE), theta.detach().to(DOUBLE)
        self._z = (self.mask * self.theta).requires_grad_()
        value = loss(self._z)
        (self._gradient,) = torch.autograd.grad(value, self._z, create_graph=True)
        self.loss, self.gradient = float(value.detach()), self._gradient.detach()

    @property
    def direct(self) -> Tensor:
        """theta g, what of the hypergradient does not pass through the weights' change."""
        return self.theta * self.gradient

    def estimate(self, gamma: float) -> Tensor:
        """The Hessian-free hypergradient [n], as BiP computes it.

        Args:
            gamma: of the ridge, positive.

        Source:
            BiP (2022), `lthlib.methods.bip.upper_gradient`.
        """
        return upper_gradient(self.theta, self.gradient, self.mask, 1 / gamma)

    def exact(self, gamma: float, tolerance: float = 1e-8, limit: int = 2000) -> Tensor:
        """The hypergradient [n] with the Hessian, the lower system solved by conjugate gradients.

        It is a gradient only where the lower level has a minimum; elsewhere it is what the formula
        gives.

        Args:
            gamma: of the ridge, positive.
            tolerance: of the residual, relative.
            limit: of the iterations.

        Raises:
            Unsolved: the lower level has no minimum here: a direction of negative curvature was
                met; or the limit was.
        """
        m, theta, g = self.mask, self.theta, self.gradient

        def lower(v: Tensor) -> Tensor:
            return m * self.hessian_times(m * v) + gamma * v

        v = conjugate_gradients(lower, m * g, tolerance, limit)
        return theta * g - (g * v + theta * self.hessian_times(m * v))

    def hessian_times(self, vector: Tensor) -> Tensor:
        """H v, for v [n], by a second backward pass."""
        if not self._gradient.requires_grad:  # the loss is linear
            return torch.zeros_like(vector)
        (product,) = torch.autograd.grad(self._gradient, self._z, vector, retain_graph=True)
        return product

    def distance(self, gamma: float) -> float:
        """How far from the lower optimum: |m g + gamma theta| / |gamma theta|, 0 at it."""
        ridge = gamma * self.theta
        return float((self.mask * self.gradient + ridge).norm() / ridge.norm())


def conjugate_gradients(
    times: Callable[[Tensor], Tensor], right: Tensor, tolerance: float = 1e-8, limit: int = 2000
) -> Tensor:
    """Solve A v = right for a symmetric positive definite A [n, n] that is known by its products.

    Args:
        times: v [n] -> A v [n].
        right: [n].
        tolerance: of |A v - right| / |right|.
        limit: of the iterations.

    Returns:
        v [n].

    Raises:
        Unsolved: p'Ap <= 0 for a direction p that was searched, or the limit was met.
    """
    v, residual = torch.zeros_like(right), right.clone()
    direction, square = residual.clone(), float(residual @ residual)
    enough = tolerance**2 * square
    for iteration in range(limit):
        if square <= enough:
            return v
        image = times(direction)
        curvature = float(direction @ image)
        if not curvature > 0:
            curvature /= float(direction @ direction)
            raise Unsolved(
                f"curvature {curvature:.3g} along the direction of iteration {iteration}: "
                "not positive definite; a larger gamma helps"
            )
        step = square / curvature
        v += step * direction
        residual -= step * image
        square, before = float(residual @ residual), square
        direction = residual + square / before * direction
    raise Unsolved(f"no solution to {tolerance:g} in {limit} iterations; allow more or raise gamma")


@dataclass(frozen=True)
class Quadratic:
    """l(z) = (z - a)' A (z - a) / 2, whose lower level has a closed form.

    Attributes:
        matrix: A [n, n], symmetric.
        target: a [n].
    """

    matrix: Tensor
    target: Tensor

    @classmethod
    def random(cls, size: int, seed: int) -> Quadratic:
        """A = R R' / n with R and a standard normal: curvatures from 0 to 4, on average 1."""
        draw = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=draw, dtype=DOUBLE)
        return cls(root @ root.T / size, torch.randn(size, generator=draw, dtype=DOUBLE))

    def loss(self, z: Tensor) -> Tensor:
        """l at z [n], a scalar."""
        return (z - self.target) @ self.matrix @ (z - self.target) / 2

    def weights(self, mask: Tensor, gamma: float) -> Tensor:
        """The lower optimum theta [n] under a mask; differentiable in the mask.

        Args:
            mask: [n].
            gamma: of the ridge, positive.
        """
        ridge = gamma * torch.eye(len(mask), dtype=DOUBLE)
        lower = mask[:, None] * self.matrix * mask + ridge
        return torch.linalg.solve(lower, mask * (self.matrix @ self.target))

    def jacobian(self, mask: Tensor, gamma: float) -> Tensor:
        """The derivative d theta / dm at the lower optimum.

        Args:
            mask: [n].
            gamma: of the ridge, positive.

        Returns:
            [n, n], of which row i is the derivative of theta_i.
        """
        jacobian: Tensor = torch.func.jacrev(self.weights)(mask, gamma)
        return jacobian

    def hypergradient(self, mask: Tensor, gamma: float) -> Tensor:
        """The gradient [n] of l(m * theta(m)) with respect to m.

        Args:
            mask: m, [n].
            gamma: of the ridge, positive.
        """
        gradient: Tensor = torch.func.grad(lambda m: self.loss(m * self.weights(m, gamma)))(mask)
        return gradient


class NetworkLoss:
    """Mean cross-entropy of a network on one batch, as a function of its masked weights.

    All of it is in copies of double precision.
    """

    def __init__(
        self, model: nn.Module, names: tuple[str, ...], tensors: Tensors, x: Tensor, y: Tensor
    ) -> None:
        """Copy a network, its tensors and a batch.

        Args:
            model: in training mode BatchNorm uses the batch's own statistics, as BiP's steps do; in
                evaluation mode those in `tensors`.
            names: of the masked weights, in the order in which they stand in a flat vector.
            tensors: all weights and buffers by name; what is not masked stays as it is.
            x: images, [b, ...].
            y: labels, int64 [b].
        """
        self.model, self.names, self.y = copy.deepcopy(model).to(DOUBLE), names, y
        self.tensors = {name: _double(tensor) for name, tensor in tensors.items()}
        self.x = _double(x)

    def __call__(self, z: Tensor) -> Tensor:
        """The loss, a scalar, at effective weights z [n]."""
        # Statistics move in training mode: each call gets copies.
        tensors = {name: tensor.clone() for name, tensor in self.tensors.items()} | self.named(z)
        return F.cross_entropy(functional_call(self.model, tensors, (self.x,)), self.y)

    def moved(self, tensors: Tensors) -> NetworkLoss:
        """The same with other weights and buffers."""
        return NetworkLoss(self.model, self.names, tensors, self.x, self.y)

    def with_fixed_statistics(self, z: Tensor) -> NetworkLoss:
        """The same in evaluation mode, with BatchNorm's statistics those of the batch at z [n]."""
        fixed = self.moved(self.tensors)
        buffers = {name: self.tensors[name].clone() for name, _ in self.model.named_buffers()}
        network = Network(fixed.model)
        with network.averaging(buffers):
            network.forward(fixed.tensors | self.named(z), buffers, self.x)
        fixed.model, fixed.tensors = network.model.eval(), fixed.tensors | buffers
        return fixed

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Tensors by name -> [n] in float64."""
        return torch.cat([tensors[name].reshape(-1) for name in self.names]).to(DOUBLE)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """[n] -> tensors by name, of the weights' shapes."""
        shapes = [self.tensors[name].shape for name in self.names]
        pieces = vector.split([shape.numel() for shape in shapes])
        triples = zip(self.names, pieces, shapes, strict=True)
        return {name: piece.view(shape) for name, piece, shape in triples}


def solve_lower(loss: Loss, mask: Tensor, theta: Tensor, gamma: float, steps: int) -> Tensor:
    """Minimise l(m * theta) + gamma/2 |theta|^2 from theta by L-BFGS; pruned weights end at 0.

    Args:
        loss: of effective weights [n].
        mask: [n], binary.
        theta: [n], where to begin.
        gamma: of the ridge.
        steps: at most; fewer if the gradient vanishes.

    Returns:
        The weights, [n].
    """
    weights = (mask * theta).detach().clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [weights], max_iter=steps, max_eval=2 * steps, history_size=20, tolerance_grad=1e-9,
        tolerance_change=0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def objective() -> Tensor:
        optimiser.zero_grad()
        value = loss(mask * weights) + gamma / 2 * weights @ weights
        value.backward()
        return value

    optimiser.step(objective)
    return weights.detach()


def identity_error(loss: Loss, mask: Tensor, theta: Tensor, seed: int = 0) -> float:
    """The largest relative error of what bi-linearity says of derivatives by mask and weights.

    With g and H at z = m * theta, each side by its own backward passes: dl/dm = theta g,
    dl/dtheta = m g, theta dl/dtheta = m dl/dm, and (d2l/dm dtheta) u = g u + theta H (m u).

    Args:
        loss: of effective weights [n].
        mask: [n]; it need not be binary.
        theta: the weights, [n].
        seed: of the direction u.
    """
    point = Point(loss, mask, theta)
    m, weights = (vector.clone().requires_grad_() for vector in (point.mask, point.theta))
    by_mask, by_weight = torch.autograd.grad(loss(m * weights), (m, weights), create_graph=True)
    draw = torch.Generator().manual_seed(seed)
    u = torch.randn(len(m), generator=draw, dtype=DOUBLE).to(m.device)
    (mixed,) = torch.autograd.grad(by_weight, m, u)
    g, bent = point.gradient, point.hessian_times(point.mask * u)
    pairs = (
        (by_mask, point.theta * g),
        (by_weight, point.mask * g),
        (point.theta * by_weight, point.mask * by_mask),
        (mixed, g * u + point.theta * bent),
    )
    return max(relative_error(side.detach(), expected.detach()) for side, expected in pairs)


def cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of the angle between two vectors [n]; NaN if one is 0."""
    return float(a @ b / (a.norm() * b.norm()))


def relative_error(estimate: Tensor, exact: Tensor) -> float:
    """Return |estimate - exact| / |exact|, Euclidean, of two tensors of one shape."""
    return float((estimate - exact).norm() / exact.norm())


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to(DOUBLE) if tensor.is_floating_point() else tensor.detach()
