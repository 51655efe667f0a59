"""The `cspd` command: its options, its lock, its log; then `daemon.serve`.

`cspd --keeper` is csp-keeper instead, for a service manager that runs it as a unit of its own.
"""

import argparse
import faulthandler
import fcntl
import logging
import os
import sys

from cspd import __version__
from cspd.errors import CspError
from cspd.journal import log_here
from cspd.paths import Paths, make_private_dir
from cspd.sd import Service, service

EPILOG = """\
cspd runs in the foreground and logs to stderr, or to systemd's journal. SIGHUP reads the configuration again. SIGTERM
and Ctrl-C end it, and the agents with it, unless csp-keeper runs as a service of its own. Killed by SIGKILL, it leaves
the agents running; started again, it finds them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="cspd",
        description="The CSP daemon: supervises agents and carries their messages.",
        epilog=EPILOG,
    )
    parser.add_argument("--keeper", action="store_true", help="be csp-keeper (for service managers)")
    parser.add_argument("--no-keeper", action="store_true", help="start no csp-keeper: wait for the service")
    parser.add_argument("--version", action="version", version=f"cspd {__version__}")
    options = parser.parse_args()
    if options.keeper and options.no_keeper:
        parser.error("--keeper and --no-keeper: only one of them")
    try:
        manager = service(os.environ)  # before anything is started that would inherit its variables
        paths = Paths.from_environ(os.environ)
        sys.exit(_keep(paths, manager) if options.keeper else _supervise(paths, manager, not options.no_keeper))
    except CspError as exc:
        _complain(exc)
        sys.exit(exc.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)


def _complain(problem: CspError) -> None:
    for line in problem.data.get("problems") or [problem.sentence]:
        print(f"cspd: {line}", file=sys.stderr)
    if problem.hint:
        print(f"hint: {problem.hint}", file=sys.stderr)


def _keep(paths: Paths, manager: Service) -> int:
    from cspd.keeper.main import run_keeper

    log_here("csp-keeper", "csp-keeper: %(message)s")
    return run_keeper(paths, by_cspd=False, manager=manager)


def _supervise(paths: Paths, manager: Service, own_keeper: bool) -> int:
    import trio

    from cspd.daemon import serve
    from cspd.logtail import LogTail

    faulthandler.enable()  # the watchdog's SIGABRT then leaves a word on where it hung
    log_here("cspd", "%(levelname).1s %(name)s: %(message)s")
    tail = LogTail()
    logging.getLogger().addHandler(tail)
    make_private_dir(paths.runtime)
    make_private_dir(paths.state)
    _lock(paths)
    failed: list[CspError] = []
    try:
        trio.run(serve, paths, tail, manager, own_keeper)
    except* CspError as group:
        failed += _leaves(group)
    for problem in failed:
        _complain(problem)
    return 1 if failed else 0


def _leaves(group: BaseExceptionGroup[CspError]) -> list[CspError]:
    out: list[CspError] = []
    for each in group.exceptions:
        out += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return out


def _lock(paths: Paths) -> None:
    """Held until the process ends, however it ends; that is the proof that one cspd lives."""
    fd = os.open(paths.daemon_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode().strip()
        raise CspError(
            "already-running", f"instance: {paths.runtime}: runs already, as process {pid}", "cspctl status"
        ) from None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())


if __name__ == "__main__":
    main()
