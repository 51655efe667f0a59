"""The pump: descriptors are served at once and in their owners' name, and trio's other tasks are not forgotten."""

import os
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from cspd.sidecar.pump import Pump

pytestmark = pytest.mark.real


@attrs.define
class Pair:
    """`ours` is what the pump serves."""

    ours: socket.socket
    theirs: socket.socket
    got: bytes = b""

    def take(self) -> bool:
        data = self.ours.recv(65536)
        self.got += data
        return bool(data)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield Pair(ours, theirs)


async def until(done: object) -> None:
    with trio.fail_after(30):
        while not done():  # type: ignore[operator]
            await trio.lowlevel.checkpoint()


async def test_a_handler_is_called_until_it_has_enough(pair: Pair) -> None:
    pump = Pump()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            pair.theirs.send(b"one")
            async with trio.open_nursery() as reading:
                reading.start_soon(pump.while_readable, pair.ours.fileno(), pair.take)
                await until(lambda: pair.got == b"one")
                pair.theirs.send(b" two")
                await until(lambda: pair.got == b"one two")
                pair.theirs.close()
            nursery.cancel_scope.cancel()


async def test_what_nobody_serves_wakes_nobody(pair: Pair) -> None:
    rests: list[int] = []
    pump = Pump(lambda: rests.append(1))
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            pair.theirs.send(b"x")
            await pump.while_readable(pair.ours.fileno(), lambda: False)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(rests) == 1
            await pump.while_readable(pair.ours.fileno(), lambda: not pair.take())
            assert pair.got == b"x"
            nursery.cancel_scope.cancel()


async def test_one_descriptor_may_be_read_and_written(pair: Pair) -> None:
    pump, written = Pump(), 0

    def write() -> bool:
        nonlocal written
        try:
            written += pair.ours.send(b"y" * 65536)
        except BlockingIOError:
            return True
        return written < 1_000_000

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(pump.while_readable, pair.ours.fileno(), pair.take)
            pump.while_writable(pair.ours.fileno(), write)
            received = 0
            while received < 1_000_000:
                await trio.lowlevel.wait_readable(pair.theirs)
                received += len(pair.theirs.recv(65536))
                pair.theirs.send(b".")
            await until(lambda: set(pair.got) == {ord(".")})
            nursery.cancel_scope.cancel()


async def test_room_to_write_is_used_while_there_is_always_something_to_read(pair: Pair) -> None:
    pump, written, (read_end, write_end) = Pump(), list[int](), os.pipe()
    os.write(write_end, b"x")  # never read

    def write() -> bool:
        written.append(turns)
        return len(written) < 3

    turns = 0

    def read() -> bool:
        if not written:
            pump.while_writable(pair.ours.fileno(), write)
        return len(written) < 3

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(count_turns)
            await pump.while_readable(read_end, read)
            nursery.cancel_scope.cancel()
    assert len(set(written)) == 1  # all in one turn of the pump: no task had to begin it
    os.close(read_end)
    os.close(write_end)


async def test_a_turn_ends_as_soon_as_a_task_has_something_to_do(pair: Pair) -> None:
    rounds, rested_after = 0, list[int]()
    pump = Pump(lambda: rested_after.append(rounds))
    pair.theirs.send(b"x")

    def read() -> bool:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            pump.let_tasks_run()
        return not rested_after

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            await pump.while_readable(pair.ours.fileno(), read)
            nursery.cancel_scope.cancel()
    assert rested_after[0] == 3


async def test_what_is_to_be_written_no_more_is_not_asked_for(pair: Pair) -> None:
    pump = Pump()

    def write() -> bool:
        raise AssertionError("its owner has closed it")

    pump.while_writable(pair.ours.fileno(), write)
    pump.write_no_more(pair.ours.fileno())
    pump.write_no_more(pair.ours.fileno())
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            pair.theirs.send(b"x")
            await pump.while_readable(pair.ours.fileno(), lambda: not pair.take())
            nursery.cancel_scope.cancel()


def test_what_the_kernel_refuses_is_not_taken_for_served(tmp_path: Path) -> None:
    """A plain file stands for a kernel without memory: neither can be waited for."""
    pump = Pump()
    with open(tmp_path / "file", "w") as file:
        for _ in range(2):
            with pytest.raises(PermissionError):
                pump.while_writable(file.fileno(), lambda: False)
        pump.write_no_more(file.fileno())
    pump.close()


async def test_a_mistake_in_a_handler_is_its_owners_and_nobody_elses(pair: Pair) -> None:
    pump, other = Pump(), Pair(*socket.socketpair())

    def fail() -> bool:
        raise ValueError("not a frame")

    with other.ours, other.theirs, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(pump.while_readable, other.ours.fileno(), other.take)
            pair.theirs.send(b"x")
            with pytest.raises(ValueError, match="not a frame"):
                await pump.while_readable(pair.ours.fileno(), fail)
            other.theirs.send(b"still here")
            await until(lambda: other.got == b"still here")
            nursery.cancel_scope.cancel()


async def test_a_descriptor_whose_task_is_cancelled_is_served_no_more(pair: Pair) -> None:
    pump = Pump()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            async with trio.open_nursery() as reading:
                reading.start_soon(pump.while_readable, pair.ours.fileno(), pair.take)
                await trio.testing.wait_all_tasks_blocked()
                reading.cancel_scope.cancel()
            pair.theirs.send(b"x")
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert pair.got == b""
            nursery.cancel_scope.cancel()


async def test_other_tasks_have_their_turn_while_there_is_always_something_to_do() -> None:
    pump, (read_end, write_end) = Pump(), os.pipe()
    os.write(write_end, b"x")  # never read: there is always something
    turns = 0
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.run)
            nursery.start_soon(pump.while_readable, read_end, lambda: True)
            while turns < 10:
                await trio.sleep(0.001)
                turns += 1
            nursery.cancel_scope.cancel()
    os.close(read_end)
    os.close(write_end)


async def test_what_decides_about_the_others_is_heard_before_them(pair: Pair) -> None:
    came, pump = list[str](), Pump()
    ours, theirs = socket.socketpair()

    def hear(who: str) -> bool:
        came.append(who)
        return False

    with ours, theirs, trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump.while_readable, pair.ours.fileno(), partial(hear, "other"))
            nursery.start_soon(partial(pump.while_readable, ours.fileno(), partial(hear, "first"), first=True))
            await trio.testing.wait_all_tasks_blocked()
            pair.theirs.send(b"x")
            theirs.send(b"x")
            nursery.start_soon(pump.run)
            await until(lambda: len(came) == 2)
            nursery.cancel_scope.cancel()
    assert came == ["first", "other"]
