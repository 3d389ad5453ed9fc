"""What the bench decides by itself: records, medians, ratios, verdicts."""

import os
import random
from pathlib import Path

import pytest

from bench.harness.contestant import Contestant, Group
from bench.harness.drains import timed
from bench.harness.machine import Clocks, noise
from bench.harness.questions import QUESTIONS
from bench.harness.records import BEGAN, ENDED, SENT, Event, Records, count, decode, load, rate
from bench.harness.report import Report, at_least, at_most, table
from bench.harness.roster import EVERYBODY, named
from bench.harness.rounds import Spread, beside, interleaved, paired, percentile, turns
from bench.harness.stage import Produced, Reading, between
from bench.peers.recording import RECORD, SHIFT

ROOT = Path(__file__).resolve().parents[2]


def written(*events: tuple[int, int, int]) -> bytes:
    return b"".join(RECORD.pack(kind << SHIFT | number, moment) for kind, number, moment in events)


def test_a_file_of_records_is_read_back_and_a_torn_one_is_left_out() -> None:
    raw = written((SENT, 7, 100), (BEGAN, 2**40, 200))
    assert decode(raw + b"torn", 42) == [
        Event(100, SENT, 7, 42),
        Event(200, BEGAN, 2**40, 42),
    ]


def test_records_of_many_processes_are_counted_and_put_in_order(tmp_path: Path) -> None:
    (tmp_path / "11").write_bytes(written((BEGAN, 1, 30), (ENDED, 1, 50)))
    (tmp_path / "12").write_bytes(written((BEGAN, 0, 20)))
    records = load(tmp_path)
    assert count(tmp_path) == 3
    assert records.moments() == [20, 30]
    assert [event.process for event in records.of(BEGAN)] == [12, 11]


def test_a_recorded_job_is_read_with_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.peers import kinds, recording

    monkeypatch.setenv("BENCH_DIR", str(tmp_path))
    kinds.KINDS["noop"](5)
    os.close(recording._files.pop())
    [event] = load(tmp_path).of(BEGAN)
    assert (event.number, event.process) == (5, os.getpid())


def test_lost_doubled_and_strange_jobs_are_told_apart() -> None:
    events = [Event(moment, BEGAN, number, 1) for moment, number in enumerate((0, 2, 2, 9))]
    tally = Records(events).tally(range(4))
    assert (tally.lost, tally.doubled, tally.strange) == ((1, 3), (2,), (9,))
    assert not tally.is_clean
    assert Records(events[:1]).tally(range(1)).is_clean


def test_a_latency_is_that_of_the_first_run_of_a_job() -> None:
    times = [(0, SENT, 1), (2_000_000, BEGAN, 1), (9_000_000, BEGAN, 1), (5, SENT, 2)]
    records = Records([Event(moment, kind, number, 1) for moment, kind, number in times])
    assert records.latencies() == [2.0]


def test_a_rate_leaves_out_the_start_and_the_end() -> None:
    steady = [each * 1_000_000 for each in range(1000)]  # a thousand a second
    with_a_slow_start = [0, *(moment + 10**10 for moment in steady)]
    assert rate(steady) == pytest.approx(1000)
    assert rate(with_a_slow_start) == pytest.approx(1000)
    with pytest.raises(ValueError, match="too few"):
        rate([1])


def test_everybody_has_as_many_turns_and_each_goes_first_once() -> None:
    assert "".join(turns("abc", 3)) == "abcbcacab"
    found = interleaved("abc", 2, str.upper)
    assert found == [("a", ["A", "A"]), ("b", ["B", "B"]), ("c", ["C", "C"])]


def test_a_spread_is_the_median_and_the_extremes_whatever_the_order() -> None:
    values = [3.0, 1.0, 2.0]
    random.Random(6).shuffle(values)
    assert Spread.of(values) == Spread(2.0, 1.0, 3.0, 3)
    assert Spread.of(values).told() == "2 (1-3)"
    assert Spread.of([1234.5]).told() == "1,234"


def test_ratios_are_taken_within_a_round() -> None:
    assert paired([10.0, 100.0, 30.0], [5.0, 50.0, 10.0]) == Spread(2.0, 2.0, 3.0, 3)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(each) for each in range(1, 201)]
    assert [percentile(values, share) for share in (0, 0.5, 0.99, 1)] == [1, 101, 199, 200]


