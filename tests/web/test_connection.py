"""Connections of the gateway as clients see them: tokens, requests, events, acknowledgements, and being let go."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from web.peer import Web, masked
from web.site import ADDRESS, place_at

from cspd.gateway import feed as feed_module
from cspd.web import exchange, websocket
from cspd.web.connection import Connection
from cspd.web.crowd import Crowd

pytestmark = pytest.mark.real


# ---------------------------------------------------------------------- who may


async def test_without_a_token_only_the_health_is_told(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        assert (await place.connect("").ask("GET", "/healthz")).body == b"ok\n"
        for path in ("/agents", "/rooms", "/history", "/metrics"):
            for token in ("", "wrong", place.room_token + "x"):
                reply = await place.connect(token).ask("GET", path)
                assert (reply.status, reply.code) == (401, "no-token")
                assert reply.headers["www-authenticate"].startswith("Bearer")
                assert not token or token not in reply.body.decode()
            assert (await place.connect().ask("GET", path)).status == 200


async def test_names_of_agents_that_register_are_made_unique_and_their_tokens_differ(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        first, second = await place.register("claude"), await place.register("claude")
        assert (first[0], second[0]) == ("claude", "claude-2")
        assert first[1] != second[1]
        names = [agent["name"] for agent in (await place.connect().ask("GET", "/agents")).json]
        assert names == ["claude", "claude-2"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "Not A Name!"}, 400, "bad-name"),
        ({"name": "human"}, 400, "bad-name"),
        ({}, 400, "invalid-params"),
        ({"name": 7, "room": []}, 400, "invalid-params"),
        ({"name": "a", "capabilities": {"x": "y" * 9000}}, 400, "invalid-params"),
        (b"[]", 400, "invalid-params"),
        (b"{", 400, "parse-error"),
        (b'{"name": "a"}, "id": 5', 400, "parse-error"),
        (b"\xff", 400, "parse-error"),
    ],
)
async def test_a_registration_that_is_wrong_says_why(tmp_path: Path, body: Any, status: int, code: str) -> None:
    async with place_at(tmp_path) as place:
        reply = await place.connect().ask("POST", "/register", body)
        assert (reply.status, reply.code) == (status, code)
        assert place.site.services.tokens.known() == []


async def test_an_agent_cannot_register_others(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("claude")
        reply = await place.connect(token).ask("POST", "/register", {"name": "helper"})
        assert (reply.status, reply.code) == (403, "not-allowed")


async def test_who_speaks_is_decided_by_the_token_and_not_by_what_is_said(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        _, token = await place.register("alice")
        follower = await place.follow()
        envelope = {"to": "bob", "content": "hi", "from": "human", "meta": {"confidence": 0.9}}
        await place.connect(token).rpc("chat.message", **envelope)
        message = (await follower.event("message"))["message"]
        assert (message["from"], message["to"], message["meta"]["confidence"]) == ("alice", "bob", 0.9)


@pytest.mark.parametrize("method", ["agent.stop", "agent.pause", "daemon.reload", "token.list", "token.revoke"])
async def test_an_agents_token_runs_nobody(tmp_path: Path, method: str) -> None:
    async with place_at(tmp_path) as place:
        name, token = await place.register("alice")
        error = await place.connect(token).rpc(method, name=name)
        assert error["data"]["code"] == "not-allowed"


async def test_tokens_are_good_after_a_restart_and_only_their_hashes_are_on_disk(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        room = place.room_token
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert token.encode() not in on_disk
    async with place_at(tmp_path) as place:
        assert place.room_token == room
        assert (await place.connect(token).rpc("hello", protocol=1))["you"] == "alice"


async def test_a_revoked_token_opens_nothing_and_its_connections_end_with_the_reason(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        _, other = await place.register("bob")
        follower, unharmed = await place.follow(token), await place.follow(other)
        person = place.connect()
        (known, _) = await person.rpc("token.list")
        assert (known["agent"], known["connections"]) == ("alice", 1)
        await person.rpc("token.revoke", name=known["id"])
        assert await follower.closed() == (1008, "the token was revoked")
        assert (await place.connect(token).ask("GET", "/agents")).status == 401
        assert (await unharmed.call("hello", protocol=1))["you"] == "bob"
        assert (await person.rpc("token.revoke", name="alice"))["data"]["code"] == "no-such-token"


async def test_an_agent_that_is_removed_loses_its_token(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        await place.connect().rpc("agent.remove", name="alice")
        assert (await place.connect(token).ask("GET", "/agents")).status == 401
        name, _ = await place.register("alice")
        assert name == "alice"
        assert (await place.connect(token).ask("GET", "/agents")).status == 401


async def test_pages_and_names_of_others_get_nothing(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        web = place.connect()
        web.host = "evil.example"
        assert (await web.ask("GET", "/agents")).status == 421
        assert (await place.connect().ask("GET", "/agents", Origin="http://evil.example")).status == 403
        assert (await place.connect().upgrade(Origin="http://evil.example")).status == 403


async def hello(web: Web, name: str, incarnation: int) -> Any:
    return await web.call("sidecar.hello", protocol=1, name=name, incarnation=incarnation, pid=812, ledger=[])


async def test_only_one_sidecar_of_a_guest_has_its_messages_and_the_same_one_may_come_back(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        first, second, again = place.connect(token), place.connect(token), place.connect(token)
        for web in (first, second, again):
            assert (await web.upgrade("/rpc")).status == 101
        assert (await hello(first, "alice", 1))["protocol"] == 1
        refused = await hello(second, "alice", 2)
        assert refused["data"]["code"] == "name-taken"
        sent = await place.connect().rpc("chat.message", to="alice", content="hi")
        assert (await first.message())["params"]["message_id"] == sent["message_id"]
        assert (await hello(again, "alice", 1))["protocol"] == 1, "its line was cut, which nobody has noticed yet"
        assert (await again.message())["params"]["message_id"] == sent["message_id"]
        assert (await first.closed())[0] == 1000
        await again.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await hello(second, "alice", 2))["protocol"] == 1, "the first has gone"
        assert (await second.message())["params"]["message_id"] == sent["message_id"]


# ---------------------------------------------------------------------- requests


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


async def test_strangers_beyond_the_limit_push_out_the_oldest_and_those_with_a_token_stay(tmp_path: Path) -> None:
    async with place_at(tmp_path, Crowd(most=10, strangers_most=3)) as place:
        follower = await place.follow()
        strangers = [place.connect("") for _ in range(6)]
        await trio.testing.wait_all_tasks_blocked()
        assert place.site.crowd.count == 4
        with pytest.raises(EOFError):
            await strangers[0].reply()
        assert (await follower.call("hello", protocol=1))["you"] == "human"


async def test_when_everybody_has_a_token_a_new_one_is_told_to_come_later(tmp_path: Path) -> None:
    async with place_at(tmp_path, Crowd(most=1)) as place:
        await place.follow()
        reply = await place.connect().reply()
        assert (reply.status, reply.code) == (503, "busy")


# ---------------------------------------------------------------------- events


async def test_events_come_at_once_and_calls_are_answered_between_them(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        follower = await place.follow()
        sent = await follower.call("chat.message", to="bob", content="hi")
        follower = await place.follow(query="?since=0")
        event = await follower.event("message")
        assert event["message"]["message_id"] == sent["message_id"]
        again = await follower.call("events.subscribe", since=0)
        assert again["data"]["code"] == "not-allowed"


async def test_who_comes_back_with_its_cursor_gets_exactly_what_it_missed(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        person = place.connect()
        for number in range(10):
            await person.rpc("chat.message", to="bob", content=f"{number}")
        for since in (0, 3, 7):
            follower = await place.follow(query=f"?since={since}")
            await person.rpc("chat.message", to="bob", content="live")
            cursors: list[int] = []
            while True:
                event = (await follower.message())["params"]
                cursors.append(event["cursor"])
                if event["type"] == "message" and event["message"]["content"] == "live":
                    break
            stored = [event.cursor for event in await place.hub.store.events(since, 1000)]
            assert cursors == [cursor for cursor in stored if cursor <= cursors[-1]]
            await follower.stream.aclose()
            await person.rpc("chat.history", limit=1)


@pytest.mark.parametrize(("since", "status"), [("99999", 410), ("x", 400), ("-1", 400)])
async def test_a_cursor_that_means_nothing_is_refused_before_the_upgrade(
    tmp_path: Path, since: str, status: int
) -> None:
    async with place_at(tmp_path) as place:
        assert (await place.connect().upgrade(f"/events?since={since}")).status == status


async def test_a_cursor_behind_deleted_events_is_gone(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        for word in ("old", "new"):
            await place.connect().rpc("chat.message", to="human", content=word)
        await place.hub.store.forget(1e12)
        reply = await place.connect().upgrade("/events?since=0")
        assert (reply.status, reply.code) == (410, "cursor-too-old")
        oldest = reply.json["error"]["data"]["oldest"]
        assert (await place.connect().upgrade(f"/events?since={oldest}")).status == 101


async def test_an_agent_follows_its_rooms_and_what_is_for_it_and_the_person_everything(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob", room="den")
        _, token = await place.register("alice")
        alice, person = await place.follow(token), await place.follow()
        den = await place.follow(query="?room=den")
        await place.connect().rpc("chat.message", to="bob", content="in the den")
        await place.connect().rpc("chat.message", to=["bob", "alice"], content="to both")
        await place.connect().rpc("chat.message", to="alice", content="in the lobby")
        assert [(await person.event("message"))["message"]["content"] for _ in range(3)] == [
            *("in the den", "to both", "in the lobby")
        ]
        assert [(await alice.event("message"))["message"]["content"] for _ in range(2)] == ["to both", "in the lobby"]
        assert (await den.event("message"))["message"]["content"] == "in the den"
        assert (await place.connect(token).upgrade("/events?room=den")).status == 403
        assert (await place.connect().upgrade("/events?room=nowhere")).status == 404


async def test_an_agent_is_running_while_it_follows(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        person = place.connect()
        states = []
        alice = await place.follow(token)
        states.append((await person.rpc("agent.list"))[0]["state"])
        await alice.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        states.append((await person.rpc("agent.list"))[0]["state"])
        assert states == ["running", "inactive"]


async def test_what_is_not_acknowledged_comes_again_and_what_is_does_not(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        person = place.connect()
        first = await person.rpc("chat.message", to="alice", content="while away")
        alice = await place.follow(token)
        event = await alice.event("message")
        assert (event["again"], event["message"]["message_id"]) == (True, first["message_id"])
        second = await person.rpc("chat.message", to="alice", content="live")
        event = await alice.event("message")
        assert ("again" in event, event["message"]["message_id"]) == (False, second["message_id"])
        assert await alice.call("inbox.ack", message_id=first["message_id"]) == {"message_id": first["message_id"]}
        await alice.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        alice = await place.follow(token)
        event = await alice.event("message")
        assert (event["again"], event["message"]["message_id"]) == (True, second["message_id"])
        await alice.call("inbox.ack", message_id=second["message_id"])
        await alice.call("inbox.ack", message_id=second["message_id"])
        assert await person.rpc("inbox.get", name="alice") == []
        story = (await person.rpc("chat.get", message_id=first["message_id"]))["steps"]["alice"]
        assert [step["step"] for step in story] == ["held", "submitted"]
        assert story[-1]["evidence"] == "acknowledged by the program itself"


async def test_with_a_cursor_nothing_comes_twice_on_one_connection(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        person = place.connect()
        ids = [(await person.rpc("chat.message", to="alice", content=f"{n}"))["message_id"] for n in range(30)]
        seq = (await person.rpc("chat.get", message_id=ids[10]))["seq"]
        alice = await place.follow(token, f"?since={seq}")
        seen: dict[str, bool] = {}
        while len(seen) < 27:  # those behind the cursor, and a window of those before it
            message = await alice.event("message")
            assert message["message"]["message_id"] not in seen
            seen[message["message"]["message_id"]] = message.get("again", False)
        assert [id for id, again in seen.items() if not again] == ids[11:]
        assert [id for id, again in seen.items() if again] == ids[: 27 - 19]


@pytest.mark.parametrize("whose", ["human", "carol"])
async def test_only_the_addressee_acknowledges(tmp_path: Path, whose: str) -> None:
    async with place_at(tmp_path) as place:
        await place.register("alice")
        _, carols = await place.register("carol")
        sent = await place.connect().rpc("chat.message", to="alice", content="hi")
        error = await place.connect(carols if whose == "carol" else None).rpc("inbox.ack", **_id(sent))
        assert error["data"]["code"] == ("not-allowed" if whose == "human" else "no-such-message")
        assert len(await place.connect().rpc("inbox.get", name="alice")) == 1


def _id(sent: dict[str, Any]) -> dict[str, Any]:
    return {"message_id": sent["message_id"]}


async def test_server_sent_events_have_cursors_and_go_on_behind_the_last_one(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        await place.connect().rpc("chat.message", to="human", content="hi")
        await place.connect().rpc("chat.message", to="human", content="hi")
        ids = []
        for query, headers in (("?since=0", {}), ("", {"Last-Event-ID": "2"})):
            web = place.connect()
            request = web.request("GET", f"/events{query}", Accept="text/event-stream", **headers)
            await web.stream.send_all(request)
            reply = await web.reply()
            assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
            await place.connect().rpc("chat.message", to="bob", content="hi")
            while not (line := await web.line()).startswith(b"id: "):
                pass
            ids.append(int(line[4:]))
            while not (line := await web.line()).startswith(b"data: "):
                pass
            assert json.loads(line[6:])["cursor"] == ids[-1]
            await web.stream.aclose()
        assert ids == [1, 3]


async def test_server_sent_events_end_with_the_reason(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        follower, other = place.connect(token), place.connect()
        for web in (follower, other):
            await web.stream.send_all(web.request("GET", "/events", Accept="text/event-stream"))
            assert (await web.reply()).status == 200
        await place.connect().rpc("token.revoke", name="alice")
        assert b'"reason":"the token was revoked"' in await follower._until(b"\r\n0\r\n\r\n")
        place.nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            assert b'"reason":"cspd is ending"' in await other._until(b"\r\n0\r\n\r\n")


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
