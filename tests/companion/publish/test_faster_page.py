"""The page on speed of tickets reads right with and without measurements, and its Python runs."""

from __future__ import annotations

from pathlib import Path

from companion.publish.render import render
from companion.publish.source import quoting
from lthlib.files import sealed
from tests.companion.publish.toys import REPOSITORY

SOURCE = (REPOSITORY / "book" / "faster.md").read_text(encoding="utf-8")
FORMS = ("dense", "90 % of weights zero", "half of the channels cut out")
MACHINE = {"processor": "a processor", "cores": 2, "device": "cpu", "torch": "2.13.0"}


def test_without_measurements_it_says_how_to_make_them(tmp_path: Path) -> None:
    text = render("faster", SOURCE, quoting(tmp_path))
    assert "has\nnot been measured for this version: `python -m benchmarks.tickets`" in text
    assert "| dense |" not in text


def test_measurements_bring_ratios_and_tables(tmp_path: Path) -> None:
    rows = [
        {
            "name": f"{network}, {form}: {images}",
            "ours": 2.5,
            "ratio": 0.9 + place,
            "note": "2 to 3",
        }
        for network in ("ResNet-20", "VGG-16", "layer")
        for place, form in enumerate(FORMS)
        for images in ("1 image", "128 images")
    ]
    folder = tmp_path / "results" / "bench"
    folder.mkdir(parents=True)
    report = {"started": "2026-01-01T10:00:00+00:00", "machine": MACHINE, "rows": rows}
    (folder / "2026-01-01-tickets.json").write_bytes(sealed(report) + b"\n")
    text = " ".join(render("faster", SOURCE, quoting(tmp_path)).split())
    assert "ResNet-20 runs at 1.9 times the speed" in text
    assert "the same network runs at 2.9 times the speed" in text
    assert text.count("2.5 (2 to 3)") == len(rows)
    assert "not been measured for" not in text
