"""WebSocket frames of the server: ours are encoded here, the client's are read by wsproto. Pure.

A server's frame is not masked, so one `bytes` serves any number of subscribers; wsproto does not write them for
that reason. It has no limit of its own either: messages are put together, and counted, here. The commonest thing, a
message in one frame that came whole, is read without it: that took longer than all that is done with the message.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

import attrs
from wsproto import events
from wsproto.connection import Connection, ConnectionType

from cspd.wire.frames import FRAME_MAX

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A  # each with the bit that says: nothing follows
LAST, CONTROL, MASKED = 0x80, 0x08, 0x80  # bits of a frame's first byte, and of its second
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


def header_of(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the payload of the client's frame at `at` begins, and its length; None when that has not come yet."""
    if len(data) < at + 2:
        return None
    size, wide = data[at + 1] & 0x7F, {126: 2, 127: 8}.get(data[at + 1] & 0x7F, 0)
    begins = at + 2 + wide + (4 if data[at + 1] & MASKED else 0)
    if len(data) < begins:
        return None
    return begins, int.from_bytes(data[at + 2 : at + 2 + wide]) if wide else size


def unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    repeated = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload) ^ int.from_bytes(repeated)).to_bytes(size)


@attrs.define
class Reader:
    """The client's bytes in, cut anywhere; what they mean out. Holds never more than one message of `limit` bytes."""

    limit: int = FRAME_MAX
    _wire: Connection = attrs.Factory(lambda: Connection(ConnectionType.SERVER))
    _held: bytearray = attrs.Factory(bytearray)
    _header: bytes = b""  # the beginning of one
    _rest: int = 0  # bytes of a frame that wsproto has a part of
    _parts: bool = False  # a message in several frames has begun
    _ended: bool = False

    def feed(self, data: bytes) -> Iterator[Text | Reply | Ended]:
        data, self._header = self._header + data, b""
        at = 0
        while at < len(data) and not self._ended:
            if not self._rest:
                header = header_of(data, at)
                if header is None:
                    self._header = data[at:]
                    return
                begins, size = header
                if (text := self._whole_text(data, at, begins, size)) is not None:
                    yield text
                    at = begins + size
                    continue
                self._rest = begins + size - at
                if not data[at] & CONTROL:
                    self._parts = not data[at] & LAST
            piece = data[at : at + self._rest]
            self._rest -= len(piece)
            at += len(piece)
            yield from self._read(piece)

    def _whole_text(self, data: bytes, at: int, begins: int, size: int) -> Text | None:
        """None for what is another frame, or wrong in some way that wsproto will tell."""
        plain = data[at] == TEXT and data[at + 1] & MASKED and not self._parts
        if not plain or size > self.limit or len(data) < begins + size:
            return None
        text = unmasked(data[begins : begins + size], data[begins - 4 : begins])
        try:
            text.decode()
        except UnicodeDecodeError:
            return None
        return Text(text)

    def _read(self, piece: bytes) -> Iterator[Text | Reply | Ended]:
        self._wire.receive_data(piece)
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
