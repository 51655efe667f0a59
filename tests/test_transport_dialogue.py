"""JSON-RPC both ways on one connection: in order, refusals and nonsense included, and nobody holds up another."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from answering import Handler, lines_of

from cspd.errors import CspError
from cspd.transport import IN_FLIGHT_MAX, RpcPeer
from cspd.wire import rpc
from cspd.wire.frames import FRAME_MAX


@asynccontextmanager
async def two_peers() -> AsyncIterator[tuple[RpcPeer, RpcPeer, Handler]]:
    """-> (ours, theirs, what answers at theirs); each asks the other."""
    left, right = trio.testing.memory_stream_pair()
    ours, theirs, handler = RpcPeer(lines_of(left), "them"), RpcPeer(lines_of(right), "us"), Handler()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.serve, Handler())
        nursery.start_soon(theirs.serve, handler)
        yield ours, theirs, handler
        nursery.cancel_scope.cancel()


@pytest.mark.virtual_time
async def test_each_side_may_ask_the_other() -> None:
    async with two_peers() as (ours, theirs, _):
        assert await ours.call("echo", {"a": 1}) == {"a": 1}
        assert await theirs.call("echo", {"b": [2]}) == {"b": [2]}


@pytest.mark.virtual_time
async def test_a_refusal_comes_as_the_same_error() -> None:
    async with two_peers() as (ours, _, _handler):
        with pytest.raises(CspError) as raised:
            await ours.call("refuse", {})
        error = raised.value
        assert (error.code, error.sentence, error.hint) == ("no-such-agent", "agent: 'bob': not known", "cspctl list")
        assert error.data == {"known": ["rob"]}


@pytest.mark.virtual_time
async def test_a_slow_answer_holds_up_no_other(autojump_clock: trio.testing.MockClock) -> None:
    async with two_peers() as (ours, _, handler):
        answers: list[str] = []

        async def ask_slowly() -> None:
            answers.append(await ours.call("slow", {}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_slowly)
            await trio.testing.wait_all_tasks_blocked()
            assert await ours.call("echo", {}) == {}
            assert answers == []
            handler.gate.set()
        assert answers == ["at last"]


@pytest.mark.virtual_time
async def test_a_slow_refusal_is_answered_too() -> None:
    async with two_peers() as (ours, _, handler):
        handler.gate.set()
        with pytest.raises(CspError) as raised:
            await ours.call("slowly refuse", {})
        assert raised.value.code == "timed-out"


@pytest.mark.virtual_time
async def test_requests_are_taken_in_the_order_of_their_arrival() -> None:
    left, right = trio.testing.memory_stream_pair()
    handler = Handler()
    order = ["slow", "echo", "slow", "echo", "refuse", "echo"]
    await left.send_all(b"".join(rpc.request(method, {}, number) for number, method in enumerate(order)))
    handler.gate.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(RpcPeer(lines_of(right), "x").serve, handler)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert handler.asked == order


async def raw_dialogue(sent: bytes) -> list[dict[str, Any]]:
    """What a peer answers to these bytes."""
    left, right = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(RpcPeer(lines_of(right), "x").serve, Handler())
        await left.send_all(sent)
        await trio.testing.wait_all_tasks_blocked()
        await left.send_eof()
        received = b""
        with trio.move_on_after(1):
            async for piece in left:
                received += piece
        nursery.cancel_scope.cancel()
    return [json.loads(line) for line in received.splitlines()]


@pytest.mark.virtual_time
async def test_a_line_that_is_too_long_costs_itself_and_the_connection_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    long, fine = await raw_dialogue(b"x" * (FRAME_MAX + 7) + b"\n" + rpc.request("echo", {"a": 1}, 5))
    assert (long["id"], long["error"]["data"]["code"]) == (None, "oversize")
    assert str(FRAME_MAX + 7) in long["error"]["message"]
    assert (fine["id"], fine["result"]) == (5, {"a": 1})


@pytest.mark.virtual_time
async def test_nonsense_is_answered_and_the_connection_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    sent = b'nonsense\n{"jsonrpc":"2.0","method":5,"id":"x"}\n\n  \n' + rpc.request("echo", {}, 5)
    answers = await raw_dialogue(sent)
    codes = [(answer["id"], answer.get("error", {}).get("data", {}).get("code")) for answer in answers]
    assert codes == [(None, "parse-error"), ("x", "invalid-request"), (5, None)]


@pytest.mark.virtual_time
async def test_a_notification_gets_no_reply_whatever_becomes_of_it(autojump_clock: trio.testing.MockClock) -> None:
    sent = rpc.request("echo", {}) + rpc.request("refuse", {}) + rpc.request("nothing", {}) + rpc.request("echo", {}, 1)
    assert [answer["id"] for answer in await raw_dialogue(sent)] == [1]


@pytest.mark.virtual_time
async def test_answers_to_questions_that_nobody_asked_are_ignored(autojump_clock: trio.testing.MockClock) -> None:
    sent = (
        rpc.result(99, "x") + rpc.result("abc", "x") + rpc.error(None, CspError("a", "b")) + rpc.request("echo", {}, 1)
    )
    assert [answer["id"] for answer in await raw_dialogue(sent)] == [1]


@pytest.mark.virtual_time
async def test_calls_under_way_fail_when_the_connection_ends() -> None:
    left, right = trio.testing.memory_stream_pair()
    ours = RpcPeer(lines_of(left), "them")
    codes: list[str] = []

    async def ask() -> None:
        with pytest.raises(CspError) as raised:
            await ours.call("slow", {})
        codes.append(raised.value.code)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.serve, Handler())
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await right.aclose()
    assert codes == ["unreachable", "unreachable"]
    with pytest.raises(CspError) as raised:
        await ours.call("echo", {})
    assert raised.value.code == "unreachable"


@pytest.mark.virtual_time
async def test_a_call_that_was_given_up_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    async with two_peers() as (ours, _, handler):
        with trio.move_on_after(1):
            await ours.call("slow", {})
        handler.gate.set()
        assert await ours.call("echo", {"still": "there"}) == {"still": "there"}
        assert ours._waiting == {}


@pytest.mark.virtual_time
async def test_too_many_slow_requests_make_the_next_ones_wait(autojump_clock: trio.testing.MockClock) -> None:
    async with two_peers() as (ours, _, handler):
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT_MAX + 1):
                nursery.start_soon(ours.call, "slow", {})
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ours.call, "echo", {})
            await trio.testing.wait_all_tasks_blocked()
            assert "echo" not in handler.asked
            handler.gate.set()
        assert handler.asked[-1] == "echo"
