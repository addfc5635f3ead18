"""One setting at a time: runs are chosen by what their configuration says."""

from __future__ import annotations

import pandas as pd
import pytest

from companion.figures.sensitivity import sensitivity_figure, sensitivity_means, sensitivity_table
from lthlib.errors import ConfigError
from tests.companion.figures.toys import Record, config, record

BASE = {"penalty": 1e-4, "initial_gate": 0.0, "reset": "formula", "rewind": "15it"}


def retrained(seed: int, test: float, changed: Record, **own: object) -> Record:
    settings = BASE | changed
    search = {"config": config("cs", seed, **settings), "point": "round-0"}
    one = record("CS, any label", "retrain", seed, 0.1, test, source=search, **own)
    one["run"] += str(changed)
    return one


def study() -> list[Record]:
    changes: list[Record] = [{}, {"penalty": 1e-3}, {"penalty": 0.0}, {"rewind": "150it"}]
    records = [
        retrained(seed, 97.0 + seed - place, changed)
        for seed in (0, 1)
        for place, changed in enumerate(changes)
    ]
    two_at_once = {"penalty": 1e-3, "rewind": "0it"}
    records.append(retrained(0, 50.0, two_at_once))
    records.append(retrained(0, 50.0, {"penalty": 1.0}, start="fresh"))
    records.append(record("dense", "dense", 0, 1.0, 98.0, judged="found"))
    return records


def test_runs_differ_from_the_base_in_one_setting_at_most() -> None:
    table = sensitivity_table(study(), BASE)
    assert set(table["accuracy"]) == {98.0, 97.0, 96.0, 95.0, 94.0}
    values = table.groupby("setting", sort=False)["value"].unique()
    assert {name: list(own) for name, own in values.items()} == {
        "penalty": [0.0, 1e-4, 1e-3],
        "rewind": ["15it", "150it"],
    }


def test_the_base_stands_in_every_panel() -> None:
    table = sensitivity_table(study(), BASE)
    base = table[table["is_base"]]
    assert base.groupby("setting")["accuracy"].apply(list).to_dict() == {
        "penalty": [97.0, 98.0],
        "rewind": [97.0, 98.0],
    }
    assert set(table["line"]) == {"round 1"}


def test_means_over_seeds() -> None:
    means = sensitivity_means(sensitivity_table(study(), BASE)).set_index(["setting", "value"])
    assert means.loc[("penalty", "0.001"), ["n", "accuracy"]].tolist() == [2, 96.5]
    assert means["is_base"].tolist() == [False, True, False, True, False]


BIP = {"density": 0.1, "gamma": 1.0, "implicit": True, "lower_steps": 1, "switched": []}


def pruned(seed: int, density: float, test: float, **changed: object) -> Record:
    given = BIP | {"density": density} | changed
    return record("any label", "bip", seed, density, test, judged="found", **given)


def bip() -> list[Record]:
    records = [
        pruned(seed, density, level - 10 * density + seed, **changed)
        for seed in (0, 1)
        for density in (0.05, 0.2)
        for level, changed in (
            (96.0, {}),
            (95.0, {"gamma": 100.0}),
            (94.0, {"implicit": False}),
            (90.0, {"implicit": False, "lower_steps": 2}),
        )
    ]
    retrained = record(
        "any label", "retrain", 0, 0.2, 50.0, source={"config": records[0]["config"]}
    )
    return [*records, retrained, pruned(0, 1.0, 98.0), pruned(0, 0.2, 40.0, switched=["aliased"])]


def test_of_bip_the_tickets_as_found_count_a_line_a_density() -> None:
    table = sensitivity_table(bip()[:-1], BIP, "bip")
    assert set(table["setting"]) == {"gamma"}
    assert list(dict.fromkeys(table["line"])) == ["20 % density", "5 % density"]
    sparse = table[table["line"] == "5 % density"]
    assert sparse["accuracy"].tolist() == [95.5, 96.5, 94.5, 95.5, 93.5, 94.5]


def test_no_implicit_term_is_an_infinite_gamma() -> None:
    means = sensitivity_means(sensitivity_table(bip()[:-1], BIP, "bip"))
    assert list(dict.fromkeys(means["value"])) == ["1", "100", "∞"]
    assert list(dict.fromkeys(means.loc[means["is_base"], "value"])) == ["1"]


def test_a_list_is_a_value_too() -> None:
    means = sensitivity_means(sensitivity_table(bip(), BIP, "bip"))
    own = means[(means["setting"] == "switched") & (means["line"] == "20 % density")]
    assert own["value"].tolist() == ["none", "aliased"]


def test_a_method_that_is_given_its_density_has_one_panel_a_setting() -> None:
    table = sensitivity_table(bip(), BIP, "bip")
    fig = sensitivity_figure(table, pd.Series([98.0]), "BiP")
    assert [ax.get_title("left") for ax in fig.axes] == ["gamma", "switched"]
    means = [list(line.get_ydata()) for line in fig.axes[0].lines if line.get_gid() == "mean"]
    assert means == [[94.5, 93.5, 92.5], [96.0, 95.0, 94.0]]
    assert [text.get_text() for text in fig.legends[0].get_texts()] == [
        "20 % density",
        "5 % density",
    ]


def test_of_bip_the_sparsest_density_is_put_into_words() -> None:
    words = sensitivity_figure(
        sensitivity_table(bip()[:-1], BIP, "bip"), pd.Series([98.0]), "BiP"
    ).get_label()
    assert "gamma: 1 96.0 % at 5 % density, 100 95.0 % at 5 % density" in words


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(ConfigError, match="no setting of cs has two values"):
        sensitivity_table([retrained(0, 97.0, {})], BASE)


def test_two_panels_a_setting() -> None:
    table = sensitivity_table(study(), BASE)
    fig = sensitivity_figure(table, pd.Series([98.0, 98.2, 98.4]))
    titles = [ax.get_title("left") for ax in fig.axes]
    assert titles == ["penalty", "", "rewind", ""]
    assert len(fig.axes) == 4
    (top,) = (ax for ax in fig.axes if ax.get_title("left") == "penalty")
    means = [list(line.get_ydata()) for line in top.lines if line.get_gid() == "mean"]
    assert means == [[95.5, 97.5, 96.5]]
    assert len([patch for patch in top.patches if patch.get_gid() == "base"]) == 1


def test_the_words_for_it() -> None:
    words = sensitivity_figure(sensitivity_table(study(), BASE), pd.Series([98.0])).get_label()
    assert "penalty: 0 95.5 % at 10 % density, 0.0001 97.5 % at 10 % density" in words
