"""How each Resque spells one and the same job, and which jobs are equal.

node-resque writes class, queue, args, with JavaScript's numbers. Ruby writes class, args, and
while the job is delayed its queue after them, with floats that stay floats. A job is found and
removed by its bytes, so these spellings are looked for first; whoever wrote in yet another way
is found by what the bytes say. Nothing here is for writing: a job is kept as it came.
"""

from typing import Any

from forkresque.errors import InvalidArgs, InvalidPayload
from forkresque.protocol.canonical import MAX_LEVELS, decode, encode, encode_as_ruby
from forkresque.protocol.payload import parse


class Sought:
    """A job that is looked for: its queue, its name and its arguments.

    Equal is a job with the same name and arguments, and with the same queue if it names one.
    Further fields, such as an id, make no difference. Raises InvalidArgs for an empty name and
    for arguments that JSON cannot carry; integers may be of any size, for a Ruby may have sent
    them.
    """

    def __init__(self, queue: str, name: str, args: list[Any] | tuple[Any, ...]) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidArgs(f"a job's name must be a string that is not empty, got {name!r}")
        plain = encode(args, name="args", allow_bigint=True, levels=MAX_LEVELS - 1)
        self.queue = queue
        self.name = name
        self._args = decode(plain)
        self._texts = list(dict.fromkeys((plain, encode_as_ruby(args, name="args"))))
        self._class, self._queue = encode(name), encode(queue)

    def delayed(self) -> list[bytes]:
        """Return the job as node-resque and Ruby spell it while it is delayed, ours first."""
        node = [b'{"class":%b,"queue":%b,"args":%b}' % each for each in self._parts()]
        ruby = [
            b'{"class":%b,"args":%b,"queue":%b}' % (name, args, queue)
            for name, queue, args in self._parts()
        ]
        return node + ruby

    def waiting(self) -> list[bytes]:
        """Return the job as it may wait in its queue: as both put it there, or promoted by us."""
        ruby = [b'{"class":%b,"args":%b}' % (name, args) for name, _, args in self._parts()]
        return self.delayed() + ruby

    def fits(self, raw: bytes) -> bool:
        """Return whether this payload is an equal job. Never raises."""
        if self._class not in raw and b"\\" not in raw:  # spares us to decode all others
            return False
        try:
            job = parse(raw)
        except InvalidPayload:
            return False
        return (
            job.name == self.name and job.queue in (None, self.queue) and same(job.args, self._args)
        )

    def _parts(self) -> list[tuple[bytes, bytes, bytes]]:
        return [(self._class, self._queue, text) for text in self._texts]


def same(one: Any, other: Any) -> bool:
    """Return whether two decoded JSON values are equal.

    Numbers are by value, so 1 is 1.0, as in JavaScript; yet large integers are not rounded, or ids
    that differ would be equal. True is no number. The order of keys makes no difference.
    """
    pairs = [(one, other)]
    while pairs:
        left, right = pairs.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            pairs += [(value, right[key]) for key, value in left.items()]
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            pairs += zip(left, right, strict=True)
        elif isinstance(left, bool) is not isinstance(right, bool) or left != right:
            return False
    return True
