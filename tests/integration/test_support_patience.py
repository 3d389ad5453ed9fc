"""What the tests' own runner of patient tests promises: nobody's failure is hidden or spread."""

import pytest

from tests.support.patience import Bench, Tale, itself
from tests.support.processes import Start
from tests.support.report import Report
from tests.support.site import APP, idle_workers


def refuse(what: object) -> None:
    raise ValueError(what)


def test_a_test_that_fails_leaves_the_others_of_its_story_alone() -> None:
    seen: list[object] = []
    tale = Tale(lambda bench: "told", checks={"bad": refuse, "good": seen.append})

    tale.run(Report())

    assert (str(tale.outcomes["bad"]), tale.outcomes["good"]) == ("told", None)
    assert seen == ["told"]


def test_a_story_that_fails_fails_all_tests_that_look_back_on_it() -> None:
    seen: list[object] = []
    tale = Tale(refuse, checks={"one": seen.append, "other": seen.append})

    tale.run(Report())

    assert [type(tale.outcomes[name]) for name in ("one", "other")] == [ValueError] * 2
    assert seen == []


def test_what_a_body_has_started_is_stopped_and_its_log_is_kept() -> None:
    started: list[Start] = []

    def body(bench: Bench) -> None:
        started.append(bench.start(*APP, "-c", "1"))
        idle_workers(started[0], 1)
        bench.note(lambda: "noted")
        raise KeyError("after the start")

    tale = Tale(itself, checks={"body": body})
    tale.run(Report())

    assert isinstance(tale.outcomes["body"], KeyError)
    assert started[0].process.returncode == 0
    assert started[0].left() == []
    said, noted, took = tale.log
    assert said.startswith(f"-- log of {started[0].pid}, which ended with 0")
    assert "stopped exit=0" in said
    assert noted == "noted"
    assert took.startswith("-- took ")


def test_a_bench_that_has_no_servers_is_a_failure_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.support.patience.Server", lambda **_: refuse("no server"))
    tale = Tale(itself, checks={"body": lambda _: None})

    tale.run(Report())

    assert str(tale.outcomes["body"]) == "no server"
