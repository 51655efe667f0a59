"""Terminals that clients lend to the sidecar: it writes and reads there itself, but only while they are lent."""

import contextlib
import glob
import json
import os
import select
import signal
import socket
import tty
from collections.abc import Iterator

import pytest
from real.attached import CTRL_BRACKET, attach
from real.instance import PATIENCE_SEC, Instance, eventually

from cspd.wire.frames import FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL

pytestmark = pytest.mark.real


def writes_to(pid: int, terminal: str) -> bool:
    """Does the process hold this terminal?"""
    return terminal in {os.readlink(entry) for entry in glob.glob(f"/proc/{pid}/fd/*") if os.path.islink(entry)}


@contextlib.contextmanager
def raw_terminal() -> Iterator[tuple[int, int]]:
    """-> (its master, the side that can be lent)."""
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


@contextlib.contextmanager
def lent(instance: Instance, name: str, fd: int, **further: str) -> Iterator[socket.socket]:
    """The connection of a client that offers this descriptor with its first words."""
    hello = {"protocol": PROTOCOL, "rows": 24, "columns": 80, **further}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(instance.runtime / "agents" / f"{name}.sock"))
        sock.settimeout(PATIENCE_SEC)
        socket.send_fds(sock, [frame(Kind.HELLO, json.dumps(hello).encode())], [fd])
        yield sock


def wait_readable(fd: int) -> None:
    assert select.select([fd], [], [], PATIENCE_SEC)[0]


def read_until(master: int, text: bytes) -> None:
    shown = b""
    while text not in shown:
        wait_readable(master)
        shown += os.read(master, 65536)


@pytest.fixture
def shell(instance: Instance) -> Instance:
    """One with an agent `sh`."""
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    return instance


@pytest.fixture
def flood(instance: Instance) -> str:
    """The name of an agent that prints for ever after a key."""
    instance.add("flood", "bash", "--norc", "-c", "echo ready; read -rsn1; exec yes 'a line of the flood'")
    instance.wait_screen("flood", "ready")
    return "flood"


def test_the_sidecar_writes_to_the_terminal_itself_and_not_any_more_when_the_person_leaves(
    instance: Instance, flood: str
) -> None:
    with attach(instance, flood) as outer:
        outer.until_shown("ready")
        sidecar, terminal = instance.agent(flood)["sidecar"]["pid"], outer.name
        assert writes_to(sidecar, terminal)
        outer.type("g")
        outer.until_shown("a line of the flood")
        outer.type(CTRL_BRACKET)
        assert outer.wait() == 0
        assert outer.screen().rstrip().endswith("[detached from flood]")
        assert not writes_to(sidecar, terminal)


def test_a_client_that_is_killed_leaves_nobody_who_writes_to_its_terminal(instance: Instance, flood: str) -> None:
    with attach(instance, flood) as outer:
        outer.until_shown("ready")
        sidecar, terminal = instance.agent(flood)["sidecar"]["pid"], outer.name
        outer.type("g")
        outer.until_shown("a line of the flood")
        os.kill(outer.pid, signal.SIGKILL)
        eventually(lambda: not writes_to(sidecar, terminal), "the terminal is closed")


def test_nothing_is_written_to_a_lent_terminal_before_its_owner_has_drawn_the_picture(shell: Instance) -> None:
    with raw_terminal() as (master, slave), lent(shell, "sh", slave) as sock:
        sock.sendall(frame(Kind.INPUT, b"echo early-$((1+1))\r"))
        shell.wait_screen("sh", "early-2")
        assert not select.select([master], [], [], 0)[0]
        sock.sendall(frame(Kind.PAINTED, b""))
        read_until(master, b"early-2")


def test_a_client_that_does_not_say_which_key_detaches_reads_its_lent_terminal_itself(shell: Instance) -> None:
    with raw_terminal() as (master, slave):
        os.write(master, b"unread")
        wait_readable(slave)
        with lent(shell, "sh", slave) as sock:
            sock.sendall(frame(Kind.INPUT, b"echo shown-$((1+1))\r"))
            shell.wait_screen("sh", "shown-2")
            assert os.read(slave, 4096) == b"unread"


def test_a_sidecar_that_was_stopped_leaves_a_terminal_alone_whose_owner_has_left_meanwhile(shell: Instance) -> None:
    sidecar = shell.agent("sh")["sidecar"]["pid"]
    with raw_terminal() as (master, slave):
        with lent(shell, "sh", slave, detach_key="^]") as sock:
            sock.sendall(frame(Kind.PAINTED, b""))
            os.write(master, b"echo shown-$((1+1))\r")
            read_until(master, b"shown-2")
            shell.wait_idle("sh")
            os.kill(sidecar, signal.SIGSTOP)
            eventually(lambda: state(sidecar) == "T", "it is stopped")
            os.write(master, b"for the shell\r")
            wait_readable(slave)  # the order counts: first the key, then the farewell
            sock.shutdown(socket.SHUT_WR)
            os.kill(sidecar, signal.SIGCONT)
            while sock.recv(65536):
                pass
        assert os.read(slave, 4096) == b"for the shell\r"
        assert "for the shell" not in shell.screen("sh")


@pytest.mark.parametrize("what", ["a pipe", "a terminal on which a write blocks", "a terminal for reading"])
def test_what_cannot_be_written_to_without_waiting_is_not_borrowed(shell: Instance, what: str) -> None:
    with contextlib.ExitStack() as stack, raw_terminal() as (_, slave):
        pipe = os.pipe()
        reading = os.open(os.ttyname(slave), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        for fd in (*pipe, reading):
            stack.callback(os.close, fd)
        os.set_blocking(slave, True)
        fd = {"a pipe": pipe[1], "a terminal on which a write blocks": slave, "a terminal for reading": reading}[what]
        with lent(shell, "sh", fd) as sock:
            (kind, payload), *_ = FrameSplitter().feed(sock.recv(65536))
            assert (kind, json.loads(payload)["lent"]) == (Kind.HELLO, False)


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]
