"""The sidecar behind `cspctl run`: forks the agent itself, serves it as any sidecar does, and ends with it.

`python -m cspd.sidecar.foreground FD`: on that socket come the request, the answer to it, and how the agent ended. When
the other side closes it, the person's terminal is gone: then the agent is hung up, as any terminal does it.
"""

import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from cspd.config import Invalid, UnitConfig, default_profile
from cspd.errors import CspError, nearest
from cspd.keeper.signals import session_members
from cspd.keeper.spawn import become_subreaper, exit_status, set_process_name, spawn_agent
from cspd.paths import Paths
from cspd.profiles.find import profile_texts
from cspd.sidecar.gateway import GatewayDoor
from cspd.sidecar.guest import GuestDoor, ask_name
from cspd.sidecar.home import Home, Listeners, claim
from cspd.sidecar.main import Ending, build_session, live
from cspd.sidecar.proxy import Proxy
from cspd.sidecar.session import Session
from cspd.sidecar.spool import Spool
from cspd.unit.manager import sidecar_settings
from cspd.unit.wiring import wired
from cspd.wire import rpc

log = logging.getLogger("csp-sidecar")

ATTACH_SEC = 5.0  # for our own terminal
HANGUP_SEC = 5.0  # for an agent whose terminal is gone
SCROLLBACK_LINES = 10_000
REQUEST_MAX = 1 << 20


@attrs.frozen
class Request:
    """What `cspctl run` wants."""

    command: list[str]
    name: str
    room: str
    profile: str | None
    control_socket: str
    rows: int
    columns: int
    inside: str  # the agent in whose terminal the person called us
    gateway: str  # its address; "": the cspd of this host
    token: str  # the gateway's room token; "" when a run before got one of its own
    trouble: str  # why the gateway could not be asked; "" when it was


@attrs.define
class Running:
    """The forked agent and what is to become its session, which needs trio's clock."""

    home: Home
    door: GuestDoor | GatewayDoor
    spec: dict[str, Any]
    master: int
    listeners: Listeners
    notices: list[str]

    @property
    def pid(self) -> int:
        return int(self.spec["pid"])

    def session(self) -> Session:
        home = self.home
        box, spool = home.black_box, Spool(home.spool)
        session = build_session(self.spec, self.master, home.paths, black_box=box, door=self.door, spool=spool)
        for notice in self.notices:
            session.terminal.feed(f"[{notice}]\r\n".encode())
        return session


def main() -> None:
    set_process_name("csp-sidecar")
    become_subreaper()  # orphans of the agent stay below us: whose they are can be told
    control = socket.socket(fileno=int(sys.argv[1]))
    line = control.makefile("rb").readline(REQUEST_MAX)
    if not line:
        return  # the person was quicker
    try:
        running = start(Request(**json.loads(line)), Paths.from_environ(os.environ))
    except CspError as exc:
        _tell(control, {"error": rpc.error_object(exc)})
        sys.exit(exc.exit_status)
    home = running.home
    try:
        _tell(control, {"name": home.name, "socket": str(home.paths.agent_socket(home.name))})
        status = trio.run(serve, running, control)
    finally:
        home.leave()
    sys.exit(shell_status(status))


def start(request: Request, paths: Paths) -> Running:
    """Everything that can be refused, before the terminal is taken. Raises CspError, and then nothing is left."""
    config = checked(request, paths)
    home = claim(config.name, paths, inside=request.inside)
    told = {"profile": config.profile, "command": list(config.command), "host": socket.gethostname()}
    trouble = request.trouble
    door: GuestDoor | GatewayDoor | None = gateway_door(request, home, told)
    if door is None:
        door = here = GuestDoor(Path(request.control_socket), home.name, config.room, told)
        trouble = trio.run(ask_name, here)
        if here.name != home.name:
            home = _moved(home, here.name)
    config = attrs.evolve(config, name=home.name)
    _log_to(home)
    command, extra = wired(config, paths)
    speaks_at = str(home.voice) if request.gateway else request.control_socket
    environment = {**agent_environment(os.environ, config, speaks_at), **extra}
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        listeners = home.listen(voice=bool(request.gateway))
        pid, terminal = spawn_agent(command, environment, os.getcwd(), request.rows, request.columns, nofile)
    except CspError:
        home.leave()
        raise
    spec = {
        "name": home.name,
        "incarnation": time.time_ns() // 1_000_000,
        "pid": pid,
        "scrollback_lines": SCROLLBACK_LINES,
        "settings": sidecar_settings(config),
    }
    os.close(terminal.pidfd)  # it is our own child: no other process gets its number before we have reaped it
    return Running(home, door, spec, terminal.master, listeners, notices(config.name, request.name, trouble))


