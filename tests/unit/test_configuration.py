"""The configuration file: where it is found, what it may say, and what is stronger than it."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from forkresque import ConfigError, Forkresque
from forkresque.configfile import File, read, read_from
from forkresque.configuration import resolve, settings
from forkresque.options import ClientOptions, InterfaceOptions, PoolSpec, Size, SupervisorOptions

KINDS = (ClientOptions, InterfaceOptions, SupervisorOptions)
NAMES = [each.name for kind in KINDS for each in fields(kind) if each.name != "config"]
Wrote = Callable[[str], Path]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory of our own, with no variable of the developer's."""
    for name in ("FORKRESQUE_CONFIG", "FORKRESQUE_REDIS_URL", "REDIS_URL", "FORKRESQUE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write(here: Path) -> Wrote:
    def write(text: str) -> Path:
        path = here / "forkresque.toml"
        path.write_text(text)
        return path

    return write


def supervisor(
    given: dict[str, object] | None = None, environ: dict[str, str] | None = None
) -> SupervisorOptions:
    return resolve(SupervisorOptions, given=given or {}, environ=environ or {}, file=read({}))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_from(path)
    assert caught.value.hint
    return str(caught.value)


# -- where it is -------------------------------------------------------------------------------


def test_without_a_file_nothing_is_said() -> None:
    assert read({}) == File()


def test_the_nearest_directory_upward_has_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = here / "a" / "b"
    below.mkdir(parents=True)
    (here / "forkresque.toml").write_text("audit = 1")
    monkeypatch.chdir(below)
    assert read({}).path == here / "forkresque.toml"

    (here / "a" / "pyproject.toml").write_text("[tool.forkresque]\naudit = 2")
    assert read({}) == File(here / "a" / "pyproject.toml", {"audit": "2"})


def test_our_own_file_comes_before_the_projects(here: Path, write: Wrote) -> None:
    (here / "pyproject.toml").write_text("[tool.forkresque]\naudit = 2\nlease = 60")
    write("audit = 1")

    assert read({}).values == {"audit": "1"}


@pytest.mark.parametrize("text", ["", "[project]\nname = 'x'", "[tool.ruff]", "tool = 1"])
def test_a_project_that_says_nothing_to_us_is_passed_over(
    here: Path, write: Wrote, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    project = here / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(text)
    write("audit = 1")
    monkeypatch.chdir(project)

    assert read({}).path == here / "forkresque.toml"


def test_a_directory_that_everybody_may_write_to_is_passed_over_unless_we_are_in_it(
    here: Path, write: Wrote, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("audit = 1")
    (here / "below").mkdir()
    here.chmod(0o777)
    assert read({}).values == {"audit": "1"}

    monkeypatch.chdir(here / "below")
    assert read({}) == File()


def test_a_working_directory_that_is_gone_has_no_file(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = here / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert read({}) == File()


def test_a_variable_names_the_file(here: Path, write: Wrote) -> None:
    write("audit = 1")
    other = here / "other.toml"
    other.write_text("audit = 2")

    assert read({"FORKRESQUE_CONFIG": str(other)}).values == {"audit": "2"}
    assert read({"FORKRESQUE_CONFIG": "/dev/null"}).values == {}
    assert read({"FORKRESQUE_CONFIG": ""}).values == {"audit": "1"}


def test_each_reading_sees_the_file_as_it_is_now(write: Wrote) -> None:
    write("lease = 10")
    assert supervisor().lease == 10

    write("lease = 20")
    assert supervisor().lease == 20


# -- what cannot be read -----------------------------------------------------------------------


def test_a_file_that_is_not_there_or_cannot_be_read_is_named(here: Path) -> None:
    assert refusal(here / "no.toml") == (
        f"the configuration {here / 'no.toml'} cannot be read: No such file or directory"
    )
    assert refusal(here) == f"the configuration {here} cannot be read: Is a directory"


def test_what_is_not_toml_is_named_with_its_line(write: Wrote) -> None:
    path = write("audit = 1\nlease = = 2")

    assert refusal(path).startswith(f"{path} is not TOML: ")
    assert "at line 2" in refusal(path)


def test_what_is_not_utf_8_is_named_with_its_line(here: Path) -> None:
    path = here / "forkresque.toml"
    path.write_bytes(b'audit = 1\n\nhost_label = "\xff"')

    assert refusal(path) == f"{path} is not UTF-8 (at line 3)"


def test_what_is_nested_without_end_is_refused(write: Wrote) -> None:
    assert "is not TOML" in refusal(write("audit = " + "[" * 100_000))


def test_a_named_project_must_have_our_table(here: Path) -> None:
    path = here / "pyproject.toml"
    path.write_text("[tool.ruff]")
    assert refusal(path) == f"{path} has no table [tool.forkresque]"

    path.write_text("[tool]\nforkresque = 3")
    assert refusal(path) == f"tool.forkresque in {path} must be a table, got 3"


# -- what it says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('queues = ["high", "low"]', ("high", "low")),
        ('queues = "high,low"', ("high", "low")),
        ("concurrency = 4", Size(4, 4)),
        ('concurrency = "2:8"', Size(2, 8)),
        ("min = 2", 2),
        ("shutdown_timeout = 5", 5.0),
        ("shutdown_timeout = 1.5", 1.5),
        ('shutdown_timeout = "2m"', 120.0),
        ("preload = false", False),
        ("reload = true", True),
        ("max_jobs = 10", 10),
        ("max_memory = 1000", 1000),
        ('max_memory = "1G"', 2**30),
        ('host_label = ""', ""),
        ('on_partition = "stop"', "stop"),
        ('pools = ["a,b=1", "c=1:2"]', (PoolSpec(("a", "b"), 1, 1), PoolSpec(("c",), 1, 2))),
        ('[[pools]]\nqueues = ["a", "b"]\nconcurrency = 3', (PoolSpec(("a", "b"), 3, 3),)),
        ('[[pools]]\nqueues = "a"\nconcurrency = "2:8"', (PoolSpec(("a",), 2, 8),)),
        ('[[pools]]\nqueues = "a"\nmin = 1\nmax = 2', (PoolSpec(("a",), 1, 2),)),
    ],
)
def test_values_have_the_types_of_toml(write: Wrote, line: str, value: object) -> None:
    write(line)

    assert getattr(supervisor(), line.removeprefix("[[").split()[0].rstrip("]")) == value


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_type_is_refused_for_every_option(write: Wrote, name: str) -> None:
    path = write(f"{name} = 2026-11-24")

    assert refusal(path).startswith(f"{name} in {path} must be ")
    assert refusal(path).endswith(', got "2026-11-24"')


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("max_jobs = true", "max_jobs in {} must be a whole number, got true"),
        ('max_jobs = "5"', 'max_jobs in {} must be a whole number, got "5"'),
        ("max_jobs = 1.5", "max_jobs in {} must be a whole number, got 1.5"),
        ('preload = "no"', 'preload in {} must be true or false, got "no"'),
        ("lease = true", "lease in {} must be a number or a text, got true"),
        ("redis = 5", "redis in {} must be a text, got 5"),
        ('queues = ["a", 1]', "each of queues in {} must be a text, got 1"),
        ('pools = "a=1"', 'pools in {} must be a list, got "a=1"'),
        ("pools = [1]", "pools[0] in {} must be a table or a text, got 1"),
        ('config = "x"', "config in {} is no option"),
        (
            "shutdown-timeout = 5",
            "shutdown-timeout in {} is no option; did you mean shutdown_timeout?",
        ),
        ("concurency = 5", "concurency in {} is no option; did you mean concurrency?"),
        ("[schedule.nightly]", "schedule in {} is no option"),
        (
            '[[pools]]\nqueue = "a"',
            "pools[0].queue in {} is no option; did you mean queues?",
        ),
        (
            '[[pools]]\nqueues = "a"\nconcurrency = true',
            "pools[0].concurrency in {} must be a whole number or a text, got true",
        ),
        (
            '[[pools]]\nqueues = "a"\nmin = 1',
            "pools[0] in {} must have queues, and concurrency or min and max, got min, queues",
        ),
    ],
)
def test_a_mistake_is_named_with_key_value_and_file(write: Wrote, line: str, reason: str) -> None:
    path = write(line)

    assert refusal(path) == reason.format(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("lease = 2", "lease in {} must be at least 6, got 2.0"),
        ("lease = nan", "lease in {} must be SECONDS, got 'nan'"),
        ('lease = "long"', "lease in {} must be SECONDS, got 'long'"),
        ("max_memory = -1", "max_memory in {} must be SIZE, got '-1'"),
        ("concurrency = 0", "concurrency in {} must be at least 1, got 0"),
        ("pools = ['a=0']", "pools in {} must be at least 1, got 0 in 'a=0'"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_file(write: Wrote, line: str, reason: str) -> None:
    path = write(line)

    with pytest.raises(ConfigError) as caught:
        supervisor()

    assert str(caught.value) == reason.format(path)


def test_all_mistakes_of_a_file_are_in_one_message(write: Wrote) -> None:
    path = write("audits = 1\nlease = true\nmax_jobs = 2")

    assert refusal(path).split("; ", 2) == [
        f"audits in {path} is no option",
        "did you mean audit?",
        f"lease in {path} must be a number or a text, got true",
    ]


# -- what is stronger --------------------------------------------------------------------------


def test_flags_and_variables_are_stronger_than_the_file_and_the_file_than_defaults(
    write: Wrote,
) -> None:
    write("lease = 10\naudit = 10\nmax_jobs = 10")

    options = supervisor({"lease": 20}, {"FORKRESQUE_LEASE": "30", "FORKRESQUE_AUDIT": "30"})

    assert (options.lease, options.audit, options.max_jobs) == (20, 30, 10)


def test_the_file_is_stronger_than_variables_of_other_tools(write: Wrote) -> None:
    environ = {"REDIS_URL": "redis://theirs"}
    write('redis = "redis://ours"')

    found = settings(ClientOptions, given={}, environ=environ, file=read({}))

    assert found["redis"].value == "redis://ours"
    assert resolve(ClientOptions, given={}, environ=environ).redis == "redis://theirs"


def test_pools_of_the_file_are_void_when_a_flag_says_otherwise(write: Wrote) -> None:
    write('[[pools]]\nqueues = "a"\nconcurrency = 2')

    assert supervisor().pool_specs(4) == (PoolSpec(("a",), 2, 2),)
    assert supervisor({"queues": "b", "concurrency": 1}).pool_specs(4) == (PoolSpec(("b",), 1, 1),)


def test_pools_and_their_contradiction_in_one_file_are_refused(write: Wrote) -> None:
    write('queues = "b"\n[[pools]]\nqueues = "a"\nconcurrency = 2')

    with pytest.raises(ConfigError, match="queues says nothing when there are pools, got b"):
        supervisor()


# -- the library -------------------------------------------------------------------------------


def test_an_application_reads_the_file(write: Wrote, monkeypatch: pytest.MonkeyPatch) -> None:
    write('redis = "redis://file:1"\nnamespace = "jobs"')
    assert (Forkresque().url, Forkresque().namespace) == ("redis://file:1", "jobs")
    assert (Forkresque("redis://mine:1").url) == "redis://mine:1"

    monkeypatch.setenv("FORKRESQUE_REDIS_URL", "redis://variable:1")
    assert (Forkresque().url, Forkresque().namespace) == ("redis://variable:1", "jobs")


def test_an_application_of_a_named_file(here: Path, write: Wrote) -> None:
    write('redis = "redis://file:1"')
    other = here / "other.toml"
    other.write_text('redis = "redis://other:1"')

    assert Forkresque.from_config(other).url == "redis://other:1"
    assert Forkresque.from_config(str(other)).url == "redis://other:1"
    assert Forkresque.from_config().url == "redis://file:1"


def test_an_application_refuses_a_file_that_it_cannot_read_and_does_without_where_it_can(
    write: Wrote,
) -> None:
    write("redis =")

    with pytest.raises(ConfigError, match="is not TOML"):
        Forkresque()
    whole = Forkresque("redis://mine:1", namespace="n", ack="primary", failure_backend="redis")
    assert whole.url == "redis://mine:1"
