"""Which weights are kept: selection, counting, packing."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lthlib._torchvision import torchvision
from lthlib.errors import MaskError
from lthlib.masks import (
    Mask,
    already_pruned,
    group_axes,
    kept_count,
    kept_groups,
    left_out,
    pack,
    prunable_names,
    random_mask,
    select,
    top_k,
    top_k_global,
    unpack,
)
from lthlib.models import CifarResNet

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
NAN, INFINITY = float("nan"), float("inf")


def bits(text: str) -> torch.Tensor:
    return torch.tensor([c == "1" for c in text])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("scores", "k", "kept"),
    [
        ([3.0, 1.0, 2.0], 1, "100"),
        ([3.0, 1.0, 2.0], 2, "101"),
        ([1.0, 1.0, 1.0, 1.0], 2, "1100"),
        ([0.0, 2.0, 1.0, 2.0, 1.0, 1.0], 3, "011100"),
        ([0.0, 2.0, 1.0, 2.0, 1.0, 1.0], 4, "011110"),
        ([-1.0, -3.0, -2.0], 2, "101"),
        ([-0.0, 0.0, -0.0], 2, "110"),
        ([INFINITY, -INFINITY, INFINITY, 0.0], 3, "1011"),
        ([5.0, 4.0], 0, "00"),
        ([5.0, 4.0], 2, "11"),
    ],
)
def test_top_k_keeps_the_largest_and_among_equals_the_first(
    dtype: torch.dtype, scores: list[float], k: int, kept: str
) -> None:
    assert top_k(torch.tensor(scores, dtype=dtype), k).tolist() == bits(kept).tolist()


def test_top_k_breaks_ties_by_logical_index_whatever_the_memory_layout() -> None:
    scores = torch.zeros(2, 3, 2, 2)
    expected = torch.zeros(24, dtype=torch.bool)
    expected[:5] = True
    for layout in (torch.contiguous_format, torch.channels_last):
        assert top_k(scores.contiguous(memory_format=layout), 5).flatten().equal(expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "scores", [[NAN, 1.0, 1.0, 1.0], [NAN, 3.0, 2.0, 1.0], [1.0, NAN], [NAN] * 3]
)
@pytest.mark.parametrize("k", [0, 1, 2])
def test_top_k_refuses_nan(dtype: torch.dtype, scores: list[float], k: int) -> None:
    with pytest.raises(MaskError, match="NaN"):
        top_k(torch.tensor(scores, dtype=dtype), k)


@pytest.mark.parametrize("k", [-1, 4])
def test_top_k_refuses_more_than_there_are(k: int) -> None:
    with pytest.raises(MaskError, match=f"cannot keep {k} of 3"):
        top_k(torch.zeros(3), k)


def test_global_selection_ranks_all_layers_together() -> None:
    scores = {"a": torch.tensor([[5.0, 1.0], [2.0, 2.0]]), "b": torch.tensor([3.0, 2.0, 0.0])}
    mask = top_k_global(scores, 3)
    assert mask["a"].tolist() == [[True, False], [True, False]]
    assert mask["b"].tolist() == [True, False, False]


WEIGHTS = {
    "conv": torch.tensor([[[[3.0]], [[0.1]]], [[[0.2]], [[4.0]]], [[[1.0]], [[1.0]]]]),
    "linear": torch.tensor([[9.0, 0.0]]),
}
AXES = {"conv": (0, 1)}


@pytest.mark.parametrize(
    ("structure", "kept"),
    [("filter", [[1, 1], [1, 1], [0, 0]]), ("channel", [[0, 1], [0, 1], [0, 1]])],
)
def test_groups_are_kept_or_pruned_whole_by_the_norm_of_their_scores(
    structure: str, kept: list[list[int]]
) -> None:
    mask = select(WEIGHTS, 0.5, structure, axes=AXES)
    assert mask["conv"].squeeze().int().tolist() == kept
    assert mask["linear"].all()


def test_the_sum_of_a_group_may_rank_it_otherwise_than_its_norm() -> None:
    signed = {"conv": WEIGHTS["conv"].clone()}
    signed["conv"][1, 1] = -4.0
    assert select(signed, 0.5, "filter", axes=AXES)["conv"][:, 0].flatten().tolist() == [
        True,
        True,
        False,
    ]
    summed = select(signed, 0.5, "filter", norm="sum", axes=AXES)
    assert summed["conv"][:, 0].flatten().tolist() == [True, False, True]


def test_groups_outside_a_mask_stay_pruned() -> None:
    within = select({"conv": -WEIGHTS["conv"].abs()}, 0.5, "filter", norm="sum", axes=AXES)
    assert within["conv"][:, 0].flatten().tolist() == [True, False, True]
    mask = select({"conv": WEIGHTS["conv"]}, 1 / 3, "filter", within=within, axes=AXES)
    assert mask["conv"][:, 0].flatten().tolist() == [True, False, False]
    within = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in WEIGHTS.items()}
    within["conv"][2] = True
    assert select(WEIGHTS, 0.25, within=within).layers() == {"conv": (2, 6), "linear": (0, 2)}


@pytest.mark.parametrize("density", [0.01, 0.1, 0.3, 0.35, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("groups", [1, 3, 16])
def test_a_layer_keeps_at_least_one_group_and_all_but_the_whole_number_of_the_rest(
    groups: int, density: float
) -> None:
    kept = kept_groups(groups, density)
    assert 1 <= kept <= groups
    assert 0 <= kept - density * groups < 1 + 1e-9


def test_groups_need_convolutions_and_a_known_name() -> None:
    linear = {"linear": WEIGHTS["linear"]}
    with pytest.raises(MaskError, match="no prunable parameter is a convolution's"):
        select(linear, 0.5, "filter")
    with pytest.raises(MaskError, match="'row'; expected one of unstructured, filter, channel"):
        select(linear, 0.5, "row")
    with pytest.raises(MaskError, match="'max'; expected one of l2, sum"):
        select(linear, 0.5, norm="max")


scores_and_k = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        # Few values, so that ties are common.
        st.lists(st.integers(-3, 3).map(float), min_size=n, max_size=n),
        st.integers(0, n),
    )
)


@given(scores_and_k)
def test_top_k_is_the_euclidean_projection_onto_masks_with_k_ones(
    case: tuple[list[float], int],
) -> None:
    scores, k = case
    point = np.array(scores)
    distances = [
        float(((point - np.isin(np.arange(len(scores)), chosen)) ** 2).sum())
        for chosen in combinations(range(len(scores)), k)
    ]
    mask = top_k(torch.tensor(scores), k).numpy()
    assert mask.sum() == k
    assert ((point - mask) ** 2).sum() == pytest.approx(min(distances), abs=1e-12)


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200),
    st.floats(0, 1),
    st.sampled_from([0.5, 2.0, 1024.0]),
    st.sampled_from(DTYPES),
)
def test_top_k_is_exact_and_ignores_the_scale_of_scores(
    values: list[float], share: float, scale: float, dtype: torch.dtype
) -> None:
    # Rounded, so that scaling by a power of two neither overflows nor loses a bit.
    scores = torch.tensor(values, dtype=dtype).round()
    k = int(share * len(values))
    mask = top_k(scores, k)
    assert int(mask.sum()) == k
    assert mask.equal(top_k(scores * scale, k))
    if 0 < k < len(values):
        assert scores[mask].min() >= scores[~mask].max()


@given(
    st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple), st.integers(0, 2**31), st.data()
)
def test_packing_keeps_every_bit_of_any_shape(
    shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    packed = pack(tensor)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-tensor.numel() // 8)
    assert unpack(packed, shape).equal(tensor)


def test_packing_puts_the_first_weight_in_the_highest_bit() -> None:
    assert pack(bits("1000000101")).tolist() == [0b10000001, 0b01000000]


@pytest.mark.parametrize("packed", [torch.zeros(1, dtype=torch.uint8), torch.zeros(2)])
def test_unpacking_refuses_bytes_that_do_not_match_the_shape(packed: torch.Tensor) -> None:
    with pytest.raises(MaskError, match=r"shape \(3, 3\) needs 2 bytes"):
        unpack(packed, (3, 3))


@pytest.mark.parametrize(
    ("total", "density", "kept"),
    [
        (10, 0.1, 1),
        (10, 0.34, 3),
        (10, 0.37, 4),
        (7, 1.0, 7),
        (268_336, 0.2, 53_667),
    ],
)
def test_kept_count_is_the_nearest_integer(total: int, density: float, kept: int) -> None:
    assert kept_count(total, density) == kept


@pytest.mark.parametrize("density", [0.0, -0.1, 1.01, NAN])
def test_density_outside_its_range_is_refused(density: float) -> None:
    with pytest.raises(MaskError, match=r"expected a kept fraction in \(0, 1\]"):
        kept_count(100, density)


def test_a_mask_over_nothing_prunes_nothing() -> None:
    assert repr(Mask({})) == "Mask(0 of 0 weights kept, density 1.0000, 0 tensors)"
    with pytest.raises(MaskError, match="keeps none of 0 weights"):
        select({}, 0.5)


@pytest.mark.parametrize(
    ("values", "dtype"), [([True], "list"), (np.ones(2, bool), "bool"), (torch.ones(2), "float32")]
)
def test_a_mask_holds_booleans_only(values: object, dtype: str) -> None:
    with pytest.raises(MaskError, match=rf"mask of 'a' has dtype .*{dtype}; expected torch.bool"):
        Mask({"a": values})  # type: ignore[dict-item]


def test_a_density_that_keeps_nothing_is_refused_with_the_smallest_one() -> None:
    with pytest.raises(MaskError, match=r"keeps none of 100 weights; the smallest is 0.01"):
        kept_count(100, 0.001)


def test_counts_density_and_layers() -> None:
    mask = Mask({"a": bits("1010"), "b": bits("000001")})
    assert (mask.kept, mask.total) == (3, 10)
    assert mask.density == 0.3
    assert mask.sparsity == 0.7
    assert mask.layers() == {"a": (2, 4), "b": (1, 6)}
    assert repr(mask) == "Mask(3 of 10 weights kept, density 0.3000, 2 tensors)"


def test_overlap_is_intersection_over_union() -> None:
    a, b = Mask({"x": bits("11100")}), Mask({"x": bits("01110")})
    assert a.overlap(b) == 0.5
    assert a.overlap(Mask({"x": bits("00011")})) == 0.0
    assert Mask({"x": bits("00")}).overlap(Mask({"x": bits("00")})) == 1.0


def test_overlap_refuses_masks_over_other_parameters() -> None:
    small, large = Mask({"x": bits("11")}), Mask({"x": bits("11"), "y": bits("11")})
    for a, b in ((small, large), (large, small)):
        with pytest.raises(MaskError, match="'y'"):
            a.overlap(b)


def test_masks_are_equal_when_they_keep_the_same_weights() -> None:
    assert Mask({"x": bits("10")}) == Mask({"x": bits("10")})
    assert Mask({"x": bits("10")}) != Mask({"x": bits("01")})
    assert Mask({"x": bits("10")}) != Mask({"y": bits("10")})
    assert Mask({"x": bits("10")}) != {"x": bits("10")}


def test_extending_keeps_uncovered_parameters_whole() -> None:
    mask = Mask({"a": bits("10")}).extended({"a": torch.Size([2]), "b": torch.Size([2, 2])})
    assert mask.layers() == {"a": (1, 2), "b": (4, 4)}


@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(0, 9))
def test_shuffling_keeps_the_counts_of_each_layer(seed: int, a: int, b: int) -> None:
    mask = Mask({"a": torch.arange(6) < a, "b": (torch.arange(9) < b).view(3, 3)})
    shuffled = mask.shuffled(torch.Generator().manual_seed(seed))
    assert shuffled.layers() == mask.layers()
    assert shuffled["b"].shape == (3, 3)


def test_shuffling_moves_weights() -> None:
    mask = Mask({"a": torch.arange(1000) < 500})
    assert mask.overlap(mask.shuffled(torch.Generator().manual_seed(0))) < 0.5


def test_random_masks_have_exact_counts_and_depend_on_their_generator() -> None:
    shapes = {"a": torch.Size([30]), "b": torch.Size([5, 4])}

    def draw(seed: int) -> Mask:
        return random_mask(shapes, 17, torch.Generator().manual_seed(seed))

    assert draw(0).kept == 17
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    per_layer = random_mask(shapes, {"a": 3, "b": 20}, torch.Generator())
    assert per_layer.layers() == {"a": (3, 30), "b": (20, 20)}


def test_a_mask_for_another_network_is_refused_by_name_and_shape() -> None:
    mask = Mask({"a": bits("11")})
    with pytest.raises(MaskError, match="covers 'a', which the network lacks"):
        mask.check({"b": torch.zeros(2)})
    with pytest.raises(MaskError, match=r"'a' has shape \(2,\), the network's is \(3,\)"):
        mask.check({"a": torch.zeros(3)})


def prunable_total(model: nn.Module, which: str = "conv+linear") -> int:
    parameters = dict(model.named_parameters())
    return sum(parameters[name].numel() for name in prunable_names(model, which))


def test_prunable_weights_of_a_residual_network() -> None:
    model = CifarResNet(1, classes=10, channels=1, width=2, shortcut="projection")
    names = prunable_names(model)
    assert names[0] == "stem.weight"
    assert names[-1] == "linear.weight"
    assert "stage2.0.shortcut.0.weight" in names
    assert not any("bn" in name or "bias" in name for name in names)
    assert set(names) - set(prunable_names(model, "conv")) == {"linear.weight"}


def test_convolutions_larger_than_one_pixel_leave_shortcuts_and_classifier_dense() -> None:
    model = CifarResNet(3, classes=10, width=16, shortcut="projection-bare")
    names = prunable_names(model, "conv>1x1")
    assert (len(names), prunable_total(model, "conv>1x1")) == (19, 267_696)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 272_282
    dense = set(prunable_names(model)) - set(names)
    assert dense == {"stage2.0.shortcut.weight", "stage3.0.shortcut.weight", "linear.weight"}


@pytest.mark.parametrize(("kernel", "masked"), [((1, 1), False), ((1, 3), True), ((3, 1), True)])
def test_a_kernel_is_larger_than_one_pixel_if_one_of_its_sides_is(
    kernel: tuple[int, int], masked: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, kernel), nn.Conv2d(2, 2, 3))
    assert ("0.weight" in prunable_names(model, "conv>1x1")) == masked


def test_prunable_weights_of_mobilenet() -> None:
    model = torchvision.models.mobilenet_v2(num_classes=1000)
    # 3,504,872 parameters, less 34,112 of BatchNorm and 1,000 biases.
    assert prunable_total(model) == 3_469_760
    assert prunable_total(model, "conv") == 3_469_760 - 1_280_000
    assert len(prunable_names(model)) == 53


def test_prunable_weights_of_a_transformer_are_its_matrices() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.Embedding(5, 8), layer, nn.Linear(8, 3))
    assert prunable_names(model) == (
        "1.self_attn.in_proj_weight",
        "1.self_attn.out_proj.weight",
        "1.linear1.weight",
        "1.linear2.weight",
        "2.weight",
    )


def test_biases_of_attention_are_no_matrices_and_its_projections_are() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, add_bias_kv=True)
    assert prunable_names(attention) == (
        *("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"),
    )


def test_transposed_convolutions_count_and_their_filters_lie_across() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.ConvTranspose1d(3, 4, 2), nn.Flatten())
    assert prunable_names(model, "conv") == ("0.weight", "1.weight")
    axes = group_axes(model)
    assert axes == {"0.weight": (0, 1), "1.weight": (1, 0)}
    scores = {name: torch.ones_like(p) for name, p in model.named_parameters() if name in axes}
    scores["1.weight"][:, [0, 2]] = 0.0
    scores["1.weight"][1] = 0.0
    filters = select(scores, 0.5, "filter", axes=axes)["1.weight"]
    assert filters[:, :, 0].int().tolist() == [[0, 1, 0, 1]] * 3
    channels = select(scores, 0.5, "channel", axes=axes)["1.weight"]
    assert channels[:, 0, 0].tolist() == [True, False, True]


def test_only_convolutions_have_filters_whatever_the_rank_of_others() -> None:
    attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
    biases = {"bias_k": torch.ones_like(attention.bias_k)}
    with pytest.raises(MaskError, match="no prunable parameter is a convolution's"):
        select(biases, 0.5, "filter", axes=group_axes(attention))


def test_matrices_that_no_mask_covers_are_told_with_their_weights() -> None:
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    model = nn.ModuleDict({"words": nn.Embedding(5, 4), "past": nn.GRU(4, 2), "head": spectral})
    model["norm"] = nn.LayerNorm(4)
    model["scale"] = nn.ParameterList([torch.ones(4, 1, 1)])
    model["last"] = nn.Linear(3, 2)
    model["frozen"] = nn.Embedding(9, 9).requires_grad_(False)
    names = prunable_names(model)
    assert names == ("last.weight",)
    assert left_out(model, names) == {
        "words.weight": 20,
        "past.weight_ih_l0": 24,
        "past.weight_hh_l0": 12,
        "head.parametrizations.weight.original": 12,
    }
    assert prunable_names(model, (*left_out(model, names), "last.weight", "last.weight")) == (
        *left_out(model, names),
        "last.weight",
    )
    # Whoever asks for convolutions leaves linear layers out on purpose.
    assert left_out(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 3)), ("0.weight",)) == {}


def test_zeros_tell_of_pruning_where_they_are_many_and_not_all() -> None:
    weights = {"conv": torch.ones(10, 10), "new": torch.zeros(5)}
    weights["conv"][0, 0] = 0.0
    assert already_pruned(weights) is None  # one in a hundred may be drawn
    weights["conv"][1] = 0.0
    mask = already_pruned(weights)
    assert mask.layers() == {"conv": (89, 100), "new": (5, 5)}
    assert mask["conv"].equal(weights["conv"] != 0)


def test_a_layer_without_weights_is_no_part_of_a_mask() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, of a layer without weights
        model = nn.Sequential(nn.Linear(4, 0), nn.Linear(4, 2))
    assert prunable_names(model) == ("1.weight",)
    with pytest.raises(MaskError, match=r"'0.weight', whose weights are frozen .* or none"):
        prunable_names(model, ("0.weight",))


def test_a_shared_weight_is_listed_once_by_its_first_name() -> None:
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 5, bias=False))
    model[1].weight = model[0].weight
    assert prunable_names(model) == ("0.weight",)


def test_prunable_names_may_be_given() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert prunable_names(model, ("1.weight",)) == ("1.weight",)
    with pytest.raises(MaskError, match=r"no parameter '9.weight'; it has 0.weight, 0.bias"):
        prunable_names(model, ("9.weight",))
    with pytest.raises(MaskError, match="at least one"):
        prunable_names(model, ())


def test_what_cannot_be_pruned_is_refused() -> None:
    with pytest.raises(MaskError, match="no conv weights to prune"):
        prunable_names(nn.Linear(2, 2), "conv")
    with pytest.raises(
        MaskError, match=r"prunable is 'all'; expected one of conv\+linear, conv, conv>1x1"
    ):
        prunable_names(nn.Linear(2, 2), "all")
