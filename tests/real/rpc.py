"""One JSON-RPC call to the cspd of an instance, for tests that ask too often to start `cspctl` each time."""

import json
import socket
from pathlib import Path
from typing import Any

PATIENCE_SEC = 20.0


def call(control_socket: Path, method: str, **params: Any) -> Any:
    """The result; fails with the error's text."""
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE_SEC)
        sock.connect(str(control_socket))
        sock.sendall(json.dumps(request).encode() + b"\n")
        with sock.makefile() as lines:
            reply = json.loads(lines.readline())
    assert "error" not in reply, f"{method}: {reply['error']['message']}"
    return reply["result"]
