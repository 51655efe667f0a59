"""MCP's methods: the handshakes of its versions, tools with progress and cancellation, rooms as resources.

They need the whole request, because a cancellation names it by its id. Nothing here knows how it came: by the pipe of
`cspctl mcp`, or over HTTP. What a tool does is `calls`'.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
import trio

from cspd import __version__
from cspd.control.call import Caller, Services
from cspd.control.mcp.calls import CALLS, ToolCall, messages_of, state_of
from cspd.control.mcp.tools import MESSAGES, TOOLS, Tool, named_tool
from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.introduction import How, introduction
from cspd.gateway.room import LOBBY
from cspd.wire import rpc

MODERN = ("2026-07-28",)  # without a handshake: each request says its version
CLASSIC = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES: dict[str, Any] = {"tools": {}, "resources": {}}
COMPLETE = {"resultType": "complete"}  # older clients ignore both
CACHING = {"ttlMs": 0, "cacheScope": "private"}
FOR_THE_PERSON = (
    "Agents that run in terminals under CSP. What you send to them comes from the person who runs you, called human."
)
BEAT_SEC = 10.0  # while a tool waits; clients give up on what is silent
ROOM_URI = re.compile(r"csp://room/([^/]+?)(/history)?")

Result = dict[str, Any]


def _server(services: Services, caller: Caller) -> Result:
    info = {"name": "csp", "title": "CLI Sidecar Protocol", "version": __version__}
    return {"serverInfo": info, "capabilities": CAPABILITIES, "instructions": _instructions(services, caller)}


def _instructions(services: Services, caller: Caller) -> str:
    name, rooms = caller.identity.agent, services.hub.rooms
    if name is None:
        return FOR_THE_PERSON
    agent = services.hub.agents.get(name)
    if agent is None or agent.introduce == "no":  # None: it was removed, and this process of it has outlived it
        return ""
    room = rooms.home.get(name, LOBBY)
    # Who reads this has the tool, so nothing else is named: codex's sandbox forbids its shell to run `cspctl send`.
    return introduction(name, room, rooms.members(room), How(tool=True, command=False))


def discover(services: Services, caller: Caller, request: rpc.Request) -> Result:
    return {"supportedVersions": [*MODERN, *CLASSIC], **_server(services, caller), **COMPLETE, **CACHING}


def initialize(services: Services, caller: Caller, request: rpc.Request) -> Result:
    asked = request.params.get("protocolVersion")
    if not isinstance(asked, str):
        raise CspError("invalid-params", f"protocolVersion: got {asked!r:.80}: expected a string")
    return {"protocolVersion": asked if asked in CLASSIC else CLASSIC[0], **_server(services, caller)}


def ping(services: Services, caller: Caller, request: rpc.Request) -> Result:
    return COMPLETE


def noted(services: Services, caller: Caller, request: rpc.Request) -> None:
    """A notification that changes nothing: there is no state of a session."""


def cancelled(services: Services, caller: Caller, request: rpc.Request) -> None:
    """The client does not want the answer any more. What the tool has sent stays sent."""
    id = request.params.get("requestId")
    if isinstance(id, int | str) and (scope := caller.waiting.get(id)):
        scope.cancel()


def tools_list(services: Services, caller: Caller, request: rpc.Request) -> Result:
    return {"tools": [tool.describe() for tool in TOOLS.values()], **COMPLETE, **CACHING}


def tools_call(services: Services, caller: Caller, request: rpc.Request) -> Awaitable[Any]:
    tool = named_tool(request.params.get("name"))
    arguments = _object(request.params, "arguments")
    progress = Progress(caller, _object(request.params, "_meta").get("progressToken"))
    call = ToolCall(services, caller, Params(arguments), progress.say)

    async def answer() -> Any:
        scope = trio.CancelScope()
        if request.id is not None:
            caller.waiting[request.id] = scope
        try:
            with scope:
                return await _with_progress(tool, call, arguments, progress)
        finally:
            if caller.waiting.get(request.id) is scope:
                del caller.waiting[request.id]
        return rpc.NO_REPLY  # the client has cancelled it, and must not get one

    return answer()


async def _with_progress(tool: Tool, call: ToolCall, arguments: Result, progress: "Progress") -> Result:
    if not tool.waits or progress.token is None:
        return await _result(tool, call, arguments)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(progress.beat)
        result = await _result(tool, call, arguments)
        nursery.cancel_scope.cancel()
    return result


async def _result(tool: Tool, call: ToolCall, arguments: Result) -> Result:
    """A failure is a result as well: the model shall read it and do better."""
    try:
        tool.check_names(arguments)
        structured = await CALLS[tool.name](call)
    except CspError as exc:
        return {"content": [_text(str(exc))], "isError": True, **COMPLETE}
    text = json.dumps(structured, ensure_ascii=False)  # for clients that know no structured results
    return {"content": [_text(text)], "structuredContent": structured, "isError": False, **COMPLETE}


def _text(text: str) -> Result:
    return {"type": "text", "text": text}


def _object(params: Mapping[str, Any], key: str) -> Result:
    value = params.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CspError("invalid-params", f"{key}: got {rpc.kind_of(value)}: expected an object")
    return value


@attrs.define
class Progress:
    """Tells the client that its call goes on, where it asked for that by a token."""

    caller: Caller
    token: Any
    _count: int = 0
    _said: str = "waiting"

    async def say(self, message: str) -> None:
        if self.token is None:
            return
        self._count += 1
        self._said = message
        params = {"progressToken": self.token, "progress": self._count, "message": message}
        try:
            await self.caller.peer.notify("notifications/progress", params)
        except CspError:
            pass  # the connection ends, and the call with it

    async def beat(self) -> None:
        while True:
            await trio.sleep(BEAT_SEC)
            await self.say(self._said)


def resources_list(services: Services, caller: Caller, request: rpc.Request) -> Result:
    found = []
    for room in services.hub.rooms.names():
        found.append(_resource(f"csp://room/{room}", f"room {room}", "its topic and members, and what each is doing"))
        found.append(_resource(f"csp://room/{room}/history", f"history of room {room}", "its last messages"))
    return {"resources": found, **COMPLETE, **CACHING}


def _resource(uri: str, name: str, description: str, key: str = "uri") -> Result:
    return {key: uri, "name": name, "description": description, "mimeType": "application/json"}


def templates_list(services: Services, caller: Caller, request: rpc.Request) -> Result:
    found = [
        _resource("csp://room/{room}", "room", "a room's topic and members, and what each is doing", "uriTemplate"),
        _resource("csp://room/{room}/history", "history", "a room's last messages", "uriTemplate"),
    ]
    return {"resourceTemplates": found, **COMPLETE, **CACHING}


def resources_read(services: Services, caller: Caller, request: rpc.Request) -> Awaitable[Result]:
    uri = request.params.get("uri")
    match = ROOM_URI.fullmatch(uri) if isinstance(uri, str) else None
    if match is None or match[1] not in services.hub.rooms.names():
        raise CspError("no-such-resource", f"resource: {uri!r:.200}: not known", "resources/list shows them all")
    call = ToolCall(services, caller, Params({}), Progress(caller, None).say)

    async def answer() -> Result:
        found = await (messages_of(call, match[1], None, MESSAGES) if match[2] else state_of(call, match[1]))
        text = json.dumps(found, ensure_ascii=False, indent=1)
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": text}], **COMPLETE, **CACHING}

    return answer()


def check_version(request: rpc.Request) -> None:
    """Raises CspError("unsupported-protocol-version") for a request that names a version which we do not speak."""
    meta = request.params.get("_meta")
    asked = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
    if asked is not None and asked not in MODERN:
        raise CspError(
            "unsupported-protocol-version",
            f"protocol version: {asked!r:.80}: not spoken here",
            f"spoken: {', '.join(MODERN)}; by initialize: {', '.join(CLASSIC)}",
            {"supported": list(MODERN), "requested": asked},
        )


McpMethod = Callable[[Services, Caller, rpc.Request], Any]

MCP_METHODS: Mapping[str, McpMethod] = {
    "server/discover": discover,
    "initialize": initialize,
    "ping": ping,
    "notifications/initialized": noted,
    "notifications/cancelled": cancelled,
    "tools/list": tools_list,
    "tools/call": tools_call,
    "resources/list": resources_list,
    "resources/templates/list": templates_list,
    "resources/read": resources_read,
}
