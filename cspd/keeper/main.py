"""csp-keeper: the process that must not die. Blocking Python: no trio loop, no thread, no emulator of its own.

Takes the lock and runs `serve`. Started by cspd, as a service of its own, or by the
version before it, in the same process (`reexec`).
"""

import fcntl
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from cspd import __version__
from cspd.descriptors import keep_inherited
from cspd.journal import log_here
from cspd.keeper import reexec
from cspd.keeper.registry import Registry
from cspd.keeper.serve import Keeper
from cspd.keeper.spawn import become_subreaper, set_process_name
from cspd.listening import listening_socket
from cspd.paths import Paths, make_private_dir
from cspd.sd import Service, service

log = logging.getLogger("csp-keeper")

LOCK_SEC = 5.0  # a service waits so long for a keeper that is just ending, or that a cspd out of service has started
LOOK_SEC = 0.05


def run_keeper(paths: Paths, *, by_cspd: bool, manager: Service) -> int:
    """Serve until told to end. Returns an exit status: 1 when another keeper holds the lock."""
    make_private_dir(paths.runtime)
    make_private_dir(paths.agents_dir)
    lock = os.open(paths.keeper_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _take(lock, 0.0 if by_cspd else LOCK_SEC):
        log.error("keeper: %s: another keeper holds it", paths.keeper_lock)
        return 1
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile[1], nofile[1]))  # some descriptors for each agent
    wakeup = _settle_in()
    keeper = Keeper(paths, by_cspd, nofile, lock, Registry(), manager)
    keeper.find_sidecars()
    return _serve(keeper, listening_socket(paths.keeper_socket), wakeup)


def resume_keeper(paths: Paths, state_fd: int) -> int:
    """Go on in the place of the version that executed us, with its children and descriptors."""
    state = reexec.read_state(state_fd)
    keeper = _keeper_of(paths, state)
    wakeup = _settle_in()
    keeper.take_over(state)
    listener = socket.socket(fileno=state["listener"])
    reexec.take_over(state_fd, state["kept"])
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    log.info("version %s has taken over", __version__)
    return _serve(keeper, listener, wakeup)


def check_keeper(paths: Paths, state_fd: int) -> int:
    """Could we take over? Imports what keeper and sidecars need, and reads the state of the keeper that runs."""
    state = reexec.read_state(state_fd)
    _keeper_of(paths, state)
    from cspd.sidecar.warm import warm_up  # here, because the keeper's own code never needs it

    warm_up(paths)
    return 0


def _keeper_of(paths: Paths, state: Mapping[str, Any]) -> Keeper:
    registry = Registry.from_plain(state["registry"])
    nofile, manager = (state["nofile"][0], state["nofile"][1]), Service(state.get("service", ""))
    return Keeper(paths, state["by_cspd"], nofile, state["lock"], registry, manager)


def _settle_in() -> socket.socket:
    set_process_name("csp-keeper")
    become_subreaper()
    return _signals_to_socket()


def _serve(keeper: Keeper, listener: socket.socket, wakeup: socket.socket) -> int:
    with listener:
        keeper.manager.ready("holds the terminals of the agents")
        try:
            keeper.serve(listener, wakeup)
        finally:
            keeper.close()
            keeper.paths.keeper_socket.unlink(missing_ok=True)
    return 0


def _take(lock: int, patience_sec: float) -> bool:
    deadline = time.monotonic() + patience_sec
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SEC)  # nothing else is there to be done yet, and a blocking flock knows no end


def _signals_to_socket() -> socket.socket:
    """Each signal that concerns us becomes a byte, so that one loop waits for everything."""
    wakeup, wake = socket.socketpair()
    wakeup.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.detach(), warn_on_full_buffer=False)  # full: a wake-up is under way all the same
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal in which cspd was started is not ours
    return wakeup


def main() -> None:
    """`python -m cspd.keeper.main [--by-cspd | --check FD | --resume FD]`"""
    keep_inherited()
    log_here("csp-keeper", "csp-keeper: %(message)s")
    paths = Paths.from_environ(os.environ)
    match sys.argv[1:]:
        case ["--check", fd]:
            status = check_keeper(paths, int(fd))
        case ["--resume", fd]:
            status = resume_keeper(paths, int(fd))
        case words:
            status = run_keeper(paths, by_cspd="--by-cspd" in words, manager=service(os.environ))
    sys.exit(status)


if __name__ == "__main__":
    main()
