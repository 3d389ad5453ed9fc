"""Every order of two or three actors, with a death between any two of their commands.

Workers, clerks, schedulers and producers, against each other, against themselves sending again and
against the command orders of node-resque and Ruby. After each order those who live do what they
would do, and then each job must have one final place, each claim one end, and each counter must
say so. The long size plays every order there is, the small one takes some by chance.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from forkresque.promoter import Promoter
from forkresque.protocol.claims import Claimed, Nothing, Outcome
from forkresque.protocol.connection import Client, Link, Target
from forkresque.protocol.delayed import Delayed, Tick
from forkresque.protocol.store import Request
from tests.support import transcripts
from tests.support.actors import (
    ANN,
    ANNS_NAMESAKE,
    BEN,
    FAILURE,
    LEADER_LOCKS,
    LOCK,
    MARK_OF_DIGEST,
    SECOND,
    Post,
    at_work,
    beating,
    claiming,
    coroner,
    delay,
    enqueue,
    finishing,
    leading,
    looking_around,
    mark_of,
    mark_of_failure,
    node_cleaning,
    node_promoting,
    one_in_hand_of_a_lost_host,
    producing,
    producing_later,
    raw,
    recovering,
    retrying,
    ruby_promoting,
    ruby_pruning,
    settling,
    terms_end,
    two_jobs_and_a_dead_master,
    two_jobs_and_an_idle_worker,
    two_jobs_and_one_in_hand,
    two_jobs_and_one_in_hand_under_a_dead_master,
    working,
    working_under_lock,
)
from tests.support.interleaver import Actor, Interleaver, Play
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import KEYS
from tests.support.sizes import sized

SEED = 20_261_124


# -- what must be true in the end ------------------------------------------------------------


@dataclass
class Books:
    """Where each job is when all is over, and what was counted."""

    places: Counter[str]
    failures: list[bytes]
    ends: list[tuple[str, str, str]]  # event, token and mark
    processed: int
    failed: int

    @classmethod
    def read(cls, client: Client) -> "Books":
        queued, delayed, failures, slots, locks, workers, stream, counts = client.commands(
            ("LRANGE", KEYS.queue("math"), 0, -1),
            ("LRANGE", KEYS.delayed(SECOND), 0, -1),
            ("LRANGE", KEYS.failed(), 0, -1),
            ("KEYS", KEYS.slot("*")),
            ("EXISTS", LOCK),
            ("SMEMBERS", KEYS.workers()),
            ("XRANGE", KEYS.audit(), "-", "+"),
            ("MGET", KEYS.stat("processed"), KEYS.stat("failed")),
        )
        assert slots == [], f"in hand of nobody: {slots}"
        assert not locks, "the lock is nobody's and held"
        assert not workers, f"dead and registered: {workers}"
        entries = [dict(zip(told[::2], told[1::2], strict=True)) for _, told in stream]
        ends = [
            (
                entry[b"event"].decode(),
                entry[b"token"].decode(),
                MARK_OF_DIGEST[entry[b"job"].decode()],
            )
            for entry in entries
        ]
        places = Counter(map(mark_of, [*queued, *delayed]))
        places.update(map(mark_of_failure, failures))
        places.update(mark for event, _, mark in ends if event in ("DONE", "DROP"))
        processed, failed = (int(value or 0) for value in counts)
        return cls(places, failures, ends, processed, failed)

    def count(self, *events: str) -> int:
        return sum(event in events for event, _, _ in self.ends)

    def assert_consistent(self, *, foreign_failures: int = 0) -> None:
        """Fail unless each claim has ended once and the counters agree with that."""
        tokens = Counter(token for _, token, _ in self.ends)
        assert set(tokens.values()) <= {1}, self.ends
        assert len(set(self.failures)) == len(self.failures), self.failures
        assert self.processed == self.count("DONE")
        ours = self.count("FAIL", "RETRY", "FAILED", "POISON")
        assert self.failed == ours + foreign_failures

    def assert_once(self, *marks: str) -> None:
        """Fail unless each of these jobs, and no other, has one place."""
        assert self.places == Counter(marks), (self.places, self.ends)


Check = Callable[[Play, Books], Iterator[str]]


@dataclass(frozen=True)
class Scenario:
    """Actors, what is there before them, and what must be true after them.

    `check` yields what a play has shown; all of `shows` must have been shown by some play.
    """

    setup: Callable[[Link], object]
    actors: dict[str, Actor]
    check: Check
    shows: set[str]
    posts: tuple[Post, ...] = (ANN,)
    sweeps: bool = False


def answers(play: Play) -> Iterator[str]:
    """Yield what the actors that lived to their end have returned, with their names."""
    for name, player in play.players.items():
        if player.ended:
            result = player.result
            for one in result if isinstance(result, list) else [result]:
                yield f"{name}: {one if isinstance(one, str | int) else type(one).__name__}"


def all_once(*marks: str) -> Check:
    """Return a check that each job has one place, whoever died."""

    def check(play: Play, books: Books) -> Iterator[str]:
        books.assert_consistent()
        books.assert_once(*marks)
        yield from answers(play)

    return check


# -- workers and clerks ----------------------------------------------------------------------


def a_worker_and_two_who_hold_it_for_dead() -> Scenario:
    return Scenario(
        two_jobs_and_one_in_hand,
        {"worker": working(ANN, hand="a"), "clerk": recovering(ANN), "other": recovering(ANN)},
        all_once("a", "b"),
        {"worker: LOST", "worker: UNREG", "worker: DONE", "clerk: REQUEUED", "other: NONE"},
    )


def a_lost_host_that_returns_and_two_who_look_around() -> Scenario:
    def check(play: Play, books: Books) -> Iterator[str]:
        yield from all_once("a", "b")(play, books)
        yield from (event for event, _, _ in books.ends)
        said = [(name, answer) for name, answer in told_in_order(play) if name != "worker"]
        back = said.index(("host", [b"OK"])) if ("host", [b"OK"]) in said else len(said)
        assert [b"REQUEUED"] not in [answer for _, answer in said[back:]], "its lease stands"
        if [b"ALIVE"] in [answer for _, answer in said]:
            yield "ALIVE"

    return Scenario(
        one_in_hand_of_a_lost_host,
        {
            "clerk": looking_around,
            "other": looking_around,
            "host": beating(ANN),
            "worker": finishing(ANN, "a"),
        },
        check,
        {
            "REQUEUED",
            "clerk: True",
            "clerk: False",
            "worker: LOST",
            "worker: DONE",
            "worker: ORPHAN",
        },
    )


def a_settle_sent_twice_and_a_clerk(outcome: Outcome) -> Scenario:
    def check(play: Play, books: Books) -> Iterator[str]:
        books.assert_consistent()
        books.assert_once("a", "b")
        ends = [play.result(name) for name in ("sent", "sent again") if play.ended(name)]
        for settled in ends:
            yield "LOST" if settled.lost else f"next {type(settled.next).__name__}"
        told = [settled for settled in ends if not settled.lost]
        assert len(told) in (0, len(ends)), "one question has two answers"
        claimed = {settled.next for settled in told if isinstance(settled.next, Claimed)}
        assert len(claimed) <= 1, claimed

    settle = settling(ANN, "a", outcome)
    return Scenario(
        two_jobs_and_one_in_hand,
        {"sent": settle, "sent again": settle, "clerk": recovering(ANN)},
        check,
        {"LOST", "next Claimed", "next Nothing"},
    )


def a_claim_sent_twice_and_a_clerk() -> Scenario:
    def check(play: Play, books: Books) -> Iterator[str]:
        yield from all_once("a", "b")(play, books)
        ends = [play.result(name) for name in ("sent", "sent again") if play.ended(name)]
        assert Nothing.BUSY not in ends, "it does not know its own job"
        assert len({answer for answer in ends if isinstance(answer, Claimed)}) <= 1, ends

    return Scenario(
        two_jobs_and_an_idle_worker,
        {"sent": claiming(ANN), "sent again": claiming(ANN), "clerk": recovering(ANN)},
        check,
        {"sent: Claimed", "sent again: Claimed", "sent again: UNREG", "clerk: REQUEUED"},
    )


def a_container_started_again_and_a_claim_on_its_way() -> Scenario:
    return Scenario(
        two_jobs_and_a_dead_master,
        {
            "late claim": claiming(ANN),
            "namesake": working(ANNS_NAMESAKE, joins=True),
            "clerk": recovering(ANN),
        },
        namesake_stays,
        {"namesake: BUSY", "namesake: DONE", "clerk: REQUEUED", "clerk: NONE"},
        posts=(ANN, ANNS_NAMESAKE),
    )


def a_container_started_again_and_a_settle_on_its_way() -> Scenario:
    def check(play: Play, books: Books) -> Iterator[str]:
        yield from namesake_stays(play, books)
        if play.ended("late settle"):
            yield "settle was lost" if play.result("late settle").lost else "settle was in time"

    return Scenario(
        two_jobs_and_one_in_hand_under_a_dead_master,
        {
            "late settle": settling(ANN, "a", Outcome.DONE),
            "namesake": working(ANNS_NAMESAKE, joins=True),
            "clerk": recovering(ANN),
        },
        check,
        {"settle was lost", "settle was in time", "namesake: DONE", "clerk: REQUEUED"},
        posts=(ANN, ANNS_NAMESAKE),
    )


def namesake_stays(play: Play, books: Books) -> Iterator[str]:
    """Check that who has taken over a worker id is not removed for his predecessor's death."""
    yield from all_once("a", "b")(play, books)
    assert Nothing.UNREGISTERED not in (play.result("namesake") or ())


