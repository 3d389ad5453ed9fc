"""What `forkresque top` shows: rates, rows, their order and their columns, from reports.

Reports go in, text comes out. There is no terminal, clock or socket in here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forkresque.cli import reports
from forkresque.cli.output import breadth, brief, counted, cut, padded, span, visible
from forkresque.cli.output import columns as aligned
from forkresque.cli.reports import Report

GAP = 1  # blanks between two columns of the workers
SCALINGS = 3  # decisions shown

_LEAST_JOB = 12  # columns of a job's name, before less important columns are left out
_DISPENSABLE = ("seat", "generation", "age", "failed", "memory", "pool")  # the first one goes first

_Order = float | str | None


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the workers: what is in it, and what it is sorted by."""

    name: str  # as --sort takes it
    title: str
    width: int  # at least
    cell: Callable[[Report, Sequence[Report]], str]  # from a worker and the pools
    key: Callable[[Report], _Order]
    right: bool = True
    descends: bool = False  # the largest first, unless reversed


def _number(name: str, title: str, width: int) -> Column:
    return Column(
        name, title, width, lambda worker, _: str(worker[name]), lambda worker: worker[name]
    )


def _seconds(worker: Report) -> float | None:
    return worker["job_seconds"] if worker["job"] else None


def _run_time(worker: Report, _: Sequence[Report]) -> str:
    seconds = _seconds(worker)
    return "" if seconds is None else brief(seconds)


COLUMNS = (
    _number("seat", "SEAT", 4),
    _number("pid", "PID", 5),
    Column(
        "pool",
        "POOL",
        4,
        lambda worker, pools: cut(visible(reports.pool_name(pools, worker)), 12),
        lambda worker: worker["pool"],
        right=False,
    ),
    Column(
        "phase", "PHASE", 6, lambda w, _: visible(w["phase"]), lambda w: w["phase"], right=False
    ),
    Column("run", "RUN", 6, _run_time, _seconds, descends=True),
    Column(
        "cpu", "CPU", 4, lambda w, _: reports.cores(w["cpu"]), lambda w: w["cpu"], descends=True
    ),
    Column(
        "memory",
        "MEM",
        5,
        lambda worker, _: reports.memory(worker["memory"]),
        lambda worker: worker["memory"],
        descends=True,
    ),
    Column("done", "DONE", 4, lambda w, _: str(w["done"]), lambda w: w["done"], descends=True),
    Column(
        "failed", "FAIL", 4, lambda w, _: str(w["failed"]), lambda w: w["failed"], descends=True
    ),
    Column("age", "AGE", 6, lambda w, _: brief(w["age"]), lambda w: w["age"], descends=True),
    _number("generation", "GEN", 3),
    Column(
        "job", "JOB", _LEAST_JOB, lambda w, _: visible(w["job"]), lambda w: w["job"], right=False
    ),
)
NAMES = tuple(column.name for column in COLUMNS)


@dataclass(frozen=True, slots=True)
class Sorting:
    """How the workers are sorted."""

    by: str = "seat"
    backwards: bool = False

    def next(self) -> "Sorting":
        """Return the order by the next column."""
        return Sorting(NAMES[(NAMES.index(self.by) + 1) % len(NAMES)])

    def sort(self, workers: Sequence[Report]) -> list[Report]:
        """Return the workers in this order; those without a value come last in any case."""
        column = COLUMNS[NAMES.index(self.by)]
        by_seat = sorted(workers, key=lambda worker: int(worker["seat"]))
        known = [worker for worker in by_seat if column.key(worker) not in (None, "")]
        unknown = [worker for worker in by_seat if column.key(worker) in (None, "")]
        # `known` has values of one kind in one column
        known.sort(key=column.key, reverse=column.descends is not self.backwards)  # type: ignore[arg-type]
        return known + unknown


@dataclass(frozen=True, slots=True)
class Rates:
    """Jobs a second."""

    done: float
    failed: float


def rates(before: Report | None, now: Report) -> Rates | None:
    """Return the rates between two reports, or None if they cannot be compared.

    What a worker has done between the earlier report and its end is not in them.
    """
    if before is None or before["pid"] != now["pid"]:
        return None
    seconds = now["uptime"] - before["uptime"]
    if seconds <= 0:
        return None
    return Rates(_more("done", before, now) / seconds, _more("failed", before, now) / seconds)


def _more(name: str, before: Report, now: Report) -> int:
    """Return by how much a counter of the workers has grown; a new worker began with 0."""
    elapsed = now["uptime"] - before["uptime"]
    earlier = {worker["pid"]: worker[name] for worker in before["workers"]}
    grown = 0
    for worker in now["workers"]:
        is_new = worker["age"] < elapsed  # its pid may have been another's
        grown += worker[name] - (0 if is_new else earlier.get(worker["pid"], worker[name]))
    return max(grown, 0)


class Meter:
    """The rates over the last `least` seconds or more, from reports that come at any time."""

    def __init__(self, least: float) -> None:
        self._least = least
        self._base: Report | None = None
        self._rates: Rates | None = None

    def read(self, report: Report) -> Rates | None:
        """Return the rates as of this report; None at the first one."""
        base = self._base
        is_of_another = base is None or base["pid"] != report["pid"]
        if base is None or is_of_another or report["uptime"] - base["uptime"] >= self._least:
            self._rates, self._base = rates(base, report), report
        return self._rates


