from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthlib.data import generator, split_indices
from lthlib.errors import ConfigError

addresses = st.tuples(st.integers(), st.lists(st.integers() | st.text(max_size=8), max_size=3))
label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=60)


def drawn(seed: int, *address: str | int) -> list[int]:
    return torch.randint(2**62, (4,), generator=generator(seed, *address)).tolist()


def test_an_address_is_pinned() -> None:
    first = torch.randperm(8, generator=generator(0, "train", 0)).tolist()
    assert first == [6, 4, 2, 5, 1, 3, 7, 0]


@given(addresses, addresses)
def test_numbers_depend_on_the_address_alone(
    first: tuple[int, list[str | int]], second: tuple[int, list[str | int]]
) -> None:
    torch.manual_seed(1)
    before = drawn(first[0], *first[1])
    torch.manual_seed(2)
    assert drawn(first[0], *first[1]) == before
    assert (drawn(second[0], *second[1]) == before) == (first == second)


def test_one_and_its_name_are_different_addresses() -> None:
    assert drawn(0, 1) != drawn(0, "1")
    assert drawn(0, "ab") != drawn(0, "a", "b")


def test_each_class_gives_as_many() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2])
    train, validation = split_indices(labels, 3, seed=0)
    assert sorted(labels[validation].tolist()) == [0, 1, 2]
    assert sorted(labels[train].tolist()) == [0, 0, 1, 1, 2, 2]


def test_a_small_class_keeps_one_and_the_others_fill_in() -> None:
    labels = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2, 2])
    _, validation = split_indices(labels, 5, seed=0)
    assert sorted(labels[validation].tolist()) == [1, 2, 2, 2, 2]


def test_no_validation_leaves_everything_for_training() -> None:
    train, validation = split_indices(torch.tensor([1, 0]), 0, seed=0)
    assert train.tolist() == [0, 1]
    assert validation.tolist() == []


@pytest.mark.parametrize("count", [-1, 3])
def test_more_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"{count} validation images.*ask for 0 to 2"):
        split_indices(torch.tensor([0, 0, 1, 1]), count, seed=0)


@given(label_lists, st.data(), st.integers(0, 9))
def test_a_split_is_balanced_complete_and_repeatable(
    values: list[int], data: st.DataObject, seed: int
) -> None:
    labels = torch.tensor(values)
    counts = torch.bincount(labels)
    spare = (counts - 1).clamp(min=0)
    count = data.draw(st.integers(0, int(spare.sum())))
    train, validation = split_indices(labels, count, seed)

    assert sorted([*train.tolist(), *validation.tolist()]) == list(range(len(values)))
    assert train.tolist() == sorted(train.tolist())
    assert validation.tolist() == sorted(validation.tolist())
    given_up = torch.bincount(labels[validation], minlength=len(counts))
    assert int(given_up.sum()) == count
    assert bool((given_up <= spare).all())
    could_give_more = given_up[given_up < spare]
    if len(could_give_more):
        assert int(given_up.max()) - int(could_give_more.min()) <= 1
    assert torch.equal(split_indices(labels, count, seed)[1], validation)


def test_another_seed_gives_another_split() -> None:
    labels = torch.arange(100) % 5
    assert not torch.equal(split_indices(labels, 20, 0)[1], split_indices(labels, 20, 1)[1])
