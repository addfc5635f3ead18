"""Reports on studies that were computed again: what `lth check-results` writes and pages show."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from companion.evidence.drift import (
    ACCURACY,
    DENSITY,
    LEVEL,
    TOLERANCE,
    Comparison,
    Number,
    Record,
    alarm_rate,
    compare_records,
)
from companion.markdown import Markdown, code, in_words
from companion.markdown import table as markdown_table
from companion.published import read_published
from lthlib.errors import RecordError
from lthlib.files import sealed, write_atomically
from lthlib.records import COUNT, TEXT, Field, check, is_number

SCHEMA = 1
FOLDER = "checks"
# What is checked where nothing is named: the embedded study whole, and of CIFAR-10, which takes
# hours, one seed of the dense network and of BiP.
DEFAULT: dict[str, dict[str, Any]] = {
    "digits": {},
    "cifar10-bip": {"methods": "bip", "seeds": 1, "dense_seeds": 1},
}
# Drifts of a curve, in points of accuracy, that a check tries to see, and how often it must.
SHIFTS = (1, 2, 3, 5, 8, 12, 20)
NEARLY_ALWAYS = 0.95
ENVIRONMENT = ("device", "device_name", "threads", "torch", "python", "lthlib")
_SHOWN = 5  # commits
_DRIFT = Markdown("**{label}, {where}: {quantity}** is {}, was {}{}. Runs {}. Candidates:")


def _list_of(kind: type, expected: str) -> Field:
    return Field(
        expected,
        lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value),
    )


_FLAG = Field("true or false", lambda value: isinstance(value, bool))
_NUMBER = Field("a finite number", is_number)
_TEXTS, _LIST = _list_of(str, "a list of texts"), _list_of(object, "a list")
_SIDE = {**dict.fromkeys((*ENVIRONMENT, "commit"), _TEXTS), "threads": _LIST, "dirty": _FLAG}
_COUNTS = ("tickets", "identical", "exact", "tested", "untested", "made_up")
_REPORT: dict[str, Any] = {
    **dict.fromkeys(("schema", *_COUNTS), COUNT),
    **dict.fromkeys(("study", "scale", "command", "date"), TEXT),
    **dict.fromkeys(("level", "seconds", "sure"), _NUMBER),
    "false_alarms": Field("a share in [0, 1]", lambda value: is_number(value) and 0 <= value <= 1),
    "passed": _FLAG,
    "tolerance": dict.fromkeys(TOLERANCE, _NUMBER),
    **dict.fromkeys(("recorded", "computed"), _SIDE),
    **dict.fromkeys(("curves", "drifted"), _LIST),
}
_CURVE = {
    "label": TEXT,
    **dict.fromkeys(("tickets", "identical", "drifted"), COUNT),
    **dict.fromkeys(("largest", "seen"), _NUMBER.or_null()),
}
_DRIFTED = {
    **dict.fromkeys(("label", "where", "quantity"), TEXT),
    **dict.fromkeys(("recorded", "computed"), Field("anything", lambda value: True)),
    **dict.fromkeys(("standard_errors", "p"), _NUMBER.or_null()),
    **dict.fromkeys(("runs", "causes"), _TEXTS),
}


def report(
    study: str,
    recorded: Sequence[Record],
    computed: Sequence[Record],
    runs: Iterable[str] | None,
    *,
    command: str,
    made_up: int = 2000,
) -> dict[str, Any]:
    """Compare a study with its record and say what came of it, as plain JSON values.

    Args:
        study: its name.
        recorded: all its published records.
        computed: the records computed again.
        runs: ids of the runs that were to be computed again, or None for all.
        command: what computed them.
        made_up: how many honest re-runs are simulated; of each drift of a curve, a tenth of that.

    Returns:
        What `load_report` reads.

    Raises:
        RecordError: a computed record does not follow the schema.
    """
    comparison = compare_records(recorded, computed, runs)
    seconds = {record["run"]: record["cost"]["own"]["seconds"] for record in computed}
    again = [record for record in recorded if record["run"] in seconds]
    numbers = [number for number in comparison.numbers if number.p is not None]
    tested = sum(map(_is_tested, numbers))
    return {
        "schema": SCHEMA,
        "study": study,
        "scale": recorded[0]["scale"],
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": not comparison.drifted,
        "tickets": comparison.tickets,
        "identical": comparison.identical,
        "exact": comparison.exact,
        "tested": tested,
        "untested": len(numbers) - tested,
        "level": LEVEL,
        "tolerance": TOLERANCE,
        "made_up": made_up,
        "false_alarms": alarm_rate(recorded, computed, np.random.default_rng(0), made_up),
        "sure": NEARLY_ALWAYS,
        "seconds": sum(seconds.values()),
        "recorded": _side(again),
        "computed": _side(computed),
        "curves": [
            _curve(label, comparison, recorded, computed, made_up // 10)
            for label in comparison.curves
        ],
        "drifted": [_drifted(number, again, computed) for number in comparison.drifted],
    }


def markdown(content: Mapping[str, Any]) -> Markdown:
    """Return a report for people."""
    lines = [Markdown("# {}, computed again").format(content["study"])]
    lines += [sentence(content), table(content)]
    for drift in content["drifted"]:
        errors, p = drift["standard_errors"], drift["p"]
        size = "" if errors is None else f", {errors:+.1f} standard errors (Holm's p {p:.1g})"
        values = (in_words(drift[side], ".6g") for side in ("computed", "recorded"))
        lines.append(_DRIFT.format(*values, size, ", ".join(drift["runs"]), **drift))
        lines.append(Markdown("\n").join(map(Markdown("- {}").format, drift["causes"])))
    return Markdown("\n\n").join(lines) + "\n"


def rule() -> str:
    """Return how far the tested numbers may differ: the tolerances and the level."""
    points, relative = TOLERANCE[ACCURACY], TOLERANCE[DENSITY]
    return (
        f"differences of means beyond {points:g} points of accuracy, or beyond "
        f"{100 * relative:g} % of a density, are tested together by Holm at {100 * LEVEL:g} %"
    )


def sentence(content: Mapping[str, Any]) -> Markdown:
    """Return a report in a few sentences."""
    count = content["untested"]
    untested = f", {count} could not be, since no seeds show a spread" if count else ""
    drifted = f"drifted in {len(content['drifted'])} numbers"
    outcome = "passed" if content["passed"] else drifted
    recorded, computed = (_machine(content[side]) for side in ("recorded", "computed"))
    text = Markdown("{} **{}** on {}").format(
        code(content["command"]),
        outcome,
        f"{content['date'][:10]}: {content['tickets']} tickets, {content['identical']} of them "
        f"identical to the last digit; {content['exact']:,} numbers had to be equal, "
        f"{content['tested']} were tested{untested}. Recorded on {recorded}; computed again on "
        f"{computed}. Of {content['made_up']:,} made-up honest re-runs "
        f"{100 * content['false_alarms']:.2g} % would be said to have drifted.",
    )
    same = all(content["recorded"][name] == content["computed"][name] for name in ENVIRONMENT)
    if same and content["passed"] and content["identical"] < content["tickets"]:
        text += (
            " On the same machine, Python and PyTorch all would have been identical: some change "
            "of the code alters what is computed, though by no more than chance would."
        )
    return text


def table(content: Mapping[str, Any]) -> Markdown:
    """Return a report's curves as a Markdown table."""
    detected = f"found in {100 * content['sure']:.0f} % of cases"
    heads = ["curve", "tickets", "identical", "largest difference", "drifted", detected]
    units = {"largest": "{:+.1f} standard errors", "seen": "{:g} points"}
    lines = [
        [
            "–" if row[name] is None else units.get(name, "{}").format(row[name])
            for name in ("label", "tickets", "identical", "largest", "drifted", "seen")
        ]
        for row in content["curves"]
    ]
    return markdown_table(heads, lines)