def gateway_door(request: Request, home: Home, told: Mapping[str, Any]) -> GatewayDoor | None:
    """Of a gateway elsewhere, when one was asked for. Raises CspError."""
    if not request.gateway:
        return None
    return GatewayDoor(request.gateway, request.token, home.directory / "gateway", home.name, request.room, told)


def checked(request: Request, paths: Paths) -> UnitConfig:
    """The request, judged as a unit file is. Raises CspError."""
    profile = request.profile or default_profile(request.command)
    try:
        config = UnitConfig(request.name, tuple(request.command), profile, room=request.room)
    except Invalid as exc:
        raise CspError("usage", f"run: {exc}", "cspctl help run") from exc
    known = profile_texts(paths)
    if config.profile not in known:
        hint = nearest(config.profile, known) or f"one of {', '.join(sorted(known))}"
        raise CspError("usage", f"run: --profile {config.profile}: no such profile", hint)
    return config


def _moved(home: Home, name: str) -> Home:
    """cspd knows a guest of the first name on another host; should the second be taken here, the first stays."""
    other = claim(name, home.paths)
    kept, left = (other, home) if other.name == name else (home, other)
    left.leave()
    return kept


def notices(name: str, wanted: str, trouble: str) -> list[str]:
    """What the person should know at the start, on the first lines of the agent's screen."""
    out = [] if name == wanted else [f"{wanted} is taken: this is {name}"]
    return [*out, f"{trouble}: {name} runs without it, and joins the room when it can"] if trouble else out


def agent_environment(ours: Mapping[str, str], config: UnitConfig, speaks_at: str) -> dict[str, str]:
    """The person's own, with what names the agent. TERM stays: its bytes go to this terminal as they are."""
    names = {"CSP_AGENT": config.name, "CSP_ROOM": config.room, "CSP_SOCKET": speaks_at}
    return {"TERM": "xterm-256color", **ours, **names}


def _log_to(home: Home) -> None:
    """The terminal is the agent's now. The log begins anew with each run."""
    fd = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.INFO, force=True)


async def serve(running: Running, control: socket.socket) -> dict[str, Any]:
    """Until the agent has ended; -> how."""
    session, ending = running.session(), Ending()
    session.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reap, session, control, ending)
        nursery.start_soon(guard_terminal, running, control)
        if running.listeners.voice is not None:
            nursery.start_soon(Proxy(session, lambda: running.door.name).serve, running.listeners.voice)
        await live(session, running.listeners.attach.fileno(), ending)
        nursery.cancel_scope.cancel()
    return ending.status or {}


async def reap(session: Session, control: socket.socket, ending: Ending) -> None:
    """The agent is our child, and so are its orphans, which end without a word."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        while True:
            for child, status in _ended_children():
                if child == session.pid:
                    await _first_terminal(session, control)
                    _tell(control, {"ended": status})
                    ending.tell(status)
            await anext(signals)


async def _first_terminal(session: Session, control: socket.socket) -> None:
    """Of an agent that is quicker than the terminal is with attaching the output shall be seen all the same."""
    with trio.move_on_after(ATTACH_SEC):
        # asked again and again for milliseconds, once; what can be read from `control` is its end
        while not (session.clients.members or select.select([control], [], [], 0)[0]):  # noqa: ASYNC110
            await trio.sleep(0.01)


def _ended_children() -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            yield found[0], exit_status(found[1])
    except ChildProcessError:
        pass  # none is left


async def guard_terminal(running: Running, control: socket.socket) -> None:
    """Nothing more is said to us on this socket: what can be read is its end."""
    await trio.lowlevel.wait_readable(control)
    log.info("the terminal is gone: hanging up")
    pid = running.pid
    for number, pause in ((signal.SIGHUP, HANGUP_SEC), (signal.SIGKILL, 0.0)):
        for member in session_members(pid):
            try:
                os.kill(member, number)
                os.kill(member, signal.SIGCONT)
            except ProcessLookupError:
                pass  # it has ended meanwhile
        await trio.sleep(pause)


def shell_status(status: Mapping[str, Any]) -> int:
    """As a shell says it."""
    return 128 + int(status["signal"]) if "signal" in status else int(status.get("code", 1))


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    try:
        control.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        pass  # the person's side is gone, which `guard_terminal` sees


if __name__ == "__main__":
    main()
