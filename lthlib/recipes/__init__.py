"""The papers' settings and studies as data: each value beside its source, and the grids of runs
made from them.
"""

from lthlib.recipes.recipe import Recipe, load_recipe, recipe_names
from lthlib.recipes.studies import CONTESTANTS, Entry, Study, ticket_study

__all__ = [
    "CONTESTANTS",
    "Entry",
    "Recipe",
    "Study",
    "load_recipe",
    "recipe_names",
    "ticket_study",
]