def write_report(content: Mapping[str, Any], folder: Path) -> Path:
    """Write `folder/DATE-STUDY.json`, and `.md` beside it.

    Args:
        content: from `report`.
        folder: for both; made where it is missing.

    Returns:
        The path of the first.
    """
    path = folder / _file_name(content)
    write_atomically(path, sealed(content, indent=1) + b"\n")
    write_atomically(path.with_suffix(".md"), markdown(content).encode())
    return path


def load_reports(results: str | Path) -> dict[str, dict[str, Any]]:
    """Read the latest report on each study from the published record's folder `checks`.

    Args:
        results: the folder of the published record.

    Returns:
        Study -> its report.

    Raises:
        RecordError: a report is malformed; names file and field.
    """
    reports = map(load_report, report_files(results))
    return {content["study"]: content for content in reports}


def report_files(results: str | Path) -> list[Path]:
    """Return the published reports, the newest of a study last."""
    return sorted((Path(results) / FOLDER).glob("*.json"))


def load_report(path: Path) -> dict[str, Any]:
    """Read one report.

    Raises:
        RecordError: it is malformed; names file and field.
    """
    content = read_published(path, "`lth check-results`")
    check(content, _REPORT, str(path))
    for name, rule in (("curves", _CURVE), ("drifted", _DRIFTED)):
        for position, item in enumerate(content[name]):
            check(item, rule, str(path), f"{name}[{position}]")
    if path.name != (written := _file_name(content)):
        raise RecordError(f"{path}: holds what was written as {written}; give it that name again")
    return content


