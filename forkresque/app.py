"""Forkresque: the jobs of an application, and how to enqueue them. What users import."""

import atexit
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, overload

from forkresque import embedded
from forkresque.configfile import read, read_from
from forkresque.configuration import resolve
from forkresque.connection import PLACING, Connection
from forkresque.errors import ConfigError, UnknownJob
from forkresque.jobs import Definition, OnCrash, define, definitions
from forkresque.options import ClientOptions
from forkresque.plugins.hooks import PluginLike
from forkresque.producer import Duration, Moment, seconds
from forkresque.protocol.address import masked
from forkresque.protocol.store import Ack
from forkresque.queue import Queue

P = ParamSpec("P")
R = TypeVar("R")


class Job(Generic[P, R]):
    """A function that can be called, and enqueued. Made by `@app.job`."""

    def __init__(self, app: "Forkresque", function: Callable[P, R], definition: Definition) -> None:
        self._app = app
        self._function = function
        self._front = False
        self.definition = definition
        update_wrapper(self, function)

    @property
    def name(self) -> str:
        """Return the job's name on the wire."""
        return self.definition.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, without Redis."""
        return self._function(*args, **kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Put a call on the job's queue, and return True once Redis has it; False after a veto.

        Keywords are bound to the function's parameters and sent by position. Raises InvalidArgs,
        RedisUnavailable, or EnqueueUnknown; see `Queue.enqueue`.
        """
        job = self.definition
        return self._app.queue.enqueue(
            job.queue, job.name, job.bind(args, kwargs), front=self._front
        )

    def enqueue_in(self, delay: Duration, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Put a call on the job's queue after `delay`, in seconds or as a timedelta.

        Equal calls for one second are as many jobs; see `Queue.enqueue_at` for `unique` ones.
        """
        queue, bound = self._app.queue, self.definition.bind(args, kwargs)
        return queue.enqueue_in(delay, self.definition.queue, self.name, bound, unique=False)

    def enqueue_at(self, moment: Moment, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Put a call on the job's queue at a moment: epoch seconds, or a datetime with a zone."""
        queue, bound = self._app.queue, self.definition.bind(args, kwargs)
        return queue.enqueue_at(moment, self.definition.queue, self.name, bound, unique=False)

    def using(self, *, queue: str | None = None, front: bool = False) -> "Job[P, R]":
        """Return this job for another queue, or for its head; the application's own stays.

        `front` is for `enqueue`: a delayed job goes to the tail when its second comes.
        """
        definition = define(
            self._function,
            name=self.name,
            queue=self.definition.queue if queue is None else queue,
            timeout=self.definition.timeout,
            on_crash=self.definition.on_crash,
            plugins=self.definition.plugins,
        )
        other = Job(self._app, self._function, definition)
        other._front = front or self._front
        return other

    def __repr__(self) -> str:
        return f"<Job {self.name} on queue {self.definition.queue}>"


class Forkresque:
    """The jobs of one application, and the Redis that they go through.

    Without `url`: FORKRESQUE_REDIS_URL, the configuration file, REDIS_URL, or
    redis://localhost:6379/0; likewise `namespace`, the prefix of all keys, and `ack`: with
    "replica" or "disk" an enqueue returns only when a replica, or the server's disk, has the job
    as well. `failure_backend` is "redis" for one list of failed jobs, or "redis_multi_queue" for
    one for each queue, as Ruby can have it. Instead of or beside the URL stand the keywords of a
    `Connection`: `host`, `redis` and so on. `allow_bigint` lets integers beyond 2**53 pass, which
    JavaScript readers would change. Raises ConfigError.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | Sequence[str] | None = None,
        ack: str | None = None,
        failure_backend: str | None = None,
        allow_bigint: bool = False,
        **keywords: Any,
    ) -> None:
        if url is not None and not isinstance(url, str):
            raise ConfigError(
                f"Forkresque takes a URL, got {type(url).__qualname__}",
                hint="give the keywords of a Connection: Forkresque(host=…, redis=…)",
            )
        named = None if namespace is None else Connection(namespace=namespace).keys.namespace
        given = {
            "redis": url,
            "namespace": named,
            "ack": ack,
            "failure_backend": failure_backend,
        }
        file = read(os.environ) if None in given.values() else None
        self._options = resolve(ClientOptions, given=given, environ=os.environ, file=file)
        self._keywords = {name: value for name, value in keywords.items() if value is not None}
        self._placed = bool(self._keywords.keys() & PLACING)  # where Redis is, no URL says
        if self._keywords and (self._placed or not embedded.is_embedded(self.url)):
            Connection(url if self._placed else self.url, namespace=self.namespace, **keywords)
        self._allow_bigint = allow_bigint
        self.jobs: dict[str, Definition] = {}

    @classmethod
    def from_config(
        cls, path: str | Path | None = None, *, allow_bigint: bool = False
    ) -> "Forkresque":
        """Return an application for the Redis that this configuration file names.

        Variables are stronger than the file, as always. Without a path it is the file that
        `Forkresque()` finds: what FORKRESQUE_CONFIG names, or the first `forkresque.toml`, or
        `pyproject.toml` with a table [tool.forkresque], from the working directory upward.
        Raises ConfigError.
        """
        file = read_from(Path(path)) if path else read(os.environ)
        options = resolve(ClientOptions, given={}, environ=os.environ, file=file)
        return cls(
            options.redis,
            namespace=options.namespace,
            ack=options.ack,
            failure_backend=options.failure_backend,
            allow_bigint=allow_bigint,
        )

    @property
    def url(self) -> str:
        """Return where Redis is; without passwords if keywords say it."""
        return self.connection.place if self._placed else self._options.redis

    @property
    def namespace(self) -> str:
        """Return the prefix of all keys."""
        return self._options.namespace

    @property
    def masked_url(self) -> str:
        """Return where Redis is, without the password."""
        return masked(self.url)

    def connect_to(
        self,
        *,
        url: str | None = None,
        namespace: str | None = None,
        ack: str | None = None,
        failure_backend: str | None = None,
    ) -> None:
        """Use another Redis, namespace and so on from now on; None leaves it as it is."""
        new = {
            "redis": url or None,
            "namespace": namespace,
            "ack": ack,
            "failure_backend": failure_backend,
        }
        given = asdict(self._options) | {k: v for k, v in new.items() if v is not None}
        self._options = resolve(ClientOptions, given=given, environ={})
        if url:  # another Redis has other logins as well
            kept = self._keywords.keys() & {"timeout", "scan_count"}
            self._keywords = {name: self._keywords[name] for name in kept}
            self._placed = False
        for made in ("queue", "connection"):
            self.__dict__.pop(made, None)

    @cached_property
    def connection(self) -> Connection:
        """Return where this application's jobs are. Connects at the first question.

        An embedded server is started or joined now, and used until this process ends.
        """
        about = self._keywords | {"failure_backend": self._options.failure_backend}
        if self._placed:
            return Connection(namespace=self.namespace, **about)
        url = self.url
        if embedded.is_embedded(url):
            server = embedded.start(embedded.directory_of(url))
            atexit.register(server.close)
            url = server.url
        return Connection(url, namespace=self.namespace, **about)

    def prepare(self) -> None:
        """Make now, for processes forked later, what their first connection needs. Asks nobody."""
        if "connection" in vars(self) or not embedded.is_embedded(self.url):
            self.connection.prepare()

    @cached_property
    def queue(self) -> Queue:
        """Return the queues of this application's Redis; see `connection`."""
        return Queue(
            self.connection,
            self.jobs,
            ack=Ack(self._options.ack),
            allow_bigint=self._allow_bigint,
        )

    @overload
    def job(self, function: Callable[P, R], /) -> Job[P, R]: ...

    @overload
    def job(
        self,
        name: str | None = None,
        /,
        *,
        queue: str = ...,
        timeout: Duration | None = ...,
        on_crash: OnCrash | str = ...,
        plugins: Sequence[PluginLike] = ...,
        plugin_options: Mapping[Any, Mapping[str, Any]] | None = ...,
    ) -> Callable[[Callable[P, R]], Job[P, R]]: ...

    def job(self, name: Any = None, /, **options: Any) -> Any:
        """Register a function as a job: `@app.job`, or `@app.job("name", queue="mail")`.

        The name is what stands in Redis; without one it is `module.qualname`, on queue
        `default`. `timeout` is a limit in seconds. A job whose worker dies goes back to the
        head of its queue, or with `on_crash="fail"` to the failed list. `plugins` run around its
        enqueueing and performing: see `forkresque.plugins`. Raises ConfigError for a function that
        cannot be called by position, and for a name that is taken.
        """
        if callable(name):
            return self._register(name, name=None)
        return lambda function: self._register(function, name=name, **options)

    def add_jobs(self, jobs: Mapping[str, Any]) -> None:
        """Register jobs as node-resque describes them; see `forkresque.jobs.definitions`.

        Raises ConfigError for a name that is taken, with nothing registered.
        """
        new = definitions(jobs)
        for definition in new.values():
            self._check_name(definition)
        self.jobs.update(new)

    def definition(self, name: str) -> Definition:
        """Return a registered job. Raises UnknownJob."""
        try:
            return self.jobs[name]
        except KeyError:
            raise UnknownJob(f"no job is registered under the name {name!r}") from None

    def _register(
        self, function: Callable[P, R], *, timeout: Duration | None = None, **options: Any
    ) -> Job[P, R]:
        limit = None if timeout is None else seconds(timeout)
        definition = define(function, timeout=limit, **options)
        self._check_name(definition)
        self.jobs[definition.name] = definition
        return Job(self, function, definition)

    def _check_name(self, new: Definition) -> None:
        known = self.jobs.get(new.name)
        if known and _place(known.function) != _place(new.function):
            raise ConfigError(
                f"two jobs are named {new.name!r}: {_place(known.function)} and "
                f"{_place(new.function)}",
                hint="give one of them another name",
            )


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__qualname__}"
