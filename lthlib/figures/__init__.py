"""Figures: a table in, a matplotlib figure out. Nothing here imports torch."""

from lthlib.figures.accuracy import (
    accuracy_against_density,
    accuracy_in_panels,
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
from lthlib.figures.gates import (
    describe_gate_density,
    describe_gates,
    gap_table,
    gate_density_figure,
    gate_table,
    gates_figure,
)
from lthlib.figures.layers import describe_layers, layer_densities, layer_table, mask_overlap
from lthlib.figures.points import by_initial_gate, curve_points, round_numbers, ticket_table
from lthlib.figures.pruning import pruned_nets, pruned_points, pruning_figure, tuning_table
from lthlib.figures.published import beside_published, describe_published, imp_minus_dense
from lthlib.figures.search import (
    at_same_density,
    derived_epochs,
    describe_search,
    search_costs,
    search_figure,
    search_in_words,
)
from lthlib.figures.sensitivity import (
    describe_sensitivity,
    sensitivity_figure,
    sensitivity_means,
    sensitivity_table,
)
from lthlib.figures.winners import (
    describe_winners,
    winners_figure,
    winners_in_words,
    winning_tickets,
)

__all__ = [
    "UNITS",
    "accuracy_against_cost",
    "accuracy_against_density",
    "accuracy_in_panels",
    "accuracy_of_variants",
    "at_same_density",
    "beside_published",
    "by_initial_gate",
    "cost_of_curves",
    "costs_at",
    "curve_costs",
    "curve_points",
    "derived_epochs",
    "describe",
    "describe_costs",
    "describe_gate_density",
    "describe_gates",
    "describe_layers",
    "describe_published",
    "describe_search",
    "describe_sensitivity",
    "describe_winners",
    "gap_table",
    "gate_density_figure",
    "gate_table",
    "gates_figure",
    "imp_minus_dense",
    "layer_densities",
    "layer_table",
    "main_curves",
    "mask_overlap",
    "pruned_nets",
    "pruned_points",
    "pruning_figure",
    "round_numbers",
    "search_costs",
    "search_figure",
    "search_in_words",
    "sensitivity_figure",
    "sensitivity_means",
    "sensitivity_table",
    "ticket_table",
    "tuning_table",
    "winners_figure",
    "winners_in_words",
    "winning_tickets",
]
