"""One attached client: its socket, and the terminal that it lends. Who it is to the agent is `people`'s."""

import array
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from functools import partial

import attrs

from cspd.sidecar.attach import Outbox
from cspd.sidecar.keystrokes import Keystrokes
from cspd.sidecar.outlet import Outlet
from cspd.sidecar.pump import Pump
from cspd.wire.detachkey import KeyWatch
from cspd.wire.frames import HEADER_SIZE, Kind, frame

RECEIVE_SIZE = 65536


@attrs.define(eq=False)
class Client:
    """One attached terminal. Frames go over its socket; output goes there too, or to the terminal itself if it is lent.

    A lent terminal is written to by one of us at a time: by the client until it has drawn a REPAINT (PAINTED), then by
    this sidecar until the next REPAINT, EXIT or the end of the connection. Its keys are read here until one of these
    two ends; what was not read yet stays in the terminal, for whoever comes next.
    """

    sock: socket.socket
    pump: Pump
    picture: Callable[["Client"], bytes]  # the whole screen
    rows: int = 0
    columns: int = 0
    read_only: bool = False
    scrollback: bool = True  # has not yet got it into its own history
    attached: bool = False
    left: bool = False  # it has closed the connection, or its half of it
    wants_taken: bool = False
    inside: str = ""  # the agent in whose terminal this one runs
    taken: int = 0  # bytes of input
    keystrokes: Keystrokes = attrs.Factory(Keystrokes)
    watch: KeyWatch | None = None  # finds the detach key in what is typed; None: the keys are not ours to read
    line: Outlet = attrs.field(init=False)
    screen: Outlet | None = None

    def __attrs_post_init__(self) -> None:
        self.line = Outlet(self.sock.fileno(), self.sock.sendmsg, self.pump, self._repaint)

    def lend(self, terminal: int) -> None:
        """From now on the descriptor is ours."""
        if self.screen is not None:
            self.screen.end()
            os.close(self.screen.fd)
        self.screen = Outlet(terminal, partial(os.writev, terminal), self.pump, self._repaint, held=True)

    @property
    def shown(self) -> Outbox:
        """The output on its way."""
        return (self.screen or self.line).outbox

    def push(self, kind: Kind, payload: bytes) -> None:
        self.line.push(frame(kind, payload))

    def output(self, framed: bytes) -> None:
        """The same bytes object for all clients."""
        if self.screen is None:
            self.line.push(framed)
        else:
            self.screen.push(memoryview(framed)[HEADER_SIZE:])

    def send_now(self) -> None:
        self.line.send_now()

    def _repaint(self) -> None:
        self.paint(self.picture(self))

    def paint(self, picture: bytes) -> None:
        if self.screen is not None:
            self.screen.held = True
        self.push(Kind.REPAINT, picture)

    def painted(self) -> None:
        if self.screen is not None and not self.left:
            self.screen.held = False
            self.screen.send_now()

    def outdated(self) -> None:
        """What it shows, and what is on its way there: it is to be painted anew."""
        self.shown.outdated()
        (self.screen or self.line).send_now()

    async def farewell(self, last: bytes) -> None:
        """Until it has everything, and this frame after that."""
        self.watch = None
        if self.screen is not None:
            await self.screen.flush()
            self.screen.held = True
        self.line.outbox.push_last(last)
        self.line.send_now()
        await self.line.flush()

    def leave(self) -> None:
        """It has closed its half of the connection, and has its terminal back when it sees that we closed ours."""
        self.left, self.watch = True, None
        if self.screen is not None:
            self.screen.end()
        self.line.send_now()  # it may be waiting to hear that its input was passed on
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.line.send_now()
        self.line.end()
        self.sock.close()
        if self.screen is not None:
            self.screen.end()
            os.close(self.screen.fd)


def receive_with_fd(sock: socket.socket) -> tuple[bytes, int | None]:
    """-> bytes, and the terminal that came with them: open for writing, and so that a write does not block."""
    data, rights, _, _ = sock.recvmsg(RECEIVE_SIZE, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    found: int | None = None
    for level, kind, payload in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i", payload[: len(payload) // 4 * 4])
            for fd in fds:
                if found is None and _is_terminal(fd):
                    found = fd
                else:
                    os.close(fd)
    return data, found


def _is_terminal(fd: int) -> bool:
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    return os.isatty(fd) and bool(flags & os.O_NONBLOCK) and flags & os.O_ACCMODE != os.O_RDONLY
