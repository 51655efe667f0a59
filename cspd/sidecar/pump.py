"""Serves the descriptors whose news must not wait: the agent's terminal and the sockets of its attached clients.

They stand in an epoll of their own, for which trio waits as for one descriptor. A turn of trio's loop costs more than
all that is done with a key, so while there is something to do this loop stays with it, and waits for what comes next
in the kernel for a moment. Whose a descriptor is, and when it is not to be served, is for the owners to say.
"""

import select
from collections.abc import Callable

import attrs
import trio

STAY_SEC = 0.001  # an echo is there after 0.05 ms; the least that epoll can wait
TURN_SEC = 0.005  # then trio's other tasks have their turn, however much there is to do

_Handle = Callable[[], bool]


@attrs.define(eq=False)
class _Served:
    handle: _Handle
    done: trio.Event = attrs.Factory(trio.Event)
    error: Exception | None = None


@attrs.define(eq=False)
class Pump:
    """One task runs `run`; others give it a descriptor and wait. Nothing here blocks longer than STAY_SEC.

    `rest` is called whenever nothing more is to be done for the moment.
    """

    rest: Callable[[], None] = lambda: None
    _epoll: select.epoll = attrs.Factory(select.epoll)
    _readers: dict[int, _Served] = attrs.Factory(dict)
    _writers: dict[int, _Served] = attrs.Factory(dict)
    _first: set[int] = attrs.Factory(set)

    def close(self) -> None:
        """When nothing is served any more."""
        self._epoll.close()

    async def while_readable(self, fd: int, handle: _Handle, *, first: bool = False) -> None:
        """Call `handle` each time there is something to read, or a hang-up, until it says False or raises.

        `first`: its news decides what the news of others still means.
        """
        if first:
            self._first.add(fd)
        try:
            await self._serve(self._readers, fd, handle)
        finally:
            self._first.discard(fd)

    async def while_writable(self, fd: int, handle: _Handle) -> None:
        """The same for room to write."""
        await self._serve(self._writers, fd, handle)

    async def _serve(self, side: dict[int, _Served], fd: int, handle: _Handle) -> None:
        before = self._events(fd)
        served = side[fd] = _Served(handle)
        self._tell(fd, before)
        try:
            await served.done.wait()
        finally:
            self._leave(side, fd)
        if served.error is not None:
            raise served.error

    def _leave(self, side: dict[int, _Served], fd: int) -> None:
        before = self._events(fd)
        if side.pop(fd, None) is not None:
            self._tell(fd, before)

    def _events(self, fd: int) -> int:
        return (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)

    def _tell(self, fd: int, before: int) -> None:
        """The kernel: what we want to know of it now."""
        now = self._events(fd)
        if not now:
            self._epoll.unregister(fd)
        elif before:
            self._epoll.modify(fd, now)
        else:
            self._epoll.register(fd, now)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._turn()

    def _turn(self) -> None:
        until = trio.current_time() + TURN_SEC
        while ready := self._epoll.poll(STAY_SEC):
            if len(ready) > 1:  # the kernel's order is that in which they came
                ready.sort(key=lambda news: news[0] not in self._first)
            for fd, events in ready:
                if events & ~select.EPOLLOUT:  # a hang-up is news for both
                    self._handle(self._readers, fd)
                if events & ~select.EPOLLIN:
                    self._handle(self._writers, fd)
            if trio.current_time() > until:
                break
        self.rest()

    def _handle(self, side: dict[int, _Served], fd: int) -> None:
        served = side.get(fd)
        if served is None:
            return
        try:
            if served.handle():
                return
        except Exception as exc:
            served.error = exc  # for the task whose descriptor it is
        self._leave(side, fd)
        served.done.set()
