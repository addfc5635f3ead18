"""Our IMP beside published data, as differences to dense."""

from __future__ import annotations

import pytest

from companion.analysis.points import ticket_table
from companion.figures.published import beside_published, imp_minus_dense
from tests.companion.figures.toys import Record, searches


def on_cifar(records: list[Record]) -> list[Record]:
    for one in records:
        one["config"]["data"]["dataset"] = "cifar10"
        one["config"]["model"]["architecture"] = "resnet20"
    return records


def test_ours_is_paired_with_dense_by_seed() -> None:
    gaps = imp_minus_dense(ticket_table(on_cifar(searches())))
    ours = gaps[gaps["whose"] == "ours"]
    assert ours["density"].tolist() == pytest.approx([0.8, 0.64, 0.512])
    assert ours["difference"].tolist() == pytest.approx([-0.5, -1.5, -2.5])
    assert ours["n"].tolist() == [3, 3, 3]
    assert ours["low"].tolist() == pytest.approx([-0.5, -1.5, -2.5])


def test_theirs_is_what_was_published() -> None:
    gaps = imp_minus_dense(ticket_table(on_cifar(searches(seeds=1))))
    theirs = gaps[gaps["whose"] == "Renda et al. (2020)"].set_index("density")
    assert theirs.loc[0.8, "difference"] == pytest.approx(91.76 - 91.71)
    assert len(theirs) == 10


def test_other_networks_have_no_published_imp() -> None:
    assert imp_minus_dense(ticket_table(searches(seeds=1))).empty
    without = [one for one in on_cifar(searches(seeds=1)) if one["label"] != "IMP"]
    assert imp_minus_dense(ticket_table(without)).empty


def test_both_are_drawn_and_said() -> None:
    gaps = imp_minus_dense(ticket_table(on_cifar(searches(seeds=1))))
    (ax,) = beside_published(gaps).axes
    lines = {line.get_gid(): list(line.get_ydata()) for line in ax.lines}
    assert lines["ours"] == pytest.approx([-0.5, -1.5, -2.5])
    assert len(lines["Renda et al. (2020)"]) == 10
    assert "ours -0.5 points at 80 % density to -2.5 points at 51 % density" in (
        beside_published(gaps).get_label()
    )
