"""How units and events look on the wire. Shapes only."""

from typing import Any

import trio

from cspd.gateway.feed import Published
from cspd.gateway.history import Event
from cspd.gateway.hub import Hub
from cspd.unit.machine import State
from cspd.unit.supervise import Supervised
from cspd.wire import rpc


def agent_json(hub: Hub, supervised: Supervised) -> dict[str, Any]:
    """One row of `list --json`, and a little more."""
    unit, name = supervised.unit, supervised.name
    link = hub.links.get(name)
    alive = unit.state in (State.RUNNING, State.STOPPING)
    inbox = hub.inboxes.get(name)
    return {
        "name": name,
        "state": unit.state.value,
        "activity": (link.activity if link else "starting") if alive else None,
        "pid": unit.pid,
        "uptime_sec": round(trio.current_time() - unit.started_at, 3) if unit.started_at is not None else None,
        "restarts": unit.restarts,
        "queued": len(inbox) if inbox is not None else 0,
        "attached": link.attached if link else 0,
        "room": unit.config.room,
        "profile": unit.config.profile,
        "command": list(unit.config.command),
        "reason": unit.reason,
        "want": unit.want.value,
        "sidecar": {"pid": supervised.sidecar_pid} if supervised.sidecar_pid else None,
        "paused": name in hub.paused,
        "guard": hub.moderator.why_held(name),
        "autostart": unit.config.autostart,
        "activity_reason": link.activity_reason if link else "",
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
