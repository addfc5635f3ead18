"""From notebooks and records to the book.

`parameters` and `artefacts` are what a notebook needs: it declares its parameters and hands over
its figures and tables; `study` opens what it shows. `book.build` runs notebooks that are not fresh,
fills the pages in and makes the site; `site` says which notebooks the book has.
"""
