"""Results from elsewhere: what was exported comes in whole and marked, or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lthlib.runs.store
from companion.archive import export_runs, import_runs
from lthlib.cli.keeping import list_
from lthlib.errors import Paused, StoreError
from lthlib.files import sealed
from lthlib.leases import hold
from lthlib.runs import Machine, RunConfig, Store, execute
from lthlib.runs.store import RUN_LIMIT
from lthlib.runs.upkeep import verify
from lthlib.tickets import Ticket, seal, unseal
from tests.conftest import needs
from tests.runs.toys import child, config

DENSE = config()
OMP = child("omp", DENSE, settings={"density": 0.5})
CPU = Machine(device="cpu")
Members = dict[str, bytes]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("archive") / "there")
    execute(OMP, store, CPU)
    export_runs(store, "a study", [OMP], store.root.parent / "all.tar")
    return store.root


@pytest.fixture
def there(computed: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(computed, tmp_path / "there"))


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store(tmp_path / "here")


@pytest.fixture
def archive(computed: Path) -> Path:
    return computed.parent / "all.tar"


def outcomes(store: Store, archive: Path) -> list[tuple[str, str]]:
    return [(one.config.method, one.outcome) for one in import_runs(store, archive)]


def members(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        opened = {one.name: tar.extractfile(one) for one in tar}
        return {name: file.read() for name, file in opened.items() if file is not None}


def write(path: Path, content: Members, **header: Any) -> Path:
    """An archive with other members, under a list that fits them."""
    manifest = json.loads(content["manifest.json"])
    manifest["members"] = {
        name: {"bytes": len(one), "sha256": hashlib.sha256(one).hexdigest()}
        for name, one in content.items()
        if name != "manifest.json"
    }
    return tar(path, {**content, "manifest.json": json.dumps(manifest).encode()}, **header)


def tar(path: Path, content: Members, **header: Any) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
        for name, one in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(one)
            if name != "manifest.json":
                for field, value in header.items():
                    setattr(info, field, value)
            out.addfile(info, io.BytesIO(one))
    with path.open("ab") as file:
        file.write(bytes(sum(map(len, content.values()))))
    return path


def recomputed(store: Store, run: RunConfig, change: Callable[[dict[str, Any]], None]) -> None:
    """As if the run had been computed elsewhere, with another result."""
    path = store.folder(run) / "run.json"
    stored = json.loads(path.read_bytes())
    change(stored)
    path.write_bytes(sealed(stored))


def test_exported_runs_come_in_and_can_be_used(here: Store, archive: Path, there: Store) -> None:
    assert outcomes(here, archive) == [("dense", "new"), ("omp", "new")]
    found, original = here.load(OMP), there.load(OMP)
    assert found is not None
    assert original is not None
    assert found.records == original.records
    assert original.imported is None
    assert found.imported is not None
    assert found.imported["archive"] == "all.tar"
    assert list(verify(here)) == []
    # A run that starts from an imported ticket.
    again = child("retrain", OMP, "ticket")
    assert execute(again, here, CPU).records[0]["accuracy"] == found.records[0]["accuracy"]
    assert outcomes(here, archive) == [("dense", "same"), ("omp", "same")]
    assert not (here.root / ".import").exists()


def test_equal_runs_give_equal_bytes(there: Store, archive: Path, tmp_path: Path) -> None:
    for path in there.root.rglob("*"):
        path.touch()
    export_runs(there, "a study", [DENSE, OMP], tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()


def test_what_is_not_complete_or_damaged_is_not_exported(there: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not complete; `lth sweep` first"):
        export_runs(there, "a study", [config(seed=1)], tmp_path / "out.tar")
    ticket = there.folder(OMP) / "tickets" / "ticket.safetensors"
    ticket.write_bytes(ticket.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"ticket.safetensors does not match its checksum"):
        export_runs(there, "a study", [OMP], tmp_path / "out.tar")
    ticket.unlink()
    for spoil in (lambda: None, lambda: ticket.symlink_to("/dev/zero"), ticket.mkdir):
        spoil()
        with pytest.raises(StoreError, match=r"ticket.safetensors.*; `lth verify --repair`"):
            export_runs(there, "a study", [OMP], tmp_path / "out.tar")
        if ticket.is_symlink():
            ticket.unlink()
    assert not list(tmp_path.glob("*out.tar*"))


def test_records_alone_can_be_looked_at(there: Store, here: Store, tmp_path: Path) -> None:
    path = tmp_path / "records.tar"
    export_runs(there, "a study", [OMP], path, tickets=False)
    assert [name.rpartition("/")[2] for name in members(path)] == [
        "manifest.json",
        *["run.json"] * 2,
    ]
    assert outcomes(here, path) == [("dense", "kept"), ("omp", "kept")]
    assert here.load(DENSE) is None
    assert {one.config.id for one in here.load_each("imported")} == {DENSE.id, OMP.id}
    assert list(verify(here)) == []
    # The tickets may follow.
    export_runs(there, "a study", [OMP], path)
    assert outcomes(here, path) == [("dense", "new"), ("omp", "new")]
    assert list(here.load_each("imported")) == []


def test_runs_of_another_source_are_kept_apart(
    here: Store, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print_of = lthlib.runs.store.fingerprint
    monkeypatch.setattr(lthlib.runs.store, "fingerprint", lambda method: print_of(method)[::-1])
    assert outcomes(here, archive) == [("dense", "kept"), ("omp", "kept")]
    assert here.load(DENSE) is None
    assert len(list(here.load_each("imported"))) == 2
    assert outcomes(here, archive) == [("dense", "same"), ("omp", "same")]
    execute(DENSE, here, CPU)
    assert len(list(here.load_each("imported"))) == 2


def test_other_results_are_shown_and_not_overwritten(
    there: Store, here: Store, tmp_path: Path
) -> None:
    execute(OMP, here, CPU)
    before = {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()}
    recomputed(there, DENSE, lambda run: run["records"][0]["accuracy"].update(test=1.0))
    export_runs(there, "a study", [OMP], tmp_path / "x.tar")
    dense, omp = import_runs(here, tmp_path / "x.tar")
    assert (dense.outcome, omp.outcome) == ("conflict", "conflict")
    assert dense.why.startswith("dense: accuracy is {'validation'")
    assert omp.why == f"its parent {DENSE.id} was not taken"
    after = {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()}
    assert after == before


def test_where_and_when_is_no_difference(there: Store, here: Store, tmp_path: Path) -> None:
    execute(OMP, here, CPU)
    recomputed(there, DENSE, lambda run: run["records"][0]["provenance"].update(device_name="x"))
    export_runs(there, "a study", [OMP], tmp_path / "x.tar")
    assert outcomes(here, tmp_path / "x.tar") == [("dense", "same"), ("omp", "same")]


def test_a_run_that_is_being_computed_is_left_alone(here: Store, archive: Path) -> None:
    with hold(here.root / "locks" / DENSE.id):
        assert outcomes(here, archive) == [("dense", "busy"), ("omp", "busy")]
    assert not list(here.root.glob("runs/*"))


def test_a_half_done_and_a_damaged_run_make_way(here: Store, archive: Path) -> None:
    for run, name in ((DENSE, "checkpoint.safetensors"), (OMP, "run.json")):
        here.folder(run).mkdir(parents=True)
        (here.folder(run) / name).write_bytes(b"half")
    assert outcomes(here, archive) == [("dense", "new"), ("omp", "new")]
    assert len(list(here.root.glob("damaged/*"))) == 2


RUN = f"runs/{DENSE.id}/run.json"
TICKET = f"runs/{DENSE.id}/tickets/dense.safetensors"
CHECKPOINT = f"runs/{DENSE.id}/checkpoint.safetensors"
OUTSIDE = "../../outside"


def forged(change: Callable[[dict[str, Any]], None]) -> Callable[[Members], None]:
    def apply(content: Members) -> None:
        stored = json.loads(content[RUN])
        change(stored)
        content[RUN] = sealed(stored)

    return apply


def assert_refused_whole(
    here: Store, archive: Path, folder: Path, change: Callable[[Members], None], said: str
) -> None:
    content = members(archive)
    change(content)
    with pytest.raises(StoreError, match=said):
        import_runs(here, write(folder / "x.tar", content))
    assert not list(here.root.glob("runs/*"))
    assert not list(folder.rglob("outside*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update({OUTSIDE: b"x"}), f"holds '{OUTSIDE}' where a file of a run was"),
        (lambda c: c.update({"/etc/x": b"x"}), "holds '/etc/x' where a file of a run was"),
        (lambda c: c.update({f"runs/{DENSE.id}/x.py": b"x"}), "x.py' where a file of a run was"),
        (lambda c: c.update({CHECKPOINT: b"x"}), f"holds {CHECKPOINT}"),
        (lambda c: c.update({TICKET: c[TICKET][:-1]}), "dense.safetensors does not match its chec"),
        (lambda c: c.pop(TICKET), "dense.safetensors is missing"),
        (lambda c: c.pop(RUN), f"lacks {RUN}"),
        (
            lambda c: [c.pop(name) for name in list(c) if DENSE.id in name],
            f"lacks run {DENSE.id}, the parent of {OMP.id}",
        ),
        (lambda c: c.update({RUN: c[RUN].replace(b"0", b"1", 1)}), "run.json"),
        (lambda c: c.update({RUN: b"[" * 10_000}), "run.json is not JSON: .*maximum recursion"),
        (forged(lambda run: run["records"][0].update(density=7)), "density is 7, expected"),
        (forged(lambda run: run["config"].update(seed=5)), f"not to {DENSE.id}"),
        (forged(lambda run: run["files"].update({OUTSIDE: "0" * 64})), "files is"),
        # Configurations that their id allows, but that are not those of the records.
        (forged(lambda run: run["config"].pop("parent")), "run.json is malformed"),
        (
            forged(lambda run: run["config"]["training"].pop("momentum")),
            "a record in run.json belongs to another",
        ),
        (
            forged(lambda run: run["records"][0]["config"].update(threads=2)),
            "belongs to another run",
        ),
        (forged(lambda run: run["config"]["settings"].update(rewind=[])), f"not to {DENSE.id}"),
        (forged(lambda run: run["config"]["settings"].update(speed=1)), f"not to {DENSE.id}"),
        (forged(lambda run: run.update(failure="why")), "disagree on a failure"),
        (forged(lambda run: run["config"].update(method="magic")), "method is 'magic'"),
    ],
)
def test_a_forged_archive_is_refused_whole(
    here: Store,
    archive: Path,
    tmp_path: Path,
    change: Callable[[Members], None],
    said: str,
) -> None:
    assert_refused_whole(here, archive, tmp_path, change, said)


@pytest.mark.parametrize(
    "header",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "manifest.json", "size": 0},
        {"type": tarfile.CHRTYPE, "size": 0},
        {"type": tarfile.FIFOTYPE, "size": 0},
        {"type": tarfile.DIRTYPE, "size": 0},
        {"type": tarfile.GNUTYPE_SPARSE},
        {"type": tarfile.XHDTYPE},
        {"type": tarfile.GNUTYPE_LONGNAME},
    ],
)
def test_what_is_no_plain_file_is_refused(
    here: Store, archive: Path, tmp_path: Path, header: dict[str, Any]
) -> None:
    with pytest.raises(StoreError, match=r"holds 'runs/\w+/run.json' where a file of a run"):
        import_runs(here, write(tmp_path / "x.tar", members(archive), **header))
    assert not list(here.root.glob("runs/*"))


def test_sizes_are_checked_before_anything_is_read(
    here: Store, archive: Path, tmp_path: Path
) -> None:
    content = archive.read_bytes()
    place = content.index(TICKET.encode(), content.index(b"ustar", 1024))
    header = tarfile.TarInfo.frombuf(content[place : place + 512], "ascii", "strict")
    for size in (1 << 31, 1 << 32, 0):
        header.size = size
        changed = content[:place] + header.tobuf(tarfile.USTAR_FORMAT) + content[place + 512 :]
        (tmp_path / "x.tar").write_bytes(changed)
        with pytest.raises(StoreError, match=rf"dense.safetensors: has {size:,} bytes, more than"):
            import_runs(here, tmp_path / "x.tar")


def test_files_that_the_list_does_not_name_are_refused(
    here: Store, archive: Path, tmp_path: Path
) -> None:
    for change in (lambda names: names.pop(TICKET), lambda names: names.update({"more": {}})):
        content = members(archive)
        manifest = json.loads(content["manifest.json"])
        change(manifest["members"])
        content["manifest.json"] = json.dumps(manifest).encode()
        with pytest.raises(StoreError, match=r"manifest.json and the files differ in '(more|runs)"):
            import_runs(here, tar(tmp_path / "x.tar", content))
    for manifest in ([], {"format": 7}, {"format": 1, "study": ""}):
        content["manifest.json"] = json.dumps(manifest).encode()
        with pytest.raises(StoreError, match=r"manifest.json: "):
            import_runs(here, tar(tmp_path / "x.tar", content))


def test_a_run_that_no_run_could_be_keeps_no_other_from_the_list(
    here: Store, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_runs(here, archive)
    for wrong in ({"density": "x"}, {"accuracy": 3}, {"cost": None}, {"layers": [1]}):
        recomputed(here, OMP, lambda run, wrong=wrong: run["records"][-1].update(wrong))
        list_(here.root)
        said = capsys.readouterr()
        assert DENSE.id in said.out and OMP.id not in said.out
        assert f"{OMP.id}: its run.json is malformed; `lth verify` says where" in said.err
    assert [run_id for run_id, _ in verify(here)] == [OMP.id]


def test_a_run_json_is_not_read_beyond_its_bound(
    here: Store, archive: Path, tmp_path: Path
) -> None:
    content = {**members(archive), RUN: b" " * (RUN_LIMIT + 1)}
    with pytest.raises(StoreError, match=r"run.json: has 67,108,865 bytes, more than 67,108,864"):
        import_runs(here, write(tmp_path / "x.tar", content))


def test_a_disk_without_room_is_left_as_it_was(
    here: Store, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(".")._replace(free=1000)
        patch.setattr("shutil.disk_usage", lambda path: usage)
        with pytest.raises(StoreError, match=r"it needs [\d,]+ bytes, of which 1,000 are free"):
            import_runs(here, archive)
    for name in ("os.fsync", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(StoreError, match=r"No space left on device"):
                import_runs(here, archive)
    left = {path.name for path in here.root.rglob("*") if path.is_file()}
    assert left <= {".writable"}
    assert outcomes(here, archive) == [("dense", "new"), ("omp", "new")]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_waited_for(
    here: Store, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "x.tar")
    with pytest.raises(StoreError, match=r"x.tar: (is not a regular file|Is a directory)"):
        import_runs(here, tmp_path / "x.tar")


@pytest.mark.parametrize("content", [b"", b"\0" * 10_240, b"no tar" * 1000])
def test_what_is_no_archive_is_refused(here: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(StoreError, match=r"no member of a tar where one"):
        import_runs(here, tmp_path / "x.tar")
    with pytest.raises(StoreError, match=r"cannot import .*nowhere.tar: .*No such file"):
        import_runs(here, tmp_path / "nowhere.tar")


def test_what_does_not_end_as_a_tar_does_is_refused(
    here: Store, archive: Path, tmp_path: Path
) -> None:
    content = archive.read_bytes()
    end = len(content.rstrip(b"\0"))
    last = end + -end % 512
    for other in (content[:last], content[: last + 512] + b"more", content[: last - 512]):
        (tmp_path / "x.tar").write_bytes(other)
        with pytest.raises(StoreError, match=r"does not end as a tar does|has [\d,]+ bytes, more"):
            import_runs(here, tmp_path / "x.tar")
    assert not list(here.root.glob("runs/*"))


# A study that is begun here and finished there.

IMP = config("imp", settings={"rounds": 3, "fraction": 0.5, "rewind": "2it"})
BEGUN = f"runs/{IMP.id}/checkpoint.safetensors"
FIRST = f"runs/{IMP.id}/tickets/round-0.safetensors"


class Interrupted(Store):
    """Where Ctrl-C comes once the first round is judged."""

    def save_ticket(self, config: RunConfig, ticket: Ticket, *arguments: Any) -> str:
        if ticket.index == 1:
            signal.raise_signal(signal.SIGINT)
        return super().save_ticket(config, ticket, *arguments)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Interrupted(tmp_path_factory.mktemp("begun") / "there")
    execute(OMP, store, CPU)
    with pytest.raises(Paused):
        execute(IMP, store, CPU)
    never = config(seed=5)
    path = store.root.parent / "begun.tar"
    assert export_runs(store, "a study", [OMP, IMP, never], path, unfinished=True) == 3
    return path


def timeless(record: Any) -> Any:
    """A record without clock."""
    if isinstance(record, dict):
        kept = record.keys() - {"seconds", "started", "finished"}
        return {key: timeless(record[key]) for key in kept}
    return record


def tickets(store: Store, run: RunConfig) -> Members:
    return {path.name: path.read_bytes() for path in store.folder(run).rglob("*.safetensors")}


@needs(signal.SIGINT)
def test_a_run_begun_here_is_finished_there(here: Store, interrupted: Path, tmp_path: Path) -> None:
    assert outcomes(here, interrupted) == [("imp", "begun"), ("dense", "new"), ("omp", "new")]
    assert list(verify(here)) == []
    judged = json.loads(unseal(members(interrupted)[BEGUN], "checkpoint")[1])["records"]
    assert list(judged) == ["round-0", "round-1"]
    found = execute(IMP, here, CPU)
    # To the last digit of their seconds: what was judged there is not computed again.
    assert found.records[:2] == list(judged.values())
    alone = Store(tmp_path / "alone")
    expected = execute(IMP, alone, CPU)
    assert list(map(timeless, found.records)) == list(map(timeless, expected.records))
    assert tickets(here, IMP) == tickets(alone, IMP) != {}
    assert outcomes(here, interrupted) == [("imp", "same"), ("dense", "same"), ("omp", "same")]


@needs(signal.SIGINT)
def test_the_store_that_came_further_keeps_its_checkpoint(here: Store, interrupted: Path) -> None:
    import_runs(here, interrupted)
    further = Interrupted(here.root)
    further.save_ticket = lambda c, t, *rest: (  # type: ignore[method-assign]
        signal.raise_signal(signal.SIGINT) if t.index == 2 else None,
        Store.save_ticket(further, c, t, *rest),
    )[1]
    with pytest.raises(Paused):
        execute(IMP, further, CPU)
    checkpoint = here.folder(IMP) / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    export_runs(here, "a study", [IMP], here.root.parent / "further.tar", unfinished=True)
    assert outcomes(here, interrupted)[0] == ("imp", "same")
    assert checkpoint.read_bytes() == before
    # Back where it came from, the further one takes the place of the one that was left there.
    there = Store(interrupted.parent / "there")
    assert outcomes(there, here.root.parent / "further.tar") == [("imp", "begun")]
    assert (there.folder(IMP) / "checkpoint.safetensors").read_bytes() == before


@needs(signal.SIGINT)
def test_a_checkpoint_of_another_source_is_left_out_and_said(
    here: Store, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print_of = lthlib.runs.store.fingerprint
    monkeypatch.setattr(lthlib.runs.store, "fingerprint", lambda method: print_of(method)[::-1])
    taken = {one.config.method: one for one in import_runs(here, interrupted)}
    assert taken["imp"].outcome == "anew"
    assert taken["imp"].why == "another version of the source wrote its checkpoint"
    assert not here.folder(IMP).exists()


@needs(signal.SIGINT)
def test_what_is_unfinished_is_exported_when_asked_for_and_at_rest(
    interrupted: Path, tmp_path: Path
) -> None:
    there = Store(shutil.copytree(interrupted.parent / "there", tmp_path / "there"))
    out = tmp_path / "out.tar"
    with pytest.raises(StoreError, match="is not complete; `lth sweep` first"):
        export_runs(there, "a study", [IMP], out)
    with pytest.raises(StoreError, match="goes on from its tickets"):
        export_runs(there, "a study", [IMP], out, tickets=False, unfinished=True)
    with (
        hold(there.root / "locks" / IMP.id),
        pytest.raises(StoreError, match="is being computed; stop it first"),
    ):
        export_runs(there, "a study", [IMP], out, unfinished=True)
    ticket = there.folder(IMP) / "tickets" / "round-1.safetensors"
    ticket.write_bytes(ticket.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"round-1.safetensors does not match its checksum"):
        export_runs(there, "a study", [IMP], out, unfinished=True)
    assert not out.exists()


def resealed(change: Callable[[dict[str, Any]], None]) -> Callable[[Members], None]:
    """A checkpoint that was changed by somebody who knows how to seal it."""

    def apply(content: Members) -> None:
        tensors, text = unseal(content[BEGUN], "checkpoint")
        place = json.loads(text)
        change(place)
        content[BEGUN] = seal(tensors, "checkpoint", json.dumps(place))

    return apply


def listed(change: Callable[[dict[str, Any]], None]) -> Callable[[Members], None]:
    def apply(content: Members) -> None:
        manifest = json.loads(content["manifest.json"])
        change(manifest["unfinished"])
        content["manifest.json"] = json.dumps(manifest).encode()

    return apply


@needs(signal.SIGINT)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update({BEGUN: c[BEGUN][:-1]}), "safetensors file, or damaged"),
        (lambda c: c.update({BEGUN: b"x" * 100}), "shorter than its header says"),
        (lambda c: c.pop(BEGUN), f"lacks {BEGUN}"),
        (lambda c: c.pop(FIRST), "round-0.safetensors is missing"),
        (lambda c: c.update({f"runs/{IMP.id}/run.json": b"{}"}), "holds runs/.*run.json"),
        (listed(dict.clear), "holds runs/.*checkpoint.safetensors|lacks runs/.*run.json"),
        (listed(lambda runs: runs.update({IMP.id: DENSE.to_json()})), "belongs to run"),
        (listed(lambda runs: runs.update({IMP.id: []})), "expected names with values"),
        (listed(lambda runs: runs[IMP.id]["settings"].update(rounds=-1)), "rounds is -1"),
        (resealed(lambda place: place.update(owner=f"{DENSE.id}/x/cpu")), "belongs to run"),
        (resealed(lambda place: place.update(step=-1)), "step is -1"),
        (resealed(lambda place: place["cost"].pop("images")), "lacks cost.images"),
        (resealed(lambda place: place["files"].update({OUTSIDE: "0" * 64})), "outside|files is"),
        (resealed(lambda place: place["records"]["round-0"].update(density=7)), "density is 7"),
        (
            resealed(lambda place: place["records"]["round-0"].update(run=DENSE.id)),
            "belongs to another run",
        ),
        (resealed(lambda place: place["records"].update({"round-0": 3})), "round-0|record|schema"),
        (resealed(lambda place: place.update(history=[3])), "history"),
        (
            resealed(
                lambda place: place["records"]["round-0"].update(
                    failure="x", status="failed", density=None, kept=None, total=None, layers={},
                    accuracy=None, ticket=None,
                )
            ),
            "round-0",
        ),
    ],
)  # fmt: skip
def test_a_forged_checkpoint_is_refused_with_the_archive(
    here: Store,
    interrupted: Path,
    tmp_path: Path,
    change: Callable[[Members], None],
    said: str,
) -> None:
    assert_refused_whole(here, interrupted, tmp_path, change, said)
