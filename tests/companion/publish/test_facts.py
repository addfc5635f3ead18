"""What pages say about facts, and the page that is about them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from companion.publish.context import page_context
from companion.publish.render import render
from companion.publish.source import quoting
from lthlib.errors import PublishError
from tests.companion.evidence.toys import facts
from tests.companion.figures.toys import study
from tests.companion.publish.toys import REPOSITORY


def test_facts_are_said_with_what_made_them() -> None:
    context = page_context(study(3), facts())
    assert context["has_fact"]("cosine_network") is True
    assert context["has_fact"]("direct_cosine_network") is False
    assert context["fact"]("identity_error")["value"] == "1e-16"
    assert context["fact"]("cosine_network") == {
        "value": "0.85",
        "spread": "0.80 to 0.90",
        "made": "mean over a test. Seeds: 0, 1, 2 · device: a processor (cpu) · date: 2026-11-21 · "
        "commit: 0123456 · PyTorch 2.13.0",
    }
    verdict = context["claim"]("B4")["verdict"]
    assert verdict.startswith("**not run**")
    assert "Premises: bilinear identities hold to 1.0e-16" in verdict
    assert "Premises" not in page_context(study(3))["claim"]("B4")["verdict"]


@pytest.mark.parametrize(
    ("provenance", "said"),
    [({"dirty": True}, "commit: 0123456, with changes ·"), ({"commit": None}, "commit: none ·")],
)
def test_facts_of_an_uncommitted_state_say_so(provenance: dict[str, object], said: str) -> None:
    one = facts()["cosine_network"]
    own = {"cosine_network": replace(one, provenance={**one.provenance, **provenance})}
    assert said in page_context(study(3), own)["fact"]("cosine_network")["made"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            ("fact", "direct_cosine_network"),
            "fact 'direct_cosine_network' was not measured; `lth facts` measures it",
        ),
        (("fact", "speed"), "unknown fact 'speed'; known: identity_error, extra"),
        (("has_fact", "speed"), "unknown fact 'speed'"),
    ],
)
def test_facts_that_there_are_not_fail(call: tuple[str, str], message: str) -> None:
    name, argument = call
    with pytest.raises(PublishError, match=message):
        page_context(study(3), facts())[name](argument)


@pytest.mark.parametrize("measured", [True, False])
def test_the_page_on_first_order_methods_with_facts_and_without(measured: bool) -> None:
    shown = []

    def artefact(name: str) -> str:
        shown.append(name)
        return name

    known = page_context(study(3), facts() if measured else None)
    context = {**known, **quoting(REPOSITORY), "artefact": artefact}
    source = (REPOSITORY / "book" / "bilevel.md").read_text(encoding="utf-8")
    text = render("bilevel", source, context)
    assert shown == ["bilevel/hypergradient", "bilevel/table", "bilevel/distances"]
    assert ("| cosine, hypergradient, network | 0.85 | 0.80 to 0.90 |" in text) is measured
    assert ("takes 1 backward pass more" in text) is measured
    assert ("Not measured yet." in text) is not measured
    assert "| **not run**." in text
    assert ("Premises: bilinear" in text) is measured
