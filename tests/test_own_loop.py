"""A ticket holds in anybody's training loop."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthlib import Mask, Ticket
from lthlib._torchvision import torchvision  # noqa: F401 (before Lightning, which imports it)
from lthlib.errors import ConfigError, TicketError

X, Y = torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def half() -> Ticket:
    draw = torch.Generator().manual_seed(2)
    return Ticket(Mask({f"{i}.weight": torch.rand(s, generator=draw) < 0.5 for i, s in SHAPES}))


SHAPES = ((0, (8, 6)), (2, (3, 8)))


def pruned(ticket: Ticket, model: nn.Module) -> Tensor:
    """All weights that the ticket prunes."""
    own = dict(model.named_parameters())
    return torch.cat([own[name].detach()[~kept] for name, kept in ticket.mask.items()])


def steps(model: nn.Module, optimiser: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimiser.step()


OPTIMISERS: dict[str, Any] = {
    "sgd": lambda weights: torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda weights: torch.optim.AdamW(weights, 0.01, weight_decay=0.1),
    "adamw, on one tensor at a time": lambda w: torch.optim.AdamW(w, 0.01, foreach=False),
}


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("named", [True, False])
def test_pruned_weights_are_0_after_each_step_whatever_momenta_hold(kind: str, named: bool) -> None:
    ticket, model = half(), network()
    optimiser = OPTIMISERS[kind](model.parameters())
    steps(model, optimiser, 3)  # dense: its momenta would move the pruned weights
    before = model[0].weight.detach().clone()
    with ticket.enforced(model, optimiser if named else None):
        assert pruned(ticket, model).count_nonzero() == 0
        for _ in range(3):
            steps(model, optimiser, 1)
            assert pruned(ticket, model).count_nonzero() == 0
    kept = ticket.mask["0.weight"]
    assert bool((model[0].weight[kept] != before[kept]).all())
    steps(model, optimiser, 1)
    assert pruned(ticket, model).count_nonzero() > 0  # no longer enforced


def test_mixed_precision_keeps_them_at_0() -> None:
    ticket, model = half(), network()
    optimiser, scaler = torch.optim.AdamW(model.parameters(), 0.01), torch.amp.GradScaler("cpu")
    with ticket.enforced(model, optimiser):
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(X), Y)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            assert pruned(ticket, model).count_nonzero() == 0


def test_lightning_keeps_them_at_0() -> None:
    lightning = pytest.importorskip("lightning")
    ticket, model = half(), network()

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.seen = model, []

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), 0.01, weight_decay=0.1)

        def training_step(self, batch: Any, index: int) -> Tensor:
            self.seen.append(int(pruned(ticket, model).count_nonzero()))
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    module, before = Module(), model[0].weight.detach().clone()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings(), ticket.enforced(model):
        warnings.simplefilter("ignore")  # of the loader's workers
        lightning.Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, **quiet).fit(
            module, loader
        )
    assert module.seen == [0] * 6
    assert pruned(ticket, model).count_nonzero() == 0
    assert not torch.equal(model[0].weight, before)


def test_transformers_trainer_keeps_them_at_0(tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    ticket, model = half(), network()

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.model(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=8, use_cpu=True,
        weight_decay=0.1, learning_rate=0.01, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    rows = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    before = model[0].weight.detach().clone()
    with ticket.enforced(model):
        transformers.Trainer(Classifier(), arguments, train_dataset=rows).train()
    assert pruned(ticket, model).count_nonzero() == 0
    assert not torch.equal(model[0].weight, before)


def test_what_a_loop_made_of_a_ticket_is_a_ticket(tmp_path: Any) -> None:
    ticket, model = half(), network()
    optimiser = OPTIMISERS["sgd"](model.parameters())
    with ticket.enforced(model, optimiser):
        steps(model, optimiser, 3)
    ticket.with_weights(model).save(tmp_path / "t")
    again = Ticket.load(tmp_path / "t").apply(network())
    assert torch.equal(again(X), model(X))


def test_what_cannot_be_enforced_is_refused() -> None:
    ticket, model = half(), network()
    with pytest.raises(ConfigError, match="optimiser is a list; expected one of torch"):
        ticket.enforced(model, [model])  # type: ignore[arg-type]
    other = torch.optim.SGD(network().parameters(), 0.1)
    with pytest.raises(ConfigError, match="steps none of the weights"):
        ticket.enforced(model, other)
    with pytest.raises(TicketError, match="does not fit this network"):
        ticket.enforced(nn.Linear(6, 3), other)


def test_weights_of_another_network_are_refused() -> None:
    for other in (nn.Linear(6, 3), nn.Conv2d(1, 2, 3)):
        with pytest.raises(TicketError, match="does not fit this network"):
            half().with_weights(other)


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrapped", [nn.DataParallel, compiled])
def test_wrapped_networks_are_held_too(wrapped: Any) -> None:
    ticket, model = half(), network()
    optimiser = OPTIMISERS["sgd"](model.parameters())
    with ticket.enforced(wrapped(model), optimiser):
        steps(model, optimiser, 2)
    assert pruned(ticket, model).count_nonzero() == 0
    assert ticket.with_weights(wrapped(model)).weights.keys() == model.state_dict().keys()
