"""A ticket is one file that comes back as it was written, or not at all."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from lthlib.errors import TicketError
from lthlib.masks import Mask, random_mask
from lthlib.models import ModelSettings, build_model
from lthlib.tickets import Ticket


def network(classes: int = 10, width: int = 2, architecture: str = "resnet8") -> nn.Module:
    return build_model(ModelSettings(architecture, width), classes, channels=1, seed=0)


def ticket() -> Ticket:
    """A ticket with everything in it: floats, whole numbers, a scalar, and a rewind point."""
    draw = torch.Generator().manual_seed(0)
    # Not in alphabetical order: the order of the network is kept.
    shapes = {"stem": torch.Size([3, 2]), "head": torch.Size([5])}
    weights = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return Ticket(
        mask=random_mask(shapes, 4, draw),
        weights={**weights, "bn.num_batches_tracked": torch.tensor(17)},
        rewind={name: tensor.double() for name, tensor in weights.items()},
        rewind_step=12,
        point="round-3",
        index=3,
        judged="retrained",
        target_density=0.36,
        info={"config": {"method": "imp", "seed": 2}, "note": "é"},
    )


CONTENT = ticket().to_bytes()


def test_a_ticket_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = ticket()
    saved.save(tmp_path / "deep" / "t.safetensors")
    found = Ticket.load(tmp_path / "deep" / "t.safetensors")
    assert found.mask == saved.mask
    assert list(found.mask) == ["stem", "head"]
    assert (found.point, found.index, found.judged) == ("round-3", 3, "retrained")
    assert (found.rewind_step, found.target_density, found.density) == (12, 0.36, 4 / 11)
    assert found.info == {"config": {"method": "imp", "seed": 2}, "note": "é"}
    for kind in ("weights", "rewind"):
        before, after = getattr(saved, kind), getattr(found, kind)
        assert before.keys() == after.keys()
        assert all(before[name].equal(after[name]) for name in before)
        assert all(before[name].dtype == after[name].dtype for name in before)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["t.safetensors"]


def test_a_bare_mask_is_a_ticket_too() -> None:
    found = Ticket.from_bytes(Ticket(Mask({"a": torch.tensor([True, False])})).to_bytes())
    assert found.weights is None
    assert found.rewind is None
    assert found.mask["a"].tolist() == [True, False]
    assert repr(found) == f"<{found}>"
    assert str(found) == (
        "ticket 'ticket': Mask(1 of 2 weights kept, density 0.5000, 1 tensors); "
        "no weights of its own; no rewind point"
    )


def test_equal_tickets_are_equal_files() -> None:
    assert {ticket().to_bytes() for _ in range(20)} == {CONTENT}
    assert ticket().sha256() == ticket().sha256()


def test_memory_layout_does_not_reach_the_file() -> None:
    kernel = torch.arange(24.0).view(2, 3, 2, 2)
    mask = Mask({"k": torch.ones(2, 3, 2, 2, dtype=torch.bool)})
    digests = {
        Ticket(mask, {"k": kernel.contiguous(memory_format=layout)}).sha256()
        for layout in (torch.contiguous_format, torch.channels_last)
    }
    assert len(digests) == 1


def test_weights_may_be_the_rewind_point_itself() -> None:
    weights = {"a": torch.arange(3.0)}
    mask = Mask({"a": torch.ones(3, dtype=torch.bool)})
    found = Ticket.from_bytes(Ticket(mask, weights, weights).to_bytes())
    assert found.weights is not None
    assert found.rewind is not None
    assert found.weights["a"].tolist() == found.rewind["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("field", ["rewind_step", "index"])
def test_every_field_reaches_the_checksum(field: str) -> None:
    changed = ticket()
    setattr(changed, field, 5)
    assert changed.sha256() != ticket().sha256()


@given(st.integers(0, len(CONTENT) - 1))
def test_a_truncated_ticket_is_refused(length: int) -> None:
    with pytest.raises(TicketError):
        Ticket.from_bytes(CONTENT[:length])


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 7))
def test_a_ticket_with_one_flipped_bit_is_refused(position: int, bit: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[position] ^= 1 << bit
    with pytest.raises(TicketError):
        Ticket.from_bytes(bytes(damaged))


@given(st.binary(max_size=64))
def test_bytes_after_the_end_are_refused(more: bytes) -> None:
    with pytest.raises(TicketError):
        Ticket.from_bytes(CONTENT + more + b"\0")


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(TicketError):
        Ticket.from_bytes(content)


@pytest.mark.parametrize(
    "header", [b"", b"null", b"[]", b"{}", b"7", b'{"__metadata__":{"ticket":"x"}}', b"[" * 90_000]
)
def test_a_file_with_a_strange_header_is_refused(header: bytes) -> None:
    with pytest.raises(TicketError):
        Ticket.from_bytes(struct.pack("<Q", len(header)) + header)


def test_a_header_longer_than_the_file_is_refused() -> None:
    with pytest.raises(TicketError, match="shorter than its header says"):
        Ticket.from_bytes(struct.pack("<Q", 1 << 40) + b"{}")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_that_is_no_ticket_is_named_so(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(save({"a": torch.zeros(2)}, metadata=metadata))
    with pytest.raises(TicketError, match=r"weights.safetensors: .*not a ticket"):
        Ticket.load(path)


@pytest.mark.parametrize("path", [None, 3, b"t.safetensors", "a\0b"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    with pytest.raises(TicketError, match="cannot read ticket"):
        Ticket.load(path)
    with pytest.raises(TicketError, match="cannot write ticket"):
        ticket().save(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TicketError, match=r"cannot read ticket .*nothing.safetensors: No such"):
        Ticket.load(tmp_path / "nothing.safetensors")


def full_ticket(model: nn.Module) -> Ticket:
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mask = random_mask({"stem.weight": own["stem.weight"].shape}, 9, torch.Generator())
    return Ticket(mask, own, own)


def test_applying_a_ticket_puts_its_weights_in_and_zeros_where_it_prunes() -> None:
    source = build_model(ModelSettings(width=2), 10, 1, seed=1)
    found = full_ticket(source)
    model = found.apply(network())
    state = model.state_dict()
    kept = found.mask["stem.weight"]
    assert state["stem.weight"][kept].equal(source.state_dict()["stem.weight"][kept])
    assert state["stem.weight"].count_nonzero() == 9
    assert state["linear.weight"].equal(source.state_dict()["linear.weight"])


def test_applying_a_bare_mask_prunes_the_network_s_own_weights() -> None:
    model = network()
    before = model.state_dict()["stem.weight"].clone()
    mask = random_mask({"stem.weight": before.shape}, 9, torch.Generator())
    Ticket(mask).apply(model)
    assert model.state_dict()["stem.weight"].equal(before * mask["stem.weight"])


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (network(classes=3), r"'linear.weight' of shape \(10, 8\), the network has \(3, 8\)"),
        (network(width=3), r"'stem.weight' has shape \(2, 1, 3, 3\), the network's is \(3, 1"),
        (nn.Linear(2, 2), "covers 'stem.weight', which the network lacks"),
    ],
)
def test_a_ticket_for_another_network_is_refused(model: nn.Module, expected: str) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        TicketError, match=f"ticket 'ticket' does not fit this network: .*{expected}"
    ):
        full_ticket(network()).apply(model)
    after = model.state_dict()
    assert all(after[name].equal(before[name]) for name in before)


def test_a_deeper_network_is_refused() -> None:
    with pytest.raises(TicketError, match="the network has nothing of that name"):
        full_ticket(network(architecture="resnet20")).check(network())


def whole(model: nn.Module) -> Ticket:
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Ticket(Mask.full(state, ("0.weight",)), state)


def test_a_network_with_more_than_a_ticket_holds_is_refused() -> None:
    own = nn.Sequential(nn.Linear(4, 3), nn.Identity())
    found = whole(own)
    found.check(own)
    Ticket(found.mask).check(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)))  # a mask alone
    for more in (nn.LayerNorm(3), nn.BatchNorm1d(3, affine=False)):
        with pytest.raises(TicketError, match=r"has '1.[a-z_]*', of which its weights"):
            found.check(nn.Sequential(nn.Linear(4, 3), more))
    with pytest.raises(TicketError, match=r"has '1.weight', of which its rewind hold nothing"):
        Ticket(found.mask, rewind=found.weights).apply(
            nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        )


def test_a_cache_that_no_network_saves_need_not_be_in_a_ticket() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    model.register_buffer("cache", torch.zeros(2), persistent=False)
    whole(model).check(model)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_a_ticket_is_applied_to_the_network_inside_a_wrapper(wrap) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    found = whole(model)
    found.mask["0.weight"][0] = False
    assert found.apply(wrap(model)) is not model
    assert model[0].weight[0].count_nonzero() == 0
    assert model[0].weight[1].count_nonzero() == 4
