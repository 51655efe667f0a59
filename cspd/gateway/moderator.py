"""Who may say how much, and what led to it: the hub asks here for each message, and tells of each commit.

Owns what is known of the agents' turns and the loop guard's stops, and keeps both over a restart. What is counted, and
when it is too much, is `loopguard`'s to decide; which turn a message comes from, `chain`'s; who has the floor,
`assembly`'s; which message somebody waits for as an answer, `question`'s.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs

from cspd.errors import CspError
from cspd.gateway import assembly
from cspd.gateway.assembly import Assembly
from cspd.gateway.chain import SYSTEM, Cause, Chain, Turns, place
from cspd.gateway.history import Accepted, Event, History, Message
from cspd.gateway.identity import HUMAN
from cspd.gateway.loopguard import LoopGuard, Stop, Utterance, digest_of
from cspd.gateway.question import ASK, Questions
from cspd.gateway.room import VOTE

log = logging.getLogger("cspd.guard")

REPLAYED = 2000  # events; what an agent is about is among the last ones, and a restart of cspd must be short
KEPT = "loop_guard"  # the reason of a delivery, and the name of the state
FLOOR = "floor"


class House(assembly.House, Protocol):
    """The hub, as far as moderation needs it."""

    def notify(self, room: str, text: str) -> None: ...


@attrs.define(eq=False)
class Moderator:
    """Nothing here waits; what is decided is on its way to the disk when it takes effect."""

    house: House
    assembly: Assembly = attrs.field(init=False)
    turns: Turns = attrs.Factory(Turns)
    guard: LoopGuard = attrs.Factory(LoopGuard)
    questions: Questions = attrs.Factory(Questions)
    notify: bool = True  # also the terminals that are attached
    _stopping: dict[str, tuple[Stop, ...]] = attrs.Factory(dict)  # by the message that did it, until it is on disk
    _resuming: dict[str, str] = attrs.Factory(dict)  # the same for a person's replies: the root of the chain

    def __attrs_post_init__(self) -> None:
        self.assembly = Assembly(self.house)

    async def start(self, history: History) -> None:
        """Take over what the cspd before us knew."""
        kept = await history.kept()
        self.assembly.restore(kept)
        if KEPT in kept:
            self.guard.restore(kept[KEPT])
        causes: dict[str, Cause] = {}
        for event in await history.events(max(0, history.committed_cursor - REPLAYED), REPLAYED):
            if event.type == "message":
                causes[event.data["message_id"]] = self._replayed(event)
            elif event.type == "delivery" and (cause := causes.get(event.data["message_id"])):
                self.turns.stepped(event.agent, cause, event.data["step"], event.ts)

    def _replayed(self, event: Event) -> Cause:
        data = event.data
        cause = Cause.of(data["message_id"], data["from"], data["meta"])
        if data["kind"] == "input":
            self.turns.typed(data["to"], data["message_id"], event.ts)
        elif cause.chain.hops:
            going = tuple(name for name, first in data["deliveries"].items() if first["reason"] != KEPT)
            digest = digest_of(data["content"])
            self.guard.count(Utterance(data["from"], going, data["room"], cause.chain, digest, event.ts), going)
        return cause

    # ------------------------------------------------------------------ a message comes

    def stamped(self, said: Message, reply_to: Message | None) -> Message:
        """With its chain, if it is an agent's; what the caller says of one does not count."""
        meta = {key: value for key, value in said.meta.items() if key != "chain"}
        replied = None
        if reply_to is not None:
            meta["reply_to"] = reply_to.message_id
            replied = Cause.of(reply_to.message_id, reply_to.sender, reply_to.meta)
            if said.sender == HUMAN:
                self._resuming[said.message_id] = replied.chain.root
        chain = place(said.message_id, said.sender, self.turns.speaks_of(said.sender, said.ts), replied)
        if not chain.hops and not said.meta and not meta:
            return said  # nearly always
        return attrs.evolve(said, meta=meta | ({"chain": chain.as_json()} if chain.hops else {}))

    def admit(self, said: Message, recipients: Sequence[str]) -> dict[str, tuple[str, str]]:
        """The first (step, reason) of each delivery. Raises CspError for a ballot that means nothing."""
        if said.to == VOTE:
            self.assembly.vote_in(said.room).choice(said.sender, said.content)
        firsts = dict.fromkeys(recipients, ("accepted", ""))
        if said.sender in (HUMAN, SYSTEM) or not recipients:
            return firsts
        verdict = self.guard.judge(_utterance(said, tuple(recipients)))
        if verdict.stops:
            self._stopping[said.message_id] = verdict.stops
            self._keep()
        if self.assembly.withholds(said.room, said.sender):
            firsts = dict.fromkeys(recipients, ("held", FLOOR))
        awaited = [name for name in recipients if self.questions.awaits(name, said.sender, said.kind, said.meta)]
        return firsts | dict.fromkeys(awaited, ("held", ASK)) | dict.fromkeys(verdict.held, ("held", KEPT))

    def reason(self, said: Message, recipient: str) -> str:
        """Why this delivery is withheld now; "" when it may go on."""
        if said.sender in (HUMAN, SYSTEM):
            return ""
        if self.guard.stopped(_utterance(said, (recipient,)), recipient):
            return KEPT
        if self.questions.awaits(recipient, said.sender, said.kind, said.meta):
            return ASK
        return FLOOR if self.assembly.withholds(said.room, said.sender) else ""

    def committed(self, record: Event | Accepted, message: Message | None) -> None:
        """It is on disk; `message` is the one that a delivery is about, when it is known."""
        if isinstance(record, Accepted):
            for stop in self._stopping.pop(record.message_id, ()):
                self._tell(stop)
            if record.kind == "input":
                self.turns.typed(str(record.to), record.message_id, record.ts)
            elif record.to == VOTE:
                self.assembly.ballot(record.room, record.sender, record.content)
            elif record.sender == HUMAN:
                self._person_spoke(record)
            else:
                self.assembly.spoke(
                    record.room, record.sender, Chain.of(record.message_id, record.sender, record.meta).cause
                )
        elif record.type == "delivery" and message is not None:
            cause = Cause.of(message.message_id, message.sender, message.meta)
            self.turns.stepped(record.agent, cause, record.data["step"], record.ts)
            if record.data["step"] == "turn_ended":
                self.assembly.turn_ended(record.agent, message.message_id)

    def forget(self, agent: str) -> None:
        """It was removed."""
        self.turns.forget(agent)
        self.guard.forget(agent)
        self.release(lambda stop: stop.kind != "chain" and agent in stop.names, f"{agent} was removed")
        self.assembly.forget(agent)

    # ------------------------------------------------------------------ stopping and letting go

    def _tell(self, stop: Stop) -> None:
        """The person is asked, wherever he may be looking."""
        log.warning("loop guard: room %s: %s: messages are held until `cspctl resume`", stop.room, stop.why)
        self._note(stop, True)
        if self.notify:
            self.house.notify(stop.room, f"{stop.why}: messages are held. cspctl resume --room {stop.room}")

    def _person_spoke(self, message: Accepted) -> None:
        root = self._resuming.pop(message.message_id, None)
        self.release(
            lambda stop: stop.room == message.room or (stop.kind == "chain" and stop.key == (root,)),
            f"a person spoke in room {message.room}",
        )

    def resume(self, scope: str, name: str) -> list[Stop]:
        """`cspctl resume`: what concerns this agent, or this room, goes on."""

        def concerned(stop: Stop) -> bool:
            return name in stop.names if scope == "agent" else name == stop.room

        return self.release(concerned, f"{scope} {name} was resumed")

    def release(self, which: Callable[[Stop], bool], why: str) -> list[Stop]:
        released = self.guard.release(which)
        if released:
            self._keep()
            for stop in released:
                log.info("loop guard: room %s: goes on: %s", stop.room, why)
                self._note(stop, False)
            self.house.reconsider(why)
        return released

    def described(self, room: str) -> list[dict[str, Any]]:
        """What is stopped in this room, for people."""
        return [stop_json(stop) for stop in self.guard.stops.values() if stop.room == room]

    def why_held(self, agent: str) -> str:
        """Why messages of or for this agent wait, if the guard holds some."""
        return "; ".join(stop.why for stop in self.guard.stops.values() if agent in stop.names)

    def _note(self, stop: Stop, held: bool) -> None:
        try:
            data = {"held": held, **stop_json(stop)}
            self.house.store.add_event("guard", stop.room, "", data, time.time())
        except CspError as exc:
            log.error("loop guard: an event is not kept: %s", exc)

    def _keep(self) -> None:
        try:
            self.house.store.keep(KEPT, self.guard.as_json())
        except CspError as exc:
            log.error("loop guard: not kept over a restart: %s", exc)  # what is held is: by its deliveries


def stop_json(stop: Stop) -> dict[str, Any]:
    return {"kind": stop.kind, "names": list(stop.names), "why": stop.why, "since": stop.ts}


def _utterance(said: Message, recipients: tuple[str, ...]) -> Utterance:
    chain = Chain.of(said.message_id, said.sender, said.meta)
    return Utterance(said.sender, recipients, said.room, chain, digest_of(said.content), said.ts)
