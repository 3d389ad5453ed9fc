"""What master and children say to each other."""

import socket
from collections.abc import Iterator

import pytest

from forkresque.policy.child import Fault
from forkresque.supervisor.messages import (
    BatonWanted,
    Changed,
    Died,
    Interrupted,
    Leave,
    Message,
    Ready,
    Settled,
    Wake,
    receive,
    send,
)

Pair = tuple[socket.socket, socket.socket]

DIED = Died(
    worker="host:77:high,ma*",
    owner="host:70:abc 77 123",
    pid=77,
    signum=11,
    status=0,
    working=True,
    claim=12,
    cut=False,
    fault=Fault.STUCK,
    job="mail.send",
    dump=('File "a.py", line 1 in <module>', "\udcff é", ""),
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@pytest.mark.parametrize(
    "message",
    [
        Ready(),
        Wake(),
        Leave(),
        Interrupted(epoch=2**40, overdue=True),
        Interrupted(epoch=1, overdue=False),
        DIED,
        Settled("host:77:é", "owner"),
        BatonWanted(pool=0),
        BatonWanted(pool=31),
        Changed("/srv/app/jobs \udcff é.py"),
    ],
    ids=repr,
)
def test_a_message_arrives_as_it_was_sent(pair: Pair, message: Message) -> None:
    ours, theirs = pair

    assert send(ours, message)
    assert receive(theirs) == [message]
    assert send(theirs, message)
    assert receive(ours) == [message]


def test_messages_arrive_in_their_order(pair: Pair) -> None:
    ours, theirs = pair
    said: list[Message] = [Ready(), Interrupted(1, overdue=True), DIED, Wake(), Wake()]

    for message in said:
        send(ours, message)

    assert receive(theirs) == said
    assert receive(theirs) == []


def test_nothing_there_is_no_message_and_no_wait(pair: Pair) -> None:
    assert receive(pair[0]) == []


def test_a_closed_end_says_nothing(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()

    assert receive(ours) == []


def test_what_was_said_before_the_end_is_heard(pair: Pair) -> None:
    ours, theirs = pair
    send(theirs, Ready())
    theirs.close()

    assert receive(ours) == [Ready()]
    assert receive(ours) == []


def test_who_speaks_to_a_closed_end_is_told(pair: Pair) -> None:
    ours, theirs = pair
    theirs.close()

    assert not send(ours, Wake())


def test_who_speaks_to_one_who_does_not_listen_is_told_and_does_not_wait(pair: Pair) -> None:
    ours, theirs = pair
    sent = 0
    while send(ours, Interrupted(sent + 1, overdue=False)):
        sent += 1
        assert sent < 100_000

    heard = receive(theirs)

    assert heard == [Interrupted(number + 1, overdue=False) for number in range(sent)]
    assert send(ours, Wake())


def test_the_largest_stack_dump_arrives(pair: Pair) -> None:
    """A dump may have 64 KiB, and 200 lines; JSON makes it longer."""
    ours, theirs = pair
    line = '  File "' + "x" * 308 + '", line 1'
    dump = tuple([line] * 200)
    assert len("\n".join(dump)) <= 64 * 1024
    died = Died(
        "w", "o", 1, 9, 0, working=True, claim=3, cut=False, fault=Fault.STUCK, job="j", dump=dump
    )

    assert send(ours, died)
    [heard] = receive(theirs)

    assert isinstance(heard, Died)
    assert heard.dump[-1] == line


def test_a_death_says_for_which_fault_the_master_killed() -> None:
    assert DIED.blamed is Fault.STUCK
    assert (
        Died("w", "o", 1, 0, 0, working=False, claim=0, cut=False, fault="", job="").blamed
        is Fault.NONE
    )
