"""What the service manager hears, by the clock, and over real sockets of both kinds."""

import math
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from forkresque.policy.notices import EXTENSION, SPARE, Facts, Notices
from forkresque.supervisor.notify import Notifier, forget_manager

PID = 4242
STARTING = Facts(ready=False)
READY = Facts(ready=True)
RELOADING = READY._replace(reloading=True)
DRAINING = Facts(ready=False, stopping=True, ends_in=28.0)


class Manager:
    """Hears what a Notices has to say, pass by pass."""

    def __init__(self, *, watchdog: float = math.inf, reloaded: bool = False) -> None:
        self.notices = Notices(PID, watchdog=watchdog, reloaded=reloaded)

    def hears(self, now: float, facts: Facts) -> list[str]:
        lines = self.notices.due(now, facts)
        self.notices.said(now, facts)
        return lines

    def wakes(self, now: float, facts: Facts, until: float) -> list[float]:
        """Return the moments at which something was said, if asked only when it is due."""
        heard = []
        while now < until:
            if self.hears(now, facts):
                heard.append(now)
            now = self.notices.next_at(now, facts)
        return heard


# -- readiness ---------------------------------------------------------------------------------


def test_ready_is_said_once_when_the_workers_are_ready() -> None:
    manager = Manager()

    assert manager.hears(0.0, STARTING) == []
    assert manager.hears(1.0, READY) == ["READY=1", "MAINPID=4242"]
    assert manager.hears(2.0, READY) == []
    assert manager.hears(3.0, STARTING) == [], "a worker that dies makes nothing unready"
    assert manager.hears(4.0, READY) == []


def test_pid_1_of_a_namespace_is_not_told_to_those_outside() -> None:
    notices = Notices(1)

    assert notices.due(0.0, READY) == ["READY=1"]


def test_what_did_not_arrive_is_due_again() -> None:
    notices = Notices(PID)

    assert notices.due(0.0, READY) == notices.due(1.0, READY) == ["READY=1", "MAINPID=4242"]


# -- reloading ---------------------------------------------------------------------------------


def test_a_reload_that_is_refused_ends_with_ready() -> None:
    manager = Manager()
    manager.hears(0.0, READY)

    assert manager.hears(12.5, RELOADING) == ["RELOADING=1", "MONOTONIC_USEC=12500000"]
    assert manager.hears(13.0, RELOADING) == []
    assert manager.hears(14.0, READY) == ["READY=1", "MAINPID=4242"]
    assert manager.hears(15.0, RELOADING) == ["RELOADING=1", "MONOTONIC_USEC=15000000"]


def test_the_next_image_ends_the_reload_that_brought_it_whatever_the_workers_do() -> None:
    manager = Manager(reloaded=True)

    assert manager.hears(0.0, RELOADING) == []
    assert manager.hears(1.0, STARTING) == ["READY=1", "MAINPID=4242"]
    assert manager.hears(2.0, READY) == []


def test_a_reload_before_the_first_readiness_is_part_of_the_start() -> None:
    manager = Manager()

    assert manager.hears(0.0, STARTING._replace(reloading=True)) == []
    assert manager.hears(1.0, STARTING) == []
    assert manager.hears(2.0, READY) == ["READY=1", "MAINPID=4242"]


# -- stopping ----------------------------------------------------------------------------------


def test_a_drain_says_stopping_once_and_nothing_of_readiness_after_it() -> None:
    manager = Manager()
    manager.hears(0.0, READY)

    first = manager.hears(1.0, DRAINING)
    assert first[0] == "STOPPING=1"
    assert manager.hears(2.0, DRAINING) == []
    assert manager.hears(3.0, RELOADING._replace(stopping=True)) == []
    assert manager.hears(4.0, READY) == []


