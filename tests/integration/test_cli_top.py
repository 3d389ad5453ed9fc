"""`forkresque top`, on a screen that textual keeps in memory, and as one frame for scripts."""

import asyncio
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from textual.pilot import Pilot
from textual.widgets import Static

from forkresque.cli.output import breadth
from forkresque.cli.program import program
from forkresque.cli.top_rows import NAMES, Sorting
from forkresque.cli.top_screen import Confirm, TopApp, TopScreen, WorkerTable
from forkresque.errors import ExitCode
from tests.support.fake_master import FakeMaster, pool, scaling, worker
from tests.support.waiting import wait_until

Cli = Callable[..., Result]

INTERVAL = 0.1  # seconds between two looks at the fake master
PATIENCE = 5.0  # seconds until the screen must have changed
HOSTILE = "[red]\x1b]0;x\x07\u202eevil"


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the control sockets of this test are. Its path is short."""
    found = tmp_path_factory.mktemp("run") / "forkresque"
    found.mkdir(mode=0o700)
    return found


@pytest.fixture
def master(directory: Path) -> Iterator[FakeMaster]:
    """Return a healthy master."""
    with FakeMaster(directory / f"{os.getpid()}.sock") as running:
        yield running


@pytest.fixture
def cli(directory: Path) -> Cli:
    """Run the command line; no master of the developer's is in reach."""
    environ = {"XDG_RUNTIME_DIR": str(directory.parent), "FORKRESQUE_CONTROL": None}
    return lambda *words: CliRunner(env=environ).invoke(
        program, list(words), prog_name="forkresque"
    )


class Screen:
    """What is on the screen, and a hand on the keyboard."""

    def __init__(self, view: TopScreen, pilot: Pilot[None]) -> None:
        self.view = view
        self.app = view.app
        self.press = pilot.press
        self.pilot = pilot

    def text(self, name: str) -> str:
        """Return what a part of the screen says, "" while it is hidden."""
        widget = self.view.query_one(f"#{name}", Static)
        return str(widget.content) if widget.display else ""

    @property
    def table(self) -> WorkerTable:
        return self.view.query_one(WorkerTable)

    def rows(self) -> list[str]:
        """Return the workers' rows, with single blanks."""
        rows = [self.table.get_row_at(at) for at in range(self.table.row_count)]
        return [" ".join(" ".join(cell.plain for cell in row).split()) for row in rows]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let the screen go on until `condition` holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}\n{self.everything()}"
            await self.pilot.pause(INTERVAL)

    async def shows(self, name: str, text: str) -> None:
        """Wait until a part of the screen has `text` in it."""
        await self.until(lambda: text in self.text(name), f"{text!r} in {name}")

    async def draws(self, *texts: str) -> None:
        """Wait until the terminal has all of `texts` in its lines."""
        await self.until(
            lambda: all(any(text in line for line in self.drawn()) for text in texts),
            f"{texts} on the terminal",
        )

    def everything(self) -> str:
        parts = [self.text(name) for name in ("head", "alarms", "pools", "decisions", "notice")]
        return "\n".join([*parts, *self.rows()])

    def drawn(self) -> list[str]:
        """Return the lines of the terminal as they are."""
        width, height = self.app.size
        lines = self.app.screen._compositor.render_strips()
        assert len(lines) == height
        assert all(strip.cell_length == width for strip in lines)
        return [strip.text for strip in lines]


def on_screen(
    master: FakeMaster,
    steps: Callable[[Screen], Awaitable[None]],
    *,
    size: tuple[int, int] = (80, 24),
    interval: float = INTERVAL,
) -> None:
    """Run `steps` with the screen of a master, once it shows the first report."""

    async def run() -> None:
        pid = master.report["pid"]
        view = TopScreen(master.path, pid, interval=interval, sorting=Sorting())
        async with TopApp(view).run_test(size=size) as pilot:
            screen = Screen(view, pilot)
            await screen.shows("head", f"master {pid}: ")
            await screen.draws("PHASE", f"master {pid}: ", "q quit")
            await steps(screen)

    asyncio.run(run())


# -- what is shown ---------------------------------------------------------------------------


