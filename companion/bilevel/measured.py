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

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

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
from companion.evidence.facts import DEFINITIONS, Fact, facts_of
from lthlib.errors import ConfigError, Unsolved
from lthlib.methods import get_method
from lthlib.recipes import Recipe, dense_run, load_recipe
from lthlib.runs import Machine, Parent, RunConfig, Store, execute
from lthlib.runs.execution import build_trainer, now
from lthlib.runs.execution import provenance as provenance_of
from lthlib.source import digest_of, imported, parsed
from lthlib.tickets import Ticket
from lthlib.training import Tensors, Trainer

_HERE = Path(__file__)
_ROOT = _HERE.parents[2]
POINTS = ("start", "trained", "solved")
MEASURES = ("cosine", "implicit_cosine", "direct_cosine", "error", "implicit_error", "flips")
# What the facts are measured at: fixed before any cosine was seen.
RECIPE, DENSITY, IMAGES, SEEDS = "digits", 0.1, 256, (0, 1, 2)
CIFAR = "bip-core"  # the recipe of the network that B4 is judged on
SIZE, KEPT, QUADRATICS = 100, 0.5, tuple(range(10))
MOST = ("identity_error", "extra_backward_passes")  # over the seeds; of the others the mean


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
        A row a problem and gamma, with what `compare` returns, at the exact lower optimum; and for
        the kept weights `weight_error`, relative, of d theta / dm, and `weight_flips`, the share
        whose d theta_i / dm_i has the wrong sign.
    """
    rows = []
    for size, seed, gamma in itertools.product(sizes, seeds, gammas):
        problem, mask = Quadratic.random(size, seed), random_mask(size, seed, kept)
        point = Point(problem.loss, mask, problem.weights(mask, gamma))
        exact, estimate = problem.jacobian(mask, gamma), torch.diag(-point.gradient / gamma)
        is_kept = mask > 0
        rows.append(
            {"problem": "quadratic", "point": "solved", "size": size, "seed": seed}
            | compare(point, gamma, problem.hypergradient(mask, gamma))
            | {"weight_error": relative_error(estimate[is_kept], exact[is_kept])}
            | {"weight_flips": _share_of_flips(estimate.diagonal(), exact.diagonal(), is_kept)}
        )
    return pd.DataFrame(rows)


def random_mask(size: int, seed: int, kept: float) -> Tensor:
    """Return a binary mask [n] with round(kept n) ones at random places.

    Args:
        size: n.
        seed: of the places.
        kept: fraction of the entries that are 1, from 0 to 1.
    """
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
    row: dict[str, Any] = {"gamma": float(gamma), "loss": point.loss}
    row |= {"distance": point.distance(gamma), "definite": exact is not None}
    if exact is None:
        return row | dict.fromkeys(MEASURES, float("nan"))
    estimate, direct = point.estimate(gamma), point.direct
    return row | {
        "cosine": cosine(estimate, exact),
        "implicit_cosine": cosine(estimate - direct, exact - direct),
        "direct_cosine": cosine(direct, exact),
        "error": relative_error(estimate, exact),
        "implicit_error": relative_error(estimate - direct, exact - direct),
        "flips": _share_of_flips(estimate, exact, point.mask > 0),
    }


def _share_of_flips(estimate: Tensor, exact: Tensor, is_kept: Tensor) -> float:
    return float(((estimate * exact)[is_kept] < 0).double().mean())


def network_table(
    nets: Mapping[int, Thinned],
    gammas: Sequence[float],
    points: Sequence[str] = POINTS,
    solver_steps: int = 300,
) -> pd.DataFrame:
    """Compare the Hessian-free with the exact hypergradient on networks.

    Args:
        nets: by seed, from `thinned`.
        gammas: of the ridge, positive.
        points: some of `POINTS`.
        solver_steps: of L-BFGS at `solved`, at most.

    Returns:
        A row a seed, point and gamma, with what `compare` returns. `size` is the number of weights
        that the mask covers.

    Raises:
        ConfigError: an unknown point.
    """
    if unknown := [point for point in points if point not in POINTS]:
        raise ConfigError(f"point is {unknown[0]!r}; expected some of {', '.join(POINTS)}")
    rows = []
    for (seed, network), name in itertools.product(nets.items(), points):
        for gamma, point in network.at(name, gammas, solver_steps):
            try:
                exact: Tensor | None = point.exact(gamma)
            except Unsolved:
                exact = None
            keys = {"problem": "network", "point": name, "size": len(point.mask), "seed": seed}
            rows.append(keys | compare(point, gamma, exact))
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

    Returns:
        The table with the columns of provenance that a table of records has.
    """
    origin = provenance(recipe, machine, now())
    columns = {n: origin[n] for n in ("device", "device_name", "commit", "dirty", "finished")}
    seconds = (time.monotonic() - began) / table["seed"].nunique()
    run = table["seed"].map("seed-{}".format)
    return table.assign(**columns, scale=recipe.scale, own_seconds=seconds, status="ok", run=run)


