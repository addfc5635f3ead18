"""What tells one network or loss from another, in words that are the same in every process."""

import dis
import hashlib
import re
import sys
from collections.abc import Mapping
from enum import Enum
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# What comes from these, or was installed, is told by its name: its versions are not ours to follow.
_LIBRARIES = sys.stdlib_module_names | {"lthlib", "numpy", "torch", "torchvision"}
# Of what a function reads outside of itself these count, and what can be called: lists and
# dictionaries do not, in which it may count or note something as it runs.
_SETTINGS = (bool, int, float, str, tuple, frozenset, Enum, Tensor)
_READS_OUTSIDE = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
_ADDRESS = re.compile(" at 0x[0-9a-fA-F]+")


class Description:
    """Describe functions, modules and other objects by their code and by what they hold.

    Attributes:
        tensors: those that were met, in order.
    """

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        # By id, in order; held here, so that no id comes twice.
        self._visited: dict[int, tuple[int, Any]] = {}

    def of(self, value: Any) -> Any:
        """Return plain values that say what `value` is; its tensors go to `tensors`."""
        match value:
            case Tensor():
                if value.layout == torch.strided and not value.is_meta:
                    self.tensors.append(value)
                return "tensor"
            case np.ndarray():
                return value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
            case list() | tuple():
                return [self.of(item) for item in value]
            case set() | frozenset():
                return sorted(repr(self.of(item)) for item in value)
            case Mapping():
                return [(self.of(key), self.of(item)) for key, item in value.items()]
            case CodeType():
                return value.co_code, value.co_names, self.of(value.co_consts)
            case MethodType():
                return self.of((value.__func__, value.__self__))
            case partial():
                return self.of((value.func, value.args, value.keywords))
            case FunctionType() | nn.Module() | type():
                return self._describe_once(value)
        if not _is_of_library(type(value)):
            return self._describe_once(value)
        # Of functions that are not written in Python, repr has the name; an address tells nothing.
        text = _ADDRESS.sub("", repr(value))
        wrapped = getattr(value, "__wrapped__", None)
        return text if wrapped is None else (text, self.of(wrapped))

    def _describe_once(self, value: Any) -> Any:
        if id(value) in self._visited:
            return "again", self._visited[id(value)][0]
        self._visited[id(value)] = len(self._visited), value
        if isinstance(value, FunctionType):
            return _name(value), () if _is_of_library(value) else self._describe_function(value)
        if isinstance(value, type):
            return _name(value), () if _is_of_library(value) else self._describe_class(value)
        return self.of(type(value).__mro__), self._describe_fields(value)

    def _describe_function(self, function: FunctionType) -> Any:
        outside = function.__globals__
        read = [outside[name] for name in _names_outside(function.__code__) if name in outside]
        read = [value for value in read if callable(value) or isinstance(value, _SETTINGS)]
        cells = [_cell_content(cell) for cell in function.__closure__ or ()]
        return self.of(
            [function.__code__, function.__defaults__, function.__kwdefaults__, cells, read]
        )

    def _describe_class(self, kind: type) -> Any:
        members = {n: _function_in(member) for n, member in vars(kind).items()}
        return self.of(
            {n: m for n, m in members.items() if isinstance(m, FunctionType) or n[:2] != "__"}
        )

    def _describe_fields(self, value: Any) -> Any:
        state = object.__getstate__(value)
        fields, slots = state if isinstance(state, tuple) else (state, None)
        # The keys of hooks count all hooks that were ever made in this process.
        plain = {
            name: list(field.values()) if "_hooks" in name and field else field
            for name, field in (fields or {}).items()
        }
        return self.of([plain, slots])


def _names_outside(code: CodeType) -> list[str]:
    """Names that a function, and those within it, read outside of it, in order."""
    steps = dis.get_instructions(code)
    names = [step.argval for step in steps if step.opname in _READS_OUTSIDE]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names += _names_outside(constant)
    return list(dict.fromkeys(names))


def _cell_content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty yet
        return None


def _function_in(member: Any) -> Any:
    """The function of a class's or static method, or of a property; all else as it is."""
    return getattr(member, "__func__", getattr(member, "fget", member))


def _is_of_library(value: Any) -> bool:
    name = value.__module__ or ""
    path = getattr(sys.modules.get(name), "__file__", None) or ""
    installed = "site-packages" in path or "dist-packages" in path
    return installed or name.partition(".")[0] in _LIBRARIES


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
