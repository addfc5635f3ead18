"""The `lth` command."""

from typing import NoReturn


def main() -> NoReturn:
    """Entry point. Its commands are imported here, so that whoever brings more can import parts of
    this package first."""
    from lthlib.cli.command import main

    main()
