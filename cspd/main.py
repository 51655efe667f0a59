"""The `cspd` command: its options, its lock, its log; then `daemon.serve`.

`cspd --keeper` is csp-keeper instead, for a service manager that runs it as a unit of its own.
"""

import argparse
import faulthandler
import fcntl
import gc
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from cspd import __version__
from cspd.configfile import load_all, load_readable
from cspd.descriptors import keep_inherited
from cspd.errors import CspError
from cspd.journal import log_here
from cspd.keeper.start import keeper_listens, start_keeper
from cspd.logtail import LogTail
from cspd.paths import Paths, check_socket_path, make_private_dir
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
    parser.add_argument("--check", action="store_true", help="read all configuration, say what is wrong, and end")
    parser.add_argument("--resume", metavar="FDS", help="go on in the place of another cspd (for `cspctl reexec`)")
    parser.add_argument("--version", action="version", version=f"cspd {__version__}")
    options = parser.parse_args()
    if options.keeper and options.no_keeper:
        parser.error("--keeper and --no-keeper: only one of them")
    try:
        paths = Paths.from_environ(os.environ)
        if options.check:
            sys.exit(_check(paths))
        keep_inherited()
        environ = dict(os.environ)  # as it was given to us, so that it is given on whole
        manager = service(os.environ)  # before anything is started that would inherit its variables
        if options.keeper:
            sys.exit(_keep(paths, manager))
        sys.exit(_supervise(paths, manager, environ, options))
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


def _check(paths: Paths) -> int:
    """What a start would import and read, without starting anything; -> exit status. Raises ConfigError."""
    from cspd.signals import let_through

    let_through()  # a cspd that asks for this holds them back
    import cspd.serve  # noqa: F401  # imported to see that it can be
    from cspd.profiles.find import broken_profiles
    from cspd.succession import PROFILES_BROKEN

    problems = broken_profiles(paths)
    for problem in problems:
        print(f"cspd: {problem}", file=sys.stderr)
    load_all(paths)
    return PROFILES_BROKEN if problems else 0


def _supervise(paths: Paths, manager: Service, environ: Mapping[str, str], options: argparse.Namespace) -> int:
    from cspd.signals import hold_back

    hold_back()
    faulthandler.enable()  # the watchdog's SIGABRT then leaves a word on where it hung
    log_here("cspd", "%(levelname).1s %(name)s: %(message)s")
    tail = LogTail()
    logging.getLogger().addHandler(tail)
    for socket in (paths.control_socket, paths.keeper_socket):
        check_socket_path(socket)  # before a keeper is started, who would complain too
    make_private_dir(paths.runtime)
    make_private_dir(paths.state)
    resumed = options.resume or str(
        _lock(paths.daemon_lock, f"instance: {paths.runtime}: runs already", "cspctl status")
    )
    # Of another instance perhaps, of which this shell does not know: two would spoil each other's history.
    hint = "end that one, or give this one an XDG_STATE_HOME of its own"
    _lock(paths.state_lock, f"state directory: {paths.state}: another cspd uses it", hint)
    loaded = load_readable(paths)
    # It gets ready while we import: the two take a quarter of a second each.
    begun = None if options.no_keeper or keeper_listens(paths) else start_keeper(paths)
    import trio

    from cspd.keeper.client import KeeperClient
    from cspd.keeper.spawn import set_process_name
    from cspd.serve import serve
    from cspd.succession import Inherited, become

    set_process_name("cspd")  # after an exec it would be that of the interpreter
    keeper = KeeperClient(paths, begun, starts_one=not options.no_keeper)
    failed: list[CspError] = []
    successor = None
    _collect_seldom()
    try:
        successor = trio.run(serve, paths, loaded, keeper, tail, manager, Inherited.from_word(resumed))
    except* CspError as group:
        failed += _leaves(group)
    for problem in failed:
        _complain(problem)
    if successor is not None:
        manager.alive()  # the new version takes a second until it says so itself
        become(successor, ["--no-keeper"] if options.no_keeper else [], manager.fds(), environ)
    return 1 if failed else 0


def _collect_seldom() -> None:
    """Nearly all that cspd makes is freed by its count. What waits in inboxes is not, and was looked through again and
    again: a sixth of its time with 100 senders.
    """
    gc.freeze()
    gc.set_threshold(10_000)


def _leaves(group: BaseExceptionGroup[CspError]) -> list[CspError]:
    out: list[CspError] = []
    for each in group.exceptions:
        out += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return out


def _lock(path: Path, taken: str, hint: str) -> int:
    """Held until the process ends, however it ends; that is the proof that one cspd lives. -> its descriptor

    Raises CspError: "already-running" with the sentence `taken` and who holds it, "storage".
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CspError("storage", f"lock: {path}: {exc.strerror}", "cspd must be able to write there") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32).decode().strip()
        raise CspError("already-running", f"{taken}, as process {pid}", hint) from None
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except OSError as exc:
        logging.getLogger("cspd").warning("%s: does not name this process: %s", path, exc.strerror)  # a full disk
    return fd


if __name__ == "__main__":
    main()
