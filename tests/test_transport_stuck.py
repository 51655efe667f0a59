"""Peers that take nothing are let go, and no line is ever mixed with another or read as the rest of it."""

from contextlib import aclosing

import pytest
import trio
import trio.testing
from answering import Handler, lines_of

from cspd.errors import CspError
from cspd.transport import SEND_SEC, RpcPeer
from cspd.wire import rpc
from cspd.wire.frames import Oversize


@pytest.mark.virtual_time
async def test_a_peer_that_takes_nothing_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    left, _stuck = trio.testing.lockstep_stream_pair()
    lines = lines_of(left)
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError):
        await lines.send(b"hello\n")
    assert trio.current_time() - started == SEND_SEC
    with pytest.raises(trio.ClosedResourceError):
        await lines.send(b"again\n")


@pytest.mark.virtual_time
async def test_a_line_that_was_cut_short_ends_the_stream(autojump_clock: trio.testing.MockClock) -> None:
    """The next one would be read as the rest of it."""
    left, right = trio.testing.lockstep_stream_pair()
    lines = lines_of(left)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(right.receive_some, 3)
        with trio.move_on_after(1):
            await lines.send(b"a long line\n")
    with pytest.raises(trio.ClosedResourceError):
        await lines.send(b"another\n")


@pytest.mark.virtual_time
async def test_a_line_that_was_not_begun_leaves_the_stream_usable(autojump_clock: trio.testing.MockClock) -> None:
    left, right = trio.testing.memory_stream_pair()
    lines = lines_of(left)
    with trio.CancelScope() as scope:
        scope.cancel()
        await lines.send(b"never\n")
    await lines.send(b"whole\n")
    assert await right.receive_some() == b"whole\n"


@pytest.mark.virtual_time
async def test_a_line_given_up_while_another_was_sent_leaves_the_stream_usable() -> None:
    left, right = trio.testing.memory_stream_pair()
    lines = lines_of(left)
    async with trio.open_nursery() as nursery:
        await lines._lock.acquire()
        nursery.start_soon(lines.send, b"never\n")
        await trio.testing.wait_all_tasks_blocked()
        lines._lock.release()  # it is its turn now, and in the same moment too late
        nursery.cancel_scope.cancel()
    await lines.send(b"whole\n")
    assert await right.receive_some() == b"whole\n"


@pytest.mark.virtual_time
async def test_a_peer_that_takes_nothing_ends_its_own_connection_only(autojump_clock: trio.testing.MockClock) -> None:
    left, right = trio.testing.lockstep_stream_pair()
    ended = trio.Event()

    refusals: list[BaseException] = []

    async def serve() -> None:
        try:
            await RpcPeer(lines_of(right), "x").serve(Handler())
        except* CspError as group:
            refusals.append(group)
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await left.send_all(rpc.request("echo", {}, 1))
        with trio.fail_after(2 * SEND_SEC):
            await ended.wait()
    assert len(refusals) == 1


@pytest.mark.virtual_time
async def test_lines_of_several_tasks_are_not_mixed() -> None:
    left, right = trio.testing.lockstep_stream_pair()
    ours, theirs = lines_of(left), lines_of(right)
    heard: list[bytes | Oversize] = []
    async with trio.open_nursery() as nursery:
        for letter in b"abcd":
            nursery.start_soon(ours.send, bytes([letter]) * 100_000 + b"\n")
        with trio.fail_after(10):
            async with aclosing(theirs.lines()) as incoming:
                while len(heard) < 4:
                    heard.append(await anext(incoming))
    assert sorted(map(bytes, heard)) == [bytes([letter]) * 100_000 for letter in b"abcd"]
