"""One run over two processes: what one process computes, whatever the number of ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from lthlib.api import find_tickets
from lthlib.data import Batches, DataSettings, EvaluationBatches, Images
from lthlib.data.streaming import StreamingPart
from lthlib.distributed import Ranks, check_ranks, current, started
from lthlib.errors import ConfigError
from lthlib.training import TrainingSettings
from tests.training.toys import images, tiny
from tests.two_ranks import SEARCHES, everything, read

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def numbered(count: int) -> Images:
    """Images [1, 1] that hold their own number."""
    return Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count))


def batches(share: tuple[int, int], count: int = 10, size: int = 4) -> Batches:
    settings = DataSettings(padding=1, flip=True)
    return Batches(
        numbered(count), settings, size, seed=1, stream="train", device="cpu", share=share
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_share_the_batches_of_one_process(ranks: int) -> None:
    whole = batches((0, 1)).stream(2)
    shares = [batches((rank, ranks)).stream(2) for rank in range(ranks)]
    for _ in range(5):
        inputs, labels = next(whole)
        for rank, (own, classes) in enumerate(map(next, shares)):
            assert torch.equal(own, inputs[rank::ranks])
            assert torch.equal(classes, labels[rank::ranks])


class Recorded(StreamingPart):
    """Files that hold their own number; remembers which were read."""

    read_rows: ClassVar[list[int]] = []

    def decode(self, row: int, draw: torch.Generator | None) -> np.ndarray:
        self.read_rows.append(row)
        return np.full((1, 1, 3), row, dtype=np.uint8)


def test_a_rank_reads_its_own_files_only() -> None:
    files = tuple(Path(f"{row}.png") for row in range(10))
    part = Recorded(files, torch.arange(10), (1, 1), None)
    stream = Batches(
        part, DataSettings(), 4, seed=1, stream="train", device="cpu", workers=0, share=(1, 2)
    ).stream()
    shown = torch.cat([next(stream)[1] for _ in range(3)]).tolist()
    assert Recorded.read_rows == shown
    assert len(set(shown)) == 5


def test_every_rank_has_an_image_of_every_batch() -> None:
    assert batches((2, 3), count=11).steps_per_epoch == 3
    with pytest.raises(ConfigError, match="leave 2 for the last one, and 3 ranks share it"):
        batches((2, 3), count=10)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_ranks_share_the_images_to_judge_by(count: int) -> None:
    shown = []
    for rank in range(3):
        share = EvaluationBatches(numbered(count), DataSettings(), 2, device="cpu", share=(rank, 3))
        labels = [label for _, part in share for label in part.tolist()]
        assert (share.images, len(share)) == (len(labels), -(-len(labels) // 2))
        shown += labels
    assert sorted(shown) == list(range(count))


def test_alone_nothing_is_exchanged() -> None:
    alone = current()
    tensor = torch.ones(2)
    alone.follow([tensor])
    alone.average([tensor])
    alone.check_same({"a": tensor}, "now")
    assert (alone.share, alone.first(lambda: 3), alone.any(True)) == ((0, 1), 3, True)
    assert (alone.any(False), alone.total(2, 5), tensor.tolist()) == (False, [2, 5], [1.0, 1.0])


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "4"}, {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}],
)
def test_without_torchrun_or_with_one_process_nothing_starts(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with started("cpu") as ranks:
        assert ranks == Ranks()
        assert not torch.distributed.is_initialized()


def test_restarts_that_would_hang_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("TORCHELASTIC_MAX_RESTARTS", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with (
        pytest.raises(ConfigError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"),
        started("cpu"),
    ):
        pass


def test_a_configuration_says_how_many_ranks_share_it() -> None:
    check_ranks(1, False, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"training.ranks is 3, but 1 process.*nproc-per-node 3"):
        check_ranks(3, False, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"sync_batchnorm needs CUDA"):
        check_ranks(1, True, torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"training.ranks is 2, but 1 process"):
        find_tickets(tiny(), images(), method="imp", training=TrainingSettings(ranks=2))
    with pytest.raises(ConfigError, match=r"training.ranks is 0; expected at least 1"):
        TrainingSettings(ranks=0)
    with pytest.raises(ConfigError, match=r"sync_batchnorm goes with training.ranks of 2"):
        TrainingSettings(sync_batchnorm=True)


@pytest.fixture(scope="module")
def by_one() -> dict[str, Any]:
    torch.set_num_threads(1)
    return everything()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [*TORCHRUN, "-m", "tests.two_ranks", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [read(folder / str(rank)) for rank in (0, 1)]


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_the_gradient_is_that_of_one_process(
    by_one: dict[str, Any], by_two: list[dict[str, Any]]
) -> None:
    for found in by_two:
        same(found["gradient"], by_one["gradient"])
        assert found["gradient"]["conv1.weight"].abs().max() > 1e-3


@pytest.mark.parametrize("case", SEARCHES)
def test_a_search_without_batchnorm_is_that_of_one_process(
    case: str, by_one: dict[str, Any], by_two: list[dict[str, Any]]
) -> None:
    for found in by_two:
        same(found[case]["state"], by_one[case]["state"])
        same(found[case]["masks"], by_one[case]["masks"])
        same(found[case]["history"], by_one[case]["history"])
        assert found[case]["cost"] == by_one[case]["cost"]
        assert found[case]["accuracy"] == by_one[case]["accuracy"]


def test_searches_prune_and_move(by_one: dict[str, Any]) -> None:
    for case in SEARCHES:
        last = by_one[case]["masks"][-1]
        assert 0 < sum(int(kept.sum()) for kept in last.values()) <= 147
        assert by_one[case]["history"][-1]["loss"] < 1.5


@pytest.mark.parametrize("case", ["normalised", "recalibrated"])
def test_with_batchnorm_ranks_agree_to_the_last_bit(
    case: str, by_one: dict[str, Any], by_two: list[dict[str, Any]]
) -> None:
    first, second = (found[case] for found in by_two)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    # Each rank normalises by its own images.
    weight = "weights/conv1.weight"
    assert not torch.allclose(first["state"][weight], by_one[case]["state"][weight])
    assert first["cost"] == by_one[case]["cost"]


def test_what_ranks_tell_each_other(by_two: list[dict[str, Any]]) -> None:
    first, second = (found["exchange"] for found in by_two)
    assert (first.pop("share"), second.pop("share")) == ([0, 2], [1, 2])
    assert first == second
    assert first["first"] == "said by rank 0"
    assert first["error"] == "on rank 0"
    assert first["any"] == [False, True, True]
    assert first["total"] == [1, 6]
    assert first["followed"] == [[True], [[0, 0], [0, 0]]]
    assert first["averaged"] == [0, 5]
    assert first["same"] == ""
    assert first["different"].startswith(
        "step 1: 2 tensors differ between ranks (masks/a first); expected the same state"
    )
