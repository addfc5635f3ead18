"""What pages quote of benchmarks: `results/bench/DATE-PART.json`, the newest of a part."""

from pathlib import Path
from typing import Any

from companion.markdown import Markdown, in_words, table
from companion.published import read_published
from lthlib.errors import PublishError


def bench_files(results: Path, part: str) -> list[Path]:
    """Return the recorded files of a benchmark, the newest last."""
    return sorted(results.glob(f"bench/*-{part}.json"))


def load_bench(path: Path) -> dict[str, Any]:
    """Read the file of a benchmark. Raises RecordError when it is not as it was written."""
    return read_published(path, "`python -m benchmarks`")


class Benchmarks:
    """The recorded benchmarks of a folder of results, asked by part: `cpu`, `cuda`, `cluster`.

    Every function raises PublishError for a part that was not recorded, and RecordError as
    `load_bench`.
    """

    def __init__(self, results: Path) -> None:
        self._results = results

    def has_bench(self, part: str) -> bool:
        """Whether a benchmark was recorded: `[% if has_bench("cuda") %]`."""
        return bool(bench_files(self._results, part))

    def bench(self, part: str, name: str, field: str = "ours") -> str:
        """What a benchmark measured: `bench("cluster", "efficiency")` -> `98.2`.

        field: `ours`, or another of a row. Raises PublishError also for a row that there is not;
        the message lists those there are.
        """
        rows = {row["name"]: row for row in self.read(part)["rows"]}
        if name not in rows:
            raise PublishError(f"benchmark {part!r} has no row {name!r}; known: {', '.join(rows)}")
        value = rows[name][field]
        if not isinstance(value, (int, float)):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"

    def bench_table(self, part: str, *groups: str) -> Markdown:
        """Rows of a benchmark as a table: of `bip: runs` the group is `bip`, the column `runs`."""
        split = [(*row["name"].partition(": "), row["unit"]) for row in self.read(part)["rows"]]
        columns = {name: unit for group, _, name, unit in split if group == groups[0]}
        head = [f"{name}, {unit}" if unit else name for name, unit in columns.items()]
        lines = [[one, *(self.bench(part, f"{one}: {name}") for name in columns)] for one in groups]
        return table(["", *head], lines)

    def bench_latencies(self, part: str, network: str) -> Markdown:
        """What took how long, in milliseconds with 95 % intervals, and how many times as fast as
        the first: of `ResNet-20, dense: 1 image` the network is `ResNet-20`."""
        lines: dict[str, list[str]] = {}
        heads: dict[str, None] = {}
        for row in self.read(part)["rows"]:
            if row["name"].startswith(f"{network}, "):
                name, _, images = row["name"].removeprefix(f"{network}, ").partition(": ")
                heads |= {f"{images}, ms": None, f"{images}, times as fast": None}
                took = float(format(row["ours"], ".3g"))
                cells = f"{took:,g} ({row['note']})", f"{row['ratio']:.2f}"
                lines.setdefault(name, [name]).extend(cells)
        if not lines:
            raise PublishError(f"benchmark {part!r} has no network {network!r}")
        return table(["", *heads], lines.values())

    def bench_list(self, part: str) -> Markdown:
        """All rows of a benchmark, and what measured them: reference, ours, the ratio, the aim."""
        names = ("name", "reference", "ours", "unit", "ratio", "target", "met", "note")
        rows = [
            [in_words(row.get(name), ".4g") for name in names] for row in self.read(part)["rows"]
        ]
        shown = table(["benchmark", *names[1:6], "target met", "note"], rows, (1, 2, 4))
        return Markdown("{}\n\n{}").format(shown, self.bench_made(part))

    def bench_made(self, part: str) -> str:
        """What measured a benchmark, and when."""
        report = self.read(part)
        machine = report["machine"]
        load = machine.get("load average, before and after")
        busy = f" · load average before and after: {load[0]:g}, {load[1]:g}" if load else ""
        return (
            f"{machine['processor']}, {machine['cores']} cores · device: {machine['device']} · "
            f"date: {report['started'][:10]} · PyTorch {machine['torch']}{busy}"
        )

    def bench_targets(self, part: str) -> str:
        """How many targets of a benchmark are met, and the names of those that are not; or that it
        was not measured."""
        if not self.has_bench(part):
            return "nothing has been measured"
        aimed = [row for row in self.read(part)["rows"] if row["met"] is not None]
        missed = [row["name"] for row in aimed if not row["met"]]
        words = f"{len(aimed) - len(missed)} of {len(aimed)} targets are met"
        return f"{words}; not met: {'; '.join(missed)}" if missed else words

    def read(self, part: str) -> dict[str, Any]:
        """The newest file of a benchmark."""
        if not (found := bench_files(self._results, part)):
            raise PublishError(
                f"there is no results/bench/DATE-{part}.json; `benchmarks` writes it"
            )
        return load_bench(found[-1])
