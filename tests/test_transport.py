"""Lines and JSON-RPC on sockets: both ways, in order, and what becomes of everybody when a peer hangs or vanishes."""

import json
import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from cspd.answer import Answer
from cspd.errors import CspError
from cspd.listening import listening_socket
from cspd.paths import SUN_PATH_MAX
from cspd.transport import AT_ONCE_MAX, IN_FLIGHT_MAX, SEND_SEC, LineStream, RpcPeer, connect, peer_of
from cspd.wire import rpc
from cspd.wire.frames import FRAME_MAX, Oversize


def lines_of(stream: object) -> LineStream:
    return LineStream(cast(trio.SocketStream, stream))


class Handler:
    """Answers by name, and remembers in which order it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = trio.Event()

    def __call__(self, request: rpc.Request) -> Any:
        self.asked.append(request.method)
        match request.method:
            case "echo":
                return request.params
            case "refuse":
                raise CspError("no-such-agent", "agent: 'bob': not known", "cspctl list", {"known": ["rob"]})
            case "slow":
                return self._slow()
            case "slowly refuse":
                return self._slowly_refuse()
            case _:
                raise CspError("no-such-method", f"method: {request.method!r}: not known")

    async def _slow(self) -> str:
        await self.gate.wait()
        return "at last"

    async def _slowly_refuse(self) -> str:
        await self.gate.wait()
        raise CspError("timed-out", "it took too long")


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


class Later:
    """Answers everything by what it is told later."""

    def __init__(self) -> None:
        self.answers: list[Answer[object]] = []

    def __call__(self, request: rpc.Request) -> Answer[object]:
        self.answers.append(Answer())
        return self.answers[-1]

    async def wait_asked(self, count: int) -> None:
        while len(self.answers) < count:
            await trio.lowlevel.checkpoint()


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


# ---------------------------------------------------------------------- peers that take nothing


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


# ---------------------------------------------------------------------- real sockets


@pytest.mark.real
async def test_a_dialogue_over_a_real_socket_knows_its_peer(tmp_path: Path) -> None:
    with trio.fail_after(10), listening_socket(tmp_path / "s.sock") as listener:
        theirs = await connect(tmp_path / "s.sock")
        sock, _ = listener.accept()
        sock.setblocking(False)
        ours = LineStream(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        assert ours.peer == (os.getpid(), os.getuid(), os.getgid())
        assert peer_of(theirs.stream.socket).pid == os.getpid()
        async with trio.open_nursery() as nursery:
            asking = RpcPeer(theirs, "us")
            nursery.start_soon(RpcPeer(ours, "them").serve, Handler())
            nursery.start_soon(asking.serve, Handler())
            big = {"text": "x" * 900_000}
            assert await asking.call("echo", big) == big
            await theirs.aclose()
        await ours.aclose()


@pytest.mark.real
def test_a_listening_socket_is_the_persons_alone_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    before = os.umask(0)
    try:
        listening_socket(path).close()
        with listening_socket(path), socket.socket(socket.AF_UNIX) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            client.connect(str(path))
    finally:
        assert os.umask(before) == 0  # left as it was


@pytest.mark.real
def test_a_path_that_the_kernel_cannot_take_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / ("n" * SUN_PATH_MAX)
    with pytest.raises(CspError) as raised:
        listening_socket(path)
    assert raised.value.code == "path-too-long"


@pytest.mark.real
async def test_connecting_where_nobody_listens_fails_at_once(tmp_path: Path) -> None:
    listening_socket(tmp_path / "left over").close()
    for name in ("left over", "never there"):
        with trio.fail_after(5), pytest.raises(OSError, match=r"."):
            await connect(tmp_path / name)


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


@pytest.mark.real
async def test_a_peer_that_vanishes_ends_the_dialogue_quietly(tmp_path: Path) -> None:
    """Closed with data unread, a socket is reset rather than closed."""
    ours, theirs = trio.socket.socketpair()
    with trio.fail_after(10):
        await ours.send(rpc.request("echo", {}, 1))
        peer = RpcPeer(LineStream(trio.SocketStream(theirs)), "x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve, Handler())
            await trio.testing.wait_all_tasks_blocked()
            ours.close()
        theirs.close()
