"""An extension of Sphinx for light pages: mathematics is MathML, which browsers draw by themselves;
scripts, styles and icons are those that some page uses.

What is changed is found by patterns over what others write: Jupyter Book, Sphinx, its theme,
docutils, matplotlib. A test looks for each in a plain site, and says which is no longer there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# Explained where a page first has them, to whoever points there.
_TERMS = {
    "IMP": "iterative magnitude pruning: train, prune the smallest weights, go back, and again",
    "CS": "Continuous Sparsification: every weight has a gate, which hardens while both train",
    "BiP": "bi-level pruning: mask and weights are trained in turns",
    "OMP": "one-shot magnitude pruning: train, prune the smallest weights once",
    "GMP": "gradual magnitude pruning: prune a little more at every step of training",
    "ticket": "a sparse network inside a dense one: a mask, and weights to start from",
    "rewind point": "the early step of training whose weights a ticket starts from",
    "density": "the weights that are kept, as a share of all that may be pruned",
}
_TERM = re.compile(rf"\b({'|'.join(_TERMS)})\b")

# Thebe, which could run cells, is loaded on every page: its address, twice, and what starts it.
THEBE_ADDRESS = re.compile("THEBE_JS_URL")
THEBE_STARTER = re.compile("sphinx-thebe")
# Sphinx calls citations a list, whose items are none: a screen reader would look for them.
CITATION_LIST = re.compile(r'(?<=<div) role="list"(?= class="citation-list")')
# viewcode's ways from code back to the reference, where the names stand under another module.
WAY_BACK = re.compile(r'<a class="viewcode-back".*?</a>', re.DOTALL)

# Of the theme's style sheets: icons, by the code of their character, which alone stay in the font.
ICON = re.compile(r"\"\\(f[0-9a-f]{3})\"")
# The compressed font: the other one, of which the unused icons are taken out, is smaller.
WOFF2 = re.compile(r"url\([^()]*/fa-[^()]*\.woff2\) format\(\"woff2\"\),(?=url)")
ICON_FONTS = "fa-*.ttf"
ICON_SCRIPT = "scripts/fontawesome.js"  # draws as pictures the icons of which there is a font
_RULE = re.compile(r"([^{};]+)\{[^{}]*\}")  # also inside @media
_CLASS = re.compile(r"\.([A-Za-z_-][\w-]*)")
_WORD = re.compile(r"[\w-]+")

# Of matplotlib's drawings: numbers finer than hundredths of a point; scale(0.015625) stays.
FINE_NUMBER = re.compile(r"\b(\d+\.\d\d)\d+(?![\d)])")
# Groups of marks that each repeat one style.
ALIKE_MARKS = re.compile(
    r'(<g\b(?![^>]* style=)[^>]*)>\n(<use [^>]*? (style="[^"]*")/>\n(?:<use [^>]*? \3/>\n)*)</g>'
)

# Of docutils' MathML: what browsers would draw unlike TeX, and what is drawn like it.
_SPACE = '<mspace width="0.17em"></mspace>'
_AS_TEX = {
    # Bars and braces stretch, and stand apart from what they enclose.
    r"<mo(?: class=\"math\w+\"| stretchy=\"false\")?>(?=[|‖{}])": '<mo stretchy="false" lspace="0" '
    'rspace="0">',
    r"<mo>\*</mo>": "<mo>∗</mo>",  # a star in an exponent is too high
    r"<mi>∇": '<mi mathvariant="normal">∇',  # leans
    r"<mo>([a-z]+)</mo>": r"<mi>\1</mi>",  # the name of a function, min as well as log
    # Such a name touches what is after it, where that is no bracket, and what is before it.
    r"<mo>&ApplyFunction;</mo>(?!\s*(?:<mrow>\s*)?<mo[^>]*>\()": _SPACE,
    r"(?<=</m[in]>)(?=\s*<mi(?: mathvariant=\"normal\")?>[a-z]{2})": _SPACE,
}


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer of mathematics, and connect to the making of pages and of the site."""
    app.add_html_math_renderer("mathml", (_visit_formula, None), (_visit_formula, None))
    app.connect("doctree-resolved", lambda app, page, name: explain(page))
    app.connect("html-page-context", _lighten_page, priority=900)
    app.connect("build-finished", _lighten_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def explain(page: Any) -> None:
    """Mark each term where the text of a page has it first, with what it means."""
    from docutils import nodes

    unseen = set(_TERMS)
    for text in list(page.findall(nodes.Text)):
        if isinstance(text.parent, nodes.paragraph) and unseen & set(_TERM.findall(text)):
            pieces: list[Any] = []
            for piece in _TERM.split(text):
                term = piece in unseen
                unseen.discard(piece)
                marked = nodes.abbreviation("", piece, explanation=_TERMS[piece]) if term else None
                pieces.append(marked or nodes.Text(piece))
            text.parent.replace(text, pieces)


def mathml(formula: str, display: bool = False) -> str:
    """Return TeX as MathML.

    Args:
        formula: TeX, without dollars.
        display: to stand by itself, not in a line of text.

    Raises:
        docutils.utils.math.MathError: a command is unknown.
    """
    from docutils.utils.math.latex2mathml import tex2mathml

    drawn: str = tex2mathml(formula, as_block=display)
    for pattern, instead in _AS_TEX.items():
        drawn = re.sub(pattern, instead, drawn)
    return drawn


def _visit_formula(page: Any, node: Any) -> None:
    from docutils.nodes import SkipNode, math
    from docutils.utils.math import MathError
    from sphinx.util.logging import getLogger

    display, text = not isinstance(node, math), node.astext()
    tag = "div" if display else "span"
    try:
        drawn = mathml(text, display)
    except MathError as error:
        drawn = ""
        getLogger(__name__).warning("formula %r: %s", text, error, location=node)
    page.body.append(f"{page.starttag(node, tag, '', CLASS='math notranslate')}{drawn}</{tag}>")
    raise SkipNode


def _lighten_page(
    app: Any, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    for kind in ("script_files", "css_files"):
        files = context.get(kind, [])
        context[kind] = [file for file in files if not _is_of_thebe(file)]
    context["default_mode"] = context.get("default_mode") or "auto"  # the theme's is no valid HTML
    context["body"] = WAY_BACK.sub("", CITATION_LIST.sub("", context.get("body", "")))


def _is_of_thebe(file: Any) -> bool:
    text = f"{file} {getattr(file, 'attributes', '')}"
    return any(pattern.search(text) for pattern in (THEBE_ADDRESS, THEBE_STARTER))


def _lighten_files(app: Any, error: Exception | None) -> None:
    """Take out of the theme's style sheets and fonts what no page and no script names."""
    if error or app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    (static / ICON_SCRIPT).write_text("// Icons are a font.\n", encoding="utf-8")
    naming = [*Path(app.outdir).rglob("*.html"), *static.rglob("*.js")]
    words = {word for path in naming for word in _WORD.findall(path.read_text("utf-8"))}
    icons = set()
    for path in static.rglob("*.css"):
        text = used_rules(path.read_text("utf-8"), words)
        icons |= {int(code, 16) for code in ICON.findall(text)}
        path.write_text(WOFF2.sub("", text), encoding="utf-8")
    for path in Path(app.outdir, "_images").glob("*.svg"):
        path.write_text(lean_drawing(path.read_text("utf-8")), encoding="utf-8")
    for path in static.rglob(ICON_FONTS):
        _keep_glyphs(path, icons)
        path.with_suffix(".woff2").unlink(missing_ok=True)


def used_rules(style: str, words: set[str]) -> str:
    """Return a style sheet without the rules whose every selector has a class that no word names.

    Args:
        style: the style sheet.
        words: all of the pages and the scripts. A script may put a class together: those that end
            in a hyphen stand for all that begin so.
    """
    starts = tuple(word for word in words if word.endswith("-") and word.strip("-"))

    def dead(selector: str) -> bool:
        names = _CLASS.findall(selector)
        unknown = [name for name in names if name not in words and not name.startswith(starts)]
        return bool(unknown) and "\\" not in selector

    def kept(rule: re.Match[str]) -> str:
        selectors = re.sub(r"/\*.*?\*/|\([^()]*\)", "", rule[1], flags=re.DOTALL)  # :not(.other)
        return "" if all(map(dead, selectors.split(","))) else rule[0]

    return _RULE.sub(kept, style)


def lean_drawing(svg: str) -> str:
    """Return a drawing of matplotlib with what all marks of a group share said once.

    Indents go, and places beyond hundredths of a point.
    """

    def shared(group: re.Match[str]) -> str:
        start, marks, style = group.groups()
        return f"{start} {style}>\n{marks.replace(f' {style}', '')}</g>"

    return ALIKE_MARKS.sub(shared, FINE_NUMBER.sub(r"\1", re.sub(r"\n\s+", "\n", svg)))


def _keep_glyphs(font: Path, codes: set[int]) -> None:
    from fontTools.subset import Options, Subsetter, load_font, save_font

    options = Options(name_IDs=["*"])  # its licence is one of them
    read = load_font(str(font), options)
    subset = Subsetter(options)
    subset.populate(unicodes=codes)
    subset.subset(read)
    save_font(read, str(font), options)
