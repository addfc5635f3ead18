"""A run is its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Annotated, Any

from lthlib.data import DataSettings
from lthlib.errors import ConfigError
from lthlib.methods import METHODS, get_method
from lthlib.models import ModelSettings
from lthlib.runs.identity import describe, identify
from lthlib.settings import POINT, Seed, Settings, between, build, coerce, matching, one_of
from lthlib.training import TrainingSettings


@dataclass(frozen=True)
class Parent(Settings, where="parent."):
    """The run that another starts from, and the ticket of it that is taken.

    Attributes:
        config: the run's.
        point: the ticket's name.
    """

    config: RunConfig
    point: Annotated[str, matching(POINT.pattern, "a ticket's name, letters, digits, '.' and '-'")]


@dataclass(frozen=True)
class RunConfig(Settings, where=""):
    """Everything that decides a run's result, and nothing else.

    The device and the place of files are not here. The default values are part of every id: they
    never change.

    Attributes:
        data: the data set, and how images are prepared.
        model: the network.
        training: how it is trained.
        method: one of `METHODS`.
        settings: the method's own; a mapping becomes an instance of its class of settings.
        seed: of initialisation, data order and the method's own draws.
        threads: of torch's operations; one and two give different sums.
        parent: the run that it starts from, for methods that start from one.
    """

    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    method: Annotated[str, one_of(METHODS)] = "dense"
    settings: Any = None
    seed: Seed = 0
    threads: Annotated[int, between(1, 1024)] = 1
    parent: Parent | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        method = get_method(self.method)
        settings = {} if self.settings is None else self.settings
        object.__setattr__(self, "settings", coerce(settings, method.settings, "settings"))
        if method.parent == "none" and self.parent is not None:
            raise ConfigError(f"{self.method} starts from scratch and takes no parent")
        if method.parent != "none" and self.parent is None:
            raise ConfigError(f"{self.method} starts from a {method.parent} run; give it a parent")
        if method.parent == "dense" and self.parent and self.parent.config.method != "dense":
            raise ConfigError(
                f"{self.method} starts from a dense run; its parent is {self.parent.config.method}"
            )

    @cached_property  # a sweep asks for it again and again
    def id(self) -> str:
        """16 hexadecimal digits; equal configurations, and only they, share it."""
        return identify(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The full configuration as plain JSON values; `RunConfig.from_json` reads it back."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunConfig:
        """Build a configuration, coercing values to the fields' types.

        Args:
            values: plain values, as `to_json` gives them; what is left out has its default.

        Returns:
            The configuration.

        Raises:
            ConfigError: a value makes no sense; the message names its field.
        """
        return build(cls, values, "")

    def changed(self, **values: Any) -> RunConfig:
        """A copy with other values.

        Args:
            values: by field; of settings, those that change: `training={"length": "8ep"}`.

        Returns:
            The copy.

        Raises:
            ConfigError: a value makes no sense; the message names its field.
        """
        merged: dict[str, Any] = {
            name: {**_plain(getattr(self, name)), **value} if isinstance(value, Mapping) else value
            for name, value in values.items()
        }
        return replace(self, **merged)

    def describe(self) -> str:
        """One line for people."""
        return describe(self.to_json())


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value
