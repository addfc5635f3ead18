"""Where what is published lies; all of it checked."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from companion.evidence.facts import load_facts
from companion.publish.bench import bench_files, load_bench
from companion.publish.checks import load_report, report_files
from companion.published import load_study, study_names
from companion.tickets import load_tickets, ticket_files
from lthlib.errors import RecordError


def checkout() -> Path:
    """Return the repository.

    It is the nearest folder at or above the working one that has notebooks and results, else the
    one that this package lies in.
    """
    working = Path.cwd()
    for folder in (working, *working.parents):
        if (folder / "notebooks").is_dir() and (folder / "results").is_dir():
            return folder
    return Path(__file__).parents[2]


def results_folder(path: str | Path | None = None) -> Path:
    """Return the folder of the published record.

    Args:
        path: itself, if not None; else it is `results` in the working folder, or in `checkout`.
    """
    folder = Path(path or "results")
    return folder if path or folder.is_dir() else checkout() / folder


def faults_of(results: Path) -> Iterator[RecordError]:
    """Yield what is wrong with records, tickets, facts, reports and benchmarks.

    Yields:
        One error a file.

    Raises:
        RecordError: the folder or a file of it cannot be read.
    """
    readers: list[Callable[[], object]] = [
        *(partial(load_study, results, name) for name in study_names(results)),
        *(partial(load_tickets, results, path.stem) for path in ticket_files(results)),
        partial(load_facts, results),
        *(partial(load_report, path) for path in report_files(results)),
        *(partial(load_bench, path) for path in bench_files(results, "*")),
    ]
    messages = set()
    for read in readers:
        try:
            read()
        except RecordError as error:
            if isinstance(error.__cause__, OSError):
                raise
            if str(error) not in messages:  # a study's tickets rest on its record
                yield error
            messages.add(str(error))
