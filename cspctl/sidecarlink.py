"""The attach client's socket to a sidecar: whole frames, never blocking, and what to keep when it breaks.

When to connect and what the frames mean is `attach`'s.
"""

import select
import socket
import time
from collections import deque
from pathlib import Path

from cspd.wire.frames import HEADER_SIZE, FrameError, FrameSplitter, Kind, frame

_READ = 1 << 16
_GIVE_BACK_SEC = 0.5  # a sidecar does it at once; one that hangs does not write either


class SidecarLink:
    """Owns the connection, of which there are several one after the other; no call blocks.

    `fd` is for poll, -1 while there is no connection. `lent`: the sidecar writes to our terminal itself.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._splitter = FrameSplitter()
        self._unsent: deque[bytes] = deque()
        self._sent = 0  # bytes of the first one
        self._untaken: deque[bytes] = deque()  # input that was sent; no sidecar has said yet that it passed it on
        self._parked: deque[bytes] = deque()  # typed for the connection before; waits for HELLO
        self._taken = 0  # what the present sidecar has said to have passed on
        self._deaf = False  # the peer reads no more; what it has written may still be read
        self.lent = False

    @property
    def fd(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    @property
    def unsent(self) -> int:
        return sum(map(len, (*self._unsent, *self._parked))) - self._sent

    def connect(self, hello: bytes, terminal: int | None = None) -> None:
        """Connect and send `hello` at once, with our terminal; raises OSError (EAGAIN: the backlog is full)."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(str(self._path))
            sent = socket.send_fds(sock, [hello], [] if terminal is None else [terminal])
        except OSError:
            sock.close()
            raise
        self._socket, self._deaf, self._taken, self.lent = sock, False, 0, False
        self._splitter = FrameSplitter()
        self._parked.extend(self._unsent)
        self._unsent = deque([hello[sent:]] if sent < len(hello) else [])

    def greeted(self, same: bool, lent: bool = False) -> None:
        """HELLO was answered. What was typed before goes to the incarnation that it was typed for, or to none."""
        self.lent = lent
        if same:
            self._unsent.extend(self._parked)
        self._parked.clear()
        self.send_some()

    def close(self, *, to_come_back: bool = False) -> None:
        """End the connection. Kept is the input that no sidecar has passed on; `to_come_back`: it is asked once more
        how much it has, because the next would be given the rest again."""
        if self._socket is not None:
            if self.lent or (to_come_back and self._untaken):
                self._take_back(self._socket)
            self._socket.close()
            self._socket = None
        self._sent = 0
        kept = (*self._parked, *self._untaken, *self._unsent)
        self._unsent = deque(one for one in kept if one[0] == Kind.INPUT)
        self._parked.clear()
        self._untaken.clear()

    def _take_back(self, sock: socket.socket) -> None:
        """The sidecar writes to the terminal until it sees that we have closed our half; then it says what it has
        taken, and closes its own."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        deadline = time.monotonic() + _GIVE_BACK_SEC
        try:
            sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
                data = sock.recv(_READ)
                if not data:
                    break
                for kind, payload in self._splitter.feed(data):
                    if kind is Kind.TAKEN:
                        self.taken(int.from_bytes(payload, "big"))
        except (OSError, FrameError):
            pass  # it is gone
        self.lent = False

    def forget_input(self) -> None:
        """The agent it was typed for has ended."""
        self._unsent.clear()
        self._untaken.clear()
        self._parked.clear()
        self._sent = 0

    def taken(self, count: int) -> None:
        """The sidecar has passed on so many bytes of input on this connection."""
        fresh, self._taken = count - self._taken, count
        while self._untaken and fresh >= len(self._untaken[0]) - HEADER_SIZE:
            fresh -= len(self._untaken.popleft()) - HEADER_SIZE

    def keep(self, typed: bytes) -> None:
        """Input for the incarnation that we were connected to, as soon as HELLO is answered."""
        (self._unsent if self._socket is None else self._parked).append(frame(Kind.INPUT, typed))

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
                whole = self._unsent.popleft()
                if whole[0] == Kind.INPUT:
                    self._untaken.append(whole)
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
