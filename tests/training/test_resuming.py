"""A run that stops and goes on in another process ends with the same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lthlib.checkpoints import load_checkpoint, save_checkpoint
from lthlib.errors import Paused, StoreError
from lthlib.masks import Mask
from lthlib.methods import METHODS, get_method
from lthlib.settings import build
from lthlib.tickets import Ticket
from lthlib.training import Hooks, Trainer
from tests.training.toys import dense_parent, tiny_trainer

SEARCHES = {
    **{
        name: (name, {"density": 0.3} if m.takes_density else {}, 0.5)
        for name, m in METHODS.items()
    },
    "dense": ("dense", {"rewind": "2it"}, 0.0),
    "dropout": ("dense", {}, 0.5),
    "imp": ("imp", {"rounds": 2, "fraction": 0.5, "rewind": "2it"}, 0.0),
    "imp-restored": ("imp", {"rounds": 1, "rewind": "2it", "optimiser": "restored"}, 0.5),
    "imp_c": ("imp", {"rounds": 1, "rewinding": "none"}, 0.0),
    "cs": ("cs", {"rounds": 2, "temperature_per": "step", "rewind": "2it"}, 0.5),
    "imp_lr": ("imp", {"rounds": 1, "rewind": "2it", "rewinding": "learning-rate"}, 0.0),
    "l0": (
        "l0",
        {"penalty": 0.02, "gate_learning_rate": 20.0, "initial_gate": 0.2, "rewind": "2it"},
        0.5,
    ),
    "iss": (
        "iss",
        {"rounds": 2, "gate_learning_rate": 3.0, "initial_gate": 0.2, "rewind": "2it"},
        0.5,
    ),
    "gmp": ("gmp", {"density": 0.3, "every": "2it", "rewind": "1it"}, 0.0),
    "bip": ("bip", {"density": 0.3, "clip": 1.0, "lower_steps": 2}, 0.5),
    "release": ("bip", {"density": 0.3, "variant": "release"}, 0.0),
    "switched": ("bip", {"density": 0.3, "switched": ["signed", "upper-batchnorm"]}, 0.5),
    "omp": ("omp", {"density": 0.3, "start": "own"}, 0.0),
    "grasp": ("grasp", {"density": 0.3, "structure": "filter"}, 0.5),
    "synflow": ("synflow", {"density": 0.3, "iterations": 5}, 0.5),
    "retrain": ("retrain", {"mask": "shuffled"}, 0.5),
    "rewound": ("retrain", {"rewind": "3it", "schedule": "restart"}, 0.5),
}
# Before step 0, within an epoch, at its end; at the end of a round of 7 steps, within the next.
STOPS = (0, 1, 3)
LATER_STOPS = (7, 10)
SEVERAL_ROUNDS = ("imp", "imp-restored", "imp_c", "imp_lr", "cs", "iss")


def trainer_of(search: str) -> Trainer:
    return tiny_trainer(torch.float32, SEARCHES[search][2])


def run(search: str, trainer: Trainer) -> list[Ticket]:
    name, settings, _ = SEARCHES[search]
    method = get_method(name)
    parent = None if method.parent == "none" else dense_parent(trainer_of(search))
    return list(method.search(trainer, build(method.settings, settings, name), parent))


def stop_at_question(number: int, path: Path) -> Hooks:
    asked = iter(range(1000))
    return Hooks(
        should_stop=lambda trainer: next(asked) == number,
        save=lambda trainer: save_checkpoint(trainer, path, "owner"),
    )


def digest(tickets: list[Ticket], trainer: Trainer) -> list[object]:
    """Everything a run leaves, in values that survive JSON."""
    cost = trainer.cost
    passes = [cost.epochs, cost.images, cost.forward_passes, cost.backward_passes, cost.flops]
    state = Ticket(
        Mask.full(trainer.group("weights"), trainer.names), weights=trainer.state
    ).sha256()
    return [*passes, state, tickets[-1].point, tickets[-1].sha256()]


def resume_all(folder: Path) -> dict[str, list[object]]:
    torch.set_num_threads(1)
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        trainer = trainer_of(path.stem.partition(".")[0])
        assert load_checkpoint(trainer, path, "owner")
        found[path.stem] = digest(run(path.stem.partition(".")[0], trainer), trainer)
    return found


def test_resuming_in_another_process_is_bit_identical(tmp_path: Path) -> None:
    expected = {}
    for search in SEARCHES:
        trainer = trainer_of(search)
        uninterrupted = digest(run(search, trainer), trainer)
        for stop in (*STOPS, *(LATER_STOPS if search in SEVERAL_ROUNDS else ())):
            path = tmp_path / f"{search}.{stop}.safetensors"
            trainer = trainer_of(search)
            trainer.hooks = stop_at_question(stop, path)
            with pytest.raises(Paused):
                run(search, trainer)
            expected[path.stem] = uninterrupted
    code = (
        "import json, sys; from pathlib import Path; "
        "from tests.training.test_resuming import resume_all; "
        "print(json.dumps(resume_all(Path(sys.argv[1]))))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(tiny_trainer(), path, "owner")
    return path


def test_without_a_file_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert load_checkpoint(tiny_trainer(), tmp_path / "none", "owner") is False


def test_a_checkpoint_of_another_run_is_refused(saved: Path) -> None:
    with pytest.raises(StoreError, match="belongs to owner, not to someone"):
        load_checkpoint(tiny_trainer(), saved, "someone")


@pytest.mark.parametrize("where", [0, 20, 200, -1])
def test_a_damaged_checkpoint_is_refused(saved: Path, where: int) -> None:
    content = bytearray(saved.read_bytes())
    content[where] ^= 1
    saved.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        load_checkpoint(tiny_trainer(), saved, "owner")


def test_a_ticket_is_no_checkpoint(saved: Path) -> None:
    Ticket(Mask({"a": torch.ones(2, dtype=torch.bool)})).save(saved)
    with pytest.raises(StoreError, match="not a checkpoint"):
        load_checkpoint(tiny_trainer(), saved, "owner")
