"""Tests that mostly wait, run at the same time: their waits go by beside one another.

What takes ten seconds because the product gives something ten seconds costs a run of the tests
no more when there are twenty of its kind. A patient test has its own Redis, ledger and masters,
a `Bench`, so it shares nothing with those beside it but the machine.
"""

import functools
import inspect
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from tests.support.processes import Start
from tests.support.report import Report
from tests.support.servers import Server
from tests.support.site import Site

AT_ONCE = 8  # tests; each has some six processes, which are at rest for most of the time
TIMEOUT = 900  # seconds; the first to be asked waits for all, which end by their own deadlines

Body = Callable[..., None]
T = TypeVar("T")


class Bench:
    """The Redis of one test, which it may break and which loses nothing; the ledger; masters.

    `report` is the reliability suite's; what the masters have said comes into `log` at the end.
    """

    def __init__(self, report: Report, log: list[str]) -> None:
        self.report = report
        self._started: list[Start] = []
        self._log = log
        with ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="forkresque-bench-"))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.server = stack.enter_context(Server(appendonly="always"))
            self.ledger_server = stack.enter_context(Server())
            self.site = Site(
                stack.enter_context(closing(self.server.client())),
                stack.enter_context(closing(self.ledger_server.client())),
            )
            self._stack = stack.pop_all()

    def start(
        self,
        *args: str,
        url: str | None = None,
        env: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
    ) -> Start:
        """Start a master on this Redis, or on another; it is stopped when the test is over."""
        env = {"LEDGER_URL": self.ledger_server.url, **(env or {})}
        self._started.append(Start(*args, url=url or self.server.url, env=env, inside=inside))
        return self._started[-1]

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that is left when the masters have been stopped."""
        return self._stack.enter_context(context)

    def say(self, text: str) -> None:
        """Have this in the log as well."""
        self._log.append(text)

    def note(self, said: Callable[[], str]) -> None:
        """Have this in the log as well, as it is when the masters have been stopped."""
        self._stack.callback(lambda: self._log.append(said()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.server.resume()
        for one in self._started:
            one.stop()
            said = f"-- log of {one.pid}, which ended with {one.process.returncode}\n{one.log()}"
            self._log.append(said)
            one.remove()
        self._stack.close()


def patient(body: Body) -> Body:
    """Make a test of a function whose first parameter is a `Bench`; others are parametrised."""
    return _test(body, itself, {})


def looking_back(tell: Callable[[Bench, Any], Any], sizes: list[Any]) -> Callable[[Body], Body]:
    """Make tests of functions that look back on what came of `tell`, which is told once a size."""
    return lambda check: pytest.mark.parametrize("size", sizes)(_test(check, tell, SIZE))


def itself(bench: Bench) -> Bench:
    """Tell nothing: all that a test has to say is in its body."""
    return bench


def _test(body: Body, tell: Callable[..., Any], own: Mapping[str, inspect.Parameter]) -> Body:
    @functools.wraps(body)
    def test(patience: Patience, request: pytest.FixtureRequest, **_: Any) -> None:
        patience.judge(request.node.nodeid)

    _, *parametrised = inspect.signature(body).parameters.values()
    fixtures = list(inspect.signature(test, follow_wrapped=False).parameters.values())[:-1]
    signature = inspect.Signature([*fixtures, *parametrised, *own.values()])
    test.__signature__ = signature  # type: ignore[attr-defined]
    test.tell = tell  # type: ignore[attr-defined]
    marked: Body = pytest.mark.timeout(TIMEOUT)(test)
    return marked


SIZE = {"size": inspect.Parameter("size", inspect.Parameter.POSITIONAL_OR_KEYWORD)}


@dataclass
class Tale:
    """What is told on one bench, and the tests that look back on it."""

    tell: Callable[[Bench], Any]
    alone: bool = False
    checks: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    outcomes: dict[str, BaseException | None] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def run(self, report: Report) -> None:
        """Tell it, and have each test look back."""
        began_at = time.monotonic()
        try:
            with Bench(report, self.log) as bench:
                told = self.tell(bench)
                for name, check in self.checks.items():
                    self.outcomes[name] = outcome_of(check, told)
        except BaseException as error:  # noqa: BLE001 - raised where the test is asked for
            for name in self.checks:
                self.outcomes[name] = self.outcomes.get(name) or error
        self.log.append(f"-- took {time.monotonic() - began_at:.1f} s")


def outcome_of(check: Callable[[Any], None], told: Any) -> BaseException | None:
    """Return what a test raises."""
    try:
        check(told)
    except BaseException as error:  # noqa: BLE001 - raised where the test is asked for
        return error
    return None


class Patience:
    """Runs all patient tests of a session, in threads, when the first of them is asked for.

    Those of the long sizes hold bounds for which the machine must be quiet: each runs alone.
    """

    def __init__(self, items: Iterable[pytest.Item], report: Report) -> None:
        self._report = report
        self._tales: dict[str, Tale] = {}
        self._tale_of: dict[str, Tale] = {}
        for item in items:
            if isinstance(item, pytest.Function) and hasattr(item.function, "tell"):
                self._enlist(item, item.function)

    def judge(self, name: str) -> None:
        """Wait until the test of this name is over; raise what it has raised."""
        tale = self._tale_of[name]
        if name not in tale.outcomes:
            self._run(
                [tale] if tale.alone else [one for one in self._tales.values() if not one.alone]
            )
        print("\n".join(tale.log))
        if error := tale.outcomes[name]:
            raise error

    def _run(self, tales: list[Tale]) -> None:
        with ThreadPoolExecutor(AT_ONCE, "patient") as pool:  # no thread is left: others fork
            for tale in tales:
                pool.submit(tale.run, self._report)

    def _enlist(self, item: pytest.Function, test: Any) -> None:
        given = dict(item.callspec.params) if hasattr(item, "callspec") else {}
        tell, check, key = test.tell, test.__wrapped__, item.nodeid
        if tell is itself:
            check = functools.partial(check, **given)
        else:
            key = f"{tell.__module__} {given['size']}"
            tell = functools.partial(tell, size=given["size"])
        alone = item.get_closest_marker("full") is not None
        tale = self._tales.setdefault(key, Tale(tell, alone))
        tale.checks[item.nodeid] = check
        self._tale_of[item.nodeid] = tale
