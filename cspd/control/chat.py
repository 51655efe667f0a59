"""Methods about messages, events and rooms. A message is answered when it is on disk; events follow their commit."""

from collections.abc import Mapping
from typing import Any

import attrs
import trio

from cspd.control.call import Caller, Method, Services, named_member, people_only
from cspd.control.params import Params
from cspd.control.views import agent_json, as_line
from cspd.errors import CspError, nearest
from cspd.gateway.chain import SYSTEM
from cspd.gateway.feed import Published, check_cursor, in_parts
from cspd.gateway.history import Delivery, Message, message_json
from cspd.gateway.identity import HUMAN
from cspd.gateway.link import Link
from cspd.gateway.room import EVERYBODY, VOTE
from cspd.wire.said import message_id_of

HISTORY_MAX = 10_000
STEPS = ("accepted", "held", "typing", "echoed", "submitted", "turn_started", "turn_ended")


def chat_message(services: Services, caller: Caller, params: Params) -> Any:
    """`from` is the caller's identity; what the request says of it is ignored."""
    to, content, room = params.recipients("to"), params.text("content"), params.maybe_text("room")
    meta, reply_to = params.meta("meta"), params.maybe_text("reply_to")
    urgent, said_id = params.flag("urgent", False), params.maybe_text("said_id") or ""
    params.check()
    meta |= {"urgent": True} if urgent else {}
    sender = caller.identity.name
    message_id = message_id_of(sender, said_id)
    if reply_to is None:
        return services.hub.post(sender, to, content, room=room, meta=meta, message_id=message_id)

    async def answer() -> dict[str, Any]:
        replied = (await services.hub.store.message(reply_to))[0]
        return await services.hub.post(
            sender, to, content, room=room, meta=meta, reply_to=replied, message_id=message_id
        )

    return answer()


def chat_wait(services: Services, caller: Caller, params: Params) -> Any:
    message_id, step, timeout_sec = (
        params.text("message_id"),
        params.text("step"),
        params.seconds("timeout_sec"),
    )
    params.check()
    if step not in STEPS:
        raise CspError("invalid-params", f"step: {step!r}: expected one of {', '.join(STEPS)}", nearest(step, STEPS))

    async def answer() -> dict[str, Any]:
        with trio.move_on_after(timeout_sec):
            return {"message_id": message_id, "deliveries": await services.hub.wait_step(message_id, step)}
        deliveries = (await services.hub.store.message(message_id))[1].values()
        now = ", ".join(f"{d.agent} {d.step}" + (f" ({d.reason})" if d.reason else "") for d in deliveries)
        why = f"message: {message_id}: not {step} within {timeout_sec:g} s: {now}"
        raise CspError("timed-out", why, f"cspctl message {message_id} shows each step")

    return answer()


def chat_get(services: Services, caller: Caller, params: Params) -> Any:
    message_id = params.text("message_id")
    params.check()

    async def answer() -> dict[str, Any]:
        message, deliveries, events = await services.hub.store.message(message_id)
        steps: dict[str, list[dict[str, Any]]] = {name: [] for name in deliveries}
        for event in events:
            if event.type == "message":
                for name, first in event.data["deliveries"].items():
                    if first["step"] == "held":  # from the first moment on
                        steps[name].append({"step": "held", "reason": first["reason"], "evidence": "", "ts": event.ts})
            if event.type == "delivery":
                entry = {key: event.data.get(key, "") for key in ("step", "reason", "evidence")}
                entry |= {"answer": event.data["answer"]} if "answer" in event.data else {}
                steps.setdefault(event.agent, []).append({**entry, "ts": event.ts})
        return {**message_json(message, _as_now(services, message, deliveries)), "steps": steps}

    return answer()


def chat_history(services: Services, caller: Caller, params: Params) -> Any:
    room, sender, to = params.maybe_text("room"), params.maybe_text("from"), params.maybe_text("to")
    grep, since = params.maybe_text("grep"), params.maybe_integer("since")
    limit = params.integer("limit", 50, 0, HISTORY_MAX)
    params.check()
    if room is not None:
        services.hub.rooms.check(room)
    for name in (sender, to):
        if name not in (None, HUMAN, SYSTEM, VOTE, *EVERYBODY, *services.hub.agents):
            services.member(str(name))

    async def answer() -> dict[str, Any]:
        store = services.hub.store
        cursor = store.committed_cursor
        found = await store.messages(room=room, limit=limit, since=since, sender=sender, to=to, grep=grep)
        return {"messages": [message_json(m, d) for m, d in found], "cursor": cursor}

    return answer()


