"""`POST /mcp` as clients see it: progress before the answer, cancellation by hanging up or by another request."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from web.peer import Reply, Web
from web.site import Place, place_at

from cspd.web import mcp

pytestmark = pytest.mark.real

BOTH = "application/json, text/event-stream"


def asking(content: str = "hi", token: Any = "t", id: int = 1) -> dict[str, Any]:
    """A call that waits: nobody ever takes bob's messages."""
    params: dict[str, Any] = {"name": "ask", "arguments": {"to": "bob", "content": content, "timeout_sec": 3000}}
    params |= {"_meta": {"progressToken": token}} if token is not None else {}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


async def post(web: Web, body: dict[str, Any], accept: str = BOTH, **headers: str) -> None:
    await web.stream.send_all(web.request("POST", "/mcp", json.dumps(body).encode(), Accept=accept, **headers))


async def head(web: Web) -> Reply:
    reply = await web.reply()
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream")
    return reply


async def event(web: Web) -> dict[str, Any]:
    """The next event of the stream: all of it is one chunk."""
    while not (line := await web.line()).startswith(b"data: "):
        pass
    body: dict[str, Any] = json.loads(line[6:])
    return body


async def to_the_end(web: Web) -> bytes:
    return await web._until(b"\r\n0\r\n\r\n")


def waits(place: Place) -> int:
    """How many follow the events: a tool that waits is one."""
    return len(place.hub.subscribers.feeds)


async def until_waiting(place: Place, count: int) -> None:
    while waits(place) != count:  # nothing announces it
        await trio.testing.wait_all_tasks_blocked()


async def test_a_waiting_tool_tells_how_far_it_is_and_then_its_result(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, bobs = await place.register("bob")
        web = place.connect()
        await post(web, asking())
        await head(web)
        told = (await event(web))["params"]
        assert (told["progressToken"], told["progress"], told["message"]) == ("t", 1, "bob: held (offline)")
        (message,) = (await place.connect().rpc("chat.history"))["messages"]
        answer = {"to": "human", "content": "42", "meta": {}, "reply_to": message["message_id"]}
        await place.connect(bobs).rpc("chat.message", **answer)
        while "result" not in (last := await event(web)):
            assert last["method"] == "notifications/progress"
        assert last["id"] == 1
        assert last["result"]["structuredContent"]["answer"] == "42"
        await to_the_end(web)
        assert (await web.ask("GET", "/healthz")).body == b"ok\n", "the connection goes on"


async def test_who_takes_no_stream_or_waits_for_nothing_gets_json(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        body = asking()
        body["params"]["arguments"]["timeout_sec"] = 0.01
        reply = await place.connect().ask("POST", "/mcp", body, Accept="application/json")
        assert reply.json["result"]["structuredContent"]["answered"] is False
        listed = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        reply = await place.connect().ask("POST", "/mcp", listed, Accept=BOTH)
        assert (reply.headers["content-type"], reply.json["id"]) == ("application/json", 2)


async def test_without_progress_a_long_answer_is_still_kept_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp, "COMMENT_SEC", 0.01)
    async with place_at(tmp_path) as place:
        await place.register("bob")
        web = place.connect()
        await post(web, asking(token=None))
        await head(web)
        for _ in range(3):
            while await web.line() != b":":
                pass


async def test_a_client_that_hangs_up_has_cancelled(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        web = place.connect()
        await post(web, asking())
        await head(web)
        assert (await event(web))["method"] == "notifications/progress"
        assert waits(place) == 1
        await web.stream.aclose()
        await until_waiting(place, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert place.site.crowd.count == 1, "only the connection that registered bob"


async def test_another_request_of_the_session_cancels_and_none_of_others(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        _, bobs = await place.register("bob")
        begin = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
        sessions = [
            (await place.connect().ask("POST", "/mcp", begin)).headers["mcp-session-id"],
            (await place.connect().ask("POST", "/mcp", begin)).headers["mcp-session-id"],
        ]
        assert sessions[0] != sessions[1]
        web = place.connect()
        await post(web, asking(id=7), Mcp_Session_Id=sessions[0])
        await head(web)
        await event(web)
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        for token, session in ((None, sessions[1]), (bobs, sessions[0]), (None, None)):
            headers = {} if session is None else {"Mcp_Session_Id": session}
            assert (await place.connect(token).ask("POST", "/mcp", cancel, **headers)).status == 202
        assert waits(place) == 1
        assert (await place.connect().ask("POST", "/mcp", cancel, Mcp_Session_Id=sessions[0])).status == 202
        assert b"result" not in await to_the_end(web)
        assert waits(place) == 0


async def test_two_streams_of_one_session_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        await place.register("bob")
        first, second = place.connect(), place.connect()
        for number, web in enumerate((first, second)):
            await post(web, asking(id=number, token=number), Mcp_Session_Id="s")
            await head(web)
            assert (await event(web))["params"]["progressToken"] == number
        await first.stream.aclose()
        await until_waiting(place, 1)
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        await place.connect().ask("POST", "/mcp", cancel, Mcp_Session_Id="s")
        await to_the_end(second)


async def test_there_is_no_stream_to_open_by_itself(tmp_path: Path) -> None:
    async with place_at(tmp_path) as place:
        for method in ("GET", "DELETE"):
            reply = await place.connect().ask(method, "/mcp", Accept="text/event-stream")
            assert (reply.status, reply.headers["allow"]) == (405, "POST")
