"""A sidecar process: builds the session from what the keeper forked it with, and runs it until its agent has ended.

Nesting: the link to cspd outlives the clients, they outlive the pump of the agent's output. The keeper may die and come
back meanwhile: the descriptors are then brought to the new one.
"""

import array
import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.journal import log_here
from cspd.paths import Paths
from cspd.profiles.find import find_profile
from cspd.sidecar import pty
from cspd.sidecar.blackbox import BlackBox, Remains
from cspd.sidecar.emulation import Emulation
from cspd.sidecar.link import Door, UnitDoor
from cspd.sidecar.pump import Pump
from cspd.sidecar.recorder import Files, Recorder, Wish
from cspd.sidecar.session import Session
from cspd.sidecar.spool import Spool
from cspd.sidecar.terminal import Terminal
from cspd.wire.ansi import RESET
from cspd.wire.version import GIVES_WAY

log = logging.getLogger("csp-sidecar")

QUIET_SEC = 0.3  # after the agent's end, when another process keeps the terminal open: no output for so long is the end
DRAIN_MAX_SEC = 10.0
STATUS_SEC = 1.0  # between the end of the agent and the keeper's word how it ended
LINK_DRAIN_SEC = 2.0
KEEPER_RETRY_SEC = 0.1
DESCRIPTORS_SEC = 1.0


@attrs.define
class Ending:
    """How and whether the agent has ended."""

    status: dict[str, Any] | None = None
    known: trio.Event = attrs.Factory(trio.Event)
    drained: trio.Event = attrs.Factory(trio.Event)

    def tell(self, status: dict[str, Any]) -> None:
        if not self.known.is_set():
            self.status = status
            self.known.set()


def run_sidecar(spec: dict[str, Any], fds: Mapping[str, int]) -> int:
    """Called by the keeper in the forked process. Returns an exit status: 0 when the agent has ended and everything is
    said, GIVES_WAY when another sidecar shall go on.
    """
    log_here("csp-sidecar", f"csp-sidecar {spec['name']}: %(message)s", agent=spec["name"])
    return trio.run(serve, spec, dict(fds))


async def serve(spec: dict[str, Any], fds: dict[str, int]) -> int:
    paths = Paths(Path(spec["runtime"]), Path(spec["config"]), Path(spec["state"]))
    session = build_session(spec, fds["master"], paths)
    session.start()
    ending = Ending()
    if spec["exited"] is not None:
        ending.tell(spec["exited"])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_agent, fds["pidfd"], ending)
        nursery.start_soon(hold_lifeline, spec, fds, paths, ending, session.renewal.due.set)
        ended = await live(session, fds["listener"], ending)
        nursery.cancel_scope.cancel()
    return 0 if ended else GIVES_WAY


async def live(session: Session, listener: int, ending: Ending) -> bool:
    """Serve the agent until its end, and until that is told. False: not to its end, another sidecar shall go on."""
    ended = False
    async with trio.open_nursery() as recording:
        recording.start_soon(session.recorder.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_way, session, nursery.cancel_scope)
            nursery.start_soon(session.link.keep)
            nursery.start_soon(session.pump.run)
            nursery.start_soon(session.emulation.run)
            nursery.start_soon(session.run_alarms)
            await show_until_end(session, listener, ending)
            session.agent_ended()
            session.link.report("sidecar.ended", {"text": "\n".join(session.last_lines())})
            await session.recorder.finish()
            await session.link.drain(LINK_DRAIN_SEC)
            ended = True
            nursery.cancel_scope.cancel()
        await session.recorder.finish()  # in vain but for one that gives way, whose successor begins another file
        recording.cancel_scope.cancel()
    return ended


async def show_until_end(session: Session, listener: int, ending: Ending) -> None:
    own = socket.socket(fileno=os.dup(listener))
    async with trio.open_nursery() as clients:
        clients.start_soon(session.clients.serve, own)
        await show_to_the_end(session, ending)
        await session.clients.farewell(ending.status or {})
        clients.cancel_scope.cancel()
    own.close()


async def give_way(session: Session, everything: trio.CancelScope) -> None:
    """Each task ends at its next wait, and between two waits nothing is half done."""
    await session.renewal.due.wait()
    log.info("giving way to a new sidecar")
    everything.cancel()


def build_session(
    spec: dict[str, Any],
    master: int,
    paths: Paths,
    *,
    black_box: tuple[Path, Path, Path] | None = None,
    door: Door | None = None,
    spool: Spool | None = None,
) -> Session:
    """What is not given is as for a unit."""
    name, incarnation = spec["name"], spec["incarnation"]
    box = BlackBox(*(black_box or paths.black_box(name)), incarnation, spec["pid"])
    rows, columns = pty.get_size(master)
    remains, ledger = box.recover(), box.recover_ledger()
    restored = remains is not None and remains.incarnation == incarnation
    settings = spec["settings"]
    if restored and box.settings is not None:
        settings = {**box.settings, "profile": settings["profile"]}
    terminal, tail = restored_terminal(remains, incarnation, spec["scrollback_lines"], box, (columns, rows))
    emulation, pump = Emulation(terminal), Pump()
    recorder = Recorder(name, emulation, Files(paths.recordings_dir(name)), box, Wish.of(settings) or Wish())
    if tail:
        recorder.output(tail)
        terminal.feed(tail)
    if (terminal.columns, terminal.rows) != (columns, rows):
        terminal.resize(columns, rows)
        recorder.resized()
    box.begin(terminal.snapshot())
    return Session(
        name=name,
        pid=spec["pid"],
        incarnation=incarnation,
        master=master,
        emulation=emulation,
        box=box,
        ledger=ledger,
        recorder=recorder,
        profile=find_profile(settings["profile"], paths),
        settings=settings,
        scrollback_lines=spec["scrollback_lines"],
        pump=pump,
        writer=pty.Writer(master, pump),
        control_socket=paths.control_socket,
        door=door or UnitDoor(paths.control_socket),
        spool=spool if spool is not None else Spool(),
        restored=restored,
    )


