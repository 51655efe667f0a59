"""A person who attaches for a moment and presses some keys; without a terminal, straight in the attach protocol."""

import json
import socket
from pathlib import Path

from cspd.wire.frames import FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL

PATIENCE_SEC = 10.0
READ_SIZE = 65536


def press(
    agent_socket: Path, keys: bytes, *, rows: int = 40, columns: int = 120, patience_sec: float = PATIENCE_SEC
) -> None:
    """Raises OSError when the sidecar is gone before it has passed the keys on."""
    hello = {"protocol": PROTOCOL, "rows": rows, "columns": columns, "taken": True, "scrollback": False}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(patience_sec)
        sock.connect(str(agent_socket))
        sock.sendall(frame(Kind.HELLO, json.dumps(hello).encode()))
        for start in range(0, len(keys), READ_SIZE):  # as much as a terminal gives at a time
            sock.sendall(frame(Kind.INPUT, keys[start : start + READ_SIZE]))
        frames = FrameSplitter()
        while data := sock.recv(65536):
            for kind, payload in frames.feed(data):
                if kind is Kind.TAKEN and int.from_bytes(payload, "big") == len(keys):
                    return
        raise ConnectionResetError("the sidecar closed the connection")
