"""A person's terminal with an attach client in it, and the sidecar that it connects to, played by the test."""

import json
import os
import select
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cspd.wire.ansi import RESET
from cspd.wire.frames import FrameSplitter, Kind, frame

DEADLINE_SEC = 20.0

KEEP_TITLE, TITLE_BACK = b"\x1b[22;0t", b"\x1b[23;0t"
CLEARED = b"".join(b"\x1b[%d;1H\x1b[2K" % row for row in range(1, 11)) + b"\x1b[H"
ROOM = RESET + KEEP_TITLE + b"\n" * 10 + CLEARED  # the old screen goes into the terminal's history

# A cspctl that asks a file instead of cspd. Its terminal is its controlling terminal, as in a shell.
PROGRAM = """
import fcntl, json, os, pathlib, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from cspctl.attach import attach
from cspctl.fate import standing
from cspd.errors import CspError
directory, options = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
def why_down():
    text = (directory / "agent.json").read_text()
    return standing(json.loads(text)) if text else None
try:
    status = attach("claude", directory / "claude.sock", why_down=why_down, **options)
except CspError as exc:
    print(f"{exc.code}: {exc.sentence}", file=sys.stderr)
    status = exc.exit_status
sys.exit(status)
"""


def wait_until(true: Callable[[], bool], *pumps: Callable[[float], object]) -> None:
    """Pump until the fact is seen; each pump waits a little for its own file."""
    deadline = time.monotonic() + DEADLINE_SEC
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        for pump in pumps:
            pump(0.01)


class Sidecar:
    """One accepted connection, played by the test."""

    def __init__(self, conn: socket.socket) -> None:
        self.conn = conn
        self.conn.setblocking(False)
        self.splitter = FrameSplitter()
        self.frames: list[tuple[Kind, bytes]] = []
        self.closed = False

    def pump(self, wait_sec: float) -> None:
        if self.closed or not select.select([self.conn], [], [], wait_sec)[0]:
            return
        try:
            data = self.conn.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        self.closed = not data
        self.frames += self.splitter.feed(data)

    def expect(self, kind: Kind) -> bytes:
        """The payload of the next frame, which is of this kind."""
        wait_until(lambda: bool(self.frames), self.pump)
        found, payload = self.frames.pop(0)
        assert found is kind, (found, payload[:200])
        return payload

    def typed(self) -> bytes:
        return b"".join(payload for kind, payload in self.frames if kind is Kind.INPUT)

    def send(self, kind: Kind, payload: bytes | dict[str, Any]) -> None:
        data = frame(kind, payload if isinstance(payload, bytes) else json.dumps(payload).encode())
        self.conn.settimeout(DEADLINE_SEC)
        self.conn.sendall(data)
        self.conn.setblocking(False)

    def borrow(self, screen: bytes = b"SCREEN", kept: bytes = b"") -> int:
        """Greet, and paint; -> the terminal that came with HELLO. `kept`: input from before that it gets first."""
        assert select.select([self.conn], [], [], DEADLINE_SEC)[0]
        data, (terminal,), _, _ = socket.recv_fds(self.conn, 1 << 16, 1)
        assert [kind for kind, _ in self.splitter.feed(data)] == [Kind.HELLO]
        self.send(Kind.HELLO, {"protocol": 1, "agent": "claude", "incarnation": 1, "pid": 1, "lent": True})
        self.send(Kind.REPAINT, screen)
        assert not kept or self.expect(Kind.INPUT) == kept
        self.expect(Kind.PAINTED)
        return int(terminal)

    def greet(self, incarnation: int = 1, screen: bytes = b"SCREEN") -> dict[str, Any]:
        hello: dict[str, Any] = json.loads(self.expect(Kind.HELLO))
        self.send(Kind.HELLO, {"protocol": 1, "agent": "claude", "incarnation": incarnation, "pid": 1})
        self.send(Kind.REPAINT, screen)
        return hello


class Desk:
    """A person at a terminal, an attach client in it, and the socket that it connects to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        termios.tcsetwinsize(self.slave, (10, 60))
        self.before = termios.tcgetattr(self.slave)
        self.shown = bytearray()
        self.says(state="running")
        self.listener: socket.socket | None = None
        self.client: subprocess.Popen[bytes] | None = None
        self.open_sockets: list[socket.socket] = []

    def says(self, **agent: Any) -> None:
        """What cspd says of the agent from now on; nothing = cspd is away."""
        new = self.directory / "agent.new"
        new.write_text(json.dumps(agent) if agent else "")
        new.rename(self.directory / "agent.json")

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.directory / "claude.sock"))
        self.listener.listen(8)
        self.listener.settimeout(DEADLINE_SEC)
        self.open_sockets.append(self.listener)

    def start(self, *, read_only: bool = False, detach_key: str = "^]") -> None:
        options = json.dumps({"read_only": read_only, "detach_key": detach_key})
        self.client = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.directory), options],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            cwd=Path(__file__).parents[1],
        )

    def accept(self) -> Sidecar:
        assert self.listener is not None
        conn, _ = self.listener.accept()
        self.open_sockets.append(conn)
        return Sidecar(conn)

    def attach(self, **options: Any) -> Sidecar:
        """Attached, the first picture seen."""
        self.listen()
        self.start(**options)
        sidecar = self.accept()
        sidecar.greet()
        self.wait_shown(b"SCREEN")
        return sidecar

    def pump(self, wait_sec: float) -> None:
        if select.select([self.master], [], [], wait_sec)[0]:
            self.shown += os.read(self.master, 1 << 16)

    def wait_shown(self, text: bytes) -> None:
        wait_until(lambda: text in self.shown, self.pump)

    def type(self, data: bytes, *pumps: Callable[[float], object]) -> None:
        while data:
            try:
                data = data[os.write(self.master, data) :]
            except BlockingIOError:
                for pump in pumps:
                    pump(0.01)

    def wait_status(self) -> int:
        assert self.client is not None
        client = self.client
        wait_until(lambda: client.poll() is not None, self.pump)
        while select.select([self.master], [], [], 0)[0]:
            self.pump(0)
        assert termios.tcgetattr(self.slave) == self.before
        return client.returncode

    def close(self) -> None:
        if self.client is not None:
            self.client.kill()
            self.client.wait()
        for one in self.open_sockets:
            one.close()
        os.close(self.master)
        os.close(self.slave)
