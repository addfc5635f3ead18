"""The `lth` command."""

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line.

    Commands are imported here, so that whoever brings more can import parts of this package first.
    """
    from lthlib.cli.command import main

    main()
