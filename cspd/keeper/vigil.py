"""Sidecars that outlived their keeper and have not yet come to this one: does each of them still live?

Only they listen on their agents' sockets. A silent connection to one ends with it, at once; that somebody else may
bring the terminal then is `manager`'s to know. The sidecar hangs up on a silent client too, every few seconds.
"""

import errno
import fcntl
import os
import selectors
import socket
from collections.abc import Callable
from typing import Any

import attrs

from cspd.paths import Paths


@attrs.define(eq=False)
class Vigil:
    """Owner of the connections. `lost(name)` is called when a sidecar that is still awaited has ended."""

    paths: Paths
    selector: selectors.BaseSelector
    awaited: set[str]  # the registry's
    lost: Callable[[str], None]

    def find(self) -> None:
        """Who is to be awaited. Call once, at the start. A guest's sidecar never had a keeper.

        A socket on which nobody listens is left over and is removed. The files beside it stay: what a ledger says may
        not have been heard by cspd, which would have the messages typed again.
        """
        for path in self.paths.agents_dir.glob("*.sock"):
            if not self._is_guest(path.stem) and self._watch(path.stem):
                self.awaited.add(path.stem)

    def _is_guest(self, name: str) -> bool:
        try:
            lock = os.open(self.paths.run_lock(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def go_on(self) -> None:
        """For those that the version before us awaited."""
        for name in sorted(self.awaited):
            self._look(name)

    def _look(self, name: str) -> None:
        if not self._watch(name):
            self.awaited.discard(name)
            self.lost(name)

    def _watch(self, name: str) -> bool:
        """Does somebody listen? Then his end will be seen; but for one who does not even accept connections."""
        path = self.paths.agent_socket(name)
        try:
            sock = socket.socket(socket.AF_UNIX)
        except OSError:
            return True  # no descriptor is left: nothing is known against it
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except OSError as exc:
            sock.close()
            if exc.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                return True
            path.unlink(missing_ok=True)
            return False
        self.selector.register(sock, selectors.EVENT_READ, lambda fd, _: self._ended(name, fd))
        return True

    def _ended(self, name: str, sock: Any) -> None:
        self.selector.unregister(sock)
        sock.close()
        if name in self.awaited:  # else it has come meanwhile, or another one has its place
            self._look(name)
