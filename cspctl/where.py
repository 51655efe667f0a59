"""Where cspd listens: --socket, CSP_SOCKET, or the XDG variables, in this order.

A module of its own, because most callers come from inside an agent and never need `cspd.paths`, which costs half a
start of Python to load.
"""

from __future__ import annotations

import os


def control_socket(option: str | None) -> str:
    """The path of cspd's socket."""
    named = option or os.environ.get("CSP_SOCKET")
    if named:
        return named
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):  # one that is not is to be ignored, says the specification
        return os.path.join(runtime, "csp", "cspd.sock")  # as `Paths.control_socket`, which a test compares
    from cspd.paths import Paths

    return str(Paths.from_environ(os.environ).control_socket)
