"""Settings check themselves, whatever they are given."""

from __future__ import annotations

import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from companion.cluster import ClusterSettings
from lthlib.data import DataSettings
from lthlib.errors import ConfigError, LthlibError, shown
from lthlib.methods import METHODS
from lthlib.models import ModelSettings
from lthlib.runs import Parent, RunConfig
from lthlib.settings import Density, Length, Settings, between, build, one_of
from lthlib.training import TrainingSettings

KINDS: list[Any] = [
    *(method.settings for method in METHODS.values()),
    *(DataSettings, ModelSettings, TrainingSettings, ClusterSettings, RunConfig, Parent),
]
FIELDS = [(kind, f.name) for kind in KINDS for f in fields(kind)]
ODD: list[Any] = [
    *(None, True, 0, -1, 2**31, 2**64, 10**400, 10**5000, 1e308, 5e-324, 1e-30, 0.5),
    *(float("nan"), float("inf"), np.float32(0.5), np.int64(3), 1j, b"1", object()),
    *("", "x", "1e400", "nan", " 1", "1\n", "a\nb", "\ud800", "\x1b[31m", "٣it", "½", "9" * 5000),
    *("0it", "9" * 400 + "ep", "1" * 30 + "ep", "99999999999it", "0.0001ep"),
    *([], [None], [[]], [-1], ["x"], ["1ep"], {}, {"a": 1}, {1: 2}, (0.5,), (float("nan"),)),
]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY = st.recursive(
    PLAIN | st.integers(0, len(ODD) - 1).map(lambda place: ODD[place]),
    lambda inner: st.lists(inner) | st.dictionaries(PLAIN, inner),
)


@dataclass(frozen=True)
class Toy(Settings):
    count: Annotated[int, between(1, 9)] = 1
    density: Density = 0.5
    lengths: tuple[Length, ...] = ()
    kind: Annotated[str, one_of(("a", "b"))] | None = None


def test_values_become_what_their_field_is() -> None:
    toy = Toy(count=np.int64(3), density=1, lengths=["2ep"])  # type: ignore[arg-type]
    assert (toy.count, toy.density, toy.lengths) == (3, 1.0, ("2ep",))
    assert [type(toy.count), type(toy.density), type(toy.lengths)] == [int, float, tuple]
    assert build(Toy, {"density": "0.25"}, "toy") == Toy(density=0.25)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 10}, "toy.count is 10; expected at least 1 and at most 9"),
        ({"count": 2.0}, "toy.count is 2.0; expected int"),
        ({"count": True}, "toy.count is True; expected int"),
        ({"density": float("nan")}, r"toy.density is nan; expected a kept fraction in \(0, 1\]"),
        ({"density": "1_0"}, "toy.density is '1_0'; expected float"),
        ({"density": 10**5000}, "toy.density is a number of more than 300 digits; expected float"),
        ({"lengths": ["2ep", "5"]}, "toy.lengths is '5'; expected epochs such as '85ep'"),
        ({"lengths": "2ep"}, "toy.lengths is '2ep'; expected a list of str"),
        ({"kind": "c"}, "toy.kind is 'c'; expected one of a, b"),
        ({"size": 1}, "unknown name 'given.size'; expected one of count, density"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        build(Toy, values, "given")


def _unruled(kind: Any) -> bool:
    """Whether some number or text of a type may be anything."""
    if kind in (int, float, str):
        return True
    if typing.get_origin(kind) is Annotated and typing.get_origin(kind.__origin__) is None:
        return False
    return any(_unruled(inner) for inner in typing.get_args(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_and_text_has_a_rule(kind: Any) -> None:
    hints = typing.get_type_hints(kind, include_extras=True)
    assert [f.name for f in fields(kind) if _unruled(hints[f.name])] == []


def _made(kind: Any, name: str, value: Any) -> None:
    needed = {"config": RunConfig(), "point": "dense"} if kind is Parent else {}
    try:
        accepted = getattr(kind(**needed | {name: value}), name)
    except LthlibError as error:
        assert len(str(error)) < 1000 and str(error).isprintable()
    else:
        assert is_dataclass(accepted) or len(shown(accepted)) < 1000


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_field_takes_or_refuses_whatever_it_gets(kind: Any, name: str) -> None:
    for value in ODD:
        _made(kind, name, value)


@settings(max_examples=100, deadline=None, derandomize=True, phases=[Phase.generate])
@given(st.sampled_from(FIELDS), ANY)
def test_a_field_takes_or_refuses_arbitrary_values(field: tuple[Any, str], value: Any) -> None:
    _made(*field, value)
