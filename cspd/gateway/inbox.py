"""What waits for one agent, and what its sidecar was given of it. Pure.

The order of messages is kept; a bounded window of them is with the sidecar at a time. After a lost link nothing is
given a second time unless the sidecar's ledger shows that it was never touched.
"""

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

import attrs

WINDOW = 16  # messages with the sidecar at a time; the rest waits here and on disk
STALE_MAX = 64  # entries of the heaps beyond twice the messages; then they are made anew
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
    place: int = 0  # in the order of arrival
    told: set[str] = attrs.field(factory=set, eq=False)  # reasons that were recorded since it is held

    def holds_again(self, step: str, reason: str) -> bool:
        """Is it held for a reason that was recorded before? Call it once for each report."""
        if step != "held":
            self.told.clear()
            return False
        known = reason in self.told and self.step == "held" and not {reason, self.reason} & WITHHELD
        self.told.add(reason)
        return known

    @property
    def withheld(self) -> bool:
        """It waits for a word, not for the agent: later ones go first, and it does not expire."""
        return self.step == "held" and self.reason in WITHHELD

    @property
    def untouched(self) -> bool:
        """It waits for its agent, and is with no sidecar."""
        return not self.given and RANK[self.step] <= RANK["held"] and not self.withheld


@attrs.define
class Inbox:
    """Messages of one agent that have not reached a final step, in order.

    What one message costs does not grow with those that wait: only `link` and `unlink` look at all of them. So the two
    heaps may hold what has gone on meanwhile; that is seen when it comes to their top.
    """

    items: dict[str, Item] = attrs.Factory(dict)
    linked: bool = False
    _arrived: int = 0
    _given: int = 0
    _withheld: dict[str, Item] = attrs.Factory(dict)
    _next: list[tuple[int, str]] = attrs.Factory(list)  # to be given, by place
    _due: list[tuple[float, str]] = attrs.Factory(list)  # to be ended, by the time when they expire

    def __len__(self) -> int:
        return len(self.items)

    def posted(self, item: Item) -> list[Command]:
        self._add(item)
        return self._give() if self.linked else self._offline([item])

    def restored(self, items: Iterable[Item]) -> None:
        """At the start of cspd, from disk."""
        for item in items:
            self._add(item)

    def link(self, ledger: Iterable[InHand]) -> list[Command]:
        """A sidecar is there; `ledger` names the messages that it or its predecessor had in hand."""
        known = {entry.message_id: entry for entry in ledger}
        out: list[Command] = []
        for item in list(self.items.values()):
            entry = known.get(item.message_id)
            if entry is not None:
                self._hand_over(item)
                out += [] if entry.follows else self.reported(entry.message_id, entry.step, entry.reason)
            elif item.step in ("typing", "echoed"):
                out += self.reported(item.message_id, "unknown", "what was typed of it is not known any more")
        self.linked = True  # only now: an end found above must not give what stands further down in the ledger
        return out + self._give()

    def unlink(self) -> list[Command]:
        """The sidecar is gone. What it had not begun waits; what it had begun its successor's ledger will tell."""
        self.linked = False
        self._given = 0
        for item in self.items.values():
            item.given = False
        self._sort()
        return self._offline(self.items.values())

    def reported(self, message_id: str, step: str, reason: str = "", evidence: str = "") -> list[Command]:
        """The sidecar says how far a message is. Repetitions change nothing.

        A reason to hold it that comes back is known, but not recorded again: a program that draws something every few
        seconds is busy and then not understood for as long as it runs. What the loop guard or a debate holds back is
        always recorded, because it is so after a restart too.
        """
        item = self.items.get(message_id)
        if item is None:
            return [Record(message_id, step, reason, evidence)] if step in ("turn_started", "turn_ended") else []
        if (item.step, item.reason) == (step, reason):
            return []
        again = item.holds_again(step, reason)
        item.step, item.reason = step, reason
        out: list[Command] = [] if again else [Record(message_id, step, reason, evidence)]
        if step in FINAL:
            self._remove(item)
            return out + self._give()
        if item.withheld != (message_id in self._withheld):
            self._file(item)
        return out

    def released(self, message_id: str, evidence: str, expires_ts: float) -> list[Command]:
        """A withheld message goes on; what time it has begins anew."""
        item = self.items[message_id]
        item.step, item.reason, item.expires_ts = "accepted", "", expires_ts
        self._file(item)
        out: list[Command] = [Record(message_id, "accepted", "", evidence)]
        return out + (self._give() if self.linked else self._offline([item]))

    def withheld(self) -> list[Item]:
        return list(self._withheld.values())

    def expire(self, now_ts: float) -> list[Command]:
        """Those that waited too long and were not begun."""
        out: list[Command] = []
        while self.next_expiry_ts <= now_ts:
            _, message_id = heappop(self._due)
            out += self.reported(message_id, "expired", "nobody could take it in time")
        return out

    @property
    def next_expiry_ts(self) -> float:
        """When `expire` has something to end; infinite when it has not. What is with the sidecar ends there."""
        while self._due:
            expires_ts, message_id = self._due[0]
            item = self.items.get(message_id)
            if item is not None and item.expires_ts == expires_ts and item.untouched:
                return expires_ts
            heappop(self._due)
        return float("inf")

    def _add(self, item: Item) -> None:
        item.place, self._arrived = self._arrived, self._arrived + 1
        self.items[item.message_id] = item
        self._file(item)

    def _remove(self, item: Item) -> None:
        del self.items[item.message_id]
        self._withheld.pop(item.message_id, None)
        self._given -= item.given

    def _file(self, item: Item) -> None:
        """Where it is found again: it has come, or is withheld now, or is not any more."""
        if item.withheld:
            self._withheld[item.message_id] = item
            return
        self._withheld.pop(item.message_id, None)
        heappush(self._next, (item.place, item.message_id))
        heappush(self._due, (item.expires_ts, item.message_id))
        if max(len(self._next), len(self._due)) > 2 * len(self.items) + STALE_MAX:
            self._sort()

    def _sort(self) -> None:
        waiting = [item for item in self.items.values() if item.untouched]
        self._next = [(item.place, item.message_id) for item in waiting]
        self._due = [(item.expires_ts, item.message_id) for item in waiting]
        heapify(self._due)

    def _hand_over(self, item: Item) -> None:
        self._given += not item.given
        item.given = True

    def _give(self) -> list[Command]:
        out: list[Command] = []
        while self.linked and self._given < WINDOW and self._next:
            item = self.items.get(heappop(self._next)[1])
            if item is not None and not item.given and not item.withheld:
                self._hand_over(item)
                out.append(Give(item.message_id))
        return out

    def _offline(self, items: Iterable[Item]) -> list[Command]:
        out: list[Command] = []
        for item in items:
            if item.step in ("accepted", "held") and not item.withheld:
                out += self.reported(item.message_id, "held", "offline")
        return out
