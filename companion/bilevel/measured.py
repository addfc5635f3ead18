"""How good BiP's Hessian-free hypergradient is: on quadratics, on a network, as facts of claim B4.

A network is looked at in three places:
    start    the trained dense network under its magnitude mask, where BiP begins;
    trained  after BiP's own lower steps for the recipe's length, the mask frozen;
    solved   the minimum of the lower level with its ridge, from `trained` by L-BFGS.
The lower level's variables are the weights that the mask covers; BatchNorm's parameters and the
biases stay as they are. The loss is that of the first training images, not augmented. BatchNorm
uses the batch's statistics at `start` and `trained`, as BiP's steps do. At `solved` its statistics
are fixed: with those of the batch the loss does not depend on a filter's scale, so that the ridge
shrinks it without end and there is no minimum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from companion.bilevel.hypergradient import (
    DOUBLE,
    NetworkLoss,
    Point,
    Quadratic,
    cosine,
    identity_error,
    relative_error,
    solve_lower,
)
from companion.evidence.facts import Fact, facts_of
from lthlib.errors import ConfigError, Unsolved
from lthlib.methods import get_method
from lthlib.recipes import Recipe, dense_run, load_recipe
from lthlib.runs import Machine, Parent, RunConfig, Store, execute
from lthlib.runs.execute import build_trainer, now
from lthlib.runs.execute import provenance as provenance_of
from lthlib.source import digest_of, imported, parsed
from lthlib.tickets import Ticket
from lthlib.training import Tensors, Trainer

_HERE = Path(__file__)
_ROOT = _HERE.parents[2]
POINTS = ("start", "trained", "solved")
MEASURES = ("cosine", "implicit_cosine", "direct_cosine", "error", "implicit_error", "flips")
# What the facts are measured at: fixed before any cosine was seen.
RECIPE, DENSITY, IMAGES, SEEDS = "digits", 0.1, 256, (0, 1, 2)
SIZE, KEPT, QUADRATICS = 100, 0.5, tuple(range(10))
_SOLVER_STEPS = 300
_PLACE = f"{RECIPE} recipe, {100 * DENSITY:g} % density, first {IMAGES} training images, float64"
_THERE = "trained dense network under its magnitude mask, BatchNorm with the batch's statistics"
_RELAXED = "trained dense network under a mask drawn from [0, 1)"
_TRAINED = f"{_THERE}, after BiP's lower steps for the recipe's length under that mask"
_QUADRATIC = (
    f"exact lower optimum, n = {SIZE}, A = R R' / n with R standard normal, random binary mask "
    f"with {100 * KEPT:g} % kept"
)
_IDENTITIES = (
    "|a - b| / |b| of dl/dm = theta g, dl/dtheta = m g, theta dl/dtheta = m dl/dm and "
    "(d2l/dm dtheta) u = g u + theta H (m u), u random"
)

_CALLS = f"calls of Network.gradients in one alternation, less its lower steps: {RECIPE} recipe"
_COSINES = {
    "cosine": "cosine of the Hessian-free hypergradient to the exact one",
    "implicit_cosine": "cosine of the Hessian-free implicit term to the exact one",
    "direct_cosine": "cosine of theta g to the exact hypergradient",
}


def quadratic_table(
    gammas: Iterable[float], sizes: Iterable[int], seeds: Iterable[int], kept: float = KEPT
) -> pd.DataFrame:
    """Compare the Hessian-free with the exact hypergradient on random quadratics.

    Args:
        gammas: of the ridge, positive.
        sizes: numbers of weights n.
        seeds: of problem and mask.
        kept: fraction of the entries that the binary mask, drawn at random, keeps.

    Returns:
        A row a problem and gamma: what `compare` returns, at the exact lower optimum; and for the
        kept weights `weight_error`, relative, of d theta / dm, and `weight_flips`, the share whose
        d theta_i / dm_i has the wrong sign.
    """
    rows = []
    for size in sizes:
        for seed in seeds:
            problem, mask = Quadratic.random(size, seed), random_mask(size, seed, kept)
            for gamma in gammas:
                theta = problem.weights(mask, gamma)
                point = Point(problem.loss, mask, theta)
                exact = problem.jacobian(mask, gamma)
                stays = mask > 0
                estimate = torch.diag(-point.gradient / gamma)
                flips = (estimate * exact).diagonal()[stays] < 0
                rows.append(
                    {"problem": "quadratic", "point": "solved", "size": size, "seed": seed}
                    | compare(point, gamma, problem.hypergradient(mask, gamma))
                    | {"weight_error": relative_error(estimate[stays], exact[stays])}
                    | {"weight_flips": float(flips.double().mean())}
                )
    return pd.DataFrame(rows)


def random_mask(size: int, seed: int, kept: float) -> Tensor:
    """A binary mask [n] with round(kept n) ones at random places."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.zeros(size, dtype=DOUBLE)
    mask[torch.randperm(size, generator=draw)[: round(kept * size)]] = 1
    return mask


