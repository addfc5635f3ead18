"""The store: a run is complete, resumable or absent; damage is found, stale runs computed anew."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lthlib.runs.store
from lthlib import source
from lthlib.errors import ConfigError, Paused, StoreError
from lthlib.files import sealed
from lthlib.runs import Machine, RunConfig, RunResult, Store, Swept, execute, execute_many
from lthlib.runs.execution import _Execution
from lthlib.runs.upkeep import verify
from lthlib.source import fingerprint
from lthlib.tickets import Ticket
from tests.runs.toys import child, config

DENSE = config()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def stored(store: Store) -> RunResult:
    return execute(DENSE, store)


def files(store: Store, run: RunConfig) -> list[str]:
    folder = store.folder(run)
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_an_absent_run(store: Store) -> None:
    assert store.load(DENSE) is None
    assert list(store.load_each()) == []
    assert list(verify(store)) == []


def test_a_complete_run_is_its_files(store: Store, stored: RunResult) -> None:
    assert files(store, DENSE) == ["rewind.safetensors", "run.json", "tickets/dense.safetensors"]
    loaded = store.load(DENSE)
    assert loaded is not None
    assert loaded.config == DENSE
    assert loaded.records == stored.records
    assert [r.config.id for r in list(store.load_each())] == [DENSE.id]
    assert list(verify(store)) == []


def test_a_record_says_what_was_found(store: Store, stored: RunResult) -> None:
    (record,) = stored.records
    content = (store.folder(DENSE) / "tickets" / "dense.safetensors").read_bytes()
    assert record["run"] == DENSE.id
    assert record["config"] == DENSE.to_json()
    assert record["ticket"] == {
        "index": 0,
        "point": "dense",
        "sha256": hashlib.sha256(content).hexdigest(),
        "target_density": 1.0,
    }
    assert (record["status"], record["failure"], record["judged"]) == ("ok", None, "found")
    assert record["kept"] == record["total"] == 1_290
    assert record["layers"]["linear.weight"] == [80, 80]
    assert record["density"] == 1.0
    # 40 validation images and 497 test images.
    for part, images in (("validation", 40), ("test", 497)):
        right = record["accuracy"][part] * images / 100
        assert right == pytest.approx(round(right), abs=1e-9)
    assert record["cost"]["own"] == record["cost"]["cumulative"]
    assert record["cost"]["own"]["images"] == 5 * 32 + 32
    assert record["cost"]["own"]["epochs"] == 6 / 5
    assert record["provenance"]["device"] == "cpu"


def test_a_ticket_comes_with_its_rewind_point(store: Store, stored: RunResult) -> None:
    ticket = store.ticket(DENSE, "dense")
    assert ticket.rewind is not None
    assert ticket.rewind_step == 2
    assert ticket.info["run"] == DENSE.id
    with pytest.raises(StoreError, match="has no ticket 'round-1'; it has dense"):
        store.ticket(DENSE, "round-1")
    with pytest.raises(StoreError, match="has no ticket 'dense'; it has none"):
        store.ticket(config(seed=9), "dense")


def test_runs_are_found_by_the_beginning_of_their_id(store: Store, stored: RunResult) -> None:
    execute(config(seed=1), store)
    assert store.find(DENSE.id[:6]).config == DENSE
    with pytest.raises(StoreError, match="2 runs' ids begin with ''"):
        store.find("")
    with pytest.raises(StoreError, match="no complete run's id begins with 'zz'"):
        store.find("zz")


def damage_everywhere(content: bytes) -> list[bytes]:
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    shorter = content.replace(b'"test": ', b'"test":  1')
    return [b"", content[: len(content) // 2], bytes(flipped), shorter, b"[]", b"7", b"null"]


@pytest.mark.parametrize("case", range(7))
def test_a_damaged_run_is_set_aside_and_computed_again(
    store: Store, stored: RunResult, case: int
) -> None:
    path = store.folder(DENSE) / "run.json"
    path.write_bytes(damage_everywhere(path.read_bytes())[case])
    assert [run for run, _ in verify(store)] != []
    assert store.load(DENSE) is None
    (kept,) = (store.root / "damaged").iterdir()
    assert kept.name == f"{DENSE.id}.0"
    assert {"run.json", "tickets", "why.txt"} <= {p.name for p in kept.iterdir()}
    again = execute(DENSE, store)
    assert again.records[0]["ticket"] == stored.records[0]["ticket"]
    assert list(verify(store)) == []


@pytest.mark.parametrize("name", ["tickets/dense.safetensors", "rewind.safetensors"])
def test_a_flipped_byte_in_a_ticket_is_found(store: Store, stored: RunResult, name: str) -> None:
    path = store.folder(DENSE) / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert list(verify(store)) == [(DENSE.id, f"{name} does not match its checksum")]
    with pytest.raises(StoreError, match="does not match its checksum; the run was set aside"):
        store.ticket(DENSE, "dense")
    assert store.load(DENSE) is None
    execute(DENSE, store)
    assert store.ticket(DENSE, "dense").point == "dense"


def test_a_missing_ticket_is_found(store: Store, stored: RunResult) -> None:
    (store.folder(DENSE) / "tickets" / "dense.safetensors").unlink()
    ((run, why),) = verify(store)
    assert run == DENSE.id
    assert why == "tickets/dense.safetensors is missing"


def test_a_run_under_another_id_is_found(store: Store, stored: RunResult) -> None:
    os.rename(store.folder(DENSE), store.folder(config(seed=1)))
    other = config(seed=1).id
    assert list(verify(store)) == [(other, f"run.json belongs to {DENSE.id}, not to {other}")]


def test_another_run_s_files_are_not_taken_as_its_own(
    store: Store, stored: RunResult, caplog: pytest.LogCaptureFixture
) -> None:
    other = config(seed=1)
    execute(other, store)
    shutil.rmtree(store.folder(DENSE))
    shutil.copytree(store.folder(other), store.folder(DENSE))
    assert [result.config for result in list(store.load_each())] == [other]
    assert f"run.json belongs to {other.id}, not to {DENSE.id}; it was moved" in caplog.text
    assert store.load(DENSE) is None
    assert execute(DENSE, store).records[0]["ticket"] == stored.records[0]["ticket"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run["config"].update(seed=7), "run.json belongs to"),
        (lambda run: run["config"]["training"].update(momentum=0.8), "run.json belongs to"),
        (lambda run: run["config"].update(added=0), "run.json belongs to"),
        (lambda run: run.update(id="0" * 16), "run.json belongs to"),
        (lambda run: run["records"][0].update(run="0" * 16), "a record in run.json belongs"),
        (lambda run: run["records"][0].update(parent="0" * 16), "a record in run.json belongs"),
        (lambda run: run["records"][0]["config"].update(seed=7), "a record in run.json belongs"),
        (lambda run: run.update(records=[]), "records is [], expected a list of objects"),
        (lambda run: run.pop("source"), "run.json: lacks source"),
        (lambda run: run["config"].pop("parent"), "run.json is malformed"),
        (lambda run: run["config"].update(method="magic"), "run.json is malformed"),
        (lambda run: run["config"].update(settings=None), "run.json is malformed"),
        (lambda run: run.update(records=[7]), "records is [7], expected a list of objects"),
        (lambda run: run.update(files={}), "run.json names no ticket 'dense'"),
    ],
)
def test_a_run_is_what_its_configuration_hashes_to(
    store: Store,
    stored: RunResult,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[dict[str, Any]], None],
    said: str,
) -> None:
    """Also where somebody sealed it again."""
    path = store.folder(DENSE) / "run.json"
    run = json.loads(path.read_bytes())
    change(run)
    path.write_bytes(sealed(run))
    assert list(store.load_each()) == []
    assert said in caplog.text
    assert execute(DENSE, store).records[0]["ticket"] == stored.records[0]["ticket"]


@pytest.mark.parametrize("prefix", ["**", "*", "?", "[0-9a-f]", "..", "/", "", "x" * 5000])
def test_a_prefix_is_no_pattern(store: Store, stored: RunResult, prefix: str) -> None:
    if prefix == "":
        assert store.find(prefix).config == DENSE
        return
    with pytest.raises(StoreError, match="no complete run's id begins with"):
        store.find(prefix)


def test_a_parent_sealed_when_it_was_damaged_is_computed_again(
    store: Store, stored: RunResult
) -> None:
    """It is not the child's failure."""
    folder = store.folder(DENSE)
    ticket = folder / "tickets" / "dense.safetensors"
    ticket.write_bytes(ticket.read_bytes()[:-1])
    run = json.loads((folder / "run.json").read_bytes())
    digest = hashlib.sha256(ticket.read_bytes()).hexdigest()
    run["files"]["tickets/dense.safetensors"] = run["records"][0]["ticket"]["sha256"] = digest
    (folder / "run.json").write_bytes(sealed(run))
    assert execute(child("omp", DENSE), store).failure is None
    assert list(verify(store)) == []


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files may not be made, moved or removed, as on a file system that is mounted so."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(args[0]))

    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "utime"):
        monkeypatch.setattr(os, name, refuse)


