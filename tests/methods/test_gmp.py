"""Gradual magnitude pruning: its schedule, what stays pruned, what it costs and what it refuses."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lthlib.checkpoints import load_checkpoint
from lthlib.errors import ConfigError, MaskError, Paused
from lthlib.masks import Mask
from lthlib.methods import gmp, retrain
from lthlib.methods.gmp import GMPSettings, density_at
from lthlib.methods.retrain import RetrainSettings
from lthlib.tickets import Ticket
from lthlib.training import Trainer
from tests.training.test_resuming import digest, stop_at_question
from tests.training.toys import batches_of, tiny, tiny_trainer

PRUNABLE = 147
SETTINGS = GMPSettings(density=0.2, begin=0.2, end=0.8, every="2it", rewind="1it")
LENGTH = 10  # so that weights are pruned before steps 2, 4, 6 and 8
# Of 147: 1, 0.2 + 0.8 (2/3)^3, 0.2 + 0.8 (1/3)^3 and 0.2.
KEPT = {2: 147, 4: 64, 6: 34, 8: 29}


@pytest.mark.parametrize(
    ("step", "density"),
    [
        (0, 1.0), (100, 1.0), (300, 0.1 + 0.9 * 27 / 64), (500, 0.1 + 0.9 / 8),
        (700, 0.1 + 0.9 / 64), (900, 0.1), (901, 0.1), (5000, 0.1),
    ],
)  # fmt: skip
def test_the_density_falls_as_a_cube(step: int, density: float) -> None:
    """Zhu & Gupta (2017), from step 100 to 900: (1 - progress) is 3/4, 1/2, 1/4."""
    found = density_at(GMPSettings(density=0.1), step, 100, 900)
    assert found == pytest.approx(density, rel=1e-12)


def test_the_schedule_is_the_published_one_in_sparsity() -> None:
    initial, final, begin, pruning, frequency = 0.0, 0.9, 20, 8, 10
    for t in range(begin, begin + pruning * frequency + 1, frequency):
        sparsity = final + (initial - final) * (1 - (t - begin) / (pruning * frequency)) ** 3
        found = density_at(GMPSettings(density=1 - final), t, begin, begin + pruning * frequency)
        assert found == pytest.approx(1 - sparsity, rel=1e-12)


def trainer_of(dtype: torch.dtype = torch.float64) -> Trainer:
    return tiny_trainer(dtype, length=f"{LENGTH}it")


def pruned(trainer: Trainer, settings: GMPSettings = SETTINGS) -> Ticket:
    (ticket,) = gmp.search(trainer, settings, None)
    return ticket


def masks_over_time(settings: GMPSettings = SETTINGS) -> tuple[list[Mask], Ticket]:
    """The mask in force before every step, with the weights and momenta checked to obey it."""
    trainer, found = trainer_of(), []

    def see(trainer: Trainer) -> bool:
        mask = Mask({name: kept.clone() for name, kept in trainer.group("masks").items()})
        for name, kept in mask.items():
            assert trainer.group("weights")[name][~kept].count_nonzero() == 0
            assert trainer.group("momentum")[name][~kept].count_nonzero() == 0
            assert trainer.group("weights")[name][kept].all()
        found.append(mask)
        return False

    trainer.hooks.should_stop = see
    return found, pruned(trainer, settings)


def test_what_was_pruned_stays_pruned() -> None:
    masks, ticket = masks_over_time()
    assert len(masks) == LENGTH
    for before, after in itertools.pairwise([*masks, ticket.mask]):
        for name in before:
            assert not (after[name] & ~before[name]).any()
    assert ticket.weights is not None
    for name, kept in ticket.mask.items():
        assert ticket.weights[name][~kept].count_nonzero() == 0


def test_weights_are_pruned_before_their_steps_to_exact_counts() -> None:
    masks, ticket = masks_over_time()
    kept = [mask.kept for mask in masks]
    assert kept == [147] * 5 + [KEPT[4]] * 2 + [KEPT[6]] * 2 + [KEPT[8]]
    assert ticket.mask.kept == KEPT[8]
    found = (ticket.point, ticket.index, ticket.judged, ticket.target_density, ticket.rewind_step)
    assert found == ("ticket", 0, "found", 0.2, 1)


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 1 / PRUNABLE])
def test_the_last_pruning_reaches_the_density_whatever_the_step_size(density: float) -> None:
    for every, end in (("3it", 0.8), ("2it", 0.75), ("5it", 1.0)):
        settings = GMPSettings(density, begin=0.2, end=end, every=every)
        assert pruned(trainer_of(), settings).mask.kept == round(density * PRUNABLE)


def by_hand() -> dict[str, Tensor]:
    """The state dictionary at the end, from a plain loop over an ordinary module."""
    model, trainer = tiny().train(), trainer_of()
    named = dict(model.named_parameters())
    keep = {n: torch.ones_like(named[n]) for n in trainer.names}
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2
    )
    for t, (x, y) in enumerate(batches_of(trainer, "train", LENGTH)):
        if t in KEPT:
            size = torch.cat([named[n].detach().abs().flatten() for n in keep])
            least = size.sort(descending=True).values[KEPT[t] - 1]
            keep = {n: (named[n].detach().abs() >= least).double() for n in keep}
        with torch.no_grad():
            for n, ones in keep.items():
                named[n].mul_(ones)
        optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * t / LENGTH))
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    with torch.no_grad():
        for n, ones in keep.items():
            named[n].mul_(ones)
    return model.state_dict()


def test_training_is_that_of_a_plain_loop_that_zeroes_weights() -> None:
    ticket, expected = pruned(trainer_of()), by_hand()
    assert ticket.weights is not None
    assert ticket.weights.keys() == expected.keys()
    for name, tensor in expected.items():
        # Rounding of sums in another order, in double precision.
        torch.testing.assert_close(ticket.weights[name], tensor, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stop", [0, 1, 2, 4, 5, 8, 9])
def test_resuming_is_bit_identical(stop: int, tmp_path: Path) -> None:
    """Stopped before, at and after a pruning."""
    trainer = trainer_of(torch.float32)
    whole = digest([pruned(trainer)], trainer)
    trainer, path = trainer_of(torch.float32), tmp_path / "checkpoint.safetensors"
    trainer.hooks = stop_at_question(stop, path)
    with pytest.raises(Paused):
        pruned(trainer)
    trainer = trainer_of(torch.float32)
    assert load_checkpoint(trainer, path, "owner")
    assert digest([pruned(trainer)], trainer) == whole


def test_a_ticket_can_be_retrained_from_its_rewind_point() -> None:
    ticket = pruned(trainer_of())
    early = trainer_of()
    full = Mask.full(early.group("weights"), early.names)
    early.fit(early.masked_step(full, LENGTH), stop=1)
    assert ticket.rewind is not None
    for name, tensor in (early.group("weights") | early.group("buffers")).items():
        assert ticket.rewind[name].equal(tensor)
    trainer = trainer_of()
    (again,) = retrain.search(trainer, RetrainSettings(), ticket)
    assert (again.judged, again.mask) == ("retrained", ticket.mask)
    assert trainer.cost.epochs == (LENGTH - 1) / trainer.steps_per_epoch
    assert again.weights is not None
    for name, kept in ticket.mask.items():
        assert again.weights[name][~kept].count_nonzero() == 0
        assert again.weights[name][kept].all()


def test_it_costs_one_training() -> None:
    trainer = trainer_of()
    pruned(trainer)
    assert trainer.cost.epochs == LENGTH / trainer.steps_per_epoch
    assert trainer.cost.backward_passes == trainer.cost.forward_passes == trainer.cost.images
    assert gmp.METHOD.work(SETTINGS, trainer.steps, 0) == LENGTH


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"density": 0.0}, r"density is 0\.0; expected a kept fraction in \(0, 1\]"),
        ({"density": 1.5}, r"density is 1\.5"),
        ({"begin": 0.8, "end": 0.8}, r"gmp\.begin is 0\.8 and gmp\.end 0\.8; expected 0 <= begin"),
        ({"begin": -0.1}, r"gmp\.begin is -0\.1; expected at least 0 and at most 1"),
        ({"end": 1.1}, r"gmp\.end is 1\.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        GMPSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"every": "0it"}, "no step lies between steps 2 and 8.*gmp.every of at least '1it'"),
        ({"begin": 0.8, "end": 0.81}, "no step lies between steps 8 and 8"),
        ({"every": "2it", "rewind": "11it"}, r"gmp\.rewind 11it is after the end .*10 steps"),
        ({"every": "often"}, "expected epochs such as '85ep'"),
    ],
)
def test_settings_that_do_not_fit_the_training_are_refused_before_it(
    settings: dict[str, Any], expected: str
) -> None:
    trainer = trainer_of()
    with pytest.raises(ConfigError, match=expected):
        pruned(trainer, GMPSettings(0.2, **settings))
    assert trainer.cost.images == 0


def test_a_density_that_keeps_nothing_is_refused_before_training() -> None:
    trainer = tiny_trainer()
    with pytest.raises(MaskError, match="keeps none of 147 weights"):
        list(gmp.search(trainer, GMPSettings(density=1e-3, every="1it"), None))
    assert trainer.cost.images == 0


def test_a_ticket_s_own_weights_are_not_scaled_a_second_time() -> None:
    with pytest.raises(ConfigError, match="other weights than the ticket's own"):
        RetrainSettings(start="own", mask_value=2.0)


@pytest.mark.parametrize("every", ["7it", "100it", "3ep"])
def test_prunings_come_closer_in_a_training_too_short_for_them(every: str) -> None:
    tickets = [pruned(trainer_of(), GMPSettings(0.2, every=time)) for time in (every, "1it")]
    assert tickets[0].mask == tickets[1].mask
    assert tickets[0].mask.kept == round(0.2 * tickets[0].mask.total)
