"""Methods about agents: what they are, and starting, stopping, waiting for and looking at them."""

import signal
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from cspd.control.call import (
    INTRODUCTION_SEC,
    Caller,
    Member,
    Method,
    Services,
    named_member,
    named_unit,
    people_only,
)
from cspd.control.params import Params
from cspd.control.views import agent_json
from cspd.errors import CspError, nearest
from cspd.gateway.guests import Guest
from cspd.gateway.link import Link, Receiver
from cspd.gateway.moderator import stop_json
from cspd.unit.machine import State
from cspd.unit.wiring import wiring_advice

WAITABLE = ("running", "exited", "inactive", "failed", "starting", "idle", "busy", "dialog", "unknown")


def agent_list(services: Services, caller: Caller, params: Params) -> list[dict[str, Any]]:
    return [agent_json(services.hub, member) for member in services.members()]


def agent_get(services: Services, caller: Caller, params: Params) -> Any:
    brief = params.flag("brief", False)  # nothing that only its sidecar knows
    member = named_member(services, params)

    async def answer() -> dict[str, Any]:
        seen = {"last_lines": []} if brief else await _seen(services, member.name)
        return {
            **with_advice(services, member),
            "log": services.daemon.log_of(member.name),
            **_home(services, member),
            **seen,
        }

    return answer()


def with_advice(services: Services, member: Member) -> dict[str, Any]:
    """The agent as it stands now, what the person must still do for it, and whether its file says something else."""
    advice = "" if isinstance(member, Guest) else wiring_advice(member.unit.config, services.paths)
    problem = services.daemon.unit_file_problem(member.name)
    return {**agent_json(services.hub, member), "advice": advice, "unit_file_problem": problem}


def _home(services: Services, member: Member) -> dict[str, Any]:
    """What stands in its unit file. A guest has none."""
    if isinstance(member, Guest):
        return {"capabilities": dict(member.record.capabilities)}
    config = member.unit.config
    return {
        **services.daemon.about_profile(config.profile),
        "exit": member.last_exit,
        "working_directory": str(config.working_directory),
        "restart": config.restart.policy,
        "unit_file": str(services.paths.unit_file(member.name)),
    }


async def _seen(services: Services, name: str) -> dict[str, Any]:
    """What its sidecar knows: the end of its screen, and by which rule it is what it is now.

    A sidecar tells a new activity of itself, but not each rule that it goes on by.
    """
    link = services.hub.links.get(name)
    if link is None:
        return {"last_lines": services.hub.last_lines.get(name, [])}
    try:
        screen = await link.ask("sidecar.screen", {})
        decision = await link.ask("sidecar.explain", {})
    except CspError:
        return {"last_lines": []}  # it ended just now
    lines = [line for line in screen["text"].split("\n") if line.strip()]
    reason = {"activity_reason": decision["reason"]} if decision["activity"] == link.activity else {}
    return {"last_lines": lines[-10:], **reason}


def agent_load(services: Services, caller: Caller, params: Params) -> Any:
    people_only(caller, "agent.load")
    name = params.text("name")
    params.check()

    async def answer() -> dict[str, Any]:
        await services.daemon.load_unit(name)
        return with_advice(services, services.manager.get(name))

    return answer()


def agent_remove(services: Services, caller: Caller, params: Params) -> Any:
    people_only(caller, "agent.remove")
    name = params.text("name")
    params.check()
    guest = services.guests.members.get(name)
    if guest is not None and isinstance(services.hub.links.get(name), Link):
        # Its sidecar would type what it has been given, although we had called that refused.
        hint = "end it in its own terminal" if guest.record.local else f"cspctl tokens revoke {name} cuts it off"
        raise CspError("is-guest", f"agent: {name}: a guest that is there: it is run by somebody else", hint)

    async def answer() -> dict[str, Any]:
        if name in services.guests.members:
            await services.tokens.revoke_all(name)
            await services.guests.forget(name)
        else:
            await services.daemon.remove_unit(name)
        return {}

    return answer()