@dataclass(frozen=True)
class Thinned:
    """A network under the magnitude mask of its dense weights, and the batch it is looked at on.

    Attributes:
        loss: of `start`, in training mode.
        mask: [n].
        trained: all weights and buffers at `trained`.
    """

    loss: NetworkLoss
    mask: Tensor
    trained: Tensors

    def at(
        self, name: str, gammas: Iterable[float], solver_steps: int
    ) -> Iterator[tuple[float, Point]]:
        """Yield each gamma with the point it is to be looked at in.

        Args:
            name: one of `POINTS`.
            gammas: of the ridge, positive.
            solver_steps: of L-BFGS at `solved`, at most.
        """
        loss = self.loss if name == "start" else self.loss.moved(self.trained)
        theta = loss.flat(loss.tensors)
        if name != "solved":
            point = Point(loss, self.mask, theta)
            yield from ((gamma, point) for gamma in gammas)
            return
        loss = loss.with_fixed_statistics(self.mask * theta)
        for gamma in gammas:
            solution = solve_lower(loss, self.mask, theta, gamma, solver_steps)
            yield gamma, Point(loss, self.mask, solution)


def thinned(
    recipe: Recipe,
    seeds: Iterable[int],
    store: Store,
    machine: Machine,
    density: float = DENSITY,
    images: int = IMAGES,
) -> dict[int, Thinned]:
    """Train the lower level of BiP on a recipe's networks.

    Args:
        recipe: gives data, network, training and BiP's settings.
        seeds: of the dense networks; those that the store lacks are trained.
        store: of local runs.
        machine: where to compute.
        density: kept fraction of the magnitude mask.
        images: of the batch.

    Returns:
        Seed -> network.
    """
    nets = {}
    for seed in seeds:
        config, trainer, dense = frozen(recipe, seed, density, store, machine)
        (ticket,) = get_method("bip").search(trainer, config.settings, dense)
        device = trainer.network.device
        start = {name: tensor.to(device) for name, tensor in (dense.weights or {}).items()}
        x, y = next(iter(trainer.in_order(trainer.dataset.train, images)))
        loss = NetworkLoss(trainer.network.model.train(), trainer.names, start, x, y)
        mask = loss.flat(ticket.mask.to(device))
        nets[seed] = Thinned(loss, mask, trainer.group("weights") | trainer.group("buffers"))
    return nets


def frozen(
    recipe: Recipe, seed: int, density: float, store: Store, machine: Machine, **changes: Any
) -> tuple[RunConfig, Trainer, Ticket]:
    """Return BiP of a recipe with its mask frozen, so that the lower level alone moves.

    Args:
        recipe: gives data, network, training and BiP's settings.
        seed: of the dense network, which is trained if the store lacks it.
        density: kept fraction of the mask.
        store: of local runs.
        machine: where to compute.
        changes: settings of BiP in place of the recipe's.

    Returns:
        Its configuration, a trainer for it, and the dense network that it starts from.
    """
    settings = {n: v for n, v in recipe.method("bip").items() if not isinstance(v, list)}
    settings |= {"density": density, "upper_learning_rate": 0.0, **changes}
    dense = dense_run(recipe, seed)
    config = recipe.config("bip", seed, Parent(dense, "dense"), **settings)
    execute(dense, store, machine)
    torch.set_num_threads(config.threads)
    return config, build_trainer(config, machine), store.ticket(dense, "dense")


