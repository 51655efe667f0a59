import fcntl
import os
import select
import signal
import termios
import threading
from collections.abc import Iterator

import pytest

from cspctl.terminal import Signals, Terminal
from cspd.errors import CspError
from cspd.wire.ansi import RESET

pytestmark = pytest.mark.real


class Outer:
    """A terminal as its emulator sees it: what programs write can be read, or be left to stand."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        os.set_blocking(self.master, False)
        termios.tcsetwinsize(self.slave, (6, 20))
        self.before = termios.tcgetattr(self.slave)

    def take(self) -> bytes:
        out = b""
        while True:
            try:
                out += os.read(self.master, 65536)
            except BlockingIOError:
                return out

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def outer() -> Iterator[Outer]:
    outer = Outer()
    yield outer
    os.close(outer.master)
    os.close(outer.slave)


@pytest.fixture
def no_second_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> str:
        raise OSError("no name for it here")

    monkeypatch.setattr(os, "ttyname", refuse)


def test_inside_it_is_raw_and_afterwards_as_before(outer: Outer) -> None:
    with Terminal(outer.slave, outer.slave):
        mode = termios.tcgetattr(outer.slave)
        assert not mode[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        assert not mode[1] & termios.OPOST
    assert outer.is_restored()
    assert outer.take() == b""  # nothing was shown: nothing to clean up


def test_an_exception_gives_the_terminal_back_too(outer: Outer) -> None:
    def fail_while_attached() -> None:
        with Terminal(outer.slave, outer.slave) as terminal:
            terminal.repaint(b"\x1b[?1049h\x1b[?1003hhello")
            assert terminal.write_some()
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        fail_while_attached()
    assert outer.is_restored()
    assert RESET in outer.take().partition(b"hello")[2]


def test_the_shells_own_open_file_stays_blocking(outer: Outer) -> None:
    with Terminal(outer.slave, outer.slave):
        assert not fcntl.fcntl(outer.slave, fcntl.F_GETFL) & os.O_NONBLOCK


def test_keys_come_from_standard_input_also_when_standard_output_is_another_terminal(outer: Outer) -> None:
    other = Outer()
    try:
        with Terminal(outer.slave, other.slave) as terminal:
            os.write(outer.master, b"key")
            assert select.select([terminal.read_fd], [], [], 10)[0]
            assert terminal.read() == b"key"
            assert not outer.is_restored()
            assert other.is_restored(), "nobody reads that one's keys"
            assert terminal.lendable is None
        assert outer.is_restored()
    finally:
        os.close(other.master)
        os.close(other.slave)


def test_standard_input_or_output_that_is_no_terminal_is_refused(outer: Outer) -> None:
    read, write = os.pipe()
    try:
        for stdin, stdout in ((read, outer.slave), (outer.slave, write)):
            with pytest.raises(CspError) as caught:
                Terminal(stdin, stdout)
            assert caught.value.code == "not-a-terminal"
    finally:
        os.close(read)
        os.close(write)


CLEARED = b"".join(b"\x1b[%d;1H\x1b[2K" % row for row in range(1, 7)) + b"\x1b[H"


def test_the_first_picture_pushes_the_old_screen_up_and_the_second_does_not(outer: Outer) -> None:
    with Terminal(outer.slave, outer.slave) as terminal:
        terminal.repaint(b"one")
        assert terminal.write_some()
        first = outer.take()
        assert first.endswith(RESET + b"\x1b[22;0t" + b"\n" * 6 + CLEARED + b"one")
        terminal.repaint(b"two")
        assert terminal.write_some()
        assert outer.take() == RESET + CLEARED + b"two"


def test_a_picture_after_lines_of_ours_pushes_them_up(outer: Outer) -> None:
    with Terminal(outer.slave, outer.slave) as terminal:
        terminal.repaint(b"one")
        terminal.say("[gone]")
        terminal.repaint(b"two")
        assert terminal.write_some()
        assert b"[gone]\r\n" + RESET + b"\x1b[22;0t" + b"\n" * 6 in outer.take()


def test_a_note_fits_in_one_row_and_holds_no_control_characters(outer: Outer) -> None:
    with Terminal(outer.slave, outer.slave) as terminal:
        terminal.note("a\x1b]0;bad\x07" + "x" * 50)
        assert terminal.write_some()
        assert outer.take() == b"\r\x1b[Ka?]0;bad?" + b"x" * 10


def test_a_terminal_that_takes_nothing_is_still_given_back_reset(outer: Outer) -> None:
    with Terminal(outer.slave, outer.slave) as terminal:
        terminal.repaint(b"x" * 1_000_000)
        while select.select([], [terminal.write_fd], [], 0)[1]:
            assert terminal.write_some()
        assert terminal.pending
    assert outer.is_restored()
    assert RESET in outer.take()[-len(RESET) - 20 :]


@pytest.fixture
def alarm() -> Iterator[None]:
    """A call that blocks although it must not ends as a failure."""

    def fail(number: int, frame: object) -> None:
        raise AssertionError("it blocked")

    before = signal.signal(signal.SIGALRM, fail)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_second_open", "alarm")
def test_without_an_open_file_of_our_own_writing_never_blocks(outer: Outer) -> None:
    with Terminal(outer.slave, outer.slave) as terminal:
        assert terminal.write_fd == outer.slave
        assert not fcntl.fcntl(outer.slave, fcntl.F_GETFL) & os.O_NONBLOCK
        terminal.output(b"x" * 200_000)
        while select.select([], [terminal.write_fd], [], 0)[1]:
            assert terminal.write_some()
        assert terminal.pending
        signal.setitimer(signal.ITIMER_REAL, 10)
        for _ in range(1000):
            assert terminal.write_some()  # no room: returns all the same
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert outer.is_restored()


def test_keys_typed_ahead_are_there_and_a_hang_up_reads_as_the_end(outer: Outer) -> None:
    os.write(outer.master, b"early\r")
    echo = b""
    while not echo.endswith(b"\n"):  # only then the line discipline has had it
        assert select.select([outer.master], [], [], 10)[0]
        echo += outer.take()
    with Terminal(outer.slave, outer.slave) as terminal:
        assert terminal.read() == b"early\n"
        assert terminal.read() is None
        master, outer.master = outer.master, os.open("/dev/null", os.O_RDONLY)
        os.close(master)
        assert terminal.read() == b""
        terminal.output(b"x")
        assert not terminal.write_some()


def test_late_replies_of_the_terminal_are_not_left_to_the_shell(outer: Outer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cspctl.terminal._QUIET_SEC", 0.3)  # more than a noisy machine needs
    monkeypatch.setattr("cspctl.terminal._REPLIES_SEC", 0.3)

    def reply() -> None:
        seen = b""
        while RESET not in seen and select.select([outer.master], [], [], 10)[0]:
            seen += outer.take()
        os.write(outer.master, b"\x1b[?62;c\r")  # a whole line, so that a shell could read it

    emulator = threading.Thread(target=reply)
    with Terminal(outer.slave, outer.slave) as terminal:
        terminal.repaint(b"")
        terminal.output(b"")
        assert terminal.pending
        emulator.start()
    emulator.join()
    os.set_blocking(outer.slave, False)
    with pytest.raises(BlockingIOError):
        os.read(outer.slave, 100)


def test_a_size_that_nobody_has_set_reads_as_24_by_80(outer: Outer) -> None:
    termios.tcsetwinsize(outer.slave, (0, 0))
    with Terminal(outer.slave, outer.slave) as terminal:
        assert terminal.size() == (24, 80)


def test_signals_are_bytes_while_watched_and_what_they_were_afterwards() -> None:
    before = {number: signal.getsignal(number) for number in Signals.WATCHED}
    with Signals() as signals:
        assert signals.take() == frozenset()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGWINCH)
        assert select.select([signals.fd], [], [], 10)[0]
        assert signals.take() == {signal.SIGTERM, signal.SIGWINCH}
    assert {number: signal.getsignal(number) for number in Signals.WATCHED} == before


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.take() == frozenset()
    finally:
        signal.signal(signal.SIGHUP, before)
