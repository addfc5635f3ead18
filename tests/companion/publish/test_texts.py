"""Every text of a record, of facts, reports and benchmarks is data: it is refused, or shown as it
is. Which texts there are is read off published ones, so that a new field is tried as well."""

from __future__ import annotations

import contextlib
import html
import inspect
import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt

from companion.evidence.claims import CLAIMS
from companion.evidence.facts import load_facts
from companion.publish.artefacts import Artefacts
from companion.publish.book import Page, build
from companion.publish.checks import load_reports, markdown
from companion.publish.context import page_context
from companion.publish.source import quoting
from companion.publish.study import PUBLISHED, Gathered
from lthlib.errors import PublishError, RecordError
from lthlib.files import sealed
from lthlib.records import validate
from tests.companion.figures import toys
from tests.companion.publish.toys import REPOSITORY, notebook

HOSTILE = (
    r"<script>alert(1)</script> <b>evil</b> {include}`/etc/passwd` $\frac$ | **evil** {{ evil }} "
    r"[evil](http://evil.example) [= evil =] [% evil %] &lt; ```{include} /etc/passwd"
)
HIDDEN = ("a\nb", "a\x1b[2Jb", "a\x9bb", "a\u202eb", "a\u2028b", "a\ud800b", "a\x7fb")
RESULTS = REPOSITORY / "results"
Place = tuple[Any, ...]


def places(value: Any, here: Place = ()) -> Iterator[Place]:
    """Where there are texts: values, and keys (their place ends in None)."""
    if isinstance(value, str):
        yield here
    inner: Any = value.items() if isinstance(value, dict) else ()
    for key, one in enumerate(value) if isinstance(value, list) else inner:
        if isinstance(key, str):
            yield (*here, key, None)
        yield from places(one, (*here, key))


def put(document: Any, place: Place, text: str) -> Any:
    """The document with a text at a place."""
    changed = deepcopy(document)
    *path, last = place[:-1] if place[-1] is None else place
    holder = changed
    for key in path:
        holder = holder[key]
    if place[-1] is None:
        holder[text] = holder.pop(last)
    else:
        holder[last] = text
    return changed


def a_record(method: str = "retrain") -> Any:
    lines = map(json.loads, (RESULTS / "digits.jsonl").read_text().splitlines())
    record = next(one for one in lines if one["method"] == method)
    return {name: value for name, value in record.items() if name not in ("above", "digest")}


def a_failure() -> Any:
    nothing = dict.fromkeys(("density", "kept", "total", "layers", "accuracy", "ticket"))
    return {**a_record(), **nothing, "status": "failed", "failure": "diverged"}


def newest(pattern: str) -> Path:
    return sorted(RESULTS.glob(pattern))[-1]


def unsealed(path: Path) -> Any:
    return {name: one for name, one in json.loads(path.read_text()).items() if name != "digest"}


def read_as(name: str, load: Callable[[Path], Any]) -> Callable[[Any, Path], None]:
    def check(document: Any, folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sealed(document) + b"\n")
        load(folder)

    return check


DOCUMENTS: dict[str, tuple[Any, Callable[[Any, Path], None]]] = {
    "record": (a_record(), lambda document, folder: validate(document)),
    "failed record": (a_failure(), lambda document, folder: validate(document)),
    "facts": (
        unsealed(RESULTS / "facts.json"),
        read_as("facts.json", load_facts),
    ),
    "report": (
        unsealed(newest("checks/*-digits.json")),
        read_as(f"checks/{newest('checks/*-digits.json').name}", load_reports),
    ),
    "benchmark": (
        unsealed(newest("bench/*-cpu.json")),
        read_as(
            "results/bench/2026-01-01-cpu.json",
            lambda root: [quoting(root)[one]("cpu") for one in ("bench_made", "bench_targets")],
        ),
    ),
}


def distinct(document: Any) -> list[Place]:
    """A place for each field, however many rows have it."""
    fields = {
        tuple(key for key in place if not isinstance(key, int)): place for place in places(document)
    }
    return list(fields.values())


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_not_seen_is_refused_everywhere(kind: str, tmp_path: Path) -> None:
    document, check = DOCUMENTS[kind]
    check(document, tmp_path)
    for place in distinct(document):
        for text in HIDDEN:
            with pytest.raises(RecordError):
                check(put(document, place, text), tmp_path)


def hostile(kind: str, folder: Path) -> Any:
    """The document with a hostile text wherever it may have one."""
    document, check = DOCUMENTS[kind]
    for place in reversed(distinct(document)):  # values before the keys that hold them
        changed = put(document, place, HOSTILE)
        try:
            check(changed, folder)
        except (RecordError, KeyError):
            continue
        document = changed
    check(document, folder)
    return document


