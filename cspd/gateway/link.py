"""What stands for an agent while it is connected, and one of the two kinds of it: its sidecar.

What the sidecar reports comes in through `control.methods`. A link lives as long as its connection; the hub holds at
most one for each agent. The other kind, a program that takes its messages itself, is `web.client`.
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.gateway.history import Message
from cspd.transport import Asking

OUTGOING_MAX = 64  # notifications on their way; a sidecar that takes none is cut off and comes back with its ledger
ANSWER_SEC = 5.0


@attrs.frozen
class Here:
    """Processes of a guest that is run on this host: what descends from them speaks in its name."""

    agent_pid: int
    sidecar_pid: int


class Receiver(Protocol):
    """Who takes an agent's messages now. None of these waits, but for `ask`."""

    @property
    def agent(self) -> str: ...
    @property
    def activity(self) -> str | None: ...
    @property
    def activity_reason(self) -> str: ...
    @property
    def attached(self) -> int: ...
    @property
    def inside(self) -> Collection[str]: ...
    @property
    def here(self) -> Here | None: ...
    @property
    def since(self) -> float: ...
    @property
    def run_id(self) -> str: ...

    def give(self, message: Message, expires_ts: float) -> None: ...
    def post(self, method: str, params: dict[str, Any]) -> None: ...
    def cut(self) -> None: ...
    async def ask(self, method: str, params: Mapping[str, Any], answer_sec: float = ...) -> Any: ...


@attrs.define(eq=False)
class Link:
    """Sends in order without waiting; `run` must be running in the connection's nursery."""

    agent: str
    peer: Asking
    incarnation: int
    activity: str | None = None
    activity_reason: str = ""
    attached: int = 0
    inside: Collection[str] = ()  # agents whose terminals show this one
    pid: int = 0  # of the agent itself
    unheard: set[str] = attrs.Factory(set)  # names that the agent has used, and that nobody has
    here: Here | None = None
    since: float = attrs.Factory(trio.current_time)
    in_place: bool = False  # a guest's sidecar that can be replaced by the installed version in its own process
    _send: trio.MemorySendChannel[tuple[str, dict[str, Any]]] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[tuple[str, dict[str, Any]]] = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[str, dict[str, Any]]](OUTGOING_MAX)

    @property
    def run_id(self) -> str:
        """Of this run of the agent; numbers of incarnations begin anew when all that remembers them is gone."""
        return f"{self.incarnation}-{self.pid}"

    async def run(self) -> None:
        with self._scope:
            async for method, params in self._receive:
                await self.peer.notify(method, params)
        await self.peer.aclose()

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
