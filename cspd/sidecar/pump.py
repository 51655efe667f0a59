"""Serves the descriptors whose news must not wait: the agent's terminal and the sockets of its attached clients.

They stand in an epoll of their own, for which trio waits as for one descriptor. A turn of trio's loop costs more than
all that is done with a key, so while there is something to do this loop stays with it, and waits for what comes next
in the kernel for a moment. Whose a descriptor is, and when it is not to be served, is for the owners to say.
"""

import select
from collections.abc import Callable
from typing import Any

import attrs
import trio

STAY_SEC = 0.001  # an echo is there after 0.05 ms; the least that epoll can wait
TURN_SEC = 0.005  # then trio's other tasks have their turn, however much there is to do

_Handle = Callable[[], bool]


@attrs.define(eq=False)
class _Reader:
    handle: _Handle
    done: trio.Event = attrs.Factory(trio.Event)
    error: Exception | None = None


@attrs.define(eq=False)
class Pump:
    """One task runs `run`; others give it a descriptor. Nothing here blocks longer than STAY_SEC.

    `rest` is called whenever nothing more is to be done for the moment.
    """

    rest: Callable[[], None] = lambda: None
    _epoll: select.epoll = attrs.Factory(select.epoll)
    _readers: dict[int, _Reader] = attrs.Factory(dict)
    _writers: dict[int, _Handle] = attrs.Factory(dict)
    _first: set[int] = attrs.Factory(set)
    _task_is_due: bool = False

    def close(self) -> None:
        """When nothing is served any more."""
        self._epoll.close()

    async def while_readable(self, fd: int, handle: _Handle, *, first: bool = False) -> None:
        """Call `handle` each time there is something to read, or a hang-up, until it says False or raises.

        `first`: its news decides what the news of others still means.
        """
        reader = _Reader(handle)
        if first:
            self._first.add(fd)
        try:
            self._put(self._readers, fd, reader)
            await reader.done.wait()
        finally:
            self._first.discard(fd)
            self._drop(self._readers, fd)
        if reader.error is not None:
            raise reader.error

    def while_writable(self, fd: int, handle: _Handle) -> None:
        """Call `handle` each time there is room to write, or nobody left to write to, until it says False.

        From the next round on: a task that had to begin it would let who reads at the other end wait for a whole turn.
        A descriptor has one such owner, who may ask again at any time. What `handle` raises ends `run`.
        """
        if fd not in self._writers:
            self._put(self._writers, fd, handle)

    def write_no_more(self, fd: int) -> None:
        """Before the descriptor is closed."""
        self._drop(self._writers, fd)

    def let_tasks_run(self) -> None:
        """One has been told something that must not wait until there is nothing more to do here."""
        self._task_is_due = True

    def _put(self, side: dict[int, Any], fd: int, entry: object) -> None:
        before = self._events(fd)
        side[fd] = entry
        try:
            self._tell(fd, before)
        except OSError:  # no memory in the kernel
            del side[fd]
            raise

    def _drop(self, side: dict[int, Any], fd: int) -> None:
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
        self._task_is_due = False
        while ready := self._epoll.poll(STAY_SEC):
            if len(ready) > 1:  # the kernel's order is that in which they came
                ready.sort(key=lambda news: news[0] not in self._first)
            for fd, events in ready:
                if events & ~select.EPOLLOUT:  # a hang-up is news for both
                    self._read(fd)
                if events & ~select.EPOLLIN:
                    self._write(fd)
            if self._task_is_due or trio.current_time() > until:
                break
        self.rest()

    def _read(self, fd: int) -> None:
        reader = self._readers.get(fd)
        if reader is None:
            return
        try:
            if reader.handle():
                return
        except Exception as exc:
            reader.error = exc  # for the task whose descriptor it is
        self._drop(self._readers, fd)
        reader.done.set()
        self.let_tasks_run()

    def _write(self, fd: int) -> None:
        handle = self._writers.get(fd)
        if handle is not None and not handle():
            self._drop(self._writers, fd)
