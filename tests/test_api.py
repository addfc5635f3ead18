from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lthlib
from lthlib._torchvision import torchvision
from lthlib.errors import ConfigError, DataError, MaskError, OutOfMemory, Paused, TicketError
from lthlib.methods import METHODS
from lthlib.training import TrainingSettings
from tests.conftest import needs

# A few steps close no gate, and embeddings are no part of a mask unless they are named.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.* pruned nothing:UserWarning", "ignore:prunable .* leaves out:UserWarning"
)
SHORT = TrainingSettings(length="6it", batch_size=8, learning_rate=0.01)


@pytest.fixture(autouse=True)
def _same_networks_and_data() -> None:
    torch.manual_seed(0)


class Classifier(nn.Module):
    """A small transformer over sequences of 5 vectors of 8 numbers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).mean(1))


def mobilenet() -> tuple[nn.Module, lthlib.Dataset]:
    inputs, labels = torch.randn(40, 3, 32, 32), torch.arange(40) % 3
    data = lthlib.Dataset.from_tensors(inputs, labels, test=(inputs[:9], labels[:9]))
    return torchvision.models.mobilenet_v2(num_classes=3, width_mult=0.25), data


def transformer() -> tuple[nn.Module, lthlib.Dataset]:
    inputs, labels = torch.randn(40, 5, 8), torch.arange(40) % 3
    return Classifier(), lthlib.Dataset.from_tensors(inputs, labels, test=(inputs[:9], labels[:9]))


SETTINGS: dict[str, dict[str, Any]] = {  # of those that few steps are not enough for otherwise
    "imp": {"density": 0.25, "rounds": 2},
    "cs": {"temperature_per": "step"},
    "gmp": {"density": 0.25, "every": "1it"},
    "iss": {"initial_gate": 0.5},
}


def settings_of(method: str) -> dict[str, Any]:
    usual = {"density": 0.25} if METHODS[method].takes_density else {}
    return SETTINGS.get(method, usual)


@pytest.mark.parametrize("network", [mobilenet, transformer])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "retrain"])
def test_every_method_runs_on_any_network(method: str, network) -> None:
    model, data = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tickets = lthlib.find_tickets(
        model, data, method, training=SHORT, progress=False, **settings_of(method)
    )
    after = model.state_dict()
    assert all(
        torch.equal(before[name], after[name]) for name in before
    )  # the user's network is left alone
    ticket = tickets[-1]
    if "density" in settings_of(method):
        assert ticket.mask.kept == round(0.25 * ticket.mask.total)
    assert all(bool((ticket.weights[name][~kept] == 0).all()) for name, kept in ticket.mask.items())
    assert 0 <= lthlib.evaluate(ticket, data) <= 100
    trained = lthlib.retrain(ticket, data, training=SHORT, progress=False)
    assert trained.mask == ticket.mask


class OverLines(nn.Module):
    """digits [b, 1, 8, 8], line after line, -> logits [b, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, 32)
        self.place = nn.Parameter(torch.randn(8, 32) / 4)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8 * 32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embedding(x.flatten(1, 2)) + self.place
        return self.head(self.encoder(tokens).flatten(1))


