"""The page on speed reads right without measurements, and with each kind of them."""

from __future__ import annotations

from pathlib import Path

from companion.publish.context import page_context
from companion.publish.render import render
from companion.publish.source import quoting
from companion.studies import ticket_study
from lthlib.files import sealed
from lthlib.recipes import load_recipe
from tests.companion.publish.records import published
from tests.companion.publish.toys import REPOSITORY


def read(root: Path, *studies: str) -> tuple[str, set[str]]:
    """The page of a repository as readers see it, and the artefacts that it shows."""
    shown = set()
    records = [
        record
        for name in studies
        for record in published(ticket_study(load_recipe(name), seeds=2, dense_seeds=2))
    ]

    def artefact(name: str) -> str:
        shown.add(name)
        return name

    context = {**page_context(records), **quoting(root), "artefact": artefact}
    source = (REPOSITORY / "book" / "speed.md").read_text(encoding="utf-8")
    return render("speed", source, context), shown


def copied(root: Path, *parts: str) -> Path:
    """A repository with benchmarks of these parts."""
    folder = root / "results" / "bench"
    folder.mkdir(parents=True)
    for part in parts:
        rows = [{"name": "a step", "met": True}, {"name": "another", "met": False}]
        machine = {"processor": "a processor", "cores": 2, "device": part, "torch": "2.13.0"}
        report = {"started": "2026-01-01T10:00:00+00:00", "machine": machine, "rows": rows}
        (folder / f"2026-01-01-{part}.json").write_bytes(sealed(report) + b"\n")
    return root


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    text, shown = read(copied(tmp_path))
    assert not shown
    assert "The GPU column has not been measured." in text
    assert "`cifar10-precision` has not been run." in text


def test_measurements_bring_their_sections(tmp_path: Path) -> None:
    text, shown = read(copied(tmp_path, "cpu", "cuda"), "digits-precision", "cifar10-precision")
    assert "On a CPU 1 of 2 targets are met; not met: another." in text
    assert "has not been" not in text
    assert not shown
    assert text.count("| a step | – | – | – | – | – | yes | – |") == 2
    assert "a processor, 2 cores · device: cuda · date: 2026-01-01" in text
    # Every made-up ticket has the same accuracy and density.
    assert (
        r"\[0.00, 0.00\] points on average: **interchangeable** at a margin of 0.5 points" in text
    )
