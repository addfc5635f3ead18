"""The pages on BiP's tickets read right without records, and with those of each study."""

from __future__ import annotations

import re

import pytest

from tests.companion.publish.test_bip_pages import read

PAPERS = {"dilemma", "panels", "table1"}


@pytest.mark.parametrize(
    ("page", "shown"),
    [("bip-tickets", PAPERS | {"cost"}), ("bip-structured", {"panels-filter"})],
)
def test_without_records_the_paper_stands_alone(page: str, shown: set[str]) -> None:
    text, found = read(page)
    assert found == shown
    assert "yet" in text
    assert not re.search(r"\n{4}", text)


def test_records_bring_our_side_of_each_figure() -> None:
    text, found = read("bip-tickets", "cifar10-bip")
    own = {f"{name}-cifar10-bip" for name in ("dilemma", "tickets", "cost")}
    assert found == PAPERS | own
    assert "| BiP less |" in text
    assert "No run of ours" not in text


def test_filters_and_channels_come_one_by_one() -> None:
    text, found = read("bip-structured", "digits-filter")
    assert found == {"panels-filter", "tickets-digits-filter", "cost-digits-filter"}
    assert "`lth sweep digits-channel` computes ours" in text
    _, found = read("bip-structured", "digits-channel")
    assert found == {"panels-filter", "panels-channel"}
