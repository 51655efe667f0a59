"""Events as clients of the gateway follow them: cursors, rooms, acknowledgements, also without a WebSocket."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from web.site import place_at

pytestmark = pytest.mark.real


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


async def test_of_several_connections_the_newest_stays_the_one_that_takes_messages(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        several = [await place.follow(token) for _ in range(3)]
        newest = place.hub.links["alice"]
        for which in (1, 0):
            await several[which].stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            assert place.hub.links["alice"] is newest


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
async def test_an_agent_that_follows_on_several_connections_is_running_until_the_last_ends(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        person = place.connect()
        several = [await place.follow(token) for _ in order]
        states = []
        for which in order:
            await several[which].stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            states.append((await person.rpc("agent.list"))[0]["state"])
            sent = await person.rpc("chat.message", to="alice", content="for whoever is there")
            waiting = place.hub.inboxes["alice"].items[sent["message_id"]]
            assert (waiting.step == "held") is (states[-1] == "inactive")
        assert states == ["running", "running", "inactive"]


async def test_what_waits_comes_once_on_each_connection_however_many_others_come_and_go(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, token = await place.register("alice")
        person = place.connect()
        first = await person.rpc("chat.message", to="alice", content="while away")
        alice = await place.follow(token)
        for _ in range(3):
            other = await place.follow(token)
            assert (await other.event("message"))["message"]["message_id"] == first["message_id"]
            await other.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
        await person.rpc("chat.message", to="alice", content="live")
        heard = [(await alice.event("message"))["message"]["content"] for _ in range(2)]
        assert heard == ["while away", "live"]


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
