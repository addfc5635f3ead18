"""Figures: a table in, a matplotlib figure out. Nothing here imports torch, and no file is read.

One file a subject, imported by name; `charts` has the shapes that they share, `style` and
`book.mplstyle` the look of all. Tables that pages and notebooks show as well are in
`companion.analysis`.
"""
