"""Descriptors that whoever started cspd left open, or the version before it: they go to nobody else."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from real.instance import Instance, eventually

pytestmark = pytest.mark.real


def launch(instance: Instance, fd: int, *options: str) -> None:
    command = [sys.executable, "-m", "cspd.main", *options]
    with open(instance.root / "log", "ab") as log:
        instance.daemon = subprocess.Popen(command, env=instance.env, stdout=log, stderr=log, pass_fds=[fd])
    eventually(instance._answers, "cspd answers")


def holders(instance: Instance, what: Path | str) -> set[str]:
    """Names of the processes of the instance that have this file open."""
    found = set()
    for pid in instance.processes():
        folder = Path(f"/proc/{pid}/fd")
        try:
            if str(what) in {os.readlink(fd) for fd in folder.iterdir()}:
                found.add(folder.with_name("comm").read_text().strip())
        except OSError:
            pass  # it has ended, or closed one just now
    return found


def forkserver_fds(instance: Instance) -> int:
    """How many it has open, once it rests. A file that is read and the folder itself would count too."""
    for pid in instance.processes():
        if Path(f"/proc/{pid}/comm").read_text() == "csp-forkserver\n":
            return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def test_what_a_shell_left_open_goes_to_no_agent_and_no_keeper(unstarted: Instance) -> None:
    path = unstarted.root / "shell.lock"
    with path.open("w") as lock:
        launch(unstarted, lock.fileno())
        unstarted.add("sh", "bash", "--norc")
        unstarted.wait_idle("sh")
    named = holders(unstarted, path)
    assert "csp-keeper" not in named
    assert "csp-forkserver" not in named
    assert "bash" not in named


def test_a_keeper_that_a_resumed_cspd_starts_does_not_hold_the_lock_of_cspd(unstarted: Instance) -> None:
    """Else no cspd could be started after that one was killed."""
    path = unstarted.runtime / "cspd.lock"
    path.parent.mkdir(mode=0o700, parents=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        launch(unstarted, lock.fileno(), "--resume", str(lock.fileno()))
    assert holders(unstarted, path) == {"cspd"}  # also by its name


def test_the_forkserver_of_a_keeper_that_took_over_holds_nothing_of_it(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    at_rest = 4  # 0 1 2, and its connection to the keeper
    eventually(lambda: forkserver_fds(instance) == at_rest, "the forkserver is at rest")
    instance.ctl("reexec")
    assert eventually(lambda: forkserver_fds(instance), "another forkserver") == at_rest
    assert holders(instance, instance.runtime / "keeper.lock") == {"csp-keeper"}
