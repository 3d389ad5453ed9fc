"""What `forkresque top` shows of reports: rates, order, columns and lines. No terminal is there."""

import random
from typing import Any

import pytest

from forkresque.cli.output import breadth, brief, size
from forkresque.cli.top_rows import (
    COLUMNS,
    NAMES,
    Meter,
    Rates,
    Sorting,
    alarms,
    decisions,
    frame,
    grid,
    head,
    pools,
    rates,
)
from tests.support.fake_master import Report, pool, report, scaling, worker

HOSTILE = "\x1b]0;x\x07[red]\u202eevil\n"


# -- rates -----------------------------------------------------------------------------------


def test_rates_are_what_the_workers_have_done_between_two_reports() -> None:
    before = report(uptime=10.0, workers=[worker(1, done=5, failed=1), worker(2, done=7)])
    now = report(uptime=12.5, workers=[worker(1, done=25, failed=1), worker(2, done=12, failed=5)])

    assert rates(before, now) == Rates(done=10.0, failed=2.0)


def test_a_new_worker_counts_from_nought_and_one_that_has_gone_not_at_all() -> None:
    before = report(uptime=1.0, workers=[worker(1, done=100), worker(2, done=5, age=50.0)])
    pid_used_again = worker(2, done=3, age=0.5)
    now = report(uptime=2.0, workers=[pid_used_again, worker(3, done=4, age=0.5)])

    assert rates(before, now) == Rates(done=7.0, failed=0.0)


@pytest.mark.parametrize(
    "before", [None, report(pid=1, uptime=1.0), report(uptime=100.0), report(uptime=900.0)]
)
def test_there_is_no_rate_without_two_reports_of_one_master(before: Report | None) -> None:
    assert rates(before, report(uptime=100.0)) is None


def test_reports_that_come_early_leave_the_rates_as_they_are() -> None:
    meter = Meter(0.5)

    def read(uptime: float, done: int, **changes: Any) -> Rates | None:
        return meter.read(report(uptime=uptime, workers=[worker(1, done=done)], **changes))

    assert read(10.0, 0) is None
    assert read(10.1, 50) is None
    assert read(11.0, 20) == Rates(20.0, 0.0)
    assert read(11.2, 40) == Rates(20.0, 0.0)
    assert read(12.0, 40) == Rates(20.0, 0.0)
    assert read(12.5, 45) == Rates(10.0, 0.0)
    assert read(0.1, 1, pid=1) is None
    assert read(1.1, 4, pid=1) == Rates(3.0, 0.0)


def test_rates_are_never_negative_and_no_worker_counts_twice() -> None:
    chance = random.Random(4)
    for _ in range(500):
        meter, uptime, total = Meter(0.0), 0.0, 0.0
        crew = {pid: worker(pid, age=0.0) for pid in range(4)}
        meter.read(report(uptime=uptime, workers=list(crew.values())))
        done = 0
        for _ in range(20):
            step = chance.uniform(0.1, 2.0)
            uptime += step
            for pid, one in list(crew.items()):
                more = chance.randrange(5)
                is_new = chance.random() < 0.2  # with the pid of the one before
                done += more
                crew[pid] = worker(
                    pid,
                    age=0.05 if is_new else one["age"] + step,
                    done=more if is_new else one["done"] + more,
                )
            found = meter.read(report(uptime=uptime, workers=list(crew.values())))
            assert found is not None
            assert found.done >= 0
            total += found.done * step
        assert total == pytest.approx(done)


# -- order -----------------------------------------------------------------------------------

CREW = [
    worker(4103, seat=3, phase="idle", cpu=None, memory=5, done=7, age=9.0),
    worker(4101, seat=1, phase="run", job="b", job_seconds=2.0, cpu=0.5, memory=None, age=8.0),
    worker(4102, seat=2, phase="run", job="a", job_seconds=9.0, cpu=0.7, memory=6, failed=1),
]


