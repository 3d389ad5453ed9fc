"""Names of workers: every Resque can read them, and no two of a process agree."""

import os

import pytest

from forkresque.errors import ConfigError
from forkresque.naming import Names

PID = os.getpid()


class Holder:
    pass


def test_the_workers_of_a_process_are_numbered_in_front() -> None:
    names, holders = Names(), [Holder(), Holder(), Holder()]

    hosts = [names.take("", holder, host="h") for holder in holders]

    assert hosts == ["h", "h_2", "h_3"]


def test_a_name_is_free_when_its_worker_has_ended_or_is_gone() -> None:
    names, first, second = Names(), Holder(), Holder()
    names.take("", first, host="h")
    assert names.take(f"a:{PID}", second, host="h") == "a"

    names.free(f"h:{PID}")
    del second

    assert names.take("", Holder(), host="h") == "h"
    assert names.take(f"a:{PID}", Holder(), host="h") == "a"


def test_a_name_that_is_taken_is_refused() -> None:
    names, holder = Names(), Holder()
    names.take(f"a:{PID}", holder, host="h")

    with pytest.raises(ConfigError, match=f"another worker .* is called 'a:{PID}'") as refusal:
        names.take(f"a:{PID}", Holder(), host="h")

    assert refusal.value.hint == f"call this one 'a_2:{PID}', or end the other one"


@pytest.mark.parametrize("name", ["mail", ":PID", "::1:PID", "a b:PID", "a\n:PID", "a:PID:q", "a:"])
def test_a_name_that_ruby_could_not_read_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"name must .*, got '"):
        Names().take(name.replace("PID", str(PID)), Holder(), host="h")


@pytest.mark.parametrize("pid", ["PID+1", "1PID", "1+2", "x"])
def test_a_pid_that_ruby_would_take_for_dead_is_refused(pid: str) -> None:
    with pytest.raises(ConfigError, match=f"must end with the pid of its process, {PID}") as error:
        Names().take(f"a:{pid}".replace("PID", str(PID)), Holder(), host="h")

    assert f"'a:{PID}'" in error.value.hint
