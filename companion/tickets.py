"""Published tickets: masks, and the weights to train from, beside the record of a study.

All of a study's are one file, `results/tickets/STUDY.safetensors`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from os.path import lexists
from pathlib import Path
from typing import Any

from torch import Tensor

from companion.published import load_study
from lthlib.errors import ConfigError, LthlibError, RecordError, TicketError, refusal
from lthlib.files import read_bounded, shallow
from lthlib.masks import Mask, pack, unpack
from lthlib.records import COUNT, OBJECT, PROVENANCE, SHA256, TEXT, check_fields
from lthlib.runs import RunConfig, Store
from lthlib.settings import Field
from lthlib.tickets import Ticket, seal, unseal

KIND = "tickets"
SIZE_LIMIT = 6 << 20  # of one study's file
# Tickets that keep more are hardly pruned, and their rewind points take most of the room.
DENSEST = 0.5
_WHERE = ("device_name", "torch", "commit", "finished")
_HEADER = {
    "format": Field("1", lambda value: value == 1),
    "shapes": OBJECT,
    "computed": {name: PROVENANCE[name] for name in _WHERE},
    "tickets": OBJECT,
}
_ENTRY = {"sha256": SHA256, "mask": TEXT, "rewind": TEXT.or_null(), "rewind_step": COUNT}


def published_tickets(records: Iterable[Mapping[str, Any]], store: Store) -> bytes:
    """Return the content of a study's file.

    It holds the mask, and the weights to train it from, of each published ticket that keeps at most
    half of the weights and whose run the store holds. What several share is written once.

    Args:
        records: of one study, as published.
        store: of their runs, whatever source computed them.

    Returns:
        The file's bytes.

    Raises:
        RecordError: there is no such ticket, a mask is not as the record says, or the file would be
            too large.
    """
    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {"format": 1, "shapes": {}, "computed": None, "tickets": {}}
    for record in records:
        config = RunConfig.from_json(record["config"])
        sparse = record["status"] == "ok" and record["density"] <= DENSEST
        if sparse and (store.folder(config) / "run.json").exists():
            name = name_of(record)
            ticket = store.ticket(config, record["ticket"]["point"])
            _check_layers(ticket.mask, record, f"the store's ticket {name}")
            header["shapes"] |= {layer: list(mask.shape) for layer, mask in ticket.mask.items()}
            packed = {layer: pack(mask) for layer, mask in ticket.mask.items()}
            stored = _stored_record(store, record)
            header["computed"] = {field: stored["provenance"][field] for field in _WHERE}
            header["tickets"][name] = {
                "sha256": stored["ticket"]["sha256"],
                "mask": _add_tensors(tensors, packed),
                "rewind": _add_tensors(tensors, ticket.rewind) if ticket.rewind else None,
                "rewind_step": ticket.rewind_step,
            }
    if not header["tickets"]:
        raise RecordError(
            f"{store.root} holds no published ticket that keeps at most {100 * DENSEST:g} % of the "
            "weights; `lth sweep` computes them"
        )
    content = seal(tensors, KIND, json.dumps(header))
    if len(content) > SIZE_LIMIT:
        raise RecordError(
            f"the tickets take {len(content):,} bytes; {SIZE_LIMIT:,} at most are published"
        )
    return content


def _stored_record(store: Store, record: Mapping[str, Any]) -> dict[str, Any]:
    """The store's own record of a published ticket."""
    records = store.find(record["run"]).records
    return next(stored for stored in records if name_of(stored) == name_of(record))