def called(functions: dict[str, Callable[..., Any]], given: dict[str, Any]) -> list[str]:
    """Expressions that call each function that takes what is given."""
    found = []
    for name, function in functions.items():
        takes = inspect.signature(function).parameters.values()
        needed = [one.name for one in takes if one.default is one.empty and one.kind < 2]
        if set(needed) <= set(given):
            with contextlib.suppress(PublishError, LookupError):
                function(*(given[one] for one in needed))
                found.append(f"{name}({', '.join(repr(given[one]) for one in needed)})")
    return found


def test_no_text_is_more_than_text_on_a_page(toy: Path, tmp_path: Path) -> None:
    for kind in ("facts", "report", "benchmark"):
        hostile(kind, tmp_path)
    (tmp_path / "results" / "evil.md").write_text(HOSTILE)
    (toy / "results").rmdir()
    (tmp_path / "results").rename(toy / "results")
    facts, reports = load_facts(tmp_path), load_reports(tmp_path)
    records = toys.study(3)
    for record in records:
        record["provenance"] |= {"device": HOSTILE, "device_name": HOSTILE, "commit": HOSTILE}
        record["scale"] = HOSTILE
        record["label"] = record["label"].replace("BiP", HOSTILE)
    context = page_context(records, facts, reports)
    given = {"study": "toy", "label": HOSTILE, "density": 0.5, "densities": [0.5, 0.3]}
    given |= {"other": "dense", "claim_id": "B1", "suite": "cpu"}
    given |= {"name": next(iter(facts))}
    calls = called({**context, **quoting(toy)}, given)
    assert {"made('toy')", "studies()", "bench_made('cpu')"} <= set(calls)
    (study,) = reports
    calls += [f"{name}(reports()[{study!r}])" for name in ("check", "check_table")]
    calls += [f"fact({given['name']!r}).made"]
    lines = [f"{n}. a [= {one} =] b\n" for n, one in enumerate(calls)]
    lines += [f"\n[= {one} =]\n" for one in calls]
    # The board leads to each claim.
    lines += [f"\n(claim-{claim.id})=\n## {claim.id}\n" for claim in CLAIMS]
    report = markdown(reports[study]).replace("#", "##", 1)
    shown = Gathered(
        records, {record["run"]: PUBLISHED for record in records}, (HOSTILE,)
    )._repr_markdown_()
    page = toy / "book" / "page.md"
    text = "\n".join([page.read_text(), *lines, "[= report|safe =]\n\n[= shown|safe =]\n"])
    page.write_text(text)
    path = toy / "notebooks" / "curve.ipynb"
    (title, *_), content = json.loads(path.read_text())["cells"], notebook('text = "x"\n', NOTEBOOK)
    path.write_text(json.dumps({**content, "cells": [title, *content["cells"]]}))
    index = build(
        toy,
        notebooks=[Page("curve", {"text": HOSTILE})],
        context={**context, **quoting(toy), "report": report, "shown": shown, "best": 1},
        say=lambda line: None,
    )
    pages = [index.parent / "book/page.html", index.parent / "notebooks/curve.html"]
    for content in (one.read_text() for one in pages):
        body = content[content.index("<article") : content.index("</article>")]
        assert not re.search(r"<script>alert|<b>evil|<strong>evil|href=.http://evil|root:x:", body)
        assert not re.search(r'class="math[^>]*>[^<]*frac', body)
        assert html.unescape(re.sub("<[^>]*>", "", body)).count(HOSTILE.split(" &lt;")[0]) > 5


NOTEBOOK = """\
import pandas as pd
from IPython.display import display
from matplotlib import pyplot as plt

from companion.publish.artefacts import Artefacts

made = Artefacts("curve", text)
rows = pd.DataFrame({"scale": [text], "seed": 0, "device": text, "finished": text, "commit": text})
rows = rows.assign(own_seconds=1.0, dirty=False, run=text, status="ok", **{text: text})
for name in ("curve", "again"):
    fig, ax = plt.subplots()
    ax.plot([text, text + text], [1, 2], label=text)
    ax.legend()
    made.figure(fig, name, rows, title="A title.", alt=text)
made.table(rows, "means", title="A title.")
made.table(rows, "sourced", title="A title.", source=text)
print(text)
display(rows)
"""


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_label_in_a_figure_is_no_mathematics(tmp_path: Path) -> None:
    label = HOSTILE.replace("$", "$$", 1)
    fig, ax = plt.subplots()
    ax.plot([HOSTILE, label], [1, 2], label=HOSTILE)
    ax.set(xlabel=HOSTILE, title=HOSTILE)
    ax.legend()
    made = Artefacts("toy", "make", tmp_path)
    rows = toys.table().assign(run="a")
    made.figure(fig, "toy", rows, title="A title.", alt=HOSTILE)
    svg = (tmp_path / "toy.svg").read_text()
    bare = re.sub("<!--.*?-->", "", svg, flags=re.S)
    assert "<script>" not in bare
    assert "<b>" not in bare
