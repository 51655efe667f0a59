"""Who may do what on a connection of the gateway: tokens, names, pages of others, and too many at once."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from web.peer import Web
from web.site import place_at

from cspd.web.crowd import Crowd

pytestmark = pytest.mark.real


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
