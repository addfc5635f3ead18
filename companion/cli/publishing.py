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
    expanded,
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


@expanded
def record(
    study: StudyArgument,
    selection: Selection,
    results: ResultsOption = Path("results"),
    partial: Annotated[
        bool, typer.Option("--partial", help="Record what is complete of an unfinished study.")
    ] = False,
    add: Annotated[
        bool,
        typer.Option("--add", help="Keep what is published, and add the runs that it lacks."),
    ] = False,
    tickets: Annotated[
        bool,
        typer.Option("--tickets", help="And its masks and rewind points into results/tickets/."),
    ] = False,
    store: StoreOption = Path("store"),
) -> None:
    """Promote a study's complete runs into results/STUDY.jsonl, one line per judged ticket."""
    from companion.publish.study import topped_up
    from companion.tickets import published_tickets, tickets_file
    from lthlib.runs import Store

    chosen, runs = selection.study(study), Store(store)
    if add:
        records, missing = topped_up(chosen, runs, results)
    else:
        records, missing = chosen.records(runs), chosen.missing(runs)
    if missing and not partial:
        raise ConfigError(
            f"{len(missing)} of {len(chosen.configs)} runs are not complete; "
            f"`lth sweep {study}` first"
        )
    path = results / f"{chosen.name}.jsonl"
    _refuse_loss(chosen.name, results, {entry["run"] for entry in records})
    content, masks = published(records), published_tickets(records, runs) if tickets else b""
    write_atomically(path, content)
    say(f"{path}: {len(records)} judged tickets")
    if tickets:
        write_atomically(tickets_file(results, chosen.name), masks)
        say(f"{tickets_file(results, chosen.name)}: {len(masks):,} bytes")


def tickets(
    study: Annotated[str, typer.Argument(help="A study whose tickets are published.")],
    name: Annotated[
        str, typer.Argument(help="One of them, RUN/POINT, or the beginning of it.")
    ] = "",
    file: Annotated[
        Path | None, typer.Argument(help="The file to write it to, e.g. ticket.safetensors.")
    ] = None,
    results: ResultsOption = Path("results"),
) -> None:
    """List the published tickets of a study, or write one as a ticket file: its mask, and the
    weights to train it from.
    """
    from companion.tickets import find_ticket, load_tickets, tickets_file

    found = load_tickets(results, study)
    if not found:
        raise ConfigError(
            f"there is no {tickets_file(results, study)}; `lth record {study} --tickets` makes it"
        )
    if file:
        ticket = find_ticket(found, name)
        ticket.save(file)
        say(f"{file}: {ticket}")
        return
    for own, ticket in found.items():
        if own.startswith(name):
            about = f"{ticket.info['label']}, {ticket.judged}, seed {ticket.info['seed']}"
            say(f"{own:25}  {ticket.density:7.4f}  {about}")


def _refuse_loss(name: str, results: Path, runs: set[str]) -> None:
    """Raise ConfigError where lines of other runs are published under a name, as by another recipe
    that is called the same. What was damaged is written anew, as its error says."""
    if lost := runs_in(results, name) - runs:
        raise ConfigError(
            f"{results / name}.jsonl holds {len(lost)} runs that are not among the {len(runs)} to "
            "be recorded; give your recipe another name, or remove that file to replace it"
        )


def verify(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Move damaged runs aside and remove damaged decoded images; both are computed "
            "again when they are next needed.",
        ),
    ] = False,
    store: StoreOption = Path("store"),
    results: ResultsOption = Path("results"),
) -> None:
    """Check the checksums of all that is stored, of decoded images and of all that is published.
    Exit status 1 if any is wrong, also where it was repaired; 2 if something cannot be read.
    """
    from lthlib.data import verify_cache
    from lthlib.runs import Store, upkeep

    runs = Store(store)
    faults = list(upkeep.verify(runs))
    for run_id, why in faults:
        say(f"{run_id}: {why}", err=True)
    for run_id in upkeep.repair(runs, {one for one, _ in faults}) if repair else []:
        say(f"{run_id}: moved to {store / 'damaged'}; the next sweep computes it again")
    damaged = verify_cache(repair=repair)
    for why in damaged:
        say(f"{why}{'; removed, to be decoded again' if repair else ''}", err=True)
    wrong: list[RecordError] = []
    if results.exists():  # which takes the book's extra
        from companion.publish.results import faults_of

        wrong += faults_of(results)
    for error in wrong:
        say(error, err=True)
    if wrong:
        said = f"{len(wrong)} files in {results} are not as they were written"
    else:
        count = len(load_results(results)) if results.exists() else 0
        said = f"{count} published records and {len(load_facts(results))} facts are well formed"
    count = sum(1 for _ in store.glob("runs/*/run.json"))
    say(f"{count} runs in {store}, {len(faults) + len(damaged)} faults; {said}")
    if (faults or damaged) and not repair:
        say("`lth verify --repair` moves what is damaged aside", err=True)
    if faults or damaged or wrong:
        raise typer.Exit(1)


