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


def tensors_of(given: Any, name: str) -> Any:
    """A tensor of an array or a list, and of each in a tuple or a mapping. Raises DataError, by
    name, for what makes none."""
    if isinstance(given, Mapping):
        return {str(key): tensors_of(value, f"{name} {key!r}") for key, value in given.items()}
    if isinstance(given, tuple):
        return tuple(tensors_of(value, name) for value in given)
    with refusal(DataError, f"{name}: these make no tensor", _UNFIT, _EXPECTED):
        if isinstance(given, list) and given and isinstance(given[0], Tensor):
            given = torch.stack(given)
        if not isinstance(given, Tensor):
            given = torch.from_numpy(np.require(given, requirements=["C", "W"]))
    return given.detach().cpu()


def rows_of(inputs: Any, rows: Any) -> Any:
    """These rows of a tensor, or of each of several."""
    return inputs[rows] if isinstance(inputs, Tensor) else tree_map(lambda x: x[rows], inputs)


def read_all(data: Any, name: str = "training") -> tuple[Any, Any]:
    """Inputs and targets of all items of a map-style torch data set, as `Dataset.from_torch` takes
    it. name: of the part."""
    if isinstance(data, DataLoader):
        raise DataError(
            "data is a DataLoader; batches are drawn here, by the seed. Give its data set and its "
            "batch size instead:\n"
            "    data = lthlib.Dataset.from_torch(loader.dataset)\n"
            f"    training = lthlib.TrainingSettings(batch_size={data.batch_size})"
        )
    single = isinstance(data, (str, bytes, Mapping, Tensor, np.ndarray))
    if single or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
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
        again = f"{name} data gives another item 0 each time; it is read once, for all epochs"
        warnings.warn(again, stacklevel=3)
    return _split(rows_of(columns, slice(1, None)), name)


def _columns(items: list[Any], name: str) -> Any:
    first = items[0]
    if isinstance(first, Mapping):
        return {key: _columns([item[key] for item in items], f"{name} {key!r}") for key in first}
    if isinstance(first, (tuple, list)):
        places = range(len(first))
        return tuple(_columns([item[place] for item in items], name) for place in places)
    return tensors_of(items, name)


def _split(columns: Any, name: str) -> tuple[Any, Any]:
    if isinstance(columns, dict):
        target = next((key for key in TARGETS if key in columns), "")
        if target and len(columns) > 1:
            return {key: one for key, one in columns.items() if key != target}, columns[target]
    if isinstance(columns, tuple) and len(columns) > 1:
        *inputs, targets = columns
        return inputs[0] if len(inputs) == 1 else tuple(inputs), targets
    raise DataError(
        f"{name} data: an item has no target; expected (input, target), or a mapping in which the "
        f"target is called {', '.join(TARGETS)}"
    )
