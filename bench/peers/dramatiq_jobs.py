"""Dramatiq's actors, and its producer."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers.kinds import KINDS
from bench.peers.producing import produce

broker = RedisBroker(url=os.environ["BENCH_REDIS"])
dramatiq.set_broker(broker)
actors = {
    name: dramatiq.actor(function, actor_name=name, broker=broker)
    for name, function in KINDS.items()
}


def put(kind: str, number: int) -> None:
    actors[kind].send(number)


if __name__ == "__main__":
    produce(put)
