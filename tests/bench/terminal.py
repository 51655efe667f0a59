"""A person's terminal for measuring: reads and counts, draws nothing."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from types import TracebackType

from bench.peers import COLUMNS, ROWS

PATIENCE_SEC = 60.0


class Terminal:
    """Use as a context manager; the command in it is hung up at the end."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.started = time.perf_counter()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
                os.execvpe(argv[0], argv, env)
            finally:
                os._exit(127)
        os.set_blocking(self.fd, False)
        self.received = 0

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.kill(self.pid, signal.SIGHUP)
        os.close(self.fd)
        os.waitpid(self.pid, 0)

    def read(self, timeout_sec: float = PATIENCE_SEC) -> bytes:
        """What has come, b"" when nothing came in time. Raises EOFError when the command has ended."""
        if not select.select([self.fd], [], [], timeout_sec)[0]:
            return b""
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            data = b""
        if not data:
            raise EOFError("the command in the terminal has ended")
        self.received += len(data)
        return data

    def until(self, mark: bytes, tail: bytes = b"") -> bytes:
        """Read up to this mark; -> the last bytes that were read. Raises TimeoutError."""
        deadline = time.perf_counter() + PATIENCE_SEC
        while mark not in tail:
            tail = tail[-4096:] + self.read()
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{mark!r}: not shown; at the end: {tail[-200:]!r}")
        return tail

    def quiet(self, for_sec: float = 0.3) -> bytes:
        """Read until nothing has come for so long; -> all of it."""
        parts = []
        while data := self.read(for_sec):
            parts.append(data)
        return b"".join(parts)

    def send(self, data: bytes) -> bytes:
        """Type all of it, reading meanwhile; -> the last bytes that were read."""
        rest, tail = memoryview(data), b""
        while rest:
            readable, writable, _ = select.select([self.fd], [self.fd], [], PATIENCE_SEC)
            if readable:
                tail = tail[-4096:] + self.read()
            if writable:
                rest = rest[os.write(self.fd, rest[:4096]) :]
        return tail
