"""Requests to the gateway as clients make them: one after the other, by POST and by query, and what they count."""

import json
from pathlib import Path

import pytest
import trio
import trio.testing
from web.peer import Web
from web.site import ADDRESS, place_at

from cspd.control.methods import METHODS
from cspd.web.connection import Connection

pytestmark = pytest.mark.real


async def test_a_connection_answers_request_after_request_also_pipelined_ones(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        web = place.connect()
        ids = [b'{"jsonrpc":"2.0","id":%d,"method":"hello","params":{"protocol":1}}' % n for n in range(20)]
        await web.stream.send_all(b"".join(web.request("POST", "/rpc", body) for body in ids))
        assert [(await web.reply()).json["id"] for _ in ids] == list(range(20))


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"nothing"}', 200, "no-such-method"),
        (b'{"jsonrpc":"2.0","id":1,"method":"agent.get","params":{"name":"x"}}', 200, "no-such-agent"),
        (b'{"jsonrpc":"2.0","id":1,"method":"events.subscribe"}', 200, "not-allowed"),
        (b'{"jsonrpc":"2.0","id":1,"method":"sidecar.hello"}', 200, "not-allowed"),
        (b"[]", 400, "invalid-request"),
        (b"nonsense", 400, "parse-error"),
        (b"", 400, "parse-error"),
    ],
)
async def test_a_call_by_post_that_fails(tmp_path: Path, body: bytes, status: int, code: str) -> None:
    async with place_at(tmp_path) as place:
        for path in ("/rpc", "/mcp"):
            reply = await place.connect().ask("POST", path, body)
            assert (reply.status, reply.code) == (status, code)


async def test_a_notification_by_post_has_no_answer(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        body = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        reply = await place.connect().ask("POST", "/mcp", body)
        assert (reply.status, reply.body) == (202, b"")


async def test_a_caller_that_hangs_up_cancels_its_call(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        sent = await place.connect().rpc("chat.message", to="bob", content="hi")
        web = place.connect()
        asked = {"message_id": sent["message_id"], "step": "submitted"}
        body = {"jsonrpc": "2.0", "id": 1, "method": "chat.wait", "params": asked}
        await web.stream.send_all(web.request("POST", "/rpc", json.dumps(body).encode()))
        await trio.testing.wait_all_tasks_blocked()
        before = place.site.crowd.count
        await web.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert place.site.crowd.count == before - 1


def fails(*_: object) -> None:
    raise KeyError("x")


async def test_a_bug_in_a_method_costs_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracebacks: list[str]
) -> None:
    monkeypatch.setitem(METHODS, "agent.list", fails)  # type: ignore[arg-type]
    async with place_at(tmp_path) as place:
        web = place.connect()
        body = b'{"jsonrpc":"2.0","id":1,"method":"agent.list"}'
        assert (await web.ask("POST", "/rpc", body)).code == "internal"
        assert (await web.ask("GET", "/agents")).status == 500
        assert (await web.ask("GET", "/rooms")).status == 200
    assert len(tracebacks) == 2
    tracebacks.clear()


async def test_a_bug_beside_the_methods_costs_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracebacks: list[str]
) -> None:
    async with place_at(tmp_path) as place:
        with monkeypatch.context() as broken:
            broken.setattr(Connection, "_request", fails)
            web = place.connect()
            await web.stream.send_all(web.request("GET", "/rooms", b""))
            assert await web.stream.receive_some() == b""
        assert (await place.connect().ask("GET", "/rooms")).status == 200
    assert "a connection is closed" in tracebacks.pop()


async def test_the_history_is_asked_by_query(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        for word in ("one", "two", "three"):
            await place.connect().rpc("chat.message", to="bob", content=word)
        reply = await place.connect().ask("GET", "/history?limit=2&to=bob")
        assert [message["content"] for message in reply.json["messages"]] == ["two", "three"]
        assert (await place.connect().ask("GET", "/history?limit=x")).code == "invalid-params"
        assert (await place.connect().ask("GET", "/history?room=nowhere")).status == 404


async def test_a_head_has_no_body_and_the_connection_goes_on(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        web = place.connect()
        await web.stream.send_all(web.request("HEAD", "/agents") + web.request("GET", "/healthz"))
        raw = b""
        while b"ok\n" not in raw:
            raw += bytes(await web.stream.receive_some(65536))
        assert raw.count(b"HTTP/1.1 200") == 2
        assert b"[]" not in raw


async def test_metrics_count_what_happened(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        await place.connect("wrong").ask("GET", "/agents")
        await place.connect().rpc("chat.message", to="bob", content="hi")
        before = place.hub.store.committed_cursor
        page = (await place.connect().ask("GET", "/metrics")).body.decode()
        lines = page.splitlines()
        assert 'csp_http_requests_total{status="401"} 1' in lines
        assert 'csp_http_requests_total{status="201"} 1' in lines
        assert 'csp_inbox_messages{agent="bob"} 1' in lines
        [cursor] = [int(line.split()[1]) for line in lines if line.startswith("csp_event_cursor ")]
        assert 0 < before <= cursor <= place.hub.store.committed_cursor  # the disk has a thread of its own
        assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)


async def test_who_was_late_is_told(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        ours, theirs = trio.testing.memory_stream_pair()
        place.nursery.start_soon(Connection(place.site, theirs, ADDRESS, True).serve)
        reply = await Web(ours).reply()
        assert (reply.status, reply.code) == (408, "timed-out")
