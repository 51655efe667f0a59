"""What the tools do: each takes its arguments, asks the methods that everybody else asks, and shapes the result.

A CspError out of here is the tool's error and goes to the model; nothing has been routed then.
"""

import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from cspd.control import agents, chat
from cspd.control.call import Caller, Services
from cspd.control.mcp.answer import Outcome, Question
from cspd.control.mcp.tools import ACTIVITIES, ASK_SEC, MESSAGES, MESSAGES_MAX, WAIT_MAX_SEC
from cspd.control.params import Params
from cspd.errors import CspError, nearest
from cspd.gateway.feed import Published
from cspd.gateway.question import Asked
from cspd.gateway.room import EVERYBODY, LOBBY

CONTENT_SHOWN = 16_000  # characters of one message that are read back
ALL_SHOWN = 200_000  # and of all of them: a reply must fit into a frame, and into a model
LAST_WORD_SEC = 2.0  # after the end of a turn: what it said by keyword may come a moment later


@attrs.frozen
class ToolCall:
    """One call of a tool. `progress` tells the client how things stand; it does not wait for anything long."""

    services: Services
    caller: Caller
    arguments: Params
    progress: Callable[[str], Awaitable[None]]

    async def ask(self, method: Callable[..., Any], **params: Any) -> Any:
        """The answer of a method of cspd, asked in the name of this caller."""
        value = method(self.services, self.caller, Params(params))
        return await value if inspect.isawaitable(value) else value

    @property
    def home(self) -> str:
        """The caller's own room; the person is at home in the lobby."""
        return self.services.hub.rooms.home.get(self.caller.identity.name, LOBBY)

    def patience(self) -> float:
        """The argument `timeout_sec`."""
        asked = self.arguments.seconds("timeout_sec")
        return ASK_SEC if math.isinf(asked) else min(asked, WAIT_MAX_SEC)


async def send_message(call: ToolCall) -> dict[str, Any]:
    to, content = call.arguments.recipients("to"), call.arguments.text("content")
    reply_to = call.arguments.maybe_text("reply_to")
    call.arguments.check()
    posted = await call.ask(chat.chat_message, to=recipients(to), content=content, reply_to=reply_to or None)
    return {key: posted[key] for key in ("message_id", "room", "recipients")}


def recipients(to: str | list[str]) -> str | list[str]:
    """Models write lists as text, too."""
    words = to.split(",") if isinstance(to, str) else to
    names = [word.strip().removeprefix("@") for word in words]
    return names[0] if len(names) == 1 else [name for name in names if name]


async def ask(call: ToolCall) -> dict[str, Any]:
    to, content, patience = call.arguments.text("to"), call.arguments.text("content"), call.patience()
    call.arguments.check()
    name = recipients(to)
    if not isinstance(name, str) or name in EVERYBODY:
        raise CspError("invalid-params", f"to: {to!r}: only one can be asked", "use send_message to tell several")
    since = call.services.hub.store.committed_cursor
    posted = await call.ask(chat.chat_message, to=name, content=content)
    hub, question = call.services.hub, Question(Asked(posted["message_id"], call.caller.identity.name, name))
    with hub.awaiting(question.asked) as took:
        outcome = await _answer(call, question, since, patience)
        took(outcome.message_id)
    return {
        "answered": outcome.answered,
        "answer": outcome.answer,
        "message_id": posted["message_id"],
        "step": question.step,
        "why": outcome.why,
    }


async def _answer(call: ToolCall, question: Question, since: int, patience: float) -> Outcome:
    """Follow the events from before the question on, until one of them is its answer."""
    found: list[Outcome] = []
    with trio.move_on_after(patience) as scope:

        async def see(news: list[Published]) -> None:
            for event in (published.event for published in news):
                before = question.standing
                if outcome := question.see(event.type, event.data):
                    found.append(outcome)
                    scope.cancel()
                    return
                if question.over:
                    scope.deadline = min(scope.deadline, trio.current_time() + LAST_WORD_SEC)
                if question.standing != before:
                    await call.progress(f"{question.asked.to}: {question.standing}")

        await call.services.hub.follow(since, None, see)
    return found[0] if found else question.given_up(patience)


