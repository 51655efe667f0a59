"""Methods about a room's floor, topic and votes: for people, and for agents that are in the room.

An agent that drives the floor of its room runs a debate; it cannot reach into rooms in which it is not.
"""

from typing import Any

from cspd.control.call import Caller, Services
from cspd.control.chat import room_json
from cspd.control.params import Params
from cspd.errors import CspError, nearest
from cspd.gateway.floor import ROUNDS_MAX, TURN_MAX_SEC, TURN_MIN_SEC, TURN_SEC
from cspd.gateway.room import VOTE
from cspd.gateway.vote import VOTE_SEC

MODES = ("freeform", "turns")
TOPIC_MAX = 1000  # characters


def _driven(services: Services, caller: Caller, params: Params) -> str:
    """The room, if the caller may drive it. Raises CspError: "no-such-room", "not-allowed"."""
    room = params.text("room")
    params.check()
    services.hub.rooms.check(room)
    agent = caller.identity.agent
    if agent is not None and agent not in services.hub.rooms.members(room):
        hint = "only its members and the person may"
        raise CspError("not-allowed", f"room: {room}: asked by agent {agent}, who is not in it", hint)
    return room


def room_set(services: Services, caller: Caller, params: Params) -> Any:
    """Give it a topic; open a floor with `mode` turns, close it with freeform."""
    mode, topic = params.maybe_text("mode"), params.maybe_text("topic")
    order = params.recipients("order") if params.raw("order") is not None else None
    rounds = params.integer("rounds", 1, 1, ROUNDS_MAX)
    turn_sec = params.seconds("turn_sec") if params.raw("turn_sec") is not None else TURN_SEC
    room = _driven(services, caller, params)
    if mode is not None and mode not in MODES:
        raise CspError("invalid-params", f"mode: {mode!r}: expected {' or '.join(MODES)}", nearest(mode, MODES))
    if mode == "freeform" and order is not None:
        raise CspError("invalid-params", "order: only turns have one", "leave it out, or mode turns")
    if not TURN_MIN_SEC <= turn_sec <= TURN_MAX_SEC:
        raise CspError("invalid-params", f"turn_sec: {turn_sec:g}: expected {TURN_MIN_SEC:g} to {TURN_MAX_SEC:g}")
    if topic is not None and len(topic) > TOPIC_MAX:
        raise CspError("invalid-params", f"topic: {len(topic)} characters: the limit is {TOPIC_MAX}")
    speakers = _speakers(services, caller, room, order) if mode == "turns" or order is not None else []
    assembly = services.hub.moderator.assembly
    if topic is not None:
        assembly.set_topic(room, topic)
    if speakers:
        assembly.open(room, speakers, rounds, turn_sec, caller.identity.name)
    elif mode == "freeform":
        assembly.close(room)
    return room_json(services, room)


def _speakers(services: Services, caller: Caller, room: str, order: str | list[str] | None) -> list[str]:
    members = services.hub.rooms.members(room)
    if order is None:
        speakers = [name for name in members if name != caller.identity.agent]
    else:
        speakers = list(dict.fromkeys([order] if isinstance(order, str) else order))
    outside = [name for name in speakers if name not in members]
    if outside:
        hint = f"members: {', '.join(members) or 'none'}"
        raise CspError("not-a-member", f"order: {', '.join(outside)}: not in room {room!r}", hint)
    if not speakers:
        raise CspError("nobody", f"room: {room}: nobody is there to speak in turn", "`cspctl rooms`")
    return speakers


def room_next(services: Services, caller: Caller, params: Params) -> Any:
    """The next one's turn, whatever the present speaker does."""
    room = _driven(services, caller, params)
    services.hub.moderator.assembly.next(room)
    return room_json(services, room)


def room_vote(services: Services, caller: Caller, params: Params) -> Any:
    """Open a vote with `question` and `choices`, cast a ballot with `choice`, or end the vote with `close`."""
    question, choice = params.maybe_text("question"), params.maybe_text("choice")
    choices = params.recipients("choices") if params.raw("choices") is not None else []
    close = params.flag("close", False)
    timeout_sec = params.seconds("timeout_sec") if params.raw("timeout_sec") is not None else VOTE_SEC
    room = _driven(services, caller, params)
    if sum((question is not None, choice is not None, close)) != 1:
        expected = "expected either question and choices, or choice, or close"
        raise CspError("invalid-params", f"room.vote: {expected}")
    assembly = services.hub.moderator.assembly
    if choice is not None:
        return services.hub.post(caller.identity.name, VOTE, choice, room=room)
    if close:
        assembly.close_vote(room)
    elif question is not None:
        assembly.open_vote(room, question, [choices] if isinstance(choices, str) else choices, timeout_sec)
    return room_json(services, room)
