"""What pages quote of benchmarks: `results/bench/DATE-SUITE.json`, the newest of each suite."""

from pathlib import Path
from typing import Any

from companion.markdown import Markdown, in_words, table
from companion.published import read_published
from lthlib.errors import PublishError


def bench_files(results: Path, suite: str) -> list[Path]:
    """Return the recorded files of a suite of benchmarks, the newest last."""
    return sorted(results.glob(f"bench/*-{suite}.json"))


def load_bench(path: Path) -> dict[str, Any]:
    """Read the file of a benchmark.

    Raises:
        RecordError: it is not as it was written.
    """
    return read_published(path, "`python -m benchmarks`")


class Benchmarks:
    """The recorded benchmarks of a folder of results, asked by suite: `cpu`, `cuda`, `cluster`.

    A suite that was not recorded is a PublishError, a damaged file a RecordError.
    """

    def __init__(self, results: Path) -> None:
        self._results = results

    def has_bench(self, suite: str) -> bool:
        """Whether a benchmark was recorded: `[% if has_bench("cuda") %]`."""
        return bool(bench_files(self._results, suite))

    def bench(self, suite: str, name: str, field: str = "ours") -> str:
        """What a benchmark measured: `bench("cluster", "efficiency")` -> `98.2`.

        Args:
            suite: what was recorded together.
            name: of the row.
            field: `ours`, or another of a row.

        Raises:
            PublishError: there is no such row; the message lists those there are.
        """
        rows = {row["name"]: row for row in self.read(suite)["rows"]}
        if name not in rows:
            raise PublishError(f"benchmark {suite!r} has no row {name!r}; known: {', '.join(rows)}")
        value = rows[name][field]
        if not isinstance(value, (int, float)):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"

    def bench_table(self, suite: str, *groups: str) -> Markdown:
        """Rows of a benchmark as a table: of `bip: runs` the group is `bip`, the column `runs`."""
        split = [(*row["name"].partition(": "), row["unit"]) for row in self.read(suite)["rows"]]
        columns = {name: unit for group, _, name, unit in split if group == groups[0]}
        head = [f"{name}, {unit}" if unit else name for name, unit in columns.items()]
        lines = [
            [group, *(self.bench(suite, f"{group}: {name}") for name in columns)]
            for group in groups
        ]
        return table(["", *head], lines)

    def bench_latencies(self, suite: str, network: str) -> Markdown:
        """What took how long: a row a kind of a network, two columns a number of images.

        Milliseconds with 95 % intervals, and how many times as fast as the first.

        Args:
            suite: what was recorded together.
            network: of `ResNet-20, dense: 1 image` it is `ResNet-20`.

        Raises:
            PublishError: nothing was recorded of the network.
        """
        lines: dict[str, list[str]] = {}
        heads: dict[str, None] = {}
        for row in self.read(suite)["rows"]:
            if row["name"].startswith(f"{network}, "):
                name, _, images = row["name"].removeprefix(f"{network}, ").partition(": ")
                heads |= {f"{images}, ms": None, f"{images}, times as fast": None}
                took = float(format(row["ours"], ".3g"))
                cells = f"{took:,g} ({row['note']})", f"{row['ratio']:.2f}"
                lines.setdefault(name, [name]).extend(cells)
        if not lines:
            raise PublishError(f"benchmark {suite!r} has no network {network!r}")
        return table(["", *heads], lines.values())

    def bench_list(self, suite: str) -> Markdown:
        """All rows of a benchmark, and what measured them: reference, ours, the ratio, the aim."""
        names = ("name", "reference", "ours", "unit", "ratio", "target", "met", "note")
        rows = [
            [in_words(row.get(name), ".4g") for name in names] for row in self.read(suite)["rows"]
        ]
        measured = table(["benchmark", *names[1:6], "target met", "note"], rows, (1, 2, 4))
        return Markdown("{}\n\n{}").format(measured, self.bench_made(suite))

    def bench_made(self, suite: str) -> str:
        """What measured a benchmark, and when."""
        report = self.read(suite)
        machine = report["machine"]
        load = machine.get("load average, before and after")
        busy = f" · load average before and after: {load[0]:g}, {load[1]:g}" if load else ""
        return (
            f"{machine['processor']}, {machine['cores']} cores · device: {machine['device']} · "
            f"date: {report['started'][:10]} · PyTorch {machine['torch']}{busy}"
        )

    def bench_targets(self, suite: str) -> str:
        """How many targets of a benchmark are met, which are not, or that it was not measured."""
        if not self.has_bench(suite):
            return "nothing has been measured"
        aimed = [row for row in self.read(suite)["rows"] if row["met"] is not None]
        missed = [row["name"] for row in aimed if not row["met"]]
        words = f"{len(aimed) - len(missed)} of {len(aimed)} targets are met"
        return f"{words}; not met: {'; '.join(missed)}" if missed else words

    def read(self, suite: str) -> dict[str, Any]:
        """The newest file of a benchmark.

        Raises:
            PublishError: there is none.
            RecordError: it is not as it was written.
        """
        files = bench_files(self._results, suite)
        if not files:
            raise PublishError(
                f"there is no results/bench/DATE-{suite}.json; `benchmarks` writes it"
            )
        return load_bench(files[-1])
