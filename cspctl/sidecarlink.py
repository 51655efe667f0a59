"""The attach client's socket to a sidecar: whole frames, never blocking, and what to keep when it breaks.

When to connect and what the frames mean is `attach`'s.
"""

import socket
from collections import deque
from pathlib import Path

from cspd.wire.frames import FrameSplitter, Kind, frame

_READ = 1 << 16


class SidecarLink:
    """Owns the connection, of which there are several one after the other; no call blocks.

    `fd` is for poll, -1 while there is no connection.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._splitter = FrameSplitter()
        self._unsent: deque[bytes] = deque()
        self._sent = 0  # bytes of the first one
        self._deaf = False  # the peer reads no more; what it has written may still be read

    @property
    def fd(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def unsent(self) -> int:
        return sum(map(len, self._unsent)) - self._sent

    def connect(self, hello: bytes) -> None:
        """Connect and send `hello` at once; raises OSError (EAGAIN: the backlog is full)."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        self._socket, self._deaf = sock, False
        self._splitter = FrameSplitter()
        self._unsent.appendleft(hello)
        self.send_some()

    def close(self) -> None:
        """End the connection. Kept is the input that no sidecar can have acted upon: half a frame is none."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._sent = 0
        self._unsent = deque(one for one in self._unsent if one[0] == Kind.INPUT)

    def forget_input(self) -> None:
        """The agent it was typed for has ended."""
        self._unsent.clear()
        self._sent = 0

    def send(self, kind: Kind, payload: bytes) -> None:
        self._unsent.append(frame(kind, payload))
        self.send_some()

    @property
    def wants_to_send(self) -> bool:
        return bool(self._unsent) and not self._deaf

    def send_some(self) -> None:
        while self.wants_to_send and self._socket is not None:
            try:
                self._sent += self._socket.send(memoryview(self._unsent[0])[self._sent :])
            except BlockingIOError:
                return
            except OSError:
                self._deaf = True
                return
            if self._sent == len(self._unsent[0]):
                self._unsent.popleft()
                self._sent = 0

    def receive(self) -> list[tuple[Kind, bytes]] | None:
        """Whole frames that have come; None when the connection has ended. Raises FrameError."""
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return self._splitter.feed(data) if data else None
