"""A call of the Python interface is refused in words of this library, or works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import lthlib
from lthlib import TrainingSettings, find_tickets
from lthlib.boundary import try_out
from lthlib.errors import ConfigError, DataError, LthlibError, MaskError
from lthlib.methods import METHODS
from lthlib.training import Trainer

SHORT = TrainingSettings("6it", 8, 0.05)
INPUTS = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 3
DATA = lthlib.Dataset.from_tensors(INPUTS, LABELS, validation_fraction=0, test=(INPUTS, LABELS))


def network(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, classes))


def find(
    model: Any = None, method: Any = "imp", data: Any = DATA, **more: Any
) -> list[lthlib.Ticket]:
    if method == "imp" and "density" not in more:
        more.setdefault("rounds", 1)
    options = {"training": SHORT, "progress": False} | more
    return find_tickets(network() if model is None else model, data, method, **options)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": nn.Linear}, ConfigError, "model is <class .*; expected a Module, made"),
        ({"method": None}, ConfigError, "method is None; expected str"),
        ({"data": None}, DataError, "data is a NoneType"),
        ({"density": 2}, ConfigError, r"density is 2.0; expected a kept fraction in \(0, 1\]"),
        ({"density": 1}, ConfigError, "at which imp prunes nothing"),
        ({"density": 1e-6}, MaskError, "keeps none of 66 weights"),
        ({"density": 0.5, "rounds": 2, "fraction": 0.1}, ConfigError, "two of the three"),
        ({"seed": "a"}, ConfigError, "seed is 'a'; expected int"),
        ({"pretrained": "no"}, ConfigError, "pretrained is 'no'; expected bool"),
        ({"rewind": 5}, ConfigError, "rewind is 5; expected epochs such as '85ep'"),
        ({"training": 3}, ConfigError, "training is 3; expected names with values"),
        ({"training": {"length": 5}}, ConfigError, "training.length is 5; expected epochs such as"),
        ({"training": {"length": "0.01ep"}}, ConfigError, "0.01ep is no step where an epoch has 1"),
        ({"augmentation": 3}, ConfigError, "augmentation is 3; expected names with values"),
        ({"watch": 3}, ConfigError, "watch is 3; expected a function"),
        ({"progress": None}, ConfigError, "progress is None; expected bool"),
        ({"prunable": nn.Linear(2, 2)}, MaskError, "prunable is Linear.*expected a tuple of names"),
        ({"prunable": (nn.Linear(2, 2).weight,)}, MaskError, "no parameter Parameter"),
        ({"data": (INPUTS, LABELS + 1)}, ConfigError, "labels go from 1 to 3: expected shape"),
        ({"data": (INPUTS[:0], LABELS[:0])}, DataError, "no training inputs"),
        ({"method": "bip", "length": "0it"}, ConfigError, "bip.length is '0it'; expected .* not 0"),
        (
            {"method": "gmp", "training": TrainingSettings("1it")},
            ConfigError,
            "no step lies between",
        ),
    ],
)
def test_an_argument_that_makes_no_sense_is_named(arguments, error, message: str) -> None:
    with pytest.raises(error, match=message):
        find(**arguments)


def test_numbers_of_numpy_and_mappings_for_settings_are_taken_and_saved(tmp_path) -> None:
    settings = {"length": np.str_("6it"), "batch_size": np.int64(8)}
    tickets = find(
        seed=np.int64(3), rounds=np.int64(1), fraction=np.float32(0.5), training=settings
    )
    assert tickets[-1].mask.kept == 33
    tickets[-1].save(tmp_path / "t")
    info = lthlib.Ticket.load(tmp_path / "t").info
    assert info == {
        "method": "imp",
        "settings": {"rounds": 1, "fraction": 0.5, "rewind": "0it"},
        "seed": 3,
    }


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"part": "val"}, "part is 'val'; expected one of train, validation, test"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"ticket": None}, "ticket is None; expected a Ticket"),
        ({"model": "resnet"}, "model is 'resnet'; expected a Module"),
    ],
)
def test_what_a_ticket_is_judged_with_is_checked(argument, message: str) -> None:
    usual = {"ticket": find()[-1], "data": DATA}
    with pytest.raises(ConfigError, match=message):
        lthlib.evaluate(**(usual | argument))


class Late(nn.Module):
    """Makes its last layer when it sees its first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = network(4), None

    def forward(self, x: Tensor) -> Any:
        self.head = self.head or nn.Linear(4, 3)
        return self.head(self.body(x))


