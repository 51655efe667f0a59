"""Where connections wait until their first request can be read: all of them cost one task, not one each.

Thousands that come at once and say nothing, or half a head, are let in, looked at and let go for a tenth of what a
task with its parser would take; so somebody who came behind them, and asks properly, is answered in time.
"""

import select
import socket
from collections.abc import Callable
from contextlib import suppress

import attrs
import trio

from cspd.web.crowd import Crowd
from cspd.web.exchange import HEAD_MAX, HEAD_SEC, IDLE_SEC

LEFT = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR  # no more comes
ENDS = (b"\r\n\r\n", b"\n\n", b"\n\r\n")  # of a head


def is_worth_reading(said: bytes) -> bool:
    """The head is whole, or too long, or nothing that will ever be one."""
    return said[0] <= 0x20 or len(said) >= HEAD_MAX or any(end in said for end in ENDS)


@attrs.define(eq=False)
class Visitor:
    """One who waits. In the crowd it is a stranger; `cancel` shows it out."""

    sock: socket.socket
    due: float
    spoke: bool
    leave: Callable[["Visitor"], None]

    def cancel(self) -> None:
        self.leave(self)
        with suppress(OSError):
            self.sock.recv(HEAD_MAX)  # a close with data unread would be a reset
        self.sock.close()


@attrs.define(eq=False)
class Porch:
    """`enter` takes over a socket whose request can be read; or it is `late`: that did not come in time.

    `blind`: what comes is encrypted, so the first byte must do.
    """

    crowd: Crowd
    enter: Callable[[socket.socket, bool], None]
    blind: bool = False
    _epoll: select.epoll = attrs.Factory(select.epoll)
    _visitors: dict[int, Visitor] = attrs.Factory(dict)
    _scope: trio.CancelScope = attrs.Factory(trio.CancelScope)

    def admit(self, sock: socket.socket) -> None:
        """A connection that was just accepted."""
        said = _peek(sock)
        if said is None:
            sock.close()
        elif said and (self.blind or is_worth_reading(said)):
            self.enter(sock, False)
        else:
            self._keep(Visitor(sock, trio.current_time() + (HEAD_SEC if said else IDLE_SEC), bool(said), self._forget))

    def _keep(self, visitor: Visitor) -> None:
        self._visitors[visitor.sock.fileno()] = visitor
        self._scope.deadline = min(self._scope.deadline, visitor.due)
        # by edges: what is there already is not read, only looked at
        self._epoll.register(visitor.sock, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET)
        if not self.crowd.enter(visitor):
            visitor.cancel()

    def _forget(self, visitor: Visitor) -> None:
        self._visitors.pop(visitor.sock.fileno(), None)
        self.crowd.leave(visitor)

    async def watch(self) -> None:
        """Until cancelled; then nobody is left."""
        try:
            while True:
                due = min((visitor.due for visitor in self._visitors.values()), default=float("inf"))
                with trio.CancelScope(deadline=due) as self._scope:
                    await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, events in self._epoll.poll(0):
                    if (visitor := self._visitors.get(fd)) is not None:
                        self._look(visitor, left=bool(events & LEFT))
                for visitor in [visitor for visitor in self._visitors.values() if visitor.due <= trio.current_time()]:
                    self._hand_on(visitor, late=True)
        finally:
            for visitor in list(self._visitors.values()):
                visitor.cancel()
            self._epoll.close()

    def _look(self, visitor: Visitor, *, left: bool) -> None:
        said = _peek(visitor.sock)
        if said and (self.blind or is_worth_reading(said)):
            self._hand_on(visitor, late=False)
        elif said is None or left:
            visitor.cancel()
        elif said and not visitor.spoke:
            visitor.spoke, visitor.due = True, min(visitor.due, trio.current_time() + HEAD_SEC)

    def _hand_on(self, visitor: Visitor, *, late: bool) -> None:
        self._forget(visitor)
        self._epoll.unregister(visitor.sock)
        if late and not visitor.spoke:
            visitor.sock.close()  # nothing was asked
        else:
            self.enter(visitor.sock, late)


def _peek(sock: socket.socket) -> bytes | None:
    """What has come; None from one that has left."""
    try:
        return sock.recv(HEAD_MAX, socket.MSG_PEEK) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None
