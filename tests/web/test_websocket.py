"""A WebSocket on a real socket: what goes out at once, what has to wait, and that nothing of it is lost or torn."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
import trio
import trio.testing
from web.peer import Web, masked

from cspd.web.exchange import send_now
from cspd.web.websocket import WebSocket

pytestmark = pytest.mark.real

PATIENCE_SEC = 60.0


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    with trio.fail_after(PATIENCE_SEC):
        async with trio.SocketStream(ours) as left, trio.SocketStream(theirs) as right:
            yield left, right


async def test_a_socket_takes_at_once_what_it_has_room_for_and_the_rest_is_given_back() -> None:
    async with pair() as (left, right):
        data = bytes(range(256)) * 40_000
        rest = send_now(left, data)
        assert 0 < len(rest) < len(data)
        assert send_now(left, rest) == rest, "it is full"
        taken = b""
        while len(taken) < len(data) - len(rest):
            taken += await right.receive_some(1 << 20)
        assert taken + rest == data
        await left.aclose()
        assert send_now(left, b"x") == b"x"


async def test_long_answers_come_whole_and_in_order_through_a_narrow_socket() -> None:
    async with pair() as (left, right):
        server, client = WebSocket(left), Web(right)
        answers = [b"%d" % number * 300_000 for number in range(4)]

        async def serve() -> None:
            async with aclosing(server.lines()) as lines:
                async for line in lines:
                    assert isinstance(line, bytes)
                    await server.send(answers[int(line)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            for number in range(4):
                await right.send_all(masked(1, b"%d" % number))
            for answer in answers:
                assert await client.frame() == (1, answer)
            nursery.cancel_scope.cancel()


async def test_who_asks_much_in_one_packet_keeps_nobody_waiting() -> None:
    async with pair() as (left, right):
        server, turns, seen = WebSocket(left), 0, list[int]()

        async def others() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        await right.send_all(masked(1, b"hi") * 50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            async with aclosing(server.lines()) as lines:
                while len(seen) < 50:
                    line = await anext(lines)
                    assert isinstance(line, bytes)
                    await server.send(line)
                    seen.append(turns)
            nursery.cancel_scope.cancel()
        assert seen[-1] >= 48


async def test_a_peer_that_has_gone_is_noticed_by_a_prompt_answer_too() -> None:
    async with pair() as (left, right):
        server = WebSocket(left)
        await right.send_all(masked(1, b"hi"))
        async with aclosing(server.lines()) as lines:
            assert await anext(lines) == b"hi"
            await right.aclose()
            with pytest.raises(trio.BrokenResourceError):
                await server.send(b"hello")
            with pytest.raises(trio.ClosedResourceError):
                await server.send(b"hello")