class Wrapped(nn.Module):
    """What a function makes of a network and its inputs."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Any], **more: Any) -> None:
        super().__init__()
        self.function, self.inner = function, network()
        for name, value in more.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def broken(model: nn.Sequential) -> nn.Module:
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    return model


def plainly(model: Any, x: Tensor) -> Any:
    return model.inner(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (network(2), r"float32 of shape \[2, 2\] .* go from 0 to 2: expected shape \[2, 3\]"),
        (nn.Sequential(nn.Linear(8, 1), nn.Flatten(0)), r"float32 of shape \[2\]"),
        (
            nn.Linear(5, 3),
            r"fails on two training inputs \(float32 of shape \[2, 8\]\): RuntimeErr",
        ),
        (Wrapped(lambda model, x: model.inner(x).detach()), "no weight that is trained reaches"),
        (Wrapped(torch.no_grad()(plainly)), "no weight that is trained reaches"),
        (Late(), "a forward pass adds 'head.bias' to the network; run it on a batch once before"),
        (broken(network()), "gives NaN before it is trained"),
        (
            Wrapped(plainly, table=nn.Buffer(torch.eye(3).to_sparse())),
            "'table' is sparse or quantised",
        ),
        (
            Wrapped(plainly, table=nn.Buffer(torch.zeros(2, dtype=torch.complex128))),
            "'table' holds torch.complex128, which a ticket cannot hold",
        ),
        (
            Wrapped(
                lambda model, x: model.inner(
                    nn.functional.embedding(x.argmax(1), model.table, sparse=True)
                ),
                table=nn.Parameter(torch.randn(8, 8)),
            ),
            "the gradient of 'table' is sparse",
        ),
    ],
)
def test_a_network_is_tried_before_it_is_trained(model: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(model)


def test_memory_that_ends_in_the_trial_is_no_fault_of_the_network() -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        raise MemoryError

    with pytest.raises(lthlib.errors.OutOfMemory):
        find(Wrapped(forward))


def test_a_trial_changes_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    trainer = Trainer(model, DATA, SHORT)
    before = {name: tensor.clone() for name, tensor in trainer.state.items()}
    drawn = torch.get_rng_state()
    try_out(trainer)
    assert all(tensor.equal(before[name]) for name, tensor in trainer.state.items())
    assert torch.get_rng_state().equal(drawn)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_search_works_where_gradients_are_off(mode) -> None:
    torch.manual_seed(0)
    model = network()
    expected = find(model)[-1]
    with mode():
        found = find(model)[-1]
        assert lthlib.evaluate(found, DATA) == lthlib.evaluate(expected, DATA)
    assert found.mask == expected.mask


def test_a_frozen_network_is_judged_and_not_trained() -> None:
    torch.manual_seed(0)
    model = network()
    ticket = find(model)[-1]
    accuracy = lthlib.evaluate(ticket, DATA)
    frozen = network().requires_grad_(False)
    assert lthlib.evaluate(ticket, DATA, model=frozen) == accuracy
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    with pytest.raises(MaskError, match=r"'0.weight', whose weights are frozen"):
        lthlib.retrain(ticket, DATA, model=frozen, training=SHORT, progress=False)


def test_matrices_left_out_are_named_once_and_may_be_named() -> None:
    gru = nn.GRU(8, 6, batch_first=True)
    model = Wrapped(lambda model, x: model.head(model.gru(x)[0][:, -1]), gru=gru)
    model.inner, model.head = nn.Identity(), nn.Linear(6, 3)
    data = (torch.randn(24, 5, 8), LABELS)
    with pytest.warns(UserWarning, match="leaves out 252 weights in gru.weight_ih_l0") as told:
        (ticket,) = find(model, "omp", data, density=0.5)
    assert len(told) == 1 and told[0].filename == __file__
    assert ticket.mask.total == 18
    names = ("gru.weight_ih_l0", "gru.weight_hh_l0", "head.weight")
    (ticket,) = find(model, "omp", data, density=0.5, prunable=names)
    assert (ticket.mask.kept, ticket.mask.total) == (135, 270)
    for name in names:
        assert ticket.weights[name][~ticket.mask[name]].count_nonzero() == 0


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize("method", ["imp", "snip", "grasp", "bip"])
def test_a_last_batch_of_one_under_batchnorm_is_left_out_and_said(method: str) -> None:
    data = lthlib.Dataset.from_tensors(
        torch.randn(17, 8), torch.arange(17) % 3, validation_fraction=0
    )
    density = {} if method == "imp" else {"density": 0.5}
    with pytest.warns(UserWarning, match="17 images in batches of 4 leave one"):
        tickets = find(normed(), method, data, training=TrainingSettings("2ep", 4), **density)
    assert int(tickets[-1].weights["1.num_batches_tracked"]) == (16 if method == "bip" else 8)


def test_batches_of_one_alone_are_refused_under_batchnorm_only() -> None:
    with pytest.raises(ConfigError, match="24 images in batches of 1 leave BatchNorm a single one"):
        find(normed(), training=TrainingSettings("3it", 1))
    assert find(training=TrainingSettings("3it", 1))[-1].weights
    assert find(normed().eval()[0:1], training=TrainingSettings("3it", 1), data=(INPUTS, LABELS))


def test_gates_that_close_nothing_and_prunings_that_are_close_together_are_told() -> None:
    with pytest.warns(UserWarning, match="l0 pruned nothing.*longer training.length"):
        find(method="l0")
    (ticket,) = find(method="gmp", density=0.25)  # in 6 steps, though `every` is 100
    assert ticket.mask.kept == round(66 * 0.25)


def test_grasp_takes_differences_where_there_is_no_second_derivative() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Hardsigmoid(), nn.Linear(6, 3))
    with pytest.warns(UserWarning, match="grasp takes finite differences: .*hardsigmoid"):
        (ticket,) = find(model, "grasp", density=0.5)
    same = Wrapped(lambda model, x: model.inner[2]((model.inner[0](x) / 6 + 0.5).clamp(0, 1)))
    same.inner = model
    (exact,) = find(same, "grasp", density=0.5)
    assert ticket.mask["0.weight"].equal(exact.mask["inner.0.weight"])


def test_every_refusal_is_one_line() -> None:
    for model in (nn.Linear(5, 3), Wrapped(lambda model, x: 1 / 0)):
        with pytest.raises(LthlibError) as refused:
            find(model)
        assert "\n" not in str(refused.value)


PRUNING: dict[str, dict[str, Any]] = {
    "imp": {"rounds": 2, "fraction": 0.5},
    "cs": {"temperature_per": "step"},
    "l0": {},
    "iss": {"initial_gate": 0.5},
}


@pytest.mark.filterwarnings(
    "ignore:.* pruned nothing:UserWarning", "ignore:.* are stepped by SGD:UserWarning"
)
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "retrain"])
def test_a_pruned_network_stays_pruned(method: str, optimiser: str) -> None:
    torch.manual_seed(0)
    model = network()
    first = find(model, "omp", density=0.5, start="own")[-1]
    first.apply(model)
    settings = PRUNING.get(method, {"density": 0.25} if METHODS[method].takes_density else {})
    training = TrainingSettings("6it", 8, 0.05, optimiser=optimiser, weight_decay=0.1)
    with pytest.warns(UserWarning, match=r"of the prunable weights [0-9.]+% are not 0; the rest"):
        tickets = find(model, method, training=training, **settings)
    for ticket in tickets:
        for name, kept in first.mask.items():
            assert not (ticket.mask[name] & ~kept).any()
            assert ticket.weights[name][~kept].count_nonzero() == 0
    if method == "imp":
        assert [ticket.mask.kept for ticket in tickets] == [33, 16, 8]
    if METHODS[method].takes_density:
        assert tickets[-1].mask.kept == round(66 * 0.25)


def test_a_pruned_network_has_a_density_below_which_it_is_pruned() -> None:
    model = network()
    find(model, "omp", density=0.5)[-1].apply(model)
    with pytest.warns(UserWarning, match="50.0% are not 0"):
        assert find(model, density=0.1)[-1].mask.kept == round(66 * 0.1)
    with (
        pytest.warns(UserWarning, match="50.0% are not 0"),
        pytest.raises(ConfigError, match=r"density is 0.6, but the network is pruned to 0.5000"),
    ):
        find(model, density=0.6)