def test_a_drain_asks_for_time_as_long_as_it_may_last_and_no_longer() -> None:
    manager = Manager()
    asked: dict[float, float] = {}
    for second in range(60):
        left = max(0.0, 28.0 - second)
        for line in manager.hears(float(second), DRAINING._replace(ends_in=left)):
            name, _, value = line.partition("=")
            if name == "EXTEND_TIMEOUT_USEC":
                asked[second] = int(value) / 1e6

    assert asked[0] == EXTENSION
    assert max(at + seconds for at, seconds in asked.items()) == 28.0 + SPARE
    gaps = [b - a for a, b in zip(list(asked), list(asked)[1:], strict=False)]
    assert all(gap < EXTENSION / 2 for gap in gaps), "each comes well before the last one ends"


def test_a_drain_of_unknown_length_asks_for_no_time() -> None:
    assert Manager().hears(0.0, Facts(ready=True, stopping=True)) == ["STOPPING=1"]


def test_a_drain_without_limit_is_kept_from_the_manager_so_that_a_term_can_still_bound_it() -> None:
    manager = Manager()
    manager.hears(0.0, READY)

    endless = Facts(ready=True, stopping=True, ends_in=math.inf, status="draining, 1 busy")
    assert manager.hears(10.0, endless) == ["STATUS=draining, 1 busy"]
    assert manager.hears(20.0, endless._replace(ends_in=28.0)) == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=15000000",
    ]


# -- status ------------------------------------------------------------------------------------


def test_a_status_is_said_when_it_changes_at_most_once_a_second_and_the_last_one_always() -> None:
    manager = Manager()
    heard = []
    for step in range(40):
        facts = STARTING._replace(status=f"{min(step, 25)} busy")
        heard += [(step / 10, line) for line in manager.hears(step / 10, facts)]

    assert heard == [
        (0.0, "STATUS=0 busy"),
        (1.0, "STATUS=10 busy"),
        (2.0, "STATUS=20 busy"),
        (3.0, "STATUS=25 busy"),
    ]


def test_a_status_is_one_line_of_bounded_length() -> None:
    line = Notices(PID).due(0.0, STARTING._replace(status="a\nREADY=1\r\n" + "x" * 9999))[0]

    assert line.startswith("STATUS=a READY=1 xxx")
    assert len(line) < 500
    assert "\n" not in line


# -- watchdog ----------------------------------------------------------------------------------


def test_the_watchdog_hears_of_us_at_half_its_patience_and_wakes_us_for_nothing_else() -> None:
    moments = Manager(watchdog=30.0).wakes(100.0, READY, until=190.0)

    assert moments == [100.0, 115.0, 130.0, 145.0, 160.0, 175.0]


def test_without_a_watchdog_nothing_wakes_the_loop() -> None:
    manager = Manager()

    manager.hears(0.0, READY)

    assert manager.notices.next_at(0.0, READY) == math.inf


def test_an_inconsistent_loop_does_not_feed_the_watchdog_and_does_not_spin() -> None:
    manager = Manager(watchdog=2.0)
    sick = READY._replace(consistent=False)
    manager.hears(0.0, READY)

    assert manager.wakes(5.0, sick, until=10.0) == []
    assert manager.notices.next_at(9.0, sick) >= 10.0
    assert manager.hears(10.0, READY) == ["WATCHDOG=1"]


# -- the post ----------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def receiver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """Return a service manager's end, of both kinds."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path if request.param == "path" else f"\0{path}")
        receiver.setblocking(False)
        yield receiver


def environ_of(receiver: socket.socket, **more: str) -> dict[str, str]:
    name = receiver.getsockname()
    address = "@" + name[1:].decode() if isinstance(name, bytes) else name
    return {"NOTIFY_SOCKET": address, **more}


def messages(receiver: socket.socket) -> list[str]:
    found = []
    while True:
        try:
            found.append(receiver.recv(4096).decode())
        except BlockingIOError:
            return found


