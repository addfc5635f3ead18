"""Text that others wrote, where it is shown: what cannot be seen is spelled out."""

import unicodedata


def visible(text: str) -> str:
    """Return a text on one line, with `\\x1b` and the like for each character that is not seen.

    Those are controls, breaks of lines, marks of direction, halves of surrogate pairs, and what
    Unicode has not assigned: they move a cursor, reverse what stands beside them, or cannot be
    encoded.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _spelled(char)
        for char in text
    )


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode()
