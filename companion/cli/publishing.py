"""Commands about studies: publish them, check them again, and make the book of them."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from companion.cli.options import (
    BudgetOption,
    Excerpt,
    JobsOption,
    ResultsOption,
    Selection,
    StudyArgument,
    deadline,
)
from companion.evidence.facts import facts_json, facts_of, load_facts
from companion.published import load_results, load_study, published, runs_in
from lthlib.cli.options import (
    COME_AGAIN,
    DataOption,
    DeviceOption,
    StoreOption,
    finish_sweep,
    machine_of,
)
from lthlib.cli.terminal import say
from lthlib.errors import ConfigError, DataError, RecordError, refusal, shown
from lthlib.files import from_yaml, write_atomically

if TYPE_CHECKING:
    from companion.studies import Study
    from lthlib.runs import Machine


def studies() -> None:
    """List the studies that come with lthlib."""
    from lthlib.recipes import load_recipe, recipe_names

    for name in recipe_names():
        recipe = load_recipe(name)
        say(f"{name:20} {recipe.scale:10} {recipe.about}")


def record(
    study: StudyArgument,
    selection: Selection,
    results: ResultsOption = Path("results"),
    partial: bool = False,
    add: bool = False,
    tickets: bool = False,
    store: StoreOption = Path("store"),
) -> None:
    """Promote a study's complete runs into results/STUDY.jsonl, one line per judged ticket.

    Args:
        partial: Record what is complete of an unfinished study.
        add: Keep what is published, and add the runs that it lacks.
        tickets: And its masks and rewind points into results/tickets/.
    """
    from companion.publish.study import topped_up
    from companion.tickets import published_tickets, tickets_file
    from lthlib.runs import Store

    chosen = selection.study(study)
    runs = Store(store)
    if add:
        records, missing = topped_up(chosen, runs, results)
    else:
        records = chosen.records(runs)
        missing = chosen.missing(runs)
    if missing and not partial:
        raise ConfigError(
            f"{len(missing)} of {len(chosen.configs)} runs are not complete; "
            f"`lth sweep {study}` first"
        )
    path = results / f"{chosen.name}.jsonl"
    _refuse_loss(chosen.name, results, {entry["run"] for entry in records})
    content = published(records)
    masks = published_tickets(records, runs) if tickets else b""
    write_atomically(path, content)
    say(f"{path}: {len(records)} judged tickets")
    if tickets:
        write_atomically(tickets_file(results, chosen.name), masks)
        say(f"{tickets_file(results, chosen.name)}: {len(masks):,} bytes")


def tickets(
    study: str,
    name: Annotated[str, typer.Argument()] = "",
    file: Annotated[Path | None, typer.Argument()] = None,
    results: ResultsOption = Path("results"),
) -> None:
    """List the published tickets of a study, or write one as a ticket file.

    The file holds its mask, and the weights to train it from.

    Args:
        study: A study whose tickets are published.
        name: One of them, RUN/POINT, or the beginning of it.
        file: The file to write it to, e.g. ticket.safetensors.
    """
    from companion.tickets import find_ticket, load_tickets, tickets_file

    by_name = load_tickets(results, study)
    if not by_name:
        raise ConfigError(
            f"there is no {tickets_file(results, study)}; `lth record {study} --tickets` makes it"
        )
    if file:
        ticket = find_ticket(by_name, name)
        ticket.save(file)
        say(f"{file}: {ticket}")
        return
    for ticket_name, ticket in by_name.items():
        if ticket_name.startswith(name):
            origin = f"{ticket.info['label']}, {ticket.judged}, seed {ticket.info['seed']}"
            say(f"{ticket_name:25}  {ticket.density:7.4f}  {origin}")


def _refuse_loss(name: str, results: Path, runs: set[str]) -> None:
    # Another recipe may be called the same. What was damaged is written anew, as its error says.
    if lost := runs_in(results, name) - runs:
        raise ConfigError(
            f"{results / name}.jsonl holds {len(lost)} runs that are not among the {len(runs)} to "
            "be recorded; give your recipe another name, or remove that file to replace it"
        )


def verify(
    repair: bool = False,
    store: StoreOption = Path("store"),
    results: ResultsOption = Path("results"),
) -> None:
    """Check the checksums of all that is stored, of decoded images and of all that is published.

    Exit status 1 if any is wrong, also where it was repaired; 2 if something cannot be read.

    Args:
        repair: Move damaged runs aside and remove damaged decoded images; both are computed again
            when they are next needed.
    """
    from lthlib.data import verify_cache
    from lthlib.runs import Store, upkeep

    runs = Store(store)
    faults = list(upkeep.verify(runs))
    for run_id, fault in faults:
        say(f"{run_id}: {fault}", err=True)
    if repair:
        for run_id in upkeep.repair(runs, {run_id for run_id, _ in faults}):
            say(f"{run_id}: moved to {store / 'damaged'}; the next sweep computes it again")
    damaged = verify_cache(repair=repair)
    for fault in damaged:
        say(f"{fault}{'; removed, to be decoded again' if repair else ''}", err=True)
    wrong: list[RecordError] = []
    if results.exists():  # which takes the book's extra
        from companion.publish.results import faults_of

        wrong += faults_of(results)
    for error in wrong:
        say(error, err=True)
    if wrong:
        summary = f"{len(wrong)} files in {results} are not as they were written"
    else:
        count = len(load_results(results)) if results.exists() else 0
        summary = f"{count} published records and {len(load_facts(results))} facts are well formed"
    count = sum(1 for _ in store.glob("runs/*/run.json"))
    say(f"{count} runs in {store}, {len(faults) + len(damaged)} faults; {summary}")
    if (faults or damaged) and not repair:
        say("`lth verify --repair` moves what is damaged aside", err=True)
    if faults or damaged or wrong:
        raise typer.Exit(1)


def export(
    study: StudyArgument,
    archive: Path,
    selection: Selection,
    tickets: bool = True,
    unfinished: bool = False,
    store: StoreOption = Path("store"),
) -> None:
    """Write a study's runs, and all they rest on, to one file for `lth import` elsewhere.

    Args:
        archive: The file to write, e.g. results.tar.
        tickets: With the tickets; without, the runs can only be looked at.
        unfinished: With the checkpoints of runs that are not complete.
    """
    from companion.archive import export_runs
    from lthlib.runs import Store

    chosen = selection.study(study)
    count = export_runs(Store(store), chosen.name, chosen.configs, archive, tickets, unfinished)
    say(f"{archive}: {count} runs, {archive.stat().st_size:,} bytes")


def import_(archive: Path, store: StoreOption = Path("store")) -> None:
    """Take in the runs of an archive.

    All of it is checked, each run is marked as imported, and nothing that the store has is
    overwritten. Unfinished runs go on from their checkpoints.

    Exit status: 0 all taken, or there already; 1 the store has other results for some runs (they
    are listed); 75 some runs are being computed, call again; 2 the archive is damaged, and nothing
    was taken.

    Args:
        archive: A file that `lth export` wrote.
    """
    from companion.archive import import_runs
    from lthlib.runs import Store

    taken = import_runs(Store(store), archive)
    for run in taken:
        if run.why:
            say(f"{run.config.id}: {run.outcome}: {run.why}", err=True)
    counts = Counter(run.outcome for run in taken)
    say(f"{archive}: {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}")
    if counts["conflict"]:
        raise typer.Exit(1)
    if counts["busy"]:
        raise typer.Exit(COME_AGAIN)


def check_results(
    excerpt: Excerpt,
    studies: Annotated[list[str] | None, typer.Argument(metavar="STUDY")] = None,
    budget: BudgetOption = None,
    results: ResultsOption = Path("results"),
    report: Path = Path("build/check-results"),
    jobs: JobsOption = None,
    store: Annotated[Path | None, typer.Option(show_default="a new one")] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Compute published studies again, from nothing, and compare them with the record.

    Exit status: 0 all agree; 1 some number drifted (it is named, with candidates for the cause); 75
    stopped, call again with the same --store to go on.

    Args:
        studies: Published studies; if left out, digits, and of cifar10-bip, if the data are at
            hand, one seed of the dense network and of BiP.
        report: Folder for the reports.
        store: Keep the runs here, and go on from there.
    """
    from companion.publish.checks import DEFAULT

    options = {name: value for name, value in asdict(excerpt).items() if value is not None}
    if budget and not store:
        raise ConfigError("--budget stops and goes on from a store; name one with --store")
    if options and not studies:
        raise ConfigError(f"--{next(iter(options)).replace('_', '-')} is about a study; name one")
    machine = machine_of(data, device)
    machine.deadline = deadline(budget)
    passed = True
    for name, choices in (dict.fromkeys(studies, options) if studies else DEFAULT).items():
        chosen = Excerpt(**choices).study(name)
        if not studies and (reason := _missing_data(chosen, machine)):
            say(f"{name} is left out: {reason}")
            continue
        if not (recorded := load_study(results, chosen.name)):
            raise ConfigError(f"{results} has no record of {chosen.name}; `lth record` writes one")
        with tempfile.TemporaryDirectory(prefix="lth-check-") as new:
            again = _compute_again(chosen, store, Path(new), machine, jobs)
        passed &= _write_report(chosen, recorded, again, choices, report)
    if not passed:
        raise typer.Exit(1)


