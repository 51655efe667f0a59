"""WebSocket frames of the server: ours are encoded here, the client's are read by wsproto. Pure.

A server's frame is not masked, so one `bytes` serves any number of subscribers; wsproto does not write them for
that reason. It has no limit of its own either: messages are put together, and counted, here.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

import attrs
from wsproto import events
from wsproto.connection import Connection, ConnectionType

from cspd.wire.frames import FRAME_MAX

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A  # each with the bit that says: nothing follows
REASON_MAX = 123  # bytes that a close frame has for words


class Code(IntEnum):
    """Why we close."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL = 1002
    NOT_TEXT = 1003
    REFUSED = 1008
    TOO_BIG = 1009
    TRY_AGAIN = 1013


def frame(kind: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((kind, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", kind, 126, size) + payload
    return struct.pack("!BBQ", kind, 127, size) + payload


def text_frames(lines: bytes) -> bytes:
    """A frame for each line: JSON has no newline inside."""
    return b"".join(frame(TEXT, line) for line in lines.split(b"\n") if line)


def close_frame(code: int, reason: str = "") -> bytes:
    words = reason.encode("utf-8", "replace")[:REASON_MAX].decode("utf-8", "ignore").encode()
    return frame(CLOSE, struct.pack("!H", code) + words)


@attrs.frozen
class Text:
    """A whole message."""

    data: bytes


@attrs.frozen
class Reply:
    """Bytes that must go out now."""

    data: bytes


@attrs.frozen
class Ended:
    """The client closed, or broke the rules: answer with this code, then read no further."""

    code: int
    reason: str = ""


@attrs.define
class Reader:
    """The client's bytes in, cut anywhere; what they mean out. Holds never more than one message of `limit` bytes."""

    limit: int = FRAME_MAX
    _wire: Connection = attrs.Factory(lambda: Connection(ConnectionType.SERVER))
    _held: bytearray = attrs.Factory(bytearray)
    _ended: bool = False

    def feed(self, data: bytes) -> Iterator[Text | Reply | Ended]:
        if self._ended:
            return
        self._wire.receive_data(data)
        for event in self._wire.events():
            for out in self._meaning(event):
                yield out
                if isinstance(out, Ended):
                    self._ended = True
                    return

    def _meaning(self, event: events.Event) -> Iterator[Text | Reply | Ended]:
        match event:
            case events.TextMessage():
                self._held += event.data.encode()
                if len(self._held) > self.limit:
                    yield Ended(Code.TOO_BIG, f"message: more than {self.limit} bytes: the limit")
                elif event.message_finished:
                    whole, self._held = bytes(self._held), bytearray()
                    yield Text(whole)
            case events.BytesMessage():
                yield Ended(Code.NOT_TEXT, "message: binary: expected text, one JSON object a message")
            case events.Ping():
                yield Reply(frame(PONG, bytes(event.payload)))
            case events.CloseConnection():
                # 1005 and its like stand for no code at all, and must not be sent
                given = 1000 <= event.code < 1004 or 1007 <= event.code < 1015 or 3000 <= event.code < 5000
                yield Ended(event.code if given else Code.NORMAL, event.reason or "")