def two_who_want_one_lock_and_a_clerk() -> Scenario:
    def setup(link: Link) -> None:
        enqueue(link, "a", "b")
        at_work(link, ANN, BEN)

    def check(play: Play, books: Books) -> Iterator[str]:
        books.assert_consistent()
        books.assert_once("a", "b")
        assert_held_by_one(play)
        yield from answers(play)

    return Scenario(
        setup,
        {
            "ann": working_under_lock(ANN, "a"),
            "ben": working_under_lock(BEN, "b"),
            "clerk": recovering(ANN),
        },
        check,
        {"ann: barred", "ann: DONE", "ann: LOST", "ben: barred", "ben: DONE"},
        posts=(ANN, BEN),
    )


def assert_held_by_one(play: Play) -> None:
    """Fail if a worker got the lock between another's taking it and the end of that one's job."""
    holder, gone = "", ""
    for name, answer in told_in_order(play):
        if answer == 1 and name != "clerk":  # lock_take; all else answers with a list
            assert holder in ("", name), f"{name} got the lock that {holder} holds"
            assert name != gone, f"{name} got the lock for a job that is not in hand any more"
            holder = name
        elif name == "clerk" and answer == [b"REQUEUED"]:
            holder, gone = "" if holder == "ann" else holder, "ann"
        elif isinstance(answer, list) and answer[:1] == [b"OK"]:
            holder = "" if holder == name else holder


