"""How long clients that are stuck can hold up the end of the gateway, in virtual time: it is decided by deadlines."""

import json
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from web.peer import Web, masked

from cspd.config import GatewayConfig
from cspd.gateway.identity import Identity
from cspd.web.connection import Connection, Site
from cspd.web.crowd import Crowd
from cspd.web.metrics import Counts
from cspd.web.websocket import CLOSE_SEC

pytestmark = pytest.mark.virtual_time

ENDS_WITHIN_SEC = 2.0
HELLO = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"protocol": 1}}).encode()
MCP = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}'


def site() -> Site:
    """Everybody is the person; nothing is on disk."""
    tokens = SimpleNamespace(who=lambda token: (Identity(), ""))
    hub = SimpleNamespace(agents={}, rooms=None)
    return Site(cast(Any, SimpleNamespace(tokens=tokens, hub=hub)), GatewayConfig(), Counts(), Crowd())


async def idle(web: Web) -> None:
    """It has come, and says nothing."""


async def half_a_head(web: Web) -> None:
    await web.stream.send_all(b"GET /rpc HTTP/1.1\r\nHo")


async def half_a_body(web: Web) -> None:
    await web.stream.send_all(web.request("POST", "/rpc", MCP)[:-5])


async def takes_no_answer(web: Web) -> None:
    await web.stream.send_all(web.request("POST", "/rpc", MCP))


async def websocket(web: Web) -> None:
    assert (await web.upgrade("/rpc")).status == 101


async def websocket_that_takes_no_answer(web: Web) -> None:
    await websocket(web)
    await web.stream.send_all(masked(1, HELLO))


async def websocket_in_the_middle_of_a_frame(web: Web) -> None:
    await websocket(web)
    await web.stream.send_all(masked(1, HELLO)[:20])


STUCK = (
    *(idle, half_a_head, half_a_body, takes_no_answer),
    *(websocket, websocket_that_takes_no_answer, websocket_in_the_middle_of_a_frame),
)


async def test_clients_of_every_kind_that_take_nothing_hold_up_the_end_for_less_than_two_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    place = site()
    async with AsyncExitStack() as stack, trio.open_nursery() as connections:
        for act in STUCK * 5:
            ours, theirs = trio.testing.lockstep_stream_pair()  # where a send takes until somebody reads
            stack.push_async_callback(ours.aclose)
            connections.start_soon(Connection(place, theirs, "127.0.0.1").serve)
            await act(Web(ours, "token"))
        await trio.testing.wait_all_tasks_blocked()
        assert place.crowd.count == 5 * len(STUCK)
        began = trio.current_time()
        connections.cancel_scope.cancel()
    took = trio.current_time() - began
    assert took == pytest.approx(CLOSE_SEC), "those that could be told why had that long to hear it"
    assert took <= ENDS_WITHIN_SEC
    assert place.crowd.count == 0


async def test_a_client_that_reads_ends_at_once_and_knows_why(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    web = Web(ours, "token")
    async with trio.open_nursery() as connections:
        connections.start_soon(Connection(site(), theirs, "127.0.0.1").serve)
        await websocket(web)
        began = trio.current_time()
        connections.cancel_scope.cancel()
    assert trio.current_time() == began
    assert await web.closed() == (1001, "cspd is ending")