def test_the_screen_shows_the_master_its_pools_workers_decisions_and_trouble(
    master: FakeMaster,
) -> None:
    master.report |= {
        "trouble": ["workers of pool low do not boot: 5 in a row"],
        "pools": [
            pool("high", least=1, most=8, busy=1, waiting=120,
                 scalings=[scaling(3.0, 2, 4, "120 waiting, all busy")]),
            pool("low"),
        ],
        "workers": [
            worker(4101, phase="run", job="Report", job_seconds=192.0, cpu=0.5),
            worker(4102, pool=1, done=3),
        ],
    }  # fmt: skip

    async def steps(screen: Screen) -> None:
        assert "workers of pool low do not boot" in screen.text("alarms")
        assert "high" in screen.text("pools").splitlines()[1]
        assert "120 waiting, all busy" in screen.text("decisions")
        assert screen.rows() == [
            "1 4101 high run 3m12s 0.50 12M 0 0 1m00s 1 Report",
            "2 4102 low idle 0.00 12M 3 0 1m00s 1",
        ]
        await screen.draws("works; up 1m 40s", "Report", "1:8", "all busy", "do not boot")

    on_screen(master, steps)


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_a_terminal_of_any_size_shows_all_parts(master: FakeMaster, size: tuple[int, int]) -> None:
    master.report |= {
        "trouble": [f"trouble number {number}" for number in range(9)],
        "pools": [pool(f"queue{number}") for number in range(12)],
        "workers": [worker(4101 + at, seat=at, pool=at % 12) for at in range(60)],
    }

    async def steps(screen: Screen) -> None:
        await screen.draws("trouble number 0", "queue0", "4101", "no scaling yet")
        assert not any("▏" in line or "▕" in line for line in screen.drawn()), "it scrolls sideways"

    on_screen(master, steps, size=size)


def test_the_screen_follows_its_terminal(master: FakeMaster) -> None:
    master.report["pools"] = [pool("high"), pool("low")]

    async def steps(screen: Screen) -> None:
        columns = len(screen.table.columns)
        await screen.pilot.resize_terminal(60, 24)
        await screen.until(lambda: len(screen.table.columns) < columns, "fewer columns")
        assert max(map(breadth, screen.text("head").splitlines())) == 60  # with an ellipsis
        await screen.pilot.resize_terminal(200, 50)
        await screen.until(lambda: len(screen.table.columns) == columns, "the others again")

    on_screen(master, steps)


def test_what_goes_on_is_shown_with_its_speed(master: FakeMaster) -> None:
    async def steps(screen: Screen) -> None:
        await screen.shows("head", "- jobs/s")
        master.script = [
            {"uptime": 102.0, "workers": [worker(4101, done=9), worker(4103, done=1, age=0.5)]}
        ]
        await screen.shows("head", "5.0 jobs/s, 0.0 failed/s")
        assert [row.split()[1] for row in screen.rows()] == ["4101", "4103"]

    on_screen(master, steps)


def test_hostile_names_are_spelled_out_and_no_markup(master: FakeMaster) -> None:
    master.report |= {
        "trouble": [HOSTILE],
        "pools": [pool(HOSTILE, scalings=[scaling(1.0, 1, 2, HOSTILE)])],
        "workers": [worker(4101, job=HOSTILE)],
    }

    async def steps(screen: Screen) -> None:
        spelled = "[red]\\x1b]0;x\\x07\\u202eevil"
        for name in ("alarms", "pools", "decisions"):
            assert spelled in screen.text(name)
        await screen.pilot.resize_terminal(200, 24)
        await screen.until(lambda: spelled in screen.rows()[0], "the whole name")
        await screen.press("k")
        await screen.until(lambda: isinstance(screen.app.screen, Confirm), "the question")
        await screen.draws("[red]\\x1b")

    on_screen(master, steps)


# -- silence ---------------------------------------------------------------------------------


def test_a_master_that_does_not_answer_leaves_the_screen_alive(master: FakeMaster) -> None:
    async def steps(screen: Screen) -> None:
        master.freeze()
        await screen.pilot.pause(INTERVAL)  # for an answer that was on its way
        looks = master.looks
        await screen.press("s", "S")
        await screen.shows("notice", "sorted by pid, backwards")
        assert screen.rows()[0].split()[1] == "4102"
        assert master.looks == looks
        await screen.press("q")

    on_screen(master, steps)
    master.hear()


def test_a_socket_without_a_master_is_said_and_a_new_master_is_seen(master: FakeMaster) -> None:
    async def steps(screen: Screen) -> None:
        master.end()
        await screen.shows("alarms", f"master {os.getpid()} does not answer")
        assert screen.rows() != []
        assert "stale" in screen.view.query_one("#head").classes
        with FakeMaster(master.path, pid=1):
            await screen.shows("head", "master 1: works")
            await screen.until(lambda: screen.text("alarms") == "", "no alarm")

    on_screen(master, steps)


def test_a_master_that_is_gone_is_said_to_be_gone(directory: Path) -> None:
    async def steps(screen: Screen) -> None:
        master.end()
        process.communicate(b"\n")
        await screen.shows("alarms", f"master {process.pid} is gone")

    command = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE) as process,
        FakeMaster(directory / "m.sock", pid=process.pid) as master,
    ):
        on_screen(master, steps)


# -- keys ------------------------------------------------------------------------------------


