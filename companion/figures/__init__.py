"""Figures: a table in, a matplotlib figure out. Nothing here imports torch, and no file is read.

One file a figure, imported by name; `charts` has what they share, `style` the look of all. Tables
that pages and notebooks show as well are in `companion.analysis`.
"""
