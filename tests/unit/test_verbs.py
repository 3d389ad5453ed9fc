"""What can be asked of a master over its control socket, and what cannot."""

from typing import Any, cast

import pytest

from forkresque.errors import ConfigError
from forkresque.policy.pool import Pool
from forkresque.supervisor.helm import Helm
from forkresque.supervisor.verbs import Verbs

PATIENCE = 25.0
WORKER = 4242


class Master:
    """Notes the orders; knows two pools and one worker."""

    def __init__(self) -> None:
        self.pools = [Pool(("high", "mail"), 2, 2), Pool(("low",), 1, 8)]
        self.patience = PATIENCE
        self.orders: list[tuple[Any, ...]] = []

    def stop(self, within: float) -> None:
        self.orders.append(("stop", within))

    def pause(self, *, on: bool) -> None:
        self.orders.append(("pause", on))

    def scale(self, pool: Pool, most: int) -> None:
        self.orders.append(("scale", pool.name, most))

    def reload(self) -> None:
        self.orders.append(("reload",))

    def kill(self, pid: int) -> bool:
        self.orders.append(("kill", pid))
        return pid == WORKER

    def report(self) -> dict[str, Any]:
        return {"orders": list(self.orders)}


def verbs_of(master: Master) -> Verbs:
    return Verbs(cast(Helm, master), master.report)


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.mark.parametrize(
    ("verb", "arguments", "order"),
    [
        ("pause", {}, ("pause", True)),
        ("resume", {}, ("pause", False)),
        ("drain", {}, ("stop", PATIENCE)),
        ("drain", {"timeout": 0}, ("stop", 0.0)),
        ("drain", {"timeout": 2.5}, ("stop", 2.5)),
        ("drain", {"timeout": 10**9}, ("stop", 1e9)),
        ("scale", {"to": 5}, ("scale", "high,mail", 5)),
        ("scale", {"pool": None, "to": 1}, ("scale", "high,mail", 1)),
        ("scale", {"pool": "low", "to": 3}, ("scale", "low", 3)),
        ("scale", {"by": 1}, ("scale", "high,mail", 3)),
        ("scale", {"pool": "high,mail", "by": -1}, ("scale", "high,mail", 1)),
        ("scale", {"pool": "low", "by": -3}, ("scale", "low", 5)),
        ("scale", {"pool": "low", "by": 0}, ("scale", "low", 8)),
        ("reload", {}, ("reload",)),
        ("kill", {"pid": WORKER}, ("kill", WORKER)),
    ],
)
def test_a_verb_is_an_order_and_is_answered_with_the_state_after_it(
    master: Master, verb: str, arguments: dict[str, Any], order: tuple[Any, ...]
) -> None:
    assert verbs_of(master).answer(verb, arguments) == {"orders": [order]}


def test_the_status_orders_nothing(master: Master) -> None:
    assert verbs_of(master).answer("status", {"anything": "else"}) == {"orders": []}


@pytest.mark.parametrize(
    ("verb", "arguments", "complaint"),
    [
        ("", {}, "unknown verb ''; known are status, pause"),
        ("Status", {}, "unknown verb 'Status'"),
        ("stop\n", {}, r"unknown verb 'stop\\n'"),
        ("scale", {}, "to must be a whole number from 1 on, got None"),
        ("scale", {"to": 0}, "to must be a whole number from 1 on, got 0"),
        ("scale", {"to": True}, "to must be a whole number from 1 on, got True"),
        ("scale", {"to": 2.0}, "to must be a whole number from 1 on, got 2.0"),
        ("scale", {"to": "2"}, "to must be a whole number from 1 on, got '2'"),
        ("scale", {"to": 10**20}, "to must be a whole number from 1 on, got 1000000"),
        ("scale", {"by": None}, "by must be a whole number from -10000 on, got None"),
        ("scale", {"by": -10_001}, "by must be a whole number from -10000 on, got -10001"),
        ("scale", {"by": [1]}, r"by must be a whole number from -10000 on, got \[1\]"),
        ("scale", {"pool": "high", "to": 2}, "there is no pool 'high'; there is high,mail, low"),
        ("scale", {"pool": 0, "to": 2}, "there is no pool 0; there is high,mail, low"),
        ("drain", {"timeout": -1}, "timeout must be a number of seconds, got -1"),
        ("drain", {"timeout": None}, "timeout must be a number of seconds, got None"),
        ("drain", {"timeout": "5"}, "timeout must be a number of seconds, got '5'"),
        ("drain", {"timeout": True}, "timeout must be a number of seconds, got True"),
        ("drain", {"timeout": float("nan")}, "timeout must be a number of seconds, got nan"),
        ("drain", {"timeout": float("inf")}, "timeout must be a number of seconds, got inf"),
        ("kill", {}, "pid must be a whole number from 1 on, got None"),
        ("kill", {"pid": 0}, "pid must be a whole number from 1 on, got 0"),
        ("kill", {"pid": -WORKER}, "pid must be a whole number from 1 on, got -4242"),
        ("kill", {"pid": "4242"}, "pid must be a whole number from 1 on, got '4242'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_value_and_nothing_is_done(
    master: Master, verb: str, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        verbs_of(master).answer(verb, arguments)

    assert master.orders == []


def test_a_process_that_is_no_worker_here_is_not_killed(master: Master) -> None:
    with pytest.raises(ConfigError, match="there is no worker 4243 here"):
        verbs_of(master).answer("kill", {"pid": WORKER + 1})
