"""cspd gives way to its installed version: same process, lock and listening socket; everything else begins anew.

Agents, keeper and sidecars do not notice more than after a SIGKILL. When that happens is `daemon`'s to decide.
"""

import enum
import os
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import attrs
import trio

from cspd.errors import CspError
from cspd.listening import listening_socket
from cspd.sd import Service

PROFILES_BROKEN = 3  # the status of --check when nothing else is: their agents run under the default one
CHECK_SEC = 20.0  # imports take half a second, more on a loaded machine


class End(enum.Enum):
    STOPPED = enum.auto()
    REPLACED = enum.auto()  # the installed version takes over, in this process
    DAMAGED = enum.auto()  # all begins anew with another history; agents go on as if we had been killed


class Inherited(NamedTuple):
    """Descriptors that the version before us left open. What a service manager passed comes as it came to that one."""

    lock: int
    listener: int | None = None  # None: of a service manager, or not yet made

    @classmethod
    def from_word(cls, word: str) -> "Inherited":
        """Of `--resume`; they are ours alone again, no child may inherit them."""
        held = cls(*map(int, word.split(",")))
        for fd in held.fds():
            os.set_inheritable(fd, False)
        return held

    def fds(self) -> list[int]:
        return [fd for fd in self if fd is not None]


@attrs.frozen
class ControlSocket:
    """Where cspd listens: on the socket that systemd passes, on that of the version before us, or on one that we make.

    systemd's stays when we end, so that clients wait for the next cspd.
    """

    path: Path
    listener: socket.socket
    _made: os.stat_result | None = None  # None: it is not ours to remove

    @classmethod
    def open(cls, path: Path, service: Service, held: Inherited) -> "ControlSocket":
        """Raises CspError("wrong-socket")."""
        passed = next(iter(service.sockets.get("cspd", ())), None)
        if passed is None:
            listener = listening_socket(path) if held.listener is None else socket.socket(fileno=held.listener)
            return cls(path, listener, path.stat() if path.exists() else None)
        if passed.getsockname() != str(path):
            raise CspError(
                "wrong-socket",
                f"socket: {passed.getsockname()}: passed by systemd, but this instance has {path}",
                "correct ListenStream= of cspd.socket",
            )
        return cls(path, passed.dup())  # the passed one must be there for the version after us

    def keep(self, held: Inherited) -> Inherited:
        """What the version after us inherits; who connects meanwhile waits for it."""
        return held._replace(listener=os.dup(self.listener.fileno()) if self._made else None)

    def remove(self) -> None:
        if self._made and self.path.exists() and os.path.samestat(self._made, self.path.stat()):
            self.path.unlink()  # else it is systemd's by now


def become(held: Inherited, options: Sequence[str], passed: Iterable[int], environ: Mapping[str, str]) -> NoReturn:
    """Be the installed version from now on, with what a service manager `passed` to us. Raises OSError."""
    for fd in (*held.fds(), *passed):
        os.set_inheritable(fd, True)
    resume = ["--resume", ",".join(map(str, held.fds()))]
    os.execve(sys.executable, [sys.executable, "-P", "-m", "cspd.main", *options, *resume], environ)


async def check_installed() -> None:
    """Could the installed version take over, with the configuration as it is? Raises CspError("not-replaced")."""
    command = [sys.executable, "-P", "-m", "cspd.main", "--check"]
    with trio.move_on_after(CHECK_SEC):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode in (0, PROFILES_BROKEN):
            return
        why = "; ".join(_problems(done.stderr)) or f"its check ended with status {done.returncode}"
        raise _refused(why)
    raise _refused(f"its check did not end within {CHECK_SEC:g} s")


def _problems(said: bytes) -> list[str]:
    """What the check complains of; of a traceback only the last line, which says what it is."""
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    told = [line.removeprefix("cspd: ") for line in lines if line.startswith("cspd: ")]
    return told or lines[-1:]


def _refused(why: str) -> CspError:
    return CspError(
        "not-replaced",
        f"cspd: the installed version cannot take over: {why}",
        "the running version goes on; `cspd --check` says the same",
    )
