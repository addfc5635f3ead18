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
    return "".join(char if _is_seen(char) else ascii(char)[1:-1] for char in text)


def _is_seen(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"
