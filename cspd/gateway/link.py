"""One connected sidecar: what cspd asks of it. What the sidecar reports comes in through `control.methods`.

A link lives as long as its connection; the hub holds at most one for each agent.
"""

from collections.abc import Collection, Mapping
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.gateway.history import Message
from cspd.transport import RpcPeer

OUTGOING_MAX = 64  # notifications on their way; a sidecar that takes none is cut off and comes back with its ledger
ANSWER_SEC = 5.0


@attrs.define(eq=False)
class Link:
    """Sends in order without waiting; `run` must be running in the connection's nursery."""

    agent: str
    peer: RpcPeer
    incarnation: int
    activity: str | None = None
    activity_reason: str = ""
    attached: int = 0
    inside: Collection[str] = ()  # agents whose terminals show this one
    _send: trio.MemorySendChannel[tuple[str, dict[str, Any]]] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[tuple[str, dict[str, Any]]] = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[str, dict[str, Any]]](OUTGOING_MAX)

    async def run(self) -> None:
        with self._scope:
            async for method, params in self._receive:
                await self.peer.notify(method, params)
        await self.peer.lines.aclose()

    def post(self, method: str, params: dict[str, Any]) -> None:
        try:
            self._send.send_nowait((method, params))
        except trio.WouldBlock:
            self.cut()

    def cut(self) -> None:
        """Close the connection; another sidecar took its place, or it takes nothing."""
        self._scope.cancel()

    def give(self, message: Message, expires_ts: float) -> None:
        self.post(
            "sidecar.deliver",
            {
                "message_id": message.message_id,
                "from": message.sender,
                "room": message.room,
                "to": message.to,
                "content": message.content,
                "urgent": message.meta.get("urgent") is True,
                "expires_ts": expires_ts,
            },
        )

    async def ask(self, method: str, params: Mapping[str, Any], answer_sec: float = ANSWER_SEC) -> Any:
        """Raises CspError: "unreachable", or "timed-out" when a sidecar does not answer."""
        with trio.move_on_after(answer_sec):
            return await self.peer.call(method, params)
        raise CspError("timed-out", f"agent: {self.agent}: its sidecar did not answer within {answer_sec:g} s")


def way_round(shown_in: Mapping[str, Collection[str]], name: str, inside: str) -> list[str]:
    """If `inside`'s terminal is shown, perhaps through others, in that of `name`: the way there. Else nothing."""
    ways, seen = [[inside]], {inside}
    while ways:
        way = ways.pop(0)
        if way[-1] == name:
            return way
        for further in shown_in.get(way[-1], ()):
            if further not in seen:
                seen.add(further)
                ways.append([*way, further])
    return []