def told_in_order(play: Play) -> Iterator[tuple[str, Any]]:
    """Yield who was told what, step by step."""
    told = {name: iter(player.told) for name, player in play.players.items()}
    for name in play.schedule:
        yield name, next(told[name])[1]


# -- workers and foreign tools ---------------------------------------------------------------


def cleaned(tool: str, *marks: str) -> Check:
    """Return a check for jobs of a living worker that a foreign tool may have filed as failed.

    Such a job may finish as well, for the tool's record is not ours to take back.
    """

    def check(play: Play, books: Books) -> Iterator[str]:
        told = [words for words in commands(play, tool) if words[:2] == ("RPUSH", KEYS.failed())]
        filed = Counter(mark_of_failure(words[2]) for words in told)
        node_counts = sum(question.word == "MULTI" for question, _ in play.told(tool))
        books.assert_consistent(foreign_failures=node_counts)
        for mark in marks:
            assert books.places[mark] in {1, 1 + filed[mark]}, (mark, books)
        assert set(books.places) == set(marks)
        yield from answers(play)
        yield from (event for event, _, _ in books.ends)
        if filed:
            doubled = any(books.places[mark] > 1 for mark in filed)
            yield "filed, and ended as well" if doubled else "filed"
            alone = not any(play.told(name) for name in play.players if name != tool)
            assert not (alone and doubled and play.ended(tool)), books

    return check


