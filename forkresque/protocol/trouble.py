"""What an error of redis-py, or of a socket, means to us.

There are three kinds: nothing was done and asking again is safe, nobody knows what was done, and
Redis has refused. Messages say where Redis is, and no password.
"""

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterCrossSlotError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from forkresque.errors import BadKey, ForkresqueError, RedisRefused, RedisUnavailable
from forkresque.protocol.address import Address
from forkresque.protocol.cluster import ELSEWHERE

TROUBLE = (RedisError, OSError)
_REFUSALS = (ResponseError, AuthenticationError, AuthorizationError)
_OUTSIDE = (
    "in a Redis Cluster every key must have the namespace's hash tag, as {resque}; "
    "so must a key that a plugin is given"
)


def translated(error: Exception, address: Address, *, sent: bool = True) -> ForkresqueError:
    """Return what an error of redis-py, or of a socket, means to us."""
    place = address.place
    if isinstance(error, AskError) and error.slot_id != address.slot:
        return _misplaced(error, address)
    if passing := _passing(error, place):
        return RedisUnavailable(passing, sent=False)
    if isinstance(error, _REFUSALS):
        return _refusal(error, place)
    if not sent:
        return RedisUnavailable(f"cannot reach Redis at {place}: {error}", sent=False)
    late = isinstance(error, BlockingIOError) or isinstance(error.__context__, BlockingIOError)
    told = "it took longer than its timeout" if late else error
    return RedisUnavailable(f"no answer from Redis at {place}: {told}")


def _passing(error: Exception, place: str) -> str:
    """Return what keeps Redis from answering for now, or nothing; then nothing was done."""
    if isinstance(error, AskError | TryAgainError):
        return f"the keys at {place} are moving to another node: {error}"
    if isinstance(error, ELSEWHERE):
        return f"{place} is no primary: {error}"
    return f"Redis at {place} is busy: {error}" if is_busy(error) else ""


def _misplaced(error: AskError, address: Address) -> RedisRefused:
    """Return what it means that a key is on another node of a Cluster than we look at."""
    if address.slot is None:
        return RedisRefused(
            f"Redis at {address.place} is a node of a Cluster, and another has the key: {error}",
            hint="use cluster://host:port,host:port, which finds the node",
        )
    return _refusal(error, address.place, hint=_OUTSIDE)


def _refusal(error: Exception, place: str, hint: str = "") -> RedisRefused:
    if str(error).startswith("WRONGTYPE"):
        return BadKey(f"a key holds another type than Resque keeps there: {error}")
    if isinstance(error, ClusterCrossSlotError):
        hint = _OUTSIDE
    return RedisRefused(f"Redis at {place} refused: {error}", hint=hint)


def is_busy(error: Exception) -> bool:
    """Return whether some client's long script keeps Redis from this: it passes."""
    return isinstance(error, ResponseError) and str(error).startswith("BUSY ")
