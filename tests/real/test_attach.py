"""Attach through `cspctl attach` on a real terminal, and on the socket where bytes and memory are counted."""

import base64
import glob
import hashlib
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import sys
import termios
import time
import tty

import pytest
from real.instance import PATIENCE_SEC, Instance, eventually
from real.outer import Outer
from real.person import press

from cspd.wire.frames import FrameSplitter, Kind, frame
from cspd.wire.version import PROTOCOL

pytestmark = pytest.mark.real

CTRL_BRACKET = "\x1d"


def attach(instance: Instance, name: str, *options: str, columns: int = 80, rows: int = 24) -> Outer:
    return Outer([sys.executable, "-m", "cspctl", "attach", name, *options], instance.env, columns, rows)


class RawClient:
    """A client on the attach socket itself."""

    def __init__(
        self, instance: Instance, name: str, read_only: bool = False, rows: int = 24, columns: int = 80
    ) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(instance.runtime / "agents" / f"{name}.sock"))
        hello = {"protocol": PROTOCOL, "rows": rows, "columns": columns, "read_only": read_only}
        self.sock.sendall(frame(Kind.HELLO, json.dumps(hello).encode()))
        self.frames = FrameSplitter()
        self.got: list[tuple[Kind, bytes]] = []

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def type(self, data: bytes) -> None:
        self.sock.sendall(frame(Kind.INPUT, data))

    def read(self) -> bool:
        """What is there, at least one piece; False at the end of the connection."""
        ready, _, _ = select.select([self.sock], [], [], PATIENCE_SEC)
        assert ready, f"nothing came; so far {[(kind.name, len(data)) for kind, data in self.got][-5:]}"
        data = self.sock.recv(1 << 18)
        self.got += self.frames.feed(data)
        return bool(data)

    def until(self, kind: Kind) -> bytes:
        while not any(got is kind for got, _ in self.got):
            assert self.read(), f"closed before {kind.name}"
        return next(data for got, data in self.got if got is kind)

    def output(self) -> bytes:
        return b"".join(data for kind, data in self.got if kind is Kind.OUTPUT)


