"""Clients of an agent's terminal: `cspctl attach` in a terminal of its own, and a bare one that counts frames."""

import json
import select
import socket
import sys

from real.instance import PATIENCE_SEC, Instance
from real.outer import Outer

from cspd.wire.frames import FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL

CTRL_BRACKET = "\x1d"


def attach(instance: Instance, name: str, *options: str, columns: int = 80, rows: int = 24) -> Outer:
    return Outer([sys.executable, "-m", "cspctl", "attach", name, *options], instance.env, columns, rows)


class RawClient:
    """A client on the attach socket itself."""

    def __init__(
        self, instance: Instance, name: str, read_only: bool = False, rows: int = 24, columns: int = 80
    ) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(instance.runtime / "agents" / f"{name}.sock"))
        hello = {"protocol": PROTOCOL, "rows": rows, "columns": columns, "read_only": read_only}
        self.sock.sendall(frame(Kind.HELLO, json.dumps(hello).encode()))
        self.frames = FrameSplitter()
        self.got: list[tuple[Kind, bytes]] = []

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def type(self, data: bytes) -> None:
        self.sock.sendall(frame(Kind.INPUT, data))

    def read(self) -> bool:
        """What is there, at least one piece; False at the end of the connection."""
        ready, _, _ = select.select([self.sock], [], [], PATIENCE_SEC)
        assert ready, f"nothing came; so far {[(kind.name, len(data)) for kind, data in self.got][-5:]}"
        data = self.sock.recv(1 << 18)
        self.got += self.frames.feed(data)
        return bool(data)

    def until(self, kind: Kind) -> bytes:
        while not any(got is kind for got, _ in self.got):
            assert self.read(), f"closed before {kind.name}"
        return next(data for got, data in self.got if got is kind)

    def output(self) -> bytes:
        return b"".join(data for kind, data in self.got if kind is Kind.OUTPUT)
