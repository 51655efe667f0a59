"""The MCP server as its clients see it: the official SDK's in each version, through the pipe, to a whole cspd."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from real.gateway import ask, configure, room_token
from real.instance import Instance

pytestmark = pytest.mark.real

MODES = {"legacy": "2025-11-25", "auto": "2026-07-28", "2026-07-28": "2026-07-28"}
PATIENCE_SEC = 60.0
PIPE = (sys.executable, "-P", "-m", "cspctl", "mcp")


@asynccontextmanager
async def connected(instance: Instance, mode: str, *command: str) -> AsyncIterator[Client]:
    program, *arguments = command or PIPE
    parameters = StdioServerParameters(command=program, args=arguments, env=instance.env, cwd=str(instance.root))
    with trio.fail_after(PATIENCE_SEC):
        async with Client(stdio_client(parameters), mode=mode) as client:
            yield client


@pytest.fixture
def room(instance: Instance) -> Instance:
    """Two agents: bob is a shell; alice is an MCP server, whose ends are two FIFOs: what comes out of it is alice's."""
    for name in ("in", "out"):
        os.mkfifo(instance.root / name)
    instance.add("bob", "bash", "--norc")
    command = f"exec {shlex.join(PIPE)} <{instance.root}/in >{instance.root}/out"
    instance.ctl("add", "alice", "--restart", "no", "--", "sh", "-c", command)
    instance.wait_idle("bob")
    return instance


def as_alice(room: Instance) -> tuple[str, ...]:
    return ("sh", "-c", f"cat <{room.root}/out & exec cat >{room.root}/in")


def said(instance: Instance) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = instance.call("chat.history")["messages"]
    return found


def failure(result: Any) -> str:
    assert result.is_error
    text: str = result.content[0].text
    return text


@pytest.mark.parametrize("mode", MODES)
async def test_the_official_client_finds_tools_and_resources_in_each_version(instance: Instance, mode: str) -> None:
    async with connected(instance, mode) as client:
        assert client.protocol_version == MODES[mode]
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == ["send_message", "ask", "read_messages", "list_agents", "room_state", "wait_for"]
        assert all(tool.output_schema for tool in tools.values())
        uris = [str(each.uri) for each in (await client.list_resources()).resources]
        assert uris == ["csp://room/lobby", "csp://room/lobby/history"]
        assert len((await client.list_resource_templates()).resource_templates) == 2
        (content,) = (await client.read_resource("csp://room/lobby")).contents
        assert json.loads(content.text)["room"] == "lobby"  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="not known"):
            await client.read_resource("csp://room/nowhere")