def action(act: Callable[..., Awaitable[None]], what: str) -> Method:
    def method(services: Services, caller: Caller, params: Params) -> Any:
        people_only(caller, what)
        wait = params.flag("wait", True)
        unit = named_unit(services, params)

        async def answer() -> dict[str, Any]:
            await act(services.manager, unit.name, wait=wait)
            return with_advice(services, unit)

        return answer()

    return method


def agent_kill(services: Services, caller: Caller, params: Params) -> Any:
    people_only(caller, "agent.kill")
    name = params.maybe_text("signal") or "SIGTERM"
    unit = named_unit(services, params)
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    number = int(name) if name.isdigit() else getattr(signal.Signals, full, None)
    if number is None or number not in signal.valid_signals():
        known = [each.name for each in signal.Signals]
        hint = nearest(full, known) or "`kill -l` lists them"
        raise CspError("invalid-params", f"signal: {name!r}: not a signal", hint)

    async def answer() -> dict[str, Any]:
        await services.manager.kill(unit.name, number)
        return agent_json(services.hub, unit)

    return answer()


def agent_wait(services: Services, caller: Caller, params: Params) -> Any:
    wanted = params.text("for")
    timeout_sec = params.seconds("timeout_sec")
    member = named_member(services, params)
    if wanted not in WAITABLE:
        raise CspError(
            "invalid-params",
            f"for: {wanted!r}: expected one of {', '.join(WAITABLE)}",
            nearest(wanted, WAITABLE),
        )

    def reached() -> bool:
        now = agent_json(services.hub, member)
        if wanted == "exited":
            return now["state"] in (State.INACTIVE.value, State.FAILED.value, State.BACKOFF.value)
        return wanted in (now["state"], now["activity"])

    async def answer() -> dict[str, Any]:
        with trio.move_on_after(timeout_sec) as scope:
            await member.wait_until(reached)
        now = agent_json(services.hub, member)
        if scope.cancelled_caught:
            is_now = ", ".join(filter(None, (now["state"], now["activity"])))
            why = f"agent: {member.name}: not {wanted} within {timeout_sec:g} s: it is {is_now}"
            raise CspError("timed-out", why, f"cspctl status {member.name} says why")
        return now

    return answer()


def pause(paused: bool) -> Method:
    def method(services: Services, caller: Caller, params: Params) -> Any:
        people_only(caller, "agent.pause" if paused else "agent.resume")
        room = params.maybe_text("room")
        params.only_one("name", "room")
        name = services.hub.rooms.check(room) if room is not None else named_member(services, params).name
        params.check()
        scope = "agent" if room is None else "room"

        def reply(_: None) -> dict[str, Any]:
            released = [] if paused else services.hub.moderator.resume(scope, name)
            return {"released": [stop_json(stop) for stop in released]}

        return services.hub.set_paused(scope, name, paused).then(reply)

    return method


def agent_screen(services: Services, caller: Caller, params: Params) -> Any:
    asked = {"scrollback": params.flag("scrollback", False), "ansi": params.flag("ansi", False)}
    return _ask_sidecar(services, named_member(services, params), "sidecar.screen", asked)


def agent_explain(services: Services, caller: Caller, params: Params) -> Any:
    return _ask_sidecar(services, named_member(services, params), "sidecar.explain", {})


async def _ask_sidecar(services: Services, member: Member, method: str, params: dict[str, Any]) -> Any:
    """When it was killed over the question, the one after it."""
    link = await _link(services, member)
    try:
        return await link.ask(method, params)
    except CspError as exc:
        if exc.code != "unreachable":
            raise
    return await (await _link(services, member, lost=link)).ask(method, params)


async def _link(services: Services, member: Member, lost: Receiver | None = None) -> Receiver:
    """Of an agent that has just started, or whose sidecar was killed, the sidecar may still be on its way."""
    links = services.hub.links
    if isinstance(member, Guest):
        if member.name not in links:
            hint = "its own person starts it: cspctl run"
            raise CspError("not-active", f"agent: {member.name}: a guest that is not here now", hint)
        return links[member.name]
    with trio.move_on_after(INTRODUCTION_SEC):
        await member.wait_until(lambda: links.get(member.name) not in (None, lost) or member.unit.pid is None)
    return services.hub.linked(member.name)
