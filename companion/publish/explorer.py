"""The mask explorer: published masks inside a page, which `assets/explorer.js` draws."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from companion.markdown import Markdown
from companion.published import load_study
from companion.tickets import load_tickets, name_of
from lthlib.errors import PublishError


def explorer(results: Path, *studies: str) -> Markdown:
    """Return the published masks of studies as HTML inside a page.

    All bits for the script, and how many weights each mask keeps in each layer as tables, for those
    whom a picture does not help. Masks of a seed that are equal are shown once, as of the method
    itself if it has them.

    Args:
        results: the folder of the published record.
        studies: their names.

    Raises:
        PublishError: a study has no published masks.
    """
    contents = {study: _masks(results, study) for study in studies}
    data = json.dumps({study: masks for study, (masks, _) in contents.items()})
    data = data.replace("<", "\\u003c")
    html = [f'<script type="application/json" id="explorer-masks">{data}</script>']
    for study, (_, table) in contents.items():
        html += [
            f"<details><summary>Weights that the masks of {study} keep in each layer</summary>",
            '<div class="pst-scrollable-table-container" tabindex="0">',
            table.to_html(index=False, border=0, classes="table") + "</div></details>",
        ]
    return Markdown("```{raw} html\n%s\n```") % Markdown("\n".join(html))


def _masks(results: Path, study: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """What the script is passed of a study, and the table."""
    tickets = load_tickets(results, study)
    if not tickets:
        raise PublishError(f"{study} has no published masks; `lth record {study} --tickets`")
    published = [row for row in load_study(results, study) if row["status"] == "ok"]
    records = {name_of(record): record for record in published}
    name, first = next(iter(tickets.items()))
    layers = list(records[name]["layers"])  # in the order of the network
    masks: dict[tuple[int, bytes], Any] = {}  # seed and bits -> record
    for name, ticket in sorted(tickets.items(), key=lambda item: "," in item[1].info["label"]):
        flat = np.concatenate([ticket.mask[layer].numpy().ravel() for layer in layers])
        masks.setdefault((ticket.info["seed"], np.packbits(flat).tobytes()), records[name])
    packed = zlib.compress(b"".join(bits for _, bits in masks), 9)
    data = {
        "layers": [[layer, list(first.mask[layer].shape)] for layer in layers],
        "masks": [
            [record["label"], record["seed"], record["density"], record["accuracy"]["test"]]
            for record in masks.values()
        ],
        "bits": base64.b64encode(packed).decode(),
    }
    rows = [
        [record["label"], record["seed"], f"{100 * record['density']:.3g} %"]
        + [record["layers"][layer][0] for layer in layers]
        for record in masks.values()
    ]
    return data, pd.DataFrame(rows, columns=["method", "seed", "density", *layers])