@pytest.mark.parametrize("mode", ["legacy", "auto", "2026-07-28"])
async def test_an_agents_tool_call_is_from_that_agent_and_reaches_the_other_as_a_turn(
    room: Instance, mode: str
) -> None:
    async with connected(room, mode, *as_alice(room)) as client:
        assert mode == "2026-07-28" or "You are alice" in (client.instructions or ""), "that one skips the handshake"
        result = await client.call_tool("send_message", {"to": "bob", "content": "echo $((6*7)) is it"})
        sent = result.structured_content
        assert sent is not None
        assert sent["recipients"] == ["bob"]
        (message,) = said(room)
        assert (message["from"], message["message_id"]) == ("alice", sent["message_id"])
        await trio.to_thread.run_sync(room.wait_screen, "bob", "\n42 is it")
        agents = (await client.call_tool("list_agents", {})).structured_content
        assert agents is not None
        assert {agent["name"]: agent["you"] for agent in agents["agents"]} == {"alice": True, "bob": False}


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_what_is_wrong_with_a_call_is_told_and_nothing_is_routed(room: Instance, mode: str) -> None:
    async with connected(room, mode, *as_alice(room)) as client:

        async def refusal(**arguments: Any) -> str:
            return failure(await client.call_tool("send_message", arguments))

        assert "content: got 5 (a number): expected a string" in await refusal(to="bob", content=5)
        assert "to: it is missing" in await refusal(content="x")
        assert "'from': not known" in await refusal(to="bob", content="x", **{"from": "human"})
        assert "agent: 'bobb': not known (did you mean 'bob'?)" in await refusal(to="bobb", content="x")
        assert "the limit is 65536" in await refusal(to="bob", content="x" * 65537)
        assert "there is nothing to say" in await refusal(to="bob", content="  ")
        assert "'alice': is the sender itself" in await refusal(to="alice", content="x")
        assert "message: feedfeed: not in the history" in await refusal(to="bob", content="x", reply_to="feedfeed")
        with pytest.raises(MCPError, match="tool: 'send_mesage': not known"):
            await client.call_tool("send_mesage", {})
        assert "only one can be asked" in failure(await client.call_tool("ask", {"to": "broadcast", "content": "x"}))
        wrong = await client.call_tool("wait_for", {"agent": "bob", "activity": "happy"})
        assert "activity: 'happy': expected one of idle" in failure(wrong)
        own = await client.call_tool("wait_for", {"agent": "alice", "activity": "idle"})
        assert "'alice': is you" in failure(own)
        assert "room: 'x': not known" in failure(await client.call_tool("room_state", {"room": "x"}))
        assert "limit: got 0" in failure(await client.call_tool("read_messages", {"limit": 0}))
    assert said(room) == []


async def test_what_was_said_is_read_on_from_a_cursor(room: Instance) -> None:
    async with connected(room, "auto", *as_alice(room)) as client:

        async def read(**arguments: Any) -> tuple[list[str], int]:
            found = (await client.call_tool("read_messages", arguments)).structured_content
            assert found is not None
            return [message["content"] for message in found["messages"]], found["cursor"]

        for number in range(3):
            await client.call_tool("send_message", {"to": "human", "content": f"number {number}"})
        texts, cursor = await read(limit=2)
        assert texts == ["number 1", "number 2"]
        assert await read(since=cursor) == ([], cursor)
        long = "ö" * 30_000
        await client.call_tool("send_message", {"to": "human", "content": long})
        texts, _ = await read(since=cursor)
        assert texts == [long[:16_000]]
        (content,) = (await client.read_resource("csp://room/lobby/history")).contents
        assert "number 2" in content.text  # type: ignore[union-attr]
        state = (await client.call_tool("room_state", {})).structured_content
        assert state is not None
        assert state["messages"] == 4
        assert [member["name"] for member in state["members"]] == ["alice", "bob"]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_ask_gives_back_a_reply_and_tells_meanwhile_how_far_the_question_is(room: Instance, mode: str) -> None:
    told: list[str] = []

    async def progress(value: float, total: float | None, text: str | None) -> None:
        told.append(text or "")

    script, cspctl = room.root / "reply", shlex.join(PIPE[:-1])
    find_id = "import json, sys; print(json.loads(sys.stdin.readline())['message_id'])"
    script.write_text(
        f"""id=$({cspctl} --json history --to bob -n 1 | {sys.executable} -c {shlex.quote(find_id)})
{cspctl} send --to alice --reply-to $id it is 42
"""
    )
    async with connected(room, mode, *as_alice(room)) as client:
        question = {"to": "bob", "content": f". {script} now", "timeout_sec": 50}
        result = await client.call_tool("ask", question, progress_callback=progress)
    answer = result.structured_content
    assert answer is not None
    assert (answer["answered"], answer["answer"]) == (True, "it is 42"), answer
    assert "bob: typing" in told
    (said,) = [each for each in room.call("chat.history")["messages"] if each["from"] == "bob"]
    (first, last) = room.call("chat.get", message_id=said["message_id"])["steps"]["alice"]
    assert (first["step"], first["reason"], last["step"]) == ("held", "ask", "submitted")  # never typed