async def read_messages(call: ToolCall) -> dict[str, Any]:
    room, since = call.arguments.maybe_text("room"), call.arguments.maybe_integer("since")
    limit = call.arguments.integer("limit", MESSAGES, 1, MESSAGES_MAX)
    call.arguments.check()
    return await messages_of(call, room or call.home, since, limit)


async def messages_of(call: ToolCall, room: str, since: int | None, limit: int) -> dict[str, Any]:
    found = await call.ask(chat.chat_history, room=room, since=since, limit=limit)
    shown = fitting([_message(message) for message in found["messages"]], oldest_first=since is not None)
    cursor = shown[-1]["cursor"] if shown else found["cursor"] if since is None else since
    return {"messages": shown, "cursor": cursor}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message["content"]
    return {
        "cursor": message["seq"],
        **{key: message[key] for key in ("message_id", "room", "from", "to", "kind", "ts")},
        "content": content[:CONTENT_SHOWN],
        "cut": len(content) > CONTENT_SHOWN,
    }


def fitting(messages: Sequence[dict[str, Any]], *, oldest_first: bool) -> list[dict[str, Any]]:
    """As many as may be shown at once: the first ones of those after a cursor, else the last ones."""
    kept: list[dict[str, Any]] = []
    left = ALL_SHOWN
    for message in messages if oldest_first else reversed(messages):
        left -= len(message["content"])
        if left < 0 and kept:
            break
        kept.append(message)
    return kept if oldest_first else kept[::-1]


async def list_agents(call: ToolCall) -> dict[str, Any]:
    found = await call.ask(agents.agent_list)
    return {"agents": [_agent(call, agent) for agent in found]}


def _agent(call: ToolCall, agent: Mapping[str, Any]) -> dict[str, Any]:
    shown = {key: agent[key] for key in ("name", "room", "state", "activity", "queued")}
    return {**shown, "you": agent["name"] == call.caller.identity.agent}


async def room_state(call: ToolCall) -> dict[str, Any]:
    room = call.arguments.maybe_text("room")
    call.arguments.check()
    return await state_of(call, room or call.home)


async def state_of(call: ToolCall, room: str) -> dict[str, Any]:
    found = await call.ask(chat.room_get, room=room)
    members = [_agent(call, agent) for agent in found["agents"]]
    return {**{key: found[key] for key in ("room", "topic", "messages", "paused")}, "members": members}


async def wait_for(call: ToolCall) -> dict[str, Any]:
    name, activity, patience = call.arguments.text("agent"), call.arguments.text("activity"), call.patience()
    call.arguments.check()
    if name == call.caller.identity.agent:
        raise CspError("invalid-params", f"agent: {name!r}: is you, and busy as long as you wait", "name another agent")
    if activity not in ACTIVITIES:
        hint = nearest(activity, ACTIVITIES)
        raise CspError("invalid-params", f"activity: {activity!r}: expected one of {', '.join(ACTIVITIES)}", hint)
    try:
        now = await call.ask(agents.agent_wait, name=name, timeout_sec=patience, **{"for": activity})
        reached = True
    except CspError as exc:
        if exc.code != "timed-out":
            raise
        now, reached = await call.ask(agents.agent_get, name=name, brief=True), False
    return {"reached": reached, "state": now["state"], "activity": now["activity"]}


CALLS: Mapping[str, Callable[[ToolCall], Awaitable[dict[str, Any]]]] = {
    "send_message": send_message,
    "ask": ask,
    "read_messages": read_messages,
    "list_agents": list_agents,
    "room_state": room_state,
    "wait_for": wait_for,
}