def extra_passes(recipe: Recipe, seed: int, store: Store, machine: Machine) -> int:
    """Count the backward passes of one alternation of BiP beyond those of its lower steps.

    Args:
        recipe: gives data, network, training and BiP's settings.
        seed: of the dense network, which is trained if the store lacks it.
        store: of local runs.
        machine: where to compute.
    """
    config, trainer, dense = frozen(recipe, seed, DENSITY, store, machine, length="1it")
    network = trainer.network
    with mock.patch.object(network, "gradients", wraps=network.gradients) as gradients:
        list(get_method("bip").search(trainer, config.settings, dense))
    return gradients.call_count - int(config.settings.lower_steps)


def measure(store: Store, machine: Machine) -> dict[str, Fact]:
    """Measure the facts of claim B4.

    On the digits recipe, and on `CIFAR` where the store holds its dense networks. A cosine that
    does not exist for some seed, because the lower level has no minimum there, is left out.

    Args:
        store: of local runs; dense networks that it lacks are trained.
        machine: where to compute.

    Returns:
        Name, of `evidence.facts.DEFINITIONS` -> fact.
    """
    recipe, started = load_recipe(RECIPE), now()
    gamma = recipe.method("bip")["gamma"]
    nets = thinned(recipe, SEEDS, store, machine, DENSITY, IMAGES)
    tables = {
        "quadratic": quadratic_table([gamma], [SIZE], QUADRATICS),
        "network": network_table(nets, [gamma], ["trained"]),
    }
    recipes, large = dict.fromkeys(DEFINITIONS, recipe), load_recipe(CIFAR)
    if all(store.load(dense_run(large, seed)) is not None for seed in SEEDS):
        recipes["implicit_cosine_cifar10"] = large
        networks = thinned(large, SEEDS, store, machine, DENSITY, IMAGES)
        tables["cifar10"] = network_table(networks, [large.method("bip")["gamma"]], ["trained"])
    values = {
        "identity_error": [_identity_error(net, seed) for seed, net in nets.items()],
        "extra_backward_passes": [float(extra_passes(recipe, s, store, machine)) for s in SEEDS],
    }
    for problem, table in tables.items():
        values |= {f"{name}_{problem}": table[name].tolist() for name in table}
    settings = {"density": 100 * DENSITY, "images": IMAGES, "gamma": gamma}
    settings |= {"size": SIZE, "kept": 100 * KEPT}
    facts = {}
    for name in facts_of("B4"):
        if name not in values:
            continue
        by_seed = tuple(values[name])
        value = max(by_seed) if name in MOST else sum(by_seed) / len(by_seed)
        if math.isnan(value):
            continue
        definition = DEFINITIONS[name].format(**settings, recipe=recipes[name].name)
        seeds = QUADRATICS if name.endswith("quadratic") else SEEDS
        origin = provenance(recipes[name], machine, started)
        facts[name] = Fact(value, definition, seeds, by_seed, origin)
    return facts


def _identity_error(net: Thinned, seed: int) -> float:
    """At a mask that is not binary: products with 0 and 1 are exact whatever they stand for."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.rand(len(net.mask), generator=draw, dtype=DOUBLE).to(net.mask.device)
    return identity_error(net.loss, mask, net.loss.flat(net.loss.tensors))


def provenance(recipe: Recipe, machine: Machine, started: str) -> dict[str, Any]:
    """Return the provenance, as run records hold it, of what is done by now.

    Args:
        recipe: that it is about.
        machine: that computed it.
        started: from `now()`, before it did.
    """
    files = imported([_ROOT / "companion", _ROOT / "lthlib"], parsed(_HERE.read_bytes()))
    source = digest_of(sorted({*files, _HERE}), _ROOT)[:16]
    origin = provenance_of(dense_run(recipe, 0), machine.torch_device(), started)
    return {**origin, "source": source}
