"""What led to what: in whose turn an agent speaks, and how many agents spoke since a person did. Pure.

Each message of an agent carries its chain in `meta.chain`, decided here and never by the caller. What a chain may do
is `loopguard`'s.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from cspd.gateway.identity import HUMAN

SYSTEM = "system"  # the sender of what CSP itself says in a room
LATE_SEC = 30.0  # so long after its turn an agent still speaks of it: what runs in its background is slower than it
SILENT_SEC = 600.0  # the same for a message whose turn was never seen to begin: some programs show none
OPEN = ("echoed", "submitted", "turn_started")
TURNS_MAX = 32  # of one agent; with more of them open the oldest cannot be the one that it speaks of


@attrs.frozen
class Chain:
    """The place of one message: `root` began it, `cause` led to it, `hops` messages of agents are in it up to here."""

    root: str
    cause: str | None
    hops: int

    def as_json(self) -> dict[str, Any]:
        return attrs.asdict(self)

    @classmethod
    def of(cls, message_id: str, sender: str, meta: Mapping[str, Any]) -> "Chain":
        """That of a stored message. A person's begins one, and so does one of a time when no chain was kept."""
        match None if sender in (HUMAN, SYSTEM) else meta.get("chain"):
            case {"root": str(root), "cause": str() | None as cause, "hops": int(hops)}:
                return cls(root, cause, hops)
        return cls.begun(message_id, sender)

    @classmethod
    def begun(cls, message_id: str, sender: str) -> "Chain":
        """Nothing led to this message. An agent's own counts as one of an agent."""
        return cls(message_id, None, 0 if sender in (HUMAN, SYSTEM) else 1)


@attrs.frozen
class Cause:
    """A message that may lead to others."""

    message_id: str
    chain: Chain

    @classmethod
    def of(cls, message_id: str, sender: str, meta: Mapping[str, Any]) -> "Cause":
        return cls(message_id, Chain.of(message_id, sender, meta))


def place(own_id: str, sender: str, turn: Cause | None, replied: Cause | None) -> Chain:
    """The chain of a new message. A turn counts before a reply: the caller chooses what it replies to."""
    cause = turn or replied
    if cause is None or sender in (HUMAN, SYSTEM):
        return Chain.begun(own_id, sender)
    return Chain(cause.chain.root, cause.message_id, cause.chain.hops + 1)


@attrs.define
class Turn:
    """What an agent does about one message that it was given. `ts` is the time of the step."""

    cause: Cause
    step: str
    ts: float


@attrs.define
class Turns:
    """The turns of every agent, the newest last. Steps come in the order in which they happened."""

    _of: dict[str, list[Turn]] = attrs.Factory(dict)

    def stepped(self, agent: str, cause: Cause, step: str, ts: float) -> None:
        """A message to `agent` has come so far. Before `echoed` it cannot have led to anything."""
        turns = self._of.get(agent, [])
        at = next((at for at, turn in enumerate(turns) if turn.cause == cause), None)
        if step not in OPEN and step != "turn_ended":
            if at is not None:
                del turns[at]  # it was about to be submitted, and was not
        elif at is None:
            self._of[agent] = [*turns[1 - TURNS_MAX :], Turn(cause, step, ts)]
        else:
            turns[at].step, turns[at].ts = step, ts
            if step == "turn_ended":
                del turns[:at]  # it reads again: whatever came before is over too

    def typed(self, agent: str, message_id: str, ts: float) -> None:
        """A person submitted this line in the agent's own terminal: that is what the agent is about now."""
        self._of[agent] = [Turn(Cause(message_id, Chain.begun(message_id, HUMAN)), "submitted", ts)]

    def forget(self, agent: str) -> None:
        self._of.pop(agent, None)

    def speaks_of(self, agent: str, now_ts: float) -> Cause | None:
        """Whose turn the agent is in: of the newest message that it has and whose turn was not seen to end.

        A fast program answers before the submit is proved, so `echoed` may do; not while another turn is known to go
        on. Where no turn is open the last one counts for a while, because an end may be seen before its last words.
        """
        turns = self._of.get(agent, [])
        at_work = any(turn.step == "turn_started" for turn in turns)
        for turn in reversed(turns):
            if turn.step == "turn_started" or (turn.step == "echoed" and not at_work):
                return turn.cause
            if turn.step == "submitted" and now_ts - turn.ts <= SILENT_SEC:
                return turn.cause
        return next((turn.cause for turn in turns if turn.step == "turn_ended" and now_ts - turn.ts <= LATE_SEC), None)
