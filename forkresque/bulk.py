"""Many jobs in portions: what one request stores, as a whole or not at all."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from forkresque.errors import InvalidArgs

PORTION = 1000  # jobs that one request stores at most
PORTION_BYTES = 1024 * 1024  # with so many it takes no further job

Job = tuple[str, str, object]


@dataclass(slots=True)
class Portion:
    """Payloads by queue, in their order; `alone` is the name of the one job that hooks see."""

    queues: dict[str, list[bytes]] = field(default_factory=dict)
    size: int = 0
    weight_bytes: int = 0
    alone: str = ""

    @property
    def is_full(self) -> bool:
        """Return whether the next job goes into another portion."""
        return self.size >= PORTION or self.weight_bytes >= PORTION_BYTES

    @property
    def first(self) -> tuple[str, bytes]:
        """Return the first job: its queue and its payload."""
        queue, payloads = next(iter(self.queues.items()))
        return queue, payloads[0]

    def add(self, queue: str, payload: bytes) -> None:
        """Take one job."""
        self.queues.setdefault(queue, []).append(payload)
        self.size += 1
        self.weight_bytes += len(payload)


def portions(
    jobs: Iterable[Job], *, encode: Callable[..., bytes], hooked: Callable[[str], object]
) -> Iterator[Portion]:
    """Yield portions of jobs. The same jobs make the same portions.

    `encode` takes queue, name and arguments; what `hooked` says of a job's name is true if the job
    is to be alone. Raises InvalidArgs for what is no job, and what `encode` raises.
    """
    portion = Portion()
    for job in jobs:
        queue, name, args = _parts(job)
        payload = encode(queue, name, args)
        alone = hooked(name)
        if portion.size and (alone or portion.is_full):
            yield portion
            portion = Portion()
        portion.add(queue, payload)
        if alone:
            portion.alone = name
            yield portion
            portion = Portion()
    if portion.size:
        yield portion


def _parts(job: Job) -> Job:
    try:
        queue, name, args = job
    except (TypeError, ValueError):
        raise InvalidArgs(
            f"a job of a bulk is a queue, a name and arguments, got {job!r}",
            hint='write ("mail", "send", ["a@b"])',
        ) from None
    return queue, name, args
