"""Whether a run is at a paper's scale: its configuration against `protocols.csv`.

A row of the file is a setting that the networks of a family of studies have to have, on one data
set or all, of one architecture or all; later rows replace earlier ones, and `|` stands between
alternatives. How far a chain of rounds goes is no part of it: the densities that a claim is judged
at say how far it has to. Precision is none either: it is a study of its own.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from companion.evidence import packaged

Setup = tuple[tuple[str, str], ...]
PROTOCOLS = packaged("protocols.csv")


def setup(config: Mapping[str, Any]) -> Setup:
    """Return what decides a run's scale, of its configuration and of those of all it rests on.

    Names and values: train_images, width, batch_size, length, schedule, and the length of each
    search that has one of its own, such as `bip.length`.
    """
    found: dict[tuple[str, str], None] = {}
    own: Mapping[str, Any] | None = config
    while own is not None:
        training, model = own["training"], own["model"]
        stages = ", ".join(training.get("milestones") or ())
        values = {
            "train_images": own["data"].get("train_images") or "all",
            "width": model.get("width"),
            "batch_size": training.get("batch_size"),
            "length": training.get("length"),
            "schedule": " at ".join(filter(None, (training.get("schedule"), stages))) or None,
            f"{own['method']}.length": own["settings"].get("length"),
        }
        pairs = ((name, str(value)) for name, value in values.items() if value is not None)
        found |= dict.fromkeys(pairs)
        own = own["parent"] and own["parent"]["config"]
    return tuple(found)


@cache
def departures(
    known: Setup, families: str, dataset: str, architecture: str, longer: bool = False
) -> str:
    """Return in what a run departs from the nearest of some families' protocols; empty if in
    nothing.

    Args:
        known: from `setup`.
        families: of `protocols.csv`, with `|` between them.
        dataset: as `reported.plain_name` gives it.
        architecture: likewise.
        longer: whether another length is what the run is about, as of a dense network that trains
            as long as a search.
    """
    texts = []
    for family in families.split("|"):
        required = {
            row["setting"]: row["value"]
            for row in PROTOCOLS
            if row["family"] == family
            and row["dataset"] in ("", dataset)
            and row["architecture"] in ("", architecture)
        }
        found = [] if "width" in required else [f"network {architecture}"]
        for name, value in known:
            exempt = longer and name in ("length", "schedule")
            wanted = required.get(name)
            if wanted is not None and not exempt and value not in wanted.split("|"):
                named = " or ".join(filter(None, wanted.split("|"))) or "the whole schedule"
                found.append(f"{name} {value or 'the whole schedule'}, not {named}")
        texts.append("; ".join(found))
    return min(texts, key=len)
