"""Files from strangers: whatever their bytes, a reader gives what they hold or says what is wrong.

Each reader gets arbitrary bytes, and valid files that were flipped, cut, spliced, or edited within
and sealed again, as whoever wants to do harm would.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from companion.archive import export_runs, import_runs
from companion.evidence.facts import load_facts
from companion.publish.bench import load_bench
from companion.publish.checks import load_report, sentence, table
from companion.published import load_results, published
from lthlib.checkpoints import load_checkpoint, save_checkpoint
from lthlib.cli import computing
from lthlib.data.pictures import PIXEL_LIMIT, open_rgb
from lthlib.errors import ConfigError, DataError, RecordError, StoreError, TicketError
from lthlib.files import DEPTH_LIMIT, read_bounded, sealed, shallow
from lthlib.masks import random_mask
from lthlib.recipes import load_recipe
from lthlib.records import validate
from lthlib.runs import Machine, Parent, RunConfig, Store, execute
from lthlib.runs.execution import build_trainer
from lthlib.runs.upkeep import read_checked
from lthlib.tickets import Ticket, seal, unseal
from tests.companion.evidence.test_records import record, retrained
from tests.conftest import write_tiny
from tests.runs.toys import config

ROOT = Path(__file__).parents[1]
CPU = Machine(device="cpu")
RUN = config()


class Reader(NamedTuple):
    """A valid file, how to read such a file, and the error that a reader may raise."""

    content: bytes
    read: Callable[[bytes], object]
    error: type[Exception]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    folder = tmp_path_factory.mktemp("untrusted")
    store = Store(folder / "store")
    execute(RUN, store, CPU)
    export_runs(store, "a study", [RUN], folder / "runs.tar")
    trainer = build_trainer(RUN, CPU)
    save_checkpoint(trainer, folder / "checkpoint", "owner")
    results, target = folder / "results", Store(folder / "target")
    results.mkdir()
    (folder / RUN.id).mkdir()
    line = folder / "results" / "digits.jsonl"

    def written(path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        return path

    def image(kind: str) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (9, 7), (200, 30, 90)).save(buffer, kind)
        return buffer.getvalue()

    lines = published([record(), retrained("cs") | {"run": "a" * 16}])
    report, bench = next((ROOT / "results/checks").iterdir()), ROOT / "results/bench"
    configuration = config("retrain", Parent(config("imp", settings={"rounds": 2}), "round-1"))
    found = {
        "ticket": Reader(ticket().to_bytes(), Ticket.from_bytes, TicketError),
        "checkpoint": Reader(
            (folder / "checkpoint").read_bytes(),
            lambda c: load_checkpoint(trainer, written(folder / "checkpoint", c), "owner"),
            StoreError,
        ),
        "records": Reader(lines, lambda c: (written(line, c), load_results(results)), RecordError),
        "facts": Reader(
            (ROOT / "results" / "facts.json").read_bytes(),
            lambda c: load_facts(written(folder / "facts.json", c).parent),
            RecordError,
        ),
        "report": Reader(
            report.read_bytes(),
            lambda c: (sentence(one := load_report(written(folder / report.name, c))), table(one)),
            RecordError,
        ),
        "benchmark": Reader(
            next(bench.iterdir()).read_bytes(),
            lambda c: load_bench(written(folder / "b.json", c)),
            RecordError,
        ),
        "run": Reader(
            (store.folder(RUN) / "run.json").read_bytes(),
            lambda c: read_checked(written(folder / RUN.id / "run.json", c).parent),
            StoreError,
        ),
        "archive": Reader(
            (folder / "runs.tar").read_bytes(),
            lambda c: import_runs(target, written(folder / "runs.tar", c)),
            StoreError,
        ),
        "recipe": Reader(
            write_tiny(folder).read_bytes(),
            lambda c: load_recipe(written(folder / "tiny.yaml", c)),
            ConfigError,
        ),
        "configuration": Reader(
            json.dumps(configuration.to_json()).encode(),
            lambda c: computing._from_file(written(folder / "config.json", c)),
            ConfigError,
        ),
    }
    for kind in ("PNG", "JPEG", "WEBP"):
        found[kind] = Reader(image(kind), lambda c: open_rgb(c, "row 0"), DataError)
    return found


PUBLISHED = ("records", "facts", "report", "benchmark")
NAMES = (
    *("ticket", "checkpoint", "run", "archive", "recipe", "configuration"),
    *("PNG", "JPEG", "WEBP", *PUBLISHED),
)


def ticket() -> Ticket:
    draw = torch.Generator().manual_seed(0)
    shapes = {"stem": torch.Size([3, 2]), "head": torch.Size([5])}
    weights = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return Ticket(random_mask(shapes, 4, draw), weights, weights, 3, info={"config": {"seed": 2}})


def reads_or_refuses(reader: Reader, content: bytes) -> None:
    try:
        reader.read(content)
    except reader.error as error:
        assert str(error)


def few(examples: int) -> settings:
    return settings(
        deadline=None,
        derandomize=True,
        max_examples=examples,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_valid_file_is_read(name: str, readers: dict[str, Reader]) -> None:
    readers[name].read(readers[name].content)


@pytest.mark.parametrize("name", NAMES)
@few(30)
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(content=b"")
@example(content=b"null")
@example(content=b"[" * 100_000)
@example(content=b'{"a":' * 100_000)
def test_any_bytes(name: str, readers: dict[str, Reader], content: bytes) -> None:
    reads_or_refuses(readers[name], content)


@pytest.mark.parametrize("name", NAMES)
@few(40)
@given(data=st.data())
def test_a_valid_file_flipped_cut_or_spliced(
    name: str, readers: dict[str, Reader], data: st.DataObject
) -> None:
    content = readers[name].content
    # Most of what matters stands at the beginning.
    place = st.integers(0, len(content)) | st.integers(0, min(600, len(content)))
    start, end = sorted((data.draw(place), data.draw(place)))
    middle = data.draw(st.binary(max_size=8) | st.just(content[start:end] * 2))
    reads_or_refuses(readers[name], content[:start] + middle + content[end:])
    changed = bytearray(content)
    changed[min(start, len(content) - 1)] ^= data.draw(st.integers(1, 255))
    reads_or_refuses(readers[name], bytes(changed))


@pytest.mark.parametrize("name", PUBLISHED)
@few(60)
@given(data=st.data())
def test_what_is_published_is_read_as_it_was_written_or_refused(
    name: str, readers: dict[str, Reader], data: st.DataObject
) -> None:
    content = readers[name].content
    start, end = sorted(data.draw(st.integers(0, len(content) - 2)) for _ in range(2))
    middle = data.draw(st.binary(max_size=4) | st.just(content[start:end] * 2))
    changed = content[:start] + middle + content[end:]
    if changed != content:
        with pytest.raises(RecordError):
            readers[name].read(changed)


STRANGE = st.sampled_from(
    [
        *(None, True, 0, -1, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf"), 0.5),
        *("", "x", "../../x", "é\ud800", "1e400", "nan", "0it", "9" * 5000, [], {}, [[]], [None]),
        *([-1], [2**62, 2**62], {"": None}, {"x": {"x": []}}, [[[[0]]]] * 3),
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a value of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def edited(data: st.DataObject, value: Any) -> Any:
    """The value with one or two things in it replaced, removed, or added."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 2))):
        *parents, last = data.draw(st.sampled_from(list(places(value))))
        holder = value
        for key in parents:
            holder = holder[key]
        match data.draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[last] = copy.deepcopy(data.draw(STRANGE))
            case "remove":
                del holder[last]
            case _ if isinstance(holder, dict):
                holder["more"] = copy.deepcopy(data.draw(STRANGE))
            case _:
                holder.append(copy.deepcopy(data.draw(STRANGE)))
        if not value:
            break
    return value


