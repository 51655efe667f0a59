"""The JSON-RPC method table of cspd: what people and programs may ask, and what it takes.

Each method reads its parameters, asks the manager or the hub, and shapes the answer; decisions are theirs. It runs in
the order of arrival up to its first wait; an awaitable that it returns is finished beside later requests.
"""

import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs
import trio

from cspd import __version__
from cspd.control.params import Params
from cspd.control.views import agent_json, event_json
from cspd.errors import CspError, nearest
from cspd.gateway.history import Event, message_json
from cspd.gateway.hub import Hub
from cspd.gateway.identity import HUMAN, Identity
from cspd.gateway.inbox import InHand
from cspd.gateway.link import Link
from cspd.paths import Paths
from cspd.transport import RpcPeer
from cspd.unit.machine import State
from cspd.unit.manager import Manager
from cspd.unit.supervise import Supervised
from cspd.wire import rpc
from cspd.wire.version import PROTOCOL, check_protocol

log = logging.getLogger("cspd.control")

HISTORY_MAX = 10_000
INTRODUCTION_SEC = 2.0
WAITABLE = ("running", "exited", "inactive", "failed", "starting", "idle", "busy", "dialog", "unknown")
STEPS = ("accepted", "held", "typing", "echoed", "submitted", "turn_started", "turn_ended")


class Daemon(Protocol):
    """What only the daemon as a whole can do."""

    async def reload(self) -> dict[str, Any]: ...
    async def load_unit(self, name: str) -> None: ...
    async def remove_unit(self, name: str) -> None: ...
    def log_of(self, name: str) -> list[str]: ...


@attrs.frozen
class Services:
    """What the methods work on."""

    paths: Paths
    hub: Hub
    manager: Manager
    daemon: Daemon
    started_at: float  # trio's clock


@attrs.define(eq=False)
class Caller:
    """The connection that asks. `nursery` ends with it."""

    identity: Identity
    pid: int
    peer: RpcPeer
    nursery: trio.Nursery
    link: Link | None = None


Method = Callable[[Services, Caller, Params], Any]


def dispatch(services: Services, caller: Caller, request: rpc.Request) -> Any:
    """Raises CspError("no-such-method") with the nearest known one."""
    method = METHODS.get(request.method)
    if method is None:
        raise CspError("no-such-method", f"method: {request.method!r}: not known", nearest(request.method, METHODS))
    return method(services, caller, Params(request.params))


def _people_only(caller: Caller, what: str) -> None:
    """An agent may speak and look; running the others is the person's."""
    if caller.identity.agent is not None:
        raise CspError(
            "not-allowed",
            f"{what}: asked by agent {caller.identity.agent}: only the person may",
            "ask the person to do it",
        )


# ---------------------------------------------------------------------- cspd itself


def hello(services: Services, caller: Caller, params: Params) -> dict[str, Any]:
    protocol = check_protocol(params.raw("protocol"), "client")
    return {"protocol": protocol, "program": "cspd", "version": __version__, "you": caller.identity.name}


def daemon_status(services: Services, caller: Caller, params: Params) -> Any:
    async def answer() -> dict[str, Any]:
        keeper = services.manager.keeper
        uptime = trio.current_time() - services.started_at
        return {
            "cspd": {"pid": os.getpid(), "version": __version__, "uptime_sec": round(uptime, 3)},
            "keeper": {"pid": keeper.pid, "version": keeper.version},
            "gateway": {"listen": ""},
            "agents": [agent_json(services.hub, unit) for unit in services.manager.units.values()],
            "rooms": await _rooms(services),
        }

    return answer()


def daemon_reload(services: Services, caller: Caller, params: Params) -> Awaitable[dict[str, Any]]:
    _people_only(caller, "daemon.reload")
    return services.daemon.reload()


# ---------------------------------------------------------------------- agents


def agent_list(services: Services, caller: Caller, params: Params) -> list[dict[str, Any]]:
    return [agent_json(services.hub, unit) for unit in services.manager.units.values()]


def _unit(services: Services, params: Params) -> Supervised:
    name = params.text("name")
    params.check()
    return services.manager.get(name)


def agent_get(services: Services, caller: Caller, params: Params) -> Any:
    unit = _unit(services, params)

    async def answer() -> dict[str, Any]:
        config = unit.unit.config
        return {
            **agent_json(services.hub, unit),
            "log": services.daemon.log_of(unit.name),
            "exit": unit.last_exit,
            "working_directory": str(config.working_directory),
            "restart": config.restart.policy,
            "unit_file": str(services.paths.unit_file(unit.name)),
            "last_lines": await _last_lines(services, unit.name),
        }

    return answer()


