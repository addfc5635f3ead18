"""What the papers report, our statistics, the claims and their verdicts: tables in, no training.

Nothing here imports torch. The statistics' smaller parts are in `companion.evidence.statistics`.
"""

from companion.evidence.claims import CLAIMS, OUTCOMES, Claim, Verdict, judge
from companion.evidence.facts import FACTS, Fact, facts_json, load_facts
from companion.evidence.records import tidy
from companion.evidence.reported import quoted, reported, reported_curve, reported_speed_up
from companion.evidence.statistics import (
    band,
    d_star,
    holm,
    interpolate,
    mean_interval,
    on_grid,
    point_differences,
    sparsest_on_validation,
    summarise,
)

__all__ = [
    "CLAIMS",
    "FACTS",
    "OUTCOMES",
    "Claim",
    "Fact",
    "Verdict",
    "band",
    "d_star",
    "facts_json",
    "holm",
    "interpolate",
    "judge",
    "load_facts",
    "mean_interval",
    "on_grid",
    "point_differences",
    "quoted",
    "reported",
    "reported_curve",
    "reported_speed_up",
    "sparsest_on_validation",
    "summarise",
    "tidy",
]
