"""What an attached client is owed: a bounded queue of frames, and what happens when it does not read. Pure.

Three promises that pull apart: a client that reads gets every byte; the agent is never blocked by one that does not;
memory is bounded. So a full queue first slows the agent down (a reader needs that), for `PATIENCE_SEC` at most; a
client that took next to nothing meanwhile loses its queue, and gets the screen painted anew when it reads again.
"""

from collections import deque
from enum import Enum

import attrs

HIGH = 1 << 20  # queued bytes at which the agent is slowed down
LOW = HIGH // 2
PATIENCE_SEC = 0.5
PROGRESS = 1 << 14  # bytes that a reader takes within PATIENCE_SEC; a terminal that is alive takes megabytes
BATCH = 64  # frames a sendmsg


class Pace(Enum):
    KEEPING_UP = "keeping up"
    SLOWING = "slowing the agent down"  # its queue is full, its time runs
    BEHIND = "behind"  # its queue was dropped; owed a repaint


@attrs.define
class Outbox:
    """Frames, or output, on their way to one client. What is partly sent is never dropped: the stream stays whole."""

    pace: Pace = Pace.KEEPING_UP
    queued: int = 0
    taken: int = 0  # bytes that the client took since its time began to run
    _trusted: bool = True  # fell behind before and did not catch up since: no patience a second time
    _frames: deque[bytes | memoryview] = attrs.Factory(deque)
    _offset: int = 0  # of the first frame, already sent

    @property
    def waiting(self) -> bool:
        """What is pushed now comes after something else."""
        return bool(self._frames) or self.pace is not Pace.KEEPING_UP

    def passed(self) -> None:
        """Something went out whole, with nothing waiting: the client has caught up."""
        self._trusted = True

    def push(self, frame: bytes | memoryview) -> None:
        if self.pace is Pace.BEHIND:
            return  # the repaint will show it
        self._frames.append(frame)
        self.queued += len(frame)
        if self.queued > HIGH and self.pace is Pace.KEEPING_UP:
            self.pace, self.taken = Pace.SLOWING, 0
            if not self._trusted:
                self.fall_behind()

    def push_last(self, frame: bytes) -> None:
        """The farewell, which also a client that is behind must get; nothing follows."""
        self._frames.append(frame)
        self.queued += len(frame)

    def head(self) -> list[memoryview]:
        """The next buffers to send, in order; empty when there is nothing to send."""
        out = [memoryview(frame) for _, frame in zip(range(BATCH), self._frames, strict=False)]
        if out:
            out[0] = out[0][self._offset :]
        return out

    def sent(self, size: int) -> None:
        self.queued -= size
        self.taken += size
        size += self._offset
        while self._frames and size >= len(self._frames[0]):
            size -= len(self._frames.popleft())
        self._offset = size
        if self.pace is Pace.SLOWING and self.queued <= LOW:
            self.pace = Pace.KEEPING_UP
        if not self._frames and self.pace is Pace.KEEPING_UP:
            self._trusted = True

    def patience_over(self) -> None:
        """PATIENCE_SEC have passed with a full queue: a reader gets as long again, the others fall behind."""
        if self.pace is not Pace.SLOWING:
            return
        if self.taken < PROGRESS:
            self.fall_behind()
        self.taken = 0

    def fall_behind(self) -> None:
        self._trusted = False
        self.outdated()

    def outdated(self) -> None:
        """A repaint is due, which shows what is queued as well."""
        self.pace = Pace.BEHIND
        kept = [self._frames[0]] if self._offset else []
        self._frames = deque(kept)
        self.queued = len(kept[0]) - self._offset if kept else 0

    def drop(self) -> None:
        """Nobody will read any of it."""
        self._frames.clear()
        self.queued = self._offset = 0

    @property
    def wants_repaint(self) -> bool:
        """It reads again: everything left over from before is sent."""
        return self.pace is Pace.BEHIND and not self._frames

    def repainted(self) -> None:
        """The picture is on its way, by this queue or another."""
        self.pace = Pace.KEEPING_UP
