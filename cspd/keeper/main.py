"""csp-keeper: the process that must not die. Blocking Python: no trio loop, no thread, no emulator of its own.

Takes the lock, warms up what sidecars need, and runs `serve`. Started by cspd, or as a service of its own.
"""

import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import sys
import time

from cspd.journal import log_here
from cspd.keeper.registry import Registry
from cspd.keeper.serve import Keeper
from cspd.keeper.spawn import become_subreaper, set_process_name
from cspd.paths import Paths, make_private_dir
from cspd.sd import Service, service
from cspd.transport import listening_socket

log = logging.getLogger("csp-keeper")

LOCK_SEC = 5.0  # a service waits so long for a keeper that is just ending, or that a cspd out of service has started
LOOK_SEC = 0.05


def run_keeper(paths: Paths, *, by_cspd: bool, manager: Service) -> int:
    """Serve until told to end. Returns an exit status: 1 when another keeper holds the lock."""
    set_process_name("csp-keeper")
    make_private_dir(paths.runtime)
    make_private_dir(paths.agents_dir)
    lock = os.open(paths.keeper_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _take(lock, 0.0 if by_cspd else LOCK_SEC):
        log.error("keeper: %s: another keeper holds it", paths.keeper_lock)
        return 1
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile[1], nofile[1]))  # some descriptors for each agent
    become_subreaper()
    _warm_up()
    wakeup = _signals_to_socket()
    keeper = Keeper(paths, by_cspd, nofile, Registry(awaited=_living_sidecars(paths)), manager.stopping)
    with listening_socket(paths.keeper_socket) as listener:
        manager.ready("holds the terminals of the agents")
        try:
            keeper.serve(listener, wakeup)
        finally:
            keeper.close()
            paths.keeper_socket.unlink(missing_ok=True)
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


def _warm_up() -> None:
    """Import what a sidecar needs, once: a forked one then starts in milliseconds and shares these pages."""
    import cspd.sidecar.main  # noqa: F401  # imported for its effect

    gc.collect()
    gc.freeze()  # the collector would otherwise write into shared pages


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


def _living_sidecars(paths: Paths) -> set[str]:
    """Agents whose attach socket still has a listener: their keeper was killed, their sidecar holds the terminal.

    What nobody listens on is left over from a crash of everything, and is removed.
    """
    living = set()
    for path in paths.agents_dir.glob("*.sock"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                living.add(path.stem)
            except OSError:
                pass  # nobody listens
    for path in paths.agents_dir.iterdir():
        if path.name.split(".")[0] not in living:
            path.unlink(missing_ok=True)
    return living


def main() -> None:
    """`python -m cspd.keeper.main [--by-cspd]`"""
    log_here("csp-keeper", "csp-keeper: %(message)s")
    manager = service(os.environ)
    sys.exit(run_keeper(Paths.from_environ(os.environ), by_cspd="--by-cspd" in sys.argv[1:], manager=manager))


if __name__ == "__main__":
    main()