async def _last_lines(services: Services, name: str) -> list[str]:
    if name not in services.hub.links:
        return services.hub.last_lines.get(name, [])
    try:
        screen = await services.hub.linked(name).ask("sidecar.screen", {})
    except CspError:
        return []  # it ended just now
    lines = [line for line in screen["text"].split("\n") if line.strip()]
    return lines[-10:]


def agent_load(services: Services, caller: Caller, params: Params) -> Any:
    _people_only(caller, "agent.load")
    name = params.text("name")
    params.check()

    async def answer() -> dict[str, Any]:
        await services.daemon.load_unit(name)
        return agent_json(services.hub, services.manager.get(name))

    return answer()


def agent_remove(services: Services, caller: Caller, params: Params) -> Any:
    _people_only(caller, "agent.remove")
    name = _unit(services, params).name

    async def answer() -> dict[str, Any]:
        await services.daemon.remove_unit(name)
        return {}

    return answer()


def _action(act: Callable[..., Awaitable[None]], what: str) -> Method:
    def method(services: Services, caller: Caller, params: Params) -> Any:
        _people_only(caller, what)
        wait = params.flag("wait", True)
        unit = _unit(services, params)

        async def answer() -> dict[str, Any]:
            await act(services.manager, unit.name, wait=wait)
            return agent_json(services.hub, unit)

        return answer()

    return method


def agent_kill(services: Services, caller: Caller, params: Params) -> Any:
    _people_only(caller, "agent.kill")
    name = params.maybe_text("signal") or "SIGTERM"
    unit = _unit(services, params)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    number = int(name) if name.isdigit() else getattr(signal.Signals, full, None)
    if number is None or number not in signal.valid_signals():
        known = [each.name for each in signal.Signals]
        raise CspError("invalid-params", f"signal: {name!r}: not a signal", nearest(full, known))

    async def answer() -> dict[str, Any]:
        await services.manager.kill(unit.name, number)
        return agent_json(services.hub, unit)

    return answer()


def agent_wait(services: Services, caller: Caller, params: Params) -> Any:
    wanted = params.text("for")
    timeout_sec = params.seconds("timeout_sec")
    unit = _unit(services, params)
    if wanted not in WAITABLE:
        raise CspError(
            "invalid-params",
            f"for: {wanted!r}: expected one of {', '.join(WAITABLE)}",
            nearest(wanted, WAITABLE),
        )

    def reached() -> bool:
        state, activity = unit.unit.state, agent_json(services.hub, unit)["activity"]
        if wanted == "exited":
            return state in (State.INACTIVE, State.FAILED, State.BACKOFF)
        return wanted in (state.value, activity)

    async def answer() -> dict[str, Any]:
        with trio.move_on_after(timeout_sec) as scope:
            await unit.wait_until(reached)
        now = agent_json(services.hub, unit)
        if scope.cancelled_caught:
            raise CspError(
                "timed-out",
                f"agent: {unit.name}: not {wanted} within {timeout_sec:g} s: it is {now['state']}",
            )
        return now

    return answer()


def _pause(paused: bool) -> Method:
    def method(services: Services, caller: Caller, params: Params) -> Any:
        _people_only(caller, "agent.pause" if paused else "agent.resume")
        room = params.maybe_text("room")
        name = services.hub.rooms.check(room) if room is not None else _unit(services, params).name
        params.check()
        scope = "agent" if room is None else "room"

        async def answer() -> dict[str, Any]:
            await services.hub.set_paused(scope, name, paused)
            return {}

        return answer()

    return method


def agent_screen(services: Services, caller: Caller, params: Params) -> Any:
    asked = {"scrollback": params.flag("scrollback", False), "ansi": params.flag("ansi", False)}
    return _ask_sidecar(services, _unit(services, params), "sidecar.screen", asked)


def agent_explain(services: Services, caller: Caller, params: Params) -> Any:
    return _ask_sidecar(services, _unit(services, params), "sidecar.explain", {})


async def _ask_sidecar(services: Services, unit: Supervised, method: str, params: dict[str, Any]) -> Any:
    """Of an agent that has just started, or whose sidecar was killed, the sidecar may still be on its way."""
    with trio.move_on_after(INTRODUCTION_SEC):
        await unit.wait_until(lambda: unit.name in services.hub.links or unit.unit.pid is None)
    return await services.hub.linked(unit.name).ask(method, params)


