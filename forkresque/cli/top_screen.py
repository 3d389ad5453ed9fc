"""The screen of `forkresque top`: it draws what `top_rows` makes, and hands keys on as orders."""

import contextlib
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Static

from forkresque.cli import reports, top_rows
from forkresque.cli.output import brief, visible
from forkresque.cli.reports import Report
from forkresque.cli.top_feed import Feed, Heard, Order
from forkresque.cli.top_rows import GAP, Grid, Meter, Rates, Sorting

_PARTS = ("head", "alarms", "pools", "decisions", "notice")
_STYLE = """
TopScreen { overflow: hidden; }
TopScreen Static { height: auto; text-wrap: nowrap; }
TopScreen .stale { text-style: dim; }
#alarms { color: $text-error; background: $error-muted; text-style: bold; }
#pools { margin-top: 1; }
#notice { color: $text-warning; }
WorkerTable { height: 1fr; min-height: 3; margin-top: 1; }
Confirm { align: center middle; }
Confirm Static { width: 60; height: auto; padding: 1 2; border: solid $warning; }
"""
_ALARMS = 3  # lines
_LEAST_POOLS, _POOL_EVERY = 2, 6  # one pool is shown for so many lines of the terminal
_SCROLLBAR = 2  # columns that the table may need beside its cells


class News(Message):
    """Something was heard of the master."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self.heard = heard


class Confirm(ModalScreen[bool]):
    """A question that is answered by y or n."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes"),
        Binding("n,escape,q", "answer(False)", "no"),
    ]

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        """Show the question."""
        yield Static(f"{visible(self._question)}\n\ny yes   n no", markup=False)

    def action_answer(self, answer: bool) -> None:  # noqa: FBT001 - textual's signature
        """Go away with the answer."""
        self.dismiss(answer)


class WorkerTable(DataTable[Text]):
    """The workers. The cursor stays on its worker, wherever that is sorted to."""

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=0)
        self._grid = Grid((), (), (), ())

    @property
    def pid(self) -> int | None:
        """Return the worker under the cursor."""
        pids = self._grid.pids
        return pids[self.cursor_row] if 0 <= self.cursor_row < len(pids) else None

    def column(self, index: int) -> str:
        """Return the name of a column."""
        return self._grid.columns[index].name

    def show(self, grid: Grid) -> None:
        """Draw the workers; only what has changed is drawn again, so nothing scrolls away."""
        pid, old, self._grid = self.pid, self._grid, grid
        if (grid.columns, grid.widths) != (old.columns, old.widths):
            self._build(grid)
            old = Grid((), (), (), ())
        for at, cells in enumerate(grid.rows):
            if at >= len(old.rows):
                self.add_row(*map(Text, grid.fitted(cells)), key=str(at))
            elif cells != old.rows[at]:
                self._update(at, grid.fitted(cells))
        for at in range(len(grid.rows), len(old.rows)):
            self.remove_row(str(at))
        if pid in grid.pids and grid.pids.index(pid) != self.cursor_row:
            self.move_cursor(row=grid.pids.index(pid))

    def _build(self, grid: Grid) -> None:
        self.clear(columns=True)
        *others, last = zip(grid.titles(), grid.widths, strict=True)
        for title, width in others:
            self.add_column(Text(title), width=width + GAP)
        self.add_column(Text(last[0]), width=last[1])

    def _update(self, row: int, cells: tuple[str, ...]) -> None:
        for column, cell in enumerate(cells):
            where = Coordinate(row, column)
            if self.get_cell_at(where).plain != cell:
                self.update_cell_at(where, Text(cell))


