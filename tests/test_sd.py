"""What a service manager gives and is told, and log records for its journal; against stand-in sockets."""

import array
import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from cspd.journal import JournalHandler, about, encoded, log_here, stderr_is_journal
from cspd.sd import Service, service

pytestmark = pytest.mark.real


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)
        yield sock


def test_readiness_and_status_reach_the_manager(manager: socket.socket) -> None:
    Service(manager.getsockname()).ready("2 agents")
    assert manager.recv(4096) == b"READY=1\nSTATUS=2 agents"


def test_an_abstract_socket_is_found_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0csp-test-{os.getpid()}")
        Service(f"@csp-test-{os.getpid()}").tell("STOPPING=1")
        assert sock.recv(4096) == b"STOPPING=1"


def test_a_reload_says_when_it_began(manager: socket.socket) -> None:
    Service(manager.getsockname()).reloading()
    first, second = manager.recv(4096).decode().split("\n")
    assert first == "RELOADING=1"
    assert int(second.removeprefix("MONOTONIC_USEC=")) > 0


def test_an_end_that_takes_long_asks_for_the_time(manager: socket.socket) -> None:
    Service(manager.getsockname()).stopping(12.5)
    assert manager.recv(4096) == b"STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000"


def test_without_a_manager_or_with_one_that_has_gone_nothing_happens(tmp_path: Path) -> None:
    Service().ready("x")
    Service(str(tmp_path / "nobody")).ready("x")
    assert service({}) == Service()


def test_what_is_meant_for_this_process_is_taken_and_children_do_not_see_it() -> None:
    environ = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert service(environ) == Service("/run/n", 30.0)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("given", [{"WATCHDOG_PID": "1"}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}])
def test_what_is_meant_for_another_process_is_not_taken(given: dict[str, str]) -> None:
    found = service({"WATCHDOG_USEC": "30000000", **given} if "WATCHDOG_PID" in given else dict(given))
    assert found == Service()


def test_sockets_are_found_by_their_names_and_are_not_inherited_further() -> None:
    """In a process of its own, where the descriptors 3 and 4 are free."""
    program = """
import os, socket, sys
made = [socket.socket(socket.AF_UNIX) for _ in range(2)]
for fd, (sock, name) in enumerate(zip(made, sys.argv[1:]), 3):
    sock.bind(name)
    os.dup2(sock.detach(), fd)
from cspd.sd import service
found = service({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "cspd:gateway"})
print({name: (sock.getsockname(), sock.get_inheritable()) for name, (sock,) in found.sockets.items()})
"""
    names = [f"\\0csp{os.getpid()}{word}" for word in "ab"]
    program = program.replace("sock.bind(name)", "sock.bind(name.replace(chr(92) + '0', chr(0)))")
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=60)
    expected = {name: (f"\0csp{os.getpid()}{word}".encode(), False) for name, word in (("cspd", "a"), ("gateway", "b"))}
    assert done.stdout.strip() == str(expected), done.stderr


async def test_the_loop_feeds_the_watchdog_at_half_its_interval(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            scope.cancel()
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(trio, "sleep", sleep)
    with trio.CancelScope() as scope:
        await Service(manager.getsockname(), watchdog_sec=30.0).feed_watchdog()
    assert slept == [15.0, 15.0, 15.0]
    assert [manager.recv(4096) for _ in slept] == [b"WATCHDOG=1"] * 3


async def test_without_a_watchdog_nothing_is_fed() -> None:
    await Service("/nowhere").feed_watchdog()


# ---------------------------------------------------------------------- the journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[tuple[socket.socket, logging.Logger]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "journal"))
        sock.settimeout(30)
        log = logging.Logger("csp.test")
        log.addHandler(JournalHandler("cspd", {"room": "lobby"}, str(tmp_path / "journal")))
        yield sock, log


def test_a_record_carries_what_it_is_about(journal: tuple[socket.socket, logging.Logger]) -> None:
    sock, log = journal
    log.warning("%s: hello", "claude", extra=about(agent="claude", message_id="ab12"))
    fields = sock.recv(65536).decode().splitlines()
    for expected in ("MESSAGE=claude: hello", "PRIORITY=4", "SYSLOG_IDENTIFIER=cspd", "AGENT=claude", "ROOM=lobby"):
        assert expected in fields
    assert "MESSAGE_ID=ab12" in fields


def test_the_journal_gets_the_bare_message_and_stderr_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    facts = os.fstat(2)
    try:
        log_here("cspd", "%(levelname).1s %(name)s: %(message)s")
        logging.getLogger("csp.test").info("hello")
        monkeypatch.setenv("JOURNAL_STREAM", f"{facts.st_dev}:{facts.st_ino}")
        log_here("csp-sidecar", "%(name)s: %(message)s", agent="claude")
        handler = root.handlers[0]
        assert isinstance(handler, JournalHandler)
        entry = handler.entry(logging.LogRecord("csp.test", logging.INFO, "", 1, "hello", (), None))
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert capsys.readouterr().err == "I csp.test: hello\n"
    assert (entry["MESSAGE"], entry["AGENT"]) == ("hello", "claude")


def test_a_newline_cannot_forge_a_field() -> None:
    text = "one\nAGENT=forged"
    assert encoded({"MESSAGE": text}) == b"MESSAGE\n" + struct.pack("<Q", len(text)) + text.encode() + b"\n"


def test_a_record_too_big_for_a_datagram_goes_as_a_file(journal: tuple[socket.socket, logging.Logger]) -> None:
    sock, log = journal
    log.error("y" * 5_000_000)
    _, ancillary, *_ = sock.recvmsg(10, socket.CMSG_SPACE(4))
    fd = array.array("i", ancillary[0][2])[0]
    with open(fd, "rb") as file:
        file.seek(0)
        assert len(file.read()) > 5_000_000


def test_the_journal_is_meant_only_while_stderr_is_what_it_names() -> None:
    facts = os.fstat(2)
    assert stderr_is_journal({"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"})
    assert not stderr_is_journal({"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino + 1}"})
    assert not stderr_is_journal({})