# ---------------------------------------------------------------------- messages and rooms


def chat_message(services: Services, caller: Caller, params: Params) -> Any:
    """`from` is the caller's identity; what the request says of it is ignored."""
    to, content, room = params.recipients("to"), params.text("content"), params.maybe_text("room")
    meta, reply_to = params.meta("meta"), params.maybe_text("reply_to")
    urgent = params.flag("urgent", False)
    params.check()
    meta |= {"reply_to": reply_to} if reply_to else {}
    meta |= {"urgent": True} if urgent else {}
    return services.hub.post(caller.identity.name, to, content, room=room, meta=meta)


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
        raise CspError("timed-out", f"message: {message_id}: not {step} within {timeout_sec:g} s")

    return answer()


def chat_get(services: Services, caller: Caller, params: Params) -> Any:
    message_id = params.text("message_id")
    params.check()

    async def answer() -> dict[str, Any]:
        message, deliveries, events = await services.hub.store.message(message_id)
        steps: dict[str, list[dict[str, Any]]] = {name: [] for name in deliveries}
        for event in events:
            if event.type == "delivery":
                entry = {key: event.data.get(key, "") for key in ("step", "reason", "evidence")}
                steps.setdefault(event.agent, []).append({**entry, "ts": event.ts})
        return {**message_json(message, deliveries), "steps": steps}

    return answer()


def chat_history(services: Services, caller: Caller, params: Params) -> Any:
    room, sender, to = params.maybe_text("room"), params.maybe_text("from"), params.maybe_text("to")
    grep, since = params.maybe_text("grep"), params.maybe_integer("since")
    limit = params.integer("limit", 50, 0, HISTORY_MAX)
    params.check()
    if room is not None:
        services.hub.rooms.check(room)
    for name in (sender, to):
        if name not in (None, HUMAN, "broadcast", "all", *services.hub.agents):
            services.manager.get(str(name))

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
    cursor = services.hub.store.committed_cursor

    async def send(event: Event) -> None:
        await caller.peer.notify("event", event_json(event))

    async def follow() -> None:
        try:
            await services.hub.follow(cursor if since is None else since, room, send)
        except CspError as exc:
            if exc.code != "unreachable":
                await caller.peer.notify("event", {"type": "dropped", "reason": exc.sentence, "hint": exc.hint})
            await caller.peer.lines.aclose()

    caller.nursery.start_soon(follow)
    return {"cursor": cursor}


async def _rooms(services: Services) -> list[dict[str, Any]]:
    rooms = services.hub.rooms
    return [dict(rooms.describe(name, await services.hub.store.counts(name))) for name in rooms.names()]


def room_list(services: Services, caller: Caller, params: Params) -> Any:
    return _rooms(services)


def room_get(services: Services, caller: Caller, params: Params) -> Any:
    room = params.text("room")
    params.check()
    services.hub.rooms.check(room)

    async def answer() -> dict[str, Any]:
        counts = await services.hub.store.counts(room)
        members = [services.manager.units[name] for name in services.hub.rooms.members(room)]
        return {
            **services.hub.rooms.describe(room, counts),
            "agents": [agent_json(services.hub, unit) for unit in members],
        }

    return answer()


def _membership(present: bool) -> Method:
    def method(services: Services, caller: Caller, params: Params) -> Any:
        room, name = params.text("room"), params.maybe_text("name") or caller.identity.agent
        params.check()
        if name is None:
            raise CspError("invalid-params", "name: it is missing: expected an agent's name")
        if name != caller.identity.agent:
            _people_only(caller, "room.join" if present else "room.leave")
        services.manager.get(name)
        (services.hub.rooms.join if present else services.hub.rooms.leave)(room, name)

        async def answer() -> dict[str, Any]:
            await services.hub.store.set_member(room, name, present)
            data = {"name": name, "joined": present}
            await services.hub.store.add_event("room", room, name, data, time.time())
            return {"room": room, "members": services.hub.rooms.members(room)}

        return answer()

    return method


def inbox_get(services: Services, caller: Caller, params: Params) -> Any:
    name = _unit(services, params).name

    async def answer() -> list[dict[str, Any]]:
        return [message_json(m, {name: d}) for m, d in await services.hub.store.pending(name)]

    return answer()


# ---------------------------------------------------------------------- what sidecars say


