"""A person's terminal, attached: what it shows, what is typed in it, and how the person gets it back."""

import json
import os
import signal
import termios

import pytest
from desk import CLEARED, DEADLINE_SEC, ROOM, Desk, wait_until

from cspd.wire.ansi import RESET
from cspd.wire.frames import Kind

pytestmark = pytest.mark.real


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


def test_a_key_that_was_passed_on_while_the_client_was_stopped_is_not_sent_again(desk: Desk) -> None:
    first = desk.attach()
    assert desk.client is not None
    desk.type(b"once")
    wait_until(lambda: first.typed() == b"once", first.pump)
    desk.client.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, desk.client.pid, os.WSTOPPED | os.WNOWAIT)
    first.send(Kind.TAKEN, (4).to_bytes(8, "big"))
    desk.client.send_signal(signal.SIGCONT)
    wait_until(lambda: first.closed, first.pump)
    first.conn.close()
    second = desk.accept()
    second.greet()
    desk.type(b"more")
    wait_until(lambda: second.typed().endswith(b"more"), second.pump)
    assert second.typed() == b"more"


def test_a_closed_terminal_ends_the_client(desk: Desk) -> None:
    sidecar = desk.attach()
    spare = os.open("/dev/null", os.O_RDONLY)
    os.dup2(spare, desk.master)  # the last open file of the master side: the terminal hangs up
    os.close(spare)
    assert desk.client is not None
    assert desk.client.wait(DEADLINE_SEC) in (1, 128 + signal.SIGHUP)
    wait_until(lambda: sidecar.closed, sidecar.pump)
