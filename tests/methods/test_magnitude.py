"""Iterative and one-shot magnitude pruning, random masks, and retraining with its controls."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from lthlib.data import Dataset
from lthlib.errors import ConfigError, MaskError, TicketError
from lthlib.masks import Mask, kept_groups
from lthlib.methods import METHODS, get_method, imp, omp, random, retrain
from lthlib.methods.imp import IMPSettings, prune_by_magnitude
from lthlib.methods.omp import OMPSettings
from lthlib.methods.random import RandomSettings
from lthlib.methods.retrain import RetrainSettings
from lthlib.tickets import Ticket
from lthlib.training import Trainer, TrainingSettings
from tests.training.toys import dense_parent, images, tiny, tiny_trainer

PRUNABLE = 147


def bits(*values: int) -> Tensor:
    return torch.tensor(values) == 1


def test_pruning_keeps_the_largest_magnitudes_over_all_layers() -> None:
    weights = {"a": torch.tensor([-5.0, 1.0, 0.5]), "b": torch.tensor([[2.0, -3.0]])}
    mask = prune_by_magnitude(weights, Mask({"a": bits(1, 1, 1), "b": bits(1, 1)[None]}), 3)
    assert mask["a"].tolist() == [True, False, False]
    assert mask["b"].tolist() == [[True, True]]


def test_what_was_pruned_stays_pruned_even_if_it_is_large() -> None:
    weights = {"a": torch.tensor([9.0, 0.0, 0.0, 1.0])}
    mask = prune_by_magnitude(weights, Mask({"a": bits(0, 1, 1, 1)}), 2)
    assert mask["a"].tolist() == [False, True, False, True]


def densities_of(rounds: int, total: int) -> list[float]:
    weights = {"w": torch.arange(1.0, total + 1)}
    mask, found = Mask.full(weights, ("w",)), []
    for r in range(1, rounds + 1):
        mask = prune_by_magnitude(weights, mask, round(total * 0.8**r))
        found.append(100 * mask.density)
    return found


def test_rounds_of_20_percent_have_the_densities_of_the_literature() -> None:
    found = densities_of(30, 268_336)
    expected = [80.0, 64.0, 51.2, 40.96, 32.77, 26.21, 20.97, 16.78, 13.42, 10.74]
    assert found[:10] == pytest.approx(expected, abs=0.005)
    assert [found[n - 1] for n in (15, 20, 25, 30)] == pytest.approx(
        [3.518, 1.153, 0.378, 0.124], abs=5e-4
    )


def test_imp_yields_the_dense_network_and_a_ticket_a_round_at_exact_densities() -> None:
    trainer = tiny_trainer()
    tickets = list(imp.search(trainer, IMPSettings(rounds=4, fraction=0.2, rewind="2it"), None))
    assert [t.point for t in tickets] == ["round-0", "round-1", "round-2", "round-3", "round-4"]
    assert [t.judged for t in tickets] == ["found"] + ["retrained"] * 4
    assert [t.mask.kept for t in tickets] == [147, 118, 94, 75, 60]  # 147 * 0.8^r, rounded
    assert [t.target_density for t in tickets] == pytest.approx([1, 0.8, 0.64, 0.512, 0.4096])
    for before, after in itertools.pairwise(tickets):
        for name in after.mask:
            assert not (after.mask[name] & ~before.mask[name]).any()
            assert after.weights is not None
            assert after.weights[name][~after.mask[name]].count_nonzero() == 0


def test_each_round_prunes_the_smallest_weights_of_the_round_before() -> None:
    tickets = list(imp.search(tiny_trainer(), IMPSettings(rounds=2, fraction=0.5), None))
    for before, after in itertools.pairwise(tickets):
        assert before.weights is not None
        kept = torch.cat([before.weights[n][after.mask[n]].abs() for n in after.mask])
        gone = torch.cat(
            [before.weights[n][before.mask[n] & ~after.mask[n]].abs() for n in after.mask]
        )
        assert len(gone) > 0
        assert kept.min() >= gone.max()


def second_round(settings: IMPSettings) -> tuple[Trainer, dict[str, Tensor]]:
    """The state in which round 1 begins, and the state at the end of round 0."""
    trainer = tiny_trainer()
    tickets = imp.search(trainer, settings, None)
    next(tickets)
    end = {name: tensor.clone() for name, tensor in trainer.state.items()}
    trainer.hooks.should_stop = lambda trainer: True
    with pytest.raises(Exception, match=r"before step \d of round 1"):
        next(tickets)
    return trainer, end


def at_step(k: int) -> Trainer:
    trainer = tiny_trainer()
    full = Mask.full(trainer.group("weights"), trainer.names)
    trainer.fit(trainer.masked_step(full, 7), stop=k)
    return trainer


@pytest.mark.parametrize("optimiser", ["fresh", "restored"])
@pytest.mark.parametrize("k", [0, 2])
def test_rewinding_restores_the_bits_of_step_k_under_the_new_mask(optimiser: str, k: int) -> None:
    settings = IMPSettings(rounds=1, fraction=0.5, rewind=f"{k}it", optimiser=optimiser)
    trainer, end = second_round(settings)
    early = at_step(k)
    assert trainer.step == k
    assert any(
        not tensor.equal(end[f"weights/{name}"]) for name, tensor in early.group("weights").items()
    )
    for name, tensor in early.group("buffers").items():
        assert trainer.group("buffers")[name].equal(tensor)
    mask = prune_by_magnitude(
        {name: end[f"weights/{name}"] for name in trainer.names},
        Mask.full(trainer.group("weights"), trainer.names),
        74,
    )
    for name, tensor in early.group("weights").items():
        kept = mask[name] if name in mask else torch.ones_like(tensor, dtype=torch.bool)
        assert trainer.group("weights")[name].equal(tensor * kept)
        momentum = early.group("momentum")[name] * kept * (optimiser == "restored")
        assert trainer.group("momentum")[name].equal(momentum)


@pytest.mark.parametrize(("rewinding", "start"), [("learning-rate", 2), ("none", 0)])
def test_without_rewinding_the_weights_carry_on(rewinding: str, start: int) -> None:
    settings = IMPSettings(rounds=1, fraction=0.5, rewind="2it", rewinding=rewinding)
    trainer, end = second_round(settings)
    assert trainer.step == start
    for name, tensor in trainer.group("weights").items():
        kept = tensor != 0
        assert kept.any()
        assert tensor[kept].equal(end[f"weights/{name}"][kept])
    for name, tensor in trainer.group("buffers").items():
        assert tensor.equal(end[f"buffers/{name}"])
    assert all(tensor.count_nonzero() == 0 for tensor in trainer.group("momentum").values())


def test_the_ways_of_going_on_lead_to_different_tickets() -> None:
    digests = {
        list(imp.search(tiny_trainer(), IMPSettings(1, 0.5, "2it", rewinding, optimiser), None))[
            -1
        ].sha256()
        for rewinding in ("weights", "learning-rate", "none")
        for optimiser in ("fresh", "restored")
    }
    # The optimiser's state is a choice only where something is rewound.
    assert len(digests) == 4


def test_retraining_imp_s_ticket_from_its_rewind_point_gives_its_weights() -> None:
    *_, ticket = imp.search(tiny_trainer(), IMPSettings(1, 0.5, "2it"), None)
    (again,) = retrain.search(tiny_trainer(), RetrainSettings(), ticket)
    assert ticket.weights is not None
    assert again.weights is not None
    assert all(again.weights[name].equal(ticket.weights[name]) for name in ticket.weights)
    assert again.mask == ticket.mask


def test_imp_costs_a_training_a_round_less_what_is_rewound_over() -> None:
    trainer = tiny_trainer()
    list(imp.search(trainer, IMPSettings(2, 0.5, "3it"), None))
    assert trainer.cost.images == 48 + 2 * (48 - 20)
    assert trainer.cost.epochs == (7 + 2 * 4) / 3


def test_one_shot_pruning_keeps_the_largest_of_the_trained_weights() -> None:
    parent = dense_parent(tiny_trainer(), "2it")
    trainer = tiny_trainer()
    (ticket,) = omp.search(trainer, OMPSettings(0.1), parent)
    assert ticket.mask.kept == 15
    assert parent.weights is not None
    flat = torch.cat([parent.weights[name].abs().flatten() for name in trainer.names])
    threshold = flat.sort(descending=True).values[14]
    for name, kept in ticket.mask.items():
        assert kept.equal(parent.weights[name].abs() >= threshold)
    assert (ticket.judged, ticket.target_density, ticket.rewind_step) == ("retrained", 0.1, 2)


def test_one_shot_pruning_is_one_round_of_imp() -> None:
    *_, iterative = imp.search(tiny_trainer(), IMPSettings(1, 0.5, "2it"), None)
    parent = dense_parent(tiny_trainer(), "2it")
    (once,) = omp.search(tiny_trainer(), OMPSettings(0.5), parent)
    assert once.mask == iterative.mask
    assert once.weights is not None
    assert iterative.weights is not None
    assert all(once.weights[name].equal(iterative.weights[name]) for name in once.weights)


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (OMPSettings(0.5), 5),
        (OMPSettings(0.5, length="9it"), 7),
        (OMPSettings(0.5, start="own"), 7),
        (OMPSettings(0.5, start="own", length="2ep"), 6),
    ],
)
def test_one_shot_retraining_has_the_length_it_is_given(settings: OMPSettings, steps: int) -> None:
    parent = dense_parent(tiny_trainer(), "2it")
    trainer = tiny_trainer()
    list(omp.search(trainer, settings, parent))
    assert trainer.cost.epochs == steps / 3


def random_ticket(seed: int, settings: RandomSettings, parent: Ticket) -> Ticket:
    (ticket,) = random.search(tiny_trainer(seed=seed), settings, parent)
    return ticket


def test_random_masks_have_the_density_and_differ_by_seed() -> None:
    parent = dense_parent(tiny_trainer())
    first, second = (random_ticket(seed, RandomSettings(0.2), parent) for seed in (0, 1))
    assert first.mask.kept == second.mask.kept == 29
    assert first.mask != second.mask
    assert first.mask == random_ticket(0, RandomSettings(0.2), parent).mask


def test_random_masks_may_take_their_parent_s_layer_counts() -> None:
    parent = dense_parent(tiny_trainer())
    (sparse,) = omp.search(tiny_trainer(), OMPSettings(0.3), parent)
    sparse.rewind, sparse.rewind_step = parent.rewind, parent.rewind_step
    ticket = random_ticket(0, RandomSettings(layers="parent"), sparse)
    assert ticket.mask.layers() == sparse.mask.layers()
    assert ticket.mask != sparse.mask


def beginning(settings: RetrainSettings, parent: Ticket) -> Trainer:
    trainer = tiny_trainer(seed=5)
    trainer.hooks.should_stop = lambda trainer: True
    with pytest.raises(Exception, match="before step"):
        list(retrain.search(trainer, settings, parent))
    return trainer


@pytest.fixture
def sparse() -> Ticket:
    *_, ticket = imp.search(tiny_trainer(), IMPSettings(1, 0.5, "2it"), None)
    return ticket


@pytest.mark.parametrize(
    ("settings", "source", "step"),
    [
        (RetrainSettings(), "rewind", 2),
        (RetrainSettings(schedule="restart"), "rewind", 0),
        (RetrainSettings(start="own"), "weights", 0),
    ],
)
def test_retraining_begins_with_the_ticket_s_weights(
    settings: RetrainSettings, source: str, step: int, sparse: Ticket
) -> None:
    trainer = beginning(settings, sparse)
    assert trainer.step == step
    for name, tensor in getattr(sparse, source).items():
        if name in sparse.mask:
            assert trainer.group("weights")[name].equal(tensor * sparse.mask[name])
        else:
            assert (trainer.group("weights") | trainer.group("buffers"))[name].equal(tensor)


def test_a_fresh_start_keeps_the_network_s_own_initialisation(sparse: Ticket) -> None:
    trainer = beginning(RetrainSettings(start="fresh"), sparse)
    assert trainer.step == 0
    for name, kept in sparse.mask.items():
        assert trainer.group("weights")[name].equal(tiny().state_dict()[name] * kept)


def test_the_shuffled_control_keeps_layer_counts_and_moves_weights(sparse: Ticket) -> None:
    (control,) = retrain.search(tiny_trainer(), RetrainSettings(mask="shuffled"), sparse)
    assert control.mask.layers() == sparse.mask.layers()
    assert control.mask != sparse.mask
    (other,) = retrain.search(tiny_trainer(seed=1), RetrainSettings(mask="shuffled"), sparse)
    assert other.mask != control.mask


def test_a_retrained_ticket_is_named_after_the_one_it_came_from(sparse: Ticket) -> None:
    (again,) = retrain.search(tiny_trainer(), RetrainSettings(start="own", length="2it"), sparse)
    assert (again.point, again.index, again.judged) == ("round-1", 1, "retrained")
    assert again.target_density == 0.5


@pytest.mark.parametrize("start", ["rewind", "own"])
def test_a_ticket_without_the_weights_asked_for_is_refused(start: str, sparse: Ticket) -> None:
    bare = Ticket(sparse.mask, point="bare")
    with pytest.raises(TicketError, match=f"'bare' holds no {start} weights"):
        list(retrain.search(tiny_trainer(), RetrainSettings(start=start), bare))


@pytest.mark.parametrize("method", ["omp", "random", "bip", "retrain"])
def test_a_parent_of_another_shape_is_refused(method: str) -> None:
    parent = dense_parent(tiny_trainer(), "2it")
    for weights in (parent.weights, parent.rewind):
        assert weights is not None
        weights["linear.weight"] = torch.zeros(9, 4, dtype=torch.float64)
    with pytest.raises(TicketError, match=r"'linear.weight' of shape \(9, 4\)"):
        chosen = get_method(method)
        trainer = Trainer(tiny(), images(), TrainingSettings("7it", 8), prunable="conv")
        list(chosen.search(trainer, chosen.settings(), parent))


@pytest.mark.parametrize("method", ["omp", "random", "retrain"])
def test_a_rewind_point_at_the_end_of_training_is_refused(method: str) -> None:
    parent = dense_parent(tiny_trainer(), "7it")
    chosen = get_method(method)
    with pytest.raises(ConfigError, match=r"step 7, not before the end of training \(7 steps\)"):
        list(chosen.search(tiny_trainer(), chosen.settings(), parent))


def test_a_dense_rewind_point_after_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dense\.rewind 8it is after the end"):
        dense_parent(tiny_trainer(), "8it")


def test_an_imp_rewind_point_at_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"imp\.rewind 7it is not before the end"):
        list(imp.search(tiny_trainer(), IMPSettings(rewind="7it"), None))


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (IMPSettings, {"rounds": 0}, "at least 1"),
        (IMPSettings, {"fraction": 1.0}, r"\(0, 1\)"),
        (IMPSettings, {"rewinding": "all"}, "weights, learning-rate, none"),
        (IMPSettings, {"optimiser": "adam"}, "fresh, restored"),
        (OMPSettings, {"start": "now"}, "rewind, own, fresh"),
        (RandomSettings, {"layers": "some"}, "global, parent"),
        (RetrainSettings, {"start": "now"}, "rewind, own, fresh"),
        (RetrainSettings, {"mask": "none"}, "found, shuffled"),
        (RetrainSettings, {"schedule": "late"}, "continue, restart"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    kind: type, settings: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        kind(**settings)


def test_methods_are_found_by_name() -> None:
    assert all(method.name == name for name, method in METHODS.items())
    with pytest.raises(ConfigError, match="method is 'sgd'; expected one of dense, imp, cs, bip"):
        get_method("sgd")


def test_a_method_s_traits_are_those_of_its_settings() -> None:
    traits = {name: (method.takes_density, method.has_gates) for name, method in METHODS.items()}
    assert {traits[name] for name in ("bip", "hydra", "omp", "gmp", "random")} == {(True, False)}
    assert {traits[name] for name in ("cs", "l0", "iss")} == {(False, True)}
    assert {traits[name] for name in ("dense", "imp", "retrain")} == {(False, False)}


def groups(mask: Tensor, structure: str) -> Tensor:
    return (mask if structure == "filter" else mask.transpose(0, 1)).flatten(1)


@pytest.mark.parametrize("structure", ["filter", "channel"])
def test_structured_one_shot_pruning_keeps_the_groups_of_largest_norm(structure: str) -> None:
    parent = dense_parent(tiny_trainer())
    settings = OMPSettings(0.5, structure=structure)
    (ticket,) = omp.search(tiny_trainer(), settings, parent)
    assert parent.weights is not None
    for name, mask in ticket.mask.items():
        if mask.dim() < 4:
            assert mask.all()
            continue
        alive = groups(mask, structure)
        assert (alive.all(1) == alive.any(1)).all()
        norms = groups(parent.weights[name], structure).norm(dim=1)
        kept = alive.any(1)
        assert int(kept.sum()) == kept_groups(len(kept), 0.5)
        if not kept.all():
            assert norms[kept].min() > norms[~kept].max()


@pytest.mark.parametrize("structure", ["filter", "channel"])
def test_structured_imp_prunes_whole_groups_round_by_round(structure: str) -> None:
    settings = IMPSettings(rounds=3, fraction=0.3, structure=structure)
    tickets = list(imp.search(tiny_trainer(), settings, None))
    for r, (before, after) in enumerate(itertools.pairwise(tickets), start=1):
        for name, mask in after.mask.items():
            if mask.dim() == 4:
                alive = groups(mask, structure)
                assert (alive.all(1) == alive.any(1)).all()
                assert int(alive.any(1).sum()) == kept_groups(len(alive), 0.7**r)
                assert not (mask & ~before.mask[name]).any()
    assert tickets[-1].mask.kept < tickets[0].mask.kept


@pytest.mark.parametrize("rewind", ["0it", "3it", "7it"])
def test_retraining_from_another_point_of_the_dense_training(rewind: str) -> None:
    """As if the dense run had kept that point, bit for bit."""
    settings = {"schedule": "restart"}
    parent = dense_parent(tiny_trainer(), rewind=rewind)
    (ticket,) = omp.search(tiny_trainer(), OMPSettings(0.4, start="own"), parent)
    ticket.rewind, ticket.rewind_step = parent.rewind, parent.rewind_step
    (expected,) = retrain.search(tiny_trainer(), RetrainSettings(**settings), ticket)
    ticket.rewind = None
    trainer = tiny_trainer()
    again = RetrainSettings(rewind=rewind, **settings)
    (found,) = retrain.search(trainer, again, ticket)
    assert found.weights is not None and expected.weights is not None
    for name, tensor in expected.weights.items():
        assert found.weights[name].equal(tensor), name
    method = METHODS["retrain"]
    assert method.work(again, trainer.steps, 99) * 16 >= trainer.cost.backward_passes
    assert trainer.cost.epochs == pytest.approx((7 + int(rewind[0])) / 3)


def test_a_network_without_groups_is_refused_before_it_is_trained() -> None:
    trainer = Trainer(nn.Linear(4, 2), Dataset.from_tensors(torch.randn(9, 4), torch.arange(9) % 2))
    with pytest.raises(MaskError, match="no prunable parameter is a convolution's"):
        list(imp.search(trainer, IMPSettings(structure="filter"), None))
    assert trainer.cost.images == 0


def test_another_rewind_point_is_within_training_and_with_rewinding() -> None:
    with pytest.raises(ConfigError, match="goes with start: rewind"):
        RetrainSettings(start="own", rewind="1it")
    parent = dense_parent(tiny_trainer())
    (ticket,) = omp.search(tiny_trainer(), OMPSettings(0.4), parent)
    with pytest.raises(ConfigError, match=r"retrain.rewind 8it is after the end of training \(7"):
        list(retrain.search(tiny_trainer(), RetrainSettings(rewind="8it"), ticket))
    with pytest.raises(ConfigError, match="not before the end"):
        list(retrain.search(tiny_trainer(), RetrainSettings(rewind="7it"), ticket))
