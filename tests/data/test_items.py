"""Arrays, lists and torch data sets become tensors, or say why not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from lthlib.data import Dataset
from lthlib.errors import DataError

X, Y = torch.arange(24.0).view(8, 3), torch.arange(8) % 2


class Items(TorchDataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, row: int) -> Any:
        return self.items[row]


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (X.numpy(), Y.numpy()),
        (X.numpy()[::-1][::-1], Y.numpy().astype(np.uint8)),
        (X.tolist(), Y.tolist()),
        (list(X), list(Y)),
    ],
)
def test_arrays_and_lists_are_taken_as_tensors(inputs: Any, labels: Any) -> None:
    data = Dataset.from_tensors(inputs, labels, validation_fraction=0)
    assert torch.equal(data.train.inputs.float(), X)  # type: ignore[union-attr]
    assert torch.equal(data.train.labels, Y)
    assert data.num_classes == 2


def test_several_inputs_stay_together() -> None:
    mask = X > 9
    columns = {"tokens": X.long().numpy(), "mask": mask}
    data = Dataset.from_tensors(columns, Y, validation_fraction=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 0)
    held_out = data.validation.inputs  # type: ignore[union-attr]
    assert torch.equal(held_out["tokens"] > 9, held_out["mask"])
    assert data.image_shape == {"tokens": (3,), "mask": (3,)}


@pytest.mark.parametrize("targets", [X / 9, X[:, 0] > 3, Y[:, None].repeat(1, 4)])
def test_targets_may_be_of_any_type_and_shape(targets: Tensor) -> None:
    data = Dataset.from_tensors(X, targets, validation_fraction=0.25)
    assert (len(data.train), len(data.validation), data.classes) == (6, 2, ())
    assert data.train.labels.dtype == targets.dtype
    assert data.describe().startswith("tensors: no classes, 3, 6 training")
    assert Dataset.from_tensors(X, Y, num_classes=0, validation_fraction=0).classes == ()


@pytest.mark.parametrize(
    "items",
    [
        TensorDataset(X, Y),
        Subset(TensorDataset(X, Y), range(8)),
        Items([(x.numpy(), int(y)) for x, y in zip(X, Y, strict=True)]),
        Items([[x, np.int64(y)] for x, y in zip(X, Y, strict=True)]),
    ],
)
def test_map_style_torch_data_sets_are_read(items: Any) -> None:
    data = Dataset.from_torch(items, test=items, validation=TensorDataset(X[:2], Y[:2]))
    assert torch.equal(data.train.inputs, X)  # type: ignore[union-attr]
    assert torch.equal(data.test.labels, Y)
    assert len(data.validation) == 2


def test_items_may_hold_several_inputs() -> None:
    rows = [{"ids": x, "mask": x > 9, "label": y} for x, y in zip(X, Y, strict=True)]
    inputs = Dataset.from_torch(Items(rows), validation_fraction=0).train.inputs  # type: ignore[union-attr]
    assert torch.equal(inputs["mask"], X > 9)
    three = Dataset.from_torch(TensorDataset(X, X + 1, Y), validation_fraction=0).train
    assert torch.equal(three.inputs[1], X + 1)  # type: ignore[union-attr]


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield X[0], Y[0]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (Streamed(), "a Streamed; expected a Dataset or .* with a length"),
        ("digits", "a str; expected a Dataset"),
        ({"x": X, "y": Y}, "a dict; expected a Dataset"),
        (Items([]), "no training inputs"),
        (Items(list(X)), "an item has no target"),
        (Items([{"ids": x} for x in X]), "the target is called labels, label"),
        (Items([(X[0, :2], 0), (X[0], 1)]), "training data: these make no tensor: .* pad or crop"),
        (
            Items([{"text": "a", "label": 0}]),
            "training data 'text': these make no tensor: .* leave texts",
        ),
        (Items([{"ids": X[0], "label": 0}, {"label": 1}]), "the items differ"),
        (Items([(X[0], 0), (X[0],)]), "the items differ"),
    ],
)
def test_what_cannot_be_read_is_refused(items: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.from_torch(items)


def test_a_loader_is_refused_with_the_lines_that_convert_it() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=4)
    with pytest.raises(DataError) as refused:
        Dataset.from_torch(loader)
    *_, first, second = str(refused.value).splitlines()
    import lthlib

    namespace: dict[str, Any] = {"lthlib": lthlib, "loader": loader}
    exec(f"{first.strip()}\n{second.strip()}", namespace)
    assert len(namespace["data"].train) + len(namespace["data"].validation) == 8
    assert namespace["training"].batch_size == 4


def test_items_that_are_drawn_anew_are_said_to_be_read_once() -> None:
    class Drawn(Items):
        def __getitem__(self, row: int) -> Any:
            return torch.rand(2), row % 2

    with pytest.warns(UserWarning, match="training data gives another item 0 each time"):
        Dataset.from_torch(Drawn([0] * 6))
