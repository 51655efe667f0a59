"""The emulator and the output that it has not been given yet: attached terminals never wait for it.

Whoever looks at the terminal finds it as it is now. Until somebody looks, output only waits; a thread takes what gets
too much, and when even that falls behind, the agent's output is not read any more. When to look is for others to say.
"""

import threading
from collections import deque

import attrs
import trio

from cspd.sidecar.skim import Skim
from cspd.sidecar.terminal import Terminal

SLICE = 1 << 18  # bytes; 6 ms, for which who looks meanwhile waits
BURST = 4 << 20  # of so much at once most need not go into the scrollback
BEHIND_MAX = 8 << 20


@attrs.define(eq=False)
class Emulation:
    """Owner of the terminal; `run` is its thread's. Of one task but for `_feed_burst`."""

    _terminal: Terminal
    _skim: Skim = attrs.Factory(Skim)
    _waiting: deque[bytes] = attrs.Factory(deque)
    _given: int = 0
    _fed: int = 0  # changes under the lock only
    _feeding: threading.Lock = attrs.Factory(threading.Lock)
    _hurried: bool = False
    _much: trio.Event = attrs.Factory(trio.Event)
    _room: trio.Event = attrs.Factory(trio.Event)

    def give(self, output: bytes) -> None:
        self._waiting.append(output)
        self._given += len(output)
        if self._too_much:
            self._much.set()

    def ask(self, output: bytes) -> bytes:
        """Take output, and tell what queries in it ask to be told. Not those in what was given before."""
        if self.behind:
            self.catch_up()
        self.give(output)
        return self.catch_up()

    def hurry(self) -> None:
        """Somebody is going to look: the thread shall not wait for more."""
        self._hurried = self.busy
        if self._too_much:
            self._much.set()

    @property
    def _too_much(self) -> bool:
        return self.behind > (SLICE if self._hurried else BURST)

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
        self._skim.forget()
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
        self._terminal, replies = self._skim.feed(self._terminal, pieces)
        self._fed += sum(map(len, pieces))  # last: who finds nothing to be behind does not ask for the lock
        return replies

    def _feed_burst(self) -> None:
        with self._feeding:
            self._feed(BEHIND_MAX)

    async def wait_room(self) -> None:
        while self.full:
            self._room = trio.Event()
            await self._room.wait()

    async def run(self) -> None:
        """Until cancelled. A slice that is under way then is waited for."""
        while True:
            while self._too_much:
                await trio.to_thread.run_sync(self._feed_burst)
                self._room.set()
            self._hurried = False
            self._much = trio.Event()
            await self._much.wait()