@few(150)
@given(data=st.data())
def test_an_edited_ticket_sealed_again(readers: dict[str, Reader], data: st.DataObject) -> None:
    tensors, text = unseal(readers["ticket"].content, "ticket")
    header = json.loads(text)
    if data.draw(st.booleans()):
        header = edited(data, header)
    if data.draw(st.booleans()):
        dtypes = (torch.uint8, torch.bool, torch.float8_e5m2, torch.int64)
        size, dtype = data.draw(st.sampled_from([0, 1, 2])), data.draw(st.sampled_from(dtypes))
        tensors[data.draw(st.sampled_from(sorted(tensors)))] = torch.zeros(size, dtype=dtype)
    reads_or_refuses(readers["ticket"], seal(tensors, "ticket", json.dumps(header)))


@few(100)
@given(data=st.data())
def test_an_edited_checkpoint_sealed_again(readers: dict[str, Reader], data: st.DataObject) -> None:
    tensors, text = unseal(readers["checkpoint"].content, "checkpoint")
    place = edited(data, json.loads(text))
    if data.draw(st.booleans()):
        tensors[data.draw(st.sampled_from(sorted(tensors)))] = torch.zeros(1)
    content = seal(tensors, "checkpoint", json.dumps(place))
    reads_or_refuses(readers["checkpoint"], content)


