"""Where the sidecar of `cspctl run` lives: a name that nobody else on this host has, its files, its attach socket.

The lock is the proof of life: it is held until the process ends, however it ends. What the name is called at a gateway
is the door's to know.
"""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import attrs

from cspd.errors import CspError
from cspd.listening import listening_socket
from cspd.paths import Paths, check_agent_name, make_private_dir

NAME_MAX = 32
TRIES = 100


class Listeners(NamedTuple):
    """For terminals that attach, and for what the agent says."""

    attach: socket.socket
    voice: socket.socket | None = None


@attrs.define
class Home:
    """Owner of the lock and, once `listen` was called, of the socket."""

    name: str
    paths: Paths
    lock: int  # its descriptor

    @property
    def directory(self) -> Path:
        return self.paths.run_dir(self.name)

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def black_box(self) -> tuple[Path, Path, Path]:
        """The ledger lasts: a message that was typed in this terminal once is not typed into the next one."""
        return self.paths.screen_file(self.name), self.paths.journal_file(self.name), self.directory / "ledger"

    @property
    def voice(self) -> Path:
        return self.paths.voice_socket(self.name)

    def listen(self, *, voice: bool) -> "Listeners":
        """`voice`: the agent needs a socket of its own to speak."""
        make_private_dir(self.paths.runtime)
        make_private_dir(self.paths.agents_dir)
        for path in self.black_box[:2]:
            path.unlink(missing_ok=True)  # of a terminal that is gone with its sidecar
        paths = [self.paths.agent_socket(self.name), *([self.voice] if voice else [])]
        sockets = [listening_socket(path) for path in paths]
        for listener in sockets:
            listener.setblocking(False)
        return Listeners(*sockets)

    def leave(self) -> None:
        """Ledger and spool stay."""
        for path in (self.paths.agent_socket(self.name), self.voice, *self.black_box[:2]):
            path.unlink(missing_ok=True)
        os.close(self.lock)


def claim(wanted: str, paths: Paths, *, inside: str = "") -> Home:
    """`wanted` itself, or `wanted-2` and so on when it is taken. `inside`: the agent in whose terminal we are.

    Raises CspError: "bad-name", or "inside" for an agent that would be run in its own terminal.
    """
    check_agent_name(wanted)
    for directory in (paths.state, paths.state / "run"):
        make_private_dir(directory)
    for name in _names(wanted):
        home = _try(name, paths)
        if home is not None:
            return home
        if name == inside:
            raise CspError("inside", f"run: {name}: this is its own terminal already", "give another --name")
    raise CspError("name-taken", f"agent: {wanted}: {TRIES} of this name run already", "give another --name")


def _names(wanted: str) -> Iterator[str]:
    yield wanted
    for number in range(2, TRIES + 1):
        end = f"-{number}"
        yield wanted[: NAME_MAX - len(end)] + end


def _try(name: str, paths: Paths) -> Home | None:
    if paths.unit_file(name).exists() or _answers(paths.agent_socket(name)):
        return None  # a unit, or one whose file has just gone
    make_private_dir(paths.run_dir(name))
    lock = os.open(paths.run_lock(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return Home(name, paths, lock)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(str(path)) in (0, errno.EAGAIN)  # a full backlog has a listener too
