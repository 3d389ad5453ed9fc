"""Every order in which a few actors can say what they have to say to Redis.

An actor is a function that asks Redis questions through what it is given, a stand-in for a Link or
a Client: our own code, or a transcript of a foreign tool. Its next question follows from the
answers so far, so it is found by playing the actor again with those answers, up to the first
question that has none yet. Nothing waits and nothing runs at the same time: the order is ours.

A schedule names the actor of each step. A prefix of a schedule is a schedule, too: in it those who
have not ended have died, between any two of their questions. Explored are therefore all nodes of
the tree of orders, each on a fresh Redis. Orders that lead to the same data and leave each actor
with the same answers have one future, so only the first of them is followed any further.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from forkresque.protocol.connection import Link, Target
from forkresque.protocol.script import Call, Scalar

Actor = Callable[[Any], object]
Schedule = tuple[str, ...]

_END_EARLY = 0.07  # how often somebody dies at each step of a schedule by chance

_TIME = [b"%d" % time.time(), b"0"]  # stands still, or no two orders would lead to the same

# A stream's ids are times, so of a stream only the values count.
_CONTENTS = """
local found, keys = {}, redis.call("KEYS", "*")
table.sort(keys)
for _, key in ipairs(keys) do
  if redis.call("TYPE", key).ok == "stream" then
    for _, entry in ipairs(redis.call("XRANGE", key, "-", "+")) do
      table.insert(found, table.concat(entry[2], " "))
    end
  else
    table.insert(found, key .. redis.call("DUMP", key))
  end
end
return redis.sha1hex(table.concat(found, "\\n"))
"""


@dataclass(frozen=True, slots=True)
class Question:
    """What an actor says in one step: a script, a command, or several commands in a MULTI."""

    said: Call | tuple[tuple[Scalar, ...], ...]

    @property
    def word(self) -> str:
        """Return the command's name; of a transaction that is MULTI, of a script EVAL."""
        if isinstance(self.said, Call):
            return "EVAL"
        return str(self.said[0][0]) if len(self.said) == 1 else "MULTI"

    def ask(self, link: Link) -> Any:
        """Send it, and return the answer; of a transaction that of EXEC, None for an abort."""
        if isinstance(self.said, Call):
            return link.call(self.said)
        if len(self.said) == 1:
            return link.command(*self.said[0])
        link.command("MULTI")
        for words in self.said:
            link.command(*words)
        return link.command("EXEC")


class Unanswered(BaseException):
    """Stops an actor at its next question; a BaseException, so that no actor catches it."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question


class Memory:
    """What an actor talks to: the answers it got before, and then `Unanswered`."""

    tracking = False

    def __init__(self, told: "list[tuple[Question, Any]]") -> None:
        self._told = told
        self._asked = 0

    def call(self, call: Call, *, armed: bool = False) -> Any:
        return self._answer(Question(call))

    def command(self, *words: Scalar, armed: bool = False) -> Any:
        return self._answer(Question((words,)))

    def transaction(self, *commands: tuple[Scalar, ...]) -> Any:
        """Say MULTI, the commands, two or more, and EXEC; nobody can come between."""
        assert len(commands) > 1, commands
        return self._answer(Question(commands))

    def _answer(self, question: Question) -> Any:
        if self._asked == len(self._told):
            raise Unanswered(question)
        before, answer = self._told[self._asked]
        assert before == question, f"an actor that was told the same asked {question}, not {before}"
        self._asked += 1
        return answer


@dataclass(slots=True)
class _Moment:
    """A place in an actor's life: its next question, or its end; and what each answer leads to."""

    question: Question | None
    result: object = None
    after: "dict[str, _Moment]" = field(default_factory=dict)
    watches: bool = False  # of a birth: whether this life has ever come to a WATCH


