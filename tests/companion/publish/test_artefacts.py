"""Figures and tables with their provenance."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from companion.publish.artefacts import Artefacts, provenance, rerun_command
from lthlib.errors import PublishError

matplotlib.use("svg")

ROWS = pd.DataFrame(
    {
        "scale": ["embedded", "embedded", "reduced"],
        "seed": [0, 1, 4],
        "device": ["cpu", "cpu", "cuda"],
        "finished": ["2026-11-20T23:00:00", "2026-11-21T01:00:00", "2026-11-21T02:00:00"],
        "commit": ["0123456789", None, "0123456789"],
        "dirty": [False, False, False],
        "own_seconds": [10.0, 60.0, 100.0],
        "run": ["a", "b", "b"],
        "status": ["ok", "ok", "failed"],
        "density": [0.5, 0.1, float("nan")],
    }
)


@pytest.fixture
def made(tmp_path: Path) -> Artefacts:
    return Artefacts("tickets", "make book", tmp_path)


def figure():
    fig, ax = plt.subplots()
    ax.plot([1, 2], [3, 4])
    return fig


def test_provenance_counts_each_run_once() -> None:
    assert provenance(ROWS) == (
        "Scale: embedded, reduced · seeds: 0–1, 4 · device: cpu, cuda"
        " · date: 2026-11-20 to 2026-11-21 · commit: 0123456"
        " · runs: 2 (1 failed) · duration: 1 min 50 s"
    )


def test_a_commit_that_is_not_the_whole_truth_says_so() -> None:
    changed = ROWS.assign(dirty=[False, True, False])
    assert " · commit: 0123456, with changes not committed · " in provenance(changed)
    nowhere = changed.assign(commit=None)
    assert " · commit: none, with changes not committed · " in provenance(nowhere)


def test_provenance_needs_the_tidy_columns() -> None:
    with pytest.raises(PublishError, match="'curve': the rows lack seed, commit: pass rows="):
        provenance(ROWS.drop(columns=["seed", "commit"]), "curve")
    with pytest.raises(PublishError, match="the rows are empty"):
        provenance(ROWS.head(0))


def test_the_command_names_every_parameter() -> None:
    given = namedtuple("Parameters", ["dataset", "methods", "rate", "jobs"])
    given = given("digits", ("imp", "cs"), 1e-5, None)
    assert rerun_command("tickets", given._asdict()) == (
        "lth rerun tickets --set dataset=digits --set 'methods=[imp, cs]' --set rate=1.0e-05"
    )


def test_a_figure_and_what_stands_beside_it(made: Artefacts, tmp_path: Path, capsys) -> None:
    made.figure(
        figure(),
        "curve",
        ROWS,
        title="Accuracy.",
        alt="\U0001d49c line\nrising.",
        note="Dots: seeds.",
    )
    assert not plt.get_fignums()
    assert (tmp_path / "curve.csv").read_text().startswith("scale,seed,device")
    assert (tmp_path / "curve.md").read_text() == (
        ':::{figure} /artefacts/tickets/curve.svg\n:alt: "\U0001d49c line rising."\n\n'
        "Accuracy.\n\nDots: seeds.\n\n"
        f"{provenance(ROWS)}\n\n"
        "Download: {download}`SVG </artefacts/tickets/curve.svg>`"
        " · {download}`CSV </artefacts/tickets/curve.csv>`\n\n```bash\nmake book\n```\n:::\n"
    )


def test_equal_figures_are_equal_bytes(made: Artefacts, tmp_path: Path) -> None:
    for name in ("one", "two"):
        made.figure(figure(), name, ROWS, title="T.", alt="A line.")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(("inches", "wide"), [(6.6, False), (8.6, True)])
def test_a_wide_figure_scrolls_on_a_phone(
    inches: float, wide: bool, made: Artefacts, tmp_path: Path
) -> None:
    fig = figure()
    fig.set_figwidth(inches)
    made.figure(fig, "curve", ROWS, title="Two points.", alt="A line.")
    assert ("\n:class: wide\n" in (tmp_path / "curve.md").read_text()) == wide


def test_a_table(made: Artefacts, tmp_path: Path) -> None:
    data = pd.DataFrame(
        {"method": ["IMP", "a|b"], "density %": [12.345, float("nan")], "n": [3, 1]}
    )
    made.table(data, "means", title="Means.", formats={"density %": ".1f"}, source="the papers")
    assert (tmp_path / "means.md").read_text() == (
        ":::{table} Means.\n\n"
        "| method | density % | n |\n| --- | ---: | ---: |\n"
        "| IMP | 12.3 | 3 |\n| a\\|b | – | 1 |\n:::\n\n"
        ":::{div} provenance\nSource: the papers\n\n"
        "Download: {download}`CSV </artefacts/tickets/means.csv>`\n\n```bash\nmake book\n```\n:::\n"
    )
    assert (tmp_path / "means.csv").read_text() == "method,density %,n\nIMP,12.345,3\na|b,,1\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alt": " "}, "alt text is empty"),
        ({"name": "Big Name"}, "use lower-case letters, digits, hyphens"),
        ({"data": ROWS.head(0)}, "the data is empty"),
        ({"data": ROWS.rename(columns={"seed": ""})}, "a column has no name"),
        ({"data": ROWS[["density"]]}, "the rows lack scale"),
    ],
)
def test_what_lacks_something_is_refused(made: Artefacts, change: dict, message: str) -> None:
    given = {"name": "curve", "data": ROWS, "title": "T.", "alt": "A line.", **change}
    with pytest.raises(PublishError, match=message):
        made.figure(figure(), **given)
    plt.close("all")


def test_the_folder_of_a_build_comes_from_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("LTHLIB_ARTEFACTS", str(tmp_path / "here"))
    Artefacts("tickets", "make book").table(ROWS, "rows", title="Rows.")
    assert (tmp_path / "here" / "rows.csv").exists()


def test_formats_of_unknown_columns_are_refused(made: Artefacts) -> None:
    with pytest.raises(PublishError, match="formats names column 'dense'"):
        made.table(ROWS, "rows", title="Rows.", formats={"dense": ".2f"})
