"""Framing without I/O: bounded lines for JSON-RPC, typed binary frames for attach. Standard library only.

Both take bytes cut anywhere and give back whole frames; neither ever holds more than its limit.
"""

import struct
from enum import IntEnum
from typing import NamedTuple

FRAME_MAX = 1 << 20  # a JSON-RPC line; a longer one is skipped and reported, the connection stays usable


class Oversize(NamedTuple):
    """A line over the limit; `size` bytes of it were skipped (without the newline)."""

    size: int


class LineSplitter:
    """Bytes in, lines out. A line over `limit` comes out as `Oversize` once its end is seen; its bytes are not kept."""

    def __init__(self, limit: int = FRAME_MAX) -> None:
        self._limit = limit
        self._held = bytearray()
        self._skipped = 0

    def feed(self, data: bytes) -> list[bytes | Oversize]:
        out: list[bytes | Oversize] = []
        *whole, rest = data.split(b"\n")
        for piece in whole:
            self._hold(piece)
            out.append(Oversize(self._skipped) if self._skipped else bytes(self._held))
            self._held.clear()
            self._skipped = 0
        self._hold(rest)
        return out

    @property
    def held(self) -> bytes:
        """The beginning of a line whose end has not come yet."""
        return bytes(self._held)

    def _hold(self, piece: bytes) -> None:
        if not self._skipped and len(self._held) + len(piece) <= self._limit:
            self._held += piece
            return
        self._skipped += len(self._held) + len(piece)
        self._held.clear()


class Kind(IntEnum):
    """Attach frames on agents/NAME.sock: one byte of kind, four bytes of length (big endian), the payload."""

    HELLO = (
        1  # both ways, first: JSON {"protocol", ...}; client adds rows, columns, read_only; its terminal may come along
    )
    INPUT = 2  # client: bytes typed, untouched
    RESIZE = 3  # client: JSON {"rows", "columns"}
    OUTPUT = 4  # sidecar: bytes of the PTY, untouched
    REPAINT = 5  # sidecar: bytes for a terminal that was reset and cleared by the client just before
    EXIT = 6  # sidecar: JSON {"status": ...}, the incarnation has ended; the socket closes after it
    TAKEN = 8  # sidecar, when HELLO has "taken": eight bytes, how much input it has passed on; the rest is sent again
    REFUSED = 7  # sidecar: JSON of a CspError, instead of HELLO
    DETACH = 10  # sidecar, to a client that lends its terminal: the detach key was pressed there
    PAINTED = 9  # client that lends its terminal: the last REPAINT is drawn, what follows may be written there


_KINDS = {kind.value: kind for kind in Kind}

ATTACH_MAX = 1 << 26  # a repaint with the whole scrollback is the largest frame: some MB
_HEADER = struct.Struct("!BI")
HEADER_SIZE = _HEADER.size


class FrameError(ValueError):
    """The peer does not speak the attach protocol."""


def frame(kind: Kind, payload: bytes) -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


class FrameSplitter:
    """Bytes in, (kind, payload) out; raises FrameError on an unknown kind or a length over `limit`."""

    def __init__(self, limit: int = ATTACH_MAX) -> None:
        self._limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> list[tuple[Kind, bytes]]:
        held: bytes | bytearray = data  # as it mostly comes: whole frames, of which nothing is copied twice
        if self._held:
            held = self._held
            held += data
        out: list[tuple[Kind, bytes]] = []
        at = 0
        while len(held) - at >= HEADER_SIZE:
            number, size = _HEADER.unpack_from(held, at)
            if size > self._limit:
                raise FrameError(f"attach frame: {size} bytes: the limit is {self._limit}")
            if len(held) - at - HEADER_SIZE < size:
                break
            kind = _KINDS.get(number)
            if kind is None:
                raise FrameError(f"attach frame: kind {number}: not known")
            out.append((kind, bytes(held[at + HEADER_SIZE : at + HEADER_SIZE + size])))
            at += HEADER_SIZE + size
        if held is data:
            self._held += data[at:]
        else:
            del self._held[:at]
        return out
