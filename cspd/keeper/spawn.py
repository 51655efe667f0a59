"""Forks: an agent on a new PTY, a sidecar from warm memory. Plain blocking calls for a process with one thread.

Forking (not posix_spawn) gives the child its directory, limits and controlling terminal, and the parent the exact
reason when exec fails. It is safe only because the keeper never starts a thread nor an event loop.
"""

import ctypes
import errno
import fcntl
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import termios
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

import attrs

from cspd.errors import CspError

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def set_process_name(name: str) -> None:
    """What `ps -o comm` and `top` show; 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def become_subreaper() -> None:
    """Orphans of the agents come to us, not to init: they can be told apart and are reaped."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@attrs.frozen
class Terminal:
    """The descriptors of one incarnation; the listening socket outlives it."""

    master: int
    pidfd: int  # opened while the pid was surely ours, so that nobody can ever signal a successor of the number


def fork_agent(
    argv: Sequence[str], env: Mapping[str, str], cwd: str, rows: int, columns: int, nofile: tuple[int, int]
) -> tuple[int, Terminal]:
    """-> (pid, descriptors). Raises CspError("spawn-failed") with the reason when the program cannot be started."""
    master, slave = os.openpty()
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        _set_utf8(slave)
        os.set_blocking(master, False)  # lies on the open file: for every holder, the sidecar's reads included
        report, failed = os.pipe()
    except BaseException:
        os.close(master)
        os.close(slave)
        raise
    try:
        pid = os.fork()
    except OSError:
        close_quietly(master, slave, report, failed)
        raise
    if pid == 0:
        _become_agent(slave, failed, argv, env, cwd, nofile)
    os.close(slave)
    os.close(failed)
    reason = os.read(report, 4096)  # b"" at the exec, which closes the pipe
    os.close(report)
    if reason:
        os.close(master)
        os.waitpid(pid, 0)
        raise CspError("spawn-failed", reason.decode(errors="replace"))
    return pid, Terminal(master, os.pidfd_open(pid))


def _set_utf8(slave: int) -> None:
    """IUTF8, so that Backspace in a canonical line deletes a whole character. (Python's termios has no name for it.)"""
    iutf8 = 0o40000
    flags = termios.tcgetattr(slave)
    flags[0] |= iutf8
    termios.tcsetattr(slave, termios.TCSANOW, flags)


def _become_agent(
    slave: int, failed: int, argv: Sequence[str], env: Mapping[str, str], cwd: str, nofile: tuple[int, int]
) -> None:
    """In the child: never returns."""
    what = f"working_directory: {cwd!r}"
    try:
        os.login_tty(slave)  # a session of its own, the controlling terminal, 0 1 2
        _reset_signals()
        resource.setrlimit(resource.RLIMIT_NOFILE, nofile)
        os.umask(0o022)
        os.chdir(cwd)
        what = f"command: {argv[0]!r}"
        os.execvpe(argv[0], list(argv), dict(env))
    except OSError as exc:
        reason = "not found" if exc.errno == errno.ENOENT else (exc.strerror or str(exc)).lower()
        os.write(failed, f"{what}: {reason}".encode())
    except BaseException as exc:
        os.write(failed, f"{what}: {exc!r}".encode())
    finally:
        os._exit(127)


def _reset_signals() -> None:
    """Python ignores SIGPIPE and SIGXFSZ, a caller maybe more; an agent starts with the defaults."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:
            pass  # libc keeps two real-time signals to itself
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def fork_sidecar(run: Callable[[], int], keep: Sequence[int]) -> int:
    """Fork a process that calls `run` for its exit status. Beside 0 1 2 it holds only `keep`. -> pid"""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()  # a Ctrl-C in the terminal of cspd is not meant for us
        _reset_signals()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # a write says so itself
            signal.signal(number, signal.SIG_IGN)
        low = 3
        for fd in sorted(keep):
            os.closerange(low, fd)
            low = fd + 1
        os.closerange(low, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        set_process_name("csp-sidecar")
        status = run()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def wait_end(sidecar_pid: int, patience_sec: float) -> None:
    """A sidecar ends by itself once its agent's output is drained; after `patience_sec` by SIGKILL."""
    try:
        pidfd = os.pidfd_open(sidecar_pid)
    except OSError:
        return  # it has ended, or no descriptor is left: it will end by itself
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        if not selector.select(patience_sec):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def exit_status(wait_status: int) -> dict[str, object]:
    if os.WIFEXITED(wait_status):
        return {"code": os.WEXITSTATUS(wait_status)}
    return {"signal": os.WTERMSIG(wait_status), "core": os.WCOREDUMP(wait_status)}


PIDFD_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info of 64 bytes); include/uapi/linux/pidfd.h
PIDFD_INFO_EXIT = 1 << 3
REAPED_BY_INIT_SEC = 0.05


def exit_status_of(pidfd: int) -> dict[str, object]:
    """How a process that was never our child ended; {} when that cannot be known.

    Linux 6.15 and later keep it for holders of a pidfd, from the moment when init has reaped it.
    """
    deadline = time.monotonic() + REAPED_BY_INIT_SEC
    while True:
        info = bytearray(64)
        struct.pack_into("Q", info, 0, PIDFD_INFO_EXIT)
        try:
            fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
        except OSError:
            return {}
        if struct.unpack_from("Q", info)[0] & PIDFD_INFO_EXIT:
            return exit_status(int(struct.unpack_from("i", info, 60)[0]))
        if time.monotonic() > deadline:
            return {}
        time.sleep(0.002)  # nothing announces it


def close_quietly(*fds: int | socket.socket | None) -> None:
    for fd in fds:
        if fd is None:
            continue
        try:
            fd.close() if isinstance(fd, socket.socket) else os.close(fd)
        except OSError:
            pass  # EIO or EBADF: either way it is closed