def commands(play: Play, name: str) -> Iterator[tuple[Any, ...]]:
    """Yield each command that a transcript has sent, those within a MULTI too."""
    for question, _ in play.told(name):
        assert isinstance(question.said, tuple), question
        yield from question.said


def a_worker_and_nodes_force_clean() -> Scenario:
    return Scenario(
        two_jobs_and_an_idle_worker,
        {"worker": working(ANN), "node": node_cleaning},
        cleaned("node", "a", "b"),
        {"worker: UNREG", "worker: DONE", "filed", "filed, and ended as well", "FOREIGN"},
    )


def a_worker_and_nodes_force_clean_and_a_beat() -> Scenario:
    return Scenario(
        two_jobs_and_one_in_hand,
        {"worker": working(ANN, hand="a"), "node": node_cleaning, "own clerk": beating(ANN)},
        cleaned("node", "a", "b"),
        {f"own clerk: {ANN.wid}", "worker: UNREG", "filed", "filed, and ended as well", "FOREIGN"},
    )


def a_dead_worker_and_nodes_force_clean_and_two_clerks() -> Scenario:
    return Scenario(
        two_jobs_and_one_in_hand,
        {"node": node_cleaning, "clerk": recovering(ANN), "other": recovering(ANN)},
        cleaned("node", "a", "b"),
        {
            "clerk: FOREIGN",
            "other: FOREIGN",
            "clerk: REQUEUED",
            "filed",
            "filed, and ended as well",
        },
    )


def a_worker_and_rubys_prune() -> Scenario:
    return Scenario(
        two_jobs_and_an_idle_worker,
        {"worker": working(ANN), "ruby": ruby_pruning},
        cleaned("ruby", "a", "b"),
        {f"ruby: {ANN.wid}", "worker: UNREG", "filed", "filed, and ended as well", "FOREIGN"},
    )


def a_dead_worker_and_rubys_prune_and_a_clerk() -> Scenario:
    return Scenario(
        two_jobs_and_one_in_hand,
        {"ruby": ruby_pruning, "clerk": recovering(ANN)},
        cleaned("ruby", "a", "b"),
        {"clerk: FOREIGN", "clerk: REQUEUED", "filed", "filed, and ended as well"},
    )


# -- schedulers ------------------------------------------------------------------------------


def moved_once(*marks: str) -> Check:
    """Return a check that each delayed job has one place, but for what foreign deaths cost.

    node loses a job when it dies between taking it and pushing it; Ruby with redis-rb 5 doubles
    those that it has pushed when it dies before its EXEC. Both are theirs to answer for.
    """

    def check(play: Play, books: Books) -> Iterator[str]:
        expected = Counter(marks)
        if "node" in play.players and not play.ended("node"):
            expected -= in_nodes_hand(play)
        if "ruby" in play.players and not play.ended("ruby"):
            expected += pushed_but_not_trimmed(play)
        books.assert_consistent()
        assert books.places == expected, (books.places, expected)
        yield from answers(play)
        if expected != Counter(marks):
            yield "a foreign death cost a job" if expected.total() < len(marks) else "doubled"

    return check


