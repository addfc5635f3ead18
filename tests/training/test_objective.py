from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthlib.distributed import Ranks
from lthlib.errors import ConfigError
from lthlib.training import Objective

LOGITS = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]])  # classes 0, 1, 0
LABELS = torch.tensor([0, 0, 0])


def judged(objective: Objective, output: Tensor, target: Tensor) -> float:
    """In a batch of two and one of the rest."""
    return objective.judge(
        [(output[:2], target[:2]), (output[2:], target[2:])], Ranks()
    )  # fmt: skip


def test_classes_are_judged_by_the_percentage_of_correct_predictions() -> None:
    assert judged(Objective(), LOGITS, LABELS) == pytest.approx(200 / 3)
    assert int(Objective().correct(LOGITS, LABELS)) == 2
    pixels = torch.stack([LOGITS.T, LOGITS.T])  # [2, classes, 3]
    labels = torch.tensor([[0, 1, 0], [0, 0, 1]])
    assert judged(Objective(), pixels, labels) == pytest.approx(400 / 6)


def test_what_are_no_classes_is_judged_by_the_mean_loss_of_all() -> None:
    found, target = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 1.0, 1.0])
    assert judged(Objective(nn.MSELoss()), found, target) == pytest.approx((0 + 1 + 16) / 3)
    one = torch.tensor([[0.5], [0.5], [0.5]])  # a single logit, whose largest says nothing
    loss = Objective(lambda output, target: (output.squeeze(1) - target).abs().mean())
    assert judged(loss, one, torch.tensor([0, 1, 1])) == pytest.approx(0.5)


def test_a_metric_sees_a_whole_part_at_once() -> None:
    seen = []

    def metric(outputs: Tensor, targets: Tensor) -> Any:
        seen.append((outputs, targets))
        return (outputs.argmax(1) == targets).double().mean()

    assert judged(Objective(metric=metric), LOGITS, LABELS) == pytest.approx(2 / 3)
    assert len(seen) == 1
    assert torch.equal(seen[0][0], LOGITS)
    assert torch.equal(seen[0][1], LABELS)


def test_objectives_that_make_no_sense_are_refused() -> None:
    for wrong in ("mse", nn.MSELoss):  # an object of that class is one
        with pytest.raises(ConfigError, match=r"loss is .*; expected a function"):
            Objective(wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"targets are torch.float32 of .*; give loss="):
        Objective().check(LABELS.float(), 1)
    with pytest.raises(ConfigError, match="metric= go with training"):
        Objective(metric=nn.MSELoss()).check(LABELS, 2)
    with pytest.raises(ConfigError, match=r"loss gives shape \[3\]; expected one number"):
        Objective(nn.CrossEntropyLoss(reduction="none")).of(LOGITS, LABELS)
    with pytest.raises(ConfigError, match="loss gives float; expected one number"):
        Objective(lambda output, target: 1.0).of(LOGITS, LABELS)
    with pytest.raises(ConfigError, match="metric gives None; expected one number"):
        judged(Objective(metric=lambda outputs, targets: None), LOGITS, LABELS)
