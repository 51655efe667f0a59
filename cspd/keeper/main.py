"""csp-keeper: the loop that forks, reaps and holds descriptors. Blocking Python: no trio loop, no thread, no emulator.

It serves one cspd at a time on keeper.sock (JSON lines) and takes back terminals from sidecars whose keeper was killed.
What follows from a fact is decided in `registry`; what an agent's end means is decided by cspd.
"""

import array
import fcntl
import gc
import json
import logging
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import attrs

from cspd import __version__
from cspd.errors import CspError
from cspd.keeper.registry import (
    Agent,
    CloseMaster,
    Command,
    ForkSidecar,
    HangUp,
    Registry,
    SetTimer,
    Tell,
    TellSidecar,
)
from cspd.keeper.spawn import (
    Terminal,
    become_subreaper,
    close_quietly,
    exit_status,
    fork_agent,
    fork_sidecar,
    session_members,
    set_process_name,
)
from cspd.paths import Paths, make_private_dir
from cspd.transport import listening_socket
from cspd.wire.frames import FRAME_MAX, LineSplitter, Oversize
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("csp-keeper")

OUTGOING_MAX = (
    1 << 22
)  # unread events for a cspd that hangs; then it is dropped, and asks for everything on its return
LONELY_SEC = 60.0  # a keeper that cspd started, without agents and without cspd, ends after this
SPEC_MAX = 1 << 20
FDS_MAX = 8


@attrs.define(eq=False)
class Connection:
    """A peer on keeper.sock: cspd, or a sidecar that brings its terminal."""

    sock: socket.socket
    lines: LineSplitter = attrs.Factory(lambda: LineSplitter(FRAME_MAX))
    outgoing: bytearray = attrs.Factory(bytearray)
    fds: list[int] = attrs.Factory(list)
    subscriber: bool = False