@few(150)
@given(data=st.data())
def test_a_safetensors_header_with_other_sizes(
    readers: dict[str, Reader], data: st.DataObject
) -> None:
    content = readers["ticket"].content
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(edited(data, json.loads(content[8 : 8 + length]))).encode()
    size = data.draw(st.sampled_from([len(header), 0, 2**24 + 1, 2**63, len(header) - 1]))
    reads_or_refuses(readers["ticket"], size.to_bytes(8, "little") + header + content[8 + length :])


@pytest.mark.parametrize("name", [*PUBLISHED, "run", "configuration"])
@few(150)
@given(data=st.data())
def test_edited_json(name: str, readers: dict[str, Reader], data: st.DataObject) -> None:
    text = readers[name].content
    value = edited(data, json.loads(text.splitlines()[0] if name == "records" else text))
    if name == "records":
        value["above"] = hashlib.sha256().hexdigest()
    sealing = json.dumps(value).encode() if name == "configuration" else sealed(value)
    reads_or_refuses(readers[name], sealing + b"\n" if name in PUBLISHED else sealing)


@few(100)
@given(data=st.data())
def test_an_edited_recipe(readers: dict[str, Reader], data: st.DataObject) -> None:
    value = edited(data, yaml.safe_load(readers["recipe"].content))
    reads_or_refuses(readers["recipe"], yaml.dump(value).encode())


@few(100)
@given(data=st.data())
def test_an_edited_archive(readers: dict[str, Reader], data: st.DataObject) -> None:
    with tarfile.open(fileobj=io.BytesIO(readers["archive"].content)) as tar:
        members = [(one, tar.extractfile(one)) for one in tar]
        contents = {one.name: file.read() for one, file in members if file}
    manifest = edited(data, json.loads(contents["manifest.json"]))
    contents["manifest.json"] = json.dumps(manifest).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(data.draw(st.sampled_from([name, name, name, "../x"])))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    reads_or_refuses(readers["archive"], out.getvalue())


