"""How the sidecar of a guest comes to the cspd of its own host: it registers itself, because no unit file names it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.sidecar.link import RETRY_MAX_SEC, hello
from cspd.transport import LineStream, RpcPeer, connect
from cspd.wire import rpc

ASK_SEC = 2.0
REFUSED_SEC = 60.0  # who runs inside an agent stays there: asking again soon would only wake everybody


@attrs.define
class GuestDoor:
    """`name` is the wanted one until cspd has said under which it knows us; that may be another."""

    socket: Path
    name: str
    room: str
    capabilities: Mapping[str, Any]
    known: bool = False
    refused: bool = False  # we are not one who may be in a room

    @property
    def retry_max_sec(self) -> float:
        return REFUSED_SEC if self.refused else RETRY_MAX_SEC

    def to_plain(self) -> dict[str, Any]:
        """For the version after us."""
        return {
            **attrs.asdict(self, recurse=False),
            "socket": str(self.socket),
            "capabilities": dict(self.capabilities),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "GuestDoor":
        known = {field.name: plain[field.name] for field in attrs.fields(cls) if field.name in plain}
        return cls(**{**known, "socket": Path(plain["socket"])})

    async def connect(self) -> LineStream:
        return await connect(self.socket)

    async def enter(self, peer: RpcPeer, introduction: dict[str, Any]) -> dict[str, Any]:
        """Also after a restart of cspd, which still knows us, unless the person has removed us meanwhile."""
        if not self.known:
            await self.register(peer)
        try:
            return await hello(peer, {**introduction, "name": self.name, "in_place": True})
        except CspError as exc:
            self.known = self.known and exc.code != "no-such-agent"  # then the next time begins from the start
            raise

    async def register(self, peer: RpcPeer) -> None:
        told = {"name": self.name, "room": self.room, "capabilities": dict(self.capabilities), "resume": True}
        try:
            self.name = (await peer.call("agent.register", told))["name"]
        except CspError as exc:
            self.refused = exc.code == "not-allowed"
            raise
        self.known, self.refused = True, False


async def ask_name(door: GuestDoor) -> str:
    """Register before the agent starts, so that it is born under its name. -> why that could not be; "" when it was."""
    problem = ""
    with trio.move_on_after(ASK_SEC) as scope:
        try:
            lines = await door.connect()
        except OSError:
            return "cspd is not running"
        peer = RpcPeer(lines, "cspd")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve, _asked_too_early)
            try:
                await door.register(peer)
            except CspError as exc:
                problem = exc.sentence
            nursery.cancel_scope.cancel()
        await lines.aclose()
    return "cspd does not answer" if scope.cancelled_caught else problem


def _asked_too_early(request: rpc.Request) -> Any:
    raise CspError("busy", f"{request.method}: there is no agent yet")