def _missing_data(study: Study, machine: Machine) -> str:
    from lthlib.data import load_dataset

    settings = study.configs[0].data
    try:
        load_dataset(settings.dataset, machine.data_root, settings=settings)
    except DataError as error:
        return str(error)
    return ""


def _compute_again(
    study: Study, lasting: Path | None, new: Path, machine: Machine, jobs: int | None
) -> list[dict[str, Any]]:
    from lthlib.runs import Store, bar, execute_many

    runs = Store(lasting or new)
    with bar(study.name) as progress:
        swept = execute_many(study.configs, runs, machine, jobs=jobs, report=progress)
    if swept.unfinished and lasting:
        finish_sweep(swept)
    if swept.unfinished:
        say("stopped, and nothing was kept; with a --store the next call goes on", err=True)
        raise typer.Exit(COME_AGAIN)
    results = filter(None, map(runs.load, study.configs))
    if imported := sum(result.imported is not None for result in results):
        raise ConfigError(
            f"{imported} runs in {runs.root} were imported, not computed; name another"
        )
    return study.records(runs)


def _write_report(
    study: Study,
    recorded: list[dict[str, Any]],
    again: list[dict[str, Any]],
    choices: dict[str, Any],
    folder: Path,
) -> bool:
    """Write and print the report; returns whether nothing drifted."""
    from companion.publish.checks import markdown, report, write_report

    options = [f"--{name.replace('_', '-')} {value}" for name, value in choices.items()]
    command = " ".join(["lth check-results", study.name, *options])
    runs = {config.id for config in study.configs} if choices else None
    content = report(study.name, recorded, again, runs, command=command)
    say(markdown(content))
    say(f"the report: {write_report(content, folder)}")
    return bool(content["passed"])


