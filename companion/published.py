"""Published records: one a line, each with a digest, the last with one of all lines.

What was changed by hand is refused, not shown.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from os.path import lexists
from pathlib import Path
from typing import Any

from lthlib.errors import RecordError
from lthlib.files import from_json, is_sealed, open_regular, read_bounded, sealed
from lthlib.records import bare, check_texts, validate

LINE_LIMIT = 1 << 20
FILE_LIMIT = 16 << 20


def load_results(folder: str | Path) -> list[dict[str, Any]]:
    """Read every published record, `folder/STUDY.jsonl`, checking each line.

    Args:
        folder: the folder of JSON-lines files, one per study.

    Returns:
        The records, file by file in order of name, in the order of their lines.

    Raises:
        RecordError: the folder is missing, or a file is not as `published` made it; names file and
            line.
    """
    return [record for study in study_names(folder) for record in load_study(folder, study)]


def load_study(folder: str | Path, study: str, *, whole: bool = True) -> list[dict[str, Any]]:
    """Read the published records of one study; none if it has no file.

    Args:
        folder: the folder of JSON-lines files, one per study.
        study: the file is `folder/STUDY.jsonl`.
        whole: refuse a file that lines were removed from, added to or moved in. Without, the lines
            that there are count: each was written so.

    Returns:
        The records, in the order of their lines.

    Raises:
        RecordError: as `load_results`.
    """
    path = Path(folder) / f"{study}.jsonl"
    return load_file(path, study, whole=whole) if lexists(path) else []


def load_file(path: Path, study: str = "", *, whole: bool = True) -> list[dict[str, Any]]:
    """Read a file of records.

    Args:
        path: of the file.
        study: that it has to be of; any if empty.
        whole: as of `load_study`.

    Returns:
        The records, in the order of their lines.

    Raises:
        RecordError: as `load_results`.
    """
    records: list[dict[str, Any]] = []
    lines: dict[tuple[Any, ...], str] = {}
    for where, record in _read_lines(path, study or "STUDY", whole):
        validate(record, where)
        if study and record["study"] != study:
            raise RecordError(f"{where}: study is {record['study']!r}, expected {study!r}")
        index = record["ticket"]["index"] if record["status"] == "ok" else None
        key = (record["run"], index, record["judged"])
        if key in lines:
            raise RecordError(
                f"{where}: same run, ticket index and judged as {lines[key]}; remove one of them"
            )
        lines[key] = where
        records.append(record)
    return records


def runs_in(folder: str | Path, study: str) -> set[str]:
    """Return the runs of a study's file, of those lines that are as they were written."""
    path = Path(folder) / f"{study}.jsonl"
    run_ids = set()
    with contextlib.suppress(RecordError):
        for line in _lines(path):
            with contextlib.suppress(RecordError, KeyError):
                run_ids.add(str(unsealed(line, "", "")["run"]))
    return run_ids


def published(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the content of a study's file.

    It is a record a line, each with its digest as last field, and in the last line `above`, the
    SHA-256 of all lines above it.

    Args:
        records: of one study, in the order that they are to have.

    Returns:
        The file's bytes.

    Raises:
        RecordError: there are no records, or one is not valid.
    """
    lines = list(map(bare, records))
    if not lines:
        raise RecordError("there are no records to publish; expected one at least")
    for record in lines:
        validate(record)
    text = b"".join(sealed(record) + b"\n" for record in lines[:-1])
    return text + sealed({**lines[-1], "above": hashlib.sha256(text).hexdigest()}) + b"\n"


def study_names(folder: str | Path) -> list[str]:
    """Return the names of the studies published in `folder`, sorted.

    Args:
        folder: the folder of JSON-lines files, one per study.

    Returns:
        Names.

    Raises:
        RecordError: the folder is missing.
    """
    if not Path(folder).is_dir():
        raise RecordError(f"{folder}: no such folder; expected one JSON-lines file per study")
    return sorted(path.stem for path in Path(folder).glob("*.jsonl"))


def _read_lines(path: Path, study: str, whole: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    above = hashlib.sha256()
    recorded, expected = None, ""
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        record = unsealed(line, where, f"`lth record {study}`")
        recorded = record.pop("above", None)
        expected = above.hexdigest()
        above.update(line)
        yield where, record
    if whole and recorded != expected:
        again = f"`lth record {study} --add`, which keeps what is there"
        raise _change_error(str(path), "lines were removed, added or moved", again)


def _lines(path: Path) -> Iterator[bytes]:
    with _refuse_unreadable(path), open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), start=1):
            if len(line) > LINE_LIMIT:
                raise RecordError(
                    f"{path}, line {number}: is longer than {LINE_LIMIT} bytes; no record is"
                )
            yield line


@contextlib.contextmanager
def _refuse_unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error


def read_published(path: Path, again: str) -> dict[str, Any]:
    """Read a file that holds one object as `files.sealed` writes it.

    Args:
        path: the file.
        again: what writes it anew, for errors.

    Returns:
        The object, without its digest.

    Raises:
        RecordError: it cannot be read (then the cause is an OSError), is no JSON, or was changed.
    """
    with _refuse_unreadable(path):
        content = read_bounded(path, FILE_LIMIT)
    return unsealed(content, str(path), again)


def unsealed(text: bytes, where: str, again: str) -> dict[str, Any]:
    """Return the object that a sealed text holds, without its digest.

    Args:
        text: with a line's end.
        where: names the text in errors.
        again: what writes it anew, for errors.

    Returns:
        The object.

    Raises:
        RecordError: it is no JSON, or was changed.
    """
    try:
        value = from_json(text)
    except ValueError as error:
        raise _change_error(where, f"is not JSON ({error})", again) from None
    if not (text.endswith(b"\n") and is_sealed(text[:-1])):
        has = isinstance(value, dict) and "digest" in value
        raise _change_error(where, "does not match its digest" if has else "has no digest", again)
    check_texts(value, where)
    return {name: field for name, field in value.items() if name != "digest"}


def _change_error(where: str, fault: str, again: str) -> RecordError:
    return RecordError(
        f"{where}: {fault}: it is not as it was written. Take the file back from version control, "
        f"or write it again with {again}"
    )
