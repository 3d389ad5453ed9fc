"""Hosts: each has a network, a PID and a UTS namespace of its own, and one link to Redis.

Redis is in a hub, to which each host has a link. Nothing is named in the machine's own network,
so there is nothing to collide with. Namespaces and links belong to processes and vanish with
them, even if the runner is killed. Unix sockets know no network namespaces: the ledger, the
control sockets and the test's own client of Redis stay within reach when a link is cut.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from redis import Redis

from forkresque.errors import ExitCode
from forkresque.protocol.claims import Outcome
from forkresque.protocol.payload import digest
from forkresque.protocol.registry import Recovery
from forkresque.supervisor.control import ask
from tests.support.patience import Bench
from tests.support.processes import Start, assert_nothing_left, kill
from tests.support.servers import Server, binaries, dying_with_runner
from tests.support.site import KEYS, Site, idle_workers
from tests.support.tools import program
from tests.support.waiting import wait_until

HUB = "10.77.0.1"  # where Redis listens, in the hub and nowhere else
NOBODY = "02:00:00:00:00:ff"  # a link address that no host has
AUDIT = 100_000  # entries; more than any test here writes
INIT = 1  # a master's own pid, in its PID namespace

KEEPER = """
import socket, sys
socket.sethostname(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def tool(name: str) -> str:
    """Return where a program is."""
    return program(name, "iproute2" if name == "ip" else "util-linux")


class Space:
    """A network and a UTS namespace, kept by a process that does nothing else."""

    def __init__(self, hostname: str) -> None:
        keeper = [sys.executable, "-I", "-S", "-c", KEEPER, hostname]
        self.process = subprocess.Popen(
            dying_with_runner([tool("unshare"), "--net", "--uts", *keeper], signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if said != b"ready\n":
            said += self.process.communicate()[0]
            raise AssertionError(f"no namespaces, which only root may make: {said.decode()}")

    @property
    def entrance(self) -> list[str]:
        """Return the command that runs another one in here."""
        folder = f"/proc/{self.process.pid}/ns"
        return [tool("nsenter"), f"--net={folder}/net", f"--uts={folder}/uts", "--"]

    def ip(self, *commands: str) -> None:
        """Run commands of `ip` in here."""
        done = subprocess.run(
            [*self.entrance, tool("ip"), "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"ip refused one of {commands}: {done.stderr}"

    def close(self) -> None:
        """Let go of the namespaces. They vanish with whoever is last in them."""
        self.process.communicate(b"")


class HostStart(Start):
    """One run of `forkresque start` as the init of a new PID namespace on a host.

    The namespace's number is not given to another while this object is in use, as if each host
    were a machine of its own: who got it could tell that all before it are dead.
    """

    def __init__(self, space: Space, *args: str, url: str, env: Mapping[str, str]) -> None:
        unshare = [tool("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
        self._master: psutil.Process | None = None
        self._namespace: int | None = None
        super().__init__(*args, url=url, env=env, inside=[*space.entrance, *unshare])

    @property
    def pid(self) -> int:
        """The master's pid, as it is outside its namespace."""
        if self._master is None:
            self._master = wait_until(psutil.Process(self.process.pid).children, "a master")[0]
            self._namespace = os.open(f"/proc/{self._master.pid}/ns/pid", os.O_RDONLY)
        return self._master.pid

    def send_signal(self, signum: signal.Signals) -> None:
        """Send a signal to the master."""
        os.kill(self.pid, signum)

    def state(self) -> dict[str, Any]:
        """Return what the master says of itself; pids are those of its namespace."""
        return ask(self.runtime_directory / "forkresque" / f"{INIT}.sock", "status")

    def phases(self) -> list[str]:
        """Return what its workers do."""
        return [worker["phase"] for worker in self.state()["workers"]]

    def inmates(self) -> list[psutil.Process]:
        """Return the master and all its descendants, the master first."""
        master = psutil.Process(self.pid)
        return [master, *master.children(recursive=True)]

    def workers_inside(self) -> set[int]:
        """Return the pids of the workers, as they are in the master's namespace."""
        statuses = [Path(f"/proc/{one.pid}/status").read_text() for one in self.children("worker")]
        told = [line.split() for text in statuses for line in text.splitlines()]
        return {int(words[-1]) for words in told if words[0] == "NSpid:"}

    def die(self) -> None:
        """Kill all processes in one stroke: the kernel does it when an init dies."""
        inmates = self.inmates()
        self.send_signal(signal.SIGKILL)
        assert self.wait(5)  # what `unshare` makes of that is neither 0 nor always the signal
        assert not any(one.is_running() for one in inmates)

    def freeze(self) -> None:
        """Stop all processes, the master first, so that no other is forked meanwhile."""
        self.send_signal(signal.SIGSTOP)
        for process in self.inmates():
            process.suspend()

    def remove(self) -> None:
        """Remove log and runtime directory, and give the namespace's number back."""
        super().remove()
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None

    def thaw(self) -> None:
        """Let them all go on. Every one of them must have stood still."""
        inmates = self.inmates()
        assert {one.status() for one in inmates} == {psutil.STATUS_STOPPED}
        for process in inmates:
            process.resume()


class Host:
    """A machine, as far as its processes can tell, and its link to the hub."""

    def __init__(self, name: str, number: int, network: "Network", *, hostname: str) -> None:
        self.name = name
        self.space = Space(hostname)
        self._network = network
        self._link = f"to{number}"
        self._hub, self._address = f"10.77.{number}.1", f"10.77.{number}.2"
        network.hub.ip(
            f"link add {self._link} type veth peer name eth0 netns {self.space.process.pid}",
            f"address add {self._hub}/30 dev {self._link}",
            f"link set {self._link} up",
        )
        self.space.ip(
            "link set lo up",
            f"address add {self._address}/30 dev eth0",
            "link set eth0 up",
            f"route add default via {self._hub}",
        )

    def start(self, *args: str, lease: float, workers: int = 2, queues: str = "") -> HostStart:
        """Start a master here, for the queue of the host's name or for these. See `Network.run`."""
        options = ("-q", queues or self.name, "-c", str(workers), "--lease", str(lease))
        return self._network.run(self, *options, *args)

    def cut(self) -> None:
        """Take the link down: nothing gets through either way."""
        self._network.hub.ip(f"link set {self._link} down")

    def deafen(self) -> None:
        """Have what is sent to this host go astray. What it sends still arrives."""
        bogus = f"neighbour replace {self._address} lladdr {NOBODY} nud permanent"
        self._network.hub.ip(f"{bogus} dev {self._link}")

    def mute(self) -> None:
        """Have what this host sends go astray. What is sent to it still arrives."""
        self.space.ip(f"neighbour replace {self._hub} lladdr {NOBODY} nud permanent dev eth0")

    def heal(self) -> None:
        """Undo `cut`, `deafen` and `mute`."""
        self._network.hub.ip(
            f"link set {self._link} up",
            f"neighbour flush dev {self._link} nud permanent",
        )
        self.space.ip("neighbour flush dev eth0 nud permanent")

    def received(self) -> int:
        """Return how many packets have arrived at this host."""
        told = Path(f"/proc/{self.space.process.pid}/net/dev").read_text()
        return int(told.partition("eth0:")[2].split()[1])


class Network:
    """Redis in a hub, and hosts around it. At the end all is gone, and `say` hears the logs."""

    def __init__(
        self,
        ledger: Redis,
        ledger_url: str,
        *,
        appendonly: str | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._say = say
        self._ledger_url = ledger_url
        self._hosts: list[Host] = []
        self._starts: list[tuple[str, HostStart]] = []
        with ExitStack() as stack:
            self.hub = Space("hub")
            stack.callback(self.hub.close)
            self.hub.ip("link set lo up", f"address add {HUB}/32 dev lo")
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="forkresque-hub-"))
            )
            listen = ("--bind", HUB, "--protected-mode", "no")
            binary = self._in_the_hub(folder)
            self.server = stack.enter_context(Server(binary, appendonly=appendonly, args=listen))
            self.site = Site(stack.enter_context(closing(self.server.client())), ledger)
            self._stack = stack.pop_all()

    def _in_the_hub(self, folder: Path) -> Path:
        """Return a program that runs the server in the hub."""
        binary = next(iter(binaries().values()))
        program = folder / binary.name
        program.write_text(f'#!/bin/sh\nexec {" ".join(self.hub.entrance)} {binary} "$@"\n')
        program.chmod(0o700)
        return program

    def host(self, name: str, *, hostname: str = "") -> Host:
        """Return a new host; by default its own name for itself is `name`, too."""
        host = Host(name, len(self._hosts) + 1, self, hostname=hostname or name)
        self._hosts.append(host)
        self._stack.callback(host.space.close)
        return host

    def run(self, host: Host, *args: str) -> HostStart:
        """Start a master on a host. At the end it is killed, and its log told."""
        url, env = f"redis://{HUB}:{self.server.port}", {"LEDGER_URL": self._ledger_url}
        args = ("-A", "tests.support.jobs", "--audit", str(AUDIT), *args)
        start = HostStart(host.space, *args, url=url, env=env)
        self._starts.append((host.name, start))
        return start

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, start in self._starts:
            kill(start.left())
            start.process.wait()
            ended = f"which ended with {start.process.returncode}"
            self._say(f"-- log of {name}, {ended}\n{start.log()}")
            start.remove()
        self._stack.close()


def network_of(bench: Bench) -> Network:
    """Return a network with a Redis of its own, and a bench's ledger."""
    return bench.enter(Network(bench.site.ledger, bench.ledger_server.url, say=bench.say))


def await_workers(starts: Mapping[HostStart, int]) -> None:
    """Wait until each master has as many idle workers as it should."""
    for start, number in starts.items():
        idle_workers(start, number)


def drain(site: Site, *starts: HostStart) -> None:
    """End these masters, all of them in touch with Redis; nothing may be left of them."""
    for start in starts:
        wait_until(lambda start=start: start.state()["clerk"]["reached"], "a clerk in touch")  # type: ignore[misc]
    for start in starts:
        start.send_signal(signal.SIGTERM)
    for start in starts:
        assert start.wait(8) == ExitCode.OK
    for start in starts:  # when all have ended, for their keys are all in one place
        assert_nothing_left(start, site.redis)


# -- what jobs tell ----------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """One run of a `breathe` job: where, and from when to when, in monotonic seconds."""

    host: str
    began: float
    ended: float


def runs_of(site: Site, name: str) -> list[Run]:
    """Return the runs of a `breathe` job so far, the first before the second."""
    runs: dict[str, Run] = {}
    for breath in site.ledger.lrange(f"breaths:{name}", 0, -1):
        run, host, moment_ns = breath.decode().split()
        moment = int(moment_ns) / 1e9
        runs.setdefault(run, Run(host, moment, moment)).ended = moment
    return list(runs.values())


def await_runs(site: Site, number: int, *names: str, timeout: float = 10.0) -> list[Run]:
    """Wait until each of these jobs has begun so many times; return its last runs."""

    def begun() -> list[Run]:
        runs = [runs_of(site, name) for name in names]
        return [one[-1] for one in runs] if all(len(one) >= number for one in runs) else []

    return wait_until(begun, f"run {number} of {', '.join(names)}", timeout, 0.05)


def release(site: Site, *names: str, host: str = "") -> None:
    """Let `breathe` jobs end: all their runs, or those on one host."""
    for name in names:
        site.ledger.set(f"release:{name}:{host}" if host else f"release:{name}", "go")


def hand_out(site: Site, heir: HostStart, jobs: Mapping[str, Sequence[str]]) -> dict[str, bytes]:
    """Have each host begin its jobs, while the heir, which serves all queues, is paused.

    A host's queue has its name. A job is stubborn if its name says so. Returns their payloads.
    """
    pause(heir, signal.SIGUSR1)
    raws = {
        name: site.enqueue("breathe_on" if "stubborn" in name else "breathe", name, queue=host)
        for host, names in jobs.items()
        for name in names
    }
    for host, names in jobs.items():
        assert {run.host for run in await_runs(site, 1, *names)} == {host}
    pause(heir, signal.SIGCONT)
    return raws


def pause(start: HostStart, signum: signal.Signals) -> None:
    """Pause a master with SIGUSR1, or have it go on with SIGCONT; wait until it says so."""
    wanted = signum is not signal.SIGCONT
    start.send_signal(signum)
    wait_until(lambda: start.state()["paused"] is wanted, f"paused={wanted}")


# -- what Redis has written down ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Audited:
    """One entry of the audit stream: how a claim ended, when by Redis' clock, and whose it was."""

    event: str
    host: str
    token: str
    job: str
    at: float


def audited(site: Site) -> list[Audited]:
    """Return the whole audit stream."""
    entries = []
    for key, raw in site.redis.xrange(KEYS.audit()):
        told = {field.decode(): value.decode() for field, value in raw.items()}
        moment = int(key.partition(b"-")[0]) / 1000
        host = told["worker"].partition(":")[0]
        entries.append(Audited(told["event"], host, told["token"], told["job"], moment))
    assert len(entries) < AUDIT
    return entries


def assert_accounted_once(
    site: Site, raws: Mapping[str, bytes], recovered: Mapping[str, str]
) -> None:
    """Check that each job was done once, and that of all jobs only these were recovered, once.

    `recovered` maps a job's name to the host that had it in hand.
    """
    entries = audited(site)
    done = Counter(one.job for one in entries if one.event == Outcome.DONE)
    back = Counter((one.job, one.host) for one in entries if one.event == Recovery.REQUEUED)
    assert done == Counter(digest(raw) for raw in raws.values())
    assert back == Counter((digest(raws[name]), host) for name, host in recovered.items())
    assert {one.event for one in entries} <= {Outcome.DONE, Recovery.REQUEUED}
    assert (site.count("processed"), site.count("failed")) == (len(raws), 0)
    assert (site.slots(), site.failures()) == (0, [])
    assert (
        sum(
            site.redis.llen(KEYS.queue(name.decode()))
            for name in site.redis.smembers(KEYS.queues())
        )
        == 0
    )
