"""Figures: a table in, a matplotlib figure out. Nothing here imports torch."""

from lthlib.figures.accuracy import (
    accuracy_against_density,
    accuracy_of_variants,
    describe,
    main_curves,
)
from lthlib.figures.cost import (
    UNITS,
    accuracy_against_cost,
    cost_of_curves,
    costs_at,
    curve_costs,
    describe_costs,
)
from lthlib.figures.layers import describe_layers, layer_densities, layer_table, mask_overlap
from lthlib.figures.points import curve_points, ticket_table

__all__ = [
    "UNITS",
    "accuracy_against_cost",
    "accuracy_against_density",
    "accuracy_of_variants",
    "cost_of_curves",
    "costs_at",
    "curve_costs",
    "curve_points",
    "describe",
    "describe_costs",
    "describe_layers",
    "layer_densities",
    "layer_table",
    "main_curves",
    "mask_overlap",
    "ticket_table",
]