def test_a_target_is_met_at_its_limit_and_missed_beyond() -> None:
    assert at_least("row", 3.0, 3.0).met
    assert not at_least("row", 2.99, 3.0).met
    assert at_most("row", 100.0, 100.0).met
    missed = at_most("row", 101.0, 100.0, unit=" us", form=".0f")
    assert (missed.met, missed.target, missed.figure) == (False, "≤ 100 us", "101 us")


def test_a_report_says_what_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("throughput", "How many?")
    report.verdict(at_least("drain", 1.0, 3.0, unit=" x", against="huey"))
    report.figure("huey", rate=Spread.of([1.0]).as_json())
    report.close()
    assert "| drain | ≥ 3 x  | 1.00 x   | huey    | MISSED |" in capsys.readouterr().out
    assert report.as_json()["verdicts"][0]["met"] is False


def test_columns_of_a_table_stand_under_each_other() -> None:
    assert table(["a", "b"], [["long", "c"]]) == "| a    | b |\n| ---- | - |\n| long | c |"


def test_what_neither_we_nor_the_contestant_used_is_noise() -> None:
    first = Clocks(at=0.0, busy=0.0, stolen=0.0, ours=0.0)
    last = Clocks(at=1.0, busy=1.5, stolen=0.2, ours=0.1)
    found = noise(first, last, known=1.0)
    cores = os.cpu_count() or 1
    assert found.others == pytest.approx(0.4 / cores)
    assert found.stolen == pytest.approx(0.2 / cores)


def test_a_span_tells_the_cpu_of_one_job() -> None:
    clocks = [Clocks(at=float(at), busy=0.0, stolen=0.0, ours=0.0) for at in (1, 3)]
    span = between(Reading(10, 2, 0.5, 0.25, clocks[0]), Reading(1010, 2, 0.6, 0.3, clocks[1]))
    assert (span.rate, round(span.worker_us), round(span.redis_us)) == (500.0, 100, 50)
    assert Produced(jobs=10, seconds=2.0, cpu=1.0).rate == 5.0


def test_a_span_is_timed_by_the_jobs_themselves_in_whole_rounds_of_places() -> None:
    """Eight begin together every 50 ms: where the looks fall must not matter."""
    moments = [each // 8 * 50_000_000 for each in range(96)]
    clocks = [Clocks(at=at, busy=0.0, stolen=0.0, ours=0.0) for at in (0.001, 0.409)]
    first = Reading(10, 8, 0.0, 0.0, clocks[0])
    span = between(first, Reading(85, 8, 0.0, 0.0, clocks[1]))
    assert timed(span, first, moments, places=8).rate == pytest.approx(160)
    assert timed(span, first, moments).records == 75


def test_the_best_rival_is_told_with_the_ratio_to_it() -> None:
    rivals = {"slow": [1.0, 1.0], "fast": [5.0, 50.0], "gone": []}
    assert beside([10.0, 100.0], rivals, best=max) == "fast: 28, ratio 2.00"
    assert beside([3.0], rivals, best=min, form=".1f") == "slow: 1.0, ratio 3.00"
    assert beside([1.0], {"none": [0.0]}, best=min) == "none: 0"
    assert beside([1.0], {}, best=min) == "nobody measured beside"


def test_every_contestant_has_a_name_of_its_own_and_commands() -> None:
    names = [each.name for each in EVERYBODY]
    assert len(set(names)) == len(names)
    for each in EVERYBODY:
        assert all(each.start(2))
        assert each.jobs(1.0, 8) == each.jobs(1.0, 2) >= each.jobs(0.5, 1)
    with pytest.raises(SystemExit, match="there are forkresque"):
        named("nobody")


def test_who_is_not_installed_is_known(tmp_path: Path) -> None:
    peer = Contestant(
        "peer", Group.OTHER, "", lambda _: [["true"]], [], [], pace=1.0, needs=tmp_path / "there"
    )
    assert not peer.is_installed
    (tmp_path / "there").touch()
    assert peer.is_installed


def test_every_question_has_a_script() -> None:
    for name in QUESTIONS:
        assert (ROOT / "bench" / f"{name}.py").is_file(), name