@expanded
def export(
    study: StudyArgument,
    archive: Annotated[Path, typer.Argument(help="The file to write, e.g. results.tar.")],
    selection: Selection,
    tickets: Annotated[
        bool, typer.Option(help="With the tickets; without, the runs can only be looked at.")
    ] = True,
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="With the checkpoints of runs that are not complete."),
    ] = False,
    store: StoreOption = Path("store"),
) -> None:
    """Write a study's runs, and all they rest on, to one file for `lth import` elsewhere."""
    from companion.archive import export_runs
    from lthlib.runs import Store

    chosen = selection.study(study)
    runs = Store(store)
    count = export_runs(runs, chosen.name, chosen.configs, archive, tickets, unfinished)
    say(f"{archive}: {count} runs, {archive.stat().st_size:,} bytes")


def import_(
    archive: Annotated[Path, typer.Argument(help="A file that `lth export` wrote.")],
    store: StoreOption = Path("store"),
) -> None:
    """Take in the runs of an archive: all of it is checked, each run is marked as imported, and
    nothing that the store has is overwritten. Unfinished runs go on from their checkpoints.

    Exit status: 0 all taken, or there already; 1 the store has other results for some runs (they
    are listed); 75 some runs are being computed, call again; 2 the archive is damaged, and nothing
    was taken.
    """
    from companion.archive import import_runs
    from lthlib.runs import Store

    taken = import_runs(Store(store), archive)
    for one in taken:
        if one.why:
            say(f"{one.config.id}: {one.outcome}: {one.why}", err=True)
    counts = Counter(one.outcome for one in taken)
    say(f"{archive}: {', '.join(f'{n} {outcome}' for outcome, n in counts.items())}")
    if counts["conflict"]:
        raise typer.Exit(1)
    if counts["busy"]:
        raise typer.Exit(COME_AGAIN)


