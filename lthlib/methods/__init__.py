"""The methods by name: each a search that yields tickets, each in a file of its own."""

from importlib import import_module

from lthlib.errors import check_choice
from lthlib.methods.base import Method, make_ticket
from lthlib.records import METHODS as NAMES

METHODS: dict[str, Method] = {name: import_module(f"{__name__}.{name}").METHOD for name in NAMES}


def get_method(name: str) -> Method:
    """The method of that name.

    Args:
        name: one of `METHODS`.

    Returns:
        It.

    Raises:
        ConfigError: there is none of that name; the error lists the names.
    """
    check_choice("method", name, METHODS)
    return METHODS[name]