def test_the_life_of_a_service_arrives_message_by_message(receiver: socket.socket) -> None:
    notifier = Notifier.from_environ(environ_of(receiver, WATCHDOG_USEC="10000000"), PID)

    notifier.tell(0.0, STARTING._replace(status="booting"))
    assert notifier.next_at == 5.0
    notifier.tell(1.0, READY._replace(status="idle"))
    notifier.tell(2.0, RELOADING._replace(status="idle"))
    notifier.ask_for_time(60.0)

    assert messages(receiver) == [
        "STATUS=booting\nWATCHDOG=1",
        "READY=1\nMAINPID=4242\nSTATUS=idle",
        "RELOADING=1\nMONOTONIC_USEC=2000000",
        "EXTEND_TIMEOUT_USEC=60000000",
    ]

    # The master has replaced itself: same pid, same environment, new objects.
    notifier = Notifier.from_environ(
        environ_of(receiver, WATCHDOG_USEC="10000000"), PID, reloaded=True
    )
    notifier.tell(3.0, READY)
    notifier.tell(4.0, Facts(ready=False, stopping=True, ends_in=3.0))

    assert messages(receiver) == [
        "READY=1\nMAINPID=4242\nWATCHDOG=1",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=8000000",
    ]


def descriptors() -> list[str]:
    """Return what this process has open; the look itself takes the lowest free number."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def test_without_a_socket_nothing_happens() -> None:
    notifier = Notifier.from_environ({"WATCHDOG_USEC": "1000000"}, PID)

    notifier.tell(0.0, READY)
    notifier.ask_for_time(1.0)

    assert notifier.next_at == math.inf


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative", "@", "/", "/" + "x" * 200])
def test_an_address_that_cannot_be_told_anything_is_named_in_a_warning(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address}, PID)

    notifier.tell(0.0, READY)

    assert repr(address) in caplog.text
    assert notifier.next_at == math.inf


def test_a_manager_that_is_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": str(path)}, PID)

    notifier.tell(0.0, READY)
    assert notifier.next_at == 1.0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.setblocking(False)
        notifier.tell(0.5, READY)
        assert messages(receiver) == [], "not more often than once a second"
        notifier.tell(1.0, READY)
        assert messages(receiver) == ["READY=1\nMAINPID=4242"]


def test_a_manager_that_does_not_read_holds_nobody_up(receiver: socket.socket) -> None:
    notifier = Notifier.from_environ(environ_of(receiver), PID)

    told = 0
    while notifier.next_at == math.inf:  # once its queue is full, a message is due again
        notifier.tell(float(told), READY._replace(status=f"{told}"))
        told += 1

    heard = messages(receiver)
    assert len(heard) == told - 1
    notifier.tell(float(told), READY._replace(status="last"))
    assert messages(receiver) == ["STATUS=last"]


@pytest.mark.parametrize(
    ("environ", "patience"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, math.inf),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, math.inf),
        ({"WATCHDOG_USEC": "0"}, math.inf),
        ({"WATCHDOG_USEC": "-5"}, math.inf),
        ({"WATCHDOG_USEC": "soon"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_watchdog_of_another_process_or_without_sense_is_not_fed(
    receiver: socket.socket, environ: dict[str, str], patience: float
) -> None:
    notifier = Notifier.from_environ(environ_of(receiver, **environ), PID)

    notifier.tell(0.0, STARTING)

    assert notifier.next_at == patience / 2
    assert messages(receiver) == ([] if patience == math.inf else ["WATCHDOG=1"])


def test_no_descriptor_is_kept_for_a_fork_or_an_exec_to_inherit(receiver: socket.socket) -> None:
    notifier = Notifier.from_environ(environ_of(receiver), PID)
    before = descriptors()

    notifier.tell(0.0, READY)

    assert descriptors() == before
    assert messages(receiver) != []


def test_what_a_child_starts_cannot_speak_for_the_master() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}

    forget_manager(environ)

    assert environ == {"HOME": "/"}
