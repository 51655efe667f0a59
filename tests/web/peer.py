"""A client's side of HTTP and WebSocket by hand, over any trio stream, so that it can also misbehave."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import attrs
import trio

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def masked(opcode: int, payload: bytes, last: bool = True) -> bytes:
    """A client's frame, with a mask of zeros."""
    first = (0x80 if last else 0) | opcode
    if len(payload) < 126:
        head = struct.pack("!BB", first, 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
    return head + bytes(4) + payload


@attrs.define
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["data"]["code"])


@attrs.define
class Web:
    """One connection."""

    stream: trio.abc.Stream
    token: str = ""
    host: str = "127.0.0.1"
    _held: bytes = b""

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"Authorization: Bearer {self.token}"] if self.token else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}"] if body is not None else []
        return "\r\n".join([*lines, "", ""]).encode() + (body or b"")

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.stream.send_all(self.request(method, path, data, **headers))
        return await self.reply()

    async def rpc(self, method: str, **params: Any) -> Any:
        """One call by POST: its result, or its error."""
        reply = await self.ask("POST", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return reply.json.get("result", reply.json.get("error"))

    async def reply(self) -> Reply:
        head = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await self.take(int(headers.get("content-length", "0")))
        return Reply(int(head[0].split()[1]), headers, body)

    async def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            await self._more()
        found, _, self._held = self._held.partition(end)
        return found

    async def take(self, size: int) -> bytes:
        while len(self._held) < size:
            await self._more()
        found, self._held = self._held[:size], self._held[size:]
        return found

    async def line(self) -> bytes:
        return await self._until(b"\n")

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError(f"closed behind {self._held[-200:]!r}")
        self._held += bytes(data)

    async def upgrade(self, path: str = "/events", **headers: str) -> Reply:
        """To WebSocket; the reply is a 101 when that is granted."""
        wanted = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": "13",
        }
        await self.stream.send_all(self.request("GET", path, **(wanted | headers)))
        return await self.reply()

    async def frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next one."""
        first, size = await self.take(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.take(8))
        return first & 15, await self.take(size)

    async def message(self) -> Any:
        """The next message, past pings."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 1:
                return json.loads(payload)
            assert opcode == 9, (opcode, payload)

    async def event(self, type: str, **fields: Any) -> Any:
        """The next event like this, past all others."""
        while True:
            message = await self.message()
            event = message.get("params", {})
            if event.get("type") == type and fields.items() <= event.items():
                return event

    async def closed(self) -> tuple[int, str]:
        """(code, reason) of the close, past all messages."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return struct.unpack("!H", payload[:2])[0], payload[2:].decode()

    async def say(self, method: str, id: int | None = 1, **params: Any) -> None:
        body = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if id is None else {"id": id})
        await self.stream.send_all(masked(1, json.dumps(body).encode()))

    async def call(self, method: str, **params: Any) -> Any:
        """The answer to one call, past all events."""
        await self.say(method, 77, **params)
        while True:
            message = await self.message()
            if message.get("id") == 77:
                return message.get("result", message.get("error"))
