import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cspd.wire.ansi import RESET
from cspd.wire.frames import FrameSplitter, Kind, frame

pytestmark = pytest.mark.real

DEADLINE_SEC = 20.0

KEEP_TITLE, TITLE_BACK = b"\x1b[22;0t", b"\x1b[23;0t"
CLEARED = b"".join(b"\x1b[%d;1H\x1b[2K" % row for row in range(1, 11)) + b"\x1b[H"
ROOM = RESET + KEEP_TITLE + b"\n" * 10 + CLEARED  # the old screen goes into the terminal's history

# A cspctl that asks a file instead of cspd. Its terminal is its controlling terminal, as in a shell.
PROGRAM = """
import fcntl, json, os, pathlib, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from cspctl.attach import attach
from cspctl.fate import standing
from cspd.errors import CspError
directory, options = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
def why_down():
    text = (directory / "agent.json").read_text()
    return standing(json.loads(text)) if text else None
try:
    status = attach("claude", directory / "claude.sock", why_down=why_down, **options)
except CspError as exc:
    print(f"{exc.code}: {exc.sentence}", file=sys.stderr)
    status = exc.exit_status
sys.exit(status)
"""


def wait_until(true: Callable[[], bool], *pumps: Callable[[float], object]) -> None:
    """Pump until the fact is seen; each pump waits a little for its own file."""
    deadline = time.monotonic() + DEADLINE_SEC
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        for pump in pumps:
            pump(0.01)


class Sidecar:
    """One accepted connection, played by the test."""

    def __init__(self, conn: socket.socket) -> None:
        self.conn = conn
        self.conn.setblocking(False)
        self.splitter = FrameSplitter()
        self.frames: list[tuple[Kind, bytes]] = []
        self.closed = False

    def pump(self, wait_sec: float) -> None:
        if self.closed or not select.select([self.conn], [], [], wait_sec)[0]:
            return
        try:
            data = self.conn.recv(1 << 18)
        except ConnectionResetError:
            data = b""
        self.closed = not data
        self.frames += self.splitter.feed(data)

    def expect(self, kind: Kind) -> bytes:
        """The payload of the next frame, which is of this kind."""
        wait_until(lambda: bool(self.frames), self.pump)
        found, payload = self.frames.pop(0)
        assert found is kind, (found, payload[:200])
        return payload

    def typed(self) -> bytes:
        return b"".join(payload for kind, payload in self.frames if kind is Kind.INPUT)

    def send(self, kind: Kind, payload: bytes | dict[str, Any]) -> None:
        data = frame(kind, payload if isinstance(payload, bytes) else json.dumps(payload).encode())
        self.conn.settimeout(DEADLINE_SEC)
        self.conn.sendall(data)
        self.conn.setblocking(False)

    def borrow(self, screen: bytes = b"SCREEN", kept: bytes = b"") -> int:
        """Greet, and paint; -> the terminal that came with HELLO. `kept`: input from before that it gets first."""
        assert select.select([self.conn], [], [], DEADLINE_SEC)[0]
        data, (terminal,), _, _ = socket.recv_fds(self.conn, 1 << 16, 1)
        assert [kind for kind, _ in self.splitter.feed(data)] == [Kind.HELLO]
        self.send(Kind.HELLO, {"protocol": 1, "agent": "claude", "incarnation": 1, "pid": 1, "lent": True})
        self.send(Kind.REPAINT, screen)
        assert not kept or self.expect(Kind.INPUT) == kept
        self.expect(Kind.PAINTED)
        return int(terminal)

    def greet(self, incarnation: int = 1, screen: bytes = b"SCREEN") -> dict[str, Any]:
        hello: dict[str, Any] = json.loads(self.expect(Kind.HELLO))
        self.send(Kind.HELLO, {"protocol": 1, "agent": "claude", "incarnation": incarnation, "pid": 1})
        self.send(Kind.REPAINT, screen)
        return hello