class TopScreen(Screen[None]):
    """The live view of one master."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "pause", "pause"),
        Binding("+", "scale(1)", "more", key_display="+"),
        Binding("-", "scale(-1)", "fewer", key_display="-"),
        Binding("r", "reload", "reload"),
        Binding("d", "drain", "drain"),
        Binding("k", "kill", "kill"),
        Binding("s", "sort", "sort"),
        Binding("S", "reverse", "reverse", key_display="S"),
        Binding("q", "app.quit", "quit"),
    ]

    def __init__(self, socket: Path, pid: int, *, interval: float, sorting: Sorting) -> None:
        super().__init__()
        self._feed = Feed(socket, pid, interval=interval, tell=self._tell)
        self._meter = Meter(interval / 2)
        self._sorting = sorting
        self._report: Report | None = None
        self._rates: Rates | None = None
        self._silence = ""
        self._notice = f"asking master {pid}"
        self._parts = {name: Static(id=name, markup=False) for name in _PARTS}
        self._table = WorkerTable()

    def compose(self) -> ComposeResult:
        """Lay out the screen, from top to bottom."""
        for name, part in self._parts.items():
            part.display = False  # until something is in it
            yield part
            if name == "pools":
                yield self._table
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to ask the master."""
        self._draw()
        self._feed.start()

    def on_unmount(self) -> None:
        """Ask no more."""
        self._feed.stop()

    def on_resize(self) -> None:
        """Draw again, for another width."""
        self._draw()

    def _tell(self, heard: Heard) -> None:
        """Take what the feed's thread has heard."""
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            self.post_message(News(heard))

    @on(News)
    def _take(self, news: News) -> None:
        heard = news.heard
        self._silence, self._notice = heard.silence, heard.said or self._notice
        if heard.report is not None:
            first, self._report = self._report is None, heard.report
            self._rates = self._meter.read(heard.report)
            self._notice = "" if first else self._notice
        self._draw()

    # -- drawing -----------------------------------------------------------------------------

    def _draw(self) -> None:
        width, report = self.size.width, self._report
        alarms = [self._silence] if self._silence else []
        if report is not None:
            alarms += top_rows.alarms(report, width=width, most=_ALARMS)
            self._write("head", top_rows.head(report, self._rates, width=width))
            most = max(_LEAST_POOLS, self.size.height // _POOL_EVERY)
            self._write("pools", top_rows.pools(report, width=width, most=most))
            self._write("decisions", top_rows.decisions(report, width=width))
            self._table.show(top_rows.grid(report, self._sorting, width=width - _SCROLLBAR))
        self._write("alarms", alarms)
        self._write("notice", [self._notice] if self._notice else [])
        for name in ("head", "pools", "decisions"):
            self._parts[name].set_class(bool(self._silence), "stale")

    def _write(self, name: str, lines: list[str]) -> None:
        part, text = self._parts[name], "\n".join(map(visible, lines))
        if part.content != text:
            part.display = bool(text)
            part.update(text)

    # -- keys --------------------------------------------------------------------------------

    def action_pause(self) -> None:
        """Pause, or resume after a pause."""
        if self._report is not None and self._report["paused"]:
            self._feed.give(Order("resume", "resumed"))
        else:
            self._feed.give(Order("pause", "paused"))

    def action_scale(self, by: int) -> None:
        """Let the pool of the chosen worker have more or fewer."""
        if self._report is None:
            return
        worker, pools = self._chosen(), self._report["pools"]
        pool = reports.pool_of(pools, worker) if worker is not None else next(iter(pools), None)
        if pool is not None:
            said = f"pool {pool['name']}: {'one more' if by > 0 else 'one fewer'}"
            self._feed.give(Order("scale", said, {"pool": pool["name"], "by": by}))

    def action_reload(self) -> None:
        """Try the new code."""
        self._feed.give(Order("reload", "the new code is tried"))

    def action_drain(self) -> None:
        """End the master in good order, if that is meant."""
        question = "Drain this master? It finishes the jobs in hand and exits."
        self._give_if_meant(question, Order("drain", "it drains"))

    def action_kill(self) -> None:
        """Kill the chosen worker, if that is meant."""
        worker = self._chosen()
        if worker is None:
            return
        pid, job = worker["pid"], worker["job"]
        doing = f"It performs {job} for {brief(worker['job_seconds'])}, which is recovered."
        question = f"Kill worker {pid}? {doing if job else 'It has no job in hand.'}"
        self._give_if_meant(question, Order("kill", f"worker {pid} is killed", {"pid": pid}))

    def _give_if_meant(self, question: str, order: Order) -> None:
        def answered(yes: bool | None) -> None:  # noqa: FBT001 - textual's signature
            if yes:
                self._feed.give(order)

        self.app.push_screen(Confirm(question), answered)

    def action_sort(self) -> None:
        """Sort the workers by the next column."""
        self._sort(self._sorting.next())

    def action_reverse(self) -> None:
        """Sort the workers the other way round."""
        self._sort(Sorting(self._sorting.by, not self._sorting.backwards))

    @on(DataTable.HeaderSelected)
    def _sort_by_title(self, event: DataTable.HeaderSelected) -> None:
        name = self._table.column(event.column_index)
        again = name == self._sorting.by
        self._sort(Sorting(name, again and not self._sorting.backwards))

    def _sort(self, sorting: Sorting) -> None:
        self._sorting = sorting
        self._notice = f"sorted by {sorting.by}{', backwards' if sorting.backwards else ''}"
        self._draw()

    def _chosen(self) -> Report | None:
        """Return the worker under the cursor."""
        if self._report is None:
            return None
        pid = self._table.pid
        found = (worker for worker in self._report["workers"] if worker["pid"] == pid)
        return next(found, None)


class TopApp(App[None]):
    """The program around the screen."""

    ENABLE_COMMAND_PALETTE = False
    CSS = _STYLE
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", show=False, priority=True)]

    def __init__(self, view: TopScreen) -> None:
        super().__init__()
        self._view = view

    def get_default_screen(self) -> TopScreen:
        """Return the one screen there is."""
        return self._view
