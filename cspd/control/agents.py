"""Methods about agents: what they are, and starting, stopping, waiting for and looking at them."""

import signal
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from cspd.control.call import INTRODUCTION_SEC, Caller, Method, Services, named_unit, people_only
from cspd.control.params import Params
from cspd.control.views import agent_json
from cspd.errors import CspError, nearest
from cspd.unit.machine import State
from cspd.unit.supervise import Supervised
from cspd.unit.wiring import wiring_advice

WAITABLE = ("running", "exited", "inactive", "failed", "starting", "idle", "busy", "dialog", "unknown")


def agent_list(services: Services, caller: Caller, params: Params) -> list[dict[str, Any]]:
    return [agent_json(services.hub, unit) for unit in services.manager.units.values()]


def agent_get(services: Services, caller: Caller, params: Params) -> Any:
    brief = params.flag("brief", False)  # nothing that only its sidecar knows
    unit = named_unit(services, params)

    async def answer() -> dict[str, Any]:
        config = unit.unit.config
        return {
            **with_advice(services, unit),
            "log": services.daemon.log_of(unit.name),
            "exit": unit.last_exit,
            "working_directory": str(config.working_directory),
            "restart": config.restart.policy,
            "unit_file": str(services.paths.unit_file(unit.name)),
            "last_lines": [] if brief else await _last_lines(services, unit.name),
        }

    return answer()


def with_advice(services: Services, unit: Supervised) -> dict[str, Any]:
    """The agent as it stands now, and what the person must still do for it."""
    return {**agent_json(services.hub, unit), "advice": wiring_advice(unit.unit.config, services.paths)}


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

    async def answer() -> dict[str, Any]:
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
    unit = named_unit(services, params)
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
                f"agent: {unit.name}: not {wanted} within {timeout_sec:g} s: it is {now['state']}, {now['activity']}",
            )
        return now

    return answer()


def pause(paused: bool) -> Method:
    def method(services: Services, caller: Caller, params: Params) -> Any:
        people_only(caller, "agent.pause" if paused else "agent.resume")
        room = params.maybe_text("room")
        name = services.hub.rooms.check(room) if room is not None else named_unit(services, params).name
        params.check()
        scope = "agent" if room is None else "room"

        async def answer() -> dict[str, Any]:
            await services.hub.set_paused(scope, name, paused)
            return {}

        return answer()

    return method


def agent_screen(services: Services, caller: Caller, params: Params) -> Any:
    asked = {"scrollback": params.flag("scrollback", False), "ansi": params.flag("ansi", False)}
    return _ask_sidecar(services, named_unit(services, params), "sidecar.screen", asked)


def agent_explain(services: Services, caller: Caller, params: Params) -> Any:
    return _ask_sidecar(services, named_unit(services, params), "sidecar.explain", {})


async def _ask_sidecar(services: Services, unit: Supervised, method: str, params: dict[str, Any]) -> Any:
    """Of an agent that has just started, or whose sidecar was killed, the sidecar may still be on its way."""
    with trio.move_on_after(INTRODUCTION_SEC):
        await unit.wait_until(lambda: unit.name in services.hub.links or unit.unit.pid is None)
    return await services.hub.linked(unit.name).ask(method, params)
