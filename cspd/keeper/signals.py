"""Signals to an agent: to its leader's group, or to all that is left of its session. Who gets which is `serve`'s."""

import os
import signal


def signal_session(leader: int, number: int) -> None:
    for pid in session_members(leader):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # ended by itself: the same result


def signal_group(leader: int, number: int) -> None:
    """To the leader's process group: codex and gemini are a wrapper with the real program as its child."""
    try:
        os.killpg(leader, number)
        if number not in (signal.SIGKILL, signal.SIGCONT):
            os.killpg(leader, signal.SIGCONT)  # a stopped process would never see it
    except (ProcessLookupError, PermissionError):
        pass  # no longer there: the same result


def stop(leader: int, number: int) -> None:
    """Ask it to end. Interactive shells ignore SIGTERM; what ends them is the hang-up of their terminal."""
    ignored = ignores(leader, number)
    signal_group(leader, number)
    if ignored:
        signal_group(leader, signal.SIGHUP)


def session_members(leader: int) -> list[int]:
    """Pids whose session is `leader`'s. A process that called setsid itself is no longer among them."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _belongs(pid, leader)]


def _belongs(pid: int, leader: int) -> bool:
    try:
        if os.getsid(pid) != leader:  # one system call, where reading the state takes six: a restart waits for this
            return False
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False  # ended meanwhile


def ignores(pid: int, number: int) -> bool:
    """Does the process ignore this signal?"""
    try:
        with open(f"/proc/{pid}/status") as f:
            mask = next(int(line.split()[1], 16) for line in f if line.startswith("SigIgn:"))
    except OSError:
        return False  # ended meanwhile
    return bool(mask >> (number - 1) & 1)
