"""How units and events look on the wire. Shapes only."""

from typing import Any

import trio

from cspd.gateway.feed import Published
from cspd.gateway.guests import Guest
from cspd.gateway.history import Event
from cspd.gateway.hub import Hub
from cspd.unit.machine import State
from cspd.unit.supervise import Supervised
from cspd.wire import rpc


def agent_json(hub: Hub, member: Supervised | Guest) -> dict[str, Any]:
    """One row of `list --json`, and a little more."""
    return guest_json(hub, member) if isinstance(member, Guest) else unit_json(hub, member)


def guest_json(hub: Hub, guest: Guest) -> dict[str, Any]:
    """The same row. It runs while its sidecar, or whatever else speaks for it, has a link; the rest it says itself."""
    name, told = guest.name, guest.record.capabilities
    link = hub.links.get(name)
    command = told.get("command")
    inbox = hub.inboxes.get(name)
    return {
        "name": name,
        "state": (State.RUNNING if link else State.INACTIVE).value,
        "activity": link.activity if link else None,
        "pid": link.here.agent_pid if link and link.here else None,
        "uptime_sec": round(trio.current_time() - link.since, 3) if link else None,
        "restarts": 0,
        "queued": len(inbox) if inbox is not None else 0,
        "attached": link.attached if link else 0,
        "room": guest.record.room,
        "profile": str(told.get("profile", "")),
        "command": [str(word) for word in command] if isinstance(command, list) else [],
        "reason": "guest" if link else "guest, away",
        "want": None,
        "sidecar": {"pid": link.here.sidecar_pid} if link and link.here else None,
        "paused": hub.is_paused(name),
        "autostart": False,
        "activity_reason": link.activity_reason if link else "",
        "guest": True,
    }


def unit_json(hub: Hub, supervised: Supervised) -> dict[str, Any]:
    unit, name = supervised.unit, supervised.name
    link = hub.links.get(name)
    state, reason = supervised.standing
    alive = state in (State.RUNNING, State.STOPPING)
    gone = bool(supervised.last_words)  # with cspd
    inbox = hub.inboxes.get(name)
    return {
        "name": name,
        "state": state.value,
        "activity": (link.activity if link else "starting") if alive else None,
        "pid": None if gone else unit.pid,
        "uptime_sec": None if unit.started_at is None or gone else round(trio.current_time() - unit.started_at, 3),
        "restarts": unit.restarts,
        "queued": len(inbox) if inbox is not None else 0,
        "attached": link.attached if link else 0,
        "room": unit.config.room,
        "profile": unit.config.profile,
        "command": list((supervised.runs_as if unit.pid and supervised.runs_as else unit.config).command),
        "reason": reason,
        "want": unit.want.value,
        "sidecar": {"pid": supervised.sidecar_pid} if supervised.sidecar_pid and not gone else None,
        "paused": hub.is_paused(name),
        "guard": hub.moderator.why_held(name),
        "autostart": unit.config.autostart,
        "activity_reason": link.activity_reason if link else "",
        "guest": False,
    }


def as_line(published: Published) -> bytes:
    """An `event` notification."""
    return rpc.request("event", event_json(published.event) | ({"again": True} if published.again else {}))


def event_json(event: Event) -> dict[str, Any]:
    """The params of an `event` notification."""
    about = {"cursor": event.cursor, "type": event.type, "ts": event.ts, "room": event.room}
    if event.type == "message":
        kind = "input" if event.data.get("kind") == "input" else "message"
        return {**about, "type": kind, "message": dict(event.data)}
    return {**event.data, **about, **({"agent": event.agent} if event.agent else {})}
