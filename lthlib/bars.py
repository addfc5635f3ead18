"""Bars that show how far a training has come."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from lthlib.texts import visible


def bar_of_images(title: str, total: int | None = None, *, shown: bool = True) -> tqdm[Any]:
    """A bar over images sent backward, with the time left.

    Args:
        title: what stands before it.
        total: how many images there will be, if that is known yet.
        shown: whether anything is drawn.

    Returns:
        The bar, to be closed.
    """
    return tqdm(
        desc=visible(title),
        total=total,
        unit="img",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not shown,
    )
