"""A small book, made on the spot."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.companion.publish.toys import (
    DECLARE,
    FIGURE,
    PARAMETERS,
    REPOSITORY,
    TABLE,
    TIDY,
    notebook,
)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A repository with the real configuration, one notebook and two pages."""
    root = tmp_path / "toy"
    (root / "book").mkdir(parents=True)
    (root / "results").mkdir()
    shutil.copy(REPOSITORY / "_config.yml", root)
    shutil.copy(REPOSITORY / "book" / "references.bib", root / "book")
    content = notebook(PARAMETERS, DECLARE, TIDY, FIGURE, TABLE)
    heading = {
        "cell_type": "markdown",
        "id": "title",
        "metadata": {},
        "source": "# Curves\n\nText.",
    }
    content["cells"].insert(0, heading)
    (root / "notebooks").mkdir()
    (root / "notebooks" / "curve.ipynb").write_text(json.dumps(content))
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/page\n- file: notebooks/curve\n"
    )
    (root / "book" / "index.md").write_text("# A toy\n\nBest: [= best =] %, so $\\beta > 0$.\n")
    (root / "book" / "page.md").write_text(
        '# A page\n\n{cite}`zhang2022bip`\n\n[= artefact("curve/curve") =]\n\n'
        '[= artefact("curve/means") =]\n\n```{bibliography}\n```\n'
    )
    return root
