"""The keeper's side of csp-forkserver: starts it, waits for it, and has it fork a sidecar.

A fork is waited for, a few milliseconds. When the forkserver dies over it, the lifeline is closed, and a sidecar that
was forked all the same ends before it does anything: never two for one terminal.
"""

import array
import json
import logging
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import attrs

from cspd.keeper.spawn import close_quietly

log = logging.getLogger("csp-keeper")

WARM_SEC = 20.0  # half a second, more on a loaded machine
FORK_SEC = 5.0
SAID_MAX = 256
READY, FAILED = "ready", "failed"  # what it says
FDS = ("master", "pidfd", "listener", "lifeline")  # what comes with each request, behind the spec, in this order
START_AGAIN_SEC = 5.0  # after one that died before it was ready: the next one would too


@attrs.define(eq=False)
class ForkServer:
    """Owner of the connection to it; there is none before `start`, and after `close`."""

    selector: selectors.BaseSelector
    sock: socket.socket | None = None
    ready: bool = False
    start_at: float = 0.0  # not earlier (monotonic seconds)
    _pidfd: int | None = None

    def start(self) -> None:
        """It is ready some time later. When no process is left, it is tried again later."""
        self.start_at = time.monotonic() + START_AGAIN_SEC
        try:
            self._spawn()
        except OSError as exc:
            log.error("csp-forkserver: %s: it is tried again", exc)

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-P", "-m", "cspd.keeper.forkserver", "3"]
            passed = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
            try:
                pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=passed, setsid=True)
                self._pidfd = os.pidfd_open(pid)
            except BaseException:
                ours.close()
                raise
        self.sock = ours
        self.selector.register(ours, selectors.EVENT_READ, self._ready_to_hear)

    def _ready_to_hear(self, _sock: Any, _mask: int) -> None:
        if not self.hear():
            self.drop()

    def drop(self) -> None:
        """It has ended, or is no good. The keeper starts another one when it has nothing else to do."""
        log.warning("csp-forkserver has ended, or does not answer: another one is started")
        self.close()

    def close(self) -> None:
        """In whatever state it is, nothing more comes from it."""
        if self._pidfd is not None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # reaped in the keeper's loop, like every child
        if self.sock is not None:
            self.selector.unregister(self.sock)
        close_quietly(self.sock, self._pidfd)
        self.sock, self._pidfd, self.ready = None, None, False

    def prepare(self) -> None:
        """Have it ready."""
        try:
            self.wait_ready()
        except ConnectionError as exc:
            log.error("%s", exc)
            self.drop()

    def wait_ready(self) -> None:
        """Raises ConnectionError."""
        if self.sock is None:
            self.start()
        if self.sock is None:
            raise ConnectionError("csp-forkserver: it could not be started")
        if not self.ready and not (_readable(WARM_SEC, self.sock) and self.hear() == READY):
            raise ConnectionError("csp-forkserver: it could not be started")

    def hear(self) -> str:
        """What it says, READY at first; "" when it has ended."""
        assert self.sock is not None
        try:
            said = self.sock.recv(SAID_MAX).decode(errors="replace")
        except OSError:
            return ""
        if said == READY:
            self.ready, self.start_at = True, 0.0
        return said

    def fork(self, spec: Mapping[str, Any], fds: Mapping[str, int], lifeline: socket.socket) -> int:
        """-> the pid of a new sidecar, which has these descriptors: the other end of `lifeline` is among them.

        Raises OSError, ConnectionError when it was the forkserver's fault. Then close `lifeline`: should there be a
        sidecar all the same, that ends it.
        """
        self.wait_ready()
        assert self.sock is not None
        self._ask(self.sock, spec, fds)
        readable = _readable(FORK_SEC, lifeline, self.sock)
        if lifeline in readable and (pid := lifeline.recv(32)):
            return int(pid)
        why = self.hear() if self.sock in readable else ""
        if why.startswith(FAILED):
            raise OSError(0, why.removeprefix(FAILED).strip())
        raise ConnectionError("csp-forkserver: it has ended, or does not answer")

    @staticmethod
    def _ask(sock: socket.socket, spec: Mapping[str, Any], fds: Mapping[str, int]) -> None:
        memory = os.memfd_create("csp-spec", os.MFD_CLOEXEC)  # it may be longer than a datagram
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(json.dumps(spec).encode())
            passed = array.array("i", [memory, *(fds[name] for name in FDS)])
            sock.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        finally:
            os.close(memory)


def _readable(patience_sec: float, *socks: socket.socket) -> list[socket.socket]:
    poll = select.poll()  # not select(): there may be thousands of descriptors
    by_fd = {sock.fileno(): sock for sock in socks}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poll.poll(patience_sec * 1000)]
