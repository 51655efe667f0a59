"""The sidecar of `cspctl run` gives way to the installed version in its own process: it is the parent of its agent.

A child tries that version first; then agent, terminal, sockets and lock are kept across the exec. What the version
after it must know of the screen and of messages stands in the black box, as after a death.
"""

import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from cspd.errors import CspError
from cspd.keeper import reexec
from cspd.paths import Paths
from cspd.profiles.find import find_profile
from cspd.sidecar.gateway import GatewayDoor
from cspd.sidecar.running import Running

PROGRAM = reexec.Program("sidecar of `cspctl run`", "cspd.sidecar.foreground")


@attrs.define(eq=False)
class Trial:
    """Whether the installed version could go on in our place. `reaped` must be told of every child that ends."""

    running: Running
    _pid: int = 0
    _status: Mapping[str, Any] = attrs.Factory(dict)
    _ended: trio.Event = attrs.Factory(trio.Event)

    async def check(self) -> None:
        """Raises CspError("not-replaced") with the reason why it could not."""
        if isinstance(self.running.door, GatewayDoor):
            raise CspError("not-replaced", "linked by a gateway: it keeps its version until it ends")
        deadline = time.monotonic() + reexec.CHECK_SEC
        check = reexec.start_check(PROGRAM, self.running.to_plain(), deadline)
        self._pid, self._ended = check.pid, trio.Event()
        try:
            with trio.move_on_after(reexec.CHECK_SEC):
                await self._ended.wait()
        finally:
            if not self._ended.is_set():
                os.kill(check.pid, signal.SIGKILL)  # our child, not yet reaped
                self._status = {"signal": int(signal.SIGKILL)}
            problem = check.verdict(self._status)
        if problem is not None:
            raise problem

    def reaped(self, child: int, status: Mapping[str, Any]) -> None:
        if child == self._pid:
            self._status = status
            self._ended.set()


def become(running: Running) -> OSError:
    """Be the installed version from now on. Returns only with the reason why we go on."""
    state = running.to_plain()
    try:
        reexec.become(PROGRAM, state, state["kept"])
    except OSError as exc:
        return exc


def resumed(state_fd: int, paths: Paths) -> Running:
    """In the version that took over: what was handed over."""
    state = reexec.read_state(state_fd)
    listener, control = (socket.socket(fileno=state[key]) for key in ("listener", "control"))
    running = Running.from_plain(state, paths, listener, control)
    reexec.take_over(state_fd, state["kept"])
    return running


def check(state_fd: int, paths: Paths) -> None:
    """In the version that is tried, which has no descriptors: could it go on?"""
    with socket.socket() as listener, socket.socket() as control:
        running = Running.from_plain(reexec.read_state(state_fd), paths, listener, control)
    find_profile(running.spec["settings"]["profile"], paths)
