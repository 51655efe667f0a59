"""`cspctl run`: an agent in the person's present terminal, with a sidecar of its own and no unit file.

This process is the terminal's side, the same as in `attach`; the sidecar is a child of it that needs more than the
standard library. The socket between them tells each that the other has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from cspctl.attach import Standing, attach
from cspd.errors import CspError
from cspd.wire.rpc import error_from

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call

FAILED = 1
SIDECAR = (sys.executable, "-P", "-m", "cspd.sidecar.foreground")  # -P: no module of this directory is taken for ours


def run(call: Call) -> int:
    """The agent is in the room like any other while it runs: it is written to, attached to and looked at by its name.

    NAME is the command's own name unless it is given; when it is taken, it becomes NAME-2 and so on. Exits with the
    status of COMMAND. There is no detach key, because the agent ends with this terminal: ^] and ^Z go to the agent.
    Without cspd the agent runs all the same, and joins the room when cspd is there.
    """
    _check(call)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [*SIDECAR, str(theirs.fileno())]
        # a session of its own: a Ctrl-C before this terminal is raw is for us alone
        sidecar = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        theirs.close()
        try:
            lines = Lines(ours)
            lines.say(_request(call))
            home = lines.wait()
            if home is None:
                raise CspError("failed", f"run: {call.command[0]}: its sidecar ended before it began", "cspctl doctor")
            if "error" in home:
                raise error_from(home["error"])
            show(home["name"], Path(home["socket"]), lines)
        finally:
            ours.close()  # whatever ends us ends the agent: it is hung up now, unless it has ended
            status = sidecar.wait()
    if status < 0:
        raise CspError("failed", f"run: {home['name']}: its sidecar was killed by signal {-status}, and it with it")
    return status


def _check(call: Call) -> None:
    """Before anything is started: raises CspError."""
    for fd, what in ((0, "standard input"), (1, "standard output")):
        if not os.isatty(fd):
            raise CspError("not-a-terminal", f"run: {what}: not a terminal", "without one: cspctl add NAME -- COMMAND")
    if shutil.which(call.command[0]) is None:
        raise CspError("usage", f"command: {call.command[0]}: not found", "give its path, or look at PATH")


def _request(call: Call) -> dict[str, Any]:
    columns, rows = os.get_terminal_size(1)
    return {
        "command": call.command,
        "name": (call.value("name") or name_of(call.command[0])).lower(),
        "room": call.value("room") or "lobby",
        "profile": call.value("profile"),
        "control_socket": os.path.abspath(call.socket),
        "rows": rows or 24,
        "columns": columns or 80,
        "inside": os.environ.get("CSP_AGENT", "") if call.flag("name") else "",
    }


def name_of(command: str) -> str:
    """`/usr/bin/Python3.11` -> `python3-11`: a name for an agent, as near as possible."""
    base = os.path.basename(command).lower()
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in base).strip("-_")
    return name[:32] or "agent"


def show(name: str, path: Path, lines: Lines) -> None:
    """Until the agent has ended or this terminal is gone."""

    def why_down() -> Standing:
        return Standing("running", "", True) if lines.alive() else Standing("inactive", "", False)

    attach(name, path, read_only=False, detach_key="none", why_down=why_down, tell_end=False)


class Lines:
    """JSON lines from and to the sidecar."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""
        self._over = False

    def say(self, message: dict[str, Any]) -> None:
        self._sock.sendall(json.dumps(message).encode() + b"\n")

    def wait(self) -> dict[str, Any] | None:
        """The next line; None when the sidecar has ended."""
        while b"\n" not in self._held:
            try:
                data = self._sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def alive(self) -> bool:
        """Has it said nothing more? All that it says after the first line is that it is over."""
        try:
            self._over = self._over or bool(self._held) or self._sock.recv(65536, socket.MSG_DONTWAIT) is not None
        except BlockingIOError:
            pass
        except OSError:
            self._over = True  # it ended without having read all that we said
        return not self._over