def compare(point: Point, gamma: float, exact: Tensor | None) -> dict[str, Any]:
    """Return how the Hessian-free hypergradient lies to the exact one.

    Args:
        point: mask, weights and loss.
        gamma: of the ridge.
        exact: [n], or None where the lower level has no minimum: the row then holds NaN.

    Returns:
        gamma, loss, distance (see `Point.distance`), definite (whether there is an exact one);
        cosine and error, relative, of the whole; implicit_cosine and implicit_error of what it adds
        to theta g; direct_cosine of theta g alone to the exact one; flips, the share of kept
        weights for which the whole has the wrong sign.
    """
    found: dict[str, Any] = {"gamma": float(gamma), "loss": point.loss}
    found |= {"distance": point.distance(gamma), "definite": exact is not None}
    if exact is None:
        return found | dict.fromkeys(MEASURES, float("nan"))
    estimate, direct = point.estimate(gamma), point.direct
    kept = point.mask > 0
    return found | {
        "cosine": cosine(estimate, exact),
        "implicit_cosine": cosine(estimate - direct, exact - direct),
        "direct_cosine": cosine(direct, exact),
        "error": relative_error(estimate, exact),
        "implicit_error": relative_error(estimate - direct, exact - direct),
        "flips": float(((estimate * exact)[kept] < 0).double().mean()),
    }


def network_table(
    recipe: Recipe,
    gammas: Sequence[float],
    seeds: Iterable[int],
    store: Store,
    machine: Machine,
    *,
    density: float = DENSITY,
    images: int = IMAGES,
    points: Sequence[str] = POINTS,
    solver_steps: int = _SOLVER_STEPS,
) -> pd.DataFrame:
    """Compare the Hessian-free with the exact hypergradient on a recipe's network.

    Args:
        recipe: gives data, network, training and BiP's settings.
        gammas: of the ridge, positive.
        seeds: of the dense networks; those that the store lacks are trained.
        store: of local runs.
        machine: where to compute.
        density: kept fraction of the magnitude mask.
        images: of the batch.
        points: some of `POINTS`.
        solver_steps: of L-BFGS at `solved`, at most.

    Returns:
        A row a seed, point and gamma: what `compare` returns. `size` is the number of weights that
        the mask covers.

    Raises:
        ConfigError: an unknown point.
    """
    if unknown := [point for point in points if point not in POINTS]:
        raise ConfigError(f"point is {unknown[0]!r}; expected some of {', '.join(POINTS)}")
    rows = []
    for seed in seeds:
        network = Thinned.of(recipe, seed, density, images, store, machine)
        for place in points:
            for gamma, point in network.at(place, gammas, solver_steps):
                where = {"problem": "network", "point": place, "size": len(point.mask)}
                rows.append({**where, "seed": seed, **compare(point, gamma, _exact(point, gamma))})
    return pd.DataFrame(rows)


def with_provenance(
    table: pd.DataFrame, recipe: Recipe, machine: Machine, began: float
) -> pd.DataFrame:
    """Add what `Artefacts` says of a table's rows, those of each seed being one run.

    Args:
        table: with the column `seed`.
        recipe: that it is about.
        machine: that computed it.
        began: `time.monotonic()` before it did.
    """
    made = provenance(recipe, machine)()
    names = ("device", "device_name", "commit", "dirty", "finished")
    seconds = (time.monotonic() - began) / table["seed"].nunique()
    own = {name: made[name] for name in names} | {"scale": recipe.scale, "own_seconds": seconds}
    return table.assign(**own, status="ok", run=table["seed"].map("seed-{}".format))


@dataclass(frozen=True)
class Thinned:
    """A network under the magnitude mask of its dense weights, and the batch it is looked at on.

    loss: of `start`, in training mode. mask: [n]. tensors: all weights and buffers, by point.
    """

    loss: NetworkLoss
    mask: Tensor
    tensors: Mapping[str, Tensors]

    @classmethod
    def of(
        cls, recipe: Recipe, seed: int, density: float, images: int, store: Store, machine: Machine
    ) -> Thinned:
        """Train the dense network, unless the store holds it, then the lower level of BiP."""
        config = frozen(recipe, seed, density)
        trainer, dense = begin(config, store, machine)
        (ticket,) = get_method("bip").search(trainer, config.settings, dense)
        assert dense.weights is not None
        device = trainer.network.device
        start = {name: tensor.to(device) for name, tensor in dense.weights.items()}
        trained = trainer.group("weights") | trainer.group("buffers")
        x, y = next(iter(trainer.in_order(trainer.dataset.train, images)))
        loss = NetworkLoss(trainer.network.model.train(), trainer.names, start, x, y)
        mask = loss.flat(ticket.mask.to(device))
        return cls(loss, mask, {"start": start, "trained": trained})

    def at(
        self, place: str, gammas: Iterable[float], solver_steps: int
    ) -> Iterator[tuple[float, Point]]:
        """Yield each gamma with the point it is to be looked at in."""
        if place == "solved":
            yield from self._solved(gammas, solver_steps)
            return
        loss = self.loss.moved(self.tensors[place])
        point = Point(loss, self.mask, loss.flat(self.tensors[place]))
        for gamma in gammas:
            yield gamma, point

    def _solved(self, gammas: Iterable[float], steps: int) -> Iterator[tuple[float, Point]]:
        loss = self.loss.moved(self.tensors["trained"])
        theta = loss.flat(loss.tensors)
        loss = loss.with_fixed_statistics(self.mask * theta)
        for gamma in gammas:
            solution = solve_lower(loss, self.mask, theta, gamma, steps)
            yield gamma, Point(loss, self.mask, solution)


