"""How code reads: one form of docstring, with sections in one order, and names that say what they
hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Source")
Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

FILES = sorted(
    path for package in ("lthlib", "companion") for path in (ROOT / package).rglob("*.py")
)
# Names of variables that say nothing, and that nobody can search for.
VAGUE = {"own", "found", "one", "known", "given", "told", "said", "seen", "made", "wanted"}


def defined(tree: ast.Module) -> Iterator[tuple[str, Defined, str]]:
    """Classes, functions and methods with their docstrings; what stands in functions is theirs."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Defined):
                name = f"{prefix}{child.name}"
                if text := ast.get_docstring(child):
                    yield name, child, text
                if isinstance(child, ast.ClassDef):
                    waiting.append((f"{name}.", child))


def faults(node: Defined, text: str, command: bool = False) -> Iterator[str]:
    """What of a docstring is not as the form has it. Options that commands share tell of
    themselves, once: a command's docstring tells of its own."""
    if re.search(r"`[^`\s]+`\w", text):
        yield "code that touches a letter, which Sphinx does not see the end of"
    parts = re.split(r"^(\w+):\n", text, flags=re.MULTILINE)
    names = parts[1::2]
    if unknown := [name for name in names if name not in SECTIONS]:
        yield f"unknown section {unknown[0]}"
        return
    if names != sorted(names, key=SECTIONS.index) or len(set(names)) < len(names):
        yield f"sections in another order: {', '.join(names)}"
    if names and not all(part.endswith("\n\n") for part in parts[:-1:2]):
        yield "no blank line before a section"
    if node.name.startswith("_") and not node.name.startswith("__") and "\n" in text.strip():
        yield "a private helper needs a name, and no more than one paragraph"
    sections = dict(zip(names, parts[2::2], strict=True))
    for name, body in sections.items():
        if any(line and not line.startswith("    ") for line in body.splitlines()):
            yield f"{name}: a line that is not indented"
    for name in ("Returns", "Yields"):
        if ":" in re.sub(r"`.*?`", "", sections.get(name, "").partition("\n")[0]):
            yield f"{name}: a colon in the first line, before which Sphinx reads a type"
    taken = parameters(node)
    if "Args" in sections:
        told = re.findall(r"^    \*{0,2}(\w+):", sections["Args"], re.MULTILINE)
        if told != [name for name in taken if name in told or not command]:
            yield f"Args tells of {told}, the signature has {taken}"
    elif isinstance(node, ast.ClassDef) and "Attributes" not in sections:
        taken = fields(node)
    loose = re.findall(r"(?:^|[.;:] |\n)(\w+(?:, \w+)*): ", parts[0].split("\n", 1)[-1])
    if strays := [name for names in loose for name in names.split(", ") if name in taken]:
        yield f"tells of {strays[0]} outside of a section"
    if prose := re.search(r"\bRaises [A-Z]\w+|(?<=[.;\n])\s?Returns\b", parts[0]):
        yield f"{prose[0].strip()!r} outside of a section"


def parameters(node: Defined) -> list[str]:
    """The names that an `Args` section has to tell of; of a class, those of its `__init__`."""
    if isinstance(node, ast.ClassDef):
        made = [one for one in node.body if getattr(one, "name", "") == "__init__"]
        return parameters(made[0]) if made and isinstance(made[0], Defined) else []
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args]
    named += [one for one in (arguments.vararg,) if one] + arguments.kwonlyargs
    named += [one for one in (arguments.kwarg,) if one]
    return [one.arg for one in named if one.arg not in ("self", "cls", "_")]


def fields(node: ast.ClassDef) -> list[str]:
    """The fields of a dataclass, or of settings."""
    targets = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
    return [one.id for one in targets if isinstance(one, ast.Name)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_docstrings_have_one_form(path: Path) -> None:
    wrong = [
        f"{name}: {fault}"
        for name, node, text in defined(ast.parse(path.read_bytes()))
        for fault in faults(node, text, command=path.parent.name == "cli")
    ]
    assert wrong == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_variables_are_named_by_a_noun(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_bytes())))
    assigned = [
        (n.id, n) for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]
    arguments = [(node.arg, node) for node in nodes if isinstance(node, ast.arg)]
    vague = [f"line {node.lineno}: {name}" for name, node in assigned + arguments if name in VAGUE]
    assert vague == []


def test_the_form_is_told_from_others() -> None:
    good = '''
def f(x, k):
    """Do it.

    Args:
        x: [n].
        k: how many.

    Returns:
        A mask.
    """
'''
    cases = {
        good: [],
        good.replace("Args:", "Arguments:"): ["unknown section Arguments"],
        good.replace("        k: how many.\n", ""): ["Args tells of ['x'], the signature has"],
        good.replace("Do it.\n\n", "Do it.\n"): ["no blank line before a section"],
        good.replace("A mask.", "A mask: bool."): ["Returns: a colon in the first line"],
        'def f(x):\n    """Do it.\n\n    x: [n].\n    """\n': ["tells of x outside of a section"],
        'def f(x):\n    """Do it. Raises MaskError."""\n': ["'Raises MaskError' outside"],
        'def f(x):\n    """Sort `mask`s."""\n': ["code that touches a letter"],
        'def _f(x):\n    """Do it.\n\n    Well.\n    """\n': ["a private helper needs a name"],
    }
    for code, expected in cases.items():
        ((_, node, text),) = defined(ast.parse(code))
        found = list(faults(node, text))
        assert len(found) == len(expected)
        assert all(fault.startswith(start) for fault, start in zip(found, expected, strict=True))
