"""A person's terminal: a PTY with an emulator behind it, in which a command runs."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable

import pytest

from cspd.sidecar.terminal import Terminal

PATIENCE_SEC = 20.0
TIOCGPTN = 0x80045430  # the number of the slave; not in the termios module


class Outer:
    """Use as a context manager; `until` reads output until a condition holds."""

    def __init__(self, argv: list[str], env: dict[str, str], columns: int = 80, rows: int = 24) -> None:
        self.terminal = Terminal(columns, rows, 5000)
        self.output = bytearray()
        may_begin, begin = os.pipe()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                os.read(may_begin, 1)
                os.execvpe(argv[0], argv, env)
            finally:
                os._exit(127)
        self.resize(columns, rows)
        self.before = self.flags()
        os.write(begin, b".")
        os.close(begin)
        os.close(may_begin)
        self.status: int | None = None

    def __enter__(self) -> "Outer":
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
        self.terminal.close()

    def resize(self, columns: int, rows: int) -> None:
        if (columns, rows) != (self.terminal.columns, self.terminal.rows):
            self.terminal.resize(columns, rows)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def name(self) -> str:
        """As in ttyname(3)."""
        (number,) = struct.unpack("I", fcntl.ioctl(self.fd, TIOCGPTN, bytes(4)))
        return f"/dev/pts/{number}"

    def flags(self) -> int:
        """The local modes of the terminal, to see whether it was put back."""
        return int(termios.tcgetattr(self.fd)[3])

    def type(self, data: bytes | str) -> None:
        """All of it, reading meanwhile what comes back."""
        rest = data.encode() if isinstance(data, str) else data
        while rest:
            readable, writable, _ = select.select([self.fd], [self.fd], [], PATIENCE_SEC)
            if readable:
                self._read()
            if writable:
                rest = rest[os.write(self.fd, rest[:1024]) :]

    def _read(self) -> bool:
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False  # EIO: the command has ended
        self.output += data
        if answers := self.terminal.feed(data):
            with contextlib.suppress(OSError):  # the command has ended meanwhile
                os.write(self.fd, answers)
        return bool(data)

    def read_some(self) -> None:
        """What is there now, without waiting: a terminal that nobody reads holds up who writes to it."""
        while select.select([self.fd], [], [], 0)[0] and self._read():
            pass

    def read_once(self, patience_sec: float = 0.2) -> bool:
        """Read once, if something comes in time; False when the command has ended."""
        return not select.select([self.fd], [], [], patience_sec)[0] or self._read()

    def until_drawn(self, act: Callable[[], object], quiet_sec: float = 1.0) -> None:
        """`act`, and read what it makes the command draw: until there is some and then no more for `quiet_sec`."""
        known = len(self.output)
        act()
        self.until(lambda: len(self.output) > known, "something is drawn")
        while len(self.output) > known:
            known = len(self.output)
            self.read_once(quiet_sec)

    def screen(self) -> str:
        return "\n".join(self.terminal.screen_lines())

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SEC
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or (select.select([self.fd], [], [], left)[0] and not self._read()):
                if condition():
                    return
                pytest.fail(f"{what}: the screen shows\n{self.screen()}")

    def until_shown(self, text: str) -> None:
        self.until(lambda: text in self.screen(), f"{text!r} is shown")

    def wait(self) -> int:
        """Read until the command has ended; its exit status."""
        while self._read():
            pass
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status