@pytest.mark.parametrize(
    ("by", "seats"),
    [
        ("seat", [1, 2, 3]),
        ("pid", [1, 2, 3]),
        ("phase", [3, 1, 2]),
        ("run", [2, 1, 3]),  # the longest first, those without a job last
        ("cpu", [2, 1, 3]),
        ("memory", [2, 3, 1]),
        ("done", [3, 1, 2]),
        ("failed", [2, 1, 3]),
        ("age", [2, 3, 1]),
        ("job", [2, 1, 3]),
    ],
)
def test_workers_are_sorted_by_a_column(by: str, seats: list[int]) -> None:
    assert [one["seat"] for one in Sorting(by).sort(CREW)] == seats


def test_backwards_is_the_other_way_round_but_the_unknown_stay_last() -> None:
    assert [one["seat"] for one in Sorting("run", backwards=True).sort(CREW)] == [1, 2, 3]
    assert [one["seat"] for one in Sorting("job", backwards=True).sort(CREW)] == [1, 2, 3]
    assert [one["seat"] for one in Sorting("seat", backwards=True).sort(CREW)] == [3, 2, 1]


def test_the_next_order_goes_round_all_columns() -> None:
    seen = [Sorting()]
    while (following := seen[-1].next()) != seen[0]:
        seen.append(following)

    assert [each.by for each in seen] == list(NAMES)


# -- columns ---------------------------------------------------------------------------------


def names(found: Any) -> list[str]:
    return [column.name for column in found.columns]


def test_eighty_columns_hold_all_that_is_known_of_one_pool() -> None:
    shown = grid(report(), Sorting(), width=78)

    assert names(shown) == [name for name in NAMES if name != "pool"]
    assert shown.pids == (4101, 4102)


def test_of_several_pools_each_worker_names_its_own() -> None:
    abolished = 0  # by a reload; the others keep their numbers
    pools = [pool("high", index=2), pool("low", index=1)]
    workers = [worker(1, pool=1), worker(2, pool=2), worker(3, pool=abolished)]
    two = report(pools=pools, workers=workers)

    shown = grid(two, Sorting("pid"), width=200)

    assert names(shown) == list(NAMES)
    at = NAMES.index("pool")
    assert [row[at] for row in shown.rows] == ["low", "high", "-"]


def test_a_narrow_terminal_leaves_out_what_matters_less() -> None:
    two = report(pools=[pool("high"), pool("low")])

    assert "seat" not in names(grid(two, Sorting(), width=66))
    assert {"seat", "generation", "age"}.isdisjoint(names(grid(two, Sorting(), width=56)))
    assert names(grid(two, Sorting(), width=10)) == ["pid", "phase", "run", "cpu", "done", "job"]


@pytest.mark.parametrize("width", [60, 78, 120, 200])
def test_no_line_is_wider_than_the_terminal_whatever_is_in_it(width: int) -> None:
    chance = random.Random(width)
    texts = ["", "add", "数" * 60, HOSTILE * 9, "j" * 300]
    for _ in range(100):
        crew = [
            worker(
                chance.randrange(1, 1 << 22),
                pool=chance.randrange(3),
                job=chance.choice(texts),
                job_seconds=chance.uniform(0, 1e7),
                cpu=chance.choice([None, 0.0, 3.25]),
                memory=chance.choice([None, 0, 1 << 40]),
                done=chance.randrange(1 << 20),
                age=chance.uniform(0, 1e8),
            )
            for _ in range(chance.randrange(20))
        ]
        some = [pool(chance.choice(texts[1:]), scalings=[scaling(1.0, 1, 2, HOSTILE * 9)])] * 2
        told = report(pools=some, workers=crew, trouble=[HOSTILE * 9], redis=HOSTILE * 9)

        lines = frame(told, None, Sorting(chance.choice(NAMES)), width=width)

        assert all(line.isprintable() for line in lines)
        assert max(map(breadth, lines)) <= width


def test_numbers_stand_at_the_right_under_their_titles() -> None:
    busy = worker(4101, phase="run", job="Report", job_seconds=192.4, done=12, cpu=0.5)
    lines = grid(report(workers=[busy]), Sorting(), width=78).lines()

    assert lines == [
        "SEAT   PID PHASE     RUN  CPU   MEM DONE FAIL    AGE GEN JOB",
        "   1  4101 run     3m12s 0.50   12M   12    0  1m00s   1 Report",
    ]


def test_every_column_has_a_name_of_its_own() -> None:
    assert len({column.name for column in COLUMNS}) == len({column.title for column in COLUMNS})
    assert len(NAMES) == len(set(NAMES))


