"""The person's own terminal: raw mode, size, painting, and giving it back as it was, from one place.

Holds the bytes that the terminal has not taken yet; whether to read or to wait is decided by `attach`.
"""

import fcntl
import os
import select
import signal
import struct
import termios
import time
from enum import Enum
from types import TracebackType
from typing import Any

from cspd.errors import CspError
from cspd.wire.ansi import RESET

_READ = 1 << 16
_WRITE = 1 << 16
# A write that may block gets no more than poll's promise is good for: a tty's buffer grows by 256 bytes.
_WRITE_BLOCKING = 256
_DRAIN_SEC = 0.5
_TIOCGDEV = 0x80045432  # not in the termios module
_QUIET_SEC = 0.02  # a local terminal answers a query within a few ms
_REPLIES_SEC = 0.1

# xterm's stack of titles; terminals without one ignore it
_KEEP_TITLE = b"\x1b[22;0t"
_TITLE_BACK = b"\x1b[23;0t"
_BELOW = RESET + _TITLE_BACK + b"\r\n"  # RESET leaves the cursor on the last line, which may be the agent's


class Shown(Enum):
    """Whose the screen is at the moment."""

    SHELL = "as we found it"
    AGENT = "painted by the agent"
    OURS = "reset, cursor on an empty line of our own"


class Terminal:
    """Owns the terminal between `with` and its end: raw inside, as before afterwards, whatever ends it.

    `read_fd` and `write_fd` are for poll; `pending` is true while bytes wait for the terminal to take them.
    """

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        for fd, name in ((stdin, "standard input"), (stdout, "standard output")):
            if not os.isatty(fd):
                raise CspError("not-a-terminal", f"{name}: not a terminal", "run it in a terminal of its own")
        own = _open_again(stdout) if _device(stdin) == _device(stdout) else None
        self.read_fd = stdin if own is None else own
        self.write_fd = stdout if own is None else own
        self._own = own
        self._saved: list[Any] = []
        self._waiting = bytearray()
        self._shown = Shown.SHELL
        self._noted = False  # an unfinished line of ours stands where the cursor is

    def __enter__(self) -> "Terminal":
        try:
            self._saved = termios.tcgetattr(self.read_fd)
            self.make_raw()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._restore()

    # -- bytes

    @property
    def lendable(self) -> int | None:
        """An open file on which another process does not wait either, and whose flags are nobody else's."""
        return self._own

    @property
    def pending(self) -> bool:
        return bool(self._waiting)

    def read(self) -> bytes | None:
        """What was typed; None when nothing is there after all, b"" when the terminal is gone."""
        try:
            return os.read(self.read_fd, _READ)
        except BlockingIOError:
            return None
        except OSError:  # EIO: hung up
            return b""

    @property
    def unread(self) -> int:
        """Bytes that were typed and that nobody has read."""
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self.read_fd, termios.FIONREAD, bytes(4)))
        except OSError:
            return 0
        return int(count)

    def write_some(self) -> bool:
        """Hand over what the terminal takes without waiting; False when it is gone."""
        if not self._waiting or (self._own is None and not _has_room(self.write_fd)):
            return True
        size = _WRITE_BLOCKING if self._own is None else _WRITE
        try:
            done = os.write(self.write_fd, self._waiting[:size])
        except BlockingIOError:
            return True
        except OSError:
            return False
        del self._waiting[:done]
        return True

    def size(self) -> tuple[int, int]:
        """(rows, columns); 24 x 80 where nobody has said."""
        try:
            columns, rows = os.get_terminal_size(self.write_fd)
        except OSError:
            return 24, 80
        return (rows, columns) if rows and columns else (24, 80)

    # -- painting

    def output(self, data: bytes) -> None:
        self._waiting += data

    def repaint(self, data: bytes) -> None:
        """A whole screen for a terminal that was reset and cleared.

        What stood there and was not the agent's (the shell's lines, ours) goes into the terminal's history
        first; the agent's old picture is simply replaced.
        """
        self._waiting += RESET
        if self._shown is not Shown.AGENT:
            self._waiting += _KEEP_TITLE + b"\n" * self.size()[0]
        # Line by line: clearing the whole screen at once pushes it into the history of some terminals (tmux).
        self._waiting += b"".join(b"\x1b[%d;1H\x1b[2K" % row for row in range(1, self.size()[0] + 1))
        self._waiting += b"\x1b[H" + data
        self._shown, self._noted = Shown.AGENT, False

    def say(self, line: str) -> None:
        """A line of ours, below whatever is there."""
        self.note(line)
        self._waiting += b"\r\n"
        self._noted = False

    def note(self, line: str) -> None:
        """A line of ours that the next one replaces."""
        if self._shown is Shown.AGENT:
            self._waiting += _BELOW  # in the shell's screen the cursor is below its command line already
        columns = self.size()[1]
        clean = "".join(c if c.isprintable() else "?" for c in line)
        self._waiting += b"\r\x1b[K" + clean[: columns - 1].encode("utf-8", "replace")
        self._shown, self._noted = Shown.OURS, True

    # -- modes

    def make_raw(self) -> None:
        """What cfmakeraw(3) does. Keys typed ahead are kept."""
        mode = [*self._saved[:6], list(self._saved[6])]
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
            | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.read_fd, termios.TCSANOW, mode)

    def _restore(self) -> None:
        """The one place where the terminal is given back."""
        try:
            if self._saved:
                self._clean_up()
                termios.tcsetattr(self.read_fd, termios.TCSANOW, self._saved)
                if self._shown is not Shown.SHELL:
                    termios.tcflush(self.read_fd, termios.TCIFLUSH)
        except (OSError, termios.error):
            pass  # the terminal itself is gone: nobody is left to see its modes
        finally:
            if self._own is not None:
                os.close(self._own)
                self._own = None

    def _clean_up(self) -> None:
        if self._shown is Shown.SHELL:
            return
        if self._shown is Shown.AGENT:
            self._waiting[:] = _BELOW  # output not yet shown is not worth the wait
        elif self._noted:
            self._waiting += b"\r\x1b[K"
        if not self._drain():
            # A terminal that takes nothing holds kilobytes of old output before our reset: throw them away.
            termios.tcflush(self.write_fd, termios.TCOFLUSH)
            self._waiting[:] = _BELOW
            self._drain()
        self._drop_replies()

    def _drain(self) -> bool:
        poll = select.poll()
        poll.register(self.write_fd, select.POLLOUT)
        deadline = time.monotonic() + _DRAIN_SEC
        while self._waiting and (left := deadline - time.monotonic()) > 0:
            if poll.poll(left * 1000) and not self.write_some():
                break
        return not self._waiting

    def _drop_replies(self) -> None:
        """Read away the answers to the agent's last queries: the shell would take them for typing."""
        poll = select.poll()
        poll.register(self.read_fd, select.POLLIN)
        deadline = time.monotonic() + _REPLIES_SEC
        while time.monotonic() < deadline and poll.poll(_QUIET_SEC * 1000):
            if not self.read():
                break


