"""Named tensors in one piece of memory."""

from __future__ import annotations

import torch

from lthlib.flat import Flat, memory_order
from lthlib.masks import top_k
from lthlib.training import channels_last


def test_tensors_lie_one_after_the_other_each_in_its_own_layout() -> None:
    tensors = {
        "turned": torch.arange(6.0).view(2, 3).T,
        "last": channels_last(torch.arange(16.0).view(1, 4, 2, 2)),
        "scalar": torch.tensor(7.0),
        "none": torch.empty(0, 3),
    }
    flat = Flat.of(tensors, order=("last", "missing", "scalar", "turned", "none"))

    assert list(flat) == list(tensors) and flat.order == ("last", "scalar", "turned", "none")
    for name, tensor in tensors.items():
        assert flat[name].equal(tensor) and flat[name].stride() == tensor.stride()
    pixels = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    assert flat.data.tolist() == [*pixels, 7, 0, 1, 2, 3, 4, 5]
    flat.data.add_(1)
    assert flat["scalar"].item() == 8 and tensors["scalar"].item() == 7


def test_tensors_of_several_types_are_copied_as_bytes() -> None:
    buffers = {
        "mean": torch.tensor([1.5, 2.5, 3.5]),
        "count": torch.tensor(3),
        "open": torch.tensor([True, False, True]),
        "half": torch.tensor([0.5], dtype=torch.float16),
    }
    flat = Flat.of(buffers)
    saved = flat.data.clone()
    flat["count"].add_(1)
    flat["mean"].zero_()
    flat.data.copy_(saved)
    for name, tensor in buffers.items():
        assert flat[name].equal(tensor) and flat[name].dtype == tensor.dtype
    assert not Flat.of({}) and len(Flat.of({}).data) == 0


def test_values_can_be_laid_out_as_other_tensors_are() -> None:
    weights = Flat.of({"w": channels_last(torch.rand(2, 3, 2, 2)), "v": torch.rand(2)})
    mask = Flat.of({"w": torch.rand(2, 3, 2, 2) > 0.5}, like=weights)
    assert mask["w"].stride() == weights["w"].stride()
    packed = Flat.of({"w": torch.zeros(5)}, like=weights)
    assert packed["w"].shape == (5,)
    product = weights.like(weights.data * 2)
    assert product["w"].equal(weights["w"] * 2) and product["v"].equal(weights["v"] * 2)
    assert weights.head(["w"]).data.data_ptr() == weights["w"].data_ptr()


def test_what_vectorised_loops_leave_over_lies_last() -> None:
    sizes = {"a": 72, "b": 128, "c": 10, "d": 64}
    tensors = {name: torch.zeros(size) for name, size in sizes.items()}
    assert memory_order(tensors, ("a", "b")) == ("b", "a", "d", "c")


def test_draws_are_those_of_tensor_after_tensor_as_they_are_named() -> None:
    flat = Flat.of({"a": torch.zeros(3), "b": torch.zeros(2, 2)}, order=("b", "a"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = [torch.rand(3), torch.rand(4)]
        torch.manual_seed(3)
        draws = flat.like(flat.uniform())
    assert draws["a"].equal(expected[0]) and draws["b"].flatten().equal(expected[1])


def test_equal_scores_are_kept_in_the_order_of_their_names_and_rows() -> None:
    scores = {"a": torch.ones(2), "b": channels_last(torch.ones(1, 2, 2, 2))}
    flat = Flat.of(scores, order=("b", "a"))
    assert flat.positions.tolist() == [2, 6, 3, 7, 4, 8, 5, 9, 0, 1]
    kept = flat.like(top_k(flat.data, 5, lambda: flat.positions))
    assert kept["a"].tolist() == [True, True]
    assert kept["b"].flatten().tolist() == [True] * 3 + [False] * 5