def test_a_shell_is_typed_into_left_and_found_again_with_the_same_screen(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        outer.type("printf '\\033[1;31mred\\033[m %s\\n' $((40+2))\r")
        outer.until_shown("red 42")
        outer.type(CTRL_BRACKET)
        assert outer.wait() == 0
        assert "[detached from sh]" in outer.screen()
        assert outer.flags() == outer.before, "the terminal is as it was"
    with attach(instance, "sh") as outer:
        outer.until_shown("red 42")
        assert b"\x1b[0;1;38;5;1mred" in outer.output or b"\x1b[1;31mred" in outer.output or b"31" in outer.output
        outer.type("exit 3\r")
        outer.until(lambda: "exited with status 3" in outer.screen(), "the exit status is shown")


def test_a_python_prompt_keeps_its_state_between_two_attachments(instance: Instance) -> None:
    instance.add("py", sys.executable, "-i", "-q")
    instance.wait_idle("py")
    with attach(instance, "py") as outer:
        outer.until_shown(">>>")
        outer.type("x = 6 * 7\r")
        outer.type("'answer', x\r")
        outer.until_shown("('answer', 42)")
        outer.type("\x1b[93;5u")  # the detach key of the kitty keyboard protocol
        assert outer.wait() == 0
    with attach(instance, "py") as outer:
        outer.until_shown("('answer', 42)")
        outer.type("x + 1\r")
        outer.until_shown("43")


@pytest.mark.skipif(shutil.which("vim") is None, reason="vim is not installed")
def test_vim_on_the_alternate_screen_comes_back_whole(instance: Instance) -> None:
    instance.add("vi", "vim", "-u", "NONE", "-i", "NONE", "-n")
    with attach(instance, "vi") as outer:
        outer.until_shown("~")
        outer.type("ifirst line\rsecond line\x1b")
        outer.until_shown("second line")
        screen, cursor = outer.screen(), outer.terminal.cursor
        outer.type(CTRL_BRACKET)
        assert outer.wait() == 0
        assert not outer.terminal.alternate, "the person's own screen is back"
    with attach(instance, "vi") as outer:
        outer.until(lambda: outer.screen() == screen, "the same screen")
        assert outer.terminal.alternate
        outer.until(lambda: outer.terminal.cursor == cursor, "the same cursor")
        outer.type(":q!\r")
        outer.wait()


def test_the_scrollback_goes_into_the_history_of_the_outer_terminal(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        outer.type("seq -f 'line-%g' 300; echo end\r")
        outer.until_shown("end")
        outer.type(CTRL_BRACKET)
        outer.wait()
    with attach(instance, "sh") as outer:
        outer.until_shown("end")
        history = outer.terminal.history_lines()
        assert [f"line-{n}" for n in range(1, 301)] == [line for line in history if line.startswith("line-")]


RAW_READER = """
import hashlib, os, sys, tty
tty.setraw(0)
os.write(1, b"ready")
want, got, size = int(sys.argv[1]), hashlib.sha256(), 0
while size < want:
    data = os.read(0, min(65536, want - size))
    got.update(data); size += len(data)
os.write(1, b"sum " + got.hexdigest().encode() + b" end")
os.read(0, 1)
"""


@pytest.mark.parametrize("size", [4096, 1 << 20])
def test_every_byte_value_reaches_the_program_untouched(instance: Instance, size: int) -> None:
    data = (bytes(range(256)) * (size // 256))[:size]
    instance.add("raw", sys.executable, "-c", RAW_READER, str(size))
    with attach(instance, "raw") as outer:
        outer.until_shown("ready")
        outer.type(data)
        outer.until_shown(f"sum {hashlib.sha256(data).hexdigest()} end")


WRITER = """
import base64, os, random, sys, tty
tty.setraw(0)
os.write(1, b"ready")
os.read(0, 1)
block = base64.encodebytes(random.Random(7).randbytes(1 << 20))[: 1 << 20]
for _ in range(int(sys.argv[1])):
    rest = memoryview(block)
    while rest:
        rest = rest[os.write(1, rest):]
os.read(0, 1)
"""


def test_64_megabytes_of_output_arrive_byte_exact_at_two_clients(instance: Instance) -> None:
    block = base64.encodebytes(random.Random(7).randbytes(1 << 20))[: 1 << 20]
    expected = hashlib.sha256(b"ready" + block * 64).hexdigest()
    instance.add("w", sys.executable, "-c", WRITER, "64", options=("--restart", "no"))
    instance.wait_screen("w", "ready")
    with RawClient(instance, "w") as a, RawClient(instance, "w", read_only=True) as b:
        for client in (a, b):
            client.until(Kind.REPAINT)
        a.type(b"g")
        sums = {client: (hashlib.sha256(b"ready"), [0]) for client in (a, b)}
        while any(size[0] < 64 << 20 for _, size in sums.values()):
            for client in (a, b):
                if select.select([client.sock], [], [], 0.05)[0]:
                    client.got.clear()
                    assert client.read()
                    sums[client][0].update(client.output())
                    sums[client][1][0] += len(client.output())
                    assert all(kind is Kind.OUTPUT for kind, _ in client.got), "neither client falls behind"
        assert [digest.hexdigest() for digest, _ in sums.values()] == [expected, expected]


def test_a_client_that_stops_reading_blocks_nobody_costs_little_and_is_painted_anew(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with RawClient(instance, "sh") as stuck, RawClient(instance, "sh") as reader:
        for client in (stuck, reader):
            client.until(Kind.REPAINT)
        before = memory_kb(instance.agent("sh")["sidecar"]["pid"])
        reader.type(b"head -c 30000000 /dev/zero | tr '\\0' x; echo; echo all-$((1+1))-done\r")
        size = 0
        tail = b""
        while b"all-2-done" not in tail:
            reader.got.clear()
            assert reader.read()
            size += len(reader.output())
            tail = (tail + reader.output())[-200:]
        assert size >= 30_000_000, "the one that reads gets every byte"
        assert memory_kb(instance.agent("sh")["sidecar"]["pid"]) - before < 40_000
        stuck.got.clear()
        stuck.until(Kind.REPAINT)
        assert b"all-2-done" in stuck.until(Kind.REPAINT)
        assert sum(len(data) for _, data in stuck.got) < 4_000_000, "what it missed was not kept for it"
        stuck.type(b"echo back-$((2+2))\r")
        while b"back-4" not in stuck.output():
            stuck.read()


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


def test_of_two_terminals_the_one_that_is_not_read_is_painted_anew_and_the_other_misses_nothing(
    instance: Instance,
) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as stuck, attach(instance, "sh") as reader:
        stuck.until_shown("$")
        reader.until_shown("$")
        reader.output.clear()
        reader.type("seq -f 'line-%.0f' 400000; echo all-$((1+1))-done\r")
        reader.until_shown("all-2-done")
        assert re.findall(rb"line-(\d+)\r\n", reader.output) == [b"%d" % n for n in range(1, 400001)]
        stuck.output.clear()
        stuck.until_shown("all-2-done")
        assert len(stuck.output) < 3_000_000, "what it missed was not kept for it"
        stuck.type("echo back-$((2+2))\r")
        stuck.until_shown("back-4")


ASK = r"printf '\e[6n'; IFS='[;' read -rs -d R _ row column; echo answer-$row-$column-"


def test_a_program_that_asks_gets_its_answer_also_while_the_leading_terminal_is_not_read(instance: Instance) -> None:
    asks = f"read -rsn1; clear; {ASK}; read -rsn1; seq 400000; {ASK}; read -rsn1; clear; {ASK}; read"
    instance.add("asks", "bash", "--norc", "-c", f"echo ready; {asks}")
    instance.wait_screen("asks", "ready")
    with attach(instance, "asks") as leader:
        leader.until_shown("ready")
        leader.type("g")
        leader.until_shown("answer-1-1-")
        leader.output.clear()
        leader.type("g")  # and is not read any more
        instance.wait_screen("asks", "answer-24-1-")
        leader.until_shown("answer-24-1-")
        assert b"\x1b[6n" not in leader.output, "a picture does not ask"
        leader.type("g")
        leader.until_shown("answer-1-1-")
        assert b"\x1b[6n" in leader.output


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


def memory_kb(pid: int) -> int:
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:"))


def test_the_window_has_the_size_of_the_client_that_typed_last(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh", columns=100, rows=30) as wide:
        wide.until_shown("$")
        with attach(instance, "sh", columns=60, rows=20) as small:
            small.until_shown("$")
            wide.type("stty size\r")
            wide.until_shown("30 100")
            small.type("stty size\r")
            small.until_shown("20 60")
            small.resize(70, 22)
            small.type("stty size\r")
            small.until_shown("22 70")


def test_a_read_only_client_sees_everything_and_types_nothing(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh", "--read-only") as watcher, attach(instance, "sh") as typist:
        watcher.until_shown("$")
        watcher.type("echo never-$((1+1))\r")
        typist.until_shown("$")
        typist.type("echo typed-$((1+1))\r")
        watcher.until_shown("typed-2")
        assert "never" not in instance.screen("sh")
        watcher.type(CTRL_BRACKET)
        assert watcher.wait() == 0


def test_an_attached_terminal_shows_how_the_agent_ended_and_is_there_when_it_is_back(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc", options=("--restart", "always", "--restart-sec", "0"))
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        old = instance.agent("sh")["pid"]
        outer.type("kill -9 $$\r")
        outer.until_shown("killed by SIGKILL")
        new = eventually(lambda: (a := instance.agent("sh"))["pid"] not in (None, old) and a["pid"], "restarted")
        assert new != old
        outer.until_shown("$")
        outer.type("echo pid-$$\r")
        outer.until_shown(f"pid-{new}")
        outer.type(CTRL_BRACKET)
        assert outer.wait() == 0


def test_a_terminal_is_put_back_when_its_client_is_terminated(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        outer.type("printf '\\033[?1049h\\033[?1002h\\033[?2004h'; echo on\r")
        outer.until(lambda: outer.terminal.alternate, "the alternate screen")
        assert not outer.flags() & termios.ICANON
        os.kill(outer.pid, signal.SIGTERM)
        outer.wait()
        assert outer.flags() == outer.before
        assert not outer.terminal.alternate
        assert not any(outer.terminal.mode(mode) for mode in (1002, 2004))


def test_nonsense_on_the_attach_socket_costs_only_its_own_connection(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc")
    instance.wait_idle("sh")
    path = str(instance.runtime / "agents" / "sh.sock")
    sidecar = instance.agent("sh")["sidecar"]["pid"]
    for nonsense in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\xff\xff\xff\xff",
        frame(Kind.HELLO, b"not json"),
        frame(Kind.HELLO, b"[" * 100_000),
        b"\x0b\0\0\0\0",
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(nonsense)
            sock.settimeout(PATIENCE_SEC)
            while sock.recv(65536):
                pass
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(frame(Kind.HELLO, json.dumps({"protocol": 99999999, "rows": 0, "columns": 5}).encode()))
        sock.settimeout(PATIENCE_SEC)
        (kind, payload), *_ = FrameSplitter().feed(sock.recv(65536))
        assert kind is Kind.REFUSED
        assert "window size" in json.loads(payload)["message"]
    with attach(instance, "sh") as outer:
        outer.until_shown("$")
        assert instance.agent("sh")["sidecar"]["pid"] == sidecar, "it is still the same one"


def test_attaching_to_what_is_not_there_says_so(instance: Instance) -> None:
    instance.add("sh", "bash", "--norc", options=("--no-start",))
    for name, status, word in (("sh", 3, "cspctl start sh"), ("shh", 4, "did you mean 'sh'?")):
        with attach(instance, name) as outer:
            began = time.monotonic()
            assert outer.wait() == status
            assert word in outer.screen()
            assert time.monotonic() - began < PATIENCE_SEC


def test_two_agents_may_not_show_each_other(instance: Instance) -> None:
    for name in ("a", "b"):
        instance.add(name, "bash", "--norc")
        instance.wait_idle(name)
    attach = f"{sys.executable} -m cspctl attach"
    instance.call("chat.message", to="a", content=f"{attach} b")
    eventually(lambda: instance.agent("b")["attached"] == 1, "b is shown in a")
    press(instance.runtime / "agents" / "b.sock", f"{attach} a\r".encode(), rows=40, columns=120)
    shown = instance.wait_screen("b", "it would show itself for ever")
    assert "this is the terminal of b, which is shown in a" in " ".join(shown.split())
    assert instance.agent("a")["attached"] == 0
