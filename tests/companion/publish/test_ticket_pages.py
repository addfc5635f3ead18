"""The pages on tickets, and page one, read right without records, and with those of each study."""

from __future__ import annotations

import re

import pytest

from companion.publish import site
from companion.publish.book import Page
from companion.published import load_study
from tests.companion.publish.test_bip_pages import read
from tests.companion.publish.toys import REPOSITORY

PAPERS = {"panels", "panels-filter", "cost"}


@pytest.mark.parametrize(
    ("page", "shown"), [("bip-tickets", PAPERS), ("cs-tickets", set()), ("recipes", set())]
)
def test_without_records_the_paper_stands_alone(page: str, shown: set[str]) -> None:
    text, found = read(page)
    assert found == shown
    assert "yet" in text or "not run" in text
    assert not re.search(r"\n{4}", text)


def test_records_bring_our_side_of_each_figure() -> None:
    text, found = read("bip-tickets", "cifar10-bip")
    own = {f"{name}-cifar10-bip" for name in ("tickets", "cost")}
    assert found == PAPERS | own
    assert "| BiP less |" in text
    assert "No run of ours is published for this page" not in text


def test_the_record_shows_that_at_reduced_scale_doubling_still_gains() -> None:
    """By more than the half point that the gate allows, in each seed."""
    records = load_study(REPOSITORY / "results", "cifar10-length")
    reached = {
        (one["config"]["training"]["length"], one["seed"]): one["accuracy"]["test"]
        for one in records
    }
    gains = [reached["120ep", seed] - reached["60ep", seed] for seed in (0, 1)]
    assert len(reached) == 4 and min(gains) > 0.5
    text, _ = read("judging", records=records)
    assert f"Doubling still gains {sum(gains) / 2:+.1f} " in " ".join(text.split())
    assert "Doubling" not in read("judging")[0]


def test_filters_and_channels_come_one_by_one() -> None:
    text, _ = read("bip-tickets", "digits-filter")
    assert "`lth sweep digits-channel` computes ours" in text
    assert text.count("| BiP less |") == 1
    text, _ = read("bip-tickets", "digits-filter", "digits-channel")
    assert text.count("| BiP less |") == 2


def test_pruning_and_its_tuning_have_their_section() -> None:
    text, found = read("cs-tickets", "digits-pruning", "digits-tuning")
    assert found == {"pruning"}
    assert "**Tuning, equally.**" in text
    assert site.is_shown(REPOSITORY, Page("pruning"))


def test_every_recipe_is_listed_with_what_was_recorded() -> None:
    text, _ = read("recipes", "digits-release")
    (line,) = (line for line in text.splitlines() if line.startswith("| `digits-release` |"))
    assert "| embedded |" in line and " runs, " in line
    (line,) = (line for line in text.splitlines() if line.startswith("| `cs-vgg16` |"))
    assert line.endswith("| not run |")
