"""Between rounds of IMP go back the weights, the learning rate alone, or nothing (IMP-C)."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthlib.checkpoints import load_checkpoint
from lthlib.data import Batches, Dataset
from lthlib.errors import Paused
from lthlib.methods import imp, retrain
from lthlib.methods.imp import IMPSettings
from lthlib.methods.retrain import RetrainSettings
from lthlib.tickets import Ticket
from lthlib.training import Trainer, TrainingSettings
from tests.training.test_resuming import digest, stop_at_question
from tests.training.toys import batches_of, tiny, tiny_trainer

STEPS, K = 7, 2
KEPT = (147, 118, 94, 75)  # of 147, rounds of 20 %


def settings_of(rewinding: str, rounds: int = 3) -> IMPSettings:
    return IMPSettings(rounds, 0.2, f"{K}it", rewinding)


def by_hand(rewinding: str) -> list[dict[str, Tensor]]:
    """State dictionaries at the end of every round, from a plain loop over an ordinary module."""
    model, trainer = tiny().train(), tiny_trainer()
    early: dict[str, Tensor] = {}
    keep = {n: torch.ones_like(p) for n, p in model.named_parameters() if n in trainer.names}
    found = []
    for r, count in enumerate(KEPT):
        if r and rewinding == "weights":
            model.load_state_dict(early)
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name, ones in keep.items():
                named[name].mul_(ones)
        optimiser = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2
        )
        stream = f"round-{r}" if r and rewinding == "none" else "train"
        batches = batches_of(trainer, stream, STEPS)
        for t in range(0 if r == 0 or rewinding == "none" else K, STEPS):
            if r == 0 and t == K:
                early = {n: v.clone() for n, v in model.state_dict().items()}
            optimiser.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * t / STEPS))
            optimiser.zero_grad()
            F.cross_entropy(model(batches[t][0]), batches[t][1]).backward()
            optimiser.step()
            with torch.no_grad():
                for name, ones in keep.items():
                    named[name].mul_(ones)
        found.append({n: v.clone() for n, v in model.state_dict().items()})
        if count != KEPT[-1]:
            size = torch.cat([named[n].detach().abs().flatten() for n in keep])
            least = size.sort(descending=True).values[KEPT[r + 1] - 1]
            keep = {n: (named[n].detach().abs() >= least).double() for n in keep}
    return found


@pytest.mark.parametrize("rewinding", ["weights", "learning-rate", "none"])
def test_every_round_is_that_of_a_plain_loop_over_a_module(rewinding: str) -> None:
    tickets = list(imp.search(tiny_trainer(), settings_of(rewinding), None))
    assert tuple(ticket.mask.kept for ticket in tickets) == KEPT
    for ticket, expected in zip(tickets, by_hand(rewinding), strict=True):
        assert ticket.weights is not None
        assert ticket.weights.keys() == expected.keys()
        for name, tensor in expected.items():
            # Rounding of sums in another order, in double precision.
            torch.testing.assert_close(ticket.weights[name], tensor, rtol=1e-9, atol=1e-12)


def beginnings(rewinding: str) -> tuple[list[tuple[int, dict[str, Tensor]]], list[Ticket]]:
    """Step and weights at the beginning of every round, and the tickets."""
    trainer, found, begun = tiny_trainer(), [], set()

    def see(trainer: Trainer) -> bool:
        if trainer.round not in begun:
            begun.add(trainer.round)
            weights = {n: w.clone() for n, w in trainer.group("weights").items()}
            found.append((trainer.step, weights))
        return False

    trainer.hooks.should_stop = see
    tickets = list(imp.search(trainer, settings_of(rewinding), None))
    return found, tickets


@pytest.mark.parametrize(("rewinding", "start"), [("none", 0), ("learning-rate", K)])
def test_weights_carry_on_and_the_pruned_ones_are_zero(rewinding: str, start: int) -> None:
    rounds, tickets = beginnings(rewinding)
    assert [step for step, _ in rounds] == [0, start, start, start]
    for before, after, (_, begun) in zip(tickets, tickets[1:], rounds[1:], strict=False):
        assert before.weights is not None
        for name, tensor in begun.items():
            kept = after.mask[name] if name in after.mask else torch.ones_like(tensor)
            assert tensor.equal(before.weights[name] * kept)


def test_rounds_with_rewinding_begin_at_the_rewind_point() -> None:
    rounds, tickets = beginnings("weights")
    assert [step for step, _ in rounds] == [0, K, K, K]
    for ticket, (_, begun) in zip(tickets[1:], rounds[1:], strict=True):
        assert ticket.rewind is not None
        for name, kept in ticket.mask.items():
            assert begun[name].equal(ticket.rewind[name] * kept)


@pytest.mark.parametrize(
    ("rewinding", "judged"),
    [("none", "found"), ("learning-rate", "retrained"), ("weights", "retrained")],
)
def test_a_ticket_is_judged_by_whether_something_went_back(rewinding: str, judged: str) -> None:
    tickets = list(imp.search(tiny_trainer(), settings_of(rewinding), None))
    assert [ticket.judged for ticket in tickets] == ["found"] + [judged] * 3
    for one, other in itertools.pairwise(tickets):
        assert one.rewind is not None
        assert other.rewind is not None
        assert all(one.rewind[name].equal(other.rewind[name]) for name in one.rewind)
        assert other.rewind_step == K


@pytest.mark.parametrize(
    ("rewinding", "steps"), [("none", 7 + 2 * 7), ("learning-rate", 7 + 2 * 5)]
)
def test_the_cost_counts_what_is_trained_again(rewinding: str, steps: int) -> None:
    trainer, settings = tiny_trainer(), settings_of(rewinding, rounds=2)
    list(imp.search(trainer, settings, None))
    assert trainer.cost.epochs == steps / trainer.steps_per_epoch
    assert imp.METHOD.work(settings, trainer.steps, 0) == steps


def test_every_round_of_imp_c_sees_the_data_in_another_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer, asked = tiny_trainer(), []
    batches = trainer.batches

    def recorded(name: str) -> Batches:
        asked.append(name)
        return batches(name)

    monkeypatch.setattr(trainer, "batches", recorded)
    list(imp.search(trainer, settings_of("none"), None))
    assert asked == ["train", "round-1", "round-2", "round-3"]


def test_a_ticket_of_imp_c_can_be_retrained_from_the_rewind_point() -> None:
    *_, ticket = imp.search(tiny_trainer(), settings_of("none"), None)
    trainer = tiny_trainer()
    (again,) = retrain.search(trainer, RetrainSettings(), ticket)
    assert (again.judged, again.mask) == ("retrained", ticket.mask)
    assert trainer.cost.epochs == (STEPS - K) / trainer.steps_per_epoch
    # What IMP itself would have trained under this mask.
    plain = tiny_trainer()
    assert ticket.rewind is not None
    plain.load("weights", {n: ticket.rewind[n] for n in plain.group("weights")})
    plain.load("buffers", {n: ticket.rewind[n] for n in plain.group("buffers")})
    plain.fit(plain.masked_step(ticket.mask, STEPS), start=K, stop=STEPS)
    assert again.weights is not None
    for name, tensor in plain.group("weights").items():
        assert again.weights[name].equal(tensor)


@pytest.mark.parametrize("rewinding", ["none", "learning-rate"])
@pytest.mark.parametrize("stop", [0, 4, 7, 10])
def test_resuming_is_bit_identical(rewinding: str, stop: int, tmp_path: Path) -> None:
    trainer = tiny_trainer()
    whole = digest(list(imp.search(trainer, settings_of(rewinding), None)), trainer)
    trainer, path = tiny_trainer(), tmp_path / "checkpoint.safetensors"
    trainer.hooks = stop_at_question(stop, path)
    with pytest.raises(Paused):
        list(imp.search(trainer, settings_of(rewinding), None))
    trainer = tiny_trainer()
    assert load_checkpoint(trainer, path, "owner")
    assert digest(list(imp.search(trainer, settings_of(rewinding), None)), trainer) == whole


@pytest.mark.parametrize("rewinding", ["weights", "none"])
def test_thirty_rounds_of_a_fifth_leave_an_eighth_of_a_percent(rewinding: str) -> None:
    """The search itself, on as many weights as a ResNet-20 has and one step a round."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(89_232, 3, bias=False)
        inputs = torch.randn(4, 89_232)
    data = Dataset.from_tensors(inputs, torch.tensor([0, 1, 2, 0]), validation_fraction=0)
    trainer = Trainer(model, data, TrainingSettings("1it", 4, 1e-3))
    tickets = imp.search(trainer, IMPSettings(30, 0.2, "0it", rewinding), None)
    masks = [ticket.mask for ticket in tickets]
    percent = [100 * mask.density for mask in masks]
    assert percent[:4] == pytest.approx([100, 80, 64, 51.2], abs=0.005)
    assert [percent[n] for n in (10, 15, 20, 25, 30)] == pytest.approx(
        [10.74, 3.518, 1.153, 0.378, 0.124], abs=5e-3
    )
    # Rounding is not passed on from round to round.
    assert [mask.kept for mask in masks] == [round(267_696 * 0.8**r) for r in range(31)]
    assert all(
        not bool((after["weight"] & ~before["weight"]).any())
        for before, after in itertools.pairwise(masks)
    )
