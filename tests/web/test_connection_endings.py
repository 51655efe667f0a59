"""What ends a connection of the gateway, with which words, and what it survives."""

from pathlib import Path

import pytest
import trio
import trio.testing
from web.peer import masked
from web.site import ADDRESS, place_at

from cspd.gateway import feed as feed_module
from cspd.web import exchange, websocket
from cspd.web.connection import Connection

pytestmark = pytest.mark.real


async def test_a_subscriber_that_does_not_read_is_let_go_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "EVENTS_MAX", 4)
    async with place_at(tmp_path) as place:
        await place.register("bob")
        lazy, brisk = await place.follow(), await place.follow()
        for number in range(12):  # the lazy one is not stuck, but it is never scheduled between these
            place.hub.note_agent("bob", {"state": f"{number}"})
        await place.hub.store.set_member("attic", "nobody", False)
        (code, reason) = await lazy.closed()
        assert code == 1013
        assert "were not read" in reason
        assert place.site.counts.dropped["too-slow"] == 2
        assert (await brisk.closed())[0] == 1013


async def test_a_peer_that_takes_nothing_is_cut_off_after_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SEND_SEC", 0.05)
    async with place_at(tmp_path) as place:
        ours, theirs = trio.testing.lockstep_stream_pair()  # whose send waits until somebody reads
        asked = place.connect().request("GET", "/agents")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Connection(place.site, theirs, ADDRESS).serve)
            await ours.send_all(asked)  # and the nursery ends, although nobody reads
        await trio.testing.wait_all_tasks_blocked()
        assert place.site.crowd.known == set()


async def test_a_message_over_one_mebibyte_closes_the_websocket_with_1009(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        web = await place.follow()
        await web.stream.send_all(masked(1, b"x" * ((1 << 20) + 1)))
        code, reason = await web.closed()
        assert code == 1009
        assert "1048576" in reason


async def test_content_over_the_limit_is_an_error_and_the_websocket_stays_usable(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        web = await place.follow()
        assert (await web.call("chat.message", to="bob", content="x" * 70_000))["data"]["code"] == "too-long"
        assert (await web.call("hello", protocol=1))["you"] == "human"


async def test_what_is_no_json_on_a_websocket_is_an_error_and_it_stays_usable(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        web = await place.follow()
        for text in (b"nonsense", b"[]", b"{}", b'{"jsonrpc":"2.0","id":1,"method":5}'):
            await web.stream.send_all(masked(1, text))
            assert "error" in await web.message()
        assert (await web.call("hello", protocol=1))["you"] == "human"


async def test_everybody_is_told_when_cspd_ends(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        web = await place.follow()
        place.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert await web.closed() == (1001, "cspd is ending")


async def test_a_client_that_closes_is_answered_with_its_own_code(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        web = await place.follow()
        await web.stream.send_all(masked(8, b"\x03\xe8bye"))
        assert (await web.closed())[0] == 1000


def test_deadlines_are_what_the_manual_says() -> None:
    assert (exchange.HEAD_SEC, exchange.BODY_SEC, exchange.IDLE_SEC, exchange.SEND_SEC) == (10.0, 30.0, 30.0, 5.0)
    assert (websocket.PING_SEC, websocket.PONG_SEC) == (20.0, 20.0)
