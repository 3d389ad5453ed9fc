"""Who counts as silent, by the watcher's own clock."""

from forkresque.policy.silence import Silence


def test_a_sign_that_does_not_change_is_silence_after_the_timeout() -> None:
    silence = Silence(timeout=60.0, patience=20.0)

    assert [silence.judge(now, {"a": b"1"}) for now in (0.0, 15.0, 30.0, 45.0)] == [{}] * 4
    assert silence.judge(60.0, {"a": b"1"}) == {"a": 60.0}


def test_a_sign_that_changes_begins_the_time_anew() -> None:
    silence = Silence(timeout=30.0, patience=20.0)

    silence.judge(0.0, {"a": b"1", "b": b"1"})
    silence.judge(15.0, {"a": b"2", "b": b"1"})

    assert silence.judge(30.0, {"a": b"2", "b": b"1"}) == {"b": 30.0}
    assert silence.judge(45.0, {"a": b"2", "b": b"1"}) == {"a": 30.0, "b": 45.0}


def test_a_sign_that_says_what_an_earlier_one_said_is_a_change_all_the_same() -> None:
    silence = Silence(timeout=30.0, patience=20.0)

    for now, sign in ((0.0, b"1"), (15.0, b"2"), (30.0, b"1")):
        assert silence.judge(now, {"a": sign}) == {}

    assert silence.judge(45.0, {"a": b"1"}) == {}


def test_who_was_gone_and_came_back_is_new() -> None:
    silence = Silence(timeout=30.0, patience=20.0)

    silence.judge(0.0, {"a": b"1"})
    silence.judge(15.0, {})

    assert silence.judge(30.0, {"a": b"1"}) == {}


def test_nobody_is_judged_by_a_watcher_that_did_not_look() -> None:
    silence = Silence(timeout=30.0, patience=20.0)

    silence.judge(0.0, {"a": b"1"})

    assert silence.judge(3600.0, {"a": b"1"}) == {}
    assert silence.judge(3615.0, {"a": b"1"}) == {}
    assert silence.judge(3630.0, {"a": b"1"}) == {"a": 30.0}
