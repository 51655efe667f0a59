"""The master of a real PTY: reading to the last byte, writing without blocking or mixing, sizes and line discipline."""

import os
import pty as stdlib_pty
import subprocess
import sys
import tty
from collections.abc import Iterator

import attrs
import pytest
import trio
import trio.testing

from cspd.sidecar.pty import WRITE_HIGH, Writer, get_size, line_discipline, read_available, set_size
from cspd.sidecar.pump import Pump

pytestmark = pytest.mark.real


@attrs.define
class Pty:
    """`slave` is -1 once it is closed."""

    master: int
    slave: int

    def hang_up(self) -> None:
        os.close(self.slave)
        self.slave = -1


@pytest.fixture
def ends() -> Iterator[Pty]:
    """A PTY whose slave is raw, so that bytes go through as they are."""
    master, slave = stdlib_pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    both = Pty(master, slave)
    yield both
    for fd in (both.master, both.slave):
        if fd >= 0:
            os.close(fd)


async def read_all(slave: int, size: int) -> bytes:
    """`size` bytes as the program would read them."""
    out = b""
    while len(out) < size:
        await trio.lowlevel.wait_readable(slave)
        out += os.read(slave, 65536)
    return out


def test_nothing_to_read_is_no_hang_up(ends: Pty) -> None:
    assert read_available(ends.master) == (b"", False)


def test_everything_that_was_said_before_the_hang_up_is_read(ends: Pty) -> None:
    os.write(ends.slave, b"last words")
    ends.hang_up()
    data, hung_up = read_available(ends.master)
    if not hung_up:
        more, hung_up = read_available(ends.master)
        data += more
    assert (data, hung_up) == (b"last words", True)
    assert read_available(ends.master) == (b"", True)


def test_one_look_takes_many_small_reads(ends: Pty) -> None:
    for _ in range(20):
        os.write(ends.slave, b"x" * 100)
    assert read_available(ends.master) == (b"x" * 2000, False)


async def test_a_keystroke_goes_through_without_any_task(ends: Pty) -> None:
    Writer(ends.master, Pump()).write(b"k")
    with trio.fail_after(5):
        assert await read_all(ends.slave, 1) == b"k"


async def test_input_for_a_program_that_does_not_read_waits_and_stays_in_order(ends: Pty) -> None:
    writer = Writer(ends.master, Pump())
    pieces = [bytes([65 + number % 26]) * 3000 for number in range(60)]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.pump.run)
            for piece in pieces:
                writer.write(piece)
            writer.write(b"")
            await trio.testing.wait_all_tasks_blocked()
            assert await read_all(ends.slave, 180_000) == b"".join(pieces)
            nursery.cancel_scope.cancel()


async def test_input_that_comes_just_when_the_last_of_it_has_gone_is_not_forgotten(ends: Pty) -> None:
    more = [b"y" * 100_000]

    def write_more() -> None:
        if more and not writer.queued:
            writer.write(more.pop())

    writer = Writer(ends.master, Pump(write_more))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.pump.run)
            writer.write(b"x" * 100_000)
            assert await read_all(ends.slave, 200_000) == b"x" * 100_000 + b"y" * 100_000
            nursery.cancel_scope.cancel()


async def test_all_who_wait_for_room_go_on_when_there_is_some(ends: Pty) -> None:
    writer = Writer(ends.master, Pump())
    writer.write(b"x" * (WRITE_HIGH + 100_000))
    went_on: list[int] = []

    async def wait(number: int) -> None:
        await writer.wait_room()
        went_on.append(number)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as waiters:
                for number in range(3):
                    waiters.start_soon(wait, number)
                await trio.testing.wait_all_tasks_blocked()
                assert went_on == []
                nursery.start_soon(writer.pump.run)
                nursery.start_soon(read_all, ends.slave, WRITE_HIGH + 100_000)
            assert sorted(went_on) == [0, 1, 2]
            nursery.cancel_scope.cancel()


async def test_nobody_waits_while_there_is_room(ends: Pty) -> None:
    writer = Writer(ends.master, Pump())
    writer.write(b"x" * 1000)
    with trio.fail_after(5):
        await writer.wait_room()


async def test_input_for_a_program_that_is_gone_is_dropped(ends: Pty) -> None:
    writer = Writer(ends.master, Pump())
    writer.write(b"x" * 500_000)
    ends.hang_up()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.pump.run)
            await writer.wait_room()
            await trio.testing.wait_all_tasks_blocked(0.05)  # never comes when a task runs in circles
            nursery.cancel_scope.cancel()


def test_the_window_size_is_what_was_set(ends: Pty) -> None:
    set_size(ends.master, 33, 101)
    assert get_size(ends.master) == (33, 101)
    assert os.get_terminal_size(ends.slave) == (101, 33)


PROGRAM = """
import os, sys
os.login_tty(int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
os.system("stty raw -echo")
print("raw", flush=True)
os.read(0, 1)
"""


def read_until(master: int, word: bytes) -> None:
    seen = b""
    while word not in seen:
        seen += os.read(master, 1000)


def test_the_state_of_the_slave_is_seen_through_the_master() -> None:
    master, slave = stdlib_pty.openpty()
    argv = [sys.executable, "-c", PROGRAM, str(slave)]
    with subprocess.Popen(argv, pass_fds=[slave]) as child:
        os.close(slave)
        try:
            read_until(master, b"ready")
            cooked = line_discipline(master, child.pid)
            assert (cooked.canonical, cooked.echo, cooked.foreground) == (True, True, True)
            assert not line_discipline(master, child.pid + 1).foreground
            os.write(master, b"\n")
            read_until(master, b"raw")
            raw = line_discipline(master, child.pid)
            assert (raw.canonical, raw.echo) == (False, False)
            os.write(master, b"q")
            child.wait(10)
            with pytest.raises(OSError, match="Input/output error"):
                read_until(master, b"what it never says")
        finally:
            child.kill()
            os.close(master)
