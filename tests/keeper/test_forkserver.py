"""A forkserver without a keeper's loop around it: what comes from a fork, and that a sidecar given up does nothing."""

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from real.instance import eventually

from cspd.keeper import forkserver
from cspd.keeper.sidecars import ForkServer
from cspd.keeper.spawn import become_subreaper

pytestmark = pytest.mark.real


@pytest.fixture
def server() -> Iterator[ForkServer]:
    become_subreaper()
    with selectors.DefaultSelector() as selector:
        made = ForkServer(selector)
        yield made
        made.close()
    while True:  # it, and its sidecars
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def reaped(pid: int) -> bool:
    """It says its pid a moment before its parent's end makes it our child."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def test_what_it_forks_is_our_child_and_has_the_lifeline(server: ForkServer) -> None:
    server.prepare()
    assert server.ready
    ours, theirs = socket.socketpair()
    null = os.open("/dev/null", os.O_RDWR)
    with ours, theirs:
        fds = {"master": null, "pidfd": null, "listener": null, "lifeline": theirs.fileno()}
        pid = server.fork({"name": "broken"}, fds, ours)  # no more is said of it: it ends with a traceback
        assert Path(f"/proc/{pid}/comm").read_text() == "csp-sidecar\n"
        assert eventually(lambda: reaped(pid), "it is our child, and has ended")
    os.close(null)


def test_one_that_was_killed_says_so(server: ForkServer) -> None:
    server.prepare()
    assert server._pidfd is not None
    signal.pidfd_send_signal(server._pidfd, signal.SIGKILL)
    ours, theirs = socket.socketpair()
    fds = dict.fromkeys(("master", "pidfd", "listener", "lifeline"), theirs.fileno())
    with ours, theirs, pytest.raises(ConnectionError):
        server.fork({}, fds, ours)


def test_it_ends_quietly_with_a_keeper_that_ends_before_it_is_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    for name, stand_in in (
        ("warm_up", lambda _: None),
        ("set_process_name", lambda _: None),
        ("log_here", lambda *_: None),
    ):
        monkeypatch.setattr(forkserver, name, stand_in)
    monkeypatch.setattr("sys.argv", ["forkserver", str(theirs.detach())])
    forkserver.main()


def test_a_sidecar_that_the_keeper_has_given_up_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forkserver, "run_sidecar", lambda *_: pytest.fail("it began"))
    monkeypatch.setattr(forkserver, "set_process_title", lambda _title: None)  # of the process that tests
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        assert forkserver._begin({"name": "a"}, {"lifeline": theirs.fileno()}) == 1