def test_a_transformer_reaches_with_adamw_what_plain_pytorch_reaches() -> None:
    digits, model = lthlib.load_dataset("digits"), OverLines()
    x, y = (digits.train.images.permute(0, 3, 1, 2) / 255 - 0.3) / 0.37, digits.train.labels
    test = (digits.test.images.permute(0, 3, 1, 2) / 255 - 0.3) / 0.37, digits.test.labels
    data = lthlib.Dataset.from_tensors(x, y, test=test, validation_fraction=0)
    training = TrainingSettings(
        length="6ep", batch_size=64, optimiser="adamw", learning_rate=2e-3, schedule="constant",
        weight_decay=0.01,
    )  # fmt: skip
    dense, ticket = lthlib.find_tickets(
        model, data, "imp", density=0.3, rounds=1, training=training, progress=False
    )
    plain = OverLines()
    optimiser = torch.optim.AdamW(plain.parameters(), lr=2e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
            optimiser.step()
    reached = 100 * float((plain(test[0]).argmax(1) == test[1]).double().mean())
    assert reached > 80
    assert lthlib.evaluate(dense, data) > reached - 6
    assert lthlib.evaluate(ticket, data) > reached - 12


def test_a_method_that_prescribes_sgd_says_so_where_adamw_is_asked_for() -> None:
    model, data = transformer()
    training = replace(SHORT, optimiser="adamw")
    with pytest.warns(UserWarning, match="BiP's weights and scores are stepped by SGD"):
        (ticket,) = lthlib.find_tickets(
            model, data, "bip", density=0.5, training=training, progress=False
        )
    assert ticket.density == pytest.approx(0.5, abs=1e-3)


def test_a_saved_ticket_retrains_to_the_same_weights_in_another_process(tmp_path: Path) -> None:
    script = """
import sys, torch, lthlib
from torch import nn
from lthlib.training import TrainingSettings
torch.set_num_threads(1)
short = TrainingSettings(length="6it", batch_size=32)
torch.manual_seed(0)
convolution = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()]
model = nn.Sequential(*convolution, nn.Flatten(), nn.Linear(144, 10))
data = lthlib.load_dataset("digits")
if sys.argv[1] == "find":
    options = dict(rounds=1, rewind="2it", training=short, progress=False)
    ticket = lthlib.find_tickets(model, data, "imp", **options)[-1]
    ticket.save("t.safetensors")
else:
    ticket = lthlib.Ticket.load("t.safetensors")
trained = lthlib.retrain(ticket, data, model=model, training=short, progress=False)
trained.save(sys.argv[1] + ".safetensors")
"""
    for name in ("find", "again"):
        subprocess.run([sys.executable, "-c", script, name], cwd=tmp_path, check=True)
    first, second = (
        lthlib.Ticket.load(tmp_path / f"{name}.safetensors") for name in ("find", "again")
    )
    assert first.weights is not None and second.weights is not None
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_a_pretrained_network_is_pruned_as_it_is() -> None:
    model, data = transformer()
    (ticket,) = lthlib.find_tickets(
        model, data, "omp", density=0.5, pretrained=True, training=SHORT, progress=False
    )
    weights = {name: p.detach() for name, p in model.named_parameters() if name in ticket.mask}
    smallest_kept = min(float(weights[n][k].abs().min()) for n, k in ticket.mask.items() if k.any())
    largest_pruned = max(
        float(weights[n][~k].abs().max()) for n, k in ticket.mask.items() if not k.all()
    )
    assert smallest_kept >= largest_pruned


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "bop"}, ConfigError, "method is 'bop'; expected one of dense, imp"),
        (
            {"method": "bip", "density": 0.0},
            ConfigError,
            r"density is 0.0; expected a kept fraction in \(0, 1\]",
        ),
        (
            {"method": "cs", "density": 0.1, "initial_gate": 0.0},
            ConfigError,
            "density sets initial_gate",
        ),
        ({"method": "l0", "density": 0.1}, ConfigError, "l0 finds its own density"),
        (
            {"method": "imp", "round": 3},
            ConfigError,
            "unknown name 'imp.round'; expected one of rounds",
        ),
        ({"method": "retrain"}, ConfigError, "lthlib.retrain"),
        ({"seed": 0.5}, ConfigError, "seed is 0.5; expected int"),
        ({"method": "imp", "rewind": "9ep"}, ConfigError, "not before the end of training"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, error: type, message: str) -> None:
    model, data = transformer()
    with pytest.raises(error, match=message):
        lthlib.find_tickets(model, data, training=SHORT, progress=False, **arguments)


def test_a_seed_may_be_numpy_s(tmp_path: Path) -> None:
    model, data = transformer()
    (ticket,) = lthlib.find_tickets(
        model, data, "random", seed=np.int64(3), training=SHORT, progress=False
    )
    ticket.save(tmp_path / "t")
    assert lthlib.Ticket.load(tmp_path / "t").info["seed"] == 3
    assert lthlib.retrain(ticket, data, seed=np.int64(3), training=SHORT, progress=False).mask


def test_a_ticket_for_another_number_of_classes_is_refused() -> None:
    model, data = transformer()
    (ticket,) = lthlib.find_tickets(
        model, data, "random", density=0.5, training=SHORT, progress=False
    )
    other = Classifier()
    other.head = nn.Linear(8, 4)
    with pytest.raises(TicketError, match="does not fit this network"):
        lthlib.retrain(ticket, data, model=other, training=SHORT, progress=False)


def test_data_of_another_kind_are_refused() -> None:
    with pytest.raises(DataError, match="a dict; expected a Dataset or"):
        lthlib.find_tickets(nn.Linear(2, 4), {"train": torch.randn(4, 2)}, progress=False)
    loader = DataLoader(TensorDataset(torch.randn(4, 2), torch.arange(4)))
    with pytest.raises(DataError, match="a DataLoader"):
        lthlib.find_tickets(nn.Linear(2, 4), loader, progress=False)


