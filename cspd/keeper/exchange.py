"""Terminals that come to the keeper and duplicates that go from it, as descriptors on keeper.sock.

So that three processes hold each terminal: keeper, sidecar and cspd. Any two of them may be killed; a new keeper takes
it from the third. What follows for the agent is `registry`'s.
"""

import array
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

import attrs

from cspd.errors import CspError
from cspd.keeper.ending import Ending
from cspd.keeper.holdings import Holdings
from cspd.keeper.peers import Later, Peer, Peers
from cspd.keeper.registry import Agent, Command, ForkSidecar, Registry
from cspd.keeper.spawn import Terminal, close_quietly, exit_status_of
from cspd.listening import listening_socket
from cspd.paths import Paths


def agent_fields(request: dict[str, Any]) -> dict[str, Any]:
    return {key: request[key] for key in ("name", "incarnation", "spec", "stop_signal", "stop_timeout_sec")}


@attrs.define(eq=False)
class Exchange:
    """Works on the keeper's parts; `perform` carries out what follows."""

    paths: Paths
    registry: Registry
    held: Holdings
    peers: Peers
    selector: selectors.BaseSelector
    perform: Callable[[list[Command]], None]
    ending: Ending

    def share(self, peer: Peer, request: dict[str, Any]) -> Later:
        """Master and pidfd of an agent that runs, for cspd to keep: asked on a connection of its own."""
        agent, terminal = self.registry.agents.get(request["name"]), self.held.terminals.get(request["name"])
        if agent is None or terminal is None or agent.exited is not None:
            raise CspError("no-such-agent", f"agent: {request['name']!r}: does not run here")
        line = json.dumps({"id": request.get("id"), "ok": {**agent.record(), **self._origin(agent)}}).encode() + b"\n"
        fds = array.array("i", [terminal.master, terminal.pidfd])
        if peer.sock.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]) < len(line):
            raise OSError("the connection does not take an answer at once")
        return Later()

    @staticmethod
    def _origin(agent: Agent) -> dict[str, Any]:
        """What a later keeper must know of it."""
        return {"spec": agent.spec, "stop_signal": agent.stop_signal, "stop_timeout_sec": agent.stop_timeout_sec}

    def adopt(self, peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
        """A sidecar whose keeper was killed brings its descriptors: master, pidfd, listener, the new lifeline."""
        name, sidecar_pid = request["name"], request["sidecar_pid"]
        master, pidfd, listener, lifeline = self._brought(peer, request, 4)
        watched: list[tuple[int, int]] = []
        try:
            watched.append((os.dup(pidfd), request["pid"]))
            watched.append((os.pidfd_open(sidecar_pid), sidecar_pid))
        except OSError:
            close_quietly(master, pidfd, listener, lifeline, *(fd for fd, _ in watched))
            raise
        self.held.terminals[name] = Terminal(master, pidfd)
        self.held.listeners[name] = socket.socket(fileno=listener)
        self.held.hold_lifeline(name, socket.socket(fileno=lifeline))
        return self._taken(request, sidecar_pid, watched, [])

    def bring(self, peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
        """cspd brings its duplicates, master and pidfd: keeper and sidecar were both killed."""
        name = request["name"]
        master, pidfd = self._brought(peer, request, 2)
        try:
            listener = listening_socket(self.paths.agent_socket(name))
            listener.setblocking(False)
            watched = [(os.dup(pidfd), request["pid"])]
        except OSError:
            close_quietly(master, pidfd)
            raise
        self.held.terminals[name] = Terminal(master, pidfd)
        self.held.listeners[name] = listener
        return self._taken(request, None, watched, [ForkSidecar(name)])

    def _brought(self, peer: Peer, request: dict[str, Any], count: int) -> list[int]:
        fds, peer.fds = peer.fds, []
        known = self.registry.agents.get(request["name"])
        if known is None and len(fds) == count:
            return fds
        close_quietly(*fds)
        if known is not None:
            raise CspError("replaced", f"agent: {known.name}: the keeper holds its terminal already")
        raise CspError("not-adopted", f"agent: {request['name']}: {len(fds)} descriptors: expected {count}")

    def _taken(
        self, request: dict[str, Any], sidecar_pid: int | None, watched: list[tuple[int, int]], follows: list[Command]
    ) -> dict[str, Any]:
        agent = Agent(
            pid=request["pid"],
            started_ts=request["started_ts"],
            started_at=request.get("started_at", 0.0),
            sidecar_pid=sidecar_pid,
            **agent_fields(request),
        )
        self.registry.adopted(agent)
        for fd, pid in watched:
            self.watch(fd, pid)
        self.peers.tell({"event": "agent-adopted", **agent.record()})
        self.perform(follows)
        self.ending.came(agent.name)
        return agent.record()

    def watch(self, pidfd: int, pid: int) -> None:
        """For a process that is not our child: its end shows on the pidfd."""

        def ended(fd: Any, _: int) -> None:
            self.selector.unregister(fd)
            del self.held.strangers[fd]
            status = exit_status_of(fd)
            os.close(fd)
            self.perform(self.registry.reaped(pid, status, time.monotonic(), time.time()))

        self.held.strangers[pidfd] = pid
        self.selector.register(pidfd, selectors.EVENT_READ, ended)
