"""What tests/test_distributed.py computes twice: by one process, and by two that share each run.

    torchrun --standalone --nproc-per-node 2 -m tests.two_ranks FOLDER

leaves what each rank found in FOLDER/RANK.pt.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lthlib.data import DataSettings
from lthlib.distributed import current, started
from lthlib.errors import ConfigError, RanksDiffer
from lthlib.methods import get_method
from lthlib.settings import build
from lthlib.training import Trainer, TrainingSettings
from tests.training.toys import dense_parent, images, tiny

# 20 images in batches of 7: ranks have 4 and 3 of them, and 3 each of the last one's 6.
BATCH, STEPS = 7, 10
SEARCHES: dict[str, tuple[str, dict[str, Any]]] = {
    "imp": ("imp", {"rounds": 2, "fraction": 0.5, "rewind": "2it"}),
    "cs": ("cs", {"rounds": 2, "rewind": "2it", "temperature_per": "step", "penalty": 1e-3}),
    "bip": ("bip", {"density": 0.3}),
    "bip-release": ("bip", {"density": 0.3, "variant": "release"}),
    "l0": ("l0", {"rewind": "2it", "penalty": 1e-3}),
    "gmp": ("gmp", {"density": 0.3, "every": "2it"}),
    "snip": ("snip", {"density": 0.3, "images_per_class": 2}),
    "hydra": ("hydra", {"density": 0.3, "learning_rate": 0.05}),
}


def unnormalised() -> nn.Module:
    """`Tiny` without BatchNorm."""
    model = tiny()
    model.bn1, model.bn2 = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    return model


def trainer_of(model: nn.Module) -> Trainer:
    training = TrainingSettings(length=f"{STEPS}it", batch_size=BATCH, learning_rate=0.05)
    return Trainer(model, images(), training, DataSettings(), seed=3)


def search(case: str, model: nn.Module) -> dict[str, Any]:
    """Everything that a search leaves."""
    name, settings = SEARCHES[case]
    method = get_method(name)
    parent = None
    if method.parent != "none":
        parent = dense_parent(trainer_of(model), "0it")
    trainer = trainer_of(model)
    tickets = list(method.search(trainer, build(method.settings, settings, name), parent))
    return {
        "masks": [dict(ticket.mask.items()) for ticket in tickets],
        "state": {key: tensor.clone() for key, tensor in trainer.state.items()},
        "history": [{**entry, "seconds": 0.0} for entry in trainer.history],
        "cost": asdict(replace(trainer.cost, seconds=0.0)),
        "accuracy": trainer.evaluate("test", trainer.group("weights"), trainer.group("buffers")),
    }


def gradient(model: nn.Module) -> dict[str, Tensor]:
    """The gradient of the first batch."""
    trainer = trainer_of(model)
    x, y = next(trainer.batches("train").stream())
    weights, buffers = trainer.group("weights"), trainer.group("buffers")
    loss, correct, gradients = trainer.network.gradients(weights, buffers, x, y)
    return {"loss": loss, "correct": correct, **gradients}


def exchange() -> dict[str, Any]:
    """What ranks tell each other."""
    ranks = current()

    def fail() -> None:
        raise ConfigError(f"on rank {ranks.rank}")

    def error(function: Callable[[], object]) -> str:
        try:
            function()
        except (ConfigError, RanksDiffer) as raised:
            return str(raised)
        return ""

    mine = torch.tensor([1.0, 2.0 + ranks.rank])
    followed = [torch.tensor([ranks.rank == 0]), torch.full((2, 2), ranks.rank).t()]
    averaged = torch.tensor([ranks.rank, 5])
    ranks.follow(followed)
    ranks.average([averaged])
    swapped = torch.tensor([True, False] if ranks.rank else [False, True])
    return {
        "share": ranks.share,
        "first": ranks.first(lambda: f"said by rank {ranks.rank}"),
        "error": error(lambda: ranks.first(fail)),
        "any": [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(True)],
        "total": ranks.total(ranks.rank, 3),
        "followed": [tensor.tolist() for tensor in followed],
        "averaged": averaged.tolist(),
        "same": error(lambda: ranks.check_same({"masks/a": torch.tensor(1)}, "step 1")),
        "different": error(
            lambda: ranks.check_same({"weights/a": mine, "masks/a": swapped}, "step 1")
        ),
    }


def everything() -> dict[str, Any]:
    found: dict[str, Any] = {case: search(case, unnormalised()) for case in SEARCHES}
    found["gradient"] = gradient(unnormalised())
    found["normalised"] = search("imp", tiny())
    found["recalibrated"] = search("l0", tiny())
    return found


def write(found: dict[str, Any], path: Path) -> None:
    """Write numbers, texts and tensors, nested, as two files beside `path`."""
    tensors: dict[str, Tensor] = {}

    def place(tensor: Tensor) -> dict[str, str]:
        name = str(len(tensors))
        tensors[name] = tensor.contiguous().clone()
        return {"tensor": name}

    path.with_suffix(".json").write_text(json.dumps(found, default=place))
    save_file(tensors, path.with_suffix(".safetensors"))


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote; tuples come back as lists."""
    tensors = load_file(path.with_suffix(".safetensors"))

    def found(value: dict[str, Any]) -> Any:
        return tensors[value["tensor"]] if value.keys() == {"tensor"} else value

    read: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(), object_hook=found)
    return read


if __name__ == "__main__":
    torch.set_num_threads(1)
    with started("cpu") as ranks:
        found = everything() | {"exchange": exchange()}
        write(found, Path(sys.argv[1]) / str(ranks.rank))