async def test_ask_does_not_wait_longer_than_it_was_told(room: Instance) -> None:
    room.ctl("pause", "bob")
    async with connected(room, "auto", *as_alice(room)) as client:
        result = await client.call_tool("ask", {"to": "bob", "content": "true", "timeout_sec": 0.2})
    answer = result.structured_content
    assert answer is not None
    assert (answer["answered"], answer["step"]) == (False, "held")
    assert "no answer within 0.2 s" in answer["why"]


async def test_wait_for_sees_another_agent_come_to_rest(room: Instance) -> None:
    async with connected(room, "auto", *as_alice(room)) as client:
        await client.call_tool("send_message", {"to": "bob", "content": "sleep 1"})
        busy = {"agent": "bob", "activity": "busy", "timeout_sec": 50}
        assert (await client.call_tool("wait_for", busy)).structured_content["reached"]  # type: ignore[index]
        soon = {"agent": "bob", "activity": "exited", "timeout_sec": 0}
        assert not (await client.call_tool("wait_for", soon)).structured_content["reached"]  # type: ignore[index]
        idle = {"agent": "bob", "activity": "idle", "timeout_sec": 50}
        found = (await client.call_tool("wait_for", idle)).structured_content
        assert found == {"reached": True, "state": "running", "activity": "idle"}


class Raw:
    """The pipe spoken to by hand, for what the SDK's client would not do."""

    def __init__(self, instance: Instance) -> None:
        self.process = subprocess.Popen(
            PIPE, env=instance.env, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=instance.root
        )

    def send(self, **body: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **body}).encode() + b"\n")

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        body: dict[str, Any] = json.loads(self.process.stdout.readline())
        return body

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *problem: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_cancelled_call_ends_and_gets_no_reply(room: Instance) -> None:
    room.ctl("pause", "bob")
    with Raw(room) as raw:
        asked = {"name": "ask", "arguments": {"to": "bob", "content": "x"}, "_meta": {"progressToken": "t"}}
        raw.send(id=1, method="tools/call", params=asked)
        assert raw.read()["params"]["message"] == "bob: held (paused)"
        raw.send(method="notifications/cancelled", params={"requestId": 1})
        raw.send(method="notifications/cancelled", params={"requestId": 77})
        raw.send(id=2, method="ping")
        assert raw.read()["id"] == 2
        room.ctl("resume", "bob")
        room.wait_screen("bob", "x: command not found")
        raw.send(id=3, method="ping")
        assert raw.read()["id"] == 3, "nor is there any more progress"


