"""What waits for one agent, and what its sidecar was given of it. Pure.

The order of messages is kept; a bounded window of them is with the sidecar at a time. After a lost link nothing is
given a second time unless the sidecar's ledger shows that it was never touched.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

WINDOW = 16  # messages with the sidecar at a time; the rest waits here and on disk
FINAL = frozenset({"submitted", "turn_started", "turn_ended", "refused", "expired", "unknown"})
WITHHELD = frozenset({"loop_guard", "floor", "ask"})  # reasons to hold a message back from its agent's sidecar
RANK: Mapping[str, int] = {
    "accepted": 0,
    "held": 1,
    "typing": 2,
    "echoed": 3,
    "submitted": 4,
    "refused": 4,
    "expired": 4,
    "unknown": 4,
    "turn_started": 5,
    "turn_ended": 6,
}


@attrs.frozen
class Give:
    """Hand this message to the sidecar."""

    message_id: str


@attrs.frozen
class Record:
    """Write down this step of a message."""

    message_id: str
    step: str
    reason: str = ""
    evidence: str = ""


Command = Give | Record


@attrs.frozen
class InHand:
    """A message that the sidecar, or the one before it, has in hand. `follows`: its steps come one by one after."""

    message_id: str
    step: str
    reason: str = ""
    follows: bool = False

    @classmethod
    def from_wire(cls, entry: Mapping[str, Any]) -> "InHand":
        message_id, step, reason = (str(entry.get(key, "")) for key in ("message_id", "step", "reason"))
        return cls(message_id, step, reason, entry.get("follows") is True)


@attrs.define
class Item:
    message_id: str
    step: str = "accepted"
    reason: str = ""
    given: bool = False
    expires_ts: float = float("inf")

    @property
    def withheld(self) -> bool:
        """It waits for a word, not for the agent: later ones go first, and it does not expire."""
        return self.step == "held" and self.reason in WITHHELD


@attrs.define
class Inbox:
    """Messages of one agent that have not reached a final step, in order."""

    items: dict[str, Item] = attrs.Factory(dict)
    linked: bool = False

    def __len__(self) -> int:
        return len(self.items)

    def posted(self, item: Item) -> list[Command]:
        self.items[item.message_id] = item
        return self._offline() if not self.linked else self._give()

    def restored(self, items: Iterable[Item]) -> None:
        """At the start of cspd, from disk."""
        for item in items:
            self.items[item.message_id] = item

    def link(self, ledger: Iterable[InHand]) -> list[Command]:
        """A sidecar is there; `ledger` names the messages that it or its predecessor had in hand."""
        known = {entry.message_id: entry for entry in ledger}
        out: list[Command] = []
        for item in list(self.items.values()):
            entry = known.get(item.message_id)
            if entry is not None:
                item.given = True
                out += [] if entry.follows else self.reported(entry.message_id, entry.step, entry.reason)
            elif item.step in ("typing", "echoed"):
                out += self.reported(item.message_id, "unknown", "what was typed of it is not known any more")
        self.linked = True  # only now: an end found above must not give what stands further down in the ledger
        return out + self._give()

    def unlink(self) -> list[Command]:
        """The sidecar is gone. What it had not begun waits; what it had begun its successor's ledger will tell."""
        self.linked = False
        for item in self.items.values():
            item.given = False
        return self._offline()

    def reported(self, message_id: str, step: str, reason: str = "", evidence: str = "") -> list[Command]:
        """The sidecar says how far a message is. Repetitions change nothing."""
        item = self.items.get(message_id)
        if item is None:
            return [Record(message_id, step, reason, evidence)] if step in ("turn_started", "turn_ended") else []
        if (item.step, item.reason) == (step, reason):
            return []
        item.step, item.reason = step, reason
        out: list[Command] = [Record(message_id, step, reason, evidence)]
        if step in FINAL:
            del self.items[message_id]
            out += self._give()
        return out

    def released(self, message_id: str, evidence: str, expires_ts: float) -> list[Command]:
        """A withheld message goes on; what time it has begins anew."""
        item = self.items[message_id]
        item.step, item.reason, item.expires_ts = "accepted", "", expires_ts
        out: list[Command] = [Record(message_id, "accepted", "", evidence)]
        return out + (self._give() if self.linked else self._offline())

    def withheld(self) -> list[Item]:
        return [item for item in self.items.values() if item.withheld]

    def expire(self, now_ts: float) -> list[Command]:
        """Those that waited too long and were not begun."""
        out: list[Command] = []
        for item in self._untouched():
            if item.expires_ts <= now_ts:
                out += self.reported(item.message_id, "expired", "nobody could take it in time")
        return out

    @property
    def next_expiry_ts(self) -> float:
        """When `expire` has something to end; infinite when it has not. What is with the sidecar ends there."""
        return min((item.expires_ts for item in self._untouched()), default=float("inf"))

    def _untouched(self) -> list[Item]:
        waiting = (item for item in self.items.values() if RANK[item.step] <= RANK["held"])
        return [item for item in waiting if not item.given and not item.withheld]

    def _give(self) -> list[Command]:
        if not self.linked:
            return []
        room = WINDOW - sum(item.given for item in self.items.values())
        out: list[Command] = []
        for item in self.items.values():
            if room <= 0:
                break
            if not item.given and not item.withheld:
                item.given = True
                room -= 1
                out.append(Give(item.message_id))
        return out

    def _offline(self) -> list[Command]:
        out: list[Command] = []
        for item in list(self.items.values()):
            if item.step in ("accepted", "held") and not item.withheld:
                out += self.reported(item.message_id, "held", "offline")
        return out
