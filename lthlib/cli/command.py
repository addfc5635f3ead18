"""The `lth` command. Thin: it parses, calls and prints; torch is imported only by commands that
compute.
"""

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn

import typer

from lthlib._version import __version__
from lthlib.cli import computing, keeping, timing
from lthlib.cli.options import COME_AGAIN, again
from lthlib.cli.signature import as_command
from lthlib.cli.terminal import outlive_terminal, say
from lthlib.errors import LthlibError, Paused
from lthlib.signals import as_ctrl_c

_COMMANDS: dict[str, dict[str, Callable[..., Any]]] = {
    "Compute": {"run": computing.run},
    "Look after runs": {"list": keeping.list_, "show": keeping.show, "gc": keeping.gc},
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find, judge and compare winning lottery tickets: IMP, CS, BiP and their baselines.",
    epilog="Data are looked for in --data or LTHLIB_DATA; "
    "runs are kept in --store or LTHLIB_STORE (./store).",
)
# Whoever brings more commands, by groups; a package that is not there is passed over.
_MORE = ("companion.cli",)


def _command_groups() -> Iterator[dict[str, dict[str, Callable[..., Any]]]]:
    yield _COMMANDS
    for name in _MORE:
        if importlib.util.find_spec(name.partition(".")[0]):
            yield importlib.import_module(name).COMMANDS


def _stoppable(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def stoppable(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (KeyboardInterrupt, Paused) as stop:
            say(f"{str(stop) or 'stopped'}; {again()}", err=True)
            # Where the interrupt came within exec, CPython remembers it, and would end the process
            # as by SIGINT, whatever the exit status is.
            exec("")
            raise typer.Exit(COME_AGAIN) from None

    return stoppable


for _groups in _command_groups():
    for _group, _commands in _groups.items():
        for _name, _command in _commands.items():
            app.command(_name, rich_help_panel=_group)(_stoppable(as_command(_command)))

ticket_app = typer.Typer(no_args_is_help=True, help="Look at ticket files.")
ticket_app.command("show")(as_command(keeping.ticket_show))
app.add_typer(ticket_app, name="ticket", rich_help_panel="Look after runs")
bench_app = typer.Typer(no_args_is_help=True, help="Measure how fast networks are.")
bench_app.command("ticket")(as_command(timing.bench_ticket))
app.add_typer(bench_app, name="bench", rich_help_panel="Compute")


def _print_version(requested: bool) -> None:
    if requested:
        say(f"lth {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version."),
    ] = False,
) -> None: ...


def main() -> NoReturn:
    """Run the command line.

    What lthlib raises on purpose, what the system refuses, such as writing to a folder, and what is
    not installed become one line and exit status 2.
    """
    outlive_terminal()
    as_ctrl_c()
    try:
        app(standalone_mode=True)
    except ModuleNotFoundError as error:
        say(f"lth: {error}; pip install 'lthlib[book]' brings what this command needs", err=True)
        sys.exit(2)
    except (LthlibError, OSError) as error:
        say(f"lth: {error}", err=True)
        sys.exit(2)
    sys.exit(0)