def in_nodes_hand(play: Play) -> Counter[str]:
    """Return the job that node has popped and not pushed yet."""
    hand = Counter[str]()
    for question, answer in play.told("node"):
        if question.word == "LPOP" and answer is not None:
            hand = Counter([mark_of(answer)])
        elif question.word == "MULTI":
            hand.clear()
    return hand


def pushed_but_not_trimmed(play: Play) -> Counter[str]:
    """Return the jobs that Ruby has pushed outside the MULTI that would take them away."""
    pushed = Counter[str]()
    for question, _ in play.told("ruby"):
        if question.word == "RPUSH":
            assert isinstance(question.said, tuple)
            pushed[mark_of(question.said[0][2])] += 1  # type: ignore[arg-type]
        elif question.word == "MULTI":
            pushed.clear()
    return pushed


def two_of_ours_and_node_promote() -> Scenario:
    return Scenario(
        lambda link: delay(link, "a", "b"),
        {
            "first": leading("first", resigns=True),
            "second": leading("second", resigns=True),
            "node": node_promoting,
        },
        moved_once("a", "b"),
        {"first: moved 2", "second: moved 2", "node: 2", "first: BLOCKED", "second: FOLLOW",
         "a foreign death cost a job"},
        sweeps=True,
    )  # fmt: skip


def ours_and_node_promote_when_terms_end() -> Scenario:
    return Scenario(
        lambda link: delay(link, "a", "b"),
        {"ours": leading("ours"), "node": node_promoting, "time": terms_end},
        moved_once("a", "b"),
        {"ours: FENCED", "ours: moved 1", "node: 1", "node: 2"},
        sweeps=True,
    )


def a_leader_and_a_late_leader() -> Scenario:
    def check(play: Play, books: Books) -> Iterator[str]:
        assert_fenced(play)
        said = [answer for _, answer in told_in_order(play)]
        ticked = said.count([b"OK"])
        assert ticked <= 1, said
        assert not ticked or [b"SEEN"] not in said[: said.index([b"OK"])], said
        yield from moved_once(*"ab", *"c" * ticked)(play, books)

    return Scenario(
        lambda link: delay(link, "a", "b"),
        {
            "first": leading("first", ticks=True),
            "late": leading("late", ticks=True),
            "time": terms_end,
        },
        check,
        {"first: FENCED", "first: tick FENCED", "late: FENCED", "late: tick SEEN", "late: tick OK"},
        sweeps=True,
    )


def assert_fenced(play: Play) -> None:
    """Fail if a tick or a promotion was carried out for one who did not lead just then."""
    holder = ""
    for name, answer in told_in_order(play):
        if name == "time":
            holder = ""
        elif answer[:1] == [b"LEAD"]:
            holder = name
        elif answer[:1] == [b"OK"]:
            assert holder == name, f"{name} moved jobs while {holder or 'nobody'} led"


def two_ticks_of_one_leader_and_a_late_one() -> Scenario:
    """A leader whose answer got lost ticks again, maybe when another leads already."""

    def ticking(link: Any) -> Tick:
        return Delayed(link, KEYS).tick("hourly", SECOND, "math", raw("c"), token="first")

    def setup(link: Link) -> None:
        link.command("SET", KEYS.leader(), "first", "PX", 15_000)

    def check(play: Play, books: Books) -> Iterator[str]:
        said = [answer for name in play.players for _, answer in play.told(name)]
        books.assert_once(*"c" * min(1, said.count([b"OK"])))
        assert said.count([b"OK"]) <= 1
        yield from answers(play)

    return Scenario(
        setup,
        {"sent": ticking, "again": ticking, "late": leading("late", ticks=True), "time": terms_end},
        check,
        {
            "sent: OK",
            "again: OK",
            "sent: SEEN",
            "again: FENCED",
            "late: tick OK",
            "late: tick SEEN",
        },
    )