@pytest.mark.usefixtures("stored", "read_only")
def test_a_complete_study_needs_no_right_to_write(store: Store) -> None:
    assert execute_many([DENSE], store) == Swept({}, 0)
    assert execute(DENSE, store).failure is None


@pytest.mark.parametrize("content", [b"{", b"", b"[" * 100_000])
def test_what_cannot_be_moved_hides_nothing_else(
    store: Store,
    stored: RunResult,
    content: bytes,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    execute(config(seed=1), store)
    (store.folder(DENSE) / "run.json").write_bytes(content)
    request.getfixturevalue("read_only")
    assert [result.config for result in list(store.load_each())] == [config(seed=1)]
    assert "run.json is not JSON" in caplog.text
    assert "cannot be moved" in caplog.text
    with pytest.raises(StoreError, match="Read-only file system"):
        execute(DENSE, store)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the runs that are really computed, in order."""
    computed: list[str] = []
    run = _Execution.run

    def watched(self: Any) -> RunResult:
        computed.append(self.config.id)
        result: RunResult = run(self)
        return result

    monkeypatch.setattr(_Execution, "run", watched)
    return computed


def edit_source(monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    """As if these methods' files had been changed."""
    before: Callable[[str], str] = lthlib.runs.store.fingerprint

    def changed(method: str) -> str:
        return before(method)[::-1] if method in methods else before(method)

    monkeypatch.setattr(lthlib.runs.store, "fingerprint", changed)


def test_executing_twice_computes_once(
    store: Store, stored: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = counted(monkeypatch)
    assert execute(DENSE, store).records == stored.records
    assert computed == []
    omp = child("omp", DENSE)
    execute(omp, store)
    execute(omp, store)
    assert computed == [omp.id]


def test_a_stale_run_is_computed_again(
    store: Store, stored: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = counted(monkeypatch)
    edit_source(monkeypatch, "dense")
    assert store.load(DENSE) is None
    assert [r.config.id for r in list(store.load_each())] == [DENSE.id]
    assert execute(DENSE, store).records[0]["ticket"] == stored.records[0]["ticket"]
    assert computed == [DENSE.id]
    assert store.load(DENSE) is not None


def test_a_child_is_stale_when_its_parent_is(
    store: Store, stored: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    omp = child("omp", DENSE)
    execute(omp, store)
    computed = counted(monkeypatch)
    edit_source(monkeypatch, "dense")
    # Also after the parent alone was computed again.
    execute(DENSE, store)
    assert store.load(omp) is None
    execute(omp, store)
    assert computed == [DENSE.id, omp.id]


def test_another_method_s_source_does_not_matter(
    store: Store, stored: RunResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_source(monkeypatch, "imp", "cs", "bip")
    assert store.load(DENSE) is not None


def test_the_fingerprint_sees_code_and_not_prose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "lthlib"
    shutil.copytree(Path(lthlib.__file__).parent, package)
    passed_over = {package / path.relative_to(source._PACKAGE) for path in source._PASSED_OVER}
    monkeypatch.setattr(source, "_PACKAGE", package)
    monkeypatch.setattr(source, "_PASSED_OVER", passed_over)

    def prints() -> dict[str, str]:
        fingerprint.cache_clear()
        return {m: fingerprint(m) for m in ("dense", "imp", "gmp", "bip")}

    def edit(name: str, old: str, new: str) -> None:
        text = (package / name).read_text()
        assert old in text
        (package / name).write_text(text.replace(old, new, 1))

    try:
        first = prints()
        assert len(set(first.values())) == 4
        edit("methods/imp.py", '"""Iterative', '"""# Iterative')
        edit("training/settings.py", "import math", "# a comment\nimport math")
        assert prints() == first
        edit("methods/imp.py", "-1.0", "-2.0")
        second = prints()
        # GMP prunes as IMP does.
        assert {m for m in first if first[m] != second[m]} == {"imp", "gmp"}
        edit("training/settings.py", "0.1 **", "0.2 **")
        assert {m for m in first if prints()[m] != second[m]} == set(first)
    finally:
        fingerprint.cache_clear()


def pause_after(store: Store, run: RunConfig, questions: int, monkeypatch: Any) -> None:
    """Start a run and stop it when it has asked `questions` times whether to go on."""
    with monkeypatch.context() as patch:
        original = _Execution._hooks
        asked = iter(range(questions + 1))

        def hooks(self: Any, trainer: Any) -> Any:
            found = original(self, trainer)
            found.should_stop = lambda trainer: next(asked) == questions
            return found

        patch.setattr(_Execution, "_hooks", hooks)
        with pytest.raises(Paused):
            execute(run, store)


IMP = config("imp", settings={"rounds": 2, "fraction": 0.5, "rewind": "2it"})


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    plain: list[dict[str, Any]] = json.loads(json.dumps(records))
    for record in plain:
        del record["provenance"]
        for cost in record["cost"].values():
            del cost["seconds"]
    return plain


@pytest.mark.parametrize("questions", [0, 3, 8])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_records(
    store: Store, tmp_path: Path, questions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_after(store, IMP, questions, monkeypatch)
    assert store.load(IMP) is None
    assert "checkpoint.safetensors" in files(store, IMP)
    resumed = execute(IMP, store)
    whole = execute(IMP, Store(tmp_path / "other"))
    assert without_times(resumed.records) == without_times(whole.records)
    assert files(store, IMP) == files(Store(tmp_path / "other"), IMP)
    assert not any(name.startswith(("checkpoint", "judged")) for name in files(store, IMP))


def test_a_run_really_goes_on_from_its_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_after(store, IMP, 8, monkeypatch)
    asked = []
    original = _Execution._hooks

    def hooks(self: Any, trainer: Any) -> Any:
        found = original(self, trainer)
        found.should_stop = lambda trainer: asked.append((trainer.round, trainer.step))
        return found

    monkeypatch.setattr(_Execution, "_hooks", hooks)
    execute(IMP, store)
    # Round 0 asks 6 times; the ninth question is before step 4 of round 1, from step 2 on.
    assert asked == [(1, 4), (1, 5), (2, 2), (2, 3), (2, 4), (2, 5)]


@pytest.mark.parametrize("how", ["damaged", "stale"])
def test_a_checkpoint_that_cannot_be_used_means_starting_again(
    store: Store, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause_after(store, IMP, 8, monkeypatch)
    path = store.folder(IMP) / "checkpoint.safetensors"
    if how == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        edit_source(monkeypatch, "imp")
    found = execute(IMP, store)
    assert len(list((store.root / "damaged").iterdir())) == 1
    whole = execute(IMP, Store(tmp_path / "other"))
    assert without_times(found.records) == without_times(whole.records)


def chain(rounds: int, **settings: Any) -> RunConfig:
    own = {"rounds": rounds, "fraction": 0.5, "rewind": "2it", **settings}
    return config("imp", settings=own)


def contents(store: Store, run: RunConfig) -> dict[str, bytes]:
    names = [name for name in files(store, run) if name != "run.json"]
    return {name: (store.folder(run) / name).read_bytes() for name in names}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rewinding": "learning-rate"},
        {"rewinding": "none"},
        {"structure": "filter", "fraction": 0.2},
    ],
)
def test_more_rounds_go_on_from_a_complete_chain(
    store: Store, tmp_path: Path, settings: dict[str, Any]
) -> None:
    execute(chain(1, **settings), store)
    shorter = execute(chain(2, **settings), store)
    found = execute(chain(4, **settings), store)
    # To the last digit of their seconds: no round that there was is trained again.
    assert [record["cost"] for record in found.records[:3]] == [
        record["cost"] for record in shorter.records
    ]
    alone = Store(tmp_path / "alone")
    expected = execute(chain(4, **settings), alone)
    assert without_times(found.records) == without_times(expected.records)
    assert len(found.history) == len(expected.history)
    assert contents(store, chain(4, **settings)) == contents(alone, chain(4, **settings))
    assert list(verify(store)) == []


@pytest.mark.parametrize("why", ["damaged", "another", "momenta"])
def test_a_chain_that_cannot_be_gone_on_from_is_trained_again(
    store: Store, tmp_path: Path, why: str
) -> None:
    own = {"optimiser": "restored"} if why == "momenta" else {}
    shorter = execute(chain(2, **own), store)
    if why == "damaged":
        ticket = store.folder(chain(2)) / "tickets" / "round-1.safetensors"
        ticket.write_bytes(ticket.read_bytes()[:-1])
    if why == "another":
        own = {"fraction": 0.4}
    found = execute(chain(3, **own), store)
    assert (
        found.records[0]["cost"]["own"]["seconds"] != shorter.records[0]["cost"]["own"]["seconds"]
    )
    expected = execute(chain(3, **own), Store(tmp_path / "alone"))
    assert without_times(found.records) == without_times(expected.records)


def test_costs_add_up_over_ancestors(store: Store) -> None:
    dense = execute(DENSE, store).records[0]["cost"]["own"]
    omp = execute(child("omp", DENSE), store).records[0]["cost"]
    for name, value in dense.items():
        assert omp["cumulative"][name] == pytest.approx(value + omp["own"][name])
    assert omp["own"]["images"] == 3 * 32 + 32  # steps 2 to 5
    imp = execute(IMP, store).records
    assert [r["cost"]["own"]["images"] for r in imp] == [192, 192 + 128, 192 + 256]
    again = execute(child("retrain", IMP, "round-1"), store).records[0]["cost"]
    assert again["own"]["images"] == 128
    # Up to the ticket it starts from, not to the end of the search.
    assert again["cumulative"]["images"] == 192 + 128 + 128


def test_a_retrained_imp_ticket_is_judged_alike(store: Store) -> None:
    search = execute(IMP, store).records[1]
    again = execute(child("retrain", IMP, "round-1"), store).records[0]
    assert search["accuracy"] == again["accuracy"]
    assert search["layers"] == again["layers"]
    assert again["parent"] == IMP.id


def test_a_fresh_control_does_not_get_its_parent_s_initialisation(store: Store) -> None:
    weights = {}
    for start in ("rewind", "fresh"):
        run = child("retrain", DENSE, settings={"start": start, "length": "3it"})
        execute(run, store)
        weights[start] = store.ticket(run, "dense").weights
    rewind = store.ticket(DENSE, "dense").rewind
    assert rewind is not None
    assert weights["rewind"] is not None
    assert weights["fresh"] is not None
    near = (weights["rewind"]["stem.weight"] - rewind["stem.weight"]).norm()
    far = (weights["fresh"]["stem.weight"] - rewind["stem.weight"]).norm()
    assert far > 2 * near


def test_narrow_masks_are_recorded_over_the_common_base(store: Store) -> None:
    model = {"prunable": "conv"}
    dense = config(model=model)
    record = execute(child("omp", dense, model=model, settings={"density": 0.5}), store).records[0]
    assert record["layers"]["linear.weight"] == [80, 80]
    assert (record["kept"], record["total"]) == (1_210 // 2 + 80, 1_290)
    assert record["density"] == (605 + 80) / 1_290


@pytest.mark.parametrize(
    ("how", "said"), [("damaged", "does not match its checksum"), ("missing", "is missing")]
)
def test_a_parent_s_ticket_that_is_damaged_is_computed_again(
    store: Store, stored: RunResult, how: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = store.folder(DENSE) / "tickets" / "dense.safetensors"
    whole = path.read_bytes()
    path.unlink()
    if how == "damaged":
        path.write_bytes(whole[:-1])
    execute(child("omp", DENSE), store)
    assert path.read_bytes() == whole
    assert f"run {DENSE.id}: tickets/dense.safetensors {said}" in caplog.text


def test_a_damaged_run_that_somebody_computes_is_left_to_them(
    store: Store, stored: RunResult
) -> None:
    (store.folder(DENSE) / "run.json").write_text("{")
    with store.lock(DENSE):
        assert store.load(DENSE) is None
        assert (store.folder(DENSE) / "run.json").exists()
    assert store.load(DENSE) is None
    assert not store.folder(DENSE).exists()


@pytest.mark.parametrize("device", ["banana", "cuda:99x", "meta", "metal", "xpu"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match=f"device is '{device}'; expected auto, cuda"):
        Machine(device=device).torch_device()


def test_a_deadline_and_a_stop_file_ask_to_stop(tmp_path: Path) -> None:
    assert not Machine().asks_to_stop()
    assert not Machine(deadline=time.time() + 60).asks_to_stop()
    assert Machine(deadline=time.time() - 1).asks_to_stop()
    machine = Machine(stop_file=str(tmp_path / "stop"))
    assert not machine.asks_to_stop()
    (tmp_path / "stop").touch()
    assert machine.asks_to_stop()


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        StoreError, match=r"cannot use the run store .*file.* is no folder.* --store"
    ):
        Store(tmp_path / "file").prepare()
    with pytest.raises(StoreError, match="file"):
        execute(DENSE, Store(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_named(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir(mode=0o500)
    with pytest.raises(StoreError, match=r"cannot write the run store .*Permission denied"):
        execute(DENSE, Store(root))


def test_the_store_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTHLIB_STORE", "/somewhere/else")
    assert Store().root == Path("/somewhere/else")
    monkeypatch.delenv("LTHLIB_STORE")
    assert Store().root == Path("store")


def test_stored_tickets_are_tickets(store: Store, stored: RunResult) -> None:
    ticket = Ticket.load(store.folder(DENSE) / "tickets" / "dense.safetensors")
    assert ticket.sha256() == stored.records[0]["ticket"]["sha256"]
