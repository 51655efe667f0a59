"""An MCP server that offers nothing: what `cspctl mcp --agent-only` is where there is no agent.

A CLI that is always wired (an extension of Gemini CLI, say) then shows neither tools nor an error.
"""

from __future__ import annotations

import os

from cspd import __version__
from cspd.errors import CspError
from cspd.wire import rpc

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any


def serve_nothing(wire: int) -> int:
    """Until the client closes its end."""
    with open(0, "rb", closefd=False) as lines:
        for line in lines:
            if reply := answer(line):
                os.write(wire, reply)
    return 0


def answer(line: bytes) -> bytes:
    """The reply to one line; empty for a notification."""
    try:
        request = rpc.decode(line)
    except CspError as problem:
        return rpc.error(problem.data.pop("id", None), problem)
    if not isinstance(request, rpc.Request) or request.id is None:
        return b""
    match request.method:
        case "initialize":
            return rpc.result(request.id, handshake(request.params))
        case "tools/list":
            return rpc.result(request.id, {"tools": []})
        case "ping":
            return rpc.result(request.id, {})
    return rpc.error(request.id, CspError("no-such-method", f"method: {request.method!r}: there is no agent here"))


def handshake(params: dict[str, Any]) -> dict[str, Any]:
    return {
        "protocolVersion": params.get("protocolVersion") or "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "csp", "version": __version__},
    }
