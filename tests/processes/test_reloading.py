"""SIGHUP: newer code under the same pid, and not one job, slot or second of capacity lost."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.support.processes import ROOT, Start, assert_nothing_left, title
from tests.support.servers import Server
from tests.support.site import Site, await_rest, idle_workers, state, stays, told
from tests.support.waiting import wait_until

SHOW = "from tests.support.jobs import app, note\n"
VERSION = """
@app.job("version", queue="math")
def version() -> None:
    note("{0}")
"""

Deploy = Callable[..., Start]


@pytest.fixture
def deploy(
    one_server: Server, ledger: Redis, ledger_server: Server, tmp_path: Path
) -> Iterator[Deploy]:
    """Return what starts a master in `tmp_path`, where the application is the module `deployed`."""
    started: list[Start] = []

    def deploy(*args: str, inside: tuple[str, ...] = (), **env: str) -> Start:
        place = env.pop("place", str(tmp_path))
        master = Start(
            *("-A", "deployed", *(args or ("-q", "math", "-c", "2"))),
            url=env.pop("url", one_server.url),
            env={
                "LEDGER_URL": ledger_server.url,
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",  # versions of one second and size look the same
                "PWD": place,
                **env,
            },
            inside=(*inside, "/usr/bin/env", "-C", place),
        )
        started.append(master)
        return master

    yield deploy
    for one in started:
        one.stop()
        print(f"-- log of {one.pid}, which ended with {one.process.returncode}\n{one.log()}")
        one.remove()


def write(place: Path, version: str) -> None:
    """Have the application be of this version."""
    (place / "deployed.py").write_text(SHOW + VERSION.format(version))


def generation(master: Start) -> int:
    """Return the generation of a master, 0 while it is between two images."""
    return int(told(master).get("generation", 0))


def reloaded(master: Start, to: int = 2, pid: int = 0) -> dict[str, Any]:
    """Wait until a master and all its children are of a generation, or of a later one."""

    def rolled() -> dict[str, Any] | None:
        state = told(master, pid)
        if state.get("generation", 0) < to or state["reload"]["state"] != "none":
            return None
        generations = {worker["generation"] for worker in state["workers"]}
        return state if generations == {state["generation"]} else None

    return wait_until(rolled, f"generation {to} everywhere")


def refused(master: Start) -> str:
    """Wait until a reload is refused; return why."""

    def refusal() -> dict[str, str] | None:
        reload = told(master).get("reload", {})
        return reload if reload.get("state") == "refused" else None

    return str(wait_until(refusal, "a refusal")["reason"])


def phases_of(master: Start) -> list[str]:
    return [worker["phase"] for worker in told(master).get("workers", [])]


def assert_drains(master: Start, site: Site) -> None:
    master.send_signal(signal.SIGTERM)
    assert master.wait() == 0
    assert_nothing_left(master, site.redis)


def test_new_code_runs_under_the_same_pid(deploy: Deploy, site: Site, tmp_path: Path) -> None:
    write(tmp_path, "old")
    master = deploy()
    old = idle_workers(master, 2)
    site.enqueue("version")
    wait_until(lambda: site.runs() == ["old"], "a run of the old code")
    write(tmp_path, "new")

    master.send_signal(signal.SIGHUP)
    state_after = reloaded(master)
    site.enqueue("version")

    wait_until(lambda: site.runs() == ["old", "new"], "a run of the new code")
    assert state_after["pid"] == master.pid
    assert not any(worker.is_running() for worker in old)
    assert state_after["counters"]["recycled"] == 2
    await_rest(master, 2)
    assert_drains(master, site)


def test_jobs_in_hand_end_in_the_old_workers_and_no_more_run_at_once_than_before(
    deploy: Deploy, site: Site, tmp_path: Path
) -> None:
    write(tmp_path, "old")
    master = deploy("-q", "math", "-c", "2")
    held = site.gates("one", "two")
    write(tmp_path, "new")
    site.enqueue("version")

    master.send_signal(signal.SIGHUP)
    wait_until(lambda: generation(master) == 2, "the next generation")
    wait_until(lambda: phases_of(master).count("held") == 2, "both replacements to be held")
    stays(lambda: site.runs() == [], "none of them works beside the two that are busy", 0.3)
    site.release("one")
    wait_until(lambda: site.runs() == ["one", "new"], "new code in the place of the first")
    site.release("two")
    reloaded(master)

    assert [site.starts(name) for name in ("one", "two")] == [1, 1]
    assert {worker.pid for worker in idle_workers(master, 2)}.isdisjoint(held)
    site.await_processed(3)
    assert_drains(master, site)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import missing_module\n", "missing_module"),
        ("raise RuntimeError('a bad deploy')\n", "a bad deploy"),
        ("def broken(:\n", "SyntaxError"),
    ],
)
def test_code_that_cannot_be_imported_changes_nothing(
    deploy: Deploy, site: Site, tmp_path: Path, code: str, reason: str
) -> None:
    write(tmp_path, "old")
    master = deploy()
    workers = idle_workers(master, 2)
    (tmp_path / "deployed.py").write_text(code)

    master.send_signal(signal.SIGHUP)

    assert reason in refused(master)
    assert reason in master.log()
    assert generation(master) == 1
    assert idle_workers(master, 2) == workers
    site.enqueue("version")
    wait_until(lambda: site.runs() == ["old"], "a run of the old code")
    write(tmp_path, "new")
    master.send_signal(signal.SIGHUP)
    reloaded(master)
    assert_drains(master, site)


def test_code_that_breaks_after_its_check_leaves_the_old_children_at_work(
    deploy: Deploy, site: Site, tmp_path: Path
) -> None:
    write(tmp_path, "old")
    fragile = (
        "import os\n"
        "if os.environ.get('FORKRESQUE_CHECK') is None and os.path.exists('armed'):\n"
        "    raise RuntimeError('only after the check')\n"
    )
    (tmp_path / "deployed.py").write_text(fragile + SHOW + VERSION.format("old"))
    master = deploy()
    workers = idle_workers(master, 2)
    clerk = master.children("clerk")
    (tmp_path / "armed").touch()

    master.send_signal(signal.SIGHUP)

    assert "only after the check" in refused(master)
    assert idle_workers(master, 2) == workers
    assert master.children("clerk") == clerk
    site.enqueue("version")
    wait_until(lambda: site.runs() == ["old"], "a run of the old code")
    (tmp_path / "armed").unlink()
    write(tmp_path, "new")
    master.send_signal(signal.SIGHUP)
    reloaded(master)
    assert_drains(master, site)


def test_a_deploy_that_moves_a_link_is_followed(deploy: Deploy, site: Site, tmp_path: Path) -> None:
    for version in ("old", "new"):
        (tmp_path / version).mkdir()
        write(tmp_path / version, version)
    current = tmp_path / "current"
    current.symlink_to("old")
    master = deploy(place=str(current))
    idle_workers(master, 2)
    current.unlink()
    current.symlink_to("new")

    master.send_signal(signal.SIGHUP)
    reloaded(master)
    site.enqueue("version")

    wait_until(lambda: site.runs() == ["new"], "a run of the new code")
    assert_drains(master, site)


def test_a_term_during_a_reload_is_not_lost(deploy: Deploy, site: Site, tmp_path: Path) -> None:
    (tmp_path / "deployed.py").write_text(
        "import os, time\n"
        "if os.path.exists('slow') and os.environ.get('FORKRESQUE_CHECK') is None:\n"
        "    open('importing', 'w').close()\n"
        "    time.sleep(1)\n" + SHOW
    )
    master = deploy()
    idle_workers(master, 2)
    site.gates("one")
    (tmp_path / "slow").touch()
    master.send_signal(signal.SIGHUP)
    wait_until((tmp_path / "importing").exists, "the import of the new code")

    master.send_signal(signal.SIGTERM)
    site.release("one")

    assert master.wait() == 0
    assert site.runs() == ["one"]
    assert_nothing_left(master, site.redis)


def test_a_worker_that_dies_during_the_import_is_replaced_and_its_job_recovered(
    deploy: Deploy, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "deployed.py").write_text(
        "import os, time\n"
        "if os.path.exists('slow') and os.environ.get('FORKRESQUE_CHECK') is None:\n"
        "    open('importing', 'w').close()\n"
        "    time.sleep(0.5)\n" + SHOW
    )
    master = deploy()
    (victim,) = site.gates("one")
    (tmp_path / "slow").touch()
    master.send_signal(signal.SIGHUP)
    wait_until((tmp_path / "importing").exists, "the import of the new code")

    next(child for child in master.children("worker") if child.pid == victim).kill()

    assert site.started("one", times=2) != victim
    site.release("one")
    site.await_processed(1)
    reloaded(master)
    assert_drains(master, site)


def test_the_configuration_is_read_anew(deploy: Deploy, site: Site, tmp_path: Path) -> None:
    write(tmp_path, "old")
    file = tmp_path / "forkresque.toml"
    file.write_text('[[pools]]\nqueues = "math"\nconcurrency = 2\n')
    master = deploy("--interval", "1")
    wait_until(lambda: len(master.children("worker")) == 2, "two workers")
    site.gates("one", "two")
    file.write_text(
        '[[pools]]\nqueues = "other"\nmax = 1\nmin = 1\n'
        '[[pools]]\nqueues = "third"\nconcurrency = 1\n'
    )

    master.send_signal(signal.SIGHUP)
    wait_until(lambda: generation(master) == 2, "the next generation")
    site.enqueue("note", "other", queue="other")
    site.enqueue("note", "third", queue="third")
    wait_until(lambda: sorted(site.runs()) == ["other", "third"], "runs of the new pools")
    site.enqueue("note", "math")
    site.release("one", "two")
    state_after = reloaded(master)

    assert [pool["name"] for pool in state_after["pools"]] == ["other", "third"]
    wait_until(lambda: len(site.waiting()) == 1, "the job of the pool that is no more")
    assert sorted(site.runs()) == ["one", "other", "third", "two"]
    master.send_signal(signal.SIGTERM)
    assert master.wait() == 0


def test_more_workers_than_there_are_seats_need_a_restart(
    deploy: Deploy, site: Site, tmp_path: Path
) -> None:
    write(tmp_path, "old")
    file = tmp_path / "forkresque.toml"
    file.write_text("concurrency = 1\n")
    master = deploy("-q", "math")
    idle_workers(master, 1)
    file.write_text("concurrency = 400\n")

    master.send_signal(signal.SIGHUP)

    assert "restart instead of reloading" in refused(master)
    assert_drains(master, site)


@pytest.mark.parametrize("option", ["--no-preload", "--preload"])
def test_reloads_can_follow_each_other(
    deploy: Deploy, site: Site, tmp_path: Path, option: str
) -> None:
    write(tmp_path, "1")
    master = deploy("-q", "math", "-c", "2", option)
    idle_workers(master, 2)

    for number in (2, 3, 4):
        write(tmp_path, str(number))
        master.send_signal(signal.SIGHUP)
        reloaded(master, number)
    site.enqueue("version")

    wait_until(lambda: site.runs() == ["4"], "a run of the last code")
    open_files = list(Path(f"/proc/{master.pid}/fd").iterdir())
    assert len(open_files) < 40
    assert_drains(master, site)


def test_a_pause_outlasts_a_reload(deploy: Deploy, site: Site, tmp_path: Path) -> None:
    write(tmp_path, "old")
    master = deploy()
    idle_workers(master, 2)
    master.send_signal(signal.SIGUSR1)
    wait_until(lambda: state(master)["paused"], "the pause")
    site.enqueue("version")

    master.send_signal(signal.SIGHUP)
    state_after = reloaded(master)

    assert state_after["paused"]
    assert title(master.children("worker")[0]).startswith("forkresque-")
    assert site.runs() == []
    master.send_signal(signal.SIGCONT)
    wait_until(lambda: site.runs() == ["old"], "the job after the pause")
    assert_drains(master, site)


def test_an_application_that_starts_threads_can_be_reloaded(
    deploy: Deploy, site: Site, tmp_path: Path
) -> None:
    threads = (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    (tmp_path / "deployed.py").write_text(threads + SHOW + VERSION.format("old"))
    master = deploy()
    idle_workers(master, 2)
    (tmp_path / "deployed.py").write_text(threads + SHOW + VERSION.format("new"))

    master.send_signal(signal.SIGHUP)
    reloaded(master)
    site.enqueue("version")

    wait_until(lambda: site.runs() == ["new"], "a run of the new code")
    assert_drains(master, site)


def test_an_embedded_server_goes_on_during_a_reload(
    deploy: Deploy, site: Site, tmp_path: Path
) -> None:
    write(tmp_path, "old")
    master = deploy(url=f"embedded://{tmp_path}/data")
    idle_workers(master, 2)
    server = (tmp_path / "data" / "server.pid").read_text()

    master.send_signal(signal.SIGHUP)
    reloaded(master)

    assert (tmp_path / "data" / "server.pid").read_text() == server
    master.send_signal(signal.SIGTERM)
    assert master.wait() == 0
    wait_until(lambda: not master.left(), "the end of the server")


def test_an_embedded_server_without_a_directory_cannot_be_carried_over(
    deploy: Deploy, tmp_path: Path
) -> None:
    write(tmp_path, "old")
    master = deploy(url="embedded://")
    idle_workers(master, 2)

    master.send_signal(signal.SIGHUP)

    assert "give it a directory" in refused(master)


def test_files_are_watched_in_development(deploy: Deploy, site: Site, tmp_path: Path) -> None:
    write(tmp_path, "old")
    master = deploy("-q", "math", "-c", "1", "--reload")
    idle_workers(master, 1)
    wait_until(lambda: master.children("watcher"), "a watcher")

    def edited() -> bool:
        write(tmp_path, "new")  # the watcher may not have begun to look at the first one
        return "reloading" in master.log()

    wait_until(edited, "a reload after a change", every=0.5)

    reloaded(master)
    site.enqueue("version")
    wait_until(lambda: "new" in site.runs(), "a run of the new code")
    assert_drains(master, site)


def test_a_reload_works_as_pid_1(deploy: Deploy, site: Site, tmp_path: Path) -> None:
    write(tmp_path, "old")
    master = deploy(inside=("/usr/bin/unshare", "--pid", "--fork", "--mount-proc", "--kill-child"))
    init = wait_until(lambda: master.children("master"), "PID 1")[0]
    wait_until(lambda: len(init.children()) == 3, "a clerk and two workers")
    site.gates("one")
    write(tmp_path, "new")

    init.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded pid=1 generation=2" in master.log(), "the next image")
    site.release("one")
    reloaded(master, pid=1)
    site.enqueue("version")

    site.await_processed(2)
    assert site.runs() == ["one", "new"]
    init.send_signal(signal.SIGTERM)
    assert master.wait() == 0
    assert_nothing_left(master, site.redis)


BLOCKED = """
import subprocess
with open("blocked", "a") as file:
    subprocess.run(["grep", "SigBlk", "/proc/self/status"], stdout=file, check=True)
"""


def test_what_an_import_starts_inherits_no_blocked_signal(
    deploy: Deploy, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "deployed.py").write_text(SHOW + BLOCKED)
    master = deploy()
    idle_workers(master, 2)

    master.send_signal(signal.SIGHUP)
    reloaded(master)

    masks = [int(line.split()[1], 16) for line in (tmp_path / "blocked").read_text().splitlines()]
    assert masks == [0, 0, 0]  # at the start, in the check, and in the next image
    assert_drains(master, site)