def load_tickets(results: str | Path, study: str) -> dict[str, Ticket]:
    """Return the published tickets of a study by name, RUN/POINT; none if it has no such file.

    Each is as the record says, and holds its mask and, if the method has one, its rewind point: it
    can be saved, evaluated untrained, and retrained. Its `info` says how it is labelled and judged,
    and what computed it.

    Args:
        results: the folder of the published record.
        study: the file is `results/tickets/STUDY.safetensors`.

    Returns:
        Tickets by name.

    Raises:
        RecordError: it is not as it was written, or does not belong to the record.
    """
    path = tickets_file(results, study)
    if not lexists(path):
        return {}
    judged = (record for record in load_study(results, study) if record["status"] == "ok")
    records = {name_of(record): record for record in judged}
    try:
        with refusal(TicketError, "cannot be read"):
            content = read_bounded(path, SIZE_LIMIT)
        tensors, text = unseal(content, KIND)
        header = json.loads(shallow(text.encode()))
        check_fields(header, _HEADER, "its header")
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            group, _, layer = key.partition("/")
            groups.setdefault(group, {})[layer] = tensor
        return {
            name: _build_ticket(name, records, entry, header, groups)
            for name, entry in header["tickets"].items()
        }
    except (LthlibError, LookupError, TypeError, ValueError, RecursionError) as error:
        fault = error if isinstance(error, LthlibError) else f"its header is malformed ({error!r})"
        raise RecordError(
            f"{path}: {fault}. Take the file back from version control, or write it again with "
            f"`lth record {study} --add --tickets`"
        ) from error


def find_ticket(tickets: Mapping[str, Ticket], name: str) -> Ticket:
    """Return the one ticket whose name begins so.

    Args:
        tickets: by name, from `load_tickets`.
        name: RUN/POINT, or the beginning of it.

    Returns:
        The ticket.

    Raises:
        ConfigError: there is none, or several.
    """
    matches = [ticket for full_name, ticket in tickets.items() if full_name.startswith(name)]
    if len(matches) != 1:
        some = f"{len(matches)} published tickets' names begin"
        count = some if matches else "no published name begins"
        raise ConfigError(f"{count} with {name!r}; `lth tickets STUDY` lists them")
    return matches[0]


def tickets_file(results: str | Path, study: str) -> Path:
    """Where the tickets of a study are published."""
    return Path(results) / KIND / f"{study}.safetensors"


def ticket_files(results: str | Path) -> list[Path]:
    """All files of published tickets, sorted."""
    return sorted((Path(results) / KIND).glob("*.safetensors"))


def name_of(record: Mapping[str, Any]) -> str:
    """The name of a record's ticket, RUN/POINT."""
    return f"{record['run']}/{record['ticket']['point']}"


def _add_tensors(tensors: dict[str, Tensor], group: Mapping[str, Tensor]) -> str:
    """Put tensors under a name that follows from what they hold, and return it."""
    name = hashlib.sha256(seal(group, KIND, "")).hexdigest()[:16]
    tensors |= {f"{name}/{layer}": tensor for layer, tensor in group.items()}
    return name


def _build_ticket(
    name: str,
    records: Mapping[str, Mapping[str, Any]],
    entry: Any,
    header: Mapping[str, Any],
    groups: Mapping[str, dict[str, Tensor]],
) -> Ticket:
    check_fields(entry, _ENTRY, f"ticket {name}")
    if name not in records:
        raise RecordError(f"the record has no ticket {name}")
    record, shapes = records[name], header["shapes"]
    packed = groups[entry["mask"]]
    mask = Mask({layer: unpack(bits, tuple(shapes[layer])) for layer, bits in packed.items()})
    _check_layers(mask, record, f"ticket {name}")
    origin = {field: record[field] for field in ("study", "label", "seed", "config")}
    return Ticket(
        mask=mask,
        rewind=groups[entry["rewind"]] if entry["rewind"] else None,
        rewind_step=entry["rewind_step"],
        judged=record["judged"],
        **{field: record["ticket"][field] for field in ("point", "index", "target_density")},
        info={"name": name, **origin, "computed": header["computed"], "sha256": entry["sha256"]},
    )


def _check_layers(mask: Mask, record: Mapping[str, Any], subject: str) -> None:
    layers = {layer: list(counts) for layer, counts in mask.layers().items()}
    if layers != record["layers"]:
        raise RecordError(f"{subject} does not keep what its record says, layer by layer")
