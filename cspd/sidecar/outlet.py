"""One way to an attached client: its socket, or the terminal that it lends. Takes bytes when it can; never blocks."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import trio

from cspd.sidecar.attach import Outbox
from cspd.sidecar.pump import Pump

AT_ONCE_MAX = 1 << 17  # longer than what is read of an agent at a time; far from what makes a queue full


class Write(Protocol):
    """Like writev(2): raises BlockingIOError where there is no room, another OSError where nobody is left."""

    def __call__(self, buffers: Sequence[bytes | memoryview], /) -> int: ...


@attrs.define(eq=False)
class Outlet:
    """`held`: not to be written to at the moment; what comes is queued. `repaint` is called when everything from before
    is sent, and a picture is owed.
    """

    fd: int
    _write: Write
    _pump: Pump
    _repaint: Callable[[], None]
    held: bool = False
    outbox: Outbox = attrs.Factory(Outbox)
    _stuck: bool = False  # the kernel's buffer is full: the pump waits for room
    _sent: trio.Event = attrs.Factory(trio.Event)

    def push(self, data: bytes | memoryview) -> None:
        written = 0
        if not (self.outbox.waiting or self.held or self._stuck or len(data) > AT_ONCE_MAX):
            written = self._write_some([data])
            if written == len(data):
                return self.outbox.passed()  # as a rule: an echo does not go through the queue
        self.outbox.push(data)
        if written:
            self.outbox.sent(written)
        self.send_now()

    def send_now(self) -> None:
        """What is queued, as far as there is room: a keystroke's echo does not wait for a task switch."""
        if not self._stuck:
            self._send_some()
        if self._owed:
            with contextlib.suppress(OSError):  # no memory in the kernel: tried again with what comes next
                self._pump.while_writable(self.fd, self._writable)

    def _send_some(self) -> None:
        if not self.held and (buffers := self.outbox.head()):
            self.outbox.sent(self._write_some(buffers))
        if not self.outbox.queued:
            self._sent.set()

    def _write_some(self, buffers: Sequence[bytes | memoryview]) -> int:
        try:
            return self._write(buffers)
        except BlockingIOError:
            self._stuck = True
            return 0
        except OSError:
            return sum(map(len, buffers))  # it has vanished; the task that reads from its socket notices too

    @property
    def _owed(self) -> bool:
        return not self.held and (bool(self.outbox.queued) or self.outbox.wants_repaint)

    def _writable(self) -> bool:
        """Is anything left?"""
        self._stuck = False
        self._send_some()  # asks for the buffers only now: they may have been dropped meanwhile
        if self.outbox.wants_repaint:
            self.outbox.repainted()
            self._repaint()
        return self._owed

    async def flush(self) -> None:
        """Until everything is sent, or the client is gone."""
        while self.outbox.queued:
            self._sent = trio.Event()
            await self._sent.wait()

    def end(self) -> None:
        """Nothing is written any more. Its owner closes the descriptor."""
        self.held = True
        self.outbox.drop()
        self._sent.set()
        self._pump.write_no_more(self.fd)
