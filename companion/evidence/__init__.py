"""What the papers report, our statistics, the claims and their verdicts: tables in, no training.

Nothing here imports torch. Import from the files.
"""

import csv
from importlib.resources import files


def packaged(name: str) -> list[dict[str, str]]:
    """Return the rows of one of the CSV files that lie here."""
    return list(csv.DictReader((files(__name__) / name).read_text(encoding="utf-8").splitlines()))