def events_subscribe(services: Services, caller: Caller, params: Params) -> Any:
    since, room = params.maybe_integer("since"), params.maybe_text("room")
    params.check()
    if room is not None:
        services.hub.rooms.check(room)
    if caller.follows:
        raise CspError("not-allowed", "events.subscribe: they come on this connection anyway", "GET /rpc has none")
    cursor = services.hub.store.committed_cursor
    if since is not None:
        check_cursor(services.hub.store, since)

    async def send(batch: list[Published]) -> None:
        for part in in_parts(batch, as_line):
            await caller.peer.send_lines(part)

    async def follow() -> None:
        try:
            await services.hub.follow(cursor if since is None else since, room, send)
        except CspError as exc:
            if exc.code != "unreachable":
                await caller.peer.notify("event", {"type": "dropped", "reason": exc.sentence, "hint": exc.hint})
            await caller.peer.aclose()

    caller.nursery.start_soon(follow)
    return {"cursor": cursor}


async def describe_rooms(services: Services) -> list[dict[str, Any]]:
    tally = await services.hub.store.tally()
    return [_described(services, name, tally) for name in services.hub.rooms.names()]


def _described(services: Services, room: str, tally: Mapping[str, int]) -> dict[str, Any]:
    moderator = services.hub.moderator
    known = services.hub.rooms.describe(room, tally.get(room, 0))
    return {**known, "guard": moderator.described(room), **moderator.assembly.described(room)}


def room_list(services: Services, caller: Caller, params: Params) -> Any:
    return describe_rooms(services)


def room_get(services: Services, caller: Caller, params: Params) -> Any:
    room = params.text("room")
    params.check()
    services.hub.rooms.check(room)

    return room_json(services, room)


async def room_json(services: Services, room: str) -> dict[str, Any]:
    tally = await services.hub.store.tally()
    known = {member.name: member for member in services.members()}  # without who is just being removed
    members = [known[name] for name in services.hub.rooms.members(room) if name in known]
    return {
        **_described(services, room, tally),
        "agents": [agent_json(services.hub, member) for member in members],
    }


def membership(present: bool) -> Method:
    def method(services: Services, caller: Caller, params: Params) -> Any:
        room, name = params.text("room"), params.maybe_text("name") or caller.identity.agent
        params.check()
        if name is None:
            raise CspError("invalid-params", "name: it is missing: expected an agent's name")
        if name != caller.identity.agent:
            people_only(caller, "room.join" if present else "room.leave")
        services.member(name)

        def reply(_: None) -> dict[str, Any]:
            return {"room": room, "members": services.hub.rooms.members(room)}

        return services.hub.set_member(room, name, present).then(reply)

    return method


def inbox_ack(services: Services, caller: Caller, params: Params) -> Any:
    """A program that takes its messages itself has this one: it does not come again."""
    message_id = params.text("message_id")
    params.check()
    agent = caller.identity.agent
    if agent is None or agent not in services.guests.members:
        who = caller.identity.name
        raise CspError("not-allowed", f"inbox.ack: asked by {who}: only a registered program may, for itself")
    if isinstance(services.hub.links.get(agent), Link):
        raise CspError("not-allowed", f"inbox.ack: {agent}: its sidecar has its messages", "leave it to the sidecar")

    async def answer() -> dict[str, Any]:
        message, deliveries, _ = await services.hub.store.message(message_id)
        if agent not in deliveries:
            raise CspError("no-such-message", f"message: {message_id}: was not sent to {agent}")
        await services.hub.step(agent, message.message_id, "submitted", "", "acknowledged by the program itself")
        return {"message_id": message.message_id}

    return answer()


def _as_now(services: Services, message: Message, deliveries: Mapping[str, Delivery]) -> dict[str, Delivery]:
    """With the reason for which it waits now."""
    out = {}
    for name, known in deliveries.items():
        reason = services.hub.held_now(name, message.message_id)
        out[name] = known if reason is None or known.step != "held" else attrs.evolve(known, reason=reason)
    return out


def inbox_get(services: Services, caller: Caller, params: Params) -> Any:
    name = named_member(services, params).name

    async def answer() -> list[dict[str, Any]]:
        pending = await services.hub.store.pending(name)
        return [message_json(message, _as_now(services, message, {name: delivery})) for message, delivery in pending]

    return answer()
