"""Who may say how much, and what led to it: the hub asks here for each message, and tells of each commit.

Owns what is known of the agents' turns. Which of them a message comes from is `chain`'s to decide.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from cspd.gateway.chain import Cause, Turns, place
from cspd.gateway.history import Accepted, Event, History, Message

REPLAYED = 2000  # events; what an agent is about is among the last ones, and a restart of cspd must be short


@attrs.define(eq=False)
class Moderator:
    """Everything that it knows follows from the log."""

    turns: Turns = attrs.Factory(Turns)

    async def start(self, history: History) -> None:
        """Take over what the cspd before us knew."""
        causes: dict[str, Cause] = {}
        for event in await history.events(max(0, history.committed_cursor - REPLAYED), REPLAYED):
            data = event.data
            if event.type == "message":
                causes[data["message_id"]] = Cause.of(data["message_id"], data["from"], data["meta"])
                if data["kind"] == "input":
                    self.turns.typed(data["to"], data["message_id"], event.ts)
            elif event.type == "delivery" and data["message_id"] in causes:
                self.turns.stepped(event.agent, causes[data["message_id"]], data["step"], event.ts)

    def stamped(
        self, message_id: str, sender: str, meta: Mapping[str, Any], reply_to: Message | None, ts: float
    ) -> dict[str, Any]:
        """`meta` as it is stored: an agent's message with its chain; what the caller says of one does not count."""
        told = {key: value for key, value in meta.items() if key != "chain"}
        replied = None
        if reply_to is not None:
            told["reply_to"] = reply_to.message_id
            replied = Cause.of(reply_to.message_id, reply_to.sender, reply_to.meta)
        chain = place(message_id, sender, self.turns.speaks_of(sender, ts), replied)
        return told | ({"chain": chain.as_json()} if chain.hops else {})

    def committed(self, record: Event | Accepted, message: Message | None) -> None:
        """It is on disk; `message` is the one that a delivery is about, when it is known."""
        if isinstance(record, Accepted):
            if record.kind == "input":
                self.turns.typed(str(record.to), record.message_id, record.ts)
        elif record.type == "delivery" and message is not None:
            cause = Cause.of(message.message_id, message.sender, message.meta)
            self.turns.stepped(record.agent, cause, record.data["step"], record.ts)
