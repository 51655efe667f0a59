"""Floors and votes of the rooms: keeps them over a restart, looks when something is due, tells members and person.

Whose turn it is `floor` decides, what a ballot means `vote`. What is said out of turn is withheld by `moderator`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.gateway.floor import Called, Command, Floor, Over, Skipped, Warned
from cspd.gateway.history import History
from cspd.gateway.room import Rooms
from cspd.gateway.vote import Vote

log = logging.getLogger("cspd.rooms")

CLOCK_CHECK_SEC = 3600.0  # the wall clock may be set meanwhile


class House(Protocol):
    """The hub, as far as an assembly needs it."""

    @property
    def rooms(self) -> Rooms: ...
    @property
    def store(self) -> History: ...
    def reconsider(self, evidence: str) -> set[str]: ...
    def announce(self, room: str, recipients: Sequence[str], content: str) -> str: ...
    def activity(self, agent: str) -> str | None: ...


@attrs.define(eq=False)
class Assembly:
    """At most one floor and one vote for each room."""

    house: House
    floors: dict[str, Floor] = attrs.Factory(dict)
    votes: dict[str, Vote] = attrs.Factory(dict)
    _moved: trio.Event = attrs.Factory(trio.Event)

    def restore(self, kept: Mapping[str, Any]) -> None:
        for name, value in kept.items():
            kind, _, room = name.partition(" ")
            match kind:
                case "floor":
                    self.floors[room] = Floor.from_json(value)
                case "vote":
                    self.votes[room] = Vote.from_json(value)
                case "topic":
                    self.house.rooms.given[room] = value

    # ------------------------------------------------------------------ the floor

    def withholds(self, room: str, sender: str) -> bool:
        """Is it somebody else's turn?"""
        floor = self.floors.get(room)
        return floor is not None and not floor.may_speak(sender)

    def open(self, room: str, order: Sequence[str], rounds: int, turn_sec: float, chair: str) -> None:
        """From now on the members of `order` speak in turn."""
        floor = self.floors[room] = Floor(tuple(order), rounds, chair, turn_sec)
        self._perform(room, floor.advance(time.time()))

    def close(self, room: str) -> None:
        """Everybody may speak; what was held goes on."""
        if self.floors.pop(room, None) is not None:
            self._keep("floor", room, None)
            self._note(room, {"mode": "freeform"})
            self.house.reconsider("everybody may speak")
            self._moved.set()

    def next(self, room: str) -> None:
        """Raises CspError("no-floor")."""
        floor = self.floors.get(room)
        if floor is None:
            hint = f"cspctl room {room} --mode turns"
            raise CspError("no-floor", f"room: {room}: everybody may speak: there are no turns", hint)
        self._perform(room, floor.advance(time.time()))

    def set_topic(self, room: str, topic: str) -> None:
        self.house.rooms.given[room] = topic
        self._keep("topic", room, topic)
        self._note(room, {"topic": topic})

    def spoke(self, room: str, sender: str, cause: str | None) -> None:
        if (floor := self.floors.get(room)) is not None:
            floor.heard(sender, time.time(), cause)
            self._changed(room, floor)

    def turn_ended(self, agent: str, message_id: str) -> None:
        for room, floor in list(self.floors.items()):
            self._perform(room, floor.turn_ended(agent, message_id, time.time()))

    def forget(self, agent: str) -> None:
        """It was removed, or has left the room."""
        for room in list(self.floors | self.votes):
            self.left(room, agent)

    def left(self, room: str, agent: str) -> None:
        if (floor := self.floors.get(room)) is not None:
            self._perform(room, floor.without(agent, time.time()))
            self._changed(room, floor)
        if (vote := self.votes.get(room)) is not None:
            vote.without(agent)
            self._settle_vote(room, vote)

    def _perform(self, room: str, commands: Sequence[Command]) -> None:
        for command in commands:
            match command:
                case Called(name):
                    self._call(room, name)
                case Warned(name, left_sec):
                    self.house.announce(room, [name], f"It is still your turn in room {room}, for {left_sec:.0f} s.")
                case Skipped(name):
                    log.info("room %s: %s said nothing in time", room, name)
                    self._note(room, {"skipped": name})
                case Over():
                    self.close(room)
        if commands and (floor := self.floors.get(room)) is not None:
            self._changed(room, floor)

    def _call(self, room: str, name: str) -> None:
        floor = self.floors[room]
        self._note(room, {"mode": "turns", "speaker": name, "round": floor.round, "rounds": floor.rounds})
        early = name in self.house.reconsider(f"it is {name}'s turn")
        topic = self.house.rooms.topic(room)
        about = f" The topic: {topic}" if topic else ""
        text = f"It is your turn in room {room}, round {floor.round} of {floor.rounds}.{about}\nSpeak to all."
        floor.called(self.house.announce(room, [name], text), early)

    def _changed(self, room: str, floor: Floor) -> None:
        if self.floors.get(room) is floor:
            self._keep("floor", room, floor.as_json())
        self._moved.set()

    # ------------------------------------------------------------------ votes

    def open_vote(self, room: str, question: str, choices: Sequence[str], timeout_sec: float) -> Vote:
        """Raises CspError: "invalid-params", or "vote-open" when one is under way."""
        if room in self.votes:
            hint = f"cspctl room {room} close"
            raise CspError("vote-open", f"room: {room}: {self.votes[room].question!r:.80} is not decided", hint)
        voters = tuple(self.house.rooms.members(room))
        vote = self.votes[room] = Vote.opened(question, tuple(choices), voters, time.time() + timeout_sec)
        self._keep("vote", room, vote.as_json())
        self._note(room, {"vote": vote.question, "choices": list(vote.choices)})
        lines = [f"Vote: {vote.question}", *(f"{n}. {choice}" for n, choice in enumerate(vote.choices, 1))]
        self.house.announce(room, voters, "\n".join([*lines, "Send your choice, and nothing else, to: vote"]))
        self._moved.set()
        return vote

    def vote_in(self, room: str) -> Vote:
        """Raises CspError("no-vote")."""
        if room not in self.votes:
            hint = f'cspctl room {room} vote "question" A B'
            raise CspError("no-vote", f"room: {room}: no vote is open", hint)
        return self.votes[room]

    def ballot(self, room: str, voter: str, said: str) -> None:
        """It is on disk. One that came too late is not counted."""
        if (vote := self.votes.get(room)) is not None:
            vote.cast(voter, vote.choice(voter, said))
            self._settle_vote(room, vote)

    def _settle_vote(self, room: str, vote: Vote) -> None:
        if vote.missing:
            self._keep("vote", room, vote.as_json())
        else:
            self.close_vote(room)

    def close_vote(self, room: str) -> Vote:
        """Count and tell. Raises CspError("no-vote")."""
        vote = self.vote_in(room)
        del self.votes[room]
        self._keep("vote", room, None)
        counts = {choice: len(voters) for choice, voters in vote.counts().items()}
        self._note(room, {"vote": vote.question, "result": vote.winners(), "counts": counts, "ballots": vote.ballots})
        self.house.announce(room, self.house.rooms.members(room), _result(vote))
        self._moved.set()
        return vote

    # ------------------------------------------------------------------ time, and telling

    async def run(self) -> None:
        """For ever: look when something is due."""
        while True:
            self._moved = trio.Event()
            due = [floor.due_ts for floor in self.floors.values()] + [vote.due_ts for vote in self.votes.values()]
            at = min(due, default=float("inf"))
            with trio.move_on_after(min(max(0.0, at - time.time()), CLOCK_CHECK_SEC)):
                await self._moved.wait()
            self._look(time.time())

    def _look(self, now_ts: float) -> None:
        for room, floor in list(self.floors.items()):
            if now_ts >= floor.due_ts:
                self._perform(room, floor.tick(now_ts, self.house.activity(floor.speaker) == "busy"))
        for room, vote in list(self.votes.items()):
            if now_ts >= vote.due_ts:
                self.close_vote(room)

    def described(self, room: str) -> dict[str, Any]:
        floor, vote = self.floors.get(room), self.votes.get(room)
        said = {} if floor is None else {"speaker": floor.speaker, **floor.as_json()}
        return {
            "mode": "freeform" if floor is None else "turns",
            "floor": said or None,
            "vote": None if vote is None else {**vote.as_json(), "missing": vote.missing},
        }

    def _note(self, room: str, data: Mapping[str, Any]) -> None:
        self._try("an event", lambda: self.house.store.add_event("room", room, "", data, time.time()))

    def _keep(self, kind: str, room: str, value: object) -> None:
        self._try("its state", lambda: self.house.store.keep(f"{kind} {room}", value))

    def _try(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except CspError as exc:
            log.error("%s is not kept: %s", what, exc)  # the debate goes on whatever the disk does


def _result(vote: Vote) -> str:
    winners = vote.winners()
    head = "no votes" if not winners else winners[0] if len(winners) == 1 else f"a tie of {', '.join(winners)}"
    lines = [f"{choice}: {len(who)} ({', '.join(who) or 'nobody'})" for choice, who in vote.counts().items()]
    silent = [f"did not vote: {', '.join(vote.missing)}"] if vote.missing else []
    return "\n".join([f"The vote is over: {vote.question}", f"Result: {head}", *lines, *silent])
