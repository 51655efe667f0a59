"""cspd gives way to its installed version: same process, lock and listening socket; everything else begins anew.

Agents, keeper and sidecars do not notice more than after a SIGKILL. When that happens is `daemon`'s to decide.
"""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import trio

from cspd.errors import CspError

CHECK_SEC = 20.0  # imports take half a second, more on a loaded machine


class Inherited(NamedTuple):
    """Descriptors that the version before us left open."""

    lock: int
    listener: int

    @classmethod
    def from_word(cls, word: str) -> "Inherited":
        """Of `--resume`; they are ours alone again, no child may inherit them."""
        lock, listener = map(int, word.split(","))
        for fd in (lock, listener):
            os.set_inheritable(fd, False)
        return cls(lock, listener)


def become(inherited: Inherited, environ: Mapping[str, str]) -> NoReturn:
    """Be the installed version from now on. Raises OSError."""
    for fd in inherited:
        os.set_inheritable(fd, True)
    resume = ["--resume", ",".join(map(str, inherited))]
    os.execve(sys.executable, [sys.executable, "-P", "-m", "cspd.main", *resume], environ)


async def check_installed() -> None:
    """Could the installed version take over, with the configuration as it is? Raises CspError("not-replaced")."""
    command = [sys.executable, "-P", "-m", "cspd.main", "--check"]
    with trio.move_on_after(CHECK_SEC):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode == 0:
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
