"""A ticket becomes a smaller network and a file, and both are compared with it before."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthlib.errors import ConfigError, TicketError
from lthlib.export import bench, export, median_interval
from lthlib.masks import Mask, group_axes, random_mask, select
from lthlib.tickets import Ticket

pytest.importorskip("torch_pruning")
onnxruntime = pytest.importorskip("onnxruntime")


class Net(nn.Module):
    """images [b, 1, 6, 6] -> logits [b, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.first(x))).mean((2, 3)))


NETWORK = Net()
IMAGES = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
WEIGHT = NETWORK.first.weight.detach()


def filters() -> Ticket:
    """Half of the filters, with weights of its own."""
    weights = {name: 2 * tensor for name, tensor in NETWORK.state_dict().items()}
    return Ticket(
        select({"first.weight": WEIGHT.abs()}, 0.5, "filter", axes=group_axes(NETWORK)), weights
    )


def scattered() -> Ticket:
    draw = torch.Generator().manual_seed(0)
    return Ticket(random_mask({"first.weight": WEIGHT.shape}, WEIGHT.numel() // 2, draw))


def test_a_ticket_becomes_a_smaller_network(capsys: pytest.CaptureFixture[str]) -> None:
    small = filters().shrink(NETWORK, IMAGES)
    expected = filters().apply(Net()).eval()
    torch.testing.assert_close(small(IMAGES[:3]), expected(IMAGES[:3]), rtol=1e-5, atol=1e-5)
    assert len(small.first.weight) == 4
    assert len(NETWORK.first.weight) == 8  # which is left as it is
    # 72 + 16 + 27 and half of the first two, 12 + 3; 36 pixels of 9 products, 24 and 12 in the head
    assert capsys.readouterr().err == (
        "115 -> 59 parameters, 0.00523 -> 0.00262 MFLOPs an image, 0.000532 -> 0.000276 MB\n"
    )


def test_it_says_when_and_why_nothing_can_be_cut(capsys: pytest.CaptureFixture[str]) -> None:
    scattered().shrink(NETWORK, IMAGES)
    assert capsys.readouterr().err == (
        "nothing can be cut: 50.0% of the weights are pruned, but too few filters or channels as a "
        "whole\n"
    )
    scattered().shrink(NETWORK, IMAGES, progress=False)
    assert not capsys.readouterr().err


def test_a_ticket_of_another_network_is_refused() -> None:
    with pytest.raises(TicketError, match="does not fit"):
        filters().shrink(nn.Linear(2, 2), IMAGES)


def test_an_example_that_the_network_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not take the example"):
        filters().shrink(NETWORK, torch.randn(4, 3, 6, 6))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ("images", "example is 'images'; expected a batch"),
        (torch.tensor(1.0), "expected a batch"),
        (IMAGES[:0], "expected a batch"),
        (IMAGES * float("nan"), "gives NaN or infinity for the example"),
    ],
)
def test_what_is_no_batch_of_inputs_is_refused(example: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        filters().shrink(NETWORK, example)


def test_arrays_will_do_and_frozen_networks_too(capsys: pytest.CaptureFixture[str]) -> None:
    frozen = copy.deepcopy(NETWORK).requires_grad_(False)
    assert len(filters().shrink(frozen, IMAGES.numpy()).first.weight) == 4


@pytest.mark.parametrize(("batches", "turns"), [((0,), 6), ((1, 2.5), 6), ((1,), 5), ((1,), "7")])
def test_nothing_is_measured_less_than_once(batches: Any, turns: Any) -> None:
    with pytest.raises(ConfigError, match="at least"):
        bench(filters(), NETWORK, IMAGES, batches, turns)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pt"])
def test_files_give_what_the_network_gives_for_any_batch(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    filters().export(NETWORK, IMAGES[:1], path)
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    expected = filters().apply(Net()).eval()(IMAGES).detach()
    if suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        (name,) = (one.name for one in session.get_inputs())
        (given,) = session.run(None, {name: IMAGES.numpy()})
        found = torch.from_numpy(given)
    elif suffix == ".pt2":
        found = torch.export.load(path).module()(IMAGES)
    else:
        with pytest.warns(DeprecationWarning):
            found = torch.jit.load(path)(IMAGES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_no_format_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"suffix is '\.h5'; expected one of \.onnx, \.pt2, \.pt"):
        filters().export(NETWORK, IMAGES, tmp_path / "net.h5")
    with pytest.raises(ConfigError, match="path is 3"):
        filters().export(NETWORK, IMAGES, 3)  # type: ignore[arg-type]


def test_a_network_that_cannot_be_converted_is_refused_by_name(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(TicketError, match=r"cannot be written as \.pt2"):
        export(Branching(), IMAGES, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_a_file_that_would_give_something_else_is_not_written(tmp_path: Path) -> None:
    class Drawn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(1)

    with pytest.raises(TicketError, match="nothing is written"):
        export(Drawn(), IMAGES, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(TicketError, match="cannot write"):
        (tmp_path / "net.pt").mkdir()
        export(NETWORK, IMAGES, tmp_path / "net.pt")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ConfigError, match=r"pip install 'lthlib\[export\]'"):
        filters().shrink(NETWORK, IMAGES)


def test_dense_masked_shrunk_and_onnx_are_timed_for_each_batch() -> None:
    found = bench(filters(), NETWORK, IMAGES, batches=(1, 5), turns=6)
    names = ["dense", "masked", "shrunk", "dense, ONNX", "shrunk, ONNX"]
    assert [(one.network, one.batch) for one in found] == [(n, b) for b in (1, 5) for n in names]
    assert all(0 < one.low <= one.median <= one.high for one in found)


def test_an_interval_of_the_median_is_bounded_by_values_in_order() -> None:
    # Binomial with n = 21: ranks 6 and 16 enclose the median in 97 % of all samples.
    assert median_interval([*range(21, 0, -1)]) == (11, 6, 16)
    assert median_interval([3, 1, 2]) == (2, 1, 3)


def test_masks_alone_leave_the_weights_of_the_model(tmp_path: Path) -> None:
    mask = Mask({"first.weight": torch.ones_like(WEIGHT, dtype=torch.bool)})
    small = Ticket(mask).shrink(NETWORK, IMAGES, progress=False)
    assert small.first.weight.equal(NETWORK.first.weight)
