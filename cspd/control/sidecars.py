"""Methods that only sidecars call: they introduce themselves, then report steps, states and what was said."""

from typing import Any

import trio

from cspd.control.call import INTRODUCTION_SEC, Caller, Services
from cspd.control.chat import STEPS
from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.inbox import InHand
from cspd.gateway.link import Link, way_round
from cspd.wire.version import PROTOCOL, check_protocol


def sidecar_hello(services: Services, caller: Caller, params: Params) -> Any:
    """The one method that does not ask who the caller is by ancestry: only the keeper's word counts."""
    check_protocol(params.raw("protocol"), "sidecar")
    name, incarnation = params.text("name"), params.integer("incarnation", 0, 0, 1 << 62)
    activity, attached = params.maybe_text("activity"), params.integer("attached", 0, 0, 1 << 20)
    inside = params.texts("inside")
    entries = params.items("ledger")
    params.check()
    unit = services.manager.get(name)
    in_hand = [InHand.from_wire(entry) for entry in entries]

    async def answer() -> dict[str, Any]:
        with trio.move_on_after(INTRODUCTION_SEC) as scope:  # the keeper's word may still be under way
            await unit.wait_until(lambda: unit.sidecar_pid == caller.pid)
        if scope.cancelled_caught:
            raise CspError("not-allowed", f"sidecar.hello: process {caller.pid}: not the sidecar of {name}")
        caller.link = Link(name, caller.peer, incarnation, activity, attached=attached, inside=inside)
        caller.nursery.start_soon(caller.link.run)
        welcome = services.hub.link(caller.link, in_hand)
        unit.notify()
        return {"protocol": PROTOCOL, **welcome}

    return answer()


def _link(caller: Caller) -> Link:
    if caller.link is None:
        raise CspError("not-allowed", "sidecar: say sidecar.hello first")
    return caller.link


def sidecar_step(services: Services, caller: Caller, params: Params) -> Any:
    link = _link(caller)
    message_id, step = params.text("message_id"), params.text("step")
    reason, evidence = params.maybe_text("reason") or "", params.maybe_text("evidence") or ""
    params.check()

    async def answer() -> dict[str, Any]:
        if step in (*STEPS, "refused", "expired", "unknown"):
            await services.hub.step(link.agent, message_id, step, reason, evidence)
        return {}

    return answer()


def sidecar_activity(services: Services, caller: Caller, params: Params) -> None:
    link = _link(caller)
    link.activity, link.activity_reason = params.text("activity"), params.maybe_text("reason") or ""
    params.check()
    services.manager.get(link.agent).notify()


def sidecar_attached(services: Services, caller: Caller, params: Params) -> None:
    link = _link(caller)
    link.attached, link.inside = params.integer("count", 0, 0, 1 << 20), params.texts("inside")
    params.check()
    services.manager.get(link.agent).notify()


def sidecar_show(services: Services, caller: Caller, params: Params) -> None:
    """A terminal inside another agent's wants to show this agent: refused when that one is shown in this one's."""
    link, inside = _link(caller), params.text("inside")
    params.check()
    shown_in = {name: other.inside for name, other in services.hub.links.items()}
    if way := way_round(shown_in, link.agent, inside):
        round_about = ", which is shown in ".join(way)
        raise CspError(
            "inside",
            f"agent: {link.agent}: this is the terminal of {round_about}: it would show itself for ever",
            "detach there first, or attach from a terminal of your own",
        )
    link.inside = {*link.inside, inside}  # two that come at once see each other; the next count corrects it


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


def agent_hook(services: Services, caller: Caller, params: Params) -> dict[str, Any]:
    """A hook of an agent's own program reports an event: believed of the agent that it runs in, and of no other."""
    told = {key: params.maybe_text(key) or "" for key in ("event", "subject", "prompt", "text")}
    params.check()
    agent = caller.identity.agent
    if agent is None:
        raise CspError("not-allowed", "agent.hook: asked from outside: only an agent's own hooks may report")
    link = services.hub.links.get(agent)
    if link is not None:  # else its sidecar is just being replaced: the screen tells the new one
        link.post("sidecar.hook", told)
    return {}
