"""What people wrote: how it is spelled, and which numbers are typed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from companion.publish.notebooks import read_notebook, source
from tests.companion.publish.toys import REPOSITORY

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "book").glob("*.md")),
    *sorted((REPOSITORY / "notebooks").glob("*.ipynb")),
]
CODE = [path for name in ("lthlib", "companion") for path in (REPOSITORY / name).rglob("*.py")]
# What is no prose: code, what is filled in, formulas, options and addresses, roles, versions.
OTHER = re.compile(
    r"^(`{3,}).*?^\1|`[^`]*`|\[(%|=|##).*?\2\]|\$\$.*?\$\$|\$[^$]*\$"
    r"|^:.*?$|\]\([^)]*\)|https?:\S+|\{\w+\}|Py\w+ \d+\.\d+",
    re.DOTALL | re.MULTILINE,
)
DECIMAL_OR_SHARE = re.compile(r"(?<![\w.])(?:\d+\.\d+|\d+(?= ?%))")
MEASURED = re.compile(r"\d (?:times|[µm]?s|min|minutes?|hours?|seconds?|[GMk]B)\b")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


def text_of(path: Path) -> str:
    """The prose of a page, of a notebook, or of the docstrings of a module."""
    if path.suffix == ".md":
        text = path.read_text("utf-8")
    elif path.suffix == ".ipynb":
        cells = read_notebook(path)["cells"]
        text = "\n\n".join(source(cell) for cell in cells if cell["cell_type"] == "markdown")
    else:
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        defined = [one for one in ast.walk(parsed(path)) if isinstance(one, kinds)]
        text = "\n\n".join(filter(None, map(ast.get_docstring, defined)))
    return OTHER.sub(lambda found: " " + "\n" * found[0].count("\n"), text)


def words(text: str) -> set[str]:
    """The words of a text, in lower case; shorter ones are mostly names and symbols."""
    return set(re.findall(r"[^\W\d_]{4,}", text.lower()))


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Words of the project: names of code, packages and cited works, and those of the list."""
    files = [REPOSITORY / "book" / "references.bib", REPOSITORY / "constraints.txt"]
    files += [Path(__file__).with_name("words.txt")]
    found = words(" ".join(path.read_text("utf-8") for path in files))
    for path in CODE:
        for node in ast.walk(parsed(path)):
            for name in ("id", "name", "attr", "arg"):
                found |= words(str(getattr(node, name, "")).replace("_", " "))
    return found


def misspelled(text: str, known: set[str]) -> set[str]:
    spellchecker = pytest.importorskip("spellchecker")
    unknown = spellchecker.SpellChecker().unknown(words(text) - known)
    return {word for word in unknown if word.removesuffix("s") not in known}


@pytest.mark.parametrize("paths", [PAGES, CODE], ids=["pages", "docstrings"])
def test_spelling(paths: list[Path], known: set[str]) -> None:
    text = "\n".join(map(text_of, paths))
    wrong = misspelled(text, known)
    assert not wrong, f"mend them, or add them to words.txt: {', '.join(sorted(wrong))}"


def test_a_misspelled_word_is_found(known: set[str]) -> None:
    text = "A tiket of sparsity 0.9 keeps `fwe` weights, `initalised` once: [here](lnk.md)"
    assert misspelled(OTHER.sub(" ", text), known) == {"tiket"}


def settings() -> set[float]:
    """All numbers that recipes, protocols, claims and their criteria set."""
    files = [*(REPOSITORY / "lthlib" / "recipes").glob("*.yaml")]
    files += (REPOSITORY / "companion").rglob("*.yaml")
    names = ("claims", "criteria", "facts", "protocols")
    files += [REPOSITORY / "companion" / "evidence" / f"{name}.csv" for name in names]
    text = " ".join(path.read_text("utf-8") for path in files)
    return {float(one) for one in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)}


def typed_results(text: str, numbers: set[float]) -> list[str]:
    """Numbers in prose that a record should have filled in: decimals and shares that nothing sets,
    and whatever has a unit of time, speed or memory."""
    shares = [
        found
        for found in DECIMAL_OR_SHARE.finditer(text)
        if not {value := float(found[0]), value / 100, round(1 - value / 100, 4)} & numbers
    ]
    found = [*shares, *MEASURED.finditer(text)]
    return [text[max(0, one.start() - 30) : one.end() + 10] for one in found]


def test_no_result_is_typed_by_hand() -> None:
    numbers = settings()
    typed = {path.name: typed_results(text_of(path), numbers) for path in PAGES}
    assert not {name: found for name, found in typed.items() if found}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("BiP reaches 97.31 % there", 1),
        ("it took 20 s, and is 2.4 times as fast", 3),
        ("at 5 % density, and 90 % pruned, 0.2 points below; PyTorch 2.0", 0),
        ("[= accuracy(0.0312) =] %, `--density 0.0312`, $x = 0.0312$", 0),
    ],
)
def test_which_numbers_count_as_typed(text: str, count: int) -> None:
    assert len(typed_results(OTHER.sub(" ", text), settings())) == count
