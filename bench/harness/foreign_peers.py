"""The peers in other languages."""

from bench.harness.contestant import Contestant

FOREIGN_PEERS: tuple[Contestant, ...] = ()