def ours_and_ruby_promote(redis_rb: int) -> Scenario:
    """Ours may be stopped for so long that its locks run out, at any moment."""
    shows = {"ours: FENCED", "ours: moved 2", "ours: BLOCKED", "ruby: 2", "ruby: 0"}
    return Scenario(
        lambda link: delay(link, "a", "b"),
        {
            "ours": leading("ours", resigns=True),
            "ruby": ruby_promoting(redis_rb),
            "time": lambda link: Delayed(link, KEYS).resign("ours"),
        },
        moved_once("a", "b"),
        shows if redis_rb < 5 else {*shows, "doubled"},
        sweeps=True,
    )


# -- producers and operators -----------------------------------------------------------------


def four_who_retry_one_failure() -> Scenario:
    request = Request("p", 1)

    def check(play: Play, books: Books) -> Iterator[str]:
        steps = [question.word for question, _ in play.told("node")]
        died_between = steps == ["LREM"] and not play.ended("node")
        books.assert_once(*([] if died_between else "a"))
        ours = [play.result(name) for name in ("sent", "again", "other") if play.ended(name)]
        yield from answers(play)
        if play.ended("sent") and play.ended("again"):
            assert play.result("sent") == play.result("again"), "one question has two answers"
        yield "in node's hand" if died_between else "moved" if True in ours else "not moved"

    return Scenario(
        lambda link: link.command("RPUSH", KEYS.failed(), FAILURE),
        {
            "sent": retrying(request),
            "again": retrying(request),
            "other": retrying(Request("q", 1)),
            "node": lambda link: transcripts.node_retry_and_remove(link, FAILURE),
        },
        check,
        {"sent: True", "sent: False", "other: True", "node: True", "node: False", "in node's hand"},
    )


def an_enqueue_sent_twice_and_a_worker_and_ruby() -> Scenario:
    def check(play: Play, books: Books) -> Iterator[str]:
        told = play.ended("sent") or play.ended("again")
        pushed = any(words[0] == "RPUSH" for words in commands(play, "ruby"))
        books.assert_consistent()
        books.assert_once(*"a" * told, *"b" * pushed)
        yield from answers(play)

    return Scenario(
        lambda link: at_work(link, ANN),
        {
            "sent": producing,
            "again": producing,
            "worker": working(ANN),
            "ruby": lambda link: transcripts.ruby_enqueue(link, "math", "add", "b"),
        },
        check,
        {"sent: told", "again: told", "worker: DONE"},
    )


def a_delay_sent_twice_and_a_promotion() -> Scenario:
    return _delay_and_promotion(
        {
            "sent": producing_later,
            "again": producing_later,
            "ours": leading("ours", resigns=True),
        },
        {"sent: told", "ours: moved 1", "ours: moved 2"},
    )


def a_delay_and_a_promotion_by_node() -> Scenario:
    return _delay_and_promotion(
        {"sent": producing_later, "node": node_promoting},
        {"sent: told", "node: 1", "node: 2", "a foreign death cost a job"},
    )


def _delay_and_promotion(actors: dict[str, Actor], shows: set[str]) -> Scenario:
    def check(play: Play, books: Books) -> Iterator[str]:
        told = any(play.ended(name) for name in ("sent", "again") if name in actors)
        yield from moved_once("b", *"a" * told)(play, books)

    return Scenario(lambda link: delay(link, "b"), actors, check, shows, sweeps=True)


