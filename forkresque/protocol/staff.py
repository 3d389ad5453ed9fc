"""Workers, leaders, numbers and schedules of all languages, as clients see them.

Who registers and recovers workers is in registry.py, who removes them by force in cleaning.py.
"""

import logging
from typing import Any

from forkresque.errors import InvalidPayload
from forkresque.protocol.canonical import MAX_LEVELS, decode
from forkresque.protocol.connection import Client
from forkresque.protocol.keys import Keys, to_text
from forkresque.protocol.locks import scan
from forkresque.protocol.ownership import name_of
from forkresque.protocol.payload import stand_in
from forkresque.protocol.registry import Registry
from forkresque.protocol.store import counted

log = logging.getLogger("forkresque.queue")

STARTED = "started"  # what node-resque says of an idle worker


class Staff:
    """The workers of one namespace, and what is known of them all."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._registry = Registry(client, keys)

    def workers(self) -> dict[str, str | None]:
        """Return each worker's `host:pid` and its queues; None for one that names none."""
        ids = sorted(map(to_text, self._client.command("SMEMBERS", self._keys.workers())))
        return {name_of(wid): queues_of(wid) for wid in ids}

    def working_on(self, name: str, queues: str | None) -> dict[str, Any] | None:
        """Return the record of a worker by its `host:pid` and its queues, None if it is idle."""
        wid = f"{name}:{queues}" if queues else name
        record = self._client.command("GET", self._keys.worker(wid))
        return None if record is None else shown_record(name, record)

    def all_working_on(self) -> dict[str, dict[str, Any] | str]:
        """Return each worker's record by its `host:pid`, `started` for an idle one.

        node files a record of Ruby's, which names no worker, under `undefined`; we do not.
        """
        found: dict[str, dict[str, Any] | str] = {}
        for wid, record in self._registry.workers():
            name = name_of(wid)
            if record is None:
                found.setdefault(name, STARTED)  # another of this name may be busy
            else:
                found[name] = shown_record(name, record)
        return found

    def leader(self) -> str | None:
        """Return who leads: our scheduler, else node-resque's, old or new, else Ruby's."""
        keys = self._keys
        locks = (keys.leader(), keys.node_leader(), keys.node_master(), keys.ruby_master())
        holders = self._client.attempts(*(("GET", lock) for lock in locks))
        names = (to_text(holder) for holder in holders if isinstance(holder, bytes))
        return next(filter(None, names), None)

    def stats(self, *, page: int) -> dict[str, int]:
        """Return every counter by its name, such as `processed` and `failed:host:pid`, sorted.

        What is no number counts 0. Costs a look at all keys of Redis, `page` of them a step.
        """
        found = sorted(set(scan(self._client, self._keys, self._keys.stat_family(), page)))
        values: list[object] = []
        for at in range(0, len(found), page):
            values += self._client.attempts(*(("GET", key) for key in found[at : at + page]))
        return {
            self._keys.name_of(key).removeprefix("stat:"): counted(value)
            for key, value in zip(found, values, strict=True)
            if value is not None
        }

    def schedules(self) -> dict[str, dict[str, Any]]:
        """Return Ruby's stored schedules, decoded, by name; one that is no object is left out."""
        key = self._keys.persistent_schedules()
        names = sorted(self._client.command("HKEYS", key))
        texts = self._client.commands(*(("HGET", key, name) for name in names))
        found = {}
        for name, text in zip(map(to_text, names), texts, strict=True):
            config = _object(text or b"")
            if config is not None:
                found[name] = config
            elif text is not None:
                log.warning("schedule=%s is no JSON object and is left out", name)
        return found


def queues_of(worker: str) -> str | None:
    """Return the queues of a worker id `host:pid:queues` or `name:queues`, None if it has none."""
    return worker[len(name_of(worker)) + 1 :] or None


def shown_record(name: str, record: bytes) -> dict[str, Any]:
    """Return a working record decoded; what stands for it if it is no JSON object. Never raises."""
    told = _object(record)
    if told is not None:
        return told
    return {"worker": name, "queue": "", "run_at": "", "payload": stand_in(record)}


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        value = decode(text, levels=MAX_LEVELS + 1)
    except InvalidPayload:
        return None
    return value if isinstance(value, dict) else None
