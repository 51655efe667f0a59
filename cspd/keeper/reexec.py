"""Puts the installed version of a program in the place of the running one: same process, children and descriptors.

For programs that are the parent of agents: the keeper, and the sidecar of `cspctl run`. The state goes through a
memory file. A child tries the new version on that very state first: what cannot read it never takes over.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, NoReturn

from cspd.errors import CspError

FORMAT = 1  # of the state; fields are added, never changed, so that it rises only when an older one cannot be read
CHECK_SEC = 20.0  # imports take half a second, more on a loaded machine
SAID_MAX = 16384
BLOCKED = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}  # a default action would end us in between


class Program(NamedTuple):
    """A module that knows the options --check FD and --resume FD."""

    what: str  # for people
    module: str

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-P", "-m", self.module, *words]


KEEPER = Program("keeper", "cspd.keeper.main")


class Check(NamedTuple):
    """The installed version is being tried by this child."""

    what: str
    pid: int
    said: int  # a memory file with what it writes to stderr
    deadline: float

    def verdict(self, status: Mapping[str, Any]) -> CspError | None:
        """What it came to; closes `said`."""
        text = os.pread(self.said, SAID_MAX, 0).decode(errors="replace").strip()
        os.close(self.said)
        if status == {"code": 0}:
            return None
        why = text.splitlines()[-1] if text else f"its check ended with {dict(status)}"
        return CspError(
            "not-replaced",
            f"{self.what}: the installed version cannot take over: {why}",
            "the running version goes on; repair the installation and try again",
        )


def write_state(state: Mapping[str, Any]) -> int:
    """-> a descriptor that `read_state` takes, in this process or in a child that inherits it."""
    fd = os.memfd_create("csp-state", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps({"format": FORMAT, **state}).encode())
    return fd


def read_state(fd: int) -> dict[str, Any]:
    """Raises CspError("not-replaced") for one that a version wrote of which we do not know enough."""
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        state: dict[str, Any] = json.loads(file.read())
    if state["format"] != FORMAT:
        raise CspError("not-replaced", f"state of format {state['format']}: this version reads {FORMAT}")
    return state


def start_check(program: Program, state: Mapping[str, Any], deadline: float) -> Check:
    """Raises OSError."""
    fd, said = write_state(state), os.memfd_create("csp-check", os.MFD_CLOEXEC)
    passed = [(os.POSIX_SPAWN_DUP2, said, 2), (os.POSIX_SPAWN_DUP2, fd, 3)]
    try:
        pid = os.posix_spawn(sys.executable, program.command("--check", "3"), os.environ, file_actions=passed)
    except BaseException:
        os.close(said)
        raise
    finally:
        os.close(fd)
    return Check(program.what, pid, said, deadline)


def become(program: Program, state: Mapping[str, Any], keep: Iterable[int]) -> NoReturn:
    """Be the installed version from now on, with these descriptors. Raises OSError.

    Call with BLOCKED signals blocked: what comes meanwhile is seen by the new program.
    """
    fd = write_state(state)
    kept = [fd, *keep]
    try:
        for each in kept:
            os.set_inheritable(each, True)
        os.execv(sys.executable, program.command("--resume", str(fd)))
    except BaseException:
        for each in kept:
            os.set_inheritable(each, False)
        os.close(fd)
        raise


def take_over(fd: int, keep: Iterable[int]) -> None:
    """In the new program: these descriptors are ours alone again, no agent may inherit them."""
    os.close(fd)
    for each in keep:
        os.set_inheritable(each, False)