def sidecar_hello(services: Services, caller: Caller, params: Params) -> Any:
    """The one method that does not ask who the caller is by ancestry: only the keeper's word counts."""
    check_protocol(params.raw("protocol"), "sidecar")
    name, incarnation = params.text("name"), params.integer("incarnation", 0, 0, 1 << 62)
    activity, attached = params.maybe_text("activity"), params.integer("attached", 0, 0, 1 << 20)
    entries = params.items("ledger")
    params.check()
    unit = services.manager.get(name)
    in_hand = [InHand.from_wire(entry) for entry in entries]

    async def answer() -> dict[str, Any]:
        with trio.move_on_after(INTRODUCTION_SEC) as scope:  # the keeper's word may still be under way
            await unit.wait_until(lambda: unit.sidecar_pid == caller.pid)
        if scope.cancelled_caught:
            raise CspError("not-allowed", f"sidecar.hello: process {caller.pid}: not the sidecar of {name}")
        caller.link = Link(name, caller.peer, incarnation, activity, attached=attached)
        caller.nursery.start_soon(caller.link.run)
        welcome = services.hub.link(caller.link, in_hand)
        unit.notify()
        return {"protocol": PROTOCOL, **welcome}

    return answer()


def _link(caller: Caller) -> Link:
    if caller.link is None:
        raise CspError("not-allowed", "sidecar: say sidecar.hello first")
    return caller.link


def sidecar_step(services: Services, caller: Caller, params: Params) -> None:
    link = _link(caller)
    message_id, step = params.text("message_id"), params.text("step")
    reason, evidence = params.maybe_text("reason") or "", params.maybe_text("evidence") or ""
    params.check()
    if step in (*STEPS, "refused", "expired", "unknown"):
        services.hub.step(link.agent, message_id, step, reason, evidence)


def sidecar_activity(services: Services, caller: Caller, params: Params) -> None:
    link = _link(caller)
    link.activity, link.activity_reason = params.text("activity"), params.maybe_text("reason") or ""
    params.check()
    services.manager.get(link.agent).notify()


def sidecar_attached(services: Services, caller: Caller, params: Params) -> None:
    link = _link(caller)
    link.attached = params.integer("count", 0, 0, 1 << 20)
    params.check()
    services.manager.get(link.agent).notify()


def sidecar_line(services: Services, caller: Caller, params: Params) -> None:
    """The person submitted a line in the agent's terminal."""
    link = _link(caller)
    text = params.text("text")
    params.check()
    services.hub.human_line(link.agent, text)


def sidecar_said(services: Services, caller: Caller, params: Params) -> Any:
    """The agent said something to somebody by keyword. What cannot be routed is logged, the agent goes on."""
    link = _link(caller)
    to, content = params.text("to"), params.text("content")
    params.check()

    async def answer() -> dict[str, Any]:
        return await services.hub.post(link.agent, to, content, meta={"voice": "keyword"})

    return answer()


def sidecar_ended(services: Services, caller: Caller, params: Params) -> None:
    """Its agent has ended and everything is drained: the last lines of its screen."""
    link = _link(caller)
    services.hub.last_lines[link.agent] = params.text("text").split("\n")[-10:]


METHODS: Mapping[str, Method] = {
    "hello": hello,
    "daemon.status": daemon_status,
    "daemon.reload": daemon_reload,
    "agent.list": agent_list,
    "agent.get": agent_get,
    "agent.load": agent_load,
    "agent.remove": agent_remove,
    "agent.start": _action(Manager.start, "agent.start"),
    "agent.stop": _action(Manager.stop, "agent.stop"),
    "agent.restart": _action(Manager.restart, "agent.restart"),
    "agent.kill": agent_kill,
    "agent.wait": agent_wait,
    "agent.pause": _pause(True),
    "agent.resume": _pause(False),
    "agent.screen": agent_screen,
    "agent.explain": agent_explain,
    "chat.message": chat_message,
    "chat.wait": chat_wait,
    "chat.get": chat_get,
    "chat.history": chat_history,
    "events.subscribe": events_subscribe,
    "room.list": room_list,
    "room.get": room_get,
    "room.join": _membership(True),
    "room.leave": _membership(False),
    "inbox.get": inbox_get,
    "sidecar.hello": sidecar_hello,
    "sidecar.step": sidecar_step,
    "sidecar.activity": sidecar_activity,
    "sidecar.attached": sidecar_attached,
    "sidecar.line": sidecar_line,
    "sidecar.said": sidecar_said,
    "sidecar.ended": sidecar_ended,
}