def test_p_pauses_and_resumes(master: FakeMaster) -> None:
    async def steps(screen: Screen) -> None:
        await screen.press("p")
        await screen.shows("head", ": paused; up")
        await screen.press("p")
        await screen.shows("head", ": works; up")
        assert screen.text("notice") == "resumed"

    on_screen(master, steps)
    assert master.asked == [("pause", {}), ("resume", {})]


def test_plus_and_minus_scale_the_pool_of_the_chosen_worker(master: FakeMaster) -> None:
    master.report |= {
        "pools": [pool("high"), pool("low", least=1, most=4)],
        "workers": [worker(4101), worker(4102, pool=1)],
    }

    async def steps(screen: Screen) -> None:
        await screen.press("+")
        await screen.shows("pools", "high        2  3")
        assert screen.text("notice") == "pool high: one more"
        await screen.press("down", "-")
        await screen.shows("pools", "low         2  1:3")

    on_screen(master, steps)
    assert master.asked == [
        ("scale", {"pool": "high", "by": 1}),
        ("scale", {"pool": "low", "by": -1}),
    ]


def test_r_reloads_and_a_refusal_is_an_alarm(master: FakeMaster) -> None:
    master.on_reload = [{}, {"reload": {"state": "refused", "reason": "ImportError: no"}}]

    async def steps(screen: Screen) -> None:
        await screen.press("r")
        await screen.shows("alarms", "the new code was refused: ImportError: no")

    on_screen(master, steps)
    assert master.asked == [("reload", {})]


def test_d_drains_if_that_is_meant(master: FakeMaster) -> None:
    async def steps(screen: Screen) -> None:
        for key in ("n", "escape", "q"):
            await screen.press("d")
            await screen.until(lambda: isinstance(screen.app.screen, Confirm), "the question")
            await screen.press(key)
            await screen.until(lambda: screen.app.screen is screen.view, "the end of it")
        looks = master.looks
        await screen.until(lambda: master.looks > looks + 1, "other looks")
        assert master.asked == []
        await screen.press("d")
        await screen.until(lambda: isinstance(screen.app.screen, Confirm), "the question")
        await screen.press("y")
        await screen.shows("head", ": draining, not ready; up")

    on_screen(master, steps)
    assert master.asked == [("drain", {})]


def test_k_kills_the_chosen_worker_if_that_is_meant(master: FakeMaster) -> None:
    master.report["workers"] = [
        worker(4101),
        worker(4102, phase="run", job="Report", job_seconds=9.0),
    ]

    async def steps(screen: Screen) -> None:
        await screen.press("down", "k")
        await screen.until(lambda: isinstance(screen.app.screen, Confirm), "the question")
        await screen.draws("It performs Report for 9.0s")
        await screen.press("y")
        await screen.until(lambda: len(screen.rows()) == 1, "the worker to be gone")
        assert screen.text("notice") == "worker 4102 is killed"
        assert screen.table.pid == 4101

    on_screen(master, steps)
    assert master.asked == [("kill", {"pid": 4102})]


def test_an_order_that_is_refused_is_said_to_be(master: FakeMaster) -> None:
    master.before["kill"] = lambda: master.report.update(workers=[])

    async def steps(screen: Screen) -> None:
        await screen.press("k", "y")
        await screen.shows("notice", "refused: there is no worker 4101 here")
        await screen.press("k")  # there is none to be asked about
        assert not isinstance(screen.app.screen, Confirm)

    on_screen(master, steps)


def test_the_cursor_stays_on_its_worker_when_others_overtake_it(master: FakeMaster) -> None:
    master.report["workers"] = [worker(4101, done=5), worker(4102, done=3), worker(4103, done=1)]

    async def steps(screen: Screen) -> None:
        await screen.press("down")
        assert screen.table.pid == 4102
        await screen.press(*"s" * NAMES.index("done"))
        await screen.shows("notice", "sorted by done")
        master.script = [{"workers": [worker(4100), worker(4102, done=1), worker(4103, done=9)]}]
        await screen.until(lambda: screen.rows()[0].split()[1] == "4103", "another first")
        assert (screen.table.pid, screen.table.cursor_row) == (4102, 1)
        await screen.press("S")
        await screen.until(lambda: screen.rows()[0].split()[1] == "4100", "the other way round")
        assert screen.table.pid == 4102

    on_screen(master, steps)


def test_a_click_on_a_title_sorts_by_it_and_another_turns_it_round(master: FakeMaster) -> None:
    master.report["workers"] = [worker(4101, cpu=0.1), worker(4102, cpu=0.9)]

    async def steps(screen: Screen) -> None:
        (at,) = [line.index("CPU") for line in screen.drawn() if "SEAT" in line]
        await screen.pilot.click(WorkerTable, offset=(at, 0))
        await screen.shows("notice", "sorted by cpu")
        assert screen.rows()[0].split()[1] == "4102"
        await screen.pilot.click(WorkerTable, offset=(at, 0))
        await screen.shows("notice", "sorted by cpu, backwards")
        assert screen.rows()[0].split()[1] == "4101"

    on_screen(master, steps)