class Desk:
    """A person at a terminal, an attach client in it, and the socket that it connects to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        termios.tcsetwinsize(self.slave, (10, 60))
        self.before = termios.tcgetattr(self.slave)
        self.shown = bytearray()
        self.says(state="running")
        self.listener: socket.socket | None = None
        self.client: subprocess.Popen[bytes] | None = None
        self.open_sockets: list[socket.socket] = []

    def says(self, **agent: Any) -> None:
        """What cspd says of the agent from now on; nothing = cspd is away."""
        new = self.directory / "agent.new"
        new.write_text(json.dumps(agent) if agent else "")
        new.rename(self.directory / "agent.json")

    def listen(self) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.directory / "claude.sock"))
        self.listener.listen(8)
        self.listener.settimeout(DEADLINE_SEC)
        self.open_sockets.append(self.listener)

    def start(self, *, read_only: bool = False, detach_key: str = "^]") -> None:
        options = json.dumps({"read_only": read_only, "detach_key": detach_key})
        self.client = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.directory), options],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )

    def accept(self) -> Sidecar:
        assert self.listener is not None
        conn, _ = self.listener.accept()
        self.open_sockets.append(conn)
        return Sidecar(conn)

    def attach(self, **options: Any) -> Sidecar:
        """Attached, the first picture seen."""
        self.listen()
        self.start(**options)
        sidecar = self.accept()
        sidecar.greet()
        self.wait_shown(b"SCREEN")
        return sidecar

    def pump(self, wait_sec: float) -> None:
        if select.select([self.master], [], [], wait_sec)[0]:
            self.shown += os.read(self.master, 1 << 16)

    def wait_shown(self, text: bytes) -> None:
        wait_until(lambda: text in self.shown, self.pump)

    def type(self, data: bytes, *pumps: Callable[[float], object]) -> None:
        while data:
            try:
                data = data[os.write(self.master, data) :]
            except BlockingIOError:
                for pump in pumps:
                    pump(0.01)

    def wait_status(self) -> int:
        assert self.client is not None
        client = self.client
        wait_until(lambda: client.poll() is not None, self.pump)
        while select.select([self.master], [], [], 0)[0]:
            self.pump(0)
        assert termios.tcgetattr(self.slave) == self.before
        return client.returncode

    def close(self) -> None:
        if self.client is not None:
            self.client.kill()
            self.client.wait()
        for one in self.open_sockets:
            one.close()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def test_the_first_frame_says_protocol_size_and_terminal(desk: Desk) -> None:
    desk.listen()
    desk.start()
    hello = desk.accept().greet()
    assert hello["protocol"] == 1
    assert (hello["rows"], hello["columns"]) == (10, 60)
    assert hello["read_only"] is False
    assert hello["scrollback"] is True
    desk.wait_shown(ROOM + b"SCREEN")


def test_every_byte_goes_untouched_both_ways(desk: Desk) -> None:
    sidecar = desk.attach()
    everything = bytes(range(256))
    sidecar.send(Kind.OUTPUT, everything)
    desk.wait_shown(everything)
    desk.type(everything)
    wait_until(lambda: len(sidecar.typed()) >= 256, sidecar.pump)
    assert sidecar.typed() == everything


def test_a_paste_of_a_megabyte_with_the_key_in_it_arrives_whole(desk: Desk) -> None:
    sidecar = desk.attach()
    text = b"".join(b"%07d\x1d" % number for number in range(1 << 17))
    paste = b"\x1b[200~" + text + b"\x1b[201~"
    desk.type(paste, sidecar.pump)
    wait_until(lambda: sum(len(payload) for _, payload in sidecar.frames) >= len(paste), sidecar.pump)
    assert sidecar.typed() == paste


@pytest.mark.parametrize("key", [b"\x1d", b"\x1b[93;5u", b"\x1b[93:125;69:1u", b"\x1b[27;5;93~"])
def test_the_detach_key_gives_the_terminal_back_and_ends_with_0(desk: Desk, key: bytes) -> None:
    sidecar = desk.attach()
    sidecar.send(Kind.OUTPUT, b"\x1b[?1049h\x1b[?1003h\x1b[>1uBUSY")
    desk.wait_shown(b"BUSY")
    desk.type(key)
    assert desk.wait_status() == 0
    tail = desk.shown.partition(b"BUSY")[2]
    assert tail.startswith(RESET)
    assert tail.endswith(b"[detached from claude]\r\n")
    wait_until(lambda: sidecar.closed, sidecar.pump)
    assert sidecar.typed() == b""


def test_another_detach_key_leaves_the_usual_one_to_the_program(desk: Desk) -> None:
    sidecar = desk.attach(detach_key="^Q")
    desk.type(b"\x1d")
    assert sidecar.expect(Kind.INPUT) == b"\x1d"
    desk.type(b"\x11")
    assert desk.wait_status() == 0


def test_read_only_sends_nothing_that_is_typed_but_heeds_the_key(desk: Desk) -> None:
    sidecar = desk.attach(read_only=True)
    desk.type(b"rm -rf /\r")
    sidecar.send(Kind.OUTPUT, b"MORE")
    desk.wait_shown(b"MORE")
    desk.type(b"\x1d")
    # a chunk of its own is the condition; should both have been read at once, the person presses again
    wait_until(lambda: bool(desk.client and desk.client.poll() is not None), lambda _: desk.type(b"\x1d"), desk.pump)
    assert desk.wait_status() == 0
    wait_until(lambda: sidecar.closed, sidecar.pump)
    assert sidecar.frames == []


def test_a_new_size_of_the_terminal_is_told(desk: Desk) -> None:
    sidecar = desk.attach()
    termios.tcsetwinsize(desk.slave, (30, 100))
    assert json.loads(sidecar.expect(Kind.RESIZE)) == {"rows": 30, "columns": 100}


def test_a_second_picture_does_not_push_the_screen_up_again(desk: Desk) -> None:
    sidecar = desk.attach()
    sidecar.send(Kind.REPAINT, b"AGAIN")
    desk.wait_shown(b"AGAIN")
    assert desk.shown.endswith(RESET + CLEARED + b"AGAIN")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_gives_the_terminal_back(desk: Desk, number: signal.Signals) -> None:
    desk.attach()
    assert desk.client is not None
    desk.client.send_signal(number)
    assert desk.wait_status() == 128 + number
    tail = desk.shown.partition(b"SCREEN")[2]
    assert tail.startswith(RESET)
    assert b"[detached from claude: %s]" % number.name.encode() in tail


@pytest.fixture
def lent(desk: Desk) -> Iterator[tuple[Sidecar, int]]:
    """A sidecar that has borrowed the terminal, and that terminal."""
    desk.listen()
    desk.start()
    sidecar = desk.accept()
    terminal = sidecar.borrow()
    yield sidecar, terminal
    os.close(terminal)


def test_a_lent_terminal_does_not_block_and_shows_what_the_sidecar_writes(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    _, terminal = lent
    assert not os.get_blocking(terminal)
    assert os.get_blocking(desk.slave), "the shell's own open file is as it was"
    os.write(terminal, b"WRITTEN")
    desk.wait_shown(ROOM + b"SCREENWRITTEN")


def test_each_picture_on_a_lent_terminal_is_confirmed_when_it_is_drawn(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    sidecar, terminal = lent
    for number in range(3):
        sidecar.send(Kind.REPAINT, b"PICTURE %d" % number)
        sidecar.expect(Kind.PAINTED)
        os.write(terminal, b" and on")
        desk.wait_shown(b"PICTURE %d and on" % number)


def test_the_terminal_is_ours_again_only_when_the_sidecar_has_stopped_writing(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, terminal = lent
    sidecar.send(Kind.DETACH, b"")
    wait_until(lambda: sidecar.closed, sidecar.pump)  # its half, by which it asks for the terminal
    os.write(terminal, b"LATE")
    sidecar.conn.close()
    assert desk.wait_status() == 0
    assert b"LATE" + RESET in desk.shown
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_the_keys_of_a_lent_terminal_are_the_sidecars_to_read(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    sidecar, terminal = lent
    desk.type(b"keys")
    assert select.select([terminal], [], [], DEADLINE_SEC)[0]
    assert os.read(terminal, 100) == b"keys"
    sidecar.conn.close()
    second = desk.accept()
    second.greet()
    desk.type(b"more")
    assert second.expect(Kind.INPUT) == b"more", "of one that does not borrow it they are ours again"


def test_the_detach_key_works_while_a_lent_terminal_does_not_take_its_picture(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, terminal = lent
    sidecar.send(Kind.REPAINT, b"PICTURE" * 100_000)
    wait_until(lambda: not select.select([], [terminal], [], 0)[1])  # nobody reads what it shows
    sidecar.send(Kind.DETACH, b"")
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    assert desk.wait_status() == 0
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_a_sidecar_that_hangs_does_not_keep_the_terminal(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    desk.type(b"\x1d")
    assert desk.wait_status() == 0
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_keys_that_the_sidecar_does_not_read_go_by_the_socket_then(desk: Desk, lent: tuple[Sidecar, int]) -> None:
    sidecar, _ = lent
    desk.type(b"keys")
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    second = desk.accept()
    second.greet()
    assert second.expect(Kind.INPUT) == b"keys"


def test_keys_typed_before_the_person_is_told_to_wait_are_kept_for_the_same_incarnation(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, _ = lent
    desk.type(b"kept")
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    second = desk.accept()
    desk.wait_shown(b"does not answer")
    second.greet()
    assert second.expect(Kind.INPUT) == b"kept"
    desk.type(b"more")
    assert second.expect(Kind.INPUT) == b"more"


def test_a_client_that_is_stopped_takes_its_terminal_back_and_is_painted_anew(
    desk: Desk, lent: tuple[Sidecar, int]
) -> None:
    sidecar, _ = lent
    assert desk.client is not None
    desk.client.send_signal(signal.SIGTSTP)
    wait_until(lambda: sidecar.closed, sidecar.pump)
    sidecar.conn.close()
    assert os.WIFSTOPPED(os.waitpid(desk.client.pid, os.WUNTRACED)[1])
    desk.client.send_signal(signal.SIGCONT)
    desk.accept().greet(screen=b"AGAIN")
    desk.wait_shown(b"AGAIN")


def test_what_was_taken_of_the_input_is_known_although_the_terminal_was_taken_back(
    desk: Desk,
) -> None:
    first = desk.attach()
    desk.type(b"taken")
    assert first.expect(Kind.INPUT) == b"taken"
    first.conn.close()
    second = desk.accept()
    os.close(second.borrow(kept=b"taken"))
    assert desk.client is not None
    desk.client.send_signal(signal.SIGCONT)
    wait_until(lambda: second.closed, second.pump)
    second.send(Kind.TAKEN, (5).to_bytes(8, "big"))
    second.conn.close()
    third = desk.accept()
    third.greet()
    desk.type(b"new")
    assert third.expect(Kind.INPUT) == b"new"


def fill(sidecar: Sidecar, limit: int) -> int:
    """Send output until nobody takes any more; the number of bytes taken."""
    data = frame(Kind.OUTPUT, b"y" * 4091)
    taken = 0
    while taken < limit and select.select([], [sidecar.conn], [], 0.2)[1]:
        try:
            taken += sidecar.conn.send(data)
        except BlockingIOError:
            break
    return taken


def test_behind_a_stuck_terminal_little_is_held_input_flows_and_the_key_works(desk: Desk) -> None:
    sidecar = desk.attach()
    taken = fill(sidecar, 4 << 20)
    desk.type(b"hello")
    assert sidecar.expect(Kind.INPUT) == b"hello"
    taken += fill(sidecar, 4 << 20)
    assert taken < 2 << 20
    desk.type(b"\x1d")
    client = desk.client
    assert client is not None
    wait_until(lambda: client.poll() is not None, lambda _: None)  # nobody reads the terminal even now
    assert desk.wait_status() == 0
    assert desk.shown.find(RESET, desk.shown.find(b"SCREEN")) > 0
    assert desk.shown.endswith(b"[detached from claude]\r\n")


def test_a_sidecar_that_reads_nothing_does_not_make_us_hold_all_that_is_typed(desk: Desk) -> None:
    sidecar = desk.attach()
    typed = 0
    chunk = b"z" * 4000
    while typed < 8 << 20 and select.select([], [desk.master], [], 0.5)[1]:
        try:
            typed += os.write(desk.master, chunk)
        except BlockingIOError:
            break
    assert typed < 2 << 20
    wait_until(lambda: sum(len(payload) for _, payload in sidecar.frames) >= typed, sidecar.pump)
    assert sidecar.typed() == b"z" * typed


def type_until_stuck(desk: Desk) -> bytes:
    """Numbers, until nobody takes any more: a sidecar that does not read has got half a frame."""
    typed = b""
    while len(typed) < 8 << 20 and select.select([], [desk.master], [], 0.3)[1]:
        chunk = b"".join(b"%08d" % number for number in range(len(typed) // 8, len(typed) // 8 + 64))
        try:
            typed += chunk[: os.write(desk.master, chunk)]
        except BlockingIOError:
            break
    return typed


def test_a_frame_that_a_crash_cut_in_half_is_sent_whole_to_the_next_sidecar(desk: Desk) -> None:
    first = desk.attach()
    typed = type_until_stuck(desk)
    first.conn.close()
    second = desk.accept()
    second.greet()
    wait_until(lambda: second.typed().endswith(typed[-8:]), second.pump)
    assert typed.endswith(second.typed())  # no hole, nothing twice
    assert len(second.typed()) > 100_000


def test_keys_that_an_ended_agent_did_not_take_are_not_for_the_next(desk: Desk) -> None:
    first = desk.attach()
    desk.type(b"z" * 300_000, lambda _: None)  # more than the socket holds, less than we would
    first.send(Kind.EXIT, {"status": {"code": 1}})
    desk.wait_shown(b"exited with status 1")
    second = desk.accept()
    wait_until(lambda: bool(second.frames), second.pump)
    second.greet(incarnation=2, screen=b"REBORN")
    desk.wait_shown(b"REBORN")
    desk.type(b"fresh")
    wait_until(lambda: second.typed().endswith(b"fresh"), second.pump)
    assert len(second.typed()) < 70_000  # at most what the kernel's terminal still held


def test_a_crashed_sidecar_is_replaced_in_silence_and_keys_wait_for_the_next(desk: Desk) -> None:
    first = desk.attach()
    first.conn.close()
    second = desk.accept()
    desk.type(b"kept")
    hello = second.greet(screen=b"BACK")
    assert hello["scrollback"] is False
    assert second.expect(Kind.INPUT) == b"kept"
    desk.wait_shown(b"BACK")
    assert b"claude" not in desk.shown
    assert desk.shown.endswith(RESET + CLEARED + b"BACK")


def test_input_that_no_sidecar_has_passed_on_is_sent_again_to_the_same_incarnation_only(desk: Desk) -> None:
    first = desk.attach()
    desk.type(b"taken")
    wait_until(lambda: first.typed() == b"taken", first.pump)
    first.send(Kind.TAKEN, (5).to_bytes(8, "big"))
    desk.type(b"lost")
    wait_until(lambda: first.typed() == b"takenlost", first.pump)
    first.conn.close()
    second = desk.accept()
    second.greet()
    assert second.expect(Kind.INPUT) == b"lost"
    second.conn.close()
    third = desk.accept()
    third.greet(incarnation=2)
    desk.type(b"new")
    assert third.expect(Kind.INPUT) == b"new"


def test_an_agent_that_restarts_is_awaited_and_painted_anew(desk: Desk) -> None:
    first = desk.attach()
    desk.says(state="backoff", reason="restarting in 2 s")
    first.send(Kind.OUTPUT, b"LAST WORDS")
    first.send(Kind.EXIT, {"status": {"code": 1}})
    desk.wait_shown(b"[claude: restarting in 2 s ... press ^] to leave]")
    assert b"LAST WORDS" + RESET + TITLE_BACK + b"\r\n\r\x1b[K[claude exited with status 1]\r\n" in desk.shown
    desk.type(b"for nobody")
    second = desk.accept()
    hello = second.greet(incarnation=2, screen=b"REBORN")
    assert hello["scrollback"] is False  # the terminal has all that was to be seen in its own history
    desk.wait_shown(ROOM + b"REBORN")
    desk.type(b"hi")
    wait_until(lambda: b"hi" in second.typed(), second.pump)
    second.send(Kind.OUTPUT, b"MORE")
    desk.wait_shown(b"MORE")


@pytest.mark.parametrize("key", [b"\x1d", b"\x03"])
def test_the_person_may_leave_while_waiting(desk: Desk, key: bytes) -> None:
    sidecar = desk.attach()
    desk.says(state="backoff", reason="restarting in 60 s")
    sidecar.send(Kind.EXIT, {"status": {"signal": 9}})
    desk.wait_shown(b"[claude was killed by SIGKILL]")
    desk.wait_shown(b"to leave]")
    desk.type(key)
    assert desk.wait_status() == 0
    assert desk.shown.endswith(b"\r\x1b[K[detached from claude]\r\n")


@pytest.mark.parametrize(
    ("agent", "status", "expected", "line"),
    [
        (
            {"state": "inactive", "reason": "exited with status 0"},
            {"code": 0},
            0,
            b"[claude exited with status 0]\r\n",
        ),
        ({"state": "inactive", "reason": "stopped"}, {"signal": 15}, 0, b"[claude: inactive: stopped]\r\n"),
        (
            {"state": "failed", "reason": "start limit hit"},
            {"code": 3},
            1,
            b"[claude: failed: start limit hit]\r\n",
        ),
        ({"state": "failed", "reason": ""}, {}, 1, b"[claude: failed]\r\n"),
    ],
)
def test_an_agent_that_is_gone_for_good_ends_the_attach(
    desk: Desk, agent: dict[str, str], status: dict[str, int], expected: int, line: bytes
) -> None:
    sidecar = desk.attach()
    desk.says(**agent)
    sidecar.send(Kind.EXIT, {"status": status})
    assert desk.wait_status() == expected
    assert desk.shown.endswith(line)


def test_cspd_that_learns_of_the_end_only_later_is_asked_again(desk: Desk) -> None:
    sidecar = desk.attach()
    desk.says(state="running", reason="old news")
    sidecar.send(Kind.EXIT, {"status": {"code": 0}})
    desk.wait_shown(b"old news")
    desk.says(state="inactive", reason="exited with status 0")
    assert desk.wait_status() == 0


def test_the_sidecar_of_the_ended_incarnation_is_not_taken_for_the_next(desk: Desk) -> None:
    first = desk.attach()
    first.send(Kind.EXIT, {"status": {"code": 1}})
    leaving = desk.accept()
    leaving.send(Kind.HELLO, {"protocol": 1, "agent": "claude", "incarnation": 1, "pid": 1})
    wait_until(lambda: leaving.closed, leaving.pump)
    desk.accept().greet(incarnation=2, screen=b"REBORN")
    desk.wait_shown(b"REBORN")
    assert desk.shown.count(b"exited") == 1


def test_an_agent_that_does_not_run_is_refused_with_its_reason(desk: Desk) -> None:
    desk.says(state="inactive", reason="never started")
    desk.start()
    assert desk.wait_status() == 3
    assert desk.shown == b"not-active: agent: claude: inactive: never started\r\n"


def test_a_backlog_that_nobody_serves_does_not_hide_that_the_agent_does_not_run(desk: Desk) -> None:
    desk.listen()
    desk.says(state="failed", reason="no such program")
    desk.start()
    assert desk.wait_status() == 3
    assert b"failed: no such program" in desk.shown


def test_without_socket_and_without_cspd_it_says_so_at_once(desk: Desk) -> None:
    desk.says()
    desk.start()
    assert desk.wait_status() == 5
    assert desk.shown.startswith(b"unreachable: ")


def test_an_agent_about_to_start_is_awaited(desk: Desk) -> None:
    desk.says(state="backoff", reason="restarting in 2 s")
    desk.start()
    desk.wait_shown(b"[claude: restarting in 2 s ... press ^] to leave]")
    desk.listen()
    desk.accept().greet(screen=b"HERE")
    desk.wait_shown(b"HERE")


def test_a_refusal_of_the_sidecar_is_shown(desk: Desk) -> None:
    desk.listen()
    desk.start()
    sidecar = desk.accept()
    sidecar.send(Kind.REFUSED, {"code": -32000, "message": "attach: 9: too many", "data": {"code": "too-many"}})
    assert desk.wait_status() == 1
    assert desk.shown == b"too-many: attach: 9: too many\r\n"


def test_a_peer_that_speaks_something_else_is_an_error_not_a_traceback(desk: Desk) -> None:
    desk.listen()
    desk.start()
    desk.accept().conn.sendall(b"HTTP/1.1 400 Bad Request\r\n")
    assert desk.wait_status() == 1
    assert desk.shown.startswith(b"protocol: ")


def test_a_directory_that_others_can_write_to_is_not_trusted(desk: Desk) -> None:
    desk.listen()
    desk.directory.chmod(0o777)
    desk.start()
    assert desk.wait_status() == 1
    assert desk.shown.startswith(b"not-private: ")


def test_after_a_stop_and_a_continue_the_whole_picture_comes_again(desk: Desk) -> None:
    first = desk.attach()
    assert desk.client is not None
    desk.client.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, desk.client.pid, os.WSTOPPED | os.WNOWAIT)
    termios.tcsetattr(desk.slave, termios.TCSANOW, desk.before)  # as a shell does
    desk.client.send_signal(signal.SIGCONT)
    desk.accept().greet(screen=b"AGAIN")
    wait_until(lambda: first.closed, first.pump)
    desk.wait_shown(b"AGAIN")
    assert not termios.tcgetattr(desk.slave)[3] & termios.ICANON


def test_a_closed_terminal_ends_the_client(desk: Desk) -> None:
    sidecar = desk.attach()
    spare = os.open("/dev/null", os.O_RDONLY)
    os.dup2(spare, desk.master)  # the last open file of the master side: the terminal hangs up
    os.close(spare)
    assert desk.client is not None
    assert desk.client.wait(DEADLINE_SEC) in (1, 128 + signal.SIGHUP)
    wait_until(lambda: sidecar.closed, sidecar.pump)
