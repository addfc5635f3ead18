"""Hydra: scores learn, weights rest; and as the BiP release has it, where they do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from lthlib.errors import ConfigError
from lthlib.masks import kept_groups
from lthlib.methods import get_method
from lthlib.methods.hydra import HydraSettings, initial_scores, search
from lthlib.tickets import Ticket
from lthlib.training import Trainer
from tests.methods.test_bip import magnitude_mask
from tests.training.toys import batches_of, dense_parent, tiny, tiny_trainer


def searched(**settings: object) -> tuple[Trainer, Ticket, Ticket]:
    parent, trainer = dense_parent(tiny_trainer()), tiny_trainer()
    (ticket,) = search(trainer, HydraSettings(**{"density": 0.3} | settings), parent)  # type: ignore[arg-type]
    return trainer, ticket, parent


def test_scores_begin_as_hydra_s_own_code_scales_the_weights() -> None:
    weights = {"conv": torch.tensor([[[[1.0, -2.0]]], [[[0.5, 4.0]]]]), "linear": torch.ones(2, 6)}
    scores = initial_scores(weights, "scaled")
    # sqrt(6 / fan-in) theta / max |theta|: fan-in 2 and 6.
    expected = math.sqrt(3) * weights["conv"] / 4
    torch.testing.assert_close(scores["conv"], expected)
    torch.testing.assert_close(scores["linear"], torch.ones(2, 6))
    copies = initial_scores(weights, "weights")
    assert copies["conv"].equal(weights["conv"])
    assert copies["conv"].data_ptr() != weights["conv"].data_ptr()


@pytest.mark.parametrize("initial", ["scaled", "weights"])
def test_scores_learn_as_torch_s_optimiser_moves_them_and_weights_rest(initial: str) -> None:
    """Seven steps by autograd, through the magnitudes of the scores, in float64."""
    trainer, ticket, parent = searched(initial=initial, learning_rate=0.5)
    model = parent.apply(tiny()).train()
    parameters = dict(model.named_parameters())
    names = trainer.names
    begun = initial_scores({n: parameters[n].detach() for n in names}, initial)
    scores = {n: nn.Parameter(score) for n, score in begun.items()}
    norms = [p for n, p in parameters.items() if n.startswith("bn")]
    options = {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2, "foreach": False}
    optimiser = torch.optim.SGD([*scores.values(), *norms], lr=1, **options)  # type: ignore[arg-type]
    for t, (x, y) in enumerate(batches_of(trainer, "train", 7)):
        mask = magnitude_mask({n: s.detach() for n, s in scores.items()}, names, 44)
        through = {n: s.abs() + (mask[n].double() - s.abs()).detach() for n, s in scores.items()}
        thin = {n: parameters[n].detach() * through[n] for n in names}
        optimiser.zero_grad()
        nn.functional.cross_entropy(functional_call(model, parameters | thin, (x,)), y).backward()
        optimiser.param_groups[0]["lr"] = 0.5 * 0.5 * (1 + math.cos(math.pi * t / 7))
        optimiser.step()
    for name, score in scores.items():
        found = trainer.group("scores")[name]
        torch.testing.assert_close(found, score.detach(), rtol=1e-9, atol=1e-12)
    assert parent.weights is not None
    now = trainer.group("weights")
    resting = [name for name in now if not name.startswith("bn")]
    assert "linear.bias" in resting
    for name in resting:
        assert now[name].equal(parent.weights[name]), name
    for name in set(now) - set(resting):
        torch.testing.assert_close(now[name], parameters[name].detach(), rtol=1e-9, atol=1e-12)
    assert ticket.mask == magnitude_mask({n: s.detach() for n, s in scores.items()}, names, 44)
    assert ticket.mask != magnitude_mask(parent.weights, names, 44)


def test_as_released_the_resting_weights_move() -> None:
    trainer, ticket, parent = searched(initial="weights", aliased=True)
    assert parent.weights is not None
    now = trainer.group("weights")
    assert not trainer.group("scores")
    assert not now["conv1.weight"].equal(parent.weights["conv1.weight"])
    assert now["linear.bias"].equal(parent.weights["linear.bias"])
    assert ticket.mask == magnitude_mask(now, trainer.names, 44)


def test_fine_tuning_follows_as_a_run_of_its_own() -> None:
    _, ticket, _ = searched()
    retrain = get_method("retrain")
    trainer = tiny_trainer()
    (tuned,) = retrain.search(trainer, retrain.settings(start="own"), ticket)
    assert (ticket.judged, tuned.judged) == ("found", "retrained")
    assert tuned.mask == ticket.mask
    assert tuned.target_density == 0.3


@pytest.mark.parametrize("structure", ["filter", "channel"])
def test_structured_hydra_keeps_whole_groups(structure: str) -> None:
    _, ticket, _ = searched(structure=structure)
    for mask in (mask for mask in ticket.mask.values() if mask.dim() == 4):
        alive = (mask if structure == "filter" else mask.transpose(0, 1)).flatten(1)
        assert (alive.all(1) == alive.any(1)).all()
        assert int(alive.any(1).sum()) == kept_groups(len(alive), 0.3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"learning_rate": 0.0}, "hydra.learning_rate is 0.0"),
        ({"initial": "random"}, "scaled, weights"),
        ({"aliased": True}, "set hydra.initial to weights"),
        ({"structure": "row"}, "unstructured, filter, channel"),
        ({"density": 0.0}, r"\(0, 1\]"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        HydraSettings(**settings)  # type: ignore[arg-type]
