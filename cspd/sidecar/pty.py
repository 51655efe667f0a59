"""The PTY master: a greedy reader, one ordered writer, the window size, and the slave's state.

Every byte that goes to the program passes `Writer`; who may write what and when is the arbiter's business.
"""

import fcntl
import os
import select
import struct
import termios
from collections import deque
from typing import NamedTuple

import attrs
import trio

from cspd.sidecar.pump import Pump

READ_SIZE = 65536
SMALL = 256  # bytes: an echo, behind which it is not worth asking for more
GREEDY = 4  # reads a wake-up; a PTY gives about 4 kB at a time, and while more of them are read its reader waits
WRITE_HIGH = 1 << 18  # bytes on their way to a program that does not read; then attached clients are not read either


def read_available(master: int) -> tuple[bytes, bool]:
    """-> (bytes, hung up). Up to GREEDY reads; EIO is the end of file: no process has the slave open any more."""
    parts: list[bytes] = []
    try:
        parts.append(os.read(master, READ_SIZE))
        while len(parts[-1]) > SMALL and len(parts) < GREEDY:
            parts.append(os.read(master, READ_SIZE))
    except BlockingIOError:
        pass
    except OSError:  # EIO comes only after the last byte, so nothing is lost
        return b"".join(parts), True
    return b"".join(parts), False


@attrs.define
class Writer:
    """The only way to the program's input. `write` never blocks; `wait_room` is for those who can wait."""

    master: int
    pump: Pump
    _queue: deque[bytes] = attrs.Factory(deque)
    _queued: int = 0
    _room: trio.Event = attrs.Factory(trio.Event)

    def write(self, data: bytes) -> None:
        if not data:
            return
        if not self._queue:
            data = data[self._write_some(data) :]  # a keystroke goes through at once
        if data:
            self._queue.append(data)
            self._queued += len(data)
            self.pump.while_writable(self.master, self._advance)

    def _write_some(self, data: bytes) -> int:
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # EIO: the program is gone and with it the reader of these bytes

    @property
    def queued(self) -> int:
        """Bytes that the program has not taken yet."""
        return self._queued

    @property
    def has_room(self) -> bool:
        return self._queued <= WRITE_HIGH

    async def wait_room(self) -> None:
        while not self.has_room:
            if self._room.is_set():  # one event for all who wait: each attached client may
                self._room = trio.Event()
            await self._room.wait()

    def _advance(self) -> bool:
        """Is anything left?"""
        head = self._queue.popleft()
        written = self._write_some(head)
        self._queued -= written
        if written < len(head):
            self._queue.appendleft(head[written:])
        if not written and _hung_up(self.master):
            self._queue.clear()  # nobody will read it; and such a master is "ready" for ever, but takes nothing
            self._queued = 0
        if self.has_room and not self._room.is_set():
            self._room.set()
            self.pump.let_tasks_run()
        return bool(self._queue)


def _hung_up(master: int) -> bool:
    poll = select.poll()
    poll.register(master, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def set_size(master: int, rows: int, columns: int) -> None:
    """The kernel itself sends SIGWINCH to the foreground group, and only when the size changed."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def get_size(master: int) -> tuple[int, int]:
    """-> (rows, columns)"""
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


TIOCGPTPEER = 0x5441  # opens the slave of this very master; not in the termios module


def unread(master: int) -> int:
    """How many bytes the program has not read yet. Opens the slave for a moment: the master cannot tell."""
    try:
        slave = fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        (count,) = struct.unpack("i", fcntl.ioctl(slave, termios.FIONREAD, bytes(4)))
        return int(count)
    finally:
        os.close(slave)


class LineDiscipline(NamedTuple):
    canonical: bool
    echo: bool
    foreground: bool  # the agent's own group may read the terminal (else a shell runs a job)
    reading: bool | None  # the agent sleeps in a read of its terminal; None: the kernel does not say


def line_discipline(master: int, leader: int) -> LineDiscipline:
    """State of the slave, read through the master. Raises OSError(EIO) after the hang-up."""
    flags = termios.tcgetattr(master)[3]
    foreground = os.tcgetpgrp(master)
    return LineDiscipline(
        canonical=bool(flags & termios.ICANON),
        echo=bool(flags & termios.ECHO),
        foreground=foreground == leader,
        reading=_reads_terminal(foreground),
    )


def reaped(pid: int) -> tuple[bytes, ...]:
    """Changes whenever the process has waited for a child that ended: what its children cost, in /proc/PID/stat."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except OSError:
        return ()
    return (fields[8], fields[10], fields[13], fields[14])  # cminflt, cmajflt, cutime, cstime


# Names of the kernel functions in which a process sleeps (seen with Linux 5.10 to 6.18). What polls may wait for
# anything.
_READING = frozenset({"wait_woken", "n_tty_read"})
_NOT_READING = (
    "do_wait",
    "kernel_wait4",
    "hrtimer_nanosleep",
    "do_nanosleep",
    "pipe_read",
    "anon_pipe_read",
    "sigsuspend",
)


def _reads_terminal(pid: int) -> bool | None:
    try:
        with open(f"/proc/{pid}/wchan") as f:
            where = f.read()
    except OSError:
        return None
    if where in _READING:
        return True
    return False if where.startswith(_NOT_READING) else None