@attrs.define(eq=False)
class Keeper:
    """Owner of every descriptor: PTY masters, pidfds, listening sockets, lifelines to sidecars."""

    paths: Paths
    by_cspd: bool
    nofile: tuple[int, int]
    registry: Registry = attrs.Factory(Registry)
    selector: selectors.BaseSelector = attrs.Factory(selectors.DefaultSelector)
    terminals: dict[str, Terminal] = attrs.Factory(dict)
    listeners: dict[str, socket.socket] = attrs.Factory(dict)
    lifelines: dict[str, socket.socket] = attrs.Factory(dict)
    connections: set[Connection] = attrs.Factory(set)
    timer: float | None = None
    ending: dict[str, float] | None = None  # agent -> when SIGKILL follows; None: not ending
    lonely_since: float = attrs.Factory(time.monotonic)

    # ------------------------------------------------------------------ the loop

    def serve(self, listener: socket.socket, wakeup: socket.socket) -> None:
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)
        self.selector.register(wakeup, selectors.EVENT_READ, self._signals)
        while not self._done():
            for key, mask in self.selector.select(self._patience()):
                key.data(key.fileobj, mask)
            now = time.monotonic()
            if self.timer is not None and self.timer <= now:
                self.timer = None
                self._perform(self.registry.due(now))
            self._press_on(now)

    def _patience(self) -> float | None:
        """Seconds until something must be looked at; None: only a descriptor can wake us."""
        deadlines = [at for at in (self.timer, *(self.ending or {}).values()) if at is not None]
        if self._lonely():
            deadlines.append(self.lonely_since + LONELY_SEC)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _lonely(self) -> bool:
        return self.by_cspd and not self.connections and not self.registry.living()

    def _done(self) -> bool:
        if self.ending is not None:
            return not self.registry.living()
        return self._lonely() and time.monotonic() >= self.lonely_since + LONELY_SEC

    def _signals(self, wakeup: Any, _: int) -> None:
        for number in wakeup.recv(4096):
            if number in (signal.SIGTERM, signal.SIGINT):
                self.end()
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._perform(self.registry.reaped(pid, exit_status(status), time.monotonic(), time.time()))

    # ------------------------------------------------------------------ commands of the registry

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Tell(event):
                    self._tell(event)
                case ForkSidecar(name):
                    self._fork_sidecar(name)
                case SetTimer(at):
                    self.timer = at if self.timer is None else min(self.timer, at)
                case TellSidecar(name, message):
                    self._tell_sidecar(name, message)
                case HangUp(pid):
                    self._signal_session(pid, signal.SIGHUP)
                case CloseMaster(name):
                    self._close_terminal(name)

    def _tell(self, event: dict[str, Any]) -> None:
        for connection in list(self.connections):
            if connection.subscriber:
                self._send(connection, event)

    def _tell_sidecar(self, name: str, message: dict[str, Any]) -> None:
        lifeline = self.lifelines.get(name)
        if lifeline is None:
            return
        try:
            lifeline.send(json.dumps(message).encode() + b"\n")
        except OSError as exc:
            log.warning(
                "%s: sidecar cannot be told: %s", name, exc
            )  # it is ending, its successor will be told

    def _fork_sidecar(self, name: str) -> None:
        agent, terminal = self.registry.agents[name], self.terminals[name]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        close_quietly(self.lifelines.pop(name, None))
        self.lifelines[name] = ours
        fds = {
            "master": terminal.master,
            "pidfd": terminal.pidfd,
            "listener": self.listeners[name].fileno(),
            "lifeline": theirs.fileno(),
        }
        spec = {**agent.spec, "incarnation": agent.incarnation, "pid": agent.pid, "exited": agent.exited}
        pid = fork_sidecar(_sidecar_program(spec, fds), list(fds.values()))
        theirs.close()
        self._perform(self.registry.sidecar_forked(name, pid))

    def _signal_session(self, leader: int, number: int) -> None:
        for pid in session_members(leader):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # ended by itself: the same result

    def _close_terminal(self, name: str) -> None:
        terminal = self.terminals.pop(name, None)
        if terminal is not None:
            close_quietly(terminal.master, terminal.pidfd)
        close_quietly(self.lifelines.pop(name, None))

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """Stop every agent, the latest first: its stop signal, after its timeout SIGKILL to the whole session."""
        if self.ending is not None:
            return
        self.ending = {}
        for agent in self.registry.living():
            self.ending[agent.name] = time.monotonic() + agent.stop_timeout_sec
            self._signal_main(agent, agent.stop_signal)

    def _press_on(self, now: float) -> None:
        for name, at in list((self.ending or {}).items()):
            agent = self.registry.agents.get(name)
            if agent is None or agent.exited is not None:
                del self.ending[name]  # type: ignore[union-attr]  # not None: the loop had an item
            elif at <= now:
                self._signal_session(agent.pid, signal.SIGKILL)
                self.ending[name] = now + 1.0  # type: ignore[index]  # and again, should a fork have slipped through

    def close(self) -> None:
        for name in list(self.terminals):
            self._close_terminal(name)
        for name, listener in self.listeners.items():
            listener.close()
            self.paths.agent_socket(name).unlink(missing_ok=True)
        for agent in self.registry.agents.values():
            if agent.sidecar_pid is not None:
                self._wait_sidecar(agent)
        for name in self.registry.agents:
            self._forget_screen(name)
        for connection in list(self.connections):
            self._drop(connection)

    def _wait_sidecar(self, agent: Agent) -> None:
        """It ends by itself once the agent's output is drained; two seconds, then SIGKILL."""
        assert agent.sidecar_pid is not None
        try:
            pidfd = os.pidfd_open(agent.sidecar_pid)
        except ProcessLookupError:
            return
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            if not selector.select(2.0):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)

    def _forget_screen(self, name: str) -> None:
        for path in (
            self.paths.screen_file(name),
            self.paths.journal_file(name),
            self.paths.ledger_file(name),
        ):
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ connections

    def _accept(self, listener: Any, _: int) -> None:
        try:
            sock, _address = listener.accept()
        except OSError as exc:
            log.warning(
                "keeper.sock: %s", exc
            )  # the peer left, or descriptors ran out: the others are served
            return
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            sock.close()
            return
        sock.setblocking(False)
        connection = Connection(sock)
        self.connections.add(connection)
        self.selector.register(sock, selectors.EVENT_READ, lambda _, mask: self._ready(connection, mask))

    def _ready(self, connection: Connection, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._flush(connection)
        if mask & selectors.EVENT_READ and connection in self.connections:
            self._receive(connection)

    def _receive(self, connection: Connection) -> None:
        try:
            data, ancillary, _flags, _address = connection.sock.recvmsg(
                65536, socket.CMSG_SPACE(FDS_MAX * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                connection.fds += array.array("i", payload[: len(payload) // 4 * 4])
        if not data:
            self._drop(connection)
            return
        for line in connection.lines.feed(data):
            if connection not in self.connections:
                return
            self._answer(connection, line)

    def _answer(self, connection: Connection, line: bytes | Oversize) -> None:
        id = None
        try:
            request = json.loads(line) if isinstance(line, bytes) else None
            if not isinstance(request, dict):
                raise CspError("invalid-request", "keeper: request: expected a JSON object in a line")
            id = request.get("id")
            reply = {"id": id, "ok": self._call(connection, request)}
        except CspError as exc:
            reply = {"id": id, "error": {"code": exc.code, "sentence": exc.sentence, "hint": exc.hint}}
        except (ValueError, KeyError, TypeError) as exc:
            reply = {"id": id, "error": {"code": "invalid-request", "sentence": f"keeper: request: {exc!r}"}}
        self._send(connection, reply)

    def _call(self, connection: Connection, request: dict[str, Any]) -> Any:
        match request.get("op"):
            case "hello":
                check_protocol(request["protocol"], "cspd")
                connection.subscriber = True
                about = {
                    "protocol": PROTOCOL,
                    "pid": os.getpid(),
                    "version": __version__,
                    "by_cspd": self.by_cspd,
                }
                return {**about, **self.registry.record()}
            case "list":
                return self.registry.record()
            case "spawn":
                return self._spawn(request)
            case "signal":
                return self._signal(request)
            case "release":
                return self._release(request["name"])
            case "note":
                self.registry.notes[request["name"]] = request["note"]
                return {}
            case "adopt":
                return self._adopt(connection, request)
            case "end":
                self.end()
                return {}
            case other:
                raise CspError("no-such-method", f"keeper: {other!r}: not known")

    def _spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["name"]
        before = self.registry.agents.get(name)
        if before is not None and before.exited is None:
            raise CspError("already-running", f"agent: {name}: runs already as process {before.pid}")
        if self.ending is not None:
            raise CspError("ending", "keeper: it is ending: no agent is started any more")
        if name not in self.listeners:
            self.listeners[name] = listening_socket(self.paths.agent_socket(name))
            self.listeners[name].setblocking(False)
        size = (request["rows"], request["columns"])
        pid, terminal = fork_agent(request["argv"], request["env"], request["cwd"], *size, self.nofile)
        self._close_terminal(name)
        self.terminals[name] = terminal
        agent = Agent(
            name,
            request["incarnation"],
            pid,
            request["spec"],
            request["stop_signal"],
            request["stop_timeout_sec"],
            time.time(),
        )
        self._perform(self.registry.spawned(agent, time.monotonic()))
        return agent.record()

    def _agent(self, name: str) -> Agent:
        agent = self.registry.agents.get(name)
        if agent is None:
            raise CspError("no-such-agent", f"agent: {name!r}: the keeper does not hold it")
        return agent

    def _signal(self, request: dict[str, Any]) -> dict[str, Any]:
        agent = self._agent(request["name"])
        if agent.exited is None:
            if request["to"] == "session":
                self._signal_session(agent.pid, request["signal"])
            else:
                self._signal_main(agent, request["signal"])
        return {}

    def _signal_main(self, agent: Agent, number: int) -> None:
        """To the leader's process group: codex and gemini are a wrapper with the real program as its child."""
        try:
            os.killpg(agent.pid, number)
            if number not in (signal.SIGKILL, signal.SIGCONT):
                os.killpg(agent.pid, signal.SIGCONT)  # a stopped process would never see it
        except (ProcessLookupError, PermissionError):
            pass  # no longer there: the same result

    def _release(self, name: str) -> dict[str, Any]:
        """The unit is gone: nothing of it is held any more."""
        agent = self._agent(name)
        if agent.exited is None:
            raise CspError("still-running", f"agent: {name}: process {agent.pid} still runs", "stop it first")
        self._close_terminal(name)
        close_quietly(self.listeners.pop(name, None))
        self.paths.agent_socket(name).unlink(missing_ok=True)
        if agent.sidecar_pid is not None:
            self._wait_sidecar(agent)
        self._forget_screen(name)
        del self.registry.agents[name]
        self.registry.notes.pop(name, None)
        return {}

    def _adopt(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        """A sidecar whose keeper was killed brings its descriptors: master, pidfd, listener, our end of its lifeline."""
        name = request["name"]
        fds, connection.fds = connection.fds, []
        if len(fds) != 4 or name in self.registry.agents:
            close_quietly(*fds)
            raise CspError("not-adopted", f"agent: {name}: cannot be taken back", data={"fds": len(fds)})
        master, pidfd, listener, lifeline = fds
        self.terminals[name] = Terminal(master, pidfd)
        self.listeners[name] = socket.socket(fileno=listener)
        self.lifelines[name] = socket.socket(fileno=lifeline)
        self.lifelines[name].setblocking(False)
        agent = Agent(
            name,
            request["incarnation"],
            request["pid"],
            request["spec"],
            request["stop_signal"],
            request["stop_timeout_sec"],
            request["started_ts"],
            sidecar_pid=request["sidecar_pid"],
        )
        self.registry.agents[name] = agent
        self.registry.awaited.discard(name)
        self._watch(os.dup(pidfd), agent.pid)
        self._watch(os.pidfd_open(request["sidecar_pid"]), request["sidecar_pid"])
        self._tell({"event": "agent-adopted", **agent.record()})
        return {}

    def _watch(self, pidfd: int, pid: int) -> None:
        """For a process that is not our child: its end shows on the pidfd, its status is not known."""

        def ended(fd: Any, _: int) -> None:
            self.selector.unregister(fd)
            os.close(fd)
            self._perform(self.registry.reaped(pid, {}, time.monotonic(), time.time()))

        self.selector.register(pidfd, selectors.EVENT_READ, ended)

    def _send(self, connection: Connection, message: dict[str, Any]) -> None:
        if connection not in self.connections:
            return
        connection.outgoing += json.dumps(message).encode() + b"\n"
        if len(connection.outgoing) > OUTGOING_MAX:
            log.warning("cspd reads nothing: dropped")
            self._drop(connection)
            return
        self._flush(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            while connection.outgoing:
                del connection.outgoing[: connection.sock.send(connection.outgoing)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outgoing else 0)
        key = self.selector.get_key(connection.sock)
        if key.events != wanted:
            self.selector.modify(connection.sock, wanted, key.data)

    def _drop(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.selector.unregister(connection.sock)
        connection.sock.close()
        close_quietly(*connection.fds)
        self.lonely_since = time.monotonic()


def _living_sidecars(paths: Paths) -> set[str]:
    """Agents whose attach socket still has a listener: their keeper was killed, their sidecar holds the terminal.

    What nobody listens on is left over from a crash of everything, and is removed.
    """
    living = set()
    for path in paths.agents_dir.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                living.add(path.stem)
            except OSError:
                path.unlink(missing_ok=True)
    for path in paths.agents_dir.iterdir():
        if path.name.split(".")[0] not in living:
            path.unlink(missing_ok=True)
    return living


def _sidecar_program(spec: dict[str, Any], fds: dict[str, int]) -> Callable[[], None]:
    def run() -> None:
        from cspd.sidecar.main import run_sidecar  # here, so that the keeper's own code never needs it

        run_sidecar(spec, fds)

    return run


def _warm_up() -> None:
    """Import what a sidecar needs, once: a forked one then starts in milliseconds and shares these pages."""
    import cspd.sidecar.main  # noqa: F401  # imported for its effect

    gc.collect()
    gc.freeze()  # the collector would otherwise write into shared pages


def run_keeper(paths: Paths, *, by_cspd: bool) -> int:
    """Serve until told to end. Returns an exit status: 1 when another keeper holds the lock."""
    set_process_name("csp-keeper")
    make_private_dir(paths.runtime)
    make_private_dir(paths.agents_dir)
    lock = os.open(paths.keeper_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.error("keeper: %s: another keeper holds it", paths.keeper_lock)
        return 1
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile[1], nofile[1]))  # six descriptors an agent
    become_subreaper()
    _warm_up()
    wakeup, wake = socket.socketpair()
    wakeup.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(
        wake.fileno(), warn_on_full_buffer=False
    )  # full: a wake-up is under way all the same
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keeper = Keeper(paths, by_cspd, nofile)
    keeper.registry.awaited = _living_sidecars(paths)
    with listening_socket(paths.keeper_socket) as listener:
        try:
            keeper.serve(listener, wakeup)
        finally:
            keeper.close()
            paths.keeper_socket.unlink(missing_ok=True)
    return 0


def main() -> None:
    """`python -m cspd.keeper.main [--by-cspd]`"""
    logging.basicConfig(stream=sys.stderr, format="csp-keeper: %(message)s", level=logging.INFO)
    sys.exit(run_keeper(Paths.from_environ(os.environ), by_cspd="--by-cspd" in sys.argv[1:]))


if __name__ == "__main__":
    main()