def rubys_delay_and_a_promotion() -> Scenario:
    """Ruby writes bucket and schedule by two commands; what it leaves between them is adopted."""

    def check(play: Play, books: Books) -> Iterator[str]:
        yield from all_once("b", *"a" * bool(play.told("ruby")))(play, books)
        yield "a stray" if len(play.told("ruby")) in (1, 2) else "no stray"

    return Scenario(
        lambda link: delay(link, "b"),
        {
            "ruby": lambda link: transcripts.ruby_delay(link, SECOND, "math", "add", "a"),
            "ours": leading("ours", resigns=True),
        },
        check,
        {"ours: moved 1", "ours: moved 2", "a stray"},
        sweeps=True,
    )


# -- all orders ------------------------------------------------------------------------------

SCENARIOS: dict[str, Callable[[], Scenario]] = {
    scenario.__name__: scenario
    for scenario in (
        a_worker_and_two_who_hold_it_for_dead,
        a_lost_host_that_returns_and_two_who_look_around,
        a_claim_sent_twice_and_a_clerk,
        a_container_started_again_and_a_claim_on_its_way,
        a_container_started_again_and_a_settle_on_its_way,
        two_who_want_one_lock_and_a_clerk,
        a_worker_and_nodes_force_clean,
        a_worker_and_nodes_force_clean_and_a_beat,
        a_dead_worker_and_nodes_force_clean_and_two_clerks,
        a_worker_and_rubys_prune,
        a_dead_worker_and_rubys_prune_and_a_clerk,
        two_of_ours_and_node_promote,
        ours_and_node_promote_when_terms_end,
        a_leader_and_a_late_leader,
        two_ticks_of_one_leader_and_a_late_one,
        four_who_retry_one_failure,
        an_enqueue_sent_twice_and_a_worker_and_ruby,
        a_delay_sent_twice_and_a_promotion,
        a_delay_and_a_promotion_by_node,
        rubys_delay_and_a_promotion,
    )
} | {
    f"a_settle_sent_twice_and_a_clerk_{outcome}": partial(a_settle_sent_twice_and_a_clerk, outcome)
    for outcome in Outcome
} | {
    f"ours_and_ruby_promote_with_redis_rb_{major}": partial(ours_and_ruby_promote, major)
    for major in (4, 5)
}  # fmt: skip


def aftermath(scenario: Scenario, link: Link) -> None:
    """Do what those who live would do: bring back what the dead held, promote what is due."""
    clerk = coroner(link)
    for one in scenario.posts:
        clerk.settle(one.died)
    if not scenario.sweeps:
        return
    link.command("DEL", *LEADER_LOCKS)
    promoter = Promoter(Delayed(link, KEYS), name="survivor:1")
    while promoter.step().promoted or promoter.step().promoted:
        pass  # the second look comes after the search for strays


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Keep thousands of recoveries out of the log."""
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("number", sized(80, None))
@pytest.mark.parametrize("name", SCENARIOS)
def test_each_job_has_one_final_place_in_every_order(
    name: str, number: int | None, one_server: Server, report: Report
) -> None:
    scenario, shown, ends = SCENARIOS[name](), set[str](), Counter[tuple[str, bool]]()
    target, leaves = Target(one_server.url), 0
    with (
        closing(Interleaver(target, scenario.setup, scenario.actors)) as interleaver,
        closing(target.link()) as link,
    ):
        for play in interleaver.some_plays(number, SEED) if number else interleaver.all_plays():
            aftermath(scenario, link)
            try:
                shown |= set(scenario.check(play, Books.read(interleaver.client)))
            except AssertionError as error:
                raise AssertionError(f"{' '.join(play.schedule)}: {error}") from error
            leaves += 1
            ends.update((actor, play.ended(actor)) for actor in scenario.actors)

    print(f"{name}: {leaves} orders")
    assert all(ends[actor, lived] for actor in scenario.actors for lived in (True, False)), ends
    report.count("interleavings", leaves)
    report.count("lost", 0)
    report.count("doubled", 0)
    if number:
        report.seed("test_interleavings", SEED)
    else:
        assert scenario.shows <= shown, f"never seen: {scenario.shows - shown}; seen: {shown}"
