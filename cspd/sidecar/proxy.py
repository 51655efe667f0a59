"""The agent's own socket where no cspd of this host knows it: what runs in its terminal speaks through its sidecar.

`cspctl send`, hooks and MCP find it as CSP_SOCKET. Who connects must descend from the agent. A message is kept while
the gateway cannot be reached; everything else is passed on, or refused for as long.
"""

import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

from cspd import __version__
from cspd.errors import CspError
from cspd.sidecar.session import Session
from cspd.transport import LineStream, Peer, RpcPeer, ancestry_of
from cspd.wire import rpc
from cspd.wire.said import message_id_of
from cspd.wire.version import check_protocol

log = logging.getLogger("csp-sidecar")


@attrs.define(eq=False)
class Proxy:
    """Of one agent. `name_there` gives its name at the gateway; before it has one, the wanted one."""

    session: Session
    name_there: Callable[[], str]
    _said: int = 0
    _nonce: str = attrs.Factory(lambda: secrets.token_hex(8))

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
        await trio.serve_listeners(self._serve_connection, listeners)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        lines = LineStream(stream)
        try:
            answer = self._asked if self._is_ours(lines.peer) else _refused
            await RpcPeer(lines, "the agent").serve(answer)
        except* (CspError, trio.BrokenResourceError) as group:
            log.debug("voice: %s", group.exceptions)  # it left while we were talking
        finally:
            await trio.aclose_forcefully(stream)

    def _is_ours(self, peer: Peer) -> bool:
        """Orphans of the agent come to us: so whoever is below us is the agent."""
        ancestry = ancestry_of(peer, self.session.control_socket)
        return any(process.pid == os.getpid() or process.session == self.session.pid for process in ancestry)

    def _asked(self, request: rpc.Request) -> Any:
        method, params = request.method, request.params
        if method == "hello":
            protocol = check_protocol(params.get("protocol"), "client")
            return {"protocol": protocol, "program": "csp-sidecar", "version": __version__, "you": self.name_there()}
        if method == "agent.hook":
            self.session.hooked({key: str(params.get(key) or "") for key in ("event", "subject", "prompt", "text")})
            return {}
        if method.startswith("sidecar.") or method == "events.subscribe":
            why = "not for an agent that is run with --gateway"
            raise CspError("not-allowed", f"method: {method!r}: {why}", "ask cspd itself, where it runs")
        if method == "chat.message":
            return self._send(params)
        return self._pass_on(request)

    async def _pass_on(self, request: rpc.Request) -> Any:
        return await self.session.link.ask(request.method, request.params)

    def _send(self, params: dict[str, Any]) -> Awaitable[Any]:
        self._said += 1
        said_id = f"{self._nonce}-{self._said}"
        return self._sent({**params, "said_id": said_id}, message_id_of(self.name_there(), said_id))

    async def _sent(self, params: dict[str, Any], message_id: str) -> Any:
        link = self.session.link
        try:
            return await link.ask("chat.message", params)
        except CspError as exc:
            if exc.code != "unreachable":
                raise
            why = exc.sentence
        link.report("chat.message", params)  # perhaps a second time: it has an id by which that is known
        recipients = params.get("to")
        return {
            "message_id": message_id,
            "room": params.get("room"),
            "recipients": recipients,
            "kept": True,
            "why": why,
        }


def _refused(request: rpc.Request) -> Any:
    raise CspError("not-identified", "sender: not a process of this agent", "ask the cspd that its room is on")
