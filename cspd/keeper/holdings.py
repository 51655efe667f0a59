"""The descriptors that the keeper holds: PTY masters, pidfds, listening sockets, lifelines to sidecars.

One owner for all of them, so that each is closed once, and can be named to the program that takes over at a reexec.
When something is opened or closed is decided by `serve`.
"""

import json
import logging
import os
import socket
from collections.abc import Mapping
from typing import Any

import attrs

from cspd.keeper.spawn import Terminal, close_quietly

log = logging.getLogger("csp-keeper")


@attrs.define
class Holdings:
    """All by the agent's name; `strangers`: pidfds of processes that are not our children -> their pids."""

    terminals: dict[str, Terminal] = attrs.Factory(dict)
    listeners: dict[str, socket.socket] = attrs.Factory(dict)
    lifelines: dict[str, socket.socket] = attrs.Factory(dict)
    strangers: dict[int, int] = attrs.Factory(dict)

    def new_lifeline(self, name: str) -> socket.socket:
        """Replaces the one before; -> the sidecar's end, which is the caller's to close."""
        ours, theirs = socket.socketpair()
        self.hold_lifeline(name, ours)
        return theirs

    def hold_lifeline(self, name: str, ours: socket.socket) -> None:
        ours.setblocking(False)
        close_quietly(self.lifelines.pop(name, None))
        self.lifelines[name] = ours

    def tell_sidecar(self, name: str, message: Mapping[str, Any]) -> None:
        lifeline = self.lifelines.get(name)
        if lifeline is None:
            return
        try:
            lifeline.send(json.dumps(message).encode() + b"\n")
        except OSError as exc:
            log.warning("%s: sidecar cannot be told: %s", name, exc)  # it is ending, its successor will be told

    def close_terminal(self, name: str) -> None:
        terminal = self.terminals.pop(name, None)
        if terminal is not None:
            close_quietly(terminal.master, terminal.pidfd)
        self.close_lifeline(name)

    def close_lifeline(self, name: str) -> None:
        close_quietly(self.lifelines.pop(name, None))

    def close_listener(self, name: str) -> None:
        close_quietly(self.listeners.pop(name, None))

    def to_plain(self) -> dict[str, Any]:
        """The numbers, for the program that takes over in this very process."""
        return {
            "terminals": {name: [held.master, held.pidfd] for name, held in self.terminals.items()},
            "listeners": {name: held.fileno() for name, held in self.listeners.items()},
            "lifelines": {name: held.fileno() for name, held in self.lifelines.items()},
            "strangers": [[fd, pid] for fd, pid in self.strangers.items()],
        }

    def take(self, other: "Holdings") -> None:
        """All that the other one has."""
        self.terminals |= other.terminals
        self.listeners |= other.listeners
        self.lifelines |= other.lifelines
        self.strangers |= other.strangers

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Holdings":
        return cls(
            {name: Terminal(*fds) for name, fds in plain["terminals"].items()},
            {name: _taken_over(fd) for name, fd in plain["listeners"].items()},
            {name: _taken_over(fd) for name, fd in plain["lifelines"].items()},
            dict(plain["strangers"]),
        )

    def fds(self) -> list[int]:
        """Every one of them."""
        terminals = [fd for held in self.terminals.values() for fd in (held.master, held.pidfd)]
        sockets = [held.fileno() for held in (*self.listeners.values(), *self.lifelines.values())]
        return [*terminals, *sockets, *self.strangers]


def _taken_over(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    os.set_blocking(fd, False)
    sock.setblocking(False)
    return sock
