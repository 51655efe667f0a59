"""The sidecar behind `cspctl run`: forks the agent itself, serves it as any sidecar does, and ends with it.

`python -m cspd.sidecar.foreground FD`: on that socket come the request, the answer to it, and how the agent ended. When
the other side closes it, the person's terminal is gone: then the agent is hung up, as any terminal does it. (--check FD
and --resume FD: of `inplace`.)
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

from cspd import __version__
from cspd.config import Invalid, UnitConfig, default_profile
from cspd.errors import CspError, nearest
from cspd.keeper.signals import session_members
from cspd.keeper.spawn import become_subreaper, exit_status, set_process_name, spawn_agent
from cspd.paths import Paths
from cspd.profiles.find import profile_texts
from cspd.sidecar import inplace
from cspd.sidecar.gateway import GatewayDoor
from cspd.sidecar.guest import GuestDoor, ask_name
from cspd.sidecar.home import Home, claim
from cspd.sidecar.main import Ending, live
from cspd.sidecar.proxy import Proxy
from cspd.sidecar.running import Running
from cspd.sidecar.session import Session
from cspd.unit.spawning import sidecar_settings
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


def main() -> None:
    set_process_name("csp-sidecar")
    become_subreaper()  # orphans of the agent stay below us: whose they are can be told
    paths = Paths.from_environ(os.environ)
    match sys.argv[1:]:
        case ["--check", fd]:
            return inplace.check(int(fd), paths)
        case ["--resume", fd]:
            running = inplace.resumed(int(fd), paths)
            _log_to_stderr()
            log.info("version %s has taken over", __version__)
        case [fd]:
            begun = begin(socket.socket(fileno=int(fd)), paths)
            if begun is None:
                return
            running = begun
    sys.exit(shell_status(run(running)))


def begin(control: socket.socket, paths: Paths) -> Running | None:
    """None: the person was quicker. Says what is refused, and exits."""
    line = control.makefile("rb").readline(REQUEST_MAX)
    if not line:
        return None
    try:
        running = start(Request(**json.loads(line)), paths, control)
    except CspError as exc:
        _tell(control, {"error": rpc.error_object(exc)})
        sys.exit(exc.exit_status)
    home = running.home
    _tell(control, {"name": home.name, "socket": str(home.paths.agent_socket(home.name))})
    return running


def run(running: Running) -> Mapping[str, Any]:
    """Until the agent has ended, perhaps by a later version of us; -> how."""
    try:
        while (status := trio.run(serve, running)) is None:
            log.error("not replaced: %s: the running version goes on", inplace.become(running))
    finally:
        running.home.leave()
    return status


def start(request: Request, paths: Paths, control: socket.socket) -> Running:
    """Everything that can be refused, before the terminal is taken. Raises CspError, and then nothing is left."""
    config = checked(request, paths)
    home = claim(config.name, paths, inside=request.inside)
    told = {"profile": config.profile, "command": list(config.command), "host": socket.gethostname()}
    trouble, refused = request.trouble, False
    door: GuestDoor | GatewayDoor | None = gateway_door(request, home, told)
    if door is None:
        door = here = GuestDoor(Path(request.control_socket), home.name, config.room, told)
        trouble, refused = trio.run(ask_name, here), here.refused
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
    said = notices(config.name, request.name, trouble, refused=refused)
    return Running(home, door, spec, terminal.master, listeners, control, said)


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


def notices(name: str, wanted: str, trouble: str, *, refused: bool = False) -> list[str]:
    """What the person should know at the start, on the first lines of the agent's screen."""
    out = [] if name == wanted else [f"{wanted} is taken: this is {name}"]
    if not trouble:
        return out
    then = "is in no room" if refused else "joins the room when it can"
    return [*out, f"{trouble}: {name} runs without it, and {then}"]


def agent_environment(ours: Mapping[str, str], config: UnitConfig, speaks_at: str) -> dict[str, str]:
    """The person's own, with what names the agent. TERM stays: its bytes go to this terminal as they are."""
    names = {"CSP_AGENT": config.name, "CSP_ROOM": config.room, "CSP_SOCKET": speaks_at}
    return {"TERM": "xterm-256color", **ours, **names}


def _log_to(home: Home) -> None:
    """The terminal is the agent's now. The log begins anew with each run."""
    fd = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)
    _log_to_stderr()


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", level=logging.INFO, force=True)


async def serve(running: Running) -> dict[str, Any] | None:
    """Until the agent has ended; -> how. None: the installed version shall go on."""
    session, ending, trial = running.session(), Ending(), inplace.Trial(running)
    session.renewal.check = trial.check
    if running.exited is not None:  # the version before us has reaped it
        _tell(running.control, {"ended": running.exited})
        ending.tell(running.exited)
    session.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reap, running, session, ending, trial)
        nursery.start_soon(guard_terminal, running)
        if running.listeners.voice is not None:
            nursery.start_soon(Proxy(session, lambda: running.door.name).serve, running.listeners.voice)
        ended = await live(session, running.listeners.attach.fileno(), ending)
        nursery.cancel_scope.cancel()
    return (ending.status or {}) if ended else None


async def reap(running: Running, session: Session, ending: Ending, trial: inplace.Trial) -> None:
    """The agent is our child, and so are its orphans, which end without a word."""
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        while True:
            for child, status in _ended_children():
                trial.reaped(child, status)
                if child == running.pid:
                    running.exited = status
                    await _first_terminal(session, running.control)
                    _tell(running.control, {"ended": status})
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


async def guard_terminal(running: Running) -> None:
    """Nothing more is said to us on this socket: what can be read is its end."""
    await trio.lowlevel.wait_readable(running.control)
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