def test_a_version_that_nobody_speaks_is_refused_with_those_that_we_do(instance: Instance) -> None:
    with Raw(instance) as raw:
        meta = {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
        raw.send(id=1, method="tools/list", params={"_meta": meta})
        error = raw.read()["error"]
        assert error["code"] == -32022
        assert error["data"]["supported"] == ["2026-07-28"]
        raw.send(id=2, method="initialize", params={"protocolVersion": "1999-01-01"})
        assert raw.read()["result"]["protocolVersion"] == "2025-11-25"
        raw.send(id=3, method="initialize", params={"protocolVersion": "2024-11-05"})
        assert raw.read()["result"]["protocolVersion"] == "2024-11-05"
        raw.send(id=4, method="tools/cal")
        error = raw.read()["error"]
        assert (error["code"], error["data"]["hint"]) == (-32601, "did you mean 'tools/call'?")


async def test_the_client_keeps_its_server_over_a_restart_of_cspd(room: Instance) -> None:
    async with connected(room, "legacy", *as_alice(room)) as client:
        await client.call_tool("send_message", {"to": "human", "content": "before"})
        assert room.daemon is not None
        room.daemon.kill()
        room.daemon.wait()
        with pytest.raises(MCPError, match="not running"):
            await client.call_tool("send_message", {"to": "human", "content": "meanwhile"})
        await trio.to_thread.run_sync(room.start)
        await client.call_tool("send_message", {"to": "human", "content": "after"})
    assert [(message["from"], message["content"]) for message in said(room)] == [
        ("alice", "before"),
        ("alice", "after"),
    ]


def test_a_waiting_server_is_small(instance: Instance) -> None:
    with Raw(instance) as raw:
        raw.send(id=1, method="initialize", params={"protocolVersion": "2025-11-25"})
        raw.read()
        rollup = Path(f"/proc/{raw.process.pid}/smaps_rollup").read_text()
    private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private"))
    assert private < 8 * 1024, f"{private} kB"


@pytest.mark.parametrize("mode", MODES)
async def test_a_registered_program_has_the_same_tools_over_http(instance: Instance, mode: str) -> None:
    instance.add("bob", "bash", "--norc")
    where = await trio.to_thread.run_sync(configure, instance)
    _, told = ask(where, "POST", "/register", {"name": "planner"}, room_token(instance))
    with trio.fail_after(PATIENCE_SEC):
        async with (
            create_mcp_http_client(headers={"Authorization": f"Bearer {told['token']}"}) as http,
            Client(streamable_http_client(f"http://{where}/mcp", http_client=http), mode=mode) as client,
        ):
            assert client.protocol_version == MODES[mode]
            assert "send_message" in [tool.name for tool in (await client.list_tools()).tools]
            result = await client.call_tool("send_message", {"to": "bob", "content": "by HTTP"})
            assert not result.is_error
            assert "nobody" in failure(await client.call_tool("send_message", {"to": "nobody", "content": "x"}))
    assert [(message["from"], message["content"]) for message in said(instance)] == [("planner", "by HTTP")]


# the SDK's client leaves its generators behind when it has closed the response that they read
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_over_http_too_progress_comes_before_the_answer_and_a_caller_that_gives_up_has_cancelled(
    instance: Instance, mode: str
) -> None:
    where = await trio.to_thread.run_sync(configure, instance)
    told = [ask(where, "POST", "/register", {"name": name}, room_token(instance))[1] for name in ("planner", "bob")]
    headers, bobs = {"Authorization": f"Bearer {told[0]['token']}"}, told[1]["token"]
    seen: list[str] = []
    heard = trio.Event()

    async def progress(value: float, total: float | None, text: str | None) -> None:
        seen.append(text or "")
        heard.set()

    def answer() -> None:
        asked = said(instance)[-1]["message_id"]
        reply = {"to": "planner", "content": "42", "reply_to": asked}
        ask(where, "POST", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": "chat.message", "params": reply}, bobs)

    def following() -> bool:
        page = ask(where, "GET", "/metrics", token=room_token(instance))[1].decode()
        return "csp_subscribers 0" not in page

    with trio.fail_after(PATIENCE_SEC):
        async with (
            create_mcp_http_client(headers=headers) as http,
            Client(streamable_http_client(f"http://{where}/mcp", http_client=http), mode=mode) as client,
            trio.open_nursery() as nursery,
        ):
            question = {"to": "bob", "content": "6 * 7?", "timeout_sec": 50}
            async with trio.open_nursery() as waiting:

                async def reply_when_asked() -> None:
                    await heard.wait()
                    await trio.to_thread.run_sync(answer)

                waiting.start_soon(reply_when_asked)
                result = await client.call_tool("ask", question, progress_callback=progress)
            assert result.structured_content is not None
            assert result.structured_content["answer"] == "42"
            assert seen[0] == "bob: held (offline)"
            heard = trio.Event()
            given_up = trio.CancelScope()

            async def give_up() -> None:
                with given_up:
                    await client.call_tool("ask", question, progress_callback=progress)

            nursery.start_soon(give_up)
            await heard.wait()
            assert await trio.to_thread.run_sync(following)
            given_up.cancel()
            while await trio.to_thread.run_sync(following):  # nothing announces it
                await trio.lowlevel.checkpoint()
