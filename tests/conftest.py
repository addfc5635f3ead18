"""What several test folders share: a recipe so small that a run takes a fraction of a second."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
import yaml

# No test fails because the machine is busy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

TINY = {
    "name": "tiny",
    "scale": "embedded",
    "about": "a few steps on digits",
    "data": {"dataset": "digits", "padding": 1, "mean": [0.3], "std": [0.37]},
    "model": {"architecture": "resnet8", "width": 2, "shortcut": "projection"},
    "training": {"length": "20it", "batch_size": 64},
    "rewind": "2it",
    "methods": {
        "imp": {"fraction": 0.5},
        "cs": {"penalty": [1e-4], "gate_learning_rate": 1.0, "temperature_per": "step"},
        "bip": {"clip": 1.0, "implicit": False},
        "omp-matched": {"length": "30it"},
    },
    "study": {
        "densities": [0.5, 0.2],
        "methods": ["imp", "cs", "bip", "omp"],
        "seeds": 1,
        "dense_seeds": 2,
    },
}


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test uses the store, the data, the cache or the GPU of whoever runs it, unless it says
    so."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LTHLIB_")]:
            patch.delenv(name)
        patch.setenv("LTHLIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Without a mark a test means the CPU, whose bits are the same each time, on any machine.
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _gpu_where_it_is_asked_for(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if request.node.get_closest_marker("gpu"):
        monkeypatch.setattr(torch.cuda, "is_available", _is_available)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        if _VISIBLE is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", _VISIBLE)


# Torch asks for this once, at the first product on a GPU, and some tests want the same bits twice.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# What is to hold on a GPU as well: `make test-gpu` tries it there.
NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]
_VISIBLE, _is_available = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.is_available


def needs(number: signal.Signals) -> pytest.MarkDecorator:
    """Skips a test of a signal that whoever started the tests had ignored, for these too."""
    ignored = signal.getsignal(number) is signal.SIG_IGN
    return pytest.mark.skipif(ignored, reason=f"{number.name} is ignored here, as nohup does")


def with_sources(node: object) -> object:
    """Give every value of a recipe the source a recipe file must name."""
    if isinstance(node, dict):
        return {key: with_sources(value) for key, value in node.items()}
    return {"value": node, "source": "a test"}


def write_tiny(folder: Path) -> Path:
    """Write a recipe file whose whole study takes a few seconds."""
    plain = {key: TINY[key] for key in ("name", "scale", "about")}
    rest = {key: with_sources(value) for key, value in TINY.items() if key not in plain}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(plain | rest))
    return path


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe file whose whole study takes a few seconds."""
    return write_tiny(tmp_path)
