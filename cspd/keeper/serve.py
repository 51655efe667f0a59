"""The keeper's loop: forks, reaps, signals, holds descriptors. What follows from a fact is decided in `registry`.

One cspd at a time asks for agents; sidecars whose keeper was killed bring their terminals back. What an agent's end
means is decided by cspd.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import attrs

from cspd import __version__
from cspd.errors import CspError
from cspd.keeper.ending import Ending
from cspd.keeper.exchange import Exchange, agent_fields
from cspd.keeper.holdings import Holdings
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
from cspd.keeper.sidecars import ForkServer
from cspd.keeper.signals import signal_group, signal_session, stop
from cspd.keeper.spawn import (
    exit_status,
    spawn_agent,
    wait_end,
)
from cspd.keeper.succession import Succession
from cspd.keeper.vigil import Vigil
from cspd.listening import listening_socket
from cspd.paths import Paths
from cspd.sd import Service
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("csp-keeper")

LONELY_SEC = 60.0  # a keeper that cspd started, without agents and without cspd, ends after this
# For the sidecar of an ended agent to say goodbye to its clients: at our own end, and while others wait for us.
CLOSE_SEC = 2.0
RELEASE_SEC = 0.3
LEISURE_SEC = 0.02  # nobody has asked anything for so long: cspd asks for many agents in a row


@attrs.define(eq=False)
class Keeper:
    """Owner of every descriptor: PTY masters, pidfds, listening sockets, lifelines to sidecars."""

    paths: Paths
    by_cspd: bool
    nofile: tuple[int, int]  # limits for agents; our own are raised
    lock: int  # held for as long as this process lives
    registry: Registry
    manager: Service  # is told that the end may take longer
    _selector: selectors.BaseSelector = attrs.Factory(selectors.DefaultSelector)
    _peers: Peers = attrs.field(init=False)
    _held: Holdings = attrs.Factory(Holdings)
    _listener: socket.socket = attrs.field(init=False)
    _wakeup: socket.socket = attrs.field(init=False)
    _exchange: Exchange = attrs.field(init=False)
    _succession: Succession = attrs.field(init=False)
    _vigil: Vigil = attrs.field(init=False)
    _due: dict[str, None] = attrs.Factory(dict)  # agents whose sidecar is forked once there is nothing else to do
    _leisure: bool = False
    _forkserver: ForkServer = attrs.field(init=False)
    _timer: float | None = None
    _ending: Ending = attrs.field(init=False)
    _lonely_since: float = attrs.Factory(time.monotonic)

    def __attrs_post_init__(self) -> None:
        self._ending = Ending(self.registry)
        self._peers = Peers(self._selector, self._call, self._peer_left)
        self._exchange = Exchange(
            self.paths, self.registry, self._held, self._peers, self._selector, self._perform, self._ending
        )
        self._forkserver = ForkServer(self._selector)
        self._succession = Succession(self._peers, self._state, self._take_signals)
        self._vigil = Vigil(self.paths, self._selector, self.registry.awaited, self._sidecar_lost)

    # ------------------------------------------------------------------ the loop

    def serve(self, listener: socket.socket, wakeup: socket.socket) -> None:
        """Until it is told to end, or has been lonely for long. `wakeup` gives the numbers of signals."""
        self._listener, self._wakeup = listener, wakeup
        self._peers.listen(listener)
        self._selector.register(wakeup, selectors.EVENT_READ, self._signals)
        self._reap()  # before us another version may have run in this process
        self._perform(self.registry.due(time.monotonic()))
        while not self._done():
            ready = self._selector.select(self._patience())
            for key, mask in ready:
                key.data(key.fileobj, mask)
            self._leisure = not ready
            if self._leisure:
                self._at_leisure()
            now = time.monotonic()
            if self._timer is not None and self._timer <= now:
                self._timer = None
                self._perform(self.registry.due(now))
            self._succession.press_on(now)
            self._ending.press_on(now)

    def _patience(self) -> float | None:
        """Seconds until something must be looked at; None: only a descriptor can wake us."""
        now = time.monotonic()
        deadlines = [at for at in (self._timer, self._succession.deadline) if at is not None]
        deadlines += self._ending.deadlines(now)
        if self._forkserver.sock is None or (self._due and self._forkserver.ready):
            deadlines.append(max(now + (0.0 if self._leisure else LEISURE_SEC), self._forkserver.start_at))
        if self._lonely():
            deadlines.append(self._lonely_since + LONELY_SEC)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _at_leisure(self) -> None:
        """Nobody waits for us. Agents come before their sidecars: fifty start in the time that five sidecars take."""
        if self._forkserver.sock is None:
            if time.monotonic() >= self._forkserver.start_at:
                self._forkserver.start()
        elif self._due and self._forkserver.ready:
            self._fork_sidecar(next(iter(self._due)))

    def _lonely(self) -> bool:
        return self.by_cspd and not self._peers.members and not self.registry.living()

    def _peer_left(self) -> None:
        self._lonely_since = time.monotonic()

    def _done(self) -> bool:
        if self._ending.under_way:
            return self._ending.over(time.monotonic())
        return self._lonely() and time.monotonic() >= self._lonely_since + LONELY_SEC

    def _signals(self, _wakeup: Any, _mask: int) -> None:
        self._take_signals()
        self._reap()

    def _take_signals(self) -> bool:
        """-> are we ending?"""
        try:
            numbers = self._wakeup.recv(4096)
        except BlockingIOError:
            numbers = b""
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self.end()
        return self._ending.under_way

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._succession.reaped(pid, exit_status(status))
            self._perform(self.registry.reaped(pid, exit_status(status), time.monotonic(), time.time()))

    def find_sidecars(self) -> None:
        """Those that a killed keeper has left."""
        self._vigil.find()

    def _sidecar_lost(self, name: str) -> None:
        self._peers.tell({"event": "sidecar-lost", "name": name})

    # ------------------------------------------------------------------ commands of the registry

    def _perform(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Tell(event):
                    self._peers.tell(event)
                case ForkSidecar(name):
                    self._due[name] = None
                case SetTimer(at):
                    self._timer = at if self._timer is None else min(self._timer, at)
                case TellSidecar(name, message):
                    self._held.tell_sidecar(name, message)
                case HangUp(pid):
                    signal_session(pid, signal.SIGHUP)
                case CloseMaster(name):
                    self._held.close_terminal(name)

    def _fork_sidecar(self, name: str) -> None:
        self._due.pop(name, None)
        if name not in self._held.terminals:
            return  # the unit was removed meanwhile
        try:
            pid = self._try_fork_sidecar(name)
        except OSError as exc:
            self._held.close_lifeline(name)
            log.error("%s: no sidecar: %s: it is tried again", name, exc)
            if isinstance(exc, ConnectionError):
                self._forkserver.drop()
                self._due[name] = None
            else:
                self._perform(self.registry.not_forked(name, time.monotonic()))
            return
        self._perform(self.registry.sidecar_forked(name, pid))

    def _try_fork_sidecar(self, name: str) -> int:
        agent, terminal = self.registry.agents[name], self._held.terminals[name]
        theirs = self._held.new_lifeline(name)
        fds = {
            "master": terminal.master,
            "pidfd": terminal.pidfd,
            "listener": self._held.listeners[name].fileno(),
            "lifeline": theirs.fileno(),
        }
        spec = {**agent.spec, "incarnation": agent.incarnation, "pid": agent.pid, "exited": agent.exited}
        with theirs:
            return self._forkserver.fork(spec, fds, self._held.lifelines[name])

    # ------------------------------------------------------------------ the end

    def end(self) -> None:
        if not self._ending.under_way:
            longest_sec = self._ending.begin()
            self.manager.stopping(longest_sec + CLOSE_SEC * (len(self.registry.living()) + 1))

    def close(self) -> None:
        self._forkserver.close()
        for name in list(self._held.terminals):
            self._held.close_terminal(name)
        for name in list(self.registry.agents):
            self._forget(self.registry.agents[name], CLOSE_SEC)
        self._peers.close()

    def _forget(self, agent: Agent, patience_sec: float) -> None:
        """Nothing of an ended agent is left: socket, files, and its sidecar, which may say goodbye for so long.

        But for the ledger: cspd may not have heard all of it, and would have the messages typed again.
        """
        self._held.close_terminal(agent.name)
        self._close_listener(agent.name)
        if agent.sidecar_pid is not None:
            wait_end(agent.sidecar_pid, patience_sec)
        for path in (self.paths.screen_file(agent.name), self.paths.journal_file(agent.name)):
            path.unlink(missing_ok=True)

    def _close_listener(self, name: str) -> None:
        self._held.close_listener(name)
        self.paths.agent_socket(name).unlink(missing_ok=True)

    # ------------------------------------------------------------------ the installed version takes over

    def _state(self) -> dict[str, Any]:
        for name in list(self._due):
            self._fork_sidecar(name)
        peers = self._peers.to_plain()
        sockets = [self._listener.fileno(), *(each["fd"] for each in peers)]
        return {
            "kept": [self.lock, *sockets, *self._held.fds()],
            "by_cspd": self.by_cspd,
            "service": self.manager.address,
            "nofile": self.nofile,
            "listener": self._listener.fileno(),
            "lock": self.lock,
            "registry": self.registry.to_plain(),
            "held": self._held.to_plain(),
            "peers": peers,
            "asked": self._succession.to_plain(),
        }

    def take_over(self, state: Mapping[str, Any]) -> None:
        """Go on where the version before us stopped, and tell cspd that it is done."""
        self._held.take(Holdings.from_plain(state["held"]))
        for fd, pid in list(self._held.strangers.items()):
            self._exchange.watch(fd, pid)
        peers = self._peers.take_over(state["peers"])
        asked = state["asked"]
        if asked is not None:
            self._forkserver.prepare()  # the sidecars are replaced next: then none is missed for long
            self._peers.answer(peers[asked[0]], asked[1], self._about())
        self._vigil.go_on()

    # ------------------------------------------------------------------ requests

    def _call(self, peer: Peer, request: dict[str, Any]) -> Any:
        match request.get("op"):
            case "hello":
                check_protocol(request["protocol"], "cspd")
                peer.subscriber = True
                return {**self._about(), **self.registry.record(), "tells_lost": True}
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
                return self._exchange.adopt(peer, request)
            case "bring":
                return self._exchange.bring(peer, request)
            case "share":
                return self._exchange.share(peer, request)
            case "reexec":
                return self._succession.begin(peer, request.get("id"))
            case "end":
                self.end()
                return {}
            case other:
                raise CspError("no-such-method", f"keeper: {other!r}: not known")

    def _about(self) -> dict[str, Any]:
        return {"protocol": PROTOCOL, "pid": os.getpid(), "version": __version__, "by_cspd": self.by_cspd}

    def _spawn(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["name"]
        before = self.registry.agents.get(name)
        if before is not None and before.exited is None:
            raise CspError("already-running", f"agent: {name}: runs already as process {before.pid}")
        if self._ending.under_way:
            raise CspError("ending", "keeper: it is ending: no agent is started any more")
        if name not in self._held.listeners:
            self._held.listeners[name] = listening_socket(self.paths.agent_socket(name))
            self._held.listeners[name].setblocking(False)
        if name in self._due:
            self._fork_sidecar(name)  # of the one before: it drains what that one has said
        size = (request["rows"], request["columns"])
        try:
            pid, terminal = spawn_agent(request["argv"], request["env"], request["cwd"], *size, self.nofile)
        except (CspError, OSError) as exc:
            if before is None:
                self._close_listener(name)
            if isinstance(exc, CspError):
                raise
            raise CspError("spawn-failed", f"terminal: {exc.strerror}") from exc  # no PTY, no process, no descriptor
        self._held.close_terminal(name)
        self._held.terminals[name] = terminal
        agent = Agent(pid=pid, started_ts=time.time(), started_at=time.monotonic(), **agent_fields(request))
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
                    signal_session(agent.pid, request["signal"])
                case "main":
                    stop(agent.pid, request["signal"])
                case "group":
                    signal_group(agent.pid, request["signal"])
        return {}

    def _release(self, name: str) -> dict[str, Any]:
        """The unit is gone: nothing of it is held any more."""
        agent = self._agent(name)
        if agent.exited is None:
            raise CspError("still-running", f"agent: {name}: process {agent.pid} still runs", "stop it first")
        self._forget(agent, RELEASE_SEC)
        self.paths.ledger_file(name).unlink(missing_ok=True)
        del self.registry.agents[name]
        self.registry.notes.pop(name, None)
        return {}
