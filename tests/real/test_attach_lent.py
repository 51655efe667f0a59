"""Terminals that clients lend to the sidecar: it writes and reads there itself, but only while they are lent."""

import glob
import json
import os
import select
import signal
import socket
import tty

import pytest
from real.attached import CTRL_BRACKET, attach
from real.instance import PATIENCE_SEC, Instance, eventually

from cspd.wire.frames import FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL

pytestmark = pytest.mark.real


def writes_to(pid: int, terminal: str) -> bool:
    """Does the process hold this terminal?"""
    return terminal in {os.readlink(entry) for entry in glob.glob(f"/proc/{pid}/fd/*") if os.path.islink(entry)}


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


def test_nothing_is_written_to_a_lent_terminal_before_its_owner_has_drawn_the_picture(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    hello = {"protocol": PROTOCOL, "rows": 24, "columns": 80}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(instance.runtime / "agents" / "sh.sock"))
        socket.send_fds(sock, [frame(Kind.HELLO, json.dumps(hello).encode())], [slave])
        sock.sendall(frame(Kind.INPUT, b"echo early-$((1+1))\r"))
        instance.wait_screen("sh", "early-2")
        assert not select.select([master], [], [], 0)[0]
        sock.sendall(frame(Kind.PAINTED, b""))
        shown = b""
        while b"early-2" not in shown:
            assert select.select([master], [], [], PATIENCE_SEC)[0]
            shown += os.read(master, 65536)
    os.close(master)
    os.close(slave)


def test_a_client_that_does_not_say_which_key_detaches_reads_its_lent_terminal_itself(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    os.write(master, b"unread")
    assert select.select([slave], [], [], PATIENCE_SEC)[0]
    hello = {"protocol": PROTOCOL, "rows": 24, "columns": 80}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(instance.runtime / "agents" / "sh.sock"))
        socket.send_fds(sock, [frame(Kind.HELLO, json.dumps(hello).encode())], [slave])
        sock.sendall(frame(Kind.INPUT, b"echo shown-$((1+1))\r"))
        instance.wait_screen("sh", "shown-2")
        assert os.read(slave, 4096) == b"unread"
    os.close(master)
    os.close(slave)


def test_a_sidecar_that_was_stopped_leaves_a_terminal_alone_whose_owner_has_left_meanwhile(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    agent = instance.agent("sh")
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    hello = {"protocol": PROTOCOL, "rows": 24, "columns": 80, "detach_key": "^]"}
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(instance.runtime / "agents" / "sh.sock"))
        sock.settimeout(PATIENCE_SEC)
        socket.send_fds(sock, [frame(Kind.HELLO, json.dumps(hello).encode())], [slave])
        sock.sendall(frame(Kind.PAINTED, b""))
        os.write(master, b"echo shown-$((1+1))\r")
        shown = b""
        while b"shown-2" not in shown:
            assert select.select([master], [], [], PATIENCE_SEC)[0]
            shown += os.read(master, 65536)
        instance.wait_idle("sh")
        os.kill(agent["sidecar"]["pid"], signal.SIGSTOP)
        eventually(lambda: state(agent["sidecar"]["pid"]) == "T", "it is stopped")
        os.write(master, b"for the shell\r")
        assert select.select([slave], [], [], PATIENCE_SEC)[0]  # the order counts: first the key, then the farewell
        sock.shutdown(socket.SHUT_WR)
        os.kill(agent["sidecar"]["pid"], signal.SIGCONT)
        while sock.recv(65536):
            pass
    assert os.read(slave, 4096) == b"for the shell\r"
    assert "for the shell" not in instance.screen("sh")
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("what", ["a pipe", "a terminal on which a write blocks", "a terminal for reading"])
def test_what_cannot_be_written_to_without_waiting_is_not_borrowed(instance: Instance, what: str) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    master, slave = os.openpty()
    pipe = os.pipe()
    reading = os.open(os.ttyname(slave), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    lent = {"a pipe": pipe[1], "a terminal on which a write blocks": slave, "a terminal for reading": reading}[what]
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(instance.runtime / "agents" / "sh.sock"))
            hello = {"protocol": PROTOCOL, "rows": 24, "columns": 80}
            socket.send_fds(sock, [frame(Kind.HELLO, json.dumps(hello).encode())], [lent])
            sock.settimeout(PATIENCE_SEC)
            (kind, payload), *_ = FrameSplitter().feed(sock.recv(65536))
            assert (kind, json.loads(payload)["lent"]) == (Kind.HELLO, False)
    finally:
        for fd in (master, slave, reading, *pipe):
            os.close(fd)


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]