def with_header(**changes: Any) -> bytes:
    tensors, text = unseal(ticket().to_bytes(), "ticket")
    return seal(tensors, "ticket", json.dumps({**json.loads(text), **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shapes": {"stem": [2**20, 2**20], "head": [5]}}, "covers more than 1073741824 weights"),
        ({"shapes": {"stem": [2**32, 2**32], "head": [5]}}, "covers more than 1073741824 weights"),
        ({"shapes": {"stem": [-3, -2], "head": [5]}}, "shapes is .*, expected sides of 1"),
        ({"shapes": {}}, "shapes is {}, expected"),
        ({"shapes": {"stem": [3, 2]}}, "table of shapes disagree"),
        ({"shapes": {"stem": [3, 7], "head": [5]}}, "a packed mask of shape .* needs 3 bytes"),
        ({"point": "../../x"}, "point is '../../x', expected a ticket's name"),
        ({"judged": "guessed"}, "judged is 'guessed'"),
        ({"rewind_step": 1.5}, "rewind_step is 1.5"),
        ({"format": 2}, "format is 2"),
        ({"target_density": float("nan")}, "target_density is nan"),
        ({"extra": 1}, "not a ticket: has unknown extra"),
    ],
)
def test_a_forged_ticket_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(TicketError, match=said):
        Ticket.from_bytes(with_header(**changes))


def test_a_ticket_that_would_be_refused_is_not_written() -> None:
    wrong = ticket()
    wrong.point = "a/b"
    with pytest.raises(TicketError, match="point is 'a/b'"):
        wrong.to_bytes()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    "text",
    [
        nested(DEPTH_LIMIT + 1),
        b'["' + b"]" * 1000 + b'", ' + nested(DEPTH_LIMIT) + b"]",
        b'["\\"' + b"]" * 1000 + b'", ' + nested(DEPTH_LIMIT) + b"]",
    ],
)
def test_deep_nesting_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        shallow(text)


@pytest.mark.parametrize("text", [nested(DEPTH_LIMIT), b'["' + b"[" * 1000 + b'"]', b'"\\'])
def test_brackets_within_texts_are_no_nesting(text: bytes) -> None:
    assert shallow(text) == text.decode()


def test_what_is_no_file_or_too_long_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(11))
    for path, said in (
        (tmp_path / "long", "is longer than 10 bytes"),
        (tmp_path, "Is a directory"),
        (Path("/dev/zero"), "is not a regular file"),
    ):
        with pytest.raises(OSError, match=said):
            read_bounded(path, 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x]\nb: [*a, *a]", "has an anchor, an alias or a tag; write the value out"),
        ("a: &a {b: *a}", "has an anchor"),
        ("!!python/object/apply:os.system [echo]", "or a tag"),
        ("a: !!timestamp x", "or a tag"),
        ("a: 1\na: 2", "a key occurs twice: 'a'"),
        ("[" * 5000, "nested more than 64 deep"),
    ],
)
def test_a_recipe_that_would_do_more_than_say_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_recipe(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: tiny", "name: ../../x", "name is '../../x'; expected letters"),
        ("densities:", "densitys:", "unknown name .study.densitys.; expected one of densities"),
        ("value: resnet8", "value: 8", "model.architecture is 8; expected one of resnet8"),
    ],
)
def test_a_recipe_with_a_value_that_makes_no_sense_is_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = write_tiny(tmp_path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        load_recipe(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"training": {"learning_rate": 10**400}},
            "training.learning_rate is a number of more than 300 digits; expected f",
        ),
        ({"parent": {}, "method": "retrain"}, r"parent.config is missing; give it a value"),
        ({"parent": [], "method": "retrain"}, r"parent is \[\]; expected names with values"),
        (
            {"method": "omp", "settings": {"density": 2}},
            r"omp\.density is 2\.0; expected a kept",
        ),
    ],
)
def test_a_senseless_configuration_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RunConfig.from_json(changes)


@pytest.mark.parametrize("field", ["kept", "total", "density", "seed"])
def test_a_number_that_no_column_holds_is_refused(field: str) -> None:
    with pytest.raises(RecordError, match=f"{field} is 1000"):
        validate(record(**{field: 10**400}))


def test_a_parent_s_ticket_is_named_within_its_folder() -> None:
    with pytest.raises(ConfigError, match=r"point is '\.\./rewind'; expected a ticket's name"):
        Parent(RUN, "../rewind")


def test_an_image_that_claims_too_many_pixels_is_not_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    buffer = io.BytesIO()
    Image.new("1", (20_000, PIXEL_LIMIT // 20_000 + 1)).save(buffer, "PNG")
    with pytest.raises(DataError, match=f"pixels, more than {PIXEL_LIMIT} in all"):
        open_rgb(buffer.getvalue(), "row 0")
