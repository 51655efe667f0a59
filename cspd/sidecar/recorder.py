"""Records what the agent's terminal shows into asciicast files: bounded in size, in number, and in what they may cost.

The relay only queues; a thread writes, a few times a second. Each file stands alone: it begins with the whole screen.
What cannot be written ends the recording with one line in the log, never the agent.
"""

import logging
import os
import time
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from cspd.errors import CspError
from cspd.paths import make_private_dir
from cspd.sidecar.asciicast import Cast
from cspd.sidecar.emulation import Emulation
from cspd.sidecar.repaint import repaint

log = logging.getLogger("csp-sidecar")

LINE_MAX = 1 << 16  # no line is longer: a piece of output with every character escaped
FLUSH_SEC = 0.2  # between two writes: so much a successor may have to record, and an idle agent costs nothing
QUEUE_MAX = 8 << 20  # bytes that a slow disk may be behind; then a gap follows, and a new file behind it
FINISH_SEC = 2.0  # for what is queued when the agent has ended


@attrs.frozen
class Wish:
    """The unit's table [record]."""

    enabled: bool = False
    max_bytes: int = 10 << 20
    keep_files: int = 10
    input: bool = False

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Wish | None":
        """None: a cspd of another version says nothing about it."""
        given = settings.get("record")
        known = attrs.fields_dict(cls)
        return cls(**{key: value for key, value in given.items() if key in known}) if isinstance(given, dict) else None


@attrs.frozen
class Begin:
    """The lines behind this one go into a new file."""

    keep_files: int


@attrs.define
class Files:
    """The recordings of one agent on disk, numbered. Blocking; called by one thread at a time."""

    directory: Path
    _fd: int = -1

    def begin(self, keep: int) -> None:
        """A new file; the oldest ones go when there are more than `keep` with it. Raises OSError."""
        self.close()
        for directory in (self.directory.parent.parent, self.directory.parent, self.directory):
            make_private_dir(directory)
        present = sorted(int(path.stem) for path in self.directory.glob("*.cast") if path.stem.isdecimal())
        if present:
            _end_whole(self._path(present[-1]))
        for old in present[: max(0, len(present) - keep + 1)]:
            self._path(old).unlink(missing_ok=True)
        new = self._path(present[-1] + 1 if present else 1)
        self._fd = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:06}.cast"

    def append(self, lines: bytes) -> None:
        """All of it or nothing; raises OSError."""
        size = os.fstat(self._fd).st_size
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            os.ftruncate(self._fd, size)  # players do not read a file with a torn line
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _end_whole(path: Path) -> None:
    """Cut off a line that a sidecar was writing when it was killed."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LINE_MAX))
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)


class Journal(Protocol):
    """Where all output is kept for a successor, and how much of it has been recorded."""

    @property
    def count(self) -> int: ...
    def note_recorded(self, count: int) -> None: ...


@attrs.define(eq=False)
class Recorder:
    """Call `output` once the journal has it, before the emulation is given it, and run `run`."""

    name: str
    emulation: Emulation
    files: Files
    journal: Journal
    _wish: Wish = Wish()
    _cast: Cast | None = None  # the file that the next line belongs to
    _room: int = 0  # bytes after which it is full
    _queue: deque[bytes | Begin] = attrs.Factory(deque)
    _queued: int = 0
    _writing: int = 0  # bytes that a thread has in hand
    _behind: bool = False
    _failed: bool = False
    _wake: trio.Event = attrs.Factory(trio.Event)
    _hurry: trio.Event = attrs.Factory(trio.Event)
    _written: trio.Event = attrs.Factory(trio.Event)

    def take_settings(self, settings: dict[str, Any]) -> None:
        """Counts at once; what failed is tried again when the table changes."""
        wish = Wish.of(settings)
        if wish is None or wish == self._wish:
            return
        if wish.enabled and not self._wish.enabled:
            self.journal.note_recorded(self.journal.count)  # what was before is not wanted
        self._wish, self._failed = wish, False
        if not wish.enabled:
            self._cast = None

    def output(self, data: bytes) -> None:
        if cast := self._open_cast():
            self._put(cast.output(trio.current_time(), data))

    def resized(self) -> None:
        if self._cast is not None:
            term = self.emulation.terminal
            self._put(self._cast.resized(trio.current_time(), term.columns, term.rows))

    def input(self, data: bytes) -> None:
        if self._wish.input and self._cast is not None:
            self._put(self._cast.input(trio.current_time(), data))

    def _open_cast(self) -> Cast | None:
        """The cast for the next output, a new one when the last is full; None when nothing is recorded."""
        if not self._wish.enabled or self._failed:
            return None
        waiting = self._queued + self._writing
        if waiting > QUEUE_MAX:
            self._cast, self._behind = None, True
        self._behind = self._behind and waiting > 0  # first the disk takes what there is
        if self._behind:
            return None
        if self._cast is None or self._cast.size > self._room:
            self._begin()
        return self._cast

    def _begin(self) -> None:
        now, term = trio.current_time(), self.emulation.terminal
        cast = Cast(now)
        self._queue.append(Begin(self._wish.keep_files))
        self._cast = cast
        self._put(cast.header(term.columns, term.rows, time.time(), self.name))
        self._put(cast.output(now, repaint(term, scrollback=False)))
        self._room = max(self._wish.max_bytes, 4 * cast.size)  # else a large screen would fill each file

    def _put(self, lines: bytes) -> None:
        self._queue.append(lines)
        self._queued += len(lines)
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self._flush()
            self._written.set()
            if self._queued < QUEUE_MAX // 4:
                with trio.move_on_after(FLUSH_SEC):
                    await self._hurry.wait()

    async def finish(self) -> None:
        """The agent has ended: wait until what is left is written. Nothing is recorded afterwards."""
        self._wish = Wish()
        self._hurry.set()
        with trio.move_on_after(FINISH_SEC):
            while self._queue or self._writing:
                self._written = trio.Event()
                await self._written.wait()

    async def _flush(self) -> None:
        """A disk that hangs holds a thread, and at most QUEUE_MAX of memory."""
        work, self._queue = self._queue, deque()
        self._writing, self._queued = self._queued, 0
        reached = self.journal.count
        try:
            await trio.to_thread.run_sync(self._write, work, abandon_on_cancel=True)
            self.journal.note_recorded(reached)
        except (OSError, CspError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc.sentence
            log.error("%s: recording has stopped: %s: %s", self.name, self.files.directory, why)
            self._failed, self._cast = True, None
            self._queue.clear()
            self._queued = 0
        finally:
            self._writing = 0

    def _write(self, work: deque[bytes | Begin]) -> None:
        lines: list[bytes] = []
        for item in work:
            if isinstance(item, Begin):
                self._append(lines)
                self.files.begin(item.keep_files)
            else:
                lines.append(item)
        self._append(lines)

    def _append(self, lines: list[bytes]) -> None:
        if lines:
            self.files.append(b"".join(lines))
            lines.clear()
