"""A short pinned run of every method, in float64.

When one of these fails because a method now computes something else on purpose, raise the method's
`version` and pin the new values: published records of the old version are then shown as stale.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lthlib.data import Dataset
from lthlib.methods import METHODS
from lthlib.tickets import Ticket
from lthlib.training import Trainer, TrainingSettings

SETTINGS = {
    "dense": {"rewind": "2it"},
    "imp": {"rounds": 2, "fraction": 0.5, "rewind": "2it"},
    "cs": {"penalty": 1e-3, "gate_learning_rate": 1.0, "temperature_per": "step", "rewind": "2it"},
    "bip": {"density": 0.5, "upper_learning_rate": 2.0},
    "bip, release": {"density": 0.5, "variant": "release"},
    "bip, mask of scores": {"density": 0.5, "upper_learning_rate": 2.0, "upper_at": "scores"},
    "hydra": {"density": 0.5, "learning_rate": 2.0},
    "hydra, release": {"density": 0.5, "initial": "weights", "aliased": True},
    "snip": {"density": 0.5},
    "grasp": {"density": 0.5},
    "synflow": {"density": 0.5, "iterations": 5},
    "omp": {"density": 0.5},
    "random": {"density": 0.5},
    "retrain": {"start": "own"},
    "retrain, rewound": {"rewind": "4it"},
    "retrain, mask value": {"start": "fresh", "mask_value": 2.0},
    "imp, continued": {"rounds": 2, "fraction": 0.5, "rewind": "2it", "rewinding": "none"},
    "imp, learning rate": {
        "rounds": 2, "fraction": 0.5, "rewind": "2it", "rewinding": "learning-rate"
    },
    "cs, release": {
        "initial_gate": 0.1, "gate_learning_rate": 1.0, "rounds": 2, "reset": "release",
        "scaled": True, "rewind": "2it",
    },
    "gmp": {"density": 0.5, "every": "1it"},
    "l0": {"initial_gate": 0.5, "penalty": 0.05, "gate_learning_rate": 20.0, "rewind": "2it"},
    "iss": {"penalty": 1e-3, "gate_learning_rate": 5.0, "rounds": 2, "rewind": "2it"},
}  # fmt: skip


def network() -> nn.Module:
    """A small network whose weights come from no generator."""
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            count = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            parameter.copy_(torch.sin(1.7 * count).view(parameter.shape) * 0.5)
    return model


def trainer() -> Trainer:
    count = torch.arange(60 * 6, dtype=torch.float64).view(60, 6)
    data = Dataset.from_tensors(torch.cos(count * 0.37), torch.arange(60) % 3)
    settings = TrainingSettings(length="8it", batch_size=16)
    return Trainer(network(), data, settings)


def last_ticket(name: str, parent: Ticket | None) -> Ticket:
    method = METHODS[name.partition(",")[0]]
    return list(method.search(trainer(), method.settings(**SETTINGS[name]), parent))[-1]


def fingerprint(ticket: Ticket) -> tuple[float, int, int]:
    """Sum of |weights| of the ticket, how many it keeps, and where: the sum of the kept places."""
    assert ticket.weights is not None
    total = sum(float(ticket.weights[name].abs().sum()) for name in ticket.mask)
    places = torch.cat([kept.reshape(-1) for kept in ticket.mask.values()]).nonzero()
    return total, ticket.mask.kept, int(places.sum())


PINNED: dict[str, tuple[int, float, int, int]] = {
    "dense": (1, 22.35093020561284, 72, 2556),
    "imp": (1, 8.747854644463407, 18, 649),
    "cs": (1, 6.417581926146243, 17, 638),
    "bip": (2, 15.695205845048536, 36, 1266),
    "bip, release": (2, 16.02574191600185, 36, 1291),
    "bip, mask of scores": (2, 15.770224410600502, 36, 1231),
    "hydra": (1, 15.52940111125094, 36, 1197),
    "hydra, release": (1, 15.957290985788553, 36, 1228),
    "snip": (1, 12.262473767903264, 36, 1240),
    "grasp": (1, 11.181923085201941, 36, 1378),
    "synflow": (1, 14.13546388583636, 36, 1416),
    "retrain, rewound": (1, 15.927408587637837, 36, 1228),
    "omp": (1, 15.911552493263741, 36, 1228),
    "random": (1, 11.702226974529887, 36, 1114),
    "retrain": (1, 15.896674448902223, 36, 1228),
    "retrain, mask value": (1, 31.499648133102315, 36, 1228),
    "imp, continued": (1, 8.779175427503521, 18, 660),
    "imp, learning rate": (1, 8.870497994365909, 18, 664),
    "cs, release": (1, 39.388805746108275, 65, 2230),
    "gmp": (1, 15.963585502399557, 36, 1228),
    "l0": (1, 2.162592886657536, 61, 2040),
    "iss": (1, 6.048078790122823, 15, 561),
}


def test_every_method_is_pinned() -> None:
    assert {name.partition(",")[0] for name in PINNED} == METHODS.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_method_computes_what_its_version_computed(name: str) -> None:
    method = METHODS[name.partition(",")[0]]
    dense = last_ticket("dense", None)
    parent = None if method.parent == "none" else dense
    if name.startswith("retrain"):
        parent = last_ticket("omp", dense)
    version, total, kept, places = PINNED[name]
    found = fingerprint(last_ticket(name, parent))
    assert method.version == version
    assert found[1:] == (kept, places)
    assert found[0] == pytest.approx(total, rel=1e-9)
