"""Deadlines, to the second, and limits of one connection: slow heads, endless bodies, pings that nobody answers."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock
from web.peer import Web, masked

from cspd.errors import CspError
from cspd.web.exchange import BODY_MAX, HEAD_MAX, Answer, Exchange
from cspd.web.head import Refused
from cspd.web.websocket import WebSocket

pytestmark = pytest.mark.virtual_time


async def serve(stream: trio.abc.Stream) -> None:
    """Answers each body with its length, as `connection` would."""
    asked = Exchange(stream)
    try:
        while (head := await asked.next_head()) is not None:
            asked.check_length(head)
            body = await asked.body()
            await asked.reply(Answer(200, str(len(body)).encode()))
            if not asked.usable:
                break
    except Refused as refused:
        await asked.refuse(refused)
    finally:
        await trio.aclose_forcefully(stream)


@pytest.fixture
def web(nursery: trio.Nursery) -> Web:
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(serve, theirs)
    return Web(ours)


async def closed_at(web: Web) -> float:
    with pytest.raises(EOFError):
        await web.reply()
    return trio.current_time()


async def test_who_asks_nothing_is_let_go_without_a_word(web: Web, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    assert await closed_at(web) - began == 30.0


async def test_between_two_requests_there_are_thirty_seconds(web: Web, autojump_clock: MockClock) -> None:
    await web.ask("GET", "/")
    await trio.sleep(29)
    assert (await web.ask("GET", "/")).status == 200
    began = trio.current_time()
    assert await closed_at(web) - began == 30.0


async def test_a_head_that_drips_has_one_deadline_for_all_of_it(
    web: Web, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def drip() -> None:
        await web.stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n")
        while True:
            await trio.sleep(1)
            await web.stream.send_all(b"X: y\r\n")

    began = trio.current_time()
    nursery.start_soon(drip)
    reply = await web.reply()
    assert (reply.status, trio.current_time() - began) == (408, 10.0)
    nursery.cancel_scope.cancel()


async def test_a_body_that_does_not_come_is_given_up(web: Web, autojump_clock: MockClock) -> None:
    began = trio.current_time()
    await web.stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc")
    assert (await web.reply()).status == 408
    assert trio.current_time() - began == 30.0


async def test_a_body_that_is_announced_as_too_long_is_not_waited_for(web: Web, autojump_clock: MockClock) -> None:
    await web.stream.send_all(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_MAX + 1}\r\n\r\n".encode())
    reply = await web.reply()
    assert (reply.status, reply.code, trio.current_time()) == (413, "oversize", trio.current_time())
    assert reply.headers["connection"] == "close"


async def test_a_length_of_thousands_of_digits_is_too_long(web: Web, autojump_clock: MockClock) -> None:
    await web.stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
    assert (await web.reply()).status in (400, 413)


async def test_an_endless_body_is_cut_off_at_the_limit(
    web: Web, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    sent = 0

    async def pour() -> None:
        nonlocal sent
        await web.stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while True:
                await web.stream.send_all(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
                sent += 0x8000
                await trio.sleep(0.001)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    nursery.start_soon(pour)
    assert (await web.reply()).status == 413
    await closed_at(web)
    assert sent < 40 * BODY_MAX  # for a second what still comes is read and forgotten


async def test_a_head_that_is_too_long_is_refused(web: Web, autojump_clock: MockClock) -> None:
    await web.stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * HEAD_MAX)
    assert (await web.reply()).status == 431


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\nY\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"\r\n\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_gets_a_status_and_the_end(
    web: Web, data: bytes, status: int, autojump_clock: MockClock
) -> None:
    await web.stream.send_all(data)
    reply = await web.reply()
    assert (reply.status, reply.code) == (status, "bad-request")
    await closed_at(web)


async def test_a_client_that_waits_for_100_continue_gets_it(web: Web, autojump_clock: MockClock) -> None:
    await web.stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await web.reply()).status == 100
    await web.stream.send_all(b"abc")
    assert (await web.reply()).body == b"3"


async def test_what_the_peer_sent_is_not_in_the_answer_to_it(web: Web, autojump_clock: MockClock) -> None:
    await web.stream.send_all(b"GET / HTTP/1.1\r\nAuthorization Bearer s3cret\r\n\r\n")
    assert b"s3cret" not in (await web.reply()).body


@pytest.fixture
def pair() -> tuple[Web, WebSocket]:
    ours, theirs = trio.testing.memory_stream_pair()
    return Web(ours), WebSocket(theirs)


async def read_all(websocket: WebSocket) -> None:
    try:
        async for _ in websocket.lines():
            pass
    except (trio.ClosedResourceError, trio.BrokenResourceError):
        pass


async def test_a_ping_without_an_answer_ends_the_connection(
    pair: tuple[Web, WebSocket], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    web, websocket = pair
    nursery.start_soon(read_all, websocket)
    nursery.start_soon(websocket.keep_alive)
    assert await web.frame() == (9, b"")
    assert trio.current_time() == pytest.approx(20.0)
    code, reason = await web.closed()
    assert (code, trio.current_time()) == (1001, pytest.approx(40.0))
    assert "20 s" in reason


async def test_who_answers_pings_stays(
    pair: tuple[Web, WebSocket], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    web, websocket = pair
    nursery.start_soon(read_all, websocket)
    nursery.start_soon(websocket.keep_alive)
    for _ in range(5):
        assert await web.frame() == (9, b"")
        await web.stream.send_all(masked(10, b""))
    assert trio.current_time() == pytest.approx(180.0)
    assert websocket.closed is None
    nursery.cancel_scope.cancel()


async def test_a_send_that_is_stuck_ends_at_the_deadline_and_the_stream_is_not_used_again(
    autojump_clock: MockClock,
) -> None:
    _, theirs = trio.testing.lockstep_stream_pair()
    websocket = WebSocket(theirs)
    with pytest.raises(trio.BrokenResourceError):
        await websocket.send(b"{}\n")
    assert trio.current_time() == 5.0
    with pytest.raises(trio.ClosedResourceError):
        await websocket.send(b"{}\n")


async def test_a_close_does_not_wait_for_a_peer_that_is_stuck(autojump_clock: MockClock) -> None:
    _, theirs = trio.testing.lockstep_stream_pair()
    await WebSocket(theirs).close(1001, "cspd is ending")
    assert trio.current_time() == 1.0


async def test_a_cancelled_send_leaves_no_half_frame_for_the_next_one(autojump_clock: MockClock) -> None:
    _, theirs = trio.testing.lockstep_stream_pair()
    websocket = WebSocket(theirs)
    with trio.move_on_after(1):
        await websocket.send(b"{}\n")
    with pytest.raises(trio.ClosedResourceError):
        await websocket.send(b"{}\n")


def test_refusals_are_sentences() -> None:
    assert str(Refused(400, CspError("bad-request", "request: cannot be read"))) == "request: cannot be read"
