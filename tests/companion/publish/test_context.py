"""What pages say about results: right numbers, and a failure for what no record holds."""

from __future__ import annotations

import re

import pytest

from companion.publish.context import page_context
from companion.publish.render import render
from companion.publish.source import (
    departures,
    price_table,
    quoted_table,
    recipe_table,
    reported_faster,
    reported_rewinding,
    setting,
)
from lthlib.errors import ConfigError, PublishError
from lthlib.methods.bip import DEPARTURES
from tests.companion.figures.toys import record, study

FAILED = record("BiP", "bip", 3, 0.1, None, density=0.1)
CONTEXT = page_context([*study(3), FAILED])


def say(expression: str) -> str:
    """What a page's readers see, narrow spaces as plain ones."""
    text = render("page.md", f"[= {expression} =]", CONTEXT).replace("\u202f", " ")
    return re.sub(r"\\([^\w\s])", r"\1", text)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ('accuracy("toy", "BiP", 0.5)', "97.3 ± 0.7"),  # 97, 97.3, 97.6: 4.303 * 0.3 / sqrt(3)
        ('accuracy("toy", "BiP", 0.45)', "97.3 ± 0.7"),
        ('accuracy("toy", "CS, as found", 0.25)', "95.0 ± 0.0"),
        ('dense_accuracy("toy")', "98.1 ± 0.2"),
        ('density("toy", "CS", 0.5)', "53"),
        ('difference("toy", "BiP", "BiP, unclipped", 0.5)', "+47.3 [46.6, 48.0]"),
        ('difference("toy", "IMP", "dense", 0.25)', "-1.9 [-2.1, -1.7]"),
        ('best_sparse("toy", "IMP")', "none"),
        ('n_seeds("toy", "IMP")', "3"),
        ('made("toy").scale', "embedded"),
        ('made("toy").tickets', "33"),
        ('made("toy").failures', "1"),
        ('made("toy").duration', "8 min 00 s"),
        ('made("toy").machine', "a processor (cpu)"),
        ('made("toy").date', "2026-11-21"),
        ('made("toy").commit', "0123456"),
        ('made("toy").command', "lth sweep toy"),
        ('has_study("toy")', "True"),
        ('has_study("moon")', "False"),
        ('claim("B1").paper', "BiP"),
        ('claim("B1").verdict[:11]', "**not run**"),
        ('claim("A2").headline', "follows from counting"),
        ('claim("B3").measured', "1.00 times"),
        ('claim("B1").missing.runs > 100', "True"),
    ],
)
def test_values(expression: str, words: str) -> None:
    assert say(expression) == words


def test_a_study_of_a_changed_state_says_so() -> None:
    records = study()
    records[0]["provenance"]["dirty"] = True
    shown = page_context(records)["made"]("toy")["commit"]
    assert shown == "0123456, with changes not committed"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ('accuracy("moon", "BiP", 0.5)', "no records of study 'moon'; known: toy"),
        ('accuracy("toy", "Bip", 0.5)', "no judged 'Bip'; its curves: dense, IMP, BiP"),
        ('accuracy("toy", "BiP", 0.1)', r"within 15 % of density 0\.1; it has, in percent: 50, 25"),
        ('accuracy("toy", "BiP", 5)', "density is 5; expected a kept fraction"),
        ('claim("Z9")', "unknown claim 'Z9'; known: G, B1"),
        ("acuracy", "'acuracy' is undefined; known: accuracy, accuracy_table"),
    ],
)
def test_what_no_record_holds_fails(expression: str, message: str) -> None:
    with pytest.raises(PublishError, match=message):
        say(expression)


def test_one_seed_has_no_interval() -> None:
    context = page_context(study(1))
    assert context["accuracy"]("toy", "BiP", 0.5) == "97.0"
    assert context["difference"]("toy", "BiP", "IMP", 0.5) == "+0.0"


def test_tables_are_tables() -> None:
    table = say('accuracy_table("toy", [0.5, 0.25])').splitlines()
    assert table[0] == "| tickets | 50 % | 25 % |"
    assert "| IMP | 97.2 ± 0.5 | 96.2 ± 0.5 |" in table
    between = say('accuracy_table("toy", [0.3536, 0.1])').splitlines()
    assert "| IMP | *96.7 ± 0.5* | – |" in between
    assert "| `training.nesterov` | yes |" in recipe_table("digits")
    assert say("studies()[0]") == "toy"


def test_prices_of_studies_are_counted() -> None:
    head, _, gate = price_table("gate").splitlines()
    assert head.startswith("| study | what it is | runs | precision | epochs | minutes on one NVID")
    assert "| 15 | bf16 | 5,010 | " in gate


def test_recipes_are_quoted_and_what_they_lack_fails() -> None:
    assert setting("digits", "training.nesterov") is True
    with pytest.raises(PublishError, match=r"no value 'training\.speed'; known: data\.dataset"):
        setting("digits", "training.speed")
    with pytest.raises(ConfigError, match="expected one of bip-cifar10-resnet18"):
        recipe_table("moon")


def test_what_a_curve_is_ahead_by_is_a_table() -> None:
    lines = say('difference_table("toy", "BiP", ["IMP", "dense"])').splitlines()
    assert lines[0] == "| BiP less | 50 % pruned | 75 % pruned |"
    assert lines[2].startswith("| IMP | +0.1 [-0.1, 0.3] | +0.1 ")
    assert lines[3].startswith("| dense | -0.8 ")
    assert len(say('difference_table("toy", "BiP")').splitlines()) == 2 + 4


def test_the_papers_minutes_are_ratios() -> None:
    assert reported_faster(89.3) == "8.0"
    assert reported_faster(86.6, True) == "4.1"
    with pytest.raises(PublishError, match="no minutes are known at 50 % pruned; there are: 20"):
        reported_faster(50)


def test_every_function_says_what_it_does() -> None:
    assert all(function.__doc__ for function in CONTEXT.values())


def test_emptied_layers_are_those_that_keep_nothing_in_any_seed() -> None:
    tickets = [record("OMP", "omp", seed, 0.1, 50.0, density=0.1) for seed in (0, 1)]
    for one in tickets:
        one["layers"] = {"stem": [3, 9], "middle": [0, 9], "linear": [one["seed"], 9]}
    dense = record("dense", "dense", 0, 1.0, 98.0)
    assert page_context([dense, *tickets])["emptied"]("toy", "OMP", 0.1) == ["middle"]


def test_what_the_release_does_otherwise_is_listed_by_name() -> None:
    lines = departures().splitlines()
    assert lines[0] == "| name | what the release does |"
    assert [line.split(" | ")[0].strip("| `") for line in lines[2:]] == list(DEPARTURES)
    assert r"\|theta\|" in lines[2]


def test_the_paper_s_rewinding_figure_is_a_table() -> None:
    lines = reported_rewinding().splitlines()
    assert lines[0] == "| network | pruned | as found | 5 % | 10 % | 50 % | 75 % | 100 % |"
    assert lines[2] == (
        "| CIFAR-10, ResNet-20 | 20 % | 92.54 | 92.20 | 92.18 | 92.36 | 92.62 | 92.20 |"
    )
    assert len(lines) == 2 + 9


def test_results_of_others_are_quoted_with_their_source() -> None:
    lines = quoted_table().splitlines()
    assert lines[0].startswith("| method | data | network | removed, % |")
    assert all("commit" in line for line in lines[2:])
    assert any(line.startswith("| AMC | ImageNet | MobileNet-V1 | 50 |") for line in lines)
