"""How far back a mask's weights may go: chosen by what configurations say, beside the paper's."""

from __future__ import annotations

import pandas as pd
import pytest

from companion.figures.rewinding import (
    published_rewinding,
    rewinding_figure,
    rewinding_means,
    rewinding_table,
)
from lthlib.errors import ConfigError
from tests.companion.figures.toys import Record, record


def masks(seed: int, density: float, *tests: float, rewinds: tuple[str, ...]) -> list[Record]:
    """BiP as found, then its mask retrained from each point."""
    found = record("BiP", "bip", seed, density, tests[0], judged="found", density=density)
    search = {"parent": found["run"], "source": {"config": found["config"], "point": "ticket"}}
    return [
        found,
        *(
            record(f"BiP, rewind {point}", "retrain", seed, density, test, rewind=point, **search)
            for point, test in zip(rewinds, tests[1:], strict=True)
        ),
    ]


def study(seeds: int = 2) -> list[Record]:
    records = []
    for seed in range(seeds):
        for density, level in ((0.05, 95.0), (0.2, 97.0)):
            tests = [level + 0.2 * seed + step for step in (0.0, 1.0, -1.0)]
            records += masks(seed, density, *tests, rewinds=("20it", "1it"))
    other = record("BiP, gamma 10", "bip", 0, 0.05, 50.0, judged="found", density=0.05, gamma=10.0)
    plain = record(
        "BiP, retrained", "retrain", 0, 0.05, 50.0, source={"config": other["config"]}, rewind=""
    )
    return [*records, other, plain]


def test_masks_are_those_that_were_rewound_and_nothing_else() -> None:
    table = rewinding_table(study(1))
    assert table.to_numpy().tolist() == [
        [0.2, "as found", 0, 97.0],
        [0.2, "5", 0, 96.0],
        [0.2, "100", 0, 98.0],
        [0.05, "as found", 0, 95.0],
        [0.05, "5", 0, 94.0],
        [0.05, "100", 0, 96.0],
    ]


def test_nothing_rewound_is_an_empty_table() -> None:
    assert rewinding_table([record("BiP", "bip", 0, 0.1, 95.0, judged="found")]).empty


def test_failed_runs_are_left_out() -> None:
    records = study(1)
    records[1]["status"], records[1]["ticket"] = "failed", None
    assert rewinding_table(records)["start"].tolist().count("100") == 1


@pytest.mark.parametrize("point", ["1ep", "1", "it", "early"])
def test_points_that_cannot_be_compared_with_training_are_refused(point: str) -> None:
    wanted = f"a rewind point of '{point}' cannot be compared with a training of '20it'; expected"
    with pytest.raises(ConfigError, match=wanted):
        rewinding_table(masks(0, 0.1, 95.0, 94.0, rewinds=(point,)))


def test_means_over_seeds() -> None:
    means = rewinding_means(rewinding_table(study())).set_index(["density", "start"])
    assert means.loc[(0.05, "100"), ["n", "accuracy"]].tolist() == [2, pytest.approx(96.1)]
    assert means.loc[(0.05, "100"), "low"] < 96 < means.loc[(0.05, "100"), "high"]


def test_the_paper_s_values_have_the_same_form() -> None:
    papers = published_rewinding("cifar10", "resnet18")
    assert set(papers["start"]) == {"as found", "5", "10", "50", "75", "100"}
    assert len(papers) == 18
    at = papers[papers["density"].between(0.32, 0.33)].set_index("start")["accuracy"]
    assert at[["as found", "5", "100"]].tolist() == [95.21, 95.13, 95.23]
    assert published_rewinding("digits", "resnet8").empty


def test_a_panel_a_density() -> None:
    papers = pd.DataFrame({"density": [0.05, 0.05], "start": ["5", "7"], "accuracy": [94.0, 90.0]})
    fig = rewinding_figure(rewinding_table(study()), pd.Series([98.0, 98.2, 98.4]), papers)
    assert [ax.get_title("left") for ax in fig.axes] == ["20 % density", "5 % density"]
    dense, sparse = fig.axes
    ticks = [tick.get_text() for tick in sparse.get_xticklabels()]
    assert ticks == ["as\nfound", "5", "100"]
    lines = {str(line.get_gid()): line for line in sparse.lines}
    assert list(lines["mean"].get_ydata()) == pytest.approx([95.1, 94.1, 96.1])
    assert list(lines["as found"].get_ydata()) == pytest.approx([95.1, 95.1])
    assert list(lines["reported"].get_xydata()[0]) == [1, 94.0]
    assert not len({str(line.get_gid()): line for line in dense.lines}["reported"].get_xdata())


def test_one_seed_without_dense_and_without_a_paper() -> None:
    nothing = published_rewinding("digits", "resnet8")
    fig = rewinding_figure(rewinding_table(study(1)), pd.Series([], dtype=float), nothing)
    assert not fig.legends


def test_the_words_for_it() -> None:
    words = rewinding_figure(
        rewinding_table(study(1)), pd.Series([98.0]), published_rewinding("digits", "resnet8")
    ).get_label()
    assert "20 % density: 97.0 % as found, 96.0 % from 5 %, 98.0 % from 100 %; 5 %" in words