def _has_room(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _device(fd: int) -> int:
    """The same for two names of one terminal, as /dev/tty and /dev/pts/1."""
    (number,) = struct.unpack("I", fcntl.ioctl(fd, _TIOCGDEV, bytes(4)))
    return int(number)


def _open_again(fd: int) -> int | None:
    """An open file of our own on the same terminal, so that O_NONBLOCK is not forced upon the shell's.

    None when that cannot be had (a terminal of another user after `su`, no /dev/pts in a container).
    """
    try:
        own = os.open(os.ttyname(fd), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if os.fstat(own).st_rdev != os.fstat(fd).st_rdev:  # the name means another terminal in this mount namespace
        os.close(own)
        return None
    return own


class Signals:
    """Inside `with`, signals are bytes on a pipe (`fd`, for poll) instead of interruptions at any line.

    `came`: there is something to `take`, also when poll has not said so yet.
    """

    WATCHED = (
        *(signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT),
        *(signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT),
    )

    def __enter__(self) -> "Signals":
        self.came = False
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {
            number: signal.signal(number, self._note)
            for number in self.WATCHED
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup's wish stands
        }
        return self

    def _note(self, number: int, frame: object) -> None:
        """The byte on the pipe says the rest."""
        self.came = True

    def take(self) -> frozenset[int]:
        self.came = False
        try:
            return frozenset(os.read(self.fd, 4096))
        except BlockingIOError:
            return frozenset()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self.fd)
        os.close(self._write)