def test_nothing_scrolls_away_while_reports_come(master: FakeMaster) -> None:
    master.report["workers"] = [worker(4101 + at, seat=at) for at in range(60)]

    async def steps(screen: Screen) -> None:
        await screen.press("ctrl+end")
        await screen.until(lambda: screen.table.scroll_y > 0, "the end of the list")
        where = screen.table.scroll_y
        await screen.until(lambda: screen.table.scroll_y == screen.table.max_scroll_y, "the end")
        where = screen.table.scroll_y
        master.report["workers"] = [worker(4101 + at, seat=at, done=7) for at in range(60)]
        await screen.until(lambda: " 7 " in screen.rows()[0], "other numbers")
        assert (screen.table.scroll_y, screen.table.pid) == (where, 4160)

    on_screen(master, steps)


# -- a terminal ------------------------------------------------------------------------------


def test_on_a_terminal_it_draws_and_leaves_though_the_master_is_frozen(
    directory: Path, master: FakeMaster
) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environ = os.environ | {"XDG_RUNTIME_DIR": str(directory.parent), "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "forkresque", "top", "--interval", "0.1"]
    drawn = b""

    def sees(text: bytes) -> bool:
        nonlocal drawn
        while select.select([ours], [], [], 0)[0]:
            drawn += os.read(ours, 65536)
        return text in drawn

    def has_ended() -> bool:
        sees(b"")  # or it waits for somebody to read
        return process.poll() is not None

    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ
    ) as process:
        try:
            wait_until(lambda: sees(b"PHASE"), "the first frame")
            master.freeze()
            os.write(ours, b"q")
            wait_until(has_ended, "its end")
            assert process.returncode == ExitCode.OK, drawn
        finally:
            process.kill()
            master.hear()
    os.close(ours)
    os.close(theirs)


# -- one frame -------------------------------------------------------------------------------


def test_once_prints_one_frame_with_rates(cli: Cli, master: FakeMaster) -> None:
    idler = worker(4102, cpu=0.9)
    master.script = [
        {"uptime": 100.0 + 2 * look, "workers": [worker(4101, cpu=0.1, done=3 * look), idler]}
        for look in range(10)
    ]

    result = cli("top", "--once", "--interval", "0.1", "--sort", "cpu")

    assert result.exit_code == ExitCode.OK, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"master {os.getpid()}: works; up 1m ")
    assert lines[2].startswith("1.5 jobs/s, 0.0 failed/s; ")
    assert [line.split()[1] for line in lines if " 12M " in line] == ["4102", "4101"]


def test_json_is_one_document(cli: Cli, master: FakeMaster) -> None:
    master.script = [
        {"uptime": 2.0 * look, "workers": [worker(2, done=look, age=2.0 * look)]}
        for look in range(10)
    ]

    result = cli("top", "--json", "--interval", "100ms")

    assert result.exit_code == ExitCode.OK, result.output
    document = json.loads(result.stdout)
    assert document["rates"] == {"done": 0.5, "failed": 0.0}
    assert document["master"]["pid"] == os.getpid()
    assert [one["pid"] for one in document["master"]["workers"]] == [2]


@pytest.mark.parametrize(
    "words",
    [["--interval", "0"], ["--interval", "soon"], ["--interval", "-1"], ["--sort", "luck"], []],
)
def test_what_cannot_be_is_a_wrong_command_line(cli: Cli, words: list[str]) -> None:
    result = cli("top", *words)  # without any word: nobody sits at a terminal here

    assert result.exit_code == ExitCode.USAGE
    assert words or "--once prints one frame" in result.stderr


def test_without_a_master_there_is_nothing_to_watch(cli: Cli) -> None:
    result = cli("top", "--once")

    assert result.exit_code == ExitCode.FAILED
    assert "no master runs here" in result.stderr


def test_without_textual_it_says_what_to_install_and_once_still_works(
    cli: Cli, master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textual", None)

    result = cli("top")

    assert result.exit_code == ExitCode.FAILED
    assert "pip install 'forkresque[tui]'" in result.stderr
    assert cli("top", "--once", "--interval", "0.1").exit_code == ExitCode.OK


def test_a_frame_needs_no_textual(directory: Path, master: FakeMaster) -> None:
    code = (
        "import sys; sys.modules['textual'] = None\n"
        "from forkresque.cli.program import main\n"
        "sys.argv = ['forkresque', 'top', '--once', '--interval', '0.1']\nmain()"
    )
    environ: dict[str, Any] = os.environ | {"XDG_RUNTIME_DIR": str(directory.parent)}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )

    assert done.returncode == ExitCode.OK, done.stderr
    assert f"master {os.getpid()}: works" in done.stdout
