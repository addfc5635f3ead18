"""Pages load what they need."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from docutils import nodes
from docutils.utils.math import MathError
from matplotlib.figure import Figure
from sphinx.builders.html._assets import _JavaScript

from companion.publish import sphinx_lean
from companion.publish.sphinx_lean import explain, lean_drawing, mathml, setup, used_rules


def test_a_term_is_explained_where_a_page_first_has_it() -> None:
    page = nodes.section()
    for text in ("IMPs find a ticket, IMP another ticket.", "BiP and IMP"):
        page += nodes.paragraph("", text)
    page += nodes.literal_block("", "CS")
    explain(page)
    assert "IMPs find a ticket, IMP another ticket." in page.astext()
    marked = list(page.findall(nodes.abbreviation))
    assert [one.astext() for one in marked] == ["ticket", "IMP", "BiP"]
    assert marked[1]["explanation"].startswith("iterative magnitude pruning")


@pytest.mark.parametrize(
    ("tex", "drawn"),
    [
        (r"\theta^*", "<msup><mi>θ</mi><mo>∗</mo></msup>"),
        (r"\nabla_z", '<msub><mi mathvariant="normal">∇</mi><mi>z</mi></msub>'),
        (
            r"\lvert s\rvert",
            '<mo stretchy="false" lspace="0" rspace="0">|</mo><mi>s</mi>'
            '<mo stretchy="false" lspace="0" rspace="0">|</mo>',
        ),
        (
            r"\min(s)",
            '<mi>min</mi><mo stretchy="false">(</mo><mi>s</mi><mo stretchy="false">)</mo>',
        ),
        (
            r"b \log u",
            '<mi>b</mi><mspace width="0.17em"></mspace><mi>log</mi>'
            '<mspace width="0.17em"></mspace><mi>u</mi>',
        ),
    ],
)
def test_a_formula_is_mathml_with_the_spacing_of_tex(tex: str, drawn: str) -> None:
    whole = re.sub(r"\s*\n\s*", "", mathml(tex))
    assert whole == f'<math xmlns="http://www.w3.org/1998/Math/MathML">{drawn}</math>'


def test_a_formula_by_itself_may_have_aligned_lines() -> None:
    drawn = mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", display=True)
    assert 'display="block"' in drawn
    assert (drawn.count("<mtr>"), drawn.count("<mtd>")) == (2, 4)


def test_an_unknown_command_of_tex_is_no_formula() -> None:
    with pytest.raises(MathError, match="nonsense"):
        mathml(r"\nonsense")


def test_rules_of_classes_that_nothing_names_go() -> None:
    style = """/*! by a.person */:root{--ink:#000}
.used,.other{top:0}.other{left:0}a.used .other{left:0}p:not(.other){left:1px}
@media print{.other{top:0}.used{top:1px}}.tip-start{top:2px}.col\\:2{top:3px}"""
    kept = """/*! by a.person */:root{--ink:#000}
.used,.other{top:0}p:not(.other){left:1px}
@media print{.used{top:1px}}.tip-start{top:2px}.col\\:2{top:3px}"""
    assert used_rules(style, {"used", "tip-", "-"}) == kept


def test_marks_of_a_group_share_what_is_alike() -> None:
    svg = """<g clip-path="url(#a)">
  <use xlink:href="#m" x="1.23456" y="2" style="fill: #ffffff"/>
  <use xlink:href="#m" x="3" y="4.5" style="fill: #ffffff"/>
</g>
<g>
  <use xlink:href="#m" x="1" style="fill: #ffffff"/>
  <use xlink:href="#m" x="2" style="fill: #000000"/>
</g>
<path d="M 1.006 2" transform="scale(0.015625)"/>"""
    assert (
        lean_drawing(svg)
        == """<g clip-path="url(#a)" style="fill: #ffffff">
<use xlink:href="#m" x="1.23" y="2"/>
<use xlink:href="#m" x="3" y="4.5"/>
</g>
<g>
<use xlink:href="#m" x="1" style="fill: #ffffff"/>
<use xlink:href="#m" x="2" style="fill: #000000"/>
</g>
<path d="M 1.00 2" transform="scale(0.015625)"/>"""
    )


def test_scripts_that_no_page_uses_are_left_out_and_the_theme_is_valid() -> None:
    connected: dict[str, Callable[..., None]] = {}

    def connect(event: str, function: Callable[..., None], priority: int = 500) -> None:
        connected[event] = function

    setup(SimpleNamespace(connect=connect, add_html_math_renderer=lambda *_: None))
    body = 'const THEBE_JS_URL = "https://unpkg.com/thebe"'
    scripts = [_JavaScript(None, body=body), _JavaScript("_static/sphinx-thebe.js")]
    own = _JavaScript("_static/lthlib.js")
    context: dict[str, Any] = {"script_files": [*scripts, own], "default_mode": ""}
    connected["html-page-context"](None, "page", "page.html", context, None)
    assert context["script_files"] == [own]
    assert context["default_mode"] == "auto"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site as Sphinx and the theme make it, and a drawing as matplotlib makes it."""
    root = tmp_path_factory.mktemp("plain")
    extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_thebe"]
    (root / "conf.py").write_text(
        f"import sys\nsys.path.append({str(root)!r})\n"
        f"extensions = {extensions}\nhtml_theme = 'sphinx_book_theme'\n"
    )
    (root / "toy.py").write_text('def function() -> None:\n    """Do it."""\n')
    (root / "index.rst").write_text(
        "Toy\n===\n\n.. autofunction:: toy.function\n\n[Toy]_\n\n.. [Toy] A citation.\n"
    )
    command = [sys.executable, "-m", "sphinx", "-q", str(root), str(root / "html")]
    subprocess.run(command, check=True)
    figure = Figure()
    figure.subplots().plot([1, 2, 3], [1, 2, 3], "o")
    figure.savefig(root / "html" / "figure.svg")
    return root / "html"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("THEBE_ADDRESS", "index.html"),
        ("THEBE_STARTER", "index.html"),
        ("CITATION_LIST", "index.html"),
        ("WAY_BACK", "toy.html"),
        ("ICON", "*.css"),
        ("WOFF2", "*.css"),
        ("FINE_NUMBER", "figure.svg"),
        ("ALIKE_MARKS", "figure.svg"),
    ],
)
def test_what_is_changed_is_still_there(plain: Path, name: str, files: str) -> None:
    pattern = getattr(sphinx_lean, name)
    texts = [path.read_text("utf-8") for path in plain.rglob(files)]
    found = any(pattern.search(re.sub(r"\n\s+", "\n", text)) for text in texts)
    assert found, (
        f"sphinx_lean.{name} finds nothing in {files} of a plain site: see what is written there "
        "now, and follow it, or leave the pattern out if it is no longer needed"
    )


def test_so_are_the_files_and_the_mode_without_a_value(plain: Path) -> None:
    static = plain / "_static"
    assert (static / sphinx_lean.ICON_SCRIPT).exists(), "ICON_SCRIPT: the theme has it no more"
    assert [*static.rglob(sphinx_lean.ICON_FONTS)], "ICON_FONTS: the theme has none any more"
    assert 'data-default-mode=""' in (plain / "index.html").read_text(), (
        "the theme's pages have a mode: default_mode need no longer be set"
    )