# -- lines -----------------------------------------------------------------------------------


def test_the_head_says_how_the_master_is_and_how_fast() -> None:
    told = report(
        paused=True,
        generation=3,
        reload={"state": "rolling", "reason": ""},
        pools=[pool(busy=1, idle=1)],
        workers=[worker(1, cpu=0.5, memory=3 << 20), worker(2, cpu=0.75, memory=None)],
    )

    assert head(told, Rates(12.345, 0.5), width=120) == [
        f"master {told['pid']}: paused, rolls to new code; up 1m 40s, generation 3, "
        "forkresque 1.2.3",
        "clerk 4100 reaches Redis, scheduler: promote; redis://localhost:6379/0, namespace resque",
        "12.3 jobs/s, 0.5 failed/s; 1 of 2 workers busy, 2 wanted; CPU 1.25, memory 3.0M",
    ]
    assert head(report(redis="", workers=[]), None, width=120)[1:] == [
        "clerk 4100 reaches Redis, scheduler: promote",
        "- jobs/s; 0 of 0 workers busy, 2 wanted; CPU -, memory -",
    ]


def test_a_pool_shows_its_bounds_and_what_waits() -> None:
    high = pool("high,mid", least=2, most=8, wanted=4, busy=3, idle=0, booting=1, waiting=120)
    told = report(pools=[high, pool("low", waiting=None, broken=True)])

    assert pools(told, width=80) == [
        "POOL          WORKERS  BOUNDS  WANTED  BUSY  IDLE  BOOTING  WAITING",
        "high,mid            4  2:8          4     3     0        1  120",
        "low (broken)        2  2            2     0     2        0  -",
    ]


def test_the_latest_decisions_of_all_pools_are_shown_with_their_reasons() -> None:
    high = pool("high", scalings=[scaling(90.0, 1, 2, "a"), scaling(61.0, 2, 4, "all busy")])
    low = pool("low", scalings=[scaling(3.25, 4, 3, "idle for 30 s"), scaling(70.0, 3, 4, "c")])

    assert decisions(report(pools=[high, low]), width=80) == [
        "  3.2s ago  low 4 to 3: idle for 30 s",
        " 1m01s ago  high 2 to 4: all busy",
        " 1m10s ago  low 3 to 4: c",
    ]
    assert decisions(report(), width=80) == ["no scaling yet"]


def test_of_many_the_first_are_shown_and_the_others_counted() -> None:
    told = report(trouble=list("abcd"), pools=[pool(name) for name in ("x", "y", "z")])

    assert alarms(told, width=80, most=2) == ["trouble: a", "trouble: b", "and 2 troubles more"]
    assert [line.split()[0] for line in pools(told, width=80, most=2)] == ["POOL", "x", "y", "and"]
    assert pools(told, width=80, most=2)[-1] == "and 1 pool more"
    assert pools(told, width=80, most=3) == pools(told, width=80)


def test_trouble_and_a_refused_reload_are_alarms() -> None:
    refused = {"state": "refused", "reason": "Traceback\nerror: no such module\nhint: see above\n"}

    assert alarms(report(trouble=["there is no clerk"], reload=refused), width=80) == [
        "trouble: there is no clerk",
        "trouble: the new code was refused: no such module",
    ]
    silent = {"state": "refused", "reason": ""}
    assert alarms(report(reload=silent), width=80) == [
        "trouble: the new code was refused: no reason given"
    ]
    assert alarms(report(), width=80) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.01, "0.0s"),
        (0.44, "0.4s"),
        (9.96, "10.0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (86399, "23h59m"),
        (90000, "1d"),
        (86400 * 4000, "4000d"),
    ],
)
def test_a_length_of_time_in_six_characters(seconds: float, text: str) -> None:
    assert brief(seconds) == text
    assert len(text) <= 6


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0K"),
        (1536, "1.5K"),
        (10188, "9.9K"),
        (10240, "10K"),
        (1023 << 10, "1.0M"),
        (220 << 20, "220M"),
        (-3 << 20, "-3.0M"),
        (1 << 70, "1024E"),
    ],
)
def test_a_number_of_bytes_in_five_characters(number: int, text: str) -> None:
    assert size(number) == text
    assert len(text) <= 5
