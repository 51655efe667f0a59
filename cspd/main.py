"""The `cspd` command: its options, its lock, its log; then `daemon.serve`.

`cspd --keeper` is csp-keeper instead, for a service manager that runs it as a unit of its own.
"""

import argparse
import fcntl
import logging
import os
import sys

from cspd import __version__
from cspd.errors import CspError
from cspd.paths import Paths, make_private_dir

EPILOG = """\
cspd runs in the foreground and logs to stderr. SIGHUP reads the configuration again. SIGTERM and Ctrl-C end it, and the
agents with it, unless csp-keeper runs as a service of its own. Killed by SIGKILL, it leaves the agents running; started
again, it finds them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="cspd",
        description="The CSP daemon: supervises agents and carries their messages.",
        epilog=EPILOG,
    )
    parser.add_argument("--keeper", action="store_true", help="be csp-keeper (for service managers)")
    parser.add_argument("--check", action="store_true", help="read all configuration, say what is wrong, and end")
    parser.add_argument("--resume", metavar="FDS", help="go on in the place of another cspd (for `cspctl reexec`)")
    parser.add_argument("--version", action="version", version=f"cspd {__version__}")
    options = parser.parse_args()
    paths = Paths.from_environ(os.environ)
    try:
        if options.check:
            sys.exit(_check(paths))
        sys.exit(_keep(paths) if options.keeper else _supervise(paths, options.resume))
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


def _keep(paths: Paths) -> int:
    from cspd.keeper.main import run_keeper

    logging.basicConfig(stream=sys.stderr, format="csp-keeper: %(message)s", level=logging.INFO)
    return run_keeper(paths, by_cspd=False)


def _check(paths: Paths) -> int:
    """What a start would import and read, without starting anything. Raises ConfigError."""
    import cspd.daemon  # noqa: F401  # imported to see that it can be
    from cspd.configfile import load_all

    load_all(paths)
    return 0


def _supervise(paths: Paths, resume: str | None) -> int:
    import trio

    from cspd.daemon import LogTail, serve
    from cspd.succession import Inherited, become

    environ = dict(os.environ)  # as it was given to us, so that it is given on whole
    logging.basicConfig(stream=sys.stderr, format="%(levelname).1s %(name)s: %(message)s", level=logging.INFO)
    tail = LogTail()
    tail.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(tail)
    make_private_dir(paths.runtime)
    make_private_dir(paths.state)
    inherited = Inherited.from_word(resume) if resume else None
    lock = inherited.lock if inherited else _lock(paths)
    failed: list[CspError] = []
    listener = None
    try:
        listener = trio.run(serve, paths, tail, inherited.listener if inherited else None)
    except* CspError as group:
        failed += _leaves(group)
    for problem in failed:
        _complain(problem)
    if listener is not None:
        become(Inherited(lock, listener), environ)
    return 1 if failed else 0


def _leaves(group: BaseExceptionGroup[CspError]) -> list[CspError]:
    out: list[CspError] = []
    for each in group.exceptions:
        out += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return out


def _lock(paths: Paths) -> int:
    """Held until the process ends, however it ends; that is the proof that one cspd lives. -> its descriptor"""
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
    return fd


if __name__ == "__main__":
    main()
