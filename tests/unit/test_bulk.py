"""Many jobs in portions."""

from collections.abc import Iterator
from typing import Any

import pytest

from forkresque.bulk import PORTION, PORTION_BYTES, Job, Portion, portions
from forkresque.errors import InvalidArgs


def encode(queue: str, name: str, args: object) -> bytes:
    return f"{queue}/{name}/{args}".encode()


def cut(jobs: list[Job], *hooked: str) -> list[Portion]:
    return list(portions(jobs, encode=encode, hooked=lambda name: name in hooked))


def test_no_jobs_make_no_portion() -> None:
    assert cut([]) == []


def test_jobs_are_kept_by_queue_in_their_order() -> None:
    (portion,) = cut([("a", "x", 1), ("b", "x", 2), ("a", "y", 3)])

    assert portion.queues == {"a": [b"a/x/1", b"a/y/3"], "b": [b"b/x/2"]}
    assert (portion.size, portion.alone) == (3, "")


@pytest.mark.parametrize("more", [-1, 0, 1, PORTION + 1])
def test_a_portion_holds_so_many_jobs_and_no_more(more: int) -> None:
    jobs: list[Job] = [("q", "x", number) for number in range(PORTION + more)]

    found = cut(jobs)

    assert [raw for portion in found for raw in portion.queues["q"]] == [encode(*j) for j in jobs]
    assert all(portion.size == PORTION for portion in found[:-1])
    assert 0 < found[-1].size <= PORTION


def test_large_jobs_make_smaller_portions() -> None:
    half = "x" * (PORTION_BYTES // 2)

    found = cut([("q", "x", half), ("q", "x", half), ("q", "x", ""), ("q", "x", half * 20)])

    assert [portion.size for portion in found] == [2, 2]


def test_a_job_with_hooks_is_alone_and_keeps_its_place() -> None:
    jobs: list[Job] = [("q", "x", 1), ("q", "h", 2), ("q", "h", 3), ("q", "x", 4), ("q", "x", 5)]

    found = cut(jobs, "h")

    assert [(portion.alone, portion.size) for portion in found] == [
        ("", 1),
        ("h", 1),
        ("h", 1),
        ("", 2),
    ]
    assert found[1].first == ("q", b"q/h/2")


@pytest.mark.parametrize("odd", [None, 7, ("q", "x"), ("q", "x", 1, 2)])
def test_what_is_no_job_is_refused_after_those_before_it(odd: Any) -> None:
    full: list[Job] = [("q", "x", number) for number in range(PORTION + 1)]
    found: Iterator[Portion] = portions([*full, odd], encode=encode, hooked=lambda _: False)

    assert next(found).size == PORTION
    with pytest.raises(InvalidArgs, match="a queue, a name and arguments, got") as caught:
        next(found)
    assert "send" in caught.value.hint
