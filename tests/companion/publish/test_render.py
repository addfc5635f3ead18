"""Filling results into pages."""

from __future__ import annotations

import pytest

from companion.publish.render import render
from lthlib.errors import PublishError


def test_values_functions_and_loops() -> None:
    source = (
        "Best: [= best | round(1) =] %.\n[## unseen ##]\n"
        "[% for x in xs %]\n- [= twice(x) =]\n[% endfor %]\n"
    )
    context = {"best": 97.25, "xs": [1, 2], "twice": lambda x: 2 * x}
    assert render("page.md", source, context) == "Best: 97.2 %.\n- 2\n- 4\n"


def test_latex_and_myst_pass_through() -> None:
    source = "$\\frac{{a}}{b}$ {{ x }} {% y %} {# z #} [[1, 2]] [a](#b) {cite}`c` <b> & [x]: y\n"
    assert render("page.md", source, {}) == source


def _fails(**_: object) -> None:
    raise KeyError("cifar11")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("bset", r"page\.md, line 3: UndefinedError: 'bset' is undefined; known: best, fails"),
        ("best.mean", "line 3: UndefinedError: .*has no attribute 'mean'"),
        ("fails()", "line 3: KeyError: 'cifar11'"),
        ("nothing", r"line 3: the value is missing \(None or NaN\)"),
        ("nan", r"line 3: the value is missing \(None or NaN\)"),
        ("best best", "line 3: expected token"),
    ],
)
def test_failures_name_page_and_line(expression: str, message: str) -> None:
    context = {"best": 97.25, "fails": _fails, "nothing": None, "nan": float("nan")}
    with pytest.raises(PublishError, match=message):
        render("page.md", f"# Title\n\nBest: [= {expression} =]\n", context)