def frozen(recipe: Recipe, seed: int, density: float, **changes: Any) -> RunConfig:
    """BiP of a recipe with its mask frozen: the lower level alone moves."""
    settings = {n: v for n, v in recipe.method("bip").items() if not isinstance(v, list)}
    settings |= {"density": density, "upper_learning_rate": 0.0, **changes}
    return recipe.config("bip", seed, Parent(dense_run(recipe, seed), "dense"), **settings)


def begin(config: RunConfig, store: Store, machine: Machine) -> tuple[Trainer, Ticket]:
    """A trainer for a run that starts from a dense network, and that network."""
    assert config.parent is not None
    execute(config.parent.config, store, machine)
    torch.set_num_threads(config.threads)
    dense = store.ticket(config.parent.config, config.parent.point)
    return build_trainer(config, machine), dense


def extra_passes(recipe: Recipe, seed: int, store: Store, machine: Machine) -> int:
    """Count the backward passes of one alternation of BiP beyond those of its lower steps."""
    config = frozen(recipe, seed, DENSITY, length="1it")
    trainer, dense = begin(config, store, machine)
    network, passes = trainer.network, 0
    gradients = network.gradients

    def counted(*arguments: Any) -> Any:
        nonlocal passes
        passes += 1
        return gradients(*arguments)

    network.gradients = counted  # type: ignore[assignment,method-assign]
    list(get_method("bip").search(trainer, config.settings, dense))
    return passes - config.settings.lower_steps


def measure(store: Store, machine: Machine) -> dict[str, Fact]:
    """Measure the facts of claim B4 on the digits recipe, by their names in `evidence.facts.FACTS`.

    A cosine that does not exist for some seed, because the lower level has no minimum there, is
    left out.

    Args:
        store: of local runs; dense networks that it lacks are trained.
        machine: where to compute.
    """
    recipe = load_recipe(RECIPE)
    finish, gamma = provenance(recipe, machine), recipe.method("bip")["gamma"]
    nets = [Thinned.of(recipe, seed, DENSITY, IMAGES, store, machine) for seed in SEEDS]
    at = [point for net in nets for _, point in net.at("trained", [gamma], 0)]
    network = pd.DataFrame([compare(point, gamma, _exact(point, gamma)) for point in at])
    quadratic = quadratic_table([gamma], [SIZE], QUADRATICS)
    errors = [_identity_error(net, seed) for net, seed in zip(nets, SEEDS, strict=True)]
    passes = [float(extra_passes(recipe, seed, store, machine)) for seed in SEEDS]
    made = finish()

    found = {
        name: Fact(max(values), f"{what}, the most over the seeds", SEEDS, tuple(values), made)
        for name, values, what in (
            ("identity_error", errors, f"{_IDENTITIES}: {_PLACE}, {_RELAXED}"),
            ("extra_backward_passes", passes, _CALLS),
        )
    }
    for column, what in _COSINES.items():
        for problem, rows, seeds, place in (
            ("quadratic", quadratic, QUADRATICS, _QUADRATIC),
            ("network", network, SEEDS, f"{_PLACE}, {_TRAINED}"),
        ):
            values = tuple(rows[column].tolist())
            definition = f"{what}: {place}; gamma = {gamma:g}, mean over the seeds"
            name = f"{column}_{problem}"
            found[name] = Fact(sum(values) / len(values), definition, seeds, values, made)
    return {name: found[name] for name in facts_of("B4") if found[name].value == found[name].value}


def _identity_error(net: Thinned, seed: int) -> float:
    """At a mask that is not binary: products with 0 and 1 are exact whatever they stand for."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(len(net.mask), generator=draw, dtype=DOUBLE).to(net.mask.device)
    return identity_error(net.loss, mask, net.loss.flat(net.loss.tensors))


def _exact(point: Point, gamma: float) -> Tensor | None:
    try:
        return point.exact(gamma)
    except Unsolved:
        return None


def provenance(recipe: Recipe, machine: Machine) -> Callable[[], dict[str, Any]]:
    """Note the time; return what gives the provenance, as run records hold it, once all is done."""
    config, device, started = dense_run(recipe, 0), machine.torch_device(), now()
    files = imported([_ROOT / "companion", _ROOT / "lthlib"], parsed(_HERE.read_bytes()))
    own = {"source": digest_of(sorted({*files, _HERE}), _ROOT)[:16]}
    return lambda: provenance_of(config, device, started) | own
