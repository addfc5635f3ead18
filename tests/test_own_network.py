"""The page on one's own network runs as it stands, from top to bottom."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import lthlib
from lthlib._torchvision import torchvision  # noqa: F401 (before what may import it)

PAGE = Path(__file__).parents[1] / "book" / "own-network.md"
NEEDS = {
    "import transformers": "transformers",
    ".shrink(": "torch_pruning",
    ".onnx": "onnxscript",
    "import bench": "onnxruntime",
}


@pytest.mark.filterwarnings("ignore:prunable .* leaves out")  # the transformer's embeddings
def test_every_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(snippets) >= 8
    for code in snippets:
        if all(find_spec(package) for mark, package in NEEDS.items() if mark in code):
            exec(compile(code, PAGE.name, "exec"), found)
    data, model = found["data"], found["model"]
    assert [round(ticket.density, 2) for ticket in found["tickets"]] == [1, 0.67, 0.45, 0.3, 0.2]
    assert len(list(tmp_path.glob("search/imp-*/tickets/*"))) == 5
    for name in ("mine", "by_imp", "by_cs", "by_bip"):
        ticket = found[name]
        assert 0 < ticket.density < 0.6
        # A guess is right at 25 %; the network before pruning nearly always is.
        assert lthlib.evaluate(ticket, data, model=model) > 60, name
    assert found["by_bip"].mask.kept == found["kept"]
    assert found["both_right"](torch.tensor([[1.0, -1]]), torch.tensor([[1.0, 0]])) == 1
    assert lthlib.evaluate(found["ticket"], data, model=model) > 25
