"""Starts agents on new PTYs, and sidecars from warm memory. Plain blocking calls for a process with one thread.

A fork of this process takes 4 ms, most of it for pages that an exec throws away; `posix_spawn` takes 0.3. What that
cannot set for a child (directory, limits) is set here for the moment: safe only in a process without threads.
"""

import contextlib
import ctypes
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
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from cspd.errors import CspError

PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
# Python ignores SIGPIPE and SIGXFSZ, a caller maybe more; an agent starts with the defaults.
_ALL_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def set_process_name(name: str) -> None:
    """What `ps -o comm` and `top` show; 15 bytes."""
    _libc.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def set_process_title(title: str) -> None:
    """What `ps aux` and `pgrep -f` show. Written over the arguments that this process was started with, and no longer
    than these; proc_pid_stat(5), arg_start and arg_end.
    """
    with open("/proc/self/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])  # the 48th and 49th; the third one stands first here
    if begin < end:  # both 0: not for our eyes
        ctypes.memmove(begin, title.encode()[: end - begin - 1].ljust(end - begin, b"\0"), end - begin)


def become_subreaper() -> None:
    """Orphans of the agents come to us, not to init: they can be told apart and are reaped."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@attrs.frozen
class Terminal:
    """The descriptors of one incarnation; the listening socket outlives it."""

    master: int
    pidfd: int  # opened while the pid was surely ours, so that nobody can ever signal a successor of the number


def spawn_agent(
    argv: Sequence[str], env: Mapping[str, str], cwd: str, rows: int, columns: int, nofile: tuple[int, int]
) -> tuple[int, Terminal]:
    """-> (pid, descriptors). Raises CspError("spawn-failed") with the reason when the program cannot be started."""
    master, slave = os.openpty()
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        _set_utf8(slave)
        os.set_blocking(master, False)  # lies on the open file: for every holder, the sidecar's reads included
        with _surroundings(cwd, nofile):
            pid = _spawn(argv, env, os.ttyname(slave))
        return pid, Terminal(master, os.pidfd_open(pid))
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)


def _set_utf8(slave: int) -> None:
    """IUTF8, so that Backspace in a canonical line deletes a whole character. (Python's termios has no name for it.)"""
    iutf8 = 0o40000
    flags = termios.tcgetattr(slave)
    flags[0] |= iutf8
    termios.tcsetattr(slave, termios.TCSANOW, flags)


@contextlib.contextmanager
def _surroundings(cwd: str, nofile: tuple[int, int]) -> Iterator[None]:
    """An agent inherits them from us, who are the only thread of this process; they are ours again afterwards."""
    here, limits = os.open(".", os.O_PATH | os.O_CLOEXEC), resource.getrlimit(resource.RLIMIT_NOFILE)
    mask = os.umask(0o022)
    what = f"working_directory: {cwd!r}"
    try:
        try:
            os.chdir(cwd)
            what = "open files"
            resource.setrlimit(resource.RLIMIT_NOFILE, (nofile[0], limits[1]))  # a hard limit does not come back
        except (OSError, ValueError) as exc:
            raise _not_spawned(what, exc) from exc
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.umask(mask)
        os.fchdir(here)
        os.close(here)


def _spawn(argv: Sequence[str], env: Mapping[str, str], tty: str) -> int:
    """Find the program in the agent's PATH, as execvp does: one that may not be executed is only told of at the end."""
    # A session's leader that opens a terminal which is nobody's has it for its controlling terminal.
    actions = [(os.POSIX_SPAWN_OPEN, 0, tty, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    absent: Exception | None = None
    problem: Exception | None = None
    for program in [argv[0]] if "/" in argv[0] else [os.path.join(each, argv[0]) for each in os.get_exec_path(env)]:
        try:
            return os.posix_spawn(
                program, list(argv), env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_ALL_SIGNALS
            )
        except (FileNotFoundError, NotADirectoryError) as exc:
            absent = exc
        except (OSError, ValueError) as exc:
            problem = problem or exc
    raise _not_spawned(f"command: {argv[0]!r}", problem or absent)


def _not_spawned(what: str, why: Exception | None) -> CspError:
    match why:
        case None | FileNotFoundError():
            reason = "not found"
        case OSError(strerror=str(strerror)):
            reason = strerror.lower()
        case _:
            reason = str(why)
    return CspError("spawn-failed", f"{what}: {reason}")


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