def restored_terminal(
    remains: Remains | None, incarnation: int, scrollback_lines: int, box: BlackBox, size: tuple[int, int]
) -> tuple[Terminal, bytes]:
    """The screen that the sidecar before us had, and its last output, which it could not record any more.

    For a new incarnation with sane modes and below what was there.
    """
    if remains is None:
        return Terminal(*size, scrollback_lines), b""
    if remains.snapshot:
        terminal = Terminal.restore(remains.snapshot, scrollback_lines)
    else:
        terminal = Terminal(*size, scrollback_lines)
    if remains.incarnation != incarnation:
        terminal.feed(remains.journal + RESET)
        used = max((row for row, line in enumerate(terminal.screen_lines(), 1) if line.strip()), default=0)
        terminal.feed(b"\x1b[%d;1H\r\n" % used if used else b"\x1b[H")
        return terminal, b""
    known = len(remains.journal) - box.unrecorded(remains.journal)
    terminal.feed(remains.journal[:known])
    return terminal, remains.journal[known:]


async def show_to_the_end(session: Session, ending: Ending) -> None:
    """The agent's output until its terminal hangs up or, if others hold it open, until it is quiet after the end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(show_until_hung_up, session, ending)
        await ending.known.wait()
        with trio.move_on_after(DRAIN_MAX_SEC):
            while not ending.drained.is_set():
                before = session.output_count
                with trio.move_on_after(QUIET_SEC):
                    await ending.drained.wait()
                if session.output_count == before:
                    break
        nursery.cancel_scope.cancel()


async def show_until_hung_up(session: Session, ending: Ending) -> None:
    await session.show_output()
    ending.drained.set()


async def watch_agent(pidfd: int, ending: Ending) -> None:
    """Its end shows here also when the keeper, whose child it was, is gone; then how it ended is not known."""
    await trio.lowlevel.wait_readable(pidfd)
    with trio.move_on_after(STATUS_SEC):
        await ending.known.wait()
    ending.tell({})


async def hold_lifeline(
    spec: dict[str, Any], fds: dict[str, int], paths: Paths, ending: Ending, leave: Callable[[], None]
) -> None:
    """Hear the keeper's word of the agent's end. When the keeper itself is gone, look for the next one."""
    lifeline = trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(fds["lifeline"])))
    while True:
        held = b""
        while data := await _receive(lifeline):
            *lines, held = (held + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "exited" in message:
                    ending.tell(message["exited"])
        lifeline.close()
        if ending.known.is_set():
            return  # it has nothing more to say
        try:
            lifeline = await find_keeper(spec, fds, paths)
        except CspError as exc:
            log.warning("%s: another sidecar has taken over: ending", exc)
            return leave()


async def _receive(sock: trio.socket.SocketType) -> bytes:
    try:
        return await sock.recv(65536)
    except OSError:
        return b""  # reset: the same as closed


async def find_keeper(spec: dict[str, Any], fds: dict[str, int], paths: Paths) -> trio.socket.SocketType:
    """Bring the terminal to the new keeper as soon as there is one; -> our end of the new lifeline.

    Raises CspError("replaced") when we come too late: cspd has brought it, and another sidecar goes on with it.
    """
    log.warning("the keeper is gone: holding the terminal")
    while True:
        try:
            ours, theirs = trio.socket.socketpair()
        except OSError as exc:
            log.warning("keeper: %s", exc)  # no descriptor is left; the terminal must be held all the same
            await trio.sleep(DESCRIPTORS_SEC)
            continue
        with theirs:
            try:
                await bring(spec, fds, theirs.fileno(), paths)
                log.warning("a new keeper has taken the terminal")
                return ours
            except (OSError, CspError) as exc:
                log.debug("keeper: %s", exc)
                if isinstance(exc, CspError) and exc.code == "replaced":
                    raise
        ours.close()
        await trio.sleep(KEEPER_RETRY_SEC)


async def bring(spec: dict[str, Any], fds: dict[str, int], lifeline: int, paths: Paths) -> None:
    """Raises OSError when no keeper is there, CspError when it does not want it."""
    keys = ("name", "incarnation", "pid", "stop_signal", "stop_timeout_sec", "started_ts")
    request = {"op": "adopt", "sidecar_pid": os.getpid(), "spec": spec, **{key: spec[key] for key in keys}}
    request["started_at"] = spec.get("started_at", 0.0)  # an older cspd does not say it
    descriptors = array.array("i", [fds["master"], fds["pidfd"], fds["listener"], lifeline])
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        await sock.connect(str(paths.keeper_socket))
        data = json.dumps(request).encode() + b"\n"
        sent = await sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        while sent < len(data):
            sent += await sock.send(data[sent:])
        answer = b""
        while not answer.endswith(b"\n"):
            data = await sock.recv(65536)
            if not data:
                raise OSError("the keeper closed the connection")
            answer += data
    reply = json.loads(answer)
    if "error" in reply:
        raise CspError(reply["error"]["code"], reply["error"]["sentence"])
