"""The keeper's loop: forks, reaps, signals, holds descriptors. What follows from a fact is decided in `registry`.

One cspd at a time asks for agents; sidecars whose keeper was killed bring their terminals back. What an agent's end
means is decided by cspd.
"""

import json
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

import attrs

from cspd import __version__
from cspd.errors import CspError
from cspd.keeper.peers import Peer, Peers
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
    close_quietly,
    exit_status,
    exit_status_of,
    fork_agent,
    fork_sidecar,
    ignores,
    session_members,
)
from cspd.paths import Paths
from cspd.transport import listening_socket
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("csp-keeper")

LONELY_SEC = 60.0  # a keeper that cspd started, without agents and without cspd, ends after this
# For the sidecar of an ended agent to say goodbye to its clients: at our own end, and while others wait for us.
CLOSE_SEC = 2.0
RELEASE_SEC = 0.3
KILL_AGAIN_SEC = 1.0  # should a fork have slipped through SIGKILL to a session


@attrs.define(eq=False)
class Keeper:
    """Owner of every descriptor: PTY masters, pidfds, listening sockets, lifelines to sidecars."""

    paths: Paths
    by_cspd: bool
    nofile: tuple[int, int]  # limits for agents; our own are raised
    registry: Registry
    stopping: Callable[[float], None]  # tells a service manager that the end may take so many seconds
    _selector: selectors.BaseSelector = attrs.Factory(selectors.DefaultSelector)
    _peers: Peers = attrs.field(init=False)
    _terminals: dict[str, Terminal] = attrs.Factory(dict)
    _listeners: dict[str, socket.socket] = attrs.Factory(dict)
    _lifelines: dict[str, socket.socket] = attrs.Factory(dict)
    _timer: float | None = None
    _ending: dict[str, float] | None = None  # agent -> when SIGKILL follows; None: not ending
    _lonely_since: float = attrs.Factory(time.monotonic)

    def __attrs_post_init__(self) -> None:
        self._peers = Peers(self._selector, self._call, self._peer_left)

    # ------------------------------------------------------------------ the loop

    def serve(self, listener: socket.socket, wakeup: socket.socket) -> None:
        """Until it is told to end, or has been lonely for long. `wakeup` gives the numbers of signals."""
        self._peers.listen(listener)
        self._selector.register(wakeup, selectors.EVENT_READ, self._signals)
        while not self._done():
            for key, mask in self._selector.select(self._patience()):
                key.data(key.fileobj, mask)
            now = time.monotonic()
            if self._timer is not None and self._timer <= now:
                self._timer = None
                self._perform(self.registry.due(now))
            self._press_on(now)

    def _patience(self) -> float | None:
        """Seconds until something must be looked at; None: only a descriptor can wake us."""
        deadlines = [at for at in (self._timer, *(self._ending or {}).values()) if at is not None]
        if self._lonely():
            deadlines.append(self._lonely_since + LONELY_SEC)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _lonely(self) -> bool:
        return self.by_cspd and not self._peers.members and not self.registry.living()

    def _peer_left(self) -> None:
        self._lonely_since = time.monotonic()

    def _done(self) -> bool:
        if self._ending is not None:
            return not self.registry.living()
        return self._lonely() and time.monotonic() >= self._lonely_since + LONELY_SEC

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
                    self._peers.tell(event)
                case ForkSidecar(name):
                    self._fork_sidecar(name)
                case SetTimer(at):
                    self._timer = at if self._timer is None else min(self._timer, at)
                case TellSidecar(name, message):
                    self._tell_sidecar(name, message)
                case HangUp(pid):
                    self._signal_session(pid, signal.SIGHUP)
                case CloseMaster(name):
                    self._close_terminal(name)

    def _tell_sidecar(self, name: str, message: dict[str, Any]) -> None:
        lifeline = self._lifelines.get(name)
        if lifeline is None:
            return
        try:
            lifeline.send(json.dumps(message).encode() + b"\n")
        except OSError as exc:
            log.warning("%s: sidecar cannot be told: %s", name, exc)  # it is ending, its successor will be told

    def _fork_sidecar(self, name: str) -> None:
        agent, terminal = self.registry.agents[name], self._terminals[name]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        close_quietly(self._lifelines.pop(name, None))
        self._lifelines[name] = ours
        fds = {
            "master": terminal.master,
            "pidfd": terminal.pidfd,
            "listener": self._listeners[name].fileno(),
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

    def _stop(self, agent: Agent, number: int) -> None:
        """Ask it to end. Interactive shells ignore SIGTERM; what ends them is the hang-up of their terminal."""
        ignored = ignores(agent.pid, number)
        self._signal_group(agent, number)
        if ignored:
            self._signal_group(agent, signal.SIGHUP)

    def _signal_group(self, agent: Agent, number: int) -> None:
        """To the leader's process group: codex and gemini are a wrapper with the real program as its child."""
        try:
            os.killpg(agent.pid, number)
            if number not in (signal.SIGKILL, signal.SIGCONT):
                os.killpg(agent.pid, signal.SIGCONT)  # a stopped process would never see it
        except (ProcessLookupError, PermissionError):
            pass  # no longer there: the same result

    def _close_terminal(self, name: str) -> None:
        terminal = self._terminals.pop(name, None)
        if terminal is not None:
            close_quietly(terminal.master, terminal.pidfd)
        close_quietly(self._lifelines.pop(name, None))

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        """Stop every agent, the latest first: its stop signal, after its timeout SIGKILL to the whole session."""
        if self._ending is not None:
            return
        self._ending = {}
        for agent in self.registry.living():
            self._ending[agent.name] = time.monotonic() + agent.stop_timeout_sec
            self._stop(agent, agent.stop_signal)
        patience = max((at - time.monotonic() for at in self._ending.values()), default=0.0)
        self.stopping(patience + CLOSE_SEC * (len(self._ending) + 1) + KILL_AGAIN_SEC)

    def _press_on(self, now: float) -> None:
        if self._ending is None:
            return
        for name, at in list(self._ending.items()):
            agent = self.registry.agents.get(name)
            if agent is None or agent.exited is not None:
                del self._ending[name]
            elif at <= now:
                self._signal_session(agent.pid, signal.SIGKILL)
                self._ending[name] = now + KILL_AGAIN_SEC

    def close(self) -> None:
        for name in list(self._terminals):
            self._close_terminal(name)
        for name in list(self.registry.agents):
            self._forget(self.registry.agents[name], CLOSE_SEC)
        self._peers.close()

    def _forget(self, agent: Agent, patience_sec: float) -> None:
        """Nothing of an ended agent is left: socket, files, and its sidecar, which may say goodbye for so long."""
        self._close_terminal(agent.name)
        self._close_listener(agent.name)
        if agent.sidecar_pid is not None:
            _wait_end(agent.sidecar_pid, patience_sec)
        for path in self.paths.black_box(agent.name):
            path.unlink(missing_ok=True)

    def _close_listener(self, name: str) -> None:
        close_quietly(self._listeners.pop(name, None))
        self.paths.agent_socket(name).unlink(missing_ok=True)

    # ------------------------------------------------------------------ requests

    def _call(self, peer: Peer, request: dict[str, Any]) -> Any:
        match request.get("op"):
            case "hello":
                check_protocol(request["protocol"], "cspd")
                peer.subscriber = True
                about = {"protocol": PROTOCOL, "pid": os.getpid(), "version": __version__, "by_cspd": self.by_cspd}
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
                return self._adopt(peer, request)
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
        if self._ending is not None:
            raise CspError("ending", "keeper: it is ending: no agent is started any more")
        if name not in self._listeners:
            self._listeners[name] = listening_socket(self.paths.agent_socket(name))
            self._listeners[name].setblocking(False)
        size = (request["rows"], request["columns"])
        try:
            pid, terminal = fork_agent(request["argv"], request["env"], request["cwd"], *size, self.nofile)
        except (CspError, OSError) as exc:
            if before is None:
                self._close_listener(name)
            if isinstance(exc, CspError):
                raise
            raise CspError("spawn-failed", f"terminal: {exc.strerror}") from exc  # no PTY, no process, no descriptor
        self._close_terminal(name)
        self._terminals[name] = terminal
        agent = Agent(pid=pid, started_ts=time.time(), **_fields(request))
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
            match request["to"]:
                case "session":
                    self._signal_session(agent.pid, request["signal"])
                case "main":
                    self._stop(agent, request["signal"])
                case "group":
                    self._signal_group(agent, request["signal"])
        return {}

    def _release(self, name: str) -> dict[str, Any]:
        """The unit is gone: nothing of it is held any more."""
        agent = self._agent(name)
        if agent.exited is None:
            raise CspError("still-running", f"agent: {name}: process {agent.pid} still runs", "stop it first")
        self._forget(agent, RELEASE_SEC)
        del self.registry.agents[name]
        self.registry.notes.pop(name, None)
        return {}

    def _adopt(self, peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
        """A sidecar whose keeper was killed brings its descriptors: master, pidfd, listener, the new lifeline."""
        name = request["name"]
        fds, peer.fds = peer.fds, []
        if len(fds) != 4 or name in self.registry.agents:
            close_quietly(*fds)
            raise CspError("not-adopted", f"agent: {name}: cannot be taken back ({len(fds)} descriptors)")
        master, pidfd, listener, lifeline = fds
        sidecar = os.pidfd_open(request["sidecar_pid"])
        self._terminals[name] = Terminal(master, pidfd)
        self._listeners[name] = socket.socket(fileno=listener)
        self._lifelines[name] = socket.socket(fileno=lifeline)
        self._lifelines[name].setblocking(False)
        agent = Agent(
            pid=request["pid"],
            started_ts=request["started_ts"],
            sidecar_pid=request["sidecar_pid"],
            **_fields(request),
        )
        self.registry.adopted(agent)
        self._watch(os.dup(pidfd), agent.pid)
        self._watch(sidecar, request["sidecar_pid"])
        self._peers.tell({"event": "agent-adopted", **agent.record()})
        return {}

    def _watch(self, pidfd: int, pid: int) -> None:
        """For a process that is not our child: its end shows on the pidfd."""

        def ended(fd: Any, _: int) -> None:
            self._selector.unregister(fd)
            status = exit_status_of(fd)
            os.close(fd)
            self._perform(self.registry.reaped(pid, status, time.monotonic(), time.time()))

        self._selector.register(pidfd, selectors.EVENT_READ, ended)


def _fields(request: dict[str, Any]) -> dict[str, Any]:
    return {key: request[key] for key in ("name", "incarnation", "spec", "stop_signal", "stop_timeout_sec")}


def _wait_end(sidecar_pid: int, patience_sec: float) -> None:
    """It ends by itself once its agent's output is drained; after `patience_sec` by SIGKILL."""
    try:
        pidfd = os.pidfd_open(sidecar_pid)
    except ProcessLookupError:
        return
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        if not selector.select(patience_sec):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _sidecar_program(spec: dict[str, Any], fds: dict[str, int]) -> Callable[[], None]:
    def run() -> None:
        from cspd.sidecar.main import run_sidecar  # here, so that the keeper's own code never needs it

        run_sidecar(spec, fds)

    return run
