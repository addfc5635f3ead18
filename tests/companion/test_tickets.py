"""Published tickets: what was found is loaded by name, and what does not fit the record refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import lthlib
from companion.publish.results import faults_of
from companion.published import load_study, published
from companion.studies import ticket_study
from companion.tickets import (
    KIND,
    SIZE_LIMIT,
    find_ticket,
    load_tickets,
    name_of,
    published_tickets,
    tickets_file,
)
from lthlib.cli.command import app
from lthlib.errors import ConfigError, RecordError
from lthlib.models import build_model
from lthlib.recipes import load_recipe
from lthlib.runs import Machine, RunConfig, Store, execute
from lthlib.tickets import seal, unseal
from tests.conftest import write_tiny

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, and what is published of it."""
    folder = tmp_path_factory.mktemp("made")
    study = ticket_study(load_recipe(write_tiny(folder)), methods=["imp", "bip"])
    store = Store(folder / "store")
    for config in study.configs:
        execute(config, store, Machine("cpu"))
    records = study.records(store)
    path = tickets_file(folder, "tiny")
    path.parent.mkdir()
    path.write_bytes(published_tickets(records, store))
    (folder / "tiny.jsonl").write_bytes(published(records))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "made"))


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> RecordError:
    """What is said of a file whose header was changed, and sealed again."""
    path = tickets_file(folder, "tiny")
    tensors, text = unseal(path.read_bytes(), KIND)
    header = json.loads(text)
    change(header)
    path.write_bytes(seal(tensors, KIND, json.dumps(header)))
    (error,) = faults_of(folder)
    return error


def test_a_published_ticket_is_the_one_that_was_found(made: Path) -> None:
    store, found = Store(made / "store"), load_tickets(made, "tiny")
    sparse = [one for one in load_study(made, "tiny") if one["density"] <= 0.5]
    assert len(sparse) == 4 and list(found) == list(map(name_of, sparse))
    for record in sparse:
        own, ticket = store.find(record["run"]), found[name_of(record)]
        kept = store.ticket(_config(own.values), record["ticket"]["point"])
        assert kept.mask.overlap(ticket.mask) == 1 and kept.rewind_step == ticket.rewind_step == 2
        assert kept.rewind.keys() == ticket.rewind.keys()
        assert all(torch.equal(kept.rewind[name], ticket.rewind[name]) for name in kept.rewind)
        assert ticket.weights is None and ticket.info["sha256"] == record["ticket"]["sha256"]


def test_masks_and_rewind_points_are_written_once(made: Path) -> None:
    # IMP and BiP start from one dense network, and the three masks of two seeds differ.
    tensors, _ = unseal(tickets_file(made, "tiny").read_bytes(), KIND)
    parts = {name.partition("/")[0] for name in tensors}
    assert len(parts) == 1 + 4


def test_a_loaded_ticket_can_be_retrained(made: Path) -> None:
    found = load_tickets(made, "tiny")
    ticket = find_ticket(found, next(iter(found)))
    data = lthlib.load_dataset("digits")
    model = build_model(_config(ticket.info["config"]).model, classes=10, channels=1, seed=9)
    training = lthlib.TrainingSettings(length="4it", batch_size=64)
    trained = lthlib.retrain(ticket, data, model=model, training=training)
    assert trained.mask.overlap(ticket.mask) == 1 and trained.weights


def test_a_name_that_is_none_or_several_is_refused(made: Path) -> None:
    found = load_tickets(made, "tiny")
    with pytest.raises(ConfigError, match="no published name begins with 'zz'"):
        find_ticket(found, "zz")
    with pytest.raises(ConfigError, match="4 published tickets' names begin with ''"):
        find_ticket(found, "")


def test_what_the_store_lacks_or_hardly_prunes_is_not_published(
    made: Path, folder: Path, tmp_path: Path
) -> None:
    records, half = load_study(made, "tiny"), Store(folder / "store")
    shutil.rmtree(half.folder(_config(records[-1]["config"])))
    tickets_file(folder, "tiny").write_bytes(published_tickets(records, half))
    assert list(load_tickets(folder, "tiny")) == list(load_tickets(made, "tiny"))[:-1]
    dense = [one for one in records if one["label"] == "dense"]
    for rest, store in ((records, Store(tmp_path)), (dense, half)):
        with pytest.raises(RecordError, match="holds no published ticket that keeps at most 50 %"):
            published_tickets(rest, store)


def test_a_changed_byte_shows(folder: Path) -> None:
    path = tickets_file(folder, "tiny")
    whole = path.read_bytes()
    for place in (9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        (error,) = faults_of(folder)
        assert str(error).startswith(f"{path}: ") and "lth record tiny --add --tickets" in str(
            error
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header: header.pop("shapes"), "lacks shapes"),
        (lambda header: header["shapes"].clear(), "malformed"),
        (lambda header: header.update(tickets=[]), "tickets is"),
        (lambda header: header["tickets"].update({"a/b": {}}), "ticket a/b: lacks"),
        (
            lambda header: header["tickets"].update(
                {"a/b": next(iter(header["tickets"].values()))}
            ),
            "the record has no ticket a/b",
        ),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    assert said in str(changed(folder, change))


def test_a_mask_that_is_not_the_records_is_refused(folder: Path) -> None:
    def swap(header: dict[str, Any]) -> None:
        names = list(header["tickets"])
        masks = [header["tickets"][name]["mask"] for name in names]
        for name, mask in zip(names, reversed(masks), strict=True):
            header["tickets"][name]["mask"] = mask

    assert "does not keep what its record says" in str(changed(folder, swap))


def test_the_command_lists_and_writes_them(folder: Path, tmp_path: Path) -> None:
    def lth(*arguments: object) -> Any:
        return CliRunner().invoke(app, [*map(str, arguments), "--results", str(folder)])

    listed = lth("tickets", "tiny").output.splitlines()
    assert len(listed) == 4 and "BiP, found, seed 0" in listed[-1]
    target = tmp_path / "one.safetensors"
    assert lth("tickets", "tiny", listed[-1].split()[0], target).exit_code == 0
    assert lthlib.Ticket.load(target).density == pytest.approx(0.2, abs=1e-3)
    assert isinstance(lth("tickets", "none").exception, ConfigError)


def test_a_study_is_recorded_with_its_tickets(made: Path, tmp_path: Path) -> None:
    options = ["--methods", "imp,bip", "--store", str(made / "store"), "--results", str(tmp_path)]
    command = ["record", str(made / "tiny.yaml"), "--tickets", *options]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert tickets_file(tmp_path, "tiny").read_bytes() == tickets_file(made, "tiny").read_bytes()


def test_all_that_is_published_is_small() -> None:
    files = list((REPOSITORY / "results" / KIND).iterdir())
    assert files and sum(path.stat().st_size for path in files) < SIZE_LIMIT


def _config(values: Any) -> RunConfig:
    return RunConfig.from_json(values)
