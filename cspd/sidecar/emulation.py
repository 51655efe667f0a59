"""The emulator and the output that it has not been given yet: attached terminals never wait for it.

Whoever looks at the terminal finds it as it is now. Until somebody looks, output only waits; a thread takes what gets
much, and when even that falls behind, the agent's output is not read any more. When to look is for others to say.
"""

import threading
from collections import deque

import attrs
import trio

from cspd.sidecar.terminal import Terminal

SLICE = 1 << 18  # bytes; 3 ms, for which who looks meanwhile waits
BEHIND_MAX = 4 << 20


@attrs.define(eq=False)
class Emulation:
    """Owner of the terminal; `run` is its thread's. Of one task but for `_feed_slice`."""

    _terminal: Terminal
    _waiting: deque[bytes] = attrs.Factory(deque)
    _given: int = 0
    _fed: int = 0  # changes under the lock only
    _feeding: threading.Lock = attrs.Factory(threading.Lock)
    _much: trio.Event = attrs.Factory(trio.Event)
    _room: trio.Event = attrs.Factory(trio.Event)

    def give(self, output: bytes) -> None:
        self._waiting.append(output)
        self._given += len(output)
        if self.busy:
            self._much.set()

    @property
    def behind(self) -> int:
        """Bytes of output that the emulator has not seen."""
        return self._given - self._fed

    @property
    def busy(self) -> bool:
        """So much waits that looking would hold up everything."""
        return self.behind > SLICE

    @property
    def full(self) -> bool:
        return self.behind > BEHIND_MAX

    @property
    def terminal(self) -> Terminal:
        """As of now; not to be kept. What it would have answered until now was for an attached terminal to answer."""
        if self.behind:
            self.catch_up()
        return self._terminal

    def catch_up(self) -> bytes:
        """-> what queries in the output ask to be told."""
        with self._feeding:
            return self._feed(self.behind)

    def snapshot(self) -> tuple[bytes, bytes]:
        """The terminal as far as it is, and the output that is still to come."""
        with self._feeding:
            return self._terminal.snapshot(), b"".join(self._waiting)

    def _feed(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while self._waiting and size > 0:
            pieces.append(self._waiting.popleft())
            size -= len(pieces[-1])
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        replies = self._terminal.feed(data)
        self._fed += len(data)  # last: who finds nothing to be behind does not ask for the lock
        return replies

    def _feed_slice(self) -> None:
        with self._feeding:
            self._feed(SLICE)

    async def wait_room(self) -> None:
        while self.full:
            self._room = trio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Until cancelled. A slice that is under way then is waited for."""
        while True:
            while self.busy:
                await trio.to_thread.run_sync(self._feed_slice)
                self._room.set()
            self._much = trio.Event()
            await self._much.wait()
