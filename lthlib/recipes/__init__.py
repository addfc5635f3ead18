"""The papers' settings as data, each value with its source."""

from lthlib.recipes.recipe import Recipe, dense_run, load_recipe, recipe_names