def _file_name(content: Mapping[str, Any]) -> str:
    return f"{content['date'][:10]}-{content['study']}.json"


def _side(records: Sequence[Record]) -> dict[str, Any]:
    """Where records were computed: each thing's different values."""
    origins = [record["provenance"] for record in records]
    side: dict[str, Any] = {
        name: sorted({origin[name] for origin in origins}, key=str) for name in ENVIRONMENT
    }
    commits = {origin["commit"] or "none" for origin in origins}
    return {**side, "commit": sorted(commits), "dirty": any(origin["dirty"] for origin in origins)}


def _machine(side: Mapping[str, Any]) -> str:
    names, torch, python = (", ".join(side[n]) for n in ("device_name", "torch", "python"))
    commits = ", ".join(commit[:7] for commit in side["commit"])
    changed = ", with changes" if side["dirty"] else ""
    return f"{names} (PyTorch {torch}, Python {python}, commit {commits}{changed})"


def _curve(
    label: str,
    comparison: Comparison,
    recorded: Sequence[Record],
    computed: Sequence[Record],
    tries: int,
) -> dict[str, Any]:
    tickets, identical = comparison.curves[label]
    numbers = [number for number in comparison.numbers if number.label == label]
    tested = [number.standard_errors or 0.0 for number in numbers if _is_tested(number)]
    return {
        "label": label,
        "tickets": tickets,
        "identical": identical,
        "largest": max(tested, key=abs, default=None),
        "drifted": sum(number.drifted for number in numbers),
        "seen": _least_detected(label, recorded, computed, tries) if tested else None,
    }


def _is_tested(number: Number) -> bool:
    return number.p is not None and math.isfinite(number.p)


def _least_detected(
    label: str, recorded: Sequence[Record], computed: Sequence[Record], made_up: int
) -> int | None:
    """The least drift of a curve that is found nearly always, of those that are tried."""
    for points in SHIFTS:
        rng = np.random.default_rng(1)
        if alarm_rate(recorded, computed, rng, made_up, {label: -points}) >= NEARLY_ALWAYS:
            return points
    return None


def _drifted(
    number: Number, recorded: Sequence[Record], computed: Sequence[Record]
) -> dict[str, Any]:
    before = [record for record in recorded if record["run"] in number.runs]
    after = [record for record in computed if record["run"] in number.runs]
    return {
        **{name: getattr(number, name) for name in _DRIFTED if name not in ("runs", "causes")},
        "runs": list(number.runs),
        "causes": list(causes(before, after)),
    }


def causes(before: Sequence[Record], after: Sequence[Record]) -> Iterator[str]:
    """Yield what changed between two computations of the same runs and could make them differ.

    First what computed them: device, PyTorch, Python; then each commit since the record that
    touches a file these runs depend on, and changes that are not committed.

    Args:
        before: records of the runs; may be empty.
        after: records of the same runs, computed again; may be empty.

    Yields:
        One change, in words.
    """
    if before and after:
        old, new = _side(before), _side(after)
        for name in ENVIRONMENT:
            if old[name] != new[name]:
                was, became = (", ".join(map(str, side[name])) for side in (old, new))
                yield f"{name.replace('_', ' ')}: {was} became {became}"
        for side, word in ((old, "recorded"), (new, "computed again")):
            if side["dirty"]:
                yield f"{word} with changes that were not committed"
    files = _files([*before, *after])
    for commit in sorted({record["provenance"]["commit"] or "" for record in before}):
        yield from commits_since(commit, files, Path(__file__).parent)


def _files(records: Sequence[Record]) -> list[str]:
    from lthlib.source import source_files

    methods = set()
    for record in records:
        parent = {"config": record["config"]}
        while parent is not None:
            methods.add(parent["config"]["method"])
            parent = parent["config"]["parent"]
    return sorted({str(path) for method in methods for path in source_files(method)})


def commits_since(commit: str, files: Sequence[str], folder: Path) -> Iterator[str]:
    """Yield the commits since one that touch files, newest first, a line each; or why not.

    Args:
        commit: what git is to start from; empty where none is known.
        files: absolute paths.
        folder: any folder of the repository.
    """
    if not commit:
        yield "the record names no commit: what changed in the code since is not known"
        return
    command = ["git", "log", "--oneline", f"{commit}..HEAD", "--", *files]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        yield f"git does not know commit {commit[:7]}: fetch the whole history to see what changed"
        return
    lines = done.stdout.splitlines()
    yield from (f"commit {line}" for line in lines[:_SHOWN])
    if len(lines) > _SHOWN:
        yield f"{len(lines) - _SHOWN} earlier commits since {commit[:7]} that touch the same files"
    if not lines:
        yield f"no commit since {commit[:7]} touches the code of these runs"
