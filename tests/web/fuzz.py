"""Random and half-right bytes for the gateway's parsers, from a seed; what must hold is asserted here."""

import random
from pathlib import Path

import trio
import trio.testing
from web.peer import KEY, masked
from web.site import ADDRESS, place_at

from cspd.web.connection import Connection

WORDS = (
    *(b"GET ", b"POST ", b"/events", b"/rpc", b"/register", b"/history?since=", b" HTTP/1.1\r\n", b" HTTP/2.0\r\n"),
    *(b"Host: 127.0.0.1\r\n", b"Content-Length: 5\r\n", b"Content-Length: " + b"9" * 5000 + b"\r\n", b"\r\n\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n", b"\n", b"\0"),
    *(b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n", b"Sec-WebSocket-Version: 13\r\n", b"\xff"),
    *(b"Origin: null\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b'{"jsonrpc":"2.0","id":1,"method":"hello"}'),
    b"Accept: text/event-stream\r\n",
)
STATUSES = {100, 101, 200, 201, 202, 400, 401, 403, 404, 405, 408, 409, 410, 413, 421, 426, 431, 501, 503, 504, 505}
CALLS = (
    *(b'{"jsonrpc":"2.0","id":1,"method":"agent.list"}', b'{"jsonrpc":"2.0","id":[],"method":"x"}', b"[]", b'"x"'),
    *(b'{"jsonrpc":"2.0","id":1,"result":1}', b'{"jsonrpc":"2.0","id":1,"method":"inbox.ack","params":[]}'),
    b'{"jsonrpc":"2.0","id":1,"method":"chat.message","params":{"to":"human","content":"hi"}}',
    *(b"[" * 5000, b"{"),
)


def some(chance: random.Random, token: str) -> bytes:
    """What one connection sends."""
    known = f"Authorization: Bearer {token}\r\n".encode()
    match chance.randrange(4):
        case 0:
            return chance.randbytes(chance.randrange(1, 400))
        case 1:
            return b"".join(chance.choice((*WORDS, known)) for _ in range(chance.randrange(1, 14)))
        case 2:
            head = b"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1\r\n" + known
            return damaged(chance, head + b"Content-Length: 40\r\n\r\n" + chance.choice(CALLS))
        case _:
            head = (
                b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                + known
                + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            )
            head += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY.encode() + b"\r\n\r\n"
            frames = (masked(chance.choice((0, 1, 1, 1, 2, 8, 9, 10, 11)), chance.choice(CALLS)) for _ in range(4))
            return head + damaged(chance, b"".join(frames))


def damaged(chance: random.Random, data: bytes) -> bytes:
    held = bytearray(data)
    for _ in range(chance.randrange(4)):
        held[chance.randrange(len(held))] = chance.randrange(256)
    return bytes(held[: chance.randrange(1, len(held) + 1)] if chance.random() < 0.2 else held)


async def rounds(root: Path, seed: int, count: int) -> dict[int, int]:
    """`count` connections with such bytes, cut anywhere: -> how often each status was the first answer (0: none)."""
    chance = random.Random(seed)
    seen: dict[int, int] = {}
    async with place_at(root) as place:
        await place.register("bob")
        for _ in range(count):
            ours, theirs = trio.testing.memory_stream_pair()
            place.nursery.start_soon(Connection(place.site, theirs, ADDRESS).serve)
            await _throw(chance, ours, some(chance, place.room_token))
            answer = await _first(ours)
            if answer:
                status = int(answer.split(b" ", 2)[1])
                assert answer.startswith(b"HTTP/1.1 "), answer
                assert status in STATUSES, answer
            seen[status if answer else 0] = seen.get(status if answer else 0, 0) + 1
            await ours.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await place.connect("").ask("GET", "/healthz")).body == b"ok\n"
    return seen


async def _throw(chance: random.Random, stream: trio.abc.SendStream, data: bytes) -> None:
    try:
        while data:
            size = chance.choice((1, 7, 100, len(data)))
            await stream.send_all(data[:size])
            data = data[size:]
            await trio.testing.wait_all_tasks_blocked()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # it has refused us already


async def _first(stream: trio.abc.ReceiveStream) -> bytes:
    with trio.move_on_after(0.01):
        try:
            return bytes(await stream.receive_some(4096))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    return b""
