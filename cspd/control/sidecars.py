"""Methods that only sidecars call: they introduce themselves, then report steps, states and what was said."""

from collections.abc import Awaitable
from typing import Any

import trio

from cspd.control.call import INTRODUCTION_SEC, Caller, Services
from cspd.control.chat import STEPS
from cspd.control.guests import check_only_one, check_sidecar
from cspd.control.params import Params
from cspd.errors import CspError
from cspd.gateway.guests import Guest
from cspd.gateway.identity import Identity
from cspd.gateway.inbox import InHand
from cspd.gateway.link import Here, Link, way_round
from cspd.unit.supervise import Supervised
from cspd.wire.said import message_id_of
from cspd.wire.version import PROTOCOL, check_protocol

BY_KEYWORD = {"voice": "keyword"}
UNHEARD_MAX = 100  # names of one agent, until its sidecar connects again
UNROUTABLE = ("no-such-agent", "nobody", "not-a-member", "no-such-room", "too-long")


def sidecar_hello(services: Services, caller: Caller, params: Params) -> Any:
    """The one method that does not ask who the caller is by ancestry: of units only the keeper's word counts."""
    check_protocol(params.raw("protocol"), "sidecar")
    name, incarnation = params.text("name"), params.integer("incarnation", 0, 0, 1 << 62)
    activity, attached = params.maybe_text("activity"), params.integer("attached", 0, 0, 1 << 20)
    agent_pid = params.integer("pid", 0, 0, 1 << 31)
    inside = params.texts("inside")
    entries = params.items("ledger")
    in_place = params.flag("in_place", False)
    params.check()
    member = services.member(name)
    in_hand = [InHand.from_wire(entry) for entry in entries]
    link = Link(
        name, caller.peer, incarnation, activity, attached=attached, inside=inside, pid=agent_pid, in_place=in_place
    )

    async def answer() -> dict[str, Any]:
        if isinstance(member, Guest):
            check_sidecar(caller, member)
            check_only_one(services, link)
            link.here = Here(agent_pid, caller.pid) if caller.pid and agent_pid else None
        else:
            await _keepers_word(member, caller)
            # When it connected, that word may not have been here yet, and nobody could tell whose process it is.
            caller.believe(Identity(name, sidecar=True))
        caller.link = link
        caller.nursery.start_soon(link.run)
        welcome = services.hub.link(link, in_hand)
        member.notify()
        return {"protocol": PROTOCOL, **welcome}

    return answer()


async def _keepers_word(unit: Supervised, caller: Caller) -> None:
    with trio.move_on_after(INTRODUCTION_SEC) as scope:  # it may still be under way
        await unit.wait_until(lambda: unit.sidecar_pid == caller.pid)
    if scope.cancelled_caught:
        raise CspError("not-allowed", f"sidecar.hello: process {caller.pid}: not the sidecar of {unit.name}")


def _link(caller: Caller) -> Link:
    if caller.link is None:
        raise CspError("not-allowed", "sidecar: say sidecar.hello first")
    return caller.link


def sidecar_step(services: Services, caller: Caller, params: Params) -> Any:
    link = _link(caller)
    message_id, step = params.text("message_id"), params.text("step")
    reason, evidence, said = (params.maybe_text(key) or "" for key in ("reason", "evidence", "answer"))
    params.check()

    async def answer() -> dict[str, Any]:
        if step in (*STEPS, "refused", "expired", "unknown"):
            await services.hub.step(link.agent, message_id, step, reason, evidence, said)
        return {}

    return answer()


def sidecar_activity(services: Services, caller: Caller, params: Params) -> None:
    link = _link(caller)
    link.activity, link.activity_reason = params.text("activity"), params.maybe_text("reason") or ""
    params.check()
    services.member(link.agent).notify()


def sidecar_attached(services: Services, caller: Caller, params: Params) -> None:
    link = _link(caller)
    link.attached, link.inside = params.integer("count", 0, 0, 1 << 20), params.texts("inside")
    params.check()
    services.member(link.agent).notify()


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


def sidecar_line(services: Services, caller: Caller, params: Params) -> Any:
    """The person submitted a line in the agent's terminal."""
    link = _link(caller)
    text, said_id = params.text("text"), params.maybe_text("said_id") or ""
    params.check()
    return _once(services.hub.human_line(link.agent, text, message_id_of(link.agent, said_id)))


def sidecar_said(services: Services, caller: Caller, params: Params) -> Any:
    """The agent said something to somebody by keyword.

    What cannot be routed the person is told, and not the agent: a word such as `@param:` in an answer would start a
    turn of it.
    """
    link = _link(caller)
    to, content, said_id = params.text("to"), params.text("content"), params.maybe_text("said_id") or ""
    params.check()
    message_id = message_id_of(link.agent, said_id)

    async def answer() -> dict[str, Any]:
        try:
            return await _once(services.hub.post(link.agent, to, content, meta=BY_KEYWORD, message_id=message_id))
        except CspError as exc:
            if exc.code not in UNROUTABLE:
                raise
            _unheard(services, link, to, exc)
            return {}

    return answer()


async def _once(stored: Awaitable[Any]) -> dict[str, Any]:
    """Answer when it is on disk; also what was there before: a sidecar says it again when the answer was lost."""
    try:
        answer = await stored
    except CspError as exc:
        if exc.code != "duplicate-message":
            raise
        return {}
    return answer if isinstance(answer, dict) else {}


def _unheard(services: Services, link: Link, to: str, why: CspError) -> None:
    """Once for each name: who writes `@param:` once writes it often."""
    if to in link.unheard or len(link.unheard) >= UNHEARD_MAX:
        return
    link.unheard.add(to)
    services.hub.note_agent(link.agent, {"to": to, "why": str(why)}, "unheard")


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