def test_a_torch_data_set_is_taken_and_judged_as_it_is() -> None:
    pairs = TensorDataset(torch.randn(24, 2), torch.arange(24) % 4)
    (ticket,) = lthlib.find_tickets(
        nn.Linear(2, 4), pairs, "snip", density=0.5, training=SHORT, progress=False
    )
    right = ticket.apply(nn.Linear(2, 4))(pairs.tensors[0]).argmax(1) == pairs.tensors[1]
    assert lthlib.evaluate(ticket, pairs) == pytest.approx(100 * int(right.sum()) / 24)


class Pair(nn.Module):
    """Two inputs by name, and another output beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.relu(self.left(left) + self.right(right))
        return {"hidden": hidden, "logits": self.head(hidden)}


@pytest.mark.parametrize("kind", [dict, tuple])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "retrain"])
def test_every_method_takes_several_inputs_and_targets_of_any_kind(method: str, kind: Any) -> None:
    left, right = torch.randn(40, 4), torch.randn(40, 3)
    inputs = {"right": right, "left": left} if kind is dict else (left, right)
    targets = torch.stack([left[:, 0] > 0, right[:, 0] > 0], 1).float()  # of two labels each
    tickets = lthlib.find_tickets(
        Pair(), (inputs, targets), method, loss=nn.BCEWithLogitsLoss(), training=SHORT,
        progress=False, **settings_of(method),
    )  # fmt: skip
    ticket = tickets[-1]
    dense = ticket.apply(Pair())(left, right)["logits"].detach()
    expected = nn.functional.binary_cross_entropy_with_logits(dense, targets)
    assert lthlib.evaluate(ticket, (inputs, targets)) == pytest.approx(float(expected), rel=1e-5)

    def hamming(outputs: torch.Tensor, targets: torch.Tensor) -> float:
        return float(((outputs > 0) == (targets > 0)).double().mean())

    found = lthlib.evaluate(ticket, (inputs, targets), metric=hamming)
    assert found == float(((dense > 0) == (targets > 0)).double().mean())
    trained = lthlib.retrain(ticket, (inputs, targets), training=SHORT, progress=False)
    assert trained.mask == ticket.mask


def test_a_regression_in_numpy_is_learnt_and_judged_by_its_metric() -> None:
    inputs = np.random.default_rng(0).standard_normal((120, 5))
    targets = inputs @ np.array([[3.0], [0.0], [0.0], [-2.0], [0.0]])
    training = TrainingSettings(length="10ep", batch_size=20, learning_rate=0.05)
    tickets = lthlib.find_tickets(
        nn.Linear(5, 1), (inputs, targets), "imp", density=0.4, rounds=1, training=training,
        loss=nn.MSELoss(), metric=lambda out, y: 1 - (out - y).var() / y.var(), progress=False,
    )  # fmt: skip
    assert tickets[-1].mask["weight"].tolist() == [[True, False, False, True, False]]
    assert lthlib.evaluate(tickets[-1], (inputs, targets)) > 0.95  # R^2


def test_class_weights_decide_what_is_learnt() -> None:
    inputs, labels = torch.zeros(30, 2), (torch.arange(30) < 10).long()
    data = lthlib.Dataset.from_tensors(inputs, labels, test=(inputs, labels))
    training = TrainingSettings(length="10ep", batch_size=30, learning_rate=0.5)
    find = {"method": "dense", "training": training, "progress": False}
    (plain,) = lthlib.find_tickets(nn.Linear(2, 2), data, **find)
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0]))
    (weighed,) = lthlib.find_tickets(nn.Linear(2, 2), data, loss=loss, **find)
    assert lthlib.evaluate(plain, data) == pytest.approx(100 * 20 / 30)
    assert lthlib.evaluate(weighed, data) == pytest.approx(100 * 10 / 30)


def test_targets_without_a_loss_are_refused() -> None:
    with pytest.raises(ConfigError, match="cross-entropy takes an integer class for each"):
        lthlib.find_tickets(nn.Linear(2, 1), (torch.randn(8, 2), torch.randn(8)), progress=False)


def test_a_hugging_face_classifier_goes_in_unwrapped_and_its_ticket_fits_it() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=6, num_labels=3,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    mask = torch.arange(6) < 4
    rows = [
        {"input_ids": torch.randint(0, 20, (6,)), "attention_mask": mask, "labels": i % 3}
        for i in range(24)
    ]
    tickets = lthlib.find_tickets(
        model, lthlib.Dataset.from_torch(rows, test=rows), "imp", density=0.5, rounds=1,
        training=replace(SHORT, optimiser="adamw"), progress=False,
    )  # fmt: skip
    sparse = tickets[-1].apply(model).eval()
    weight = dict(sparse.named_parameters())["bert.encoder.layer.0.output.dense.weight"]
    assert 0 < int((weight == 0).sum()) < weight.numel()
    ids = torch.stack([row["input_ids"] for row in rows])
    right = sparse(ids, mask.expand(24, 6)).logits.argmax(1) == torch.arange(24) % 3
    assert lthlib.evaluate(
        tickets[-1], lthlib.Dataset.from_torch(rows, test=rows)
    ) == pytest.approx(100 * int(right.sum()) / 24)


def test_labels_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="label 3"):
        lthlib.Dataset.from_tensors(torch.randn(4, 2), torch.tensor([0, 1, 2, 3]), num_classes=3)


def test_importing_lthlib_imports_no_torch() -> None:
    subprocess.run(
        [sys.executable, "-c", "import lthlib, sys; assert 'torch' not in sys.modules"], check=True
    )


def test_a_search_that_is_watched_can_be_ended_and_leaves_the_ticket_it_stands_for() -> None:
    model, data = transformer()
    seen = []

    def watch(now: dict) -> bool:
        seen.append(now)
        return len(seen) == 2

    settings = {"gate_learning_rate": 5.0, "penalty": 1e-2, "temperature_per": "step"}
    training = TrainingSettings(length="40it", batch_size=8, learning_rate=0.01)
    (ticket,) = lthlib.find_tickets(
        model, data, "cs", training=training, progress=False, watch=watch, rewind="2it", **settings
    )
    per_epoch = -(-len(data.train) // 8)
    assert [(now["round"], now["step"]) for now in seen] == [(0, per_epoch), (0, 2 * per_epoch)]
    assert ticket.point == "stopped"
    assert ticket.density == pytest.approx(seen[-1]["density"])
    assert sum(seen[-1]["gates"]) == ticket.mask.total
    trained = lthlib.retrain(ticket, data, training=training, progress=False)
    assert trained.mask == ticket.mask


def test_a_search_that_is_ended_before_it_has_a_ticket_says_so() -> None:
    model, data = transformer()
    with pytest.raises(Paused, match="no ticket yet"):
        lthlib.find_tickets(
            model, data, "imp", training=replace(SHORT, length="20it"), progress=False,
            watch=lambda now: True,
        )  # fmt: skip


def test_two_searches_in_two_threads_find_what_each_finds_alone() -> None:
    model, data = transformer()  # with Dropout

    def search(seed: int) -> lthlib.Ticket:
        training = replace(SHORT, length="40it")
        (ticket,) = lthlib.find_tickets(
            model, data, "l0", seed=seed, training=training, progress=False, rewind="1it"
        )
        return ticket

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(search, (1, 2)))
    for ticket, alone in zip(together, map(search, (1, 2)), strict=True):
        assert ticket.mask == alone.mask
        assert all(torch.equal(ticket.weights[name], alone.weights[name]) for name in alone.weights)


def test_a_search_that_memory_does_not_hold_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, data = transformer()

    def fill(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Classifier, "forward", fill)
    with pytest.raises(OutOfMemory, match=r"\(CUDA out of memory.* smaller training\.batch_size"):
        lthlib.find_tickets(model, data, "imp", training=SHORT, progress=False)


def test_a_search_says_where_it_computes(capsys: pytest.CaptureFixture[str]) -> None:
    model, data = transformer()
    lthlib.find_tickets(model, data, "random", training=SHORT, device="cpu")
    assert "dense network on the CPU:" in capsys.readouterr().err


@needs(signal.SIGINT)
def test_ctrl_c_ends_a_search_and_leaves_its_ticket() -> None:
    model, data = transformer()
    tickets = lthlib.find_tickets(
        model, data, "cs", training=replace(SHORT, length="20it"), progress=False, rewind="0it",
        initial_gate=0.1, watch=lambda now: os.kill(os.getpid(), signal.SIGINT),
    )  # fmt: skip
    assert [ticket.point for ticket in tickets] == ["stopped"]


def test_cs_looks_for_the_initial_gate_that_gives_a_density() -> None:
    model, data = transformer()
    training = TrainingSettings(length="30it", batch_size=8, learning_rate=0.05)
    (ticket,) = lthlib.find_tickets(
        model, data, "cs", density=0.3, training=training, progress=False, rewind="2it",
        temperature_per="step", gate_learning_rate=2.0,
    )  # fmt: skip
    assert ticket.density == pytest.approx(0.3, rel=0.1)


def test_a_density_that_no_initial_gate_reaches_says_what_was_tried() -> None:
    model, data = transformer()
    settings = {"penalty": 1.0, "gate_learning_rate": 1e4}
    with pytest.raises(MaskError, match=r"no search left a weight; tried s0 = \["):
        lthlib.find_tickets(
            model, data, "cs", density=0.5, training=SHORT, progress=False, **settings
        )
