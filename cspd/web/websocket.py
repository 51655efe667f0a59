"""A WebSocket that carries lines: JSON-RPC messages in, frames out, pings, and an orderly close.

What is said on it is for `transport.RpcPeer` and `stream`. Receive from one task; `send` may be called from any.
"""

import base64
import binascii
from collections.abc import AsyncGenerator

import attrs
import trio
from wsproto.utilities import generate_accept_token

from cspd.errors import CspError
from cspd.web.exchange import RECEIVE_SIZE, linger, send_all, send_now
from cspd.web.frames import PING, Code, Ended, Reader, Reply, Text, close_frame, frame, text_frames
from cspd.web.head import Head, Refused
from cspd.wire.frames import Oversize

PING_SEC = 20.0
PONG_SEC = 20.0  # after a ping something must come, a pong or anything else
CLOSE_SEC = 1.0


def handshake(head: Head) -> list[tuple[str, str]]:
    """The headers of our 101. Raises Refused for an upgrade that is none."""
    if head.headers.get("sec-websocket-version") != "13":
        raise Refused(
            426,
            CspError("bad-request", "sec-websocket-version: expected 13"),
            [("sec-websocket-version", "13"), ("upgrade", "websocket")],
        )
    key = head.headers.get("sec-websocket-key", "")
    try:
        whole = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        whole = False
    if head.method != "GET" or not whole:
        raise Refused(400, CspError("bad-request", "sec-websocket-key: expected 16 bytes in base64, and GET"))
    accept = generate_accept_token(key.encode("ascii")).decode("ascii")
    return [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept)]


@attrs.define(eq=False)
class WebSocket:
    """One upgraded connection; `rest` came with the request."""

    stream: trio.abc.Stream
    rest: bytes = b""
    closed: tuple[int, str] | None = None  # how it ended, by whichever side was first
    _reader: Reader = attrs.Factory(Reader)
    _lock: trio.Lock = attrs.Factory(trio.Lock)  # a stream's own: send_all does not take turns by itself
    _heard: bool = False
    _prompt: bool = False  # something came, and nothing was sent since

    async def lines(self) -> AsyncGenerator[bytes | Oversize, None]:
        """Messages, until either side closes. Raises trio.BrokenResourceError when the other side vanished."""
        data, self.rest = self.rest, b""
        while True:
            replies = b""
            for out in self._reader.feed(data):
                match out:
                    case Text(line):
                        yield line
                    case Reply(reply):
                        replies += reply
                    case Ended(code, reason):
                        await self.close(code, reason)
                        return
            if replies:
                await self._send(replies)
            data = bytes(await self.stream.receive_some(RECEIVE_SIZE))
            if not data:
                return
            self._heard = self._prompt = True

    def send_nowait(self, data: bytes) -> bool:
        return False  # a frame may be sent in parts

    async def send(self, data: bytes) -> None:
        """Whole lines, each as a message."""
        await self._send(text_frames(data))

    async def send_frames(self, frames: bytes) -> None:
        """Frames that many connections share."""
        await self._send(frames)

    async def _send(self, frames: bytes) -> None:
        # An answer goes out without a turn of the scheduler, which would cost as much as all the rest. Only the first
        # one of each receive does, so that who asks much in one packet keeps nobody waiting.
        prompt, self._prompt = self._prompt and not self._lock.locked(), False
        if prompt:
            self._lock.acquire_nowait()
        else:
            await self._lock.acquire()
        try:
            if self.closed is not None:
                raise trio.ClosedResourceError("the WebSocket is closed")
            if not prompt:
                await trio.lowlevel.checkpoint_if_cancelled()  # nothing is on the wire yet: the stream stays usable
            await self._put(frames, prompt)
        finally:
            self._lock.release()

    async def _put(self, frames: bytes, prompt: bool) -> None:
        whole = False
        try:
            if prompt:
                frames = send_now(self.stream, frames)
            if frames:
                await send_all(self.stream, frames)
            whole = True
        finally:
            if not whole:  # a part of a frame may be on the wire
                self.closed = (Code.GOING_AWAY, "the peer took nothing")
                await trio.aclose_forcefully(self.stream)

    async def close(self, code: int, reason: str = "") -> None:
        """Say why, wait a moment for the other side to have read it, and close. A second call does nothing."""
        with trio.move_on_after(CLOSE_SEC):
            async with self._lock:
                if self.closed is None:
                    self.closed = (code, reason)
                    try:
                        await self.stream.send_all(close_frame(code, reason))
                        if code in (Code.TOO_BIG, Code.PROTOCOL):
                            await linger(self.stream)
                    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                        pass  # it is gone, or somebody else still reads from it: then that one lingers
        await trio.aclose_forcefully(self.stream)

    async def aclose(self) -> None:
        await self.close(Code.NORMAL)

    async def keep_alive(self) -> None:
        """Ping for ever; close when nothing comes back."""
        while True:
            await trio.sleep(PING_SEC)
            self._heard = False
            await self._send(frame(PING, b""))
            await trio.sleep(PONG_SEC)
            if not self._heard:
                await self.close(Code.GOING_AWAY, f"nothing came for {PONG_SEC:g} s after a ping")
                return