class Player:
    """One actor in one play."""

    def __init__(self, actor: Actor, link: Link, birth: _Moment) -> None:
        if birth.watches:
            link.command("UNWATCH")  # in the play before it may have died before its EXEC
        self._actor = actor
        self._link = link
        self._moment = self._birth = birth
        self.told: list[tuple[Question, Any]] = []
        self.watching = False

    @property
    def ended(self) -> bool:
        """Return whether it has nothing more to ask."""
        return self._moment.question is None

    @property
    def result(self) -> object:
        """Return what the actor returned, None while it has not ended."""
        return self._moment.result

    @property
    def place(self) -> int:
        """Return what stands for all that it was told."""
        return id(self._moment)

    def step(self) -> None:
        """Ask the next question."""
        question = self._moment.question
        assert question is not None, "a player who has ended was asked to go on"
        answer = _TIME if question.word == "TIME" else question.ask(self._link)
        if question.word in ("WATCH", "MULTI", "UNWATCH"):
            self.watching = question.word == "WATCH"
        self._birth.watches |= self.watching
        self.told.append((question, answer))
        known = self._moment.after
        if (key := repr(answer)) not in known:
            known[key] = _moment(self._actor, self.told)
        self._moment = known[key]


def _moment(actor: Actor, told: list[tuple[Question, Any]]) -> _Moment:
    try:
        return _Moment(None, actor(Memory(told)))
    except Unanswered as stop:
        return _Moment(stop.question)


@dataclass(slots=True)
class Play:
    """What has happened in a schedule so far; Redis is as it left it."""

    players: dict[str, Player]
    schedule: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        """Let one actor ask its next question."""
        self.players[name].step()
        self.schedule.append(name)

    def ended(self, *names: str) -> bool:
        """Return whether these actors came to their end."""
        return all(self.players[name].ended for name in names)

    def result(self, name: str) -> Any:
        """Return what an actor returned, None if it died before."""
        return self.players[name].result

    def told(self, name: str) -> list[tuple[Question, Any]]:
        """Return what an actor asked, and the answers."""
        return self.players[name].told

    def choices(self) -> list[str]:
        """Return who may go on."""
        return [name for name, player in self.players.items() if not player.ended]

    @property
    def watched(self) -> bool:
        """Return whether somebody's next EXEC depends on more than what Redis holds now."""
        return any(player.watching for player in self.players.values())


class Interleaver:
    """The plays of some actors, each on a Redis that holds what `setup` puts there and no more."""

    def __init__(
        self, target: Target, setup: Callable[[Link], object], actors: Mapping[str, Actor]
    ) -> None:
        self.client = target.client()
        self._actors = dict(actors)
        self._births = {name: _moment(actor, []) for name, actor in actors.items()}
        self._links = {name: target.link() for name in actors}
        self.client.command("FLUSHALL")
        with closing(target.link()) as link:
            setup(link)
        self._begin: list[tuple[Scalar, ...]] = [("FLUSHALL",), *self._snapshot()]

    def all_plays(self) -> Iterator[Play]:
        """Carry out every schedule, each once, and yield it for the caller to look at."""
        waiting: list[Schedule] = [()]
        known: set[tuple[object, ...]] = set()
        while waiting:
            schedule = waiting.pop()
            play = self.play(schedule)
            state = self._state(play)  # before the caller does anything
            yield play
            if play.watched or state not in known:
                known.add(state)
                waiting += [(*schedule, name) for name in reversed(play.choices())]

    def some_plays(self, number: int, seed: int) -> Iterator[Play]:
        """Carry out so many schedules by chance, and yield each that was not there before."""
        chance = random.Random(seed)
        seen: set[Schedule] = set()
        for _ in range(number):
            play = self.play()
            while (choices := play.choices()) and chance.random() > _END_EARLY:
                play.step(chance.choice(choices))
            if tuple(play.schedule) not in seen:
                seen.add(tuple(play.schedule))
                yield play

    def play(self, schedule: Schedule = ()) -> Play:
        """Carry out one schedule."""
        self.client.commands(*self._begin)
        players = {
            name: Player(actor, self._links[name], self._births[name])
            for name, actor in self._actors.items()
        }
        play = Play(players)
        for name in schedule:
            play.step(name)
        return play

    def _state(self, play: Play) -> tuple[object, ...]:
        contents = self.client.command("EVAL", _CONTENTS, 0)
        return contents, *(player.place for player in play.players.values())

    def close(self) -> None:
        self.client.close()
        for link in self._links.values():
            link.close()

    def _snapshot(self) -> Iterator[tuple[Scalar, ...]]:
        for key in self.client.command("KEYS", "*"):
            left, dump = self.client.commands(("PTTL", key), ("DUMP", key))
            yield ("RESTORE", key, max(left, 0), dump)