@expanded
def check_results(
    excerpt: Excerpt,
    studies: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STUDY]...",
            help="Published studies; if left out, digits, and of cifar10-bip, if the data are at "
            "hand, one seed of the dense network and of BiP.",
        ),
    ] = None,
    budget: BudgetOption = None,
    results: ResultsOption = Path("results"),
    report: Annotated[Path, typer.Option(help="Folder for the reports.")] = Path(
        "build/check-results"
    ),
    jobs: JobsOption = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Keep the runs here, and go on from there.", show_default="a new one"),
    ] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Compute published studies again, from nothing, and compare them with the record.

    Exit status: 0 all agree; 1 some number drifted (it is named, with candidates for the cause); 75
    stopped, call again with the same --store to go on.
    """
    from companion.publish.checks import DEFAULT

    given = {name: value for name, value in asdict(excerpt).items() if value is not None}
    if budget and not store:
        raise ConfigError("--budget stops and goes on from a store; name one with --store")
    if given and not studies:
        raise ConfigError(f"--{next(iter(given)).replace('_', '-')} is about a study; name one")
    machine = machine_of(data, device)
    machine.deadline = deadline(budget)
    passed = True
    for name, parts in (dict.fromkeys(studies, given) if studies else DEFAULT).items():
        chosen = Excerpt(**parts).study(name)
        if not studies and (why := _not_at_hand(chosen, machine)):
            say(f"{name} is left out: {why}")
            continue
        if not (recorded := load_study(results, chosen.name)):
            raise ConfigError(f"{results} has no record of {chosen.name}; `lth record` writes one")
        with tempfile.TemporaryDirectory(prefix="lth-check-") as new:
            again = _computed_again(chosen, store, Path(new), machine, jobs)
        passed &= _compared(chosen, recorded, again, parts, report)
    if not passed:
        raise typer.Exit(1)


def _not_at_hand(study: Study, machine: Machine) -> str:
    from lthlib.data import load_dataset

    settings = study.configs[0].data
    try:
        load_dataset(settings.dataset, machine.data_root, settings=settings)
    except DataError as error:
        return str(error)
    return ""


def _computed_again(
    study: Study, kept: Path | None, new: Path, machine: Machine, jobs: int | None
) -> list[dict[str, Any]]:
    from lthlib.runs import Store, bar, execute_many

    runs = Store(kept or new)
    with bar(study.name) as shown:
        swept = execute_many(study.configs, runs, machine, jobs=jobs, report=shown)
    if swept.unfinished and kept:
        finish_sweep(swept)
    if swept.unfinished:
        say("stopped, and nothing was kept; with a --store the next call goes on", err=True)
        raise typer.Exit(COME_AGAIN)
    found = filter(None, map(runs.load, study.configs))
    if imported := sum(result.imported is not None for result in found):
        raise ConfigError(
            f"{imported} runs in {runs.root} were imported, not computed; name another"
        )
    return study.records(runs)


def _compared(
    study: Study,
    recorded: list[dict[str, Any]],
    again: list[dict[str, Any]],
    parts: dict[str, Any],
    folder: Path,
) -> bool:
    """Write and print the report; returns whether nothing drifted."""
    from companion.publish.checks import markdown, report, write_report

    options = [f"--{name.replace('_', '-')} {value}" for name, value in parts.items()]
    command = " ".join(["lth check-results", study.name, *options])
    runs = {config.id for config in study.configs} if parts else None
    content = report(study.name, recorded, again, runs, command=command)
    say(markdown(content))
    say(f"the report: {write_report(content, folder)}")
    return bool(content["passed"])


def compare(
    mine: Annotated[Path, typer.Argument(help="Your results, from `lth record --results FOLDER`.")],
    study: Annotated[str, typer.Argument(help="A published study, or another such file.")],
    results: ResultsOption = Path("results"),
) -> None:
    """Say whether results of yours are as further seeds of a published study would have them: which
    means lie inside and outside the spread to be expected, by how much, and what differs between
    the runs. Example: lth compare mine/digits.jsonl digits
    """
    from companion.publish.normal import beside
    from companion.published import load_file, study_names

    known = load_file(Path(study)) if study.endswith(".jsonl") else load_study(results, study)
    if not known:
        names = ", ".join(study_names(results))
        raise ConfigError(f"{results} has no record of {study!r}; it has {names}")
    found = beside(known, load_file(mine))
    say(f"{mine} beside {study}: {found}\n\n{found.table()}")
    reasons = found.differences or ["nothing that the records tell"]
    say("\n- ".join(["\nWhat differs, and may be the cause:", *reasons]))
    if found.alone:
        say("\n- ".join([f"\nNot in {study}:", *found.alone]))


def facts(
    results: ResultsOption = Path("results"),
    store: StoreOption = Path("store"),
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure what no run records, for the claims that need it, and write results/facts.json: how
    BiP's hypergradient lies to the exact one. A minute or two.
    """
    from companion.bilevel.measured import CIFAR, measure
    from lthlib.runs import Store

    found = measure(Store(store), machine_of(data, device))
    write_atomically(results / "facts.json", facts_json(found).encode())
    for name, fact in found.items():
        say(f"{name} = {fact.value:.4g}: {fact.definition}")
    say(f"{results / 'facts.json'}: {len(found)} facts")
    if missing := [name for name in facts_of("B4") if name not in found]:
        reason = f"the store lacks dense networks of {CIFAR}, or a lower level has no minimum"
        say(f"not measured, since {reason}: {', '.join(missing)}", err=True)


def rerun(
    page: Annotated[
        str, typer.Argument(help="A page that a notebook makes, e.g. cost or tickets-cifar10-cs.")
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a parameter, e.g. --set seeds=3; may be repeated."),
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="Folder for it all.", show_default="PAGE-again")
    ] = None,
) -> None:
    """Run the notebook of a page again, from any folder: its figures and tables become SVG and CSV.
    What neither results/ nor the store holds is computed.
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
    pdf: Annotated[
        bool, typer.Option("--pdf", help="And print it all into one PDF, with Chromium.")
    ] = False,
) -> None:
    """Run the embedded study, execute the notebooks that are not fresh, and build the book; prints
    the page to open. A zip of it all, to read offline, lies beside that page.
    """
    from companion.publish.printed import find_browser, print_book
    from companion.publish.site import build_site

    browser = find_browser() if pdf else ""
    page = build_site(Path.cwd(), store, jobs=jobs, device=device, say=say)
    say(f"The book: {page}")
    if browser:
        say(f"Printed: {print_book(Path.cwd(), browser)}")
