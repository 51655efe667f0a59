"""Answers that are settled later and elsewhere: they go to those who asked, and to nobody who has left."""

import json
from collections.abc import AsyncGenerator

import attrs
import pytest
import trio
import trio.testing
from answering import Handler, Later, lines_of

from cspd.answer import Answer
from cspd.errors import CspError
from cspd.transport import AT_ONCE_MAX, IN_FLIGHT_MAX, LineStream, RpcPeer
from cspd.wire import rpc
from cspd.wire.frames import Oversize


@pytest.mark.virtual_time
async def test_answers_that_are_settled_elsewhere_go_to_those_who_asked() -> None:
    left, right = trio.testing.memory_stream_pair()
    ours, later, outcomes = RpcPeer(lines_of(left), "them"), Later(), list[object]()

    async def ask(number: int) -> None:
        try:
            outcomes.append((number, await ours.call("ask", {"number": number})))
        except CspError as exc:
            outcomes.append((number, exc.sentence))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.serve, Handler())
            nursery.start_soon(RpcPeer(lines_of(right), "us").serve, later)
            async with trio.open_nursery() as askers:
                for number in range(3):
                    askers.start_soon(ask, number)
                    await later.wait_asked(number + 1)
                later.answers[2].settle({"third": True})
                later.answers[0].settle(CspError("storage", "history: full"))
                later.answers[1].settle(None)
            nursery.cancel_scope.cancel()
    assert sorted(outcomes, key=str) == [(0, "history: full"), (1, None), (2, {"third": True})]


@pytest.mark.virtual_time
async def test_an_answer_to_somebody_who_has_left_is_dropped() -> None:
    left, right = trio.testing.memory_stream_pair()
    later, peer = Later(), RpcPeer(lines_of(right), "us")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.serve, later)
        await left.send_all(rpc.request("ask", {}, 1))
        await later.wait_asked(1)
        await left.aclose()
    later.answers[0].settle("too late")


@attrs.define
class Leaving:
    """Lines of a peer that asks once and leaves; meanwhile the answer comes."""

    nursery: trio.Nursery
    answer: Answer[object] = attrs.Factory(Answer)
    settled: bool = False

    async def lines(self) -> AsyncGenerator[bytes | Oversize, None]:
        yield rpc.request("ask", {}, 1).rstrip()
        self.nursery.start_soon(self.settle)  # runs while `serve` is on its way out

    async def settle(self) -> None:
        self.answer.settle("too late")
        self.settled = True

    def send_nowait(self, data: bytes) -> bool:
        return False

    async def send(self, data: bytes) -> None:
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        pass


@pytest.mark.virtual_time
async def test_so_is_an_answer_that_comes_at_the_very_moment_when_somebody_leaves() -> None:
    for _ in range(50):  # trio runs what is ready in any order
        async with trio.open_nursery() as nursery:
            leaving = Leaving(nursery)
            nursery.start_soon(RpcPeer(leaving, "us").serve, lambda request, answer=leaving.answer: answer)
        assert leaving.settled


@pytest.mark.virtual_time
async def test_too_many_unsettled_answers_make_the_next_requests_wait() -> None:
    left, right = trio.testing.memory_stream_pair()
    later = Later()
    await left.send_all(b"".join(rpc.request("ask", {}, number) for number in range(IN_FLIGHT_MAX + 2)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(RpcPeer(lines_of(right), "us").serve, later)
        await trio.testing.wait_all_tasks_blocked()
        assert len(later.answers) == IN_FLIGHT_MAX + 1  # the last of them is not taken yet
        later.answers[0].settle(None)
        await trio.testing.wait_all_tasks_blocked()
        assert len(later.answers) == IN_FLIGHT_MAX + 2
        nursery.cancel_scope.cancel()


@pytest.mark.real
async def test_a_connection_that_is_closed_while_requests_wait_ends_quietly_and_hurts_no_other() -> None:
    for closed in (True, False):
        handler, (ours, theirs) = Later(), trio.socket.socketpair()
        peer, client = RpcPeer(LineStream(trio.SocketStream(ours)), "us"), trio.SocketStream(theirs)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.serve, handler)
                await client.send_all(b"".join(rpc.request("ask", {}, number) for number in range(IN_FLIGHT_MAX + 1)))
                while len(handler.answers) <= IN_FLIGHT_MAX:  # the last of them is not taken yet
                    await trio.lowlevel.checkpoint()
                if closed:
                    await peer.aclose()
                handler.answers[0].settle(None)
                if not closed:
                    assert b'"result"' in await client.receive_some(65536)
                    await client.aclose()
        await peer.aclose()
        await client.aclose()


@pytest.mark.real
async def test_answers_to_a_peer_that_does_not_read_wait_and_come_whole() -> None:
    ours, theirs = trio.socket.socketpair()
    later = Later()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(RpcPeer(LineStream(trio.SocketStream(theirs)), "x").serve, later)
            asked = IN_FLIGHT_MAX
            await trio.SocketStream(ours).send_all(b"".join(rpc.request("ask", {}, n) for n in range(asked)))
            await later.wait_asked(asked)
            for answer in later.answers:
                answer.settle("y" * (AT_ONCE_MAX - 100))  # together more than a socket's buffer
            received = b""
            while received.count(b"\n") < asked:
                received += await ours.recv(1 << 20)
            nursery.cancel_scope.cancel()
        ours.close()
        theirs.close()
    replies = [json.loads(line) for line in received.splitlines()]
    assert sorted(reply["id"] for reply in replies) == list(range(asked))
    assert {len(reply["result"]) for reply in replies} == {AT_ONCE_MAX - 100}


@pytest.mark.real
async def test_an_answer_to_a_peer_that_has_just_vanished_hurts_nobody() -> None:
    ours, theirs = trio.socket.socketpair()
    later = Later()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(RpcPeer(LineStream(trio.SocketStream(theirs)), "x").serve, later)
            await ours.send(rpc.request("ask", {}, 1))
            await later.wait_asked(1)
            ours.close()
            later.answers[0].settle("you are gone")
        theirs.close()
