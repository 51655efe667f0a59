"""A registered program that takes its messages itself, from its events, and acknowledges them by `inbox.ack`.

It stands in the hub where a sidecar's link would. What was not acknowledged comes again with the next connection; that
is the inbox's doing, which gives everything open to every new link.
"""

from collections.abc import Collection, Mapping
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.gateway.feed import Feed, Published
from cspd.gateway.history import Delivery, Event, Message, message_json
from cspd.gateway.link import Here


@attrs.define(eq=False)
class Client:
    """`start`: the cursor behind which its feed has everything anyway.

    A program may follow on several connections: the one that came last stands in the hub, on top of the others.
    """

    agent: str
    feed: Feed
    start: int
    activity: str | None = "unknown"
    activity_reason: str = "a program that takes its messages itself"
    attached: int = 0
    inside: Collection[str] = ()  # it has no terminal
    here: Here | None = None
    run_id: str = ""  # a program: it is not an agent that starts and must be told who is there
    since: float = attrs.Factory(trio.current_time)
    given: set[int] = attrs.Factory(set)  # of what its feed would not have: once on this connection
    below: "Client | None" = None
    above: "Client | None" = None

    def put_on(self, other: "Client") -> None:
        self.below, other.above = other, self

    def leave(self) -> None:
        """Those around it close the gap."""
        if self.above is not None:
            self.above.below = self.below
        if self.below is not None:
            self.below.above = self.above

    def give(self, message: Message, expires_ts: float) -> None:
        if message.seq > self.start or message.seq in self.given:
            return
        self.given.add(message.seq)
        data = message_json(message, {self.agent: Delivery(self.agent, "accepted", "", message.ts)})
        event = Event(message.seq, message.ts, "message", message.room, message.sender, message.seq, data)
        self.feed.put(Published(event, again=True))

    def post(self, method: str, params: dict[str, Any]) -> None:
        """What a sidecar would have to know: nothing is typed here."""

    def cut(self) -> None:
        """Another connection takes the messages from now on; this one goes on listening."""

    async def ask(self, method: str, params: Mapping[str, Any], answer_sec: float = 0.0) -> Any:
        raise CspError("not-active", f"agent: {self.agent}: is a program without a terminal")
