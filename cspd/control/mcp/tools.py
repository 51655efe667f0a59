"""The tools that agents are offered: names, words for the model, JSON schemas of arguments and results. Pure.

What a tool does is `calls`'; here is also decided which arguments it knows at all.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from cspd.errors import CspError, nearest

Schema = dict[str, Any]

WAIT_MAX_SEC = 3600
ASK_SEC = 300
MESSAGES_MAX = 100
MESSAGES = 20
ACTIVITIES = ("idle", "busy", "dialog", "running", "exited")


@attrs.frozen
class Tool:
    """One tool. `waits`: it may take long, reports progress and can be cancelled. `reads`: it changes nothing."""

    name: str
    description: str
    arguments: Mapping[str, Schema]
    required: tuple[str, ...]
    result: Mapping[str, Schema]
    reads: bool = True
    waits: bool = False

    def describe(self) -> dict[str, Any]:
        """As `tools/list` shows it."""
        return {
            "name": self.name,
            "description": self.description,
            "inputSchema": _object(self.arguments, self.required),
            "outputSchema": _object(self.result, tuple(self.result)) | {"additionalProperties": True},
            "annotations": {"readOnlyHint": self.reads, "destructiveHint": False, "openWorldHint": False},
        }

    def check_names(self, arguments: Mapping[str, Any]) -> None:
        """Raises CspError("invalid-params") for arguments that the tool does not know."""
        unknown = [name for name in arguments if name not in self.arguments]
        if unknown:
            hint = nearest(unknown[0], self.arguments) or f"known: {', '.join(self.arguments) or 'none'}"
            raise CspError("invalid-params", f"arguments: {', '.join(map(repr, unknown))}: not known", hint)


def _object(properties: Mapping[str, Schema], required: tuple[str, ...]) -> Schema:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def _seconds(description: str) -> Schema:
    return {"type": "number", "minimum": 0, "maximum": WAIT_MAX_SEC, "description": description}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _maybe(kind: str, description: str) -> Schema:
    return {"type": [kind, "null"], "description": description}


_AGENT: Schema = {
    "type": "object",
    "properties": {
        "name": _text("its name: what `to` takes"),
        "room": _text("its room"),
        "state": _text("running, or why not: inactive, starting, backoff, stopping, failed"),
        "activity": _maybe(
            "string", "idle, busy, dialog (it asks the person), starting, unknown; null: it is not there"
        ),
        "queued": {"type": "integer", "description": "messages that wait for it"},
        "you": _flag("it is you"),
    },
    "required": ["name", "room", "state", "activity", "queued", "you"],
}
_MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "cursor": {"type": "integer"},
        "message_id": _text("what `reply_to` takes"),
        "room": {"type": "string"},
        "from": {"type": "string"},
        "to": {"type": ["string", "array"], "items": {"type": "string"}},
        "content": {"type": "string"},
        "kind": _text("message, input (what the person typed to that agent), system"),
        "ts": {"type": "number", "description": "seconds since 1970"},
        "cut": _flag("the end of a long content is left out"),
    },
    "required": ["cursor", "message_id", "room", "from", "to", "content", "kind", "ts", "cut"],
}
_ID = _text("the message's id")
_TO = "an agent's name; several, with commas between them; 'broadcast' for all in your room; 'human' for the person"

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "send_message",
            "Say something to another agent, to all of them or to the person. It is typed into the agent's terminal as"
            " its next prompt; what it says in return comes to you as a prompt, so do not wait for it.",
            {
                "to": _text(_TO),
                "content": _text("what you say; 64 KiB at most"),
                "reply_to": _text("the id of the message that this one answers"),
            },
            ("to", "content"),
            {"message_id": _ID, "room": _text("where it was said"), "recipients": _list({"type": "string"})},
            reads=False,
        ),
        Tool(
            "ask",
            "Ask one other agent something and wait for its answer. While you wait you take no prompts yourself.",
            {
                "to": _text("the agent's name"),
                "content": _text("the question; 64 KiB at most"),
                "timeout_sec": _seconds(f"how long to wait; {ASK_SEC} when left out"),
            },
            ("to", "content"),
            {
                "answered": _flag("an answer came in time"),
                "answer": _text("what it said; empty without an answer"),
                "message_id": _text("the id of your question"),
                "step": _text("how far your question is: accepted, held, typing, submitted, turn_started, turn_ended"),
                "why": _text("why there is no answer, or how it came"),
            },
            reads=False,
            waits=True,
        ),
        Tool(
            "read_messages",
            "What was said in a room, oldest first: the last messages, or those after a cursor.",
            {
                "room": _text("your own when left out"),
                "since": {"type": "integer", "minimum": 0, "description": "a cursor that an earlier call gave"},
                "limit": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MESSAGES_MAX,
                    "description": f"at most so many; {MESSAGES} when left out",
                },
            },
            (),
            {
                "messages": _list(_MESSAGE),
                "cursor": {"type": "integer", "description": "give it as `since` to get what came later"},
            },
        ),
        Tool(
            "list_agents",
            "All agents: their names, rooms, and what each is doing.",
            {},
            (),
            {"agents": _list(_AGENT)},
        ),
        Tool(
            "room_state",
            "One room: its topic, its members and what each of them is doing.",
            {"room": _text("your own when left out")},
            (),
            {
                "room": {"type": "string"},
                "topic": {"type": "string"},
                "messages": {"type": "integer", "description": "how many were said"},
                "paused": _flag("the person holds all messages back"),
                "members": _list(_AGENT),
            },
        ),
        Tool(
            "wait_for",
            "Wait until another agent is doing something, for example until it is idle again.",
            {
                "agent": _text("the agent's name"),
                "activity": {"type": "string", "enum": list(ACTIVITIES), "description": "what to wait for"},
                "timeout_sec": _seconds(f"how long to wait; {ASK_SEC} when left out"),
            },
            ("agent", "activity"),
            {
                "reached": _flag("it came to that in time"),
                "state": _AGENT["properties"]["state"],
                "activity": _AGENT["properties"]["activity"],
            },
            waits=True,
        ),
    )
}


def named_tool(name: object) -> Tool:
    """Raises CspError("invalid-params") with the nearest known name."""
    if not isinstance(name, str):
        raise CspError("invalid-params", f"name: got {name!r:.80}: expected the name of a tool")
    if name not in TOOLS:
        hint = nearest(name, TOOLS) or f"known: {', '.join(TOOLS)}"
        raise CspError("invalid-params", f"tool: {name!r:.80}: not known", hint)
    return TOOLS[name]
