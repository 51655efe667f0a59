"""How the sidecar of a guest comes to a gateway elsewhere: registered once, then by WebSocket with its own token.

The room token lets in whoever knows it, and is needed once; the own one lies in a file of the person's, so that the
next run of this name is the same guest and gets what waited for it.
"""

import json
import logging
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.sidecar.link import hello
from cspd.sidecar.websocket import WebSocketLines, post, upgrade
from cspd.transport import RpcPeer
from cspd.wire.address import Address

log = logging.getLogger("csp-sidecar")

CONNECT_SEC = 15.0


async def dial(address: Address) -> trio.abc.Stream:
    """Raises OSError."""
    stream = await trio.open_tcp_stream(address.host, address.port)
    if not address.secure:
        return stream
    return trio.SSLStream(stream, ssl.create_default_context(), server_hostname=address.host, https_compatible=True)


@attrs.define
class GatewayDoor:
    """`name` is the wanted one until the gateway has said under which it knows us; `keys` is the file for its token."""

    url: str
    room_token: str
    keys: Path
    name: str
    room: str
    capabilities: Mapping[str, Any]
    retry_max_sec: float = 10.0
    _token: str = ""
    _refused: CspError | None = None  # our token counts no more: a person has seen to that

    def __attrs_post_init__(self) -> None:
        """Raises CspError when there is no token at all."""
        self._recall()
        if not (self._token or self.room_token):
            where = "the content of `token` in the runtime directory of that cspd"
            raise CspError("no-token", f"gateway: {self.url}: no token for it", f"CSP_TOKEN or --token-file: {where}")

    async def connect(self) -> WebSocketLines:
        """Raises OSError when it cannot be reached, CspError when it does not let us in."""
        if self._refused is not None:
            raise self._refused
        address = Address.parse(self.url)
        with trio.move_on_after(CONNECT_SEC):
            if not self._token:
                await self._register(address)
            stream = await dial(address)
            try:
                return await upgrade(stream, address.name, f"{address.prefix}/rpc", self._token)
            except CspError as exc:
                if exc.code == "no-token":
                    self._refused = exc
                    self.keys.unlink(missing_ok=True)  # revoked, or we were removed: the next run begins anew
                raise
        raise OSError(f"{address.name}: no answer within {CONNECT_SEC:g} s")

    async def enter(self, peer: RpcPeer, introduction: dict[str, Any]) -> dict[str, Any]:
        return await hello(peer, {**introduction, "name": self.name})

    async def _register(self, address: Address) -> None:
        told = {"name": self.name, "room": self.room, "capabilities": dict(self.capabilities)}
        made = await post(await dial(address), address.name, f"{address.prefix}/register", self.room_token, told)
        self.name, self._token = str(made["agent"]), str(made["token"])
        self._remember()
        log.info("registered at %s as %s", address.name, self.name)

    def _recall(self) -> None:
        try:
            kept = json.loads(self.keys.read_bytes())
            if kept["url"] == self.url:
                self.name, self._token = str(kept["agent"]), str(kept["token"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or of another gateway: we register

    def _remember(self) -> None:
        new = self.keys.with_name(self.keys.name + ".new")
        body = {"url": self.url, "agent": self.name, "token": self._token}
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            json.dump(body, file)
        new.rename(self.keys)