@dataclass(frozen=True, slots=True)
class Grid:
    """The workers, as aligned columns."""

    columns: tuple[Column, ...]
    widths: tuple[int, ...]
    rows: tuple[tuple[str, ...], ...]
    pids: tuple[int, ...]  # one for each row

    def lines(self) -> list[str]:
        """Return a line for the titles and one for each row."""
        fitted = [self.titles(), *map(self.fitted, self.rows)]
        return [(" " * GAP).join(cells).rstrip() for cells in fitted]

    def titles(self) -> tuple[str, ...]:
        """Return the titles, each as wide as its column."""
        return self.fitted([column.title for column in self.columns])

    def fitted(self, cells: Sequence[str]) -> tuple[str, ...]:
        """Return the cells of a row, each as wide as its column."""
        return tuple(
            padded(cut(cell, width), width, right=column.right)
            for cell, width, column in zip(cells, self.widths, self.columns, strict=True)
        )


def grid(report: Report, sorting: Sorting, *, width: int) -> Grid:
    """Return the workers in order, in `width` columns of a terminal.

    Columns that matter less are left out where there is no room for the jobs' names.
    """
    workers = sorting.sort(report["workers"])
    shown = [each for each in COLUMNS if each.name != "pool" or len(report["pools"]) > 1]
    cells = {each.name: [each.cell(one, report["pools"]) for one in workers] for each in shown}
    widths = {each.name: max([each.width, *map(breadth, cells[each.name])]) for each in shown}
    for name in _DISPENSABLE:
        if _room(shown, widths, width) >= _LEAST_JOB:
            break
        shown = [each for each in shown if each.name != name]
    widths["job"] = max(_room(shown, widths, width), _LEAST_JOB)
    return Grid(
        tuple(shown),
        tuple(widths[each.name] for each in shown),
        tuple(tuple(cells[each.name][at] for each in shown) for at in range(len(workers))),
        tuple(worker["pid"] for worker in workers),
    )


def _room(shown: Sequence[Column], widths: dict[str, int], width: int) -> int:
    """Return how many columns of the terminal are left for the jobs' names."""
    return width - sum(widths[each.name] + GAP for each in shown if each.name != "job")


def head(report: Report, found: Rates | None, *, width: int) -> list[str]:
    """Return the lines about the master as a whole."""
    state = ", ".join(reports.states(report)) or "works"
    clerk = report["clerk"]
    reach = "reaches Redis" if clerk["reached"] else "does not reach Redis"
    place = f"; {report['redis']}, namespace {report['namespace']}" if report["redis"] else ""
    lines = [
        f"master {report['pid']}: {state}; up {span(report['uptime'])}, "
        f"generation {report['generation']}, forkresque {report['version']}",
        f"clerk {clerk['pid']} {reach}, scheduler: {clerk['leads']}{place}",
        f"{_speed(found)}; {_load(report)}",
    ]
    return [cut(visible(line), width) for line in lines]


def _speed(found: Rates | None) -> str:
    if found is None:
        return f"{reports.UNKNOWN} jobs/s"
    return f"{found.done:.1f} jobs/s, {found.failed:.1f} failed/s"


def _load(report: Report) -> str:
    workers, pools = report["workers"], report["pools"]
    busy = sum(pool["busy"] for pool in pools)
    cpu = [worker["cpu"] for worker in workers if worker["cpu"] is not None]
    memory = [worker["memory"] for worker in workers if worker["memory"] is not None]
    return (
        f"{busy} of {counted(len(workers), 'worker')} busy, {report['wanted']} wanted; "
        f"CPU {reports.cores(sum(cpu) if cpu else None)}, "
        f"memory {reports.memory(sum(memory) if memory else None)}"
    )


def pools(report: Report, *, width: int, most: int | None = None) -> list[str]:
    """Return the pools as aligned columns under their titles, `most` of them."""
    rows = [reports.pool_cells(pool) for pool in report["pools"]]
    title, *lines = aligned(reports.POOL_TITLES, rows)
    return [cut(line, width) for line in [title, *_first(lines, most, "pool")]]


def decisions(report: Report, *, width: int) -> list[str]:
    """Return the latest scaling decisions with their reasons."""
    found = reports.scalings(report["pools"], SCALINGS)
    return [cut(visible(line), width) for line in found or ["no scaling yet"]]


def alarms(report: Report, *, width: int, most: int | None = None) -> list[str]:
    """Return the lines that somebody should look after, `most` of them."""
    found = [f"trouble: {line}" for line in reports.alarms(report)]
    return [cut(visible(line), width) for line in _first(found, most, "trouble")]


def _first(lines: list[str], most: int | None, noun: str) -> list[str]:
    """Return the first lines, and how many more there are."""
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"and {counted(len(lines) - most, noun)} more"]


def frame(report: Report, found: Rates | None, sorting: Sorting, *, width: int) -> list[str]:
    """Return all lines of one picture, for those who have no use for a moving one."""
    return [
        *head(report, found, width=width),
        *alarms(report, width=width),
        "",
        *pools(report, width=width),
        "",
        *grid(report, sorting, width=width).lines(),
        "",
        *decisions(report, width=width),
    ]
