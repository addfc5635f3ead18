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
    settings: dict[tuple[str, str], None] = {}
    run: Mapping[str, Any] | None = config
    while run is not None:
        training, model = run["training"], run["model"]
        milestones = ", ".join(training.get("milestones") or ())
        values = {
            "train_images": run["data"].get("train_images") or "all",
            "width": model.get("width"),
            "batch_size": training.get("batch_size"),
            "length": training.get("length"),
            "schedule": " at ".join(filter(None, (training.get("schedule"), milestones))) or None,
            f"{run['method']}.length": run["settings"].get("length"),
        }
        pairs = ((name, str(value)) for name, value in values.items() if value is not None)
        settings |= dict.fromkeys(pairs)
        run = run["parent"] and run["parent"]["config"]
    return tuple(settings)


@cache
def departures(
    pairs: Setup, families: str, dataset: str, architecture: str, longer: bool = False
) -> str:
    """Return in what a run departs from the nearest of some families' protocols; empty if in
    nothing.

    Args:
        pairs: names and values, from `setup`.
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
        faults = [] if "width" in required else [f"network {architecture}"]
        for name, value in pairs:
            exempt = longer and name in ("length", "schedule")
            allowed = required.get(name)
            if allowed is not None and not exempt and value not in allowed.split("|"):
                expected = " or ".join(filter(None, allowed.split("|"))) or "the whole schedule"
                faults.append(f"{name} {value or 'the whole schedule'}, not {expected}")
        texts.append("; ".join(faults))
    return min(texts, key=len)
