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

from cspctl.attach import attach
from cspctl.fate import Standing
from cspd.errors import CspError
from cspd.wire.rpc import error_from

TYPE_CHECKING = False  # a name that type checkers know; importing it from typing costs some milliseconds
if TYPE_CHECKING:
    from typing import Any

    from cspctl.main import Call

PROBE_SEC = 3.0
PROBE_MAX = 65536
SIDECAR = (sys.executable, "-P", "-m", "cspd.sidecar.foreground")  # -P: no module of this directory is taken for ours


def run(call: Call) -> int:
    """The agent is in the room like any other while it runs: it is written to, attached to and looked at by its name.

    NAME is the command's own name unless it is given; when it is taken, it becomes NAME-2 and so on. Exits with the
    status of COMMAND. There is no detach key, because the agent ends with this terminal: ^] and ^Z go to the agent.
    Without cspd the agent runs all the same, and joins the room when cspd is there.
    """
    _check(call)
    request = _request(call)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [*SIDECAR, str(theirs.fileno())]
        environment = {key: value for key, value in os.environ.items() if key != "CSP_TOKEN"}  # it is not the agent's
        # a session of its own: a Ctrl-C before this terminal is raw is for us alone
        sidecar = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            start_new_session=True, env=environment,
        )  # fmt: skip
        theirs.close()
        try:
            lines = Lines(ours)
            lines.say(request)
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
    program = call.command[0]
    if shutil.which(program) is None:
        if "/" in program and os.path.exists(program):
            why = "a directory" if os.path.isdir(program) else "not executable"
            raise CspError("usage", f"command: {program}: {why}", f"chmod +x {program}" if why[0] == "n" else "")
        raise CspError("usage", f"command: {program}: not found", "give its path, or look at PATH")


def _request(call: Call) -> dict[str, Any]:
    columns, rows = os.get_terminal_size(1)
    gateway = call.value("gateway") or os.environ.get("CSP_GATEWAY_URL", "")
    token = _token(call) if gateway else ""
    return {
        "command": call.command,
        "name": (call.value("name") or name_of(call.command[0])).lower(),
        "room": call.value("room") or "lobby",
        "profile": call.value("profile"),
        "control_socket": os.path.abspath(call.socket),
        "rows": rows or 24,
        "columns": columns or 80,
        "gateway": gateway,
        "token": token,
        "trouble": _probe(gateway, token) if gateway else "",
        "inside": os.environ.get("CSP_AGENT", "") if call.flag("name") else "",
    }


def _token(call: Call) -> str:
    """The gateway's room token. It is never an argument: every process of this host could read it there."""
    named = call.value("token-file")
    if named is None:
        token = os.environ.get("CSP_TOKEN", "")
    else:
        try:
            token = Path(named).read_text(encoding="ascii", errors="replace")
        except OSError as exc:
            raise CspError("usage", f"token file: {named}: {(exc.strerror or str(exc)).lower()}") from exc
    return token.strip()


def _probe(gateway: str, token: str) -> str:
    """-> why the gateway cannot be reached now; "" when it can. Raises CspError when it does not know the token."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    from cspd.wire.address import Address

    address = Address.parse(gateway)
    kind = HTTPSConnection if address.secure else HTTPConnection
    connection = kind(address.host, address.port, timeout=PROBE_SEC)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request("GET", f"{address.prefix}/{'rooms' if token else 'healthz'}", headers=headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(PROBE_MAX)
    except OSError as exc:
        return f"gateway {address.name}: {(exc.strerror or str(exc)).lower()}"
    except (HTTPException, ValueError) as exc:
        raise CspError("usage", f"gateway: {gateway}: is it one? {exc!r}", "ws://HOST:PORT") from exc
    finally:
        connection.close()
    if status != 200:
        raise _refusal(gateway, status, body)
    return ""


def _refusal(gateway: str, status: int, body: bytes) -> CspError:
    try:
        return error_from(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return CspError("usage", f"gateway: {gateway}: HTTP status {status}: is it one?", "ws://HOST:PORT")


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
