"""In which order queues are looked at, by simulation: who starves, and who is served how often."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice, permutations
from math import sqrt
from random import Random
from typing import Any

import pytest

from forkresque.errors import ConfigError
from forkresque.order import Kind, Order
from forkresque.policy.orders import Turns, drawn, ordered, rotated, weigh
from forkresque.policy.queues import expand

SEEDS = range(30)
ROUND_ROBIN = Order.parse("round_robin")


def serve(turns: Turns, queues: tuple[str, ...], waiting: Mapping[str, int]) -> Iterator[str]:
    """Yield the queues of the jobs that one worker claims, until it is stopped."""
    left = dict(waiting)
    turns.poll(queues)
    while any(left.values()):
        places = turns.places() or range(len(queues))
        queue = next(queues[place] for place in places if left.get(queues[place]))
        left[queue] -= 1
        turns.served(queue)
        yield queue


def served(
    order: Order, queues: tuple[str, ...], waiting: Mapping[str, int], *, jobs: int, seed: int
) -> Counter[str]:
    turns = Turns(order, Random(seed).random)
    return Counter(islice(serve(turns, queues, waiting), jobs))


# -- what is always so -------------------------------------------------------------------------

ORDERS = [Order(), ROUND_ROBIN, Order.of({"a": 6, "b*": 2})]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_claim_looks_at_every_queue_once(order: Order, seed: int) -> None:
    chance = Random(seed)
    turns = Turns(order, chance.random)
    names = [f"{letter}{number}" for letter in "abc" for number in range(4)]
    for _ in range(100):
        queues = expand(["*", "!c1"], chance.sample(names, chance.randint(0, len(names))))
        turns.poll(queues)
        for _ in range(3):
            places = turns.places() or tuple(range(len(queues)))
            assert sorted(places) == list(range(len(queues)))
            if queues:
                turns.served(chance.choice(queues))


@pytest.mark.parametrize("order", [ROUND_ROBIN, Order.of({"a": 1})], ids=str)
def test_one_queue_and_none_need_no_order(order: Order) -> None:
    turns = Turns(order, Random(0).random)
    for queues in [(), ("a",)]:
        turns.poll(queues)
        assert turns.places() == ()


# -- strict ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_strict_order_starves_the_lower_queues(seed: int) -> None:
    waiting = {"high": 500, "low": 500}

    assert served(Order(), ("high", "low"), waiting, jobs=500, seed=seed) == {"high": 500}


# -- round robin -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_each_queue_has_its_turn(seed: int) -> None:
    queues = ("a", "b", "c", "d")
    waiting = {"a": 1000, "b": 1000, "c": 7, "d": 1000}

    counts = served(ROUND_ROBIN, queues, waiting, jobs=307, seed=seed)

    assert counts == {"a": 100, "b": 100, "c": 7, "d": 100}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_queue_waits_for_more_than_one_job_of_each_other_one(seed: int) -> None:
    chance = Random(seed)
    queues = tuple("abcdef")
    turns = Turns(ROUND_ROBIN, chance.random)
    waiting = {queue: chance.randint(1, 50) for queue in queues}
    since = dict.fromkeys(queues, 0)
    left = dict(waiting)
    for queue in serve(turns, queues, waiting):
        left[queue] -= 1
        since = {name: 0 if name == queue else past + 1 for name, past in since.items()}
        assert all(past < len(queues) for name, past in since.items() if left[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_workers_that_do_one_job_each_are_fair_together(seed: int) -> None:
    chance = Random(seed)
    counts = Counter[str]()
    for _ in range(3000):
        turns = Turns(ROUND_ROBIN, chance.random)
        counts[next(serve(turns, ("a", "b", "c"), dict.fromkeys("abc", 1)))] += 1

    assert all(is_share(count, 3000, 1 / 3) for count in counts.values())
    assert set(counts) == {"a", "b", "c"}


def test_a_queue_that_is_gone_loses_nobody_the_turn() -> None:
    turns = Turns(ROUND_ROBIN, Random(0).random)
    turns.served("c")
    turns.poll(("a", "b", "d", "e"))

    assert turns.places() == (2, 3, 0, 1)

    turns.served("e")
    turns.poll(("a", "b"))
    assert turns.places() == (0, 1)


def test_a_rotation_begins_at_its_start() -> None:
    assert [rotated(3, start) for start in range(3)] == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]


# -- weights -----------------------------------------------------------------------------------


def is_share(count: int, number: int, share: float) -> bool:
    """Return whether so many of `number` are that share, within five standard deviations."""
    return abs(count - number * share) < 5 * sqrt(number * share * (1 - share)) + 1


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_are_served_in_proportion(seed: int) -> None:
    order = Order.of({"high": 6, "mid": 3})
    waiting = dict.fromkeys(("high", "mid", "low"), 10_000)

    counts = served(order, ("high", "mid", "low"), waiting, jobs=3000, seed=seed)

    shares = {"high": 0.6, "mid": 0.3, "low": 0.1}
    assert all(is_share(counts[queue], 3000, share) for queue, share in shares.items())


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_are_in_proportion_among_those_that_have_jobs(seed: int) -> None:
    order = Order.of({"high": 60, "mid": 3})
    waiting = {"mid": 10_000, "low": 10_000}

    counts = served(order, ("high", "mid", "low"), waiting, jobs=3000, seed=seed)

    assert is_share(counts["mid"], 3000, 0.75)
    assert counts["mid"] + counts["low"] == 3000


@pytest.mark.parametrize("seed", SEEDS)
def test_every_order_of_equal_weights_is_as_likely(seed: int) -> None:
    chance = Random(seed)
    counts = Counter(drawn((5, 5, 5), chance.random) for _ in range(3000))

    assert set(counts) == set(permutations(range(3)))
    assert all(is_share(count, 3000, 1 / 6) for count in counts.values())


@pytest.mark.parametrize("value", [0.0, 1.0 - 2**-53])
def test_the_ends_of_chance_are_no_trouble(value: float) -> None:
    assert sorted(drawn((1, 1_000_000), lambda: value)) == [0, 1]


def test_the_first_pattern_that_fits_says_the_weight() -> None:
    order = Order.parse("mail_slow=1,mail*=3,{a,b}=5")

    assert weigh(order.weights, ("mail", "mail_slow", "b", "c")) == (3, 1, 5, 1)


# -- how an order is written -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ("strict", Order()),
        ("Round-Robin", Order(Kind.ROUND_ROBIN)),
        ("high=6, low=1", Order(Kind.WEIGHTED, (("high", 6), ("low", 1)))),
        ("app:mail=2,a=5=1", Order(Kind.WEIGHTED, (("app:mail", 2), ("a=5", 1)))),
        ("strict=2", Order(Kind.WEIGHTED, (("strict", 2),))),
        ({"high": 6, "mail*": 1}, Order(Kind.WEIGHTED, (("high", 6), ("mail*", 1)))),
        (ROUND_ROBIN, ROUND_ROBIN),
    ],
)
def test_an_order_is_a_word_or_weights(given: Any, order: Order) -> None:
    assert ordered(given) == order


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_an_order_is_shown_as_it_is_written(order: Order) -> None:
    assert Order.parse(str(order)) == order


@pytest.mark.parametrize(
    "given",
    [
        *["", "random", "high", "high=", "high=0", "high=-1", "high=1.5", "=3", "!a=3"],
        *["a=9999999", {}, {"a": 0}, {"a": True}, {"a": 1.5}, None, 6, {1: 2}],
    ],
)
def test_what_is_no_order_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="order must be 'strict', 'round_robin' or weights, got"):
        ordered(given)
