"""What users have their data in: arrays, lists and map-style torch data sets, as tensors."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader

from lthlib.errors import DataError, refusal

_UNFIT = (TypeError, ValueError, RuntimeError)
_EXPECTED = "expected numbers, as many for each input: leave texts out, pad or crop"
# What the target of an item that is a mapping may be called, the first that is there.
TARGETS = ("labels", "label", "targets", "target", "y")


def tensors_of(values: Any, name: str) -> Any:
    """A tensor of an array or a list, and of each in a tuple or a mapping.

    Args:
        values: a tensor, array or list; or a tuple or mapping of such, nested as they may be.
        name: what an error calls them.

    Returns:
        A tensor on the CPU, without history; or a tuple or dictionary of such.

    Raises:
        DataError: they make no tensor.
    """
    if isinstance(values, Mapping):
        return {str(key): tensors_of(value, f"{name} {key!r}") for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(tensors_of(value, name) for value in values)
    with refusal(DataError, f"{name}: these make no tensor", _UNFIT, _EXPECTED):
        if isinstance(values, list) and values and isinstance(values[0], Tensor):
            values = torch.stack(values)
        if not isinstance(values, Tensor):
            values = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    return values.detach().cpu()


def rows_of(inputs: Any, rows: Any) -> Any:
    """Index a tensor, or each tensor of a tuple or mapping, by the same rows."""
    return inputs[rows] if isinstance(inputs, Tensor) else tree_map(lambda x: x[rows], inputs)


def read_all(data: Any, name: str = "training") -> tuple[Any, Any]:
    """Read all items of a map-style torch data set.

    Args:
        data: as `Dataset.from_torch` takes it.
        name: of the part, as an error says it.

    Returns:
        Inputs [n, ...], one tensor or a tuple or dictionary of them, and targets [n, ...].

    Raises:
        DataError: it is no such data set, holds no item or no target, or its items differ in kind
            or shape.
    """
    if isinstance(data, DataLoader):
        raise DataError(
            "data is a DataLoader; batches are drawn here, by the seed. Give its data set and its "
            "batch size instead:\n"
            "    data = lthlib.Dataset.from_torch(loader.dataset)\n"
            f"    training = lthlib.TrainingSettings(batch_size={data.batch_size})"
        )
    plain = isinstance(data, (str, bytes, Mapping, Tensor, np.ndarray))
    if plain or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise DataError(
            f"{name} data is a {type(data).__name__}; expected a Dataset or (inputs, labels), or a "
            "map-style torch data set: with a length, and (input, target) by index"
        )
    if not len(data):
        raise DataError(f"there are no {name} inputs; give at least one")
    try:
        # The first one twice, to see whether it is drawn.
        columns = _columns([data[0], *(data[row] for row in range(len(data)))], f"{name} data")
    except (KeyError, IndexError) as error:
        raise DataError(f"{name} data: the items differ ({error!r})") from None
    if not all(torch.equal(column[0], column[1]) for column in tree_leaves(columns)):
        message = f"{name} data gives another item 0 each time; it is read once, for all epochs"
        warnings.warn(message, stacklevel=3)
    return _split_target(rows_of(columns, slice(1, None)), name)


def _columns(items: list[Any], name: str) -> Any:
    first = items[0]
    if isinstance(first, Mapping):
        return {key: _columns([item[key] for item in items], f"{name} {key!r}") for key in first}
    if isinstance(first, (tuple, list)):
        indices = range(len(first))
        return tuple(_columns([item[index] for item in items], name) for index in indices)
    return tensors_of(items, name)


def _split_target(columns: Any, name: str) -> tuple[Any, Any]:
    if isinstance(columns, dict):
        target = next((key for key in TARGETS if key in columns), "")
        if target and len(columns) > 1:
            inputs = {key: column for key, column in columns.items() if key != target}
            return inputs, columns[target]
    if isinstance(columns, tuple) and len(columns) > 1:
        return columns[0] if len(columns) == 2 else columns[:-1], columns[-1]
    raise DataError(
        f"{name} data: an item has no target; expected (input, target), or a mapping in which the "
        f"target is called {', '.join(TARGETS)}"
    )