def compare(mine: Path, study: str, results: ResultsOption = Path("results")) -> None:
    """Say whether results of yours are as further seeds of a published study would have them.

    It tells which means lie inside and outside the spread to be expected, by how much, and what
    differs between the runs.

    Example: lth compare mine/digits.jsonl digits

    Args:
        mine: Your results, from `lth record --results FOLDER`.
        study: A published study, or another such file.
    """
    from companion.publish.normal import beside
    from companion.published import load_file, study_names

    theirs = load_file(Path(study)) if study.endswith(".jsonl") else load_study(results, study)
    if not theirs:
        names = ", ".join(study_names(results))
        raise ConfigError(f"{results} has no record of {study!r}; it has {names}")
    comparison = beside(theirs, load_file(mine))
    say(f"{mine} beside {study}: {comparison}\n\n{comparison.table()}")
    reasons = comparison.differences or ["nothing that the records tell"]
    say("\n- ".join(["\nWhat differs, and may be the cause:", *reasons]))
    if comparison.alone:
        say("\n- ".join([f"\nNot in {study}:", *comparison.alone]))


def facts(
    results: ResultsOption = Path("results"),
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure what no run records, for the claims that need it, and write results/facts.json.

    That is how BiP's hypergradient lies to the exact one. It takes a minute or two.
    """
    from companion.bilevel.measured import CIFAR, measure
    from lthlib.runs import Store

    measured = measure(Store(store), machine_of(data, device))
    write_atomically(results / "facts.json", facts_json(measured).encode())
    for name, fact in measured.items():
        say(f"{name} = {fact.value:.4g}: {fact.definition}")
    say(f"{results / 'facts.json'}: {len(measured)} facts")
    if missing := [name for name in facts_of("B4") if name not in measured]:
        reason = f"the store lacks dense networks of {CIFAR}, or a lower level has no minimum"
        say(f"not measured, since {reason}: {', '.join(missing)}", err=True)


def rerun(
    page: str,
    set_: list[str] | None = None,
    into: Annotated[Path | None, typer.Option(show_default="PAGE-again")] = None,
) -> None:
    """Run the notebook of a page again, from any folder: its figures and tables become SVG and CSV.

    What neither results/ nor the store holds is computed.

    Args:
        page: A page that a notebook makes, e.g. cost or tickets-cifar10-cs.
        set_: Change a parameter, e.g. --set seeds=3; may be repeated.
        into: Folder for it all.
    """
    from companion.publish.rerun import rerun as run_again

    changes = {}
    for change in set_ or []:
        name, equals, value = change.partition("=")
        with refusal(ConfigError, f"--set {shown(change)}", ValueError):
            changes[name] = from_yaml(value)
        if not equals:
            raise ConfigError(f"--set {shown(change)}; expected NAME=VALUE such as seeds=3")
    for path in run_again(page, changes, into or Path(f"{page}-again")):
        say(path)


def book(
    store: StoreOption = Path("store"),
    jobs: JobsOption = None,
    device: DeviceOption = "auto",
    pdf: bool = False,
) -> None:
    """Run the embedded study, execute the notebooks that are not fresh, and build the book.

    It prints the page to open. A zip of it all, to read offline, lies beside that page.

    Args:
        pdf: And print it all into one PDF, with Chromium.
    """
    from companion.publish.printed import find_browser, print_book
    from companion.publish.site import build_site

    browser = find_browser() if pdf else ""
    page = build_site(Path.cwd(), store, jobs=jobs, device=device, say=say)
    say(f"The book: {page}")
    if browser:
        say(f"Printed: {print_book(Path.cwd(), browser)}")
