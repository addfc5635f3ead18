"""A simulated world: tickets whose truth is known, as records, drawn again and again.

A ticket's accuracy is the dense net's, plus its method's gap at its density, plus noise of 0.2
points. The noise of a seed's tickets may be correlated along a curve, and shared between methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from companion.counting import counted
from companion.evidence.claims import CLAIMS
from companion.evidence.records import tidy
from companion.evidence.statistics import IMP_DENSITIES
from lthlib.records import COSTS
from tests.companion.evidence.toys import PROVENANCE

Net = tuple[str, str]
Shape = Callable[[float], float]

RESNET20, RESNET18, VGG16 = (("cifar10", name) for name in ("resnet20", "resnet18", "vgg16"))
ROUNDS = tuple(IMP_DENSITIES[:18].tolist())
LEVEL, TOTAL = 92.0, 100_000


def level(points: float) -> Shape:
    """The same gap to dense at every density."""
    return lambda density: points


ONE = level(1.0)


def concave(points: float = 0.0, bend: float = 0.5) -> Shape:
    """Level where many weights are kept, falling ever faster where few are, as real curves do."""
    return lambda density: points - bend * np.log(density) ** 2 / 2


@dataclass(frozen=True)
class Curve:
    """A method on a network: the truth about its tickets, and which of them are made.

    gap: points above dense at a density. drift: by how much each seed misses the densities, as
    methods do that find their own; as a share. cost: of a ticket's own run, in dense trainings.
    rests: whether it starts from the dense net. spread: of its noise, in points. seeds: how many
    there are at most.
    """

    label: str
    gap: Shape
    densities: tuple[float, ...] = ROUNDS
    judged: str = "retrained"
    net: Net = RESNET20
    drift: float = 0.0
    cost: Shape = ONE
    rests: bool = False
    spread: float = 0.2
    seeds: int = 1000
    method: str = "omp"


def dense(net: Net = RESNET20, label: str = "dense") -> Curve:
    return Curve(label, level(0.0), (1.0,), "found", net, method="dense")


def imp(gap: Shape, net: Net = RESNET20, rounds: int = 9, label: str = "IMP") -> Curve:
    """IMP, whose ticket of a round has cost a training more than that of the round before."""

    def trainings(density: float) -> float:
        return 1 + float(np.log(density) / np.log(0.8))

    own = tuple(IMP_DENSITIES[:rounds].tolist())
    return Curve(label, gap, own, net=net, cost=trainings, method="imp")


@dataclass(frozen=True)
class World:
    """Curves, each with `seeds` seeds and the dense nets with ten at least.

    along: correlation of the noise of one seed's tickets of a curve; across: of tickets that two
    methods found from one seed at one density.
    """

    curves: tuple[Curve, ...]
    seeds: int
    along: float = 0.5
    across: float = 0.3

    def records(self) -> list[dict[str, Any]]:
        """A record of each ticket, with its expected accuracy."""
        return [record for curve in self.curves for record in self._of(curve)]

    def tables(self) -> Iterator[pd.DataFrame]:
        """The tidy table of the records again and again, each time with noise of its own."""
        table, rng = tidy(self.records()), np.random.default_rng(0)
        curves = {(one.label, one.judged, one.net): one for one in self.curves}
        names = list(
            zip(
                table["label"],
                table["judged"],
                zip(table["dataset"], table["architecture"], strict=True),
                strict=True,
            )
        )
        spread = np.array([curves[name].spread for name in names])
        replicate = [(name[2], seed) for name, seed in zip(names, table["seed"], strict=True)]
        own = list(zip(names, table["seed"], strict=True))
        where = table["density"].round(6)
        while True:
            shared = self._noise(rng, replicate, list(zip(replicate, where, strict=True)))
            alone = self._noise(rng, own, list(range(len(table))))
            noise = spread * (self.across**0.5 * shared + (1 - self.across) ** 0.5 * alone)
            luck = 0.2 * rng.normal(size=len(table))
            yield table.assign(
                test_accuracy=table["test_accuracy"] + noise,
                validation_accuracy=table["validation_accuracy"] + luck,
            )

    def _noise(
        self, rng: np.random.Generator, groups: list[Any], singles: list[Any]
    ) -> np.ndarray[Any, Any]:
        """Standard noise, correlated within groups; equal where group and single are."""
        parts = [rng.normal(size=len(codes) + 1)[codes] for codes in map(_codes, (groups, singles))]
        return self.along**0.5 * parts[0] + (1 - self.along) ** 0.5 * parts[1]

    def _of(self, curve: Curve) -> Iterator[dict[str, Any]]:
        fewest = 10 if curve.method == "dense" else 0
        for seed in range(min(max(self.seeds, fewest), curve.seeds)):
            miss = np.random.default_rng(seed).uniform(-curve.drift, curve.drift)
            for index, wanted in enumerate(curve.densities):
                kept = round(TOTAL * min(1.0, wanted * (1 + miss)))
                yield _record(curve, seed, index, kept)


def _codes(names: list[Any]) -> np.ndarray[Any, Any]:
    return pd.factorize(pd.Series(names, dtype=object))[0]


def _run(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _record(curve: Curve, seed: int, index: int, kept: int) -> dict[str, Any]:
    density = kept / TOTAL
    accuracy, own = LEVEL + curve.gap(density), float(curve.cost(density))
    config = {
        "data": {"dataset": curve.net[0]},
        "model": {"architecture": curve.net[1]},
        "training": {},
        "settings": {},
        "method": curve.method,
        "seed": seed,
        "parent": None,
    }
    return {
        "schema": 1,
        "run": _run(curve.label, curve.judged, curve.net, seed, index * (curve.method != "imp")),
        "parent": _run("dense", "found", curve.net, seed, 0) if curve.rests else None,
        "config": config,
        "method": curve.method,
        "method_version": 1,
        "seed": seed,
        "status": "ok",
        "failure": None,
        "ticket": {
            "index": index,
            "point": "ticket",
            "sha256": "0" * 64,
            "target_density": None,
        },
        "judged": curve.judged,
        "density": density,
        "kept": kept,
        "total": TOTAL,
        "layers": {"conv.weight": [kept, TOTAL]},
        "accuracy": {"validation": accuracy, "test": accuracy},
        "cost": {
            "own": dict.fromkeys(COSTS, own),
            "cumulative": dict.fromkeys(COSTS, own + curve.rests),
        },
        "provenance": PROVENANCE,
        "study": "world",
        "scale": "paper",
        "label": curve.label,
    }


@cache
def counts() -> pd.DataFrame:
    return counted()


def outcomes(
    claim: str,
    world: World,
    facts: dict[str, float] | None = None,
    looks: tuple[int, ...] = (),
) -> Iterator[list[str | None]]:
    """How a claim comes out on a world drawn again and again, at so many of its seeds; by default
    at all. Dense networks are there from the beginning."""
    judged = next(one for one in CLAIMS if one.id == claim)
    for table in world.tables():
        dense = table["method"] == "dense"
        parts = (table[dense | (table["seed"] < n)] for n in looks or (world.seeds,))
        known = [pd.concat([part, counts()], ignore_index=True) for part in parts]
        yield [judged.judge(part, facts).outcome for part in known]


def wrong_twice_as_often(wrong: Iterable[bool], rate: float = 0.05) -> bool:
    """Draw until it is known whether a judge is wrong at its rate at most, or at twice that.

    Wald's sequential test (1945): one of twice the rate passes one time in five, one of the rate
    itself fails one time in a thousand.
    """
    evidence, passes, fails = 0.0, np.log(0.2 / 0.999), np.log(0.8 / 0.001)
    for one in wrong:
        evidence += np.log(2) if one else np.log((1 - 2 * rate) / (1 - rate))
        if not passes < evidence < fails:
            break
    return evidence >= fails
