"""Text of others stays text in Markdown, whatever it holds."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

from companion.markdown import Markdown, code, table
from lthlib.texts import visible

EXTENSIONS = yaml.safe_load((Path(__file__).parents[2] / "_config.yml").read_text())["parse"]
MEANT = (
    "<script>alert(1)</script>",
    "&lt;",
    "[a](http://example.org)",
    "![a](b.png)",
    "<http://example.org>",
    "http://example.org www.example.org a@example.org",
    "{include}`/etc/passwd`",
    "```{include} /etc/passwd",
    "::: {raw} html",
    ":::{include} x",
    "~~~{include} x",
    "$x$ $$y$$ \\(z\\)",
    "{{ a }} {% b %} [= c =] [## d ##]",
    "% a comment",
    " % a comment",
    "# a heading",
    "a\n===",
    "---",
    "- a",
    "+ a",
    "* a",
    "1. a",
    "1) a",
    "> a",
    "    indented",
    "| a | b |",
    "(a)=",
    "[^a]: b",
    "[a]: b",
    "+++",
    ":a: b",
    "**a** __b__ ~~c~~ `d` \\*",
    "- [ ] a",
    "(http://example.org)",
    "\\",
    "`",
    "``",
    "a\\|b",
)


def parsed(text: str) -> list[Token]:
    config = MdParserConfig(enable_extensions=set(EXTENSIONS["myst_enable_extensions"]))
    parser: MarkdownIt = create_md_parser(config, RendererHTML)
    return parser.parse(text)


def shown(inline: Token) -> str:
    assert {child.type for child in inline.children or []} <= {"text", "text_special"}
    return "".join(child.content for child in inline.children or [])


def cases(test):
    for text in MEANT:
        test = example(text)(test)
    return given(st.text(string.punctuation + "ab1 \n\t\x1b", min_size=1))(test)


def one_line(text: str) -> str:
    return visible(" ".join(re.split("[ \t\n]+", text))).strip()


@cases
def test_a_text_is_a_paragraph_of_just_that_text(text: str) -> None:
    tokens = parsed(Markdown.escape(text))
    if one_line(text):
        assert [one.type for one in tokens] == ["paragraph_open", "inline", "paragraph_close"]
        assert shown(tokens[1]) == one_line(text)


@cases
def test_a_text_within_markdown_changes_nothing_around_it(text: str) -> None:
    (inline,) = (
        one for one in parsed(Markdown("c\n**a {} b**\n{}").format(text, text)) if one.content
    )
    plain = ("text", "text_special", "softbreak")
    kinds = [one.type for one in inline.children or [] if one.type not in plain]
    assert kinds == ["strong_open", "strong_close"]


@cases
def test_a_cell_of_a_table_holds_its_text(text: str) -> None:
    tokens = parsed(table(["a", text], [[text, Markdown("*b*")], [1, code(text)]], [1]))
    cells = [one for one in tokens if one.type == "inline"]
    assert tokens[0].type == "table_open"
    assert len(cells) == 6
    assert shown(cells[1]) == shown(cells[2]) == one_line(text)
    assert {one.type for one in cells[5].children or []} <= {"code_inline"}


@cases
def test_code_holds_its_text(text: str) -> None:
    (inline,) = (one for one in parsed("a " + code(text)) if one.type == "inline")
    if one_line(text):
        words, quoted = inline.children or []
        assert (words.content, quoted.content.strip()) == ("a ", one_line(text))


@pytest.mark.parametrize("value", [3, 2.5, -1.0, None])
def test_what_is_no_text_is_written_out(value: object) -> None:
    assert shown(parsed(Markdown("a {}").format(value))[1]) == f"a {value}"


def test_markdown_is_not_escaped_again() -> None:
    bold = Markdown("**{}**").format("a*")
    assert bold == r"**a\***"
    assert Markdown.escape(bold) == bold
    assert Markdown(", ").join([bold, "_"]) == r"**a\***, \_"
