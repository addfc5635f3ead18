"""Figures: a table in, a matplotlib figure out. Nothing here imports torch."""

from lthlib.figures.accuracy import (
    accuracy_against_density,
    accuracy_in_panels,
    accuracy_of_variants,
    describe,
    main_curves,
)
from lthlib.figures.agreement import (
    agreement_figure,
    agreement_table,
    describe_agreement,
)
from lthlib.figures.bilevel import (
    bilevel_figure,
    bilevel_means,
    describe_bilevel,
    error_slopes,
    flip_gamma,
)
from lthlib.figures.convergence import (
    convergence_figure,
    convergence_means,
    convergence_table,
    describe_convergence,
)
from lthlib.figures.cost import (
    UNITS,
    accuracy_against_cost,
    cost_of_curves,
    costs_at,
    curve_costs,
    describe_costs,
)
from lthlib.figures.dilemma import (
    describe_dilemma,
    dilemma_figure,
    dilemma_points,
    published_dilemma,
)
from lthlib.figures.effects import (
    base_rows,
    departure_effects,
    describe_effects,
    differences,
    effects_figure,
    effects_in_words,
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
from lthlib.figures.paper_panels import (
    bip_minus_imp,
    bip_minus_imp_in_words,
    describe_panels,
    panel_gaps,
    panels_figure,
    paper_panels,
)
from lthlib.figures.points import by_initial_gate, curve_points, round_numbers, ticket_table
from lthlib.figures.pruning import pruned_nets, pruned_points, pruning_figure, tuning_table
from lthlib.figures.published import beside_published, describe_published, imp_minus_dense
from lthlib.figures.rewinding import (
    describe_rewinding,
    published_rewinding,
    rewinding_figure,
    rewinding_means,
    rewinding_table,
)
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
from lthlib.figures.speed import (
    cost_against_ratio,
    costs_by_ratio,
    describe_ratios,
    speed_up,
    speed_up_in_words,
)
from lthlib.figures.table1 import (
    table1_in_words,
    table1_winners,
    winners_beside_paper,
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
    "agreement_figure",
    "agreement_table",
    "at_same_density",
    "base_rows",
    "beside_published",
    "bilevel_figure",
    "bilevel_means",
    "bip_minus_imp",
    "bip_minus_imp_in_words",
    "by_initial_gate",
    "convergence_figure",
    "convergence_means",
    "convergence_table",
    "cost_against_ratio",
    "cost_of_curves",
    "costs_at",
    "costs_by_ratio",
    "curve_costs",
    "curve_points",
    "departure_effects",
    "derived_epochs",
    "describe",
    "describe_agreement",
    "describe_bilevel",
    "describe_convergence",
    "describe_costs",
    "describe_dilemma",
    "describe_effects",
    "describe_gate_density",
    "describe_gates",
    "describe_layers",
    "describe_panels",
    "describe_published",
    "describe_ratios",
    "describe_rewinding",
    "describe_search",
    "describe_sensitivity",
    "describe_winners",
    "differences",
    "dilemma_figure",
    "dilemma_points",
    "effects_figure",
    "effects_in_words",
    "error_slopes",
    "flip_gamma",
    "gap_table",
    "gate_density_figure",
    "gate_table",
    "gates_figure",
    "imp_minus_dense",
    "layer_densities",
    "layer_table",
    "main_curves",
    "mask_overlap",
    "panel_gaps",
    "panels_figure",
    "paper_panels",
    "pruned_nets",
    "pruned_points",
    "pruning_figure",
    "published_dilemma",
    "published_rewinding",
    "rewinding_figure",
    "rewinding_means",
    "rewinding_table",
    "round_numbers",
    "search_costs",
    "search_figure",
    "search_in_words",
    "sensitivity_figure",
    "sensitivity_means",
    "sensitivity_table",
    "speed_up",
    "speed_up_in_words",
    "table1_in_words",
    "table1_winners",
    "ticket_table",
    "tuning_table",
    "winners_beside_paper",
    "winners_figure",
    "winners_in_words",
    "winning_tickets",
]
