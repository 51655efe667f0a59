"""The client's side of the gateway: one HTTP request, or a WebSocket that carries JSON-RPC lines.

h11 and wsproto know the protocols. No token is in any error or log line. What is said is `link`'s.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import h11
import trio
from wsproto import ConnectionType, WSConnection, events
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from cspd.errors import CspError
from cspd.wire.frames import FRAME_MAX, Oversize
from cspd.wire.rpc import error_from

RECEIVE_SIZE = 65536
ANSWER_MAX = 1 << 20
SEND_SEC = 10.0  # a gateway that takes nothing for so long is gone
SILENCE_SEC = 10.0  # without a sign of life we ask for one; after twice as long the connection is given up


async def post(stream: trio.abc.Stream, host: str, path: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer's object; closes the stream. Raises CspError with what the gateway says, OSError when it is gone."""
    content = json.dumps(body).encode()
    headers = [
        *_names(host, token),
        ("content-type", "application/json"),
        ("content-length", str(len(content))),
        ("connection", "close"),
    ]
    wire = h11.Connection(h11.CLIENT)
    async with stream:
        try:
            await stream.send_all(wire.send(h11.Request(method="POST", target=path, headers=headers)) or b"")
            await stream.send_all((wire.send(h11.Data(content)) or b"") + (wire.send(h11.EndOfMessage()) or b""))
            return await _answer(stream, wire, host)
        except (h11.RemoteProtocolError, h11.LocalProtocolError) as exc:
            raise _strange(host) from exc
        except trio.BrokenResourceError as exc:
            raise ConnectionError(f"{host}: it closed the connection") from exc


async def _answer(stream: trio.abc.Stream, wire: h11.Connection, host: str) -> dict[str, Any]:
    status, held = 0, b""
    while not isinstance(event := wire.next_event(), h11.EndOfMessage):
        match event:
            case h11.NEED_DATA:
                wire.receive_data(bytes(await stream.receive_some(RECEIVE_SIZE)))
            case h11.Response(status_code=status):
                pass
            case h11.Data(data=data):
                held += data
            case h11.ConnectionClosed():
                raise ConnectionError(f"{host}: it closed the connection")
        if len(held) > ANSWER_MAX:
            raise _strange(host)
    return judged(status, held, host)


def judged(status: int, body: bytes, host: str) -> dict[str, Any]:
    """The object of a good answer. Raises CspError for any other."""
    try:
        found = json.loads(body)
    except ValueError:
        raise _strange(host, status) from None
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        raise error_from(found["error"])
    if not 200 <= status < 300 or not isinstance(found, dict):
        raise _strange(host, status)
    return found


def _strange(host: str, status: int = 0) -> CspError:
    answer = f"HTTP status {status}" if status else "an answer that cannot be read"
    return CspError("protocol", f"gateway: {host}: {answer}: is this a CSP gateway?", "look at --gateway")


def _names(host: str, token: str) -> list[tuple[str, str]]:
    return [("host", host), ("authorization", f"Bearer {token}")]


async def upgrade(stream: trio.abc.Stream, host: str, path: str, token: str) -> "WebSocketLines":
    """A WebSocket on this stream. Raises CspError when the gateway refuses, OSError when it is gone."""
    wire = WSConnection(ConnectionType.CLIENT)
    headers = [(name.encode(), value.encode()) for name, value in _names(host, token)[1:]]
    try:
        await stream.send_all(wire.send(events.Request(host=host, target=path, extra_headers=headers)))
        lines = WebSocketLines(stream, wire)
        await lines.accepted(host)
        return lines
    except (trio.BrokenResourceError, RemoteProtocolError) as exc:
        await trio.aclose_forcefully(stream)
        raise ConnectionError(f"{host}: it closed the connection") from exc
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


@attrs.define(eq=False)
class WebSocketLines:
    """A connection that carries JSON-RPC messages (`transport.Lines`)."""

    stream: trio.abc.Stream
    _wire: WSConnection
    _held: bytearray = attrs.Factory(bytearray)
    _lock: trio.Lock = attrs.Factory(trio.Lock)  # a stream's own: send_all does not take turns by itself

    async def accepted(self, host: str) -> None:
        status, refusal = 0, b""
        while True:
            self._wire.receive_data(bytes(await self.stream.receive_some(RECEIVE_SIZE)) or None)
            for event in self._wire.events():
                match event:
                    case events.AcceptConnection():
                        return
                    case events.RejectConnection(status_code=status, has_body=False):
                        judged(status, b"", host)
                    case events.RejectConnection(status_code=status):
                        pass
                    case events.RejectData(data=data, body_finished=finished):
                        refusal += bytes(data)
                        if finished or len(refusal) > ANSWER_MAX:
                            judged(status, refusal, host)

    async def lines(self) -> AsyncGenerator[bytes | Oversize, None]:
        """Messages, until the gateway closes. Raises trio.BrokenResourceError when it has vanished."""
        while True:
            for event in self._wire.events():
                match event:
                    case events.TextMessage():
                        if (line := self._collected(event)) is not None:
                            yield line
                    case events.Ping():
                        await self._send(event.response())
                    case events.CloseConnection():
                        return
            data = await self._receive()
            if not data:
                return
            try:
                self._wire.receive_data(data)
            except RemoteProtocolError as exc:
                raise trio.BrokenResourceError("the gateway does not speak WebSocket") from exc

    def _collected(self, event: events.TextMessage) -> bytes | Oversize | None:
        self._held += event.data.encode()
        if len(self._held) > FRAME_MAX:
            raise trio.BrokenResourceError("the gateway sends more than a frame may hold")
        if not event.message_finished:
            return None
        line = bytes(self._held)
        self._held.clear()
        return line

    async def _receive(self) -> bytes:
        """What comes next. A connection that was cut says nothing, so silence is asked about."""
        for asked in (False, True):
            with trio.move_on_after(SILENCE_SEC):
                return bytes(await self.stream.receive_some(RECEIVE_SIZE))
            if not asked:
                await self._send(events.Ping())
        raise trio.BrokenResourceError(f"the gateway was silent for {2 * SILENCE_SEC:g} s")

    def send_nowait(self, data: bytes) -> bool:
        return False  # a frame may be sent in parts

    async def send(self, data: bytes) -> None:
        """Whole lines, each as a message; raises trio.BrokenResourceError when nobody takes them."""
        await self._send(*(events.TextMessage(data=line.decode()) for line in data.split(b"\n") if line))

    async def _send(self, *frames: events.Event) -> None:
        async with self._lock:
            await trio.lowlevel.checkpoint_if_cancelled()  # nothing is on the wire yet: the stream stays usable
            try:
                data = b"".join(map(self._wire.send, frames))
            except LocalProtocolError as exc:
                raise trio.ClosedResourceError("the WebSocket is closed") from exc
            whole = False
            try:
                with trio.move_on_after(SEND_SEC):
                    await self.stream.send_all(data)
                    whole = True
            finally:
                if not whole:  # a part of a frame may be on the wire
                    await trio.aclose_forcefully(self.stream)
            if not whole:
                raise trio.BrokenResourceError(f"the gateway took nothing for {SEND_SEC:g} s")

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self.stream)
